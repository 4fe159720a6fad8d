"""Reads which file imports which, in Rust crates and Python packages, and finds circles of imports.

Rust: paths that begin with `crate`, `super`, `self` or the name of a submodule, in `use` and in
code, without test modules. A path to a name re-exported by a module from a submodule counts as an
import of the submodule. One pattern does not count: a `pub use` of a name from a submodule, if the
module does not use the name in its code, but only gathers the names of its submodules.

Python: `import` and `from` statements, also inside functions.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import rust_source

Graph = dict[str, set[str]]
"""Each module, and the modules that it imports. Rust: `a::b`; Python: `package.module`."""

USE = re.compile(r"^[ \t]*(?P<public>pub(?:\([^)]*\))?[ \t]+)?use\s+(?P<tree>[^;]+);", re.M)
PATH = re.compile(r"\b(?:crate|super|self)(?:::\w+)+")


def rust(source: Path) -> Graph:
    """The imports of a crate with this folder of sources."""
    files = {_rust_module(path.relative_to(source)): path for path in sorted(source.rglob("*.rs"))}
    texts = {
        name: rust_source.without_tests(rust_source.code(path.read_text())) for name, path in files.items()
    }
    exports = {name: _exports(name, text, files.keys()) for name, text in texts.items()}
    graph: Graph = {}
    for name, text in texts.items():
        reached = (_target(path, files.keys(), exports) for path in _paths(name, text, files.keys()))
        graph[name] = {target for target in reached if target != name}
    return graph


def _rust_module(path: Path) -> str:
    parts = [*path.parts[:-1], path.stem]
    if parts[-1] == "mod":
        parts.pop()
    return "lib" if parts in (["lib"], ["main"]) else "::".join(parts)


def _children(name: str, modules: Iterable[str]) -> set[str]:
    """The names of a module's direct submodules."""
    prefix = "" if name == "lib" else name + "::"
    below = (module.removeprefix(prefix) for module in modules if module.startswith(prefix))
    return {child for child in below if child != "lib" and "::" not in child}


def _paths(name: str, text: str, modules: Iterable[str]) -> Iterator[list[str]]:
    """Yields every path of a module that stays inside the crate, from the root of the crate."""
    children = _children(name, modules)
    body = USE.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)
    own = [] if name == "lib" else name.split("::")
    inline = list(rust_source.inline_modules(text))

    def absolute(path: list[str], position: int) -> list[str]:
        inner = [module for module, start, end in inline if start <= position < end]
        return _absolute(own + inner, path)

    for match in USE.finditer(text):
        for path, bound in _leaves(re.sub(r"\s+", " ", match["tree"])):
            inside = ["self", *path] if path[0] in children else path
            if inside[0] not in ("crate", "super", "self"):
                continue
            target = absolute(inside, match.start())
            is_gathered = match["public"] and target[: len(own)] == own and not _is_used(bound, body)
            if not is_gathered:
                yield target
    for match in PATH.finditer(body):
        yield absolute(match.group().split("::"), match.start())
    if children:
        for match in re.finditer(rf"(?<![\w:.])(?:{'|'.join(sorted(children))})(?:::\w+)+", body):
            yield own + match.group().split("::")


def _is_used(bound: str, body: str) -> bool:
    """Whether code uses a name. A name in lower case must be called or lead a path, because fields
    and variables often have the names of functions.
    """
    after = r"\s*(?:\(|::|!)" if bound.islower() else r"\b"
    return re.search(rf"(?<![\w:.])(?<!fn ){re.escape(bound)}{after}", body) is not None


def _absolute(here: list[str], path: list[str]) -> list[str]:
    """A path in the module `here`, from the root of the crate."""
    if path[0] == "crate":
        return path[1:]
    while path and path[0] in ("super", "self"):
        if path[0] == "super":
            here = here[:-1]
        path = path[1:]
    return here + path


def _leaves(tree: str, before: tuple[str, ...] = ()) -> Iterator[tuple[list[str], str]]:
    """Yields the paths of the tree of a `use`, and the name to which each is bound."""
    opening = tree.find("{")
    if opening < 0:
        plain, _, alias = (part.strip() for part in tree.partition(" as "))
        if plain:
            path = [*before, *(part for part in plain.split("::") if part != "self" or not before)]
            yield path, alias or path[-1]
        return
    stem = tuple(part for part in tree[:opening].strip().strip(":").split("::") if part)
    depth, start = 0, opening + 1
    for index in range(opening, len(tree)):
        if tree[index] == "{":
            depth += 1
        elif tree[index] == "}":
            depth -= 1
        if (tree[index] == "," and depth == 1) or depth == 0:
            yield from _leaves(tree[start:index], before + stem)
            start = index + 1
            if depth == 0:
                return


def _exports(name: str, text: str, modules: object) -> dict[str, list[str]]:
    """The names that a module re-exports, and where they come from."""
    found = {}
    for match in USE.finditer(text):
        if match["public"]:
            for path, bound in _leaves(re.sub(r"\s+", " ", match["tree"])):
                inside = path if path[0] in ("crate", "super", "self") else ["self", *path]
                found[bound] = _absolute([] if name == "lib" else name.split("::"), inside)
    return found


def _target(
    path: list[str],
    modules: object,
    exports: dict[str, dict[str, list[str]]],
    depth: int = 0,
) -> str:
    """The module in which the thing at a path is defined."""
    for end in range(len(path), 0, -1):
        module = "::".join(path[:end])
        if module in modules:  # type: ignore[operator]
            break
    else:
        module, end = "lib", 0
    if end < len(path) and depth < 3:
        exported = exports[module].get(path[end])
        if exported and exported != path:
            return _target(exported + path[end + 1 :], modules, exports, depth + 1)
    return module


def python(packages: list[Path]) -> Graph:
    """The imports of packages of Python."""
    files = {
        ".".join([package.name, *path.relative_to(package).with_suffix("").parts]): path
        for package in packages
        for path in sorted(package.rglob("*.py"))
    }
    graph: Graph = {}
    for name, path in files.items():
        graph[name] = {target for target in _imported(name, path) if target in files and target != name}
    return graph


def _imported(name: str, path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: -node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def circles(graph: Graph, most: int = 2) -> list[list[str]]:
    """The circles of more than `most` modules, each as a sorted list of all its modules."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in sorted(graph.get(name, ())):
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > most:
                found.append(sorted(group))

    for name in graph:
        if name not in index:
            visit(name)
    return found


def upward(graph: Graph, layers: list[str], allowed: dict[tuple[str, str], str]) -> list[str]:
    """The imports against the order of `layers`, bottom to top, except those in `allowed`; also
    modules without a layer, and unused layers and allowances.
    """
    wrong = []
    used: set[str] = set()
    needed: set[tuple[str, str]] = set()

    def layer(name: str) -> str | None:
        parts = name.split("::")
        prefixes = ("::".join(parts[:end]) for end in range(len(parts), 0, -1))
        return next((prefix for prefix in prefixes if prefix in layers), None)

    for name, targets in graph.items():
        own = layer(name)
        if own is None:
            wrong.append(f"{name} is in no layer")
            continue
        used.add(own)
        for target in sorted(targets):
            other = layer(target)
            if other is None or layers.index(other) <= layers.index(own):
                continue
            if (own, other) in allowed:
                needed.add((own, other))
            else:
                wrong.append(f"{name} imports {target}, which is above it")
    wrong += [f"the layer {name} has no module" for name in layers if name not in used]
    wrong += [
        f"{own} may import {other}, and does not" for own, other in allowed if (own, other) not in needed
    ]
    return wrong

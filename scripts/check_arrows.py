"""Checks the dependencies between the crates, and the imports between the files inside of them.

The table is the design in ARCHITECTURE.md: neither the core nor the disk crate knows a runtime or
depends on the other. A new arrow is a design decision: write the decision into ARCHITECTURE.md
first, then add the arrow to the table.

Inside crates and packages, at most two files may import each other in a circle, except the files in
`CIRCLES`. In the Python bindings, a file imports files of lower layers only.
"""

import json
import subprocess
import sys
from pathlib import Path

import imports

ROOT = Path(__file__).parent.parent

# Each crate, and the crates of this workspace that are allowed as dependencies.
ARROWS = {
    "async-cache-core": set(),
    "async-cache-disk": set(),
    "async-cache-macros": set(),
    "async-cache-redis": {"async-cache-core"},
    "async-cache-tier": {"async-cache-core", "async-cache-disk"},
    "async-cache": {
        "async-cache-core",
        "async-cache-disk",
        "async-cache-macros",
        "async-cache-redis",
        "async-cache-tier",
    },
    "async-cache-cli": {"async-cache-disk"},
    # The last for the console script, which runs the same tool.
    "async-cache-python": {
        "async-cache-core",
        "async-cache-disk",
        "async-cache-redis",
        "async-cache-tier",
        "async-cache-cli",
    },
    "async-cache-benches": {"async-cache", "async-cache-disk", "test-servers"},
    "async-cache-examples": {"async-cache"},
    "renamed-dependency": {"async-cache"},
    "test-servers": set(),
}

# Crates that must not reach a runtime, however indirectly.
WITHOUT_RUNTIME = {
    "async-cache-core",
    "async-cache-disk",
    "async-cache-macros",
    "async-cache-redis",
    "async-cache-tier",
    "async-cache-cli",
}
RUNTIMES = {"tokio", "async-std", "smol", "async-executor", "futures-executor", "pyo3"}

# The modules of the Python bindings, bottom to top. A folder's files share its layer, unless they
# have their own.
LAYERS = """
    raw library errors pace interpreter ttl window once inline nesting plain args codec call_key
    key call_query remote options target room item gathering cache host snapshot restore eager file_host journal
    journal_file driver done watch instances part agent::tool function work awaitable returned load batch reading enter ask waiting call many decorate
    file agent methods surface console lib
""".split()

# Imports against the order of the layers.
UPWARD = {
    ("raw", "errors"): "a `StopIteration` out of a coroutine becomes a `RuntimeError`",
}

# Circles of more than two files, by their first file.
CIRCLES: dict[str, str] = {}


def main() -> int:
    """Prints every forbidden arrow; returns 1 if any."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    names = {package["id"]: package["name"] for package in metadata["packages"]}
    edges = {
        node["id"]: {
            dependency["pkg"]
            for dependency in node["deps"]
            if any(kind["kind"] != "dev" for kind in dependency["dep_kinds"])
        }
        for node in metadata["resolve"]["nodes"]
    }
    wrong = []
    for member in metadata["workspace_members"]:
        name = names[member]
        if name not in ARROWS:
            wrong.append(f"{name} is not in the table of arrows")
            continue
        ours = {names[target] for target in edges[member]} & ARROWS.keys()
        wrong += [
            f"{name} -> {target} is not an arrow of the design" for target in sorted(ours - ARROWS[name])
        ]
        if name in WITHOUT_RUNTIME:
            wrong += [
                f"{name} reaches the runtime {runtime}"
                for runtime in reached(member, edges, names) & RUNTIMES
            ]
    wrong += of_files()
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def of_files() -> list[str]:
    """Every circle of files, and every import of the bindings from a higher layer."""
    bindings = ROOT / "bindings/python"
    sources = {path.parent.name: path for path in sorted(ROOT.glob("crates/*/src"))} | {
        "bindings": bindings / "src"
    }
    graphs = {name: imports.rust(path) for name, path in sources.items()}
    wrong = imports.upward(graphs["bindings"], LAYERS, UPWARD)
    graphs["python"] = imports.python([bindings / "python/cache", bindings / "python/agent_cache"])
    met = set()
    for name, graph in graphs.items():
        for circle in imports.circles(graph):
            met.add(circle[0])
            if circle[0] not in CIRCLES:
                wrong.append(f"{name}: a circle of imports: {', '.join(circle)}")
    return wrong + [f"{name} is in no circle any more" for name in CIRCLES if name not in met]


def reached(start: str, edges: dict[str, set[str]], names: dict[str, str]) -> set[str]:
    """Names the direct and indirect dependencies of a package."""
    seen, todo = set(), [start]
    while todo:
        for target in edges[todo.pop()] - seen:
            seen.add(target)
            todo.append(target)
    return {names[target] for target in seen}


if __name__ == "__main__":
    sys.exit(main())

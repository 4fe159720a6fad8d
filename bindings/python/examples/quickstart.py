"""Indexes the Python standard library: parses every module, and records its definitions with their
lines.

The index goes through a cache that survives the process, so the second run has it at once.

    python quickstart.py            # takes results of the last run from its file
    python quickstart.py --fresh    # discards them first
    python quickstart.py --folder F # keeps the files in F instead of target/quickstart-python

The cache is `cache` in `main`; the rest of the program is the work and the report.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypedDict

from cache import AsyncCache, DiskBackend


class Module(TypedDict):
    """The summary of a module. A plain dict, so that a Rust program can read it too."""

    path: str
    functions: int
    classes: int
    lines: int
    names: list[str]


async def main() -> None:
    """Indexes all modules, through the cache."""
    arguments = _arguments()
    backend = DiskBackend(arguments.folder / "modules.cache")
    if arguments.fresh:
        backend.clear()
    paths = list(modules())

    # The cache. Making it opens the file of the last run, and reads only the first page.
    started = time.perf_counter()
    cache = AsyncCache(maxsize=None, backup=backend)
    came_back, opened = len(cache.cache), time.perf_counter() - started
    print(f"{came_back} entries came back from the last run, in {opened * 1e3:.2f} ms")

    async def indexed(path: str) -> Module:
        # The one important line: from the cache, or from the slow function; once, for any number of
        # callers.
        found: Module = await cache.get(path, loader=lambda: index(path))
        return found

    found = [await indexed(path) for path in progress(paths)]
    seconds = time.perf_counter() - started

    # Without this line the next run would be as slow as the first.
    cache.save_to_backup()

    report(found)
    print(f"\n{cache.hits} of {len(paths)} modules came from the file, {cache.misses} were parsed")
    await compare(arguments.folder, seconds, warm=came_back > 0)


async def index(path: str) -> Module:
    """The slow work: reads, parses and walks a file. In a thread, so that the event loop is not
    blocked.
    """
    return await asyncio.to_thread(parse, path)


def parse(path: str) -> Module:
    """The definitions in a source file."""
    source = Path(path).read_bytes()
    definitions = [node for node in ast.walk(ast.parse(source, path)) if isinstance(node, DEFINITIONS)]
    classes = sum(isinstance(node, ast.ClassDef) for node in definitions)
    return Module(
        path=path,
        functions=len(definitions) - classes,
        classes=classes,
        lines=source.count(b"\n"),
        names=[f"{node.name}:{node.lineno}" for node in definitions],
    )


DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def modules() -> Iterator[str]:
    """The standard library's source files, without its tests and other installed packages."""
    folder = Path(sysconfig.get_path("stdlib"))
    others = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
    for path in sorted(folder.rglob("*.py")):
        if others.isdisjoint(path.relative_to(folder).parts):
            yield str(path)


def report(found: list[Module]) -> None:
    """Prints a summary."""
    lines = sum(module["lines"] for module in found)
    functions = sum(module["functions"] for module in found)
    classes = sum(module["classes"] for module in found)
    print(f"{len(found)} modules: {lines} lines, {functions} functions, {classes} classes")
    largest = max(found, key=lambda module: len(module["names"]))
    print(f"the one that defines most is {largest['path']}: {', '.join(largest['names'][:3])}, ...")


async def compare(folder: Path, seconds: float, *, warm: bool) -> None:
    """Prints the time of this run beside the last cold run. The last cold run is stored in a cache
    of its own.
    """
    runs = AsyncCache(backup=DiskBackend(folder / "runs.cache"))
    if not warm:
        print(f"cold: {seconds:.3f} s")
        runs.set("cold", seconds)
        runs.save_to_backup()
        return
    cold: float | None = await runs.get("cold")
    if cold is not None:
        print(f"cold: {cold:.3f} s")
    print(f"warm: {seconds:.3f} s")
    if cold is not None:
        print(f"the warm start was {cold / seconds:.0f} times as fast")


def progress(paths: list[str]) -> Iterable[str]:
    """Yields the paths; reports the progress on stderr."""
    every = 1 if sys.stderr.isatty() else max(1, len(paths) // 10)
    end = "\r" if sys.stderr.isatty() else "\n"
    for done, path in enumerate(paths, 1):
        yield path
        if done % every == 0:
            print(f"{done} of {len(paths)}", end=end, file=sys.stderr, flush=True)
    print(file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Indexes the Python standard library, through a cache.")
    parser.add_argument("--fresh", action="store_true", help="forget what the last run left behind")
    parser.add_argument("--folder", type=Path, default=Path("target/quickstart-python"))
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main())

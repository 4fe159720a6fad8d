"""The stories of `crates/async-cache-tier/tests/scenarios.txt`, which the Rust front runs too.

The promises of a cache and its file are the same in both languages. The head of that file explains
the words.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from loops import Run

from cache import AsyncCache, CacheWarning, DiskBackend

FILE = Path(__file__).parents[4] / "crates" / "async-cache-tier" / "tests" / "scenarios.txt"


def stories() -> dict[str, list[tuple[int, str]]]:
    """The lines of each story, with their numbers in the file."""
    found: dict[str, list[tuple[int, str]]] = {}
    lines: list[tuple[int, str]] = []
    for number, line in enumerate(FILE.read_text().splitlines(), 1):
        if line.startswith("== "):
            lines = found.setdefault(line.removeprefix("== "), [])
        elif line and not line.startswith("#"):
            lines.append((number, line))
    return found


STORIES = stories()


def test_the_file_has_stories() -> None:
    assert len(STORIES) > 20


@pytest.mark.parametrize("name", STORIES)
def test_the_story_holds(run: Run, path: Path, name: str) -> None:
    async def main() -> None:
        caches: dict[str, AsyncCache] = {}
        for number, line in STORIES[name]:
            told, _, expected = line.partition(" -> ")
            got = await step(caches, path, told.split())
            assert got == (expected or None), f"line {number}: {line}"

    with warnings.catch_warnings():
        # A foreign file, and entries that are dropped for want of room.
        warnings.simplefilter("ignore", CacheWarning)
        run(main())


async def step(caches: dict[str, AsyncCache], path: Path, words: list[str]) -> str | None:
    """Does one line; returns what it asks for."""
    match words:
        case ["file", "junk"]:
            path.write_bytes(b"no cache, but forty bytes of something else")
            return None
        case ["aside"]:
            return yes(path.with_name(path.name + ".aside").exists())
        case [name, "cache", *options]:
            caches[name] = build(path, options)
            return None
        case [name, "end"]:
            caches[name].close_journal(10)  # as the end of a process does
            del caches[name]
            return None
        case [name, *rest]:
            return await act(caches[name], path, rest)
    raise AssertionError(f"no such line: {words}")


async def act(cache: AsyncCache, path: Path, words: list[str]) -> str | None:
    """Does what a line says of one cache."""
    match words:
        case ["set", key, value]:
            cache.set(int(key), int(value))
        case ["set", key, value, "expired"]:
            cache.set(int(key), int(value), ttl=0)
        case ["delete", key]:
            cache.delete(int(key))
        case ["clear"]:
            cache.clear()
        case ["load", key, value]:

            async def load() -> int:
                return int(value)

            return str(await cache.get(int(key), load))
        case ["get", key]:
            found = await cache.get(int(key))
            return "none" if found is None else str(found)
        case ["in", key]:
            return yes(int(key) in cache.cache)
        case ["size"]:
            return str(len(cache.cache))
        case ["cold"]:
            return str(cache.stats()["cold"])
        case ["save"]:
            cache.save_to_backup()
            return str(len(DiskBackend(path).load()))
        case ["drops"]:
            return str(cache.stats()["dropped"])
        case ["open"]:
            cache.load_from_backup()
        case _:
            raise AssertionError(f"no such line: {words}")
    return None


def yes(holds: bool) -> str:
    return "yes" if holds else "no"


def build(path: Path, options: list[str]) -> AsyncCache:
    arguments: dict[str, Any] = {"maxsize": None}
    match options:
        case ["maxsize", size]:
            arguments["maxsize"] = int(size)
        case ["replacing"]:
            return AsyncCache(**arguments, backup=DiskBackend(path, merge=False))
        case ["journal"]:
            return AsyncCache(**arguments, backup=DiskBackend(path, journal=True))
        case ["journal", "maxsize", size]:
            return AsyncCache(maxsize=int(size), backup=DiskBackend(path, journal=True))
        case ["disk", "maxsize", size]:
            return AsyncCache(maxsize=int(size), backup=DiskBackend(path, disk_bytes=1 << 30))
        case []:
            pass
        case _:
            raise AssertionError(f"no such options: {options}")
    return AsyncCache(**arguments, backup=DiskBackend(path))

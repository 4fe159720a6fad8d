"""Memory per entry besides key and value: the growth of the process when existing objects are
inserted.

Each contender has a process of its own, since an allocator does not return memory used by an
earlier contender. The resident size is measured: Python's own accounting does not see allocations
of native code.
"""

from __future__ import annotations

import functools
import gc
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import report

ENTRIES = 200_000

OURS = "async-cache"
ORIGINAL = "the original"

Keys = list[str]
Fill = Callable[[Keys, list[list[int]]], object]
"""Puts every key and its value into a container, and returns the container."""


def bytes_per_entry(contender: str, entries: int, original: Path | None, rounds: int) -> float | None:
    """The median over some processes; `None` if the contender is not installed."""
    environment = dict(os.environ)
    if contender.startswith(ORIGINAL):
        if original is None:
            return None
        environment["PYTHONPATH"] = str(original)
    command = [sys.executable, __file__, contender, str(entries)]
    sizes = []
    for _ in range(rounds):
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if ran.returncode == _NOT_INSTALLED:
            return None
        if ran.returncode != 0:
            raise RuntimeError(f"{contender}: {ran.stderr}")
        sizes.append(float(ran.stdout))
    return report.median(sizes)


def contenders() -> list[str]:
    """The names of the contenders."""
    return list(_FILLS)


def _dict(keys: Keys, values: list[list[int]]) -> object:
    return dict(zip(keys, values, strict=True))


def _lru_cache(keys: Keys, values: list[list[int]]) -> object:
    value = iter(values)
    cached = functools.lru_cache(maxsize=len(keys))(lambda key: next(value))
    for key in keys:
        cached(key)
    return cached


def _cache(ttl: float | None, bounded: bool) -> Fill:
    def fill(keys: Keys, values: list[list[int]]) -> object:
        package = importlib.import_module("cache")
        cache = package.AsyncCache(maxsize=len(keys) if bounded else None, default_ttl=ttl)
        for key, value in zip(keys, values, strict=True):
            cache.set(key, value)
        assert len(cache.cache) == len(keys)
        return cache

    return fill


def _mapping(make: Callable[[int], Any]) -> Fill:
    def fill(keys: Keys, values: list[list[int]]) -> object:
        mapping = make(len(keys))
        for key, value in zip(keys, values, strict=True):
            mapping[key] = value
        return mapping

    return fill


def _moka(keys: Keys, values: list[list[int]]) -> object:
    cache = importlib.import_module("moka_py").Moka(len(keys))
    for key, value in zip(keys, values, strict=True):
        cache.set(key, value)
    cache.run_pending_tasks()
    return cache


_FILLS: dict[str, Fill] = {
    OURS: _cache(None, bounded=False),
    f"{OURS}, bounded": _cache(None, bounded=True),
    f"{OURS}, with a TTL": _cache(3600, bounded=False),
    ORIGINAL: _cache(None, bounded=False),
    f"{ORIGINAL}, with a TTL": _cache(3600, bounded=False),
    "a dict": _dict,
    "functools.lru_cache": _lru_cache,
    "cachebox, LRUCache": _mapping(lambda size: importlib.import_module("cachebox").LRUCache(size)),
    "moka-py": _moka,
}

_NOT_INSTALLED = 3


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _measure(contender: str, entries: int) -> float:
    keys = [f"key:{number}" for number in range(entries)]
    values = [[number] for number in range(entries)]
    fill = _FILLS[contender]
    fill(keys[:100], values[:100])  # imports the modules it needs
    gc.collect()
    before = _resident_bytes()
    filled = fill(keys, values)
    gc.collect()
    after = _resident_bytes()
    del filled
    return (after - before) / entries


if __name__ == "__main__":
    try:
        print(_measure(sys.argv[1], int(sys.argv[2])))
    except ImportError:
        sys.exit(_NOT_INSTALLED)

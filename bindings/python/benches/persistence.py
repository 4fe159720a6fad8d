"""Saving and restarting: a cache of small dicts, beside the pickle of a dict of them.

    python persistence.py [--entries 1000000] [--save]

Every restart is a new process. ``--save`` writes
``benches/results/python-<version of Python>-persistence.md``.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from records import clock, dump, key_of, load, record_of, records_of
from report import PYTHON, Report, duration, median, percentile

from cache import AsyncCache, DiskBackend

Figures = dict[str, float]

BEAT_SECONDS = 0.001


def main() -> None:
    """Runs every step in a new process, and reports."""
    arguments = _arguments()
    if arguments.step is not None:
        print(json.dumps(_STEPS[arguments.step](Path(arguments.folder), arguments.entries)))
        return
    with tempfile.TemporaryDirectory(prefix="async-cache-bench-") as folder:
        figures: Figures = {}
        for step in _STEPS:
            runs = [_in_a_process(step, folder, arguments.entries) for _ in range(_ROUNDS.get(step, 1))]
            figures |= {name: median([run[name] for run in runs]) for name in runs[0]}
    _report(figures, arguments.entries, arguments.save)


# The steps. Each is the body of a process, and returns its measurements, in seconds or bytes.


def save(folder: Path, entries: int) -> Figures:
    """Fills a dict and a cache, and saves both."""
    records = records_of(entries)
    cache = AsyncCache(maxsize=None, backup=DiskBackend(folder / "records.cache"))
    for key, value in records.items():
        cache.set(key, value)
    figures = {
        "pickle.dump": clock(lambda: dump(folder, records)),
        "pickle.dump, gc off": _without_gc(lambda: dump(folder, records)),
        "save": clock(cache.save_to_backup),
        "gc, everything in memory": clock(gc.collect),
        "bytes of the pickle": (folder / "records.pickle").stat().st_size,
        "bytes of the file": (folder / "records.cache").stat().st_size,
    }

    async def nothing() -> None:
        await asyncio.sleep(1)

    figures |= asyncio.run(_heartbeat("idle", nothing))
    figures |= asyncio.run(_heartbeat("async save", cache.save_to_backup_async))
    figures |= asyncio.run(_heartbeat("pickle thread", lambda: asyncio.to_thread(dump, folder, records)))
    return figures


def load_pickle(folder: Path, entries: int) -> Figures:
    """Loads the pickle, in the usual way."""
    before = _resident_bytes()
    started = time.perf_counter()
    records = load(folder)
    loaded = time.perf_counter()
    assert records[key_of(entries // 2)]["id"] == entries // 2
    return {
        "pickle.load": loaded - started,
        "pickle resident": _resident_bytes() - before,
        "pickle gc": clock(gc.collect),
    }


def load_pickle_without_gc(folder: Path, entries: int) -> Figures:
    """Loads the pickle, with the garbage collector off during the load."""
    return {"pickle.load, gc off": _without_gc(lambda: load(folder))}


def open_cache(folder: Path, entries: int) -> Figures:
    """Opens the cache's file."""
    return asyncio.run(_open_cache(folder, entries))


async def _open_cache(folder: Path, entries: int) -> Figures:
    before = _resident_bytes()
    started = time.perf_counter()
    cache = AsyncCache(maxsize=None, backup=DiskBackend(folder / "records.cache"))
    opened = time.perf_counter()
    value = await cache.get(key_of(entries // 2))
    answered = time.perf_counter()
    assert value == record_of(entries // 2)
    assert len(cache.cache) == entries
    resident = _resident_bytes() - before
    collecting = clock(gc.collect)

    # Spread over the file; each key is read once.
    count = min(10_000, entries // 2)
    cold = []
    for number in range(0, count * (entries // count), entries // count):
        key = key_of(number)
        asked = time.perf_counter()
        value = await cache.get(key)
        cold.append(time.perf_counter() - asked)
        assert value["id"] == number
    return {
        "open": opened - started,
        "open and first get": answered - started,
        "resident": resident,
        "cold gc": collecting,
        "cold get, p50": median(cold),
        "cold get, p99": percentile(cold, 0.99),
    }


_STEPS: dict[str, Callable[[Path, int], Figures]] = {
    "save": save,
    "load_pickle": load_pickle,
    "load_pickle_without_gc": load_pickle_without_gc,
    "open_cache": open_cache,
}
_ROUNDS = {"load_pickle": 3, "load_pickle_without_gc": 3, "open_cache": 5}


def _in_a_process(step: str, folder: str, entries: int) -> Figures:
    command = [sys.executable, __file__, "--step", step, "--folder", folder, "--entries", str(entries)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: Figures = json.loads(ran.stdout)
    return figures


async def _heartbeat(name: str, work: Callable[[], Awaitable[object]]) -> Figures:
    """The gaps between the beats of a task meant to run every millisecond, beside some work."""
    gaps: list[float] = []
    done = False

    async def beat() -> None:
        last = time.perf_counter()
        while not done:
            await asyncio.sleep(BEAT_SECONDS)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    beating = asyncio.create_task(beat())
    await asyncio.sleep(0)
    started = time.perf_counter()
    await work()
    took = time.perf_counter() - started
    done = True
    await beating
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
    figures = {f"{name}, {label}": percentile(gaps, share) for label, share in shares.items()}
    return {f"{name}, took": took, **figures}


def _without_gc(work: Callable[[], object]) -> float:
    gc.disable()
    try:
        return clock(work)
    finally:
        gc.enable()


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _report(figures: Figures, entries: int, keep: bool) -> None:
    report = Report(f"Persistence of async-cache for Python, on Python {PYTHON}", ["async-cache"])
    report.line(
        f"{entries:,} dicts `{{id, name, score, tags}}` under keys like `user:123`; warm page cache; "
        "both files are written beside the old one, synced and renamed. Every restart is a process of its "
        "own; medians.\n"
    )

    def seconds(name: str) -> str:
        return duration(figures[name])

    def mebibytes(name: str) -> str:
        return f"{figures[name] / 2**20:.1f} MiB"

    report.table(
        ["", "async-cache", "pickle of the dict", "pickle, gc off"],
        [
            ["save", seconds("save"), seconds("pickle.dump"), seconds("pickle.dump, gc off")],
            ["file", mebibytes("bytes of the file"), mebibytes("bytes of the pickle"), ""],
            ["start: until ready", seconds("open"), seconds("pickle.load"), seconds("pickle.load, gc off")],
            ["start: until the first value", seconds("open and first get"), seconds("pickle.load"), ""],
            ["resident after the start", mebibytes("resident"), mebibytes("pickle resident"), ""],
            ["`gc.collect()` after the start", seconds("cold gc"), seconds("pickle gc"), ""],
            ["first `get` of a key, median", seconds("cold get, p50"), "", ""],
            ["first `get` of a key, p99", seconds("cold get, p99"), "", ""],
        ],
    )
    report.line("## What a save does to the event loop\n")
    report.line("The gaps between the beats of a task that sleeps for a millisecond at a time.\n")
    works = {
        "nothing": "idle",
        "`save_to_backup_async`": "async save",
        "pickle in a thread": "pickle thread",
    }
    report.table(
        ["meanwhile", "took", "p50", "p99", "p99.9", "max"],
        [
            [title, *(seconds(f"{name}, {figure}") for figure in ("took", "p50", "p99", "p99.9", "max"))]
            for title, name in works.items()
        ],
    )
    if keep:
        report.save(f"python-{PYTHON}-persistence")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Saving and coming back, beside pickle.")
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--save", action="store_true", help="write the report to benches/results")
    parser.add_argument("--step", choices=_STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""Delays of an event loop beside saves and loads in threads, and the duration of the saves and
loads.

    python loop_lag.py [--entries 300000] [--rounds 3] [--only NAME] [--save]

A task sleeps for a millisecond again and again, and records each delay beyond the millisecond.
Beside it, in a thread, runs either a plain loop of Python code, for comparison, or a save or load
of a cache. ``--save`` writes ``benches/results/python-<version of Python>-loop-lag.md``.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import gc
import pickle
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from report import PYTHON, Report, duration, median, percentile

from cache import AsyncCache, CacheBackend, DiskBackend

Work = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Key:
    """A key or value that is pickled."""

    tenant: str
    number: int


class InMemory(CacheBackend):
    """A user's own backend."""

    def __init__(self) -> None:
        self.data: dict[Any, Any] = {}

    def load(self) -> dict[Any, Any]:
        return self.data

    def save(self, data: dict[Any, Any]) -> None:
        self.data = data

    def clear(self) -> None:
        self.data = {}


def full(entries: int, backend: CacheBackend | None, make: Callable[[int], tuple[Any, Any]]) -> AsyncCache:
    """A cache with `entries` entries."""
    cache = AsyncCache(maxsize=None, backup=backend)
    for number in range(entries):
        cache.set(*make(number))
    return cache


def plain(number: int) -> tuple[Any, Any]:
    return f"key {number}", number


def with_object_key(number: int) -> tuple[Any, Any]:
    return Key("a", number), number


def with_object(number: int) -> tuple[Any, Any]:
    return number, Key("a", number)


def with_dict(number: int) -> tuple[Any, Any]:
    return number, {"number": number, "tags": [number, "a"]}


def count(entries: int, folder: Path) -> Work:
    return lambda: sum(1 for _ in range(entries * 20))


def pickle_plainly(entries: int, folder: Path) -> Work:
    keys = [Key("a", number) for number in range(entries)]
    return lambda: [pickle.dumps(key) for key in keys]


def saved(make: Callable[[int], tuple[Any, Any]]) -> Callable[[int, Path], Work]:
    def prepare(entries: int, folder: Path) -> Work:
        return full(entries, DiskBackend(folder / "cache"), make).save_to_backup

    return prepare


def loaded_again(make: Callable[[int], tuple[Any, Any]]) -> Callable[[int, Path], Work]:
    def prepare(entries: int, folder: Path) -> Work:
        cache = full(entries, DiskBackend(folder / "cache"), make)
        cache.save_to_backup()
        return cache.load_from_backup

    return prepare


def opened(make: Callable[[int], tuple[Any, Any]]) -> Callable[[int, Path], Work]:
    def prepare(entries: int, folder: Path) -> Work:
        full(entries, DiskBackend(folder / "cache"), make).save_to_backup()
        return lambda: AsyncCache(maxsize=None, backup=DiskBackend(folder / "cache"))

    return prepare


def loaded_alone(entries: int, folder: Path) -> Work:
    full(entries, DiskBackend(folder / "cache"), plain).save_to_backup()
    return DiskBackend(folder / "cache").load


def saved_alone(entries: int, folder: Path) -> Work:
    data: dict[Any, Any] = {key: (value, None) for key, value in map(plain, range(entries))}
    return lambda: DiskBackend(folder / "cache").save(data)


def handed_over(entries: int, folder: Path) -> Work:
    return full(entries, InMemory(), plain).save_to_backup


def restored(entries: int, folder: Path) -> Work:
    backend = InMemory()
    full(entries, backend, plain).save_to_backup()
    return lambda: AsyncCache(maxsize=None, backup=backend)


def cleared(entries: int, folder: Path) -> Work:
    return full(entries, None, with_dict).clear


WORK: dict[str, Callable[[int, Path], Work]] = {
    "a thread that counts": count,
    "a thread that pickles": pickle_plainly,
    "save, plain": saved(plain),
    "save, dicts as values": saved(with_dict),
    "save, objects as keys": saved(with_object_key),
    "save, objects as values": saved(with_object),
    "load_from_backup, plain": loaded_again(plain),
    "load_from_backup, objects as keys": loaded_again(with_object_key),
    "construction, objects as keys": opened(with_object_key),
    "DiskBackend.load": loaded_alone,
    "DiskBackend.save": saved_alone,
    "save to a backend of one's own": handed_over,
    "construction from a backend of one's own": restored,
    "clear, dicts as values": cleared,
}


async def beside(work: Work) -> tuple[list[float], float]:
    """The delays of a loop beside the work, and the duration of the work."""
    late: list[float] = []
    is_over = False

    async def tick() -> None:
        while not is_over:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            late.append(time.perf_counter() - began - 0.001)

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0.02)
    late.clear()
    took, kept = await asyncio.to_thread(timed, work)
    is_over = True
    await ticking
    del kept  # only now: Python drops the result all at once
    return late, took


def timed(work: Work) -> tuple[float, object]:
    began = time.perf_counter()
    kept = work()
    return time.perf_counter() - began, kept


def measure(
    prepare: Callable[[int, Path], Work], entries: int, rounds: int
) -> tuple[list[float], float, float]:
    late, with_loop, alone = [], [], []
    for _ in range(rounds):
        for beside_loop in (True, False):
            with tempfile.TemporaryDirectory(prefix="async-cache-bench-") as folder:
                work = prepare(entries, Path(folder))
                gc.collect()
                if beside_loop:
                    some, took = asyncio.run(beside(work))
                    late += some
                    with_loop.append(took)
                else:
                    alone.append(timed(work)[0])
    return late, median(with_loop), median(alone)


def main() -> None:
    """Measures all cases, and reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--entries", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="only work whose name has this in it")
    parser.add_argument(
        "--gc", action="store_true", help="with the garbage collector, whose pauses are Python's"
    )
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    if not arguments.gc:
        gc.disable()
    report = Report("An event loop beside saves and loads", ["async-cache"])
    report.line(f"{arguments.entries:,} entries, {arguments.rounds} rounds.\n")
    rows = []
    for name, prepare in WORK.items():
        if arguments.only in name:
            late, with_loop, alone = measure(prepare, arguments.entries, arguments.rounds)
            shares = [duration(max(0.0, percentile(late, share))) for share in (0.5, 0.99, 0.999)]
            rows.append((name, *shares, duration(max(late)), duration(with_loop), duration(alone)))
            print(*rows[-1], sep=" | ", flush=True)
    header = ["beside", "late: median", "p99", "p99.9", "most", "it takes", "without a loop"]
    report.table(header, rows)
    if arguments.save:
        report.save(f"python-{PYTHON}-loop-lag")


if __name__ == "__main__":
    main()

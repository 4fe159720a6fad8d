"""The cost of each option of a file, beside the pickle of a dict and diskcache, on the same
entries.

    python options.py [--entries 100000] [--rounds 5] [--save]

All contenders take turns in every round; every save and every restart is a new process. ``--save``
writes ``benches/results/python-<version of Python>-options.md``.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from records import clock, dump, key_of, load, record_of, records_of
from report import PYTHON, Report, digits, duration, median

from cache import AsyncCache, DiskBackend

Figures = dict[str, float]

# A peer that is not installed is left out of the table.
_diskcache: Any = importlib.import_module("diskcache") if importlib.util.find_spec("diskcache") else None

SECRET = "a secret for benchmarks"
# Gets after the first one, spread over the entries.
GETS = 2000


def main() -> None:
    """Runs every step in a new process, and reports."""
    arguments = _arguments()
    if arguments.step is not None:
        contender = CONTENDERS[arguments.contender]
        step = contender.save if arguments.step == "save" else contender.come_back
        print(json.dumps(step(Path(arguments.folder), arguments.entries)))
        return
    names = [name for name in CONTENDERS if name != "diskcache" or _diskcache is not None]
    figures: dict[str, list[Figures]] = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name in names:
            with tempfile.TemporaryDirectory(prefix="async-cache-bench-") as folder:
                saved = _in_a_process("save", name, folder, arguments.entries)
                came_back = _in_a_process("come_back", name, folder, arguments.entries)
            figures[name].append(saved | came_back)
    medians = {
        name: {figure: median([run[figure] for run in runs]) for figure in runs[0]}
        for name, runs in figures.items()
    }
    _report(medians, arguments)


class Ours:
    """The cache with some options of its backend."""

    def __init__(self, joins: bool = False, **options: Any) -> None:
        self._joins = joins
        self._options = options

    def _open(self, folder: Path) -> AsyncCache:
        return AsyncCache(maxsize=None, backup=DiskBackend(folder / "records.cache", **self._options))

    def save(self, folder: Path, entries: int) -> Figures:
        """Saves the entries in memory."""
        cache, other = self._open(folder), self._open(folder)
        if self._joins:
            for key, value in records_of(entries).items():
                other.set(key, value)
            other.save_to_backup()
        for key, value in records_of(entries).items():
            cache.set(key, value)
        return {"save": clock(cache.save_to_backup), "bytes": (folder / "records.cache").stat().st_size}

    def come_back(self, folder: Path, entries: int) -> Figures:
        """Opens the file, and reads entries."""

        async def come_back() -> Figures:
            started = time.perf_counter()
            cache = self._open(folder)
            opened = time.perf_counter()
            assert await cache.get(key_of(entries // 2)) == record_of(entries // 2)
            figures = {"open": opened - started, "first get": time.perf_counter() - started}
            times = []
            for number in _asked(entries):
                key = key_of(number)
                asked = time.perf_counter()
                value = await cache.get(key)
                times.append(time.perf_counter() - asked)
                assert value["id"] == number
            return figures | {"get": median(times)}

        return asyncio.run(come_back())


class Pickle:
    """A dict and its pickle."""

    def save(self, folder: Path, entries: int) -> Figures:
        """Dumps the dict."""
        records = records_of(entries)
        return {
            "save": clock(lambda: dump(folder, records)),
            "bytes": (folder / "records.pickle").stat().st_size,
        }

    def come_back(self, folder: Path, entries: int) -> Figures:
        """Loads the dict."""
        started = time.perf_counter()
        records = load(folder)
        loaded = time.perf_counter() - started
        assert records[key_of(entries // 2)] == record_of(entries // 2)
        return {"open": loaded, "first get": loaded}


class DiskCache:
    """diskcache: entries are rows of SQLite. Without a save of its own: all are written in one
    transaction.
    """

    def _open(self, folder: Path) -> Any:
        return _diskcache.Cache(folder / "diskcache", eviction_policy="none", size_limit=2**40)

    def save(self, folder: Path, entries: int) -> Figures:
        """Writes all entries, and closes the cache, which empties its write-ahead log."""
        records = records_of(entries)

        def write() -> None:
            cache = self._open(folder)
            with cache.transact():
                for key, value in records.items():
                    cache.set(key, value)
            cache.close()

        took = clock(write)
        return {"save": took, "bytes": sum(file.stat().st_size for file in (folder / "diskcache").rglob("*"))}

    def come_back(self, folder: Path, entries: int) -> Figures:
        """Opens the database, and reads entries."""
        started = time.perf_counter()
        cache = self._open(folder)
        opened = time.perf_counter()
        assert cache.get(key_of(entries // 2)) == record_of(entries // 2)
        figures = {"open": opened - started, "first get": time.perf_counter() - started}
        times = []
        for number in _asked(entries):
            key = key_of(number)
            asked = time.perf_counter()
            value = cache.get(key)
            times.append(time.perf_counter() - asked)
            assert value["id"] == number
        return figures | {"get": median(times)}


CONTENDERS: dict[str, Ours | Pickle | DiskCache] = {
    "none": Ours(),
    "`merge=False`": Ours(merge=False),
    "merging with another's file of the same keys": Ours(joins=True),
    '`secret="..."`': Ours(secret=SECRET),
    '`compression="zstd"`': Ours(compression="zstd"),
    "secret and compression": Ours(secret=SECRET, compression="zstd"),
    "pickle of the dict": Pickle(),
    "diskcache": DiskCache(),
}


def _asked(entries: int) -> range:
    return range(0, entries, max(1, entries // GETS))


def _in_a_process(step: str, contender: str, folder: str, entries: int) -> Figures:
    command = [sys.executable, __file__, "--step", step, "--contender", contender]
    command += ["--folder", folder, "--entries", str(entries)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: Figures = json.loads(ran.stdout)
    return figures


def _report(medians: dict[str, Figures], arguments: argparse.Namespace) -> None:
    title = f"What the options of a file cost in Python, on Python {PYTHON}"
    report = Report(title, ["async-cache", "diskcache"])
    report.line(
        f"{arguments.entries:,} dicts `{{id, name, score, tags}}` under keys like `user:123`; warm page cache. Medians "
        f"of {arguments.rounds} rounds, in which all contenders took turns; every save and every restart is a process of "
        "its own. Saves are synced. diskcache has no save: its figure is for writing all entries in one transaction and "
        'closing it. "None" merges, and nobody else has saved.\n'
    )
    plain = medians["none"]

    def ratio(figures: Figures, name: str) -> str:
        return f"{figures[name] / plain[name]:.2f}"

    report.table(
        [
            "options",
            "save",
            "of plain",
            "on disk",
            "of plain",
            "until ready",
            "until the first value",
            "first `get`",
        ],
        [
            [
                name,
                duration(figures["save"]),
                ratio(figures, "save"),
                f"{digits(figures['bytes'] / 2**20)} MiB",
                ratio(figures, "bytes"),
                duration(figures["open"]),
                duration(figures["first get"]),
                duration(figures["get"]) if "get" in figures else "",
            ]
            for name, figures in medians.items()
        ],
    )
    if arguments.save:
        report.save(f"python-{PYTHON}-options")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What the options of a file cost.")
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--save", action="store_true", help="write the report to benches/results")
    parser.add_argument("--step", choices=("save", "come_back"), help=argparse.SUPPRESS)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()

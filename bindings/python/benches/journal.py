"""A cache with a journal, beside a cache without, diskcache, SQLite and pickle: what a `set` costs,
a save, a start, a kill, and what it does to an event loop.

    python journal.py [--entries 1000000] [--kills 20] [--smoke] [--save]

Every step runs in a process of its own. ``--smoke`` only shows that everything still runs.
``--save`` writes ``benches/results/python-<version of Python>-journal.md``.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import importlib.util
import itertools
import json
import os
import pickle
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from records import clock, dump, key_of, record_of, records_of
from report import PYTHON, Report, digits, duration, median, percentile

from cache import AsyncCache, DiskBackend

# A peer that is not installed is left out of the tables.
_diskcache: Any = importlib.import_module("diskcache") if importlib.util.find_spec("diskcache") else None

Set = Callable[[str, Any], object]
Figures = dict[str, float]

# The end of the process closes their journals in order.
_until_the_end: list[object] = []

KEYS = 10_000
RATE = 10_000
TAILS = 16 << 20
# The bytes of a record of the journal with a dict of `record_of`, roughly.
RECORD = 120


class Store:
    """A contender: something that is opened, written to, saved and closed."""

    title = ""
    survives = "every `set`"
    batch = 1000

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def set(self, key: str, value: Any) -> object:
        """Writes an entry."""
        raise NotImplementedError

    async def get(self, key: str) -> Any:
        """Reads an entry."""
        raise NotImplementedError

    def fill(self, records: dict[str, Any]) -> None:
        """Writes many entries."""
        for key, value in records.items():
            self.set(key, value)

    def change(self, records: dict[str, Any]) -> tuple[float, float]:
        """Writes entries so that all are durable. Returns the seconds of the writes and of the
        save.
        """
        writing = clock(lambda: self.fill(records))
        return writing, clock(self.sync)

    def sync(self) -> None:
        """Makes everything durable."""
        raise NotImplementedError

    def close(self) -> None:
        """Closes the store: the path can be opened again."""

    def finish(self) -> None:
        """Closes the store in order, at the end of the process."""
        self.close()


class Journal(Store):
    """A cache with a journal."""

    title = "async-cache, journal"
    options: dict[str, Any] = {"journal": True}

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        backend = DiskBackend(folder / "records.cache", **self.options)
        self.cache = AsyncCache(maxsize=None, backup=backend)
        self.set = self.cache.set  # type: ignore[method-assign] # no call in between

    async def get(self, key: str) -> Any:
        return await self.cache.get(key)

    def sync(self) -> None:
        self.cache.save_to_backup()

    def close(self) -> None:
        # A cache that is dropped is opened as after a kill.
        del self.set, self.cache

    def finish(self) -> None:
        _until_the_end.append(self.cache)


class Snapshots(Journal):
    """A cache without a journal: in memory until a save."""

    title = "async-cache, snapshots"
    survives = "what was saved"
    options: dict[str, Any] = {}

    def close(self) -> None:
        self.sync()
        super().close()

    def finish(self) -> None:
        self.close()


class Sqlite(Store):
    """A table of pickles. Every statement is a transaction."""

    title = "sqlite3, WAL, pickles"
    batch = 200
    synchronous = "NORMAL"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.connection = sqlite3.connect(folder / "records.sqlite", isolation_level=None)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute(f"PRAGMA synchronous={self.synchronous}")
        table = "CREATE TABLE IF NOT EXISTS records (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID"
        self.connection.execute(table)

    def set(self, key: str, value: Any) -> object:
        row = (key, pickle.dumps(value, pickle.HIGHEST_PROTOCOL))
        return self.connection.execute("INSERT OR REPLACE INTO records VALUES (?, ?)", row)

    async def get(self, key: str) -> Any:
        row = self.connection.execute("SELECT value FROM records WHERE key = ?", (key,)).fetchone()
        return pickle.loads(row[0])

    def fill(self, records: dict[str, Any]) -> None:
        self.connection.execute("BEGIN")
        super().fill(records)
        self.connection.execute("COMMIT")

    def sync(self) -> None:
        pass  # A commit is durable, with `synchronous=FULL`.

    def close(self) -> None:
        self.connection.close()


class SqliteFull(Sqlite):
    """The same, with durable commits."""

    title = "sqlite3, WAL, `synchronous=FULL`"
    synchronous = "FULL"


class DiskCache(Store):
    """diskcache."""

    title = "diskcache"
    batch = 100

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.cache = _diskcache.Cache(str(folder / "diskcache"), size_limit=1 << 40)
        self.set = self.cache.set  # type: ignore[method-assign]

    async def get(self, key: str) -> Any:
        return self.cache.get(key)

    def fill(self, records: dict[str, Any]) -> None:
        with self.cache.transact():
            super().fill(records)

    def sync(self) -> None:
        pass  # As durable as its SQLite is by default: `synchronous=NORMAL`.

    def close(self) -> None:
        self.cache.close()


STORES: list[type[Store]] = [Journal, Snapshots, Sqlite, *([DiskCache] if _diskcache else [])]
BY_NAME: dict[str, type[Store]] = {store.__name__: store for store in [*STORES, SqliteFull]}


# The cost of a `set`.


def small(number: int) -> dict[str, Any]:
    """A small dict."""
    return {"id": number, "name": f"user {number}"}


VALUES: dict[str, Callable[[int], dict[str, Any]]] = {"two fields": small, "four fields": record_of}


def sets(rounds: int, step: int) -> dict[str, dict[str, tuple[float, list[float]]]]:
    """For every kind of value and contender: seconds of a `set`, and of single ones."""
    found: dict[str, dict[str, tuple[float, list[float]]]] = {}
    for name, make in VALUES.items():
        batches: dict[str, list[float]] = {store.title: [] for store in STORES}
        singles: dict[str, list[float]] = {store.title: [] for store in STORES}
        with tempfile.TemporaryDirectory(prefix="async-cache-bench-") as folder:
            stores = [store(_below(folder, store.__name__)) for store in STORES]
            for number in range(rounds + 1):
                for store in stores:
                    count = max(1, min(step, store.batch))
                    keys = [key_of(random.randrange(KEYS)) for _ in range(count)]
                    values = [make(random.randrange(KEYS)) for _ in range(count)]
                    batch = _batch(store.set, keys, values) / count
                    each = _one_by_one(store.set, keys, values)
                    if number > 0:  # the first round warms up
                        batches[store.title].append(batch)
                        singles[store.title] += each
            for store in stores:
                store.close()
        found[name] = {title: (median(batches[title]), singles[title]) for title in batches}
    return found


def _batch(set_: Set, keys: list[str], values: list[Any]) -> float:
    started = time.perf_counter()
    for key, value in zip(keys, values, strict=True):
        set_(key, value)
    return time.perf_counter() - started


def _one_by_one(set_: Set, keys: list[str], values: list[Any]) -> list[float]:
    times = []
    for key, value in zip(keys, values, strict=True):
        started = time.perf_counter()
        set_(key, value)
        times.append(time.perf_counter() - started)
    return times


# Steps, each in a process of its own.


def save(kind: str, folder: Path, entries: int) -> Figures:
    """Saves after one entry in a hundred has changed."""
    store = BY_NAME[kind](folder)
    store.fill(records_of(entries))
    store.sync()
    writes, saves = [], []
    for number in range(5):
        changed = random.sample(range(entries), max(1, entries // 100))
        records = {key_of(at): record_of(at + number) for at in changed}
        writing, saving = store.change(records)
        writes.append(writing)
        saves.append(saving)
    store.close()
    return {"the changes": median(writes), "the save": median(saves)}


def save_pickle(kind: str, folder: Path, entries: int) -> Figures:
    """Pickles the whole dict."""
    records = records_of(entries)
    return {"the changes": 0.0, "the save": median([clock(lambda: dump(folder, records)) for _ in range(3)])}


def fill(kind: str, folder: Path, entries: int) -> Figures:
    """Fills a store, and closes it."""
    store = BY_NAME[kind](folder)
    store.fill(records_of(entries))
    store.sync()
    store.finish()
    return {}


def start(kind: str, folder: Path, entries: int) -> Figures:
    """Opens a store, and reads a value."""
    key = key_of(random.randrange(entries))
    before = _resident_bytes()
    started = time.perf_counter()
    store = BY_NAME[kind](folder)
    opened = time.perf_counter()
    resident = _resident_bytes() - before

    async def get() -> Any:
        asked = time.perf_counter()
        value = await store.get(key)
        return value, time.perf_counter() - asked

    value, took = asyncio.run(get())
    assert value is not None
    store.finish()
    return {"open": opened - started, "first get": opened - started + took, "resident": resident}


def write_and_die(kind: str, folder: Path, entries: int) -> Figures:
    """Writes 16 MiB of records, and is killed."""
    store = BY_NAME[kind](folder)
    for number in range(min(entries, TAILS // RECORD)):
        store.set(key_of(number), record_of(number))
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def write_until_killed(kind: str, folder: Path, entries: int) -> Figures:
    """Sets keys, and acknowledges each on the standard output."""
    store = BY_NAME[kind](folder)
    for number in itertools.count():
        store.set(key_of(number % 1000), {"number": number})
        os.write(1, f"{number}\n".encode())
    return {}


def lag(kind: str, folder: Path, seconds: int) -> Figures:
    """The delays of a loop on which a task sets ten keys every millisecond."""
    store = None if kind == "nothing" else BY_NAME[kind](folder)
    gc.disable()
    late = asyncio.run(_lag(store, seconds))
    if store is not None:
        store.close()
    shares = {"median": 0.5, "p99": 0.99, "p99.9": 0.999, "most": 1.0}
    return {name: max(0.0, percentile(late, share)) for name, share in shares.items()}


async def _lag(store: Store | None, seconds: float) -> list[float]:
    late: list[float] = []
    until = time.perf_counter() + seconds
    count = 0

    async def write() -> None:
        nonlocal count
        began = time.perf_counter()
        while time.perf_counter() < until:
            while count < (time.perf_counter() - began) * RATE:
                for _ in range(10):
                    number = random.randrange(KEYS)
                    if store is not None:
                        store.set(key_of(number), record_of(number))
                    count += 1
                await asyncio.sleep(0)
            await asyncio.sleep(0.001)

    writing = asyncio.create_task(write())
    while time.perf_counter() < until:
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        late.append(time.perf_counter() - began - 0.001)
    await writing
    return late


STEPS: dict[str, Callable[[str, Path, int], Figures]] = {
    step.__name__: step for step in (save, save_pickle, fill, start, write_and_die, write_until_killed, lag)
}


def _in_a_process(step: str, kind: str, folder: Path, number: int, killed: bool = False) -> Figures:
    command = _command(step, kind, folder, number)
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if killed:
        assert ran.returncode == -signal.SIGKILL, ran
        return {}
    ran.check_returncode()
    figures: Figures = json.loads(ran.stdout)
    return figures


def _command(step: str, kind: str, folder: Path, number: int) -> list[str]:
    options = ["--step", step, "--kind", kind, "--folder", str(folder), "--entries", str(number)]
    return [sys.executable, __file__, *options]


def _below(folder: str | Path, name: str) -> Path:
    path = Path(folder) / name
    path.mkdir()
    return path


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# The report.


def report_sets(report: Report, smoke: bool) -> None:
    rounds, step = (2, 20) if smoke else (100, 1000)
    found = sets(rounds, step)
    report.line("## `set` of a dict\n")
    report.line(
        f"Random keys of {KEYS:,}; medians of {rounds} batches in turns, and single calls, each timed. *Two fields*: "
        "`{id, name}`; *four fields*: `{id, name, score, tags}`.\n"
    )
    rows = []
    for name, contenders in found.items():
        first = next(iter(contenders.values()))[0]
        for store in STORES:
            batch, singles = contenders[store.title]
            shares = [duration(percentile(singles, share)) for share in (0.5, 0.99, 0.999, 1.0)]
            rows.append(
                [f"{store.title}, {name}", duration(batch), f"{batch / first:.2f}", *shares, store.survives]
            )
    header = ["", "`set`", "ratio", "one by one: median", "p99", "p99.9", "most", "survives a kill"]
    report.table(header, rows)


def report_saves(report: Report, entries: int) -> None:
    report.line(f"## A save after {entries // 100:,} of {entries:,} dicts have changed\n")
    report.line(
        "Medians of 5; ratio of the sums to the first. A cache with a journal writes each change in its `set`, and syncs "
        "in the save. SQLite writes the changes in one durable transaction; the transaction of diskcache is not synced.\n"
    )
    rows, first = [], 0.0
    kinds: list[type[Store] | None] = [SqliteFull if store is Sqlite else store for store in STORES]
    for store in [*kinds, None]:
        step, kind = ("save", store.__name__) if store else ("save_pickle", "")
        with _scratch() as folder:
            figures = _in_a_process(step, kind, Path(folder), entries)
        both = figures["the changes"] + figures["the save"]
        first = first or both
        title = store.title if store else "pickle of the whole dict"
        rows.append(
            [
                title,
                duration(figures["the changes"]),
                duration(figures["the save"]),
                duration(both),
                f"{both / first:.1f}",
            ]
        )
    report.table(["", "the changes", "the save", "both", "ratio"], rows)


def report_starts(report: Report, entries: int, rounds: int) -> None:
    report.line(f"## The start of a new process, {entries:,} dicts\n")
    report.line(
        f"Medians of {rounds} processes. *Killed*: after {TAILS >> 20} MiB of records that nothing has indexed yet.\n"
    )
    rows = []
    for store in STORES:
        kind = store.__name__
        with _scratch() as folder:
            _in_a_process("fill", kind, Path(folder), entries)
            states = ["closed"] if store is Snapshots else ["closed", "killed"]
            for state in states:
                runs = []
                for _ in range(rounds):
                    if state == "killed":
                        _in_a_process("write_and_die", kind, Path(folder), entries, killed=True)
                    runs.append(_in_a_process("start", kind, Path(folder), entries))
                columns = {name: median([run[name] for run in runs]) for name in runs[0]}
                resident = f"{digits(columns['resident'] / 2**20)} MiB"
                rows.append(
                    [store.title, state, duration(columns["open"]), duration(columns["first get"]), resident]
                )
    report.table(["", "state", "open", "open and first get", "resident by the opening"], rows)


def report_kills(report: Report, kills: int) -> None:
    report.line("## Killed at random moments\n")
    acknowledged = lost = 0
    with _scratch() as folder:
        for _ in range(kills):
            process = subprocess.Popen(
                _command("write_until_killed", "Journal", Path(folder), 0), stdout=subprocess.PIPE
            )
            assert process.stdout is not None
            first = process.stdout.readline()
            time.sleep(random.random() * 0.1)
            process.kill()
            lines = [first, *process.stdout.read().splitlines(keepends=True)]
            process.wait()
            last = int([line for line in lines if line.endswith(b"\n")][-1])
            acknowledged += last + 1
            lost += asyncio.run(_lost(Path(folder), last))
    report.line(
        f"{kills} processes were killed with `SIGKILL`, and had acknowledged {acknowledged:,} calls of `set`. "
        f"Lost: {lost}.\n"
    )
    assert lost == 0


async def _lost(folder: Path, last: int) -> int:
    """How many keys do not have their last acknowledged value, or the one after it."""
    store = Journal(folder)
    lost = 0
    for number in range(max(0, last - 999), last + 1):
        value = await store.get(key_of(number % 1000))
        if value is None or value["number"] not in (
            number,
            number + 1000 if number + 1000 == last + 1 else number,
        ):
            lost += 1
    store.cache.clear()
    store.close()
    return lost


def report_lag(report: Report, seconds: int) -> None:
    report.line("## An event loop whose task sets 10,000 dicts a second\n")
    report.line(
        f"How much later than a millisecond another task wakes up, in {seconds} seconds. Garbage collection is off.\n"
    )
    rows = []
    for kind, title in [("nothing", "no store"), *((store.__name__, store.title) for store in STORES)]:
        with _scratch() as folder:
            figures = _in_a_process("lag", kind, Path(folder), seconds)
        rows.append([title, *map(duration, figures.values())])
    report.table(["", "median", "p99", "p99.9", "most"], rows)


def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="async-cache-bench-")


def main() -> None:
    """Runs a step, or all of them, and reports."""
    parser = argparse.ArgumentParser(description="A journal, beside peers.")
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--smoke", action="store_true", help="only show that everything still runs")
    parser.add_argument("--save", action="store_true", help="write the report to benches/results")
    for hidden in ("--step", "--kind", "--folder"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step is not None:
        print(json.dumps(STEPS[arguments.step](arguments.kind, Path(arguments.folder), arguments.entries)))
        return
    smoke = arguments.smoke
    entries = 1000 if smoke else arguments.entries
    report = Report(f"A journal of async-cache for Python, on Python {PYTHON}", ["async-cache", "diskcache"])
    report.line(f"Command: `journal.py --entries {entries}`. SQLite {sqlite3.sqlite_version}.\n")
    report_sets(report, smoke)
    report_saves(report, entries)
    report_starts(report, entries, 1 if smoke else 5)
    report_kills(report, 2 if smoke else arguments.kills)
    report_lag(report, 1 if smoke else 10)
    if arguments.save:
        report.save(f"python-{PYTHON}-journal")


if __name__ == "__main__":
    main()

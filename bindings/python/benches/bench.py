"""Benchmarks beside the peers: all in one run, in turns in every round, medians, as ratios.

    pip install -r requirements.txt
    pip install --no-deps --target FOLDER -r requirements-original.txt
    python bench.py --original FOLDER [--save] [--smoke]

A peer that is not installed is left out, and so is the original without ``--original``. ``--save``
writes ``benches/results/python-<version of Python>.md``; ``--smoke`` only shows that all benchmarks
still run.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import contenders
import memory
from remote import Remote
from report import PYTHON, Report, digits, median
from timing import Case, Timer

PACKAGES = ["async-cache", "async-lru", "cachebox", "moka-py", "aiocache", "cashews", "uvloop"]

# All counts are multiples of the step, so that herds and batches are whole.
_STEP = 1000


@dataclass
class Contender:
    """A row of a table, during its measurement."""

    table: str
    name: str
    seconds: Callable[[int], float]
    count: int = _STEP
    nanoseconds: list[float] = field(default_factory=list)

    def calibrate(self, slice_seconds: float) -> None:
        """Finds the count that takes about as long as a slice."""
        self.seconds(_STEP)
        least = min(self.seconds(_STEP) for _ in range(3))
        self.count = _STEP * max(1, round(slice_seconds / least))

    def measure(self) -> None:
        """Takes a turn."""
        self.nanoseconds.append(self.seconds(self.count) / self.count * 1e9)


def main() -> None:
    """Measures all cases and reports."""
    arguments = _arguments()
    timer = Timer()
    original = None if arguments.original is None else Remote("original.py", arguments.original)
    rivals = [_here(timer, case) for case in (*contenders.yardsticks(), *contenders.of_cache("async-cache"))]
    rivals += [_here(timer, case) for case in contenders.of_agents()]
    if original is not None:
        rivals += [_there(original, number) for number in range(len(original.cases))]
    rivals += [_here(timer, case) for case in contenders.of_peers()]

    rounds, slice_seconds = (2, 0.0005) if arguments.smoke else (31, 0.02)
    _run(rivals, rounds, slice_seconds)

    report = Report(f"async-cache for Python, on Python {PYTHON}", PACKAGES)
    if original is not None:
        report.line("The original is async-cache 2.0.3.\n")
    report.line(
        f"Medians over {rounds} rounds in which all contenders of all tables took turns, in random order. "
        "The loop that is measured is part of every figure; nothing is subtracted. Ratios are to the first "
        "line of a table.\n"
    )
    for table in contenders.TABLES:
        _report(report, table, [rival for rival in rivals if rival.table == table])
    _report_memory(report, arguments.original, arguments.smoke)
    if arguments.save:
        report.save(f"python-{PYTHON}")
    if original is not None:
        original.close()
    timer.close()


def _run(rivals: list[Contender], rounds: int, slice_seconds: float) -> None:
    for rival in rivals:
        rival.calibrate(slice_seconds)
    shuffled = list(rivals)
    order = random.Random(1)
    gc.collect()
    for number in range(rounds):
        if sys.stderr.isatty():
            print(f"round {number + 1} of {rounds}", end="\r", file=sys.stderr, flush=True)
        order.shuffle(shuffled)
        for rival in shuffled:
            rival.measure()


def _here(timer: Timer, case: Case) -> Contender:
    return Contender(case.table, case.name, lambda count: timer.seconds(case, count))


def _there(original: Remote, number: int) -> Contender:
    table, name = original.cases[number]
    return Contender(table, name, lambda count: original.seconds(number, count))


def _report(report: Report, table: str, rivals: list[Contender]) -> None:
    yardstick = median(rivals[0].nanoseconds)

    def rows() -> Iterator[list[str]]:
        for number, rival in enumerate(rivals):
            nanoseconds = median(rival.nanoseconds)
            target = contenders.TARGETS.get(table) if rival.name.startswith("async-cache") else None
            aim = "" if target is None else f"{target}"
            if target is not None and "does not suspend" in table and sys.version_info >= (3, 12):
                aim = f"{target}, or 2,000 ns"
            yield [rival.name, digits(nanoseconds), digits(nanoseconds / yardstick) if number else "1", aim]

    report.line(f"## {table[0].upper()}{table[1:]}\n")
    if table in contenders.NOTES:
        report.line(f"{contenders.NOTES[table]}\n")
    report.table(["contender", "ns", "ratio", "aim"], rows())


def _report_memory(report: Report, original: Path | None, smoke: bool) -> None:
    entries, rounds = (2000, 1) if smoke else (memory.ENTRIES, 3)
    sizes = {
        contender: memory.bytes_per_entry(contender, entries, original, rounds)
        for contender in memory.contenders()
    }
    report.line("## Memory per entry, besides key and value\n")
    report.line(
        f"Growth of the resident size when {entries:,} keys and values that exist already are put in; a "
        "process for each.\n"
    )
    rows = [[contender, digits(size)] for contender, size in sizes.items() if size is not None]
    report.table(["contender", "bytes"], rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Benchmarks beside the peers.")
    parser.add_argument(
        "--original", type=Path, help="the folder that the original library was installed into"
    )
    parser.add_argument("--save", action="store_true", help="write the report to benches/results")
    parser.add_argument("--smoke", action="store_true", help="as short as possible; the figures mean nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()

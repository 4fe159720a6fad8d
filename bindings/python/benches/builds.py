"""Two builds of this package side by side: is anything slower than before?

    python builds.py BEFORE AFTER [--rounds 41] [--save NAME] [--only TEXT]

BEFORE and AFTER are folders that contain a built package `cache` (``bindings/python/python`` of two
checkouts after ``make python``). Each build is measured in its own process, and the two take turns
in every round. ``--save`` writes ``benches/results/<NAME>.md``.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from pathlib import Path

import contenders
import remote
from report import PYTHON, Report, digits, median
from timing import Case

_SLICE = 0.01
_STEP = 1000


def cases() -> list[Case]:
    """All cases that need no peer."""
    ours = (*contenders.of_cache("async-cache"), *contenders.of_agents(), *contenders.of_ways())
    return [case for case in ours if case.loop == "asyncio"]


def main() -> None:
    """Measures both builds, and reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--save", metavar="NAME", help="write the report to benches/results")
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--only", default="", help="only cases whose table or name has this in it")
    arguments = parser.parse_args()
    builds = [remote.Remote("builds.py", folder, "--serve") for folder in (arguments.before, arguments.after)]
    listed = builds[1].cases
    chosen = [number for number, case in enumerate(listed) if arguments.only in "|".join(case)]
    counts = {number: _count(builds[0], number) for number in chosen}
    took = measure(builds, counts, arguments.rounds)

    report = Report(f"Two builds of async-cache, on Python {PYTHON}", [])
    report.line(
        f"Medians over {arguments.rounds} rounds in which the two builds took turns, case by case, in random order. The "
        "ratio is the median of the rounds' ratios; the spread is its middle half. Before: commit "
        f"{_commit(arguments.before)}; after: {_commit(arguments.after)}.\n"
    )
    for table in dict.fromkeys(listed[number][0] for number in chosen):
        report.line(f"## {table[0].upper()}{table[1:]}\n")
        rows = (row(listed[number][1], took[number]) for number in chosen if listed[number][0] == table)
        report.table(["case", "before, ns", "after, ns", "after / before", "spread"], rows)
    if arguments.save:
        report.save(arguments.save)
    for build in builds:
        build.close()


def _commit(folder: Path) -> str:
    """The commit checked out in the folder; the build is assumed to be of the same commit."""
    command = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _count(build: remote.Remote, number: int) -> int:
    build.seconds(number, _STEP)
    least = min(build.seconds(number, _STEP) for _ in range(3))
    return _STEP * max(1, round(_SLICE / least))


def measure(builds: list[remote.Remote], counts: dict[int, int], rounds: int) -> dict[int, list[list[float]]]:
    """Nanoseconds of each case, round by round, before and after."""
    order = random.Random(1)
    took: dict[int, list[list[float]]] = {number: [] for number in counts}
    for _ in range(rounds):
        for number in order.sample(list(counts), len(counts)):
            pair = [0.0, 0.0]
            for side in order.sample((0, 1), 2):
                pair[side] = builds[side].seconds(number, counts[number]) / counts[number] * 1e9
            took[number].append(pair)
    return took


def row(name: str, pairs: list[list[float]]) -> list[str]:
    """A row of the report."""
    ratios = sorted(after / before for before, after in pairs)
    quarter = len(ratios) // 4
    return [
        name,
        digits(median([before for before, _ in pairs])),
        digits(median([after for _, after in pairs])),
        digits(median(ratios)),
        f"{digits(ratios[quarter])} to {digits(ratios[-1 - quarter])}",
    ]


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        remote.serve(cases())
    else:
        main()

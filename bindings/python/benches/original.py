"""Measures the original library, in a process of its own: its modules have our names.

Reads ``TABLE<tab>COUNT`` lines, and answers each with the seconds that so many operations took. Started by
`bench.py`, with the original's folder on ``PYTHONPATH``.
"""

from __future__ import annotations

import sys

import contenders
from timing import Timer


def main() -> None:
    """Answers until nobody asks any more."""
    timer = Timer()
    cases = {case.table: case for case in contenders.of_cache("the original")}
    print("\t".join(f"{case.table}|{case.name}" for case in cases.values()), flush=True)
    for line in sys.stdin:
        table, count = line.rstrip("\n").split("\t")
        print(timer.seconds(cases[table], int(count)), flush=True)
    timer.close()


if __name__ == "__main__":
    main()

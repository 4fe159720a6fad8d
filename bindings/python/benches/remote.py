"""Measures cases in a separate process, with another package in the place of ``cache``.

The process reads ``NUMBER<tab>COUNT`` lines, and answers each with the seconds taken by COUNT
operations of the case. Its first line lists its cases.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from timing import Case, Timer


class Remote:
    """The process, as seen by the benchmark."""

    def __init__(self, script: str, folder: Path, *arguments: str) -> None:
        if not (folder / "cache" / "__init__.py").is_file():
            raise SystemExit(f"{folder} has no package `cache`: name the folder that holds cache/__init__.py")
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(script)), *arguments],
            env={**os.environ, "PYTHONPATH": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.cases = [case.split("|") for case in self._answer().split("\t")]
        """The table and the name of each case."""

    def seconds(self, number: int, count: int) -> float:
        """The seconds taken by `count` operations of a case in the process."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number}\t{count}\n")
        return float(self._answer())

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the process that measures {self._folder} has ended; see its message above")
        return line.rstrip("\n")


def serve(cases: Iterable[Case]) -> None:
    """Answers until the benchmark closes the pipe."""
    timer = Timer()
    listed = list(cases)
    print("\t".join(f"{case.table}|{case.name}" for case in listed), flush=True)
    for line in sys.stdin:
        number, count = line.rstrip("\n").split("\t")
        print(timer.seconds(listed[int(number)], int(count)), flush=True)
    timer.close()

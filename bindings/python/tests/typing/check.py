"""Compares type checkers with `uses.py`: an error on every line that ends with ``# wrong``, and on
no other.

Run by ``make lint``. ``pyright`` is that of `basedpyright`, whose wheels contain all dependencies.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
USES = HERE / "uses.py"
TIME_LIMIT_SECONDS = 300


def mypy() -> set[int]:
    """The lines with errors from mypy."""
    with TemporaryDirectory() as folder:
        command = [
            "mypy",
            "--strict",
            "--no-incremental",
            "--cache-dir",
            folder,
            "--output",
            "json",
            str(USES),
        ]
        told = run([sys.executable, "-m", *command])
    found = [json.loads(line) for line in told.stdout.splitlines()]
    return {one["line"] for one in found if one["severity"] == "error"}


def pyright() -> set[int]:
    """The lines with errors from pyright."""
    command = [
        "basedpyright",
        "--project",
        str(HERE),
        "--pythonpath",
        sys.executable,
        "--outputjson",
        str(USES),
    ]
    told = run([sys.executable, "-m", *command])
    found = json.loads(told.stdout)["generalDiagnostics"]
    return {one["range"]["start"]["line"] + 1 for one in found if one["severity"] == "error"}


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIME_LIMIT_SECONDS)
    if told.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)} failed:\n{told.stdout}{told.stderr}")
    return told


def main() -> None:
    lines = USES.read_text().splitlines()
    wanted = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    complaints = []
    for checker in (mypy, pyright):
        found = checker()
        for number in sorted(wanted ^ found):
            what = "finds nothing wrong with" if number in wanted else "complains of"
            complaints.append(f"{checker.__name__} {what} {USES.name}:{number}: {lines[number - 1].strip()}")
    print(*complaints, sep="\n", end="\n" if complaints else "")
    sys.exit(bool(complaints))


if __name__ == "__main__":
    main()

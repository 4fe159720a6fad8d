"""A report that is printed as it grows, and finally becomes a Markdown document in
benches/results.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[3] / "benches" / "results"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


class Report:
    """Begins with the subject, the date, the machine and the versions."""

    def __init__(self, title: str, packages: Iterable[str]) -> None:
        self._lines: list[str] = []
        self.line(f"# {title}\n")
        self.line(f"- date: {datetime.date.today().isoformat()}")
        self.line(f"- machine: {_machine()}")
        self.line(f"- versions: {', '.join([_python(), *_versions(packages)])}\n")

    def line(self, line: str = "") -> None:
        """Adds a line."""
        print(line, flush=True)
        self._lines.append(line)

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Adds a table: a first column of names, and columns of figures."""
        self.line(f"| {' | '.join(header)} |")
        self.line(f"|---|{'---:|' * (len(header) - 1)}")
        for row in rows:
            self.line(f"| {' | '.join(row)} |")
        self.line()

    def save(self, name: str) -> None:
        """Writes the report to ``benches/results/<name>.md``."""
        path = RESULTS / f"{name}.md"
        path.write_text("\n".join(self._lines).rstrip("\n") + "\n")
        print(f"written to {path}", file=sys.stderr)


def digits(value: float) -> str:
    """Three significant digits, but no more than are known."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def duration(seconds: float) -> str:
    """A time with its unit."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1:
            return f"{digits(seconds * factor)} {unit}"
    return f"{digits(seconds * 1e9)} ns"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value not exceeded by the given share of the values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


median = statistics.median


def _machine() -> str:
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {os.cpu_count()} threads, {platform.system().lower()}"


def _python() -> str:
    return f"{platform.python_implementation()} {platform.python_version()}"


def _versions(packages: Iterable[str]) -> Iterable[str]:
    for package in packages:
        try:
            yield f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            yield f"{package} (not installed)"

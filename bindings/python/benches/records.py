"""The entries that the benchmarks of persistence save, and their pickle."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def records_of(entries: int) -> dict[str, dict[str, Any]]:
    """All entries of a benchmark."""
    return {key_of(number): record_of(number) for number in range(entries)}


def key_of(number: int) -> str:
    """The key of an entry."""
    return f"user:{number}"


def record_of(number: int) -> dict[str, Any]:
    """The value of an entry."""
    return {
        "id": number,
        "name": f"user number {number}",
        "score": number / 7,
        "tags": ["a", f"t{number % 100}"],
    }


def dump(folder: Path, records: dict[str, Any]) -> None:
    """As careful as our save: a crash leaves the old or the new file."""
    with (folder / "records.pickle.new").open("wb") as file:
        pickle.dump(records, file, protocol=pickle.HIGHEST_PROTOCOL)
        file.flush()
        os.fsync(file.fileno())
    os.replace(folder / "records.pickle.new", folder / "records.pickle")


def load(folder: Path) -> dict[str, Any]:
    """The dumped dict."""
    with (folder / "records.pickle").open("rb") as file:
        records: dict[str, Any] = pickle.load(file)
    return records


def clock(work: Callable[[], object]) -> float:
    """The seconds taken by the work."""
    started = time.perf_counter()
    kept = work()
    took = time.perf_counter() - started
    del kept  # only now: dropping a million dicts is not part of loading them
    return took

"""Interrupts, and threads that re-enter their own save or load.

The bug's story: a Ctrl-C that arrived during the pickling of a value was treated as a fault of the
value: the save continued and left the value out, and the process did not stop. During the reading
of a value the interrupt turned the value into a permanent miss, and the next save wrote the file
without it. A `MemoryError`, and a `RecursionError` in a deep stack, had the same effects.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from complaints import no_warning
from loops import Run, outcome
from stores import MemoryBackend

from cache import AsyncCache, BackupError, CacheWarning, DiskBackend

# Raise an exception while a value is pickled, or read.
writing: list[Callable[[], None]] = []
reading: list[Callable[[], None]] = []


class Value:
    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Value) and other.number == self.number

    def __hash__(self) -> int:
        return hash(self.number)

    def __getstate__(self) -> int:
        if self.number == 3:
            for do in writing:
                do()
        return self.number

    def __setstate__(self, number: int) -> None:
        for do in reading:
            do()
        self.number = number


@pytest.fixture(autouse=True)
def nothing_is_raised() -> None:
    writing.clear()
    reading.clear()


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def leave() -> None:
    raise SystemExit


def want_of_memory() -> None:
    raise MemoryError


def want_of_stack() -> None:
    raise RecursionError


OUTSIDE = [(interrupt, KeyboardInterrupt), (leave, SystemExit), (want_of_memory, MemoryError)]


def saved(path: Path) -> AsyncCache:
    cache = AsyncCache(backup=DiskBackend(path))
    for number in range(6):
        cache.set(number, Value(number))
    cache.set(Value(7), "an object as a key")
    cache.save_to_backup()
    return cache


@pytest.mark.parametrize(("do", "raised"), OUTSIDE, ids=["interrupt", "exit", "memory"])
def test_a_save_that_is_interrupted_raises_and_leaves_the_old_file(
    path: Path, do: Callable[[], None], raised: type[BaseException]
) -> None:
    cache = saved(path)
    before = path.read_bytes()
    cache.set(9, Value(9))
    writing.append(do)
    with pytest.raises(raised), no_warning():
        cache.save_to_backup()
    assert path.read_bytes() == before
    assert sorted(os.listdir(path.parent)) == [path.name, f"{path.name}.lock"]
    writing.clear()
    cache.save_to_backup()
    assert DiskBackend(path).load()[9][0] == Value(9)
    assert DiskBackend(path).load()[3][0] == Value(3)


@pytest.mark.parametrize(
    ("do", "raised"),
    [*OUTSIDE, (want_of_stack, RecursionError)],
    ids=["interrupt", "exit", "memory", "stack"],
)
def test_a_read_that_is_interrupted_raises_and_loses_nothing(
    path: Path, do: Callable[[], None], raised: type[BaseException]
) -> None:
    saved(path)
    cache = AsyncCache(backup=DiskBackend(path))
    reading.append(do)
    for number in range(3):
        with pytest.raises(raised):
            cache.get(number).send(None)
    with pytest.raises(raised):
        DiskBackend(path).load()
    reading.clear()
    for number in range(6):
        with pytest.raises(StopIteration) as served:
            cache.get(number).send(None)
        assert served.value.value == Value(number)
    assert cache.stats()["undecodable"] == 0
    cache.save_to_backup()
    assert len(DiskBackend(path).load()) == 7


@pytest.mark.parametrize(("do", "raised"), OUTSIDE, ids=["interrupt", "exit", "memory"])
def test_opening_that_is_interrupted_raises(
    path: Path, do: Callable[[], None], raised: type[BaseException]
) -> None:
    saved(path)
    reading.append(do)
    with pytest.raises(raised), no_warning():
        AsyncCache(backup=DiskBackend(path))


@pytest.mark.parametrize("merge", [True, False], ids=["merging", "replacing"])
@pytest.mark.parametrize("do", [interrupt, want_of_stack], ids=["interrupt", "stack"])
def test_a_save_after_a_load_that_was_interrupted_keeps_what_was_not_taken_in(
    path: Path, do: Callable[[], None], merge: bool
) -> None:
    saved(path)
    before = path.read_bytes()
    path.rename(path.with_name("away"))
    cache = AsyncCache(backup=DiskBackend(path, merge=merge))
    path.with_name("away").rename(path)
    reading.append(do)
    if do is interrupt:
        with pytest.raises(KeyboardInterrupt):
            cache.load_from_backup()
    else:
        with pytest.warns(CacheWarning, match="starts without"):
            cache.load_from_backup()
    reading.clear()
    cache.set("new", 1)
    if merge:
        cache.save_to_backup()
        content = DiskBackend(path).load()
        assert (len(content), content[3][0], content["new"][0]) == (8, Value(3), 1)
    else:
        with pytest.warns(CacheWarning, match="is at"):
            cache.save_to_backup()
        assert before in [file.read_bytes() for file in path.parent.iterdir()]


def test_a_value_that_cannot_be_pickled_or_read_is_still_left_out_alone(run: Run, path: Path) -> None:
    def fail() -> None:
        raise LookupError("no")

    cache = saved(path)
    writing.append(fail)
    with pytest.warns(CacheWarning, match="1 entries were not saved; the first one is 3: LookupError"):
        cache.save_to_backup()
    cache = AsyncCache(backup=DiskBackend(path))
    reading.append(fail)
    assert run(outcome(cache.get(1))) is None
    assert cache.stats()["undecodable"] == 1


class CallsBack(MemoryBackend):
    """Calls the cache while it is saved or loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.during_load: list[Callable[[], None]] = []
        self.during_save: list[Callable[[], None]] = []

    def load(self) -> Any:
        for do in self.during_load:
            do()
        return super().load()

    def save(self, data: Any) -> None:
        for do in self.during_save:
            do()
        super().save(data)


@pytest.mark.parametrize("inner", ["save", "load"])
@pytest.mark.parametrize("outer", ["save", "load"])
def test_a_save_or_load_within_one_is_an_error_and_not_a_deadlock(outer: str, inner: str) -> None:
    """Only a save within a save was detected: the other combinations were deadlocks."""
    backend = CallsBack()
    cache = AsyncCache(backup=backend)
    operations = {"save": cache.save_to_backup, "load": cache.load_from_backup}
    errors: list[BackupError] = []

    def come_back() -> None:
        with pytest.raises(BackupError, match="in the middle") as raised:
            operations[inner]()
        errors.append(raised.value)

    backend.during_load.append(come_back)
    backend.during_save.append(come_back)
    operations[outer]()
    assert len(errors) == 1
    # The cache continues to work.
    backend.during_load.clear()
    backend.during_save.clear()
    operations[inner]()


def test_a_signal_handler_that_saves_during_a_load_gets_the_error() -> None:
    backend = CallsBack()
    cache = AsyncCache(backup=backend)
    errors: list[BackupError] = []

    def handler(*_: object) -> None:
        try:
            cache.save_to_backup()
        except BackupError as error:
            errors.append(error)

    before = signal.signal(signal.SIGTERM, handler)
    try:
        backend.during_load.append(lambda: os.kill(os.getpid(), signal.SIGTERM))
        cache.load_from_backup()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(errors) == 1

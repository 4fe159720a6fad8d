"""Leaving a `with` block: which exception leaves the block, and when there is something to save.

A cache ended programs whose work did not need the cache: the block's body raised, the save at the
end of the block failed too (no space, no permission, no folder), and its `BackupError` replaced the
exception for which the `except` was written. Programs that only read from a file could not leave
their block on a read-only file system, and rewrote a file of 10,000 entries with the 128 entries
permitted by their own `maxsize`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loops import Run, task
from stores import MemoryBackend, SaveFails

from cache import AsyncCache, BackupError, CacheBackend, CacheWarning, DiskBackend


class BodyError(Exception):
    """The exception raised by the body of a block."""


class WaitsInSave(MemoryBackend):
    """A save that waits until the test releases it."""

    def __init__(self) -> None:
        super().__init__()
        self.has_begun, self.may_end = threading.Event(), threading.Event()
        self.fails = False

    def save(self, data: dict[Any, tuple[Any, float | None]]) -> None:
        self.has_begun.set()
        assert self.may_end.wait(10)
        if self.fails:
            raise ConnectionError("the backend is full")
        super().save(data)


def disk_that_cannot_be_written(path: Path) -> CacheBackend:
    (path / "a folder").mkdir(parents=True)  # a save does not replace a folder by a file
    return DiskBackend(path)


def own_backend_that_fails(_: Path) -> CacheBackend:
    return SaveFails()


FAILING = pytest.mark.parametrize("make", [disk_that_cannot_be_written, own_backend_that_fails])


def with_block(backend: CacheBackend, error: BaseException | None) -> None:
    with AsyncCache(backup=backend) as cache:
        cache.set("key", 1)
        if error is not None:
            raise error


async def async_with_block(backend: CacheBackend, error: BaseException | None) -> None:
    async with AsyncCache(backup=backend) as cache:
        cache.set("key", 1)
        if error is not None:
            raise error


def blocks(run: Run) -> list[Callable[[CacheBackend, BaseException | None], None]]:
    return [with_block, lambda backend, error: run(async_with_block(backend, error))]


@FAILING
@pytest.mark.filterwarnings("ignore:.*the cache starts without it")
def test_the_bodys_exception_leaves_and_a_save_that_fails_is_a_warning(
    run: Run, path: Path, make: Callable[[Path], CacheBackend]
) -> None:
    backend = make(path)
    for block in blocks(run):
        with (
            pytest.warns(
                CacheWarning, match="could not be saved on leaving its block by BodyError: "
            ) as issued,
            pytest.raises(BodyError, match="the body's"),
        ):
            block(backend, BodyError("the body's"))
        told = [warning for warning in issued if "on leaving" in str(warning.message)]
        assert [warning.filename for warning in told] == [__file__]


@FAILING
@pytest.mark.filterwarnings("ignore:.*the cache starts without it")
def test_a_save_that_fails_raises_if_the_body_did_not(
    run: Run, path: Path, make: Callable[[Path], CacheBackend]
) -> None:
    backend = make(path)
    for block in blocks(run):
        with pytest.raises((BackupError, ConnectionError)):
            block(backend, None)


def test_the_bodys_exception_leaves_also_where_warnings_are_errors(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for block in blocks(run):
            with pytest.raises(BodyError):
                block(SaveFails(), BodyError())
    assert [record.getMessage() for record in caplog.records] == [
        "a cache could not be saved on leaving its block by BodyError: ConnectionError: the backend is full"
    ] * 2


def test_a_block_that_is_left_by_a_deadline_is_left_by_it(run: Run) -> None:
    async def block() -> None:
        async with AsyncCache(backup=SaveFails()) as cache:
            cache.set("key", 1)
            await asyncio.Event().wait()

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(block(), 0.01)

    with pytest.warns(CacheWarning, match="by CancelledError: ConnectionError: the backend is full"):
        run(main())


def test_a_body_that_raised_is_saved(run: Run) -> None:
    backend = MemoryBackend()
    for block in blocks(run):
        with pytest.raises(BodyError):
            block(backend, BodyError())
    assert backend.saved == [{"key": (1, None)}] * 2


@pytest.mark.parametrize("backend", [MemoryBackend({"key": (1, None)}), SaveFails({"key": (1, None)})])
def test_where_nothing_changed_nothing_is_saved(run: Run, backend: MemoryBackend) -> None:
    async def main() -> None:
        async with AsyncCache(backup=backend) as cache:
            assert await cache.get("key") == 1
            assert await cache.get("none") is None
        with AsyncCache(backup=backend) as cache:
            assert "key" in cache.cache

    run(main())
    assert backend.saved == []


@pytest.mark.parametrize(
    "change",
    [
        lambda cache: cache.set("new", 2),
        lambda cache: cache.delete("key"),
        lambda cache: cache.clear(),
    ],
)
def test_every_change_is_saved(path: Path, change: Callable[[AsyncCache], None]) -> None:
    with AsyncCache(backup=DiskBackend(path)) as cache:
        cache.set("key", 1)
    with AsyncCache(backup=DiskBackend(path)) as cache:
        change(cache)
    assert DiskBackend(path).load() != {"key": (1, None)}


def test_what_was_saved_by_hand_is_not_saved_again(path: Path) -> None:
    with AsyncCache(backup=DiskBackend(path)) as cache:
        cache.set("key", 1)
        cache.save_to_backup()
        file = path.stat()
    assert path.stat() == file
    cache.save_to_backup()  # an explicit save is always done
    assert path.stat() != file


def test_a_look_into_a_large_file_leaves_the_file_as_it_is(run: Run, path: Path) -> None:
    with AsyncCache(maxsize=None, backup=DiskBackend(path)) as cache:
        for number in range(1_000):
            cache.set(number, number)
    before = path.read_bytes()

    async def look() -> None:
        async with AsyncCache(maxsize=10, backup=DiskBackend(path)) as cache:
            assert await cache.get(999) == 999

    run(look())
    assert path.read_bytes() == before


def test_a_save_goes_on_when_its_block_is_cancelled_meanwhile(run: Run) -> None:
    backend = WaitsInSave()

    async def block() -> None:
        async with AsyncCache(backup=backend) as cache:
            cache.set("key", 1)
            raise BodyError

    async def main() -> None:
        leaves = task(block())
        assert await asyncio.to_thread(backend.has_begun.wait, 10)
        leaves.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaves
        backend.may_end.set()

    run(main())  # waits for its threads
    assert backend.saved == [{"key": (1, None)}]


def test_a_save_that_fails_when_nobody_waits_any_more_is_logged(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    backend = WaitsInSave()
    backend.fails = True

    async def main() -> None:
        cache = AsyncCache(backup=backend)
        cache.set("key", 1)
        save = task(cache.save_to_backup_async())
        assert await asyncio.to_thread(backend.has_begun.wait, 10)
        save.cancel()
        with pytest.raises(asyncio.CancelledError):
            await save
        backend.may_end.set()

    run(main())
    assert [record.getMessage() for record in caplog.records] == [
        "a cache could not be saved, and nobody waits for the save: ConnectionError: the backend is full"
    ]
    assert caplog.records[0].levelno == logging.WARNING


def test_a_save_in_a_thread_that_raises_stop_iteration_ends_all_the_same(run: Run) -> None:
    # A future of asyncio does not accept a StopIteration, so the caller waited for ever.
    class Exhausted(MemoryBackend):
        def save(self, data: Any) -> None:
            next(iter([]))

    async def main() -> None:
        cache = AsyncCache(backup=Exhausted())
        cache.set("key", 1)
        with pytest.raises(RuntimeError, match="StopIteration") as told:
            await asyncio.wait_for(cache.save_to_backup_async(), 10)
        assert isinstance(told.value.__cause__, StopIteration)

    run(main())


def test_what_a_save_in_a_thread_leaves_out_is_told_at_the_line_that_awaits_it(run: Run, path: Path) -> None:
    async def main() -> None:
        cache = AsyncCache(backup=DiskBackend(path))
        cache.set("key", lambda: None)
        with pytest.warns(CacheWarning, match="1 entries were not saved") as issued:
            await cache.save_to_backup_async()
        assert [warning.filename for warning in issued] == [__file__]

    run(main())


def test_a_warning_that_is_an_error_makes_no_failure_of_a_save_that_has_succeeded(path: Path) -> None:
    cache = AsyncCache(backup=DiskBackend(path))
    cache.set("key", lambda: None)
    cache.set("other", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CacheWarning, match="1 entries were not saved"):
            cache.save_to_backup()
    assert DiskBackend(path).load() == {"other": (1, None)}
    assert (cache.stats()["saves"], cache.stats()["save_errors"], cache.stats()["last_save_error"]) == (
        1,
        0,
        None,
    )

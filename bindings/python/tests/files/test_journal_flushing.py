"""Flushes: `await cache.flush()`, `set(..., durable=True)`, and the thread that syncs by itself."""

from __future__ import annotations

import asyncio
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from journals import NEVER, found, killed, opened, value_of
from loops import Run, cancel, joined, outcome, task, until
from stores import MemoryBackend

from cache import AsyncCache, BackupError, CacheWarning, DiskBackend
from cache import _flushes as flushes_module


class Syncs:
    """Syncs that last as long as the test says."""

    def __init__(self, cache: AsyncCache) -> None:
        self._cache = cache
        self.begun = 0
        self.is_open = threading.Event()
        self.error: BaseException | None = None

    def flush_journal(self) -> None:
        self.begun += 1
        assert self.is_open.wait(10)
        if self.error is not None:
            raise self.error
        self._cache.flush_journal()


@pytest.fixture
def syncs(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Syncs]:
    """The syncs of a cache, which are at first held up."""
    cache = opened(path)
    syncs = Syncs(cache)
    join = flushes_module.Flushes.join
    monkeypatch.setattr(flushes_module.Flushes, "join", lambda self, _: join(self, syncs))  # type: ignore[arg-type]
    syncs.cache = cache  # type: ignore[attr-defined]
    yield syncs
    syncs.is_open.set()


def test_a_flush_is_done_when_the_sync_is(run: Run, syncs: Syncs) -> None:
    cache: AsyncCache = syncs.cache  # type: ignore[attr-defined]

    async def main() -> None:
        flush = task(cache.flush())
        await until(lambda: syncs.begun == 1)
        await joined(flush)
        assert not flush.done()
        syncs.is_open.set()
        await flush

    run(main())


def test_callers_during_a_sync_share_the_next_one(run: Run, syncs: Syncs) -> None:
    cache: AsyncCache = syncs.cache  # type: ignore[attr-defined]

    async def main() -> None:
        first = task(cache.flush())
        await until(lambda: syncs.begun == 1)
        others = [task(cache.set(number, number, durable=True)) for number in range(100)]
        await joined(*others)
        assert found(cache, range(1, 100)) == {number: number for number in range(1, 100)}
        assert syncs.begun == 1
        syncs.is_open.set()
        await asyncio.gather(first, *others)
        assert syncs.begun == 2

    run(main())


def test_a_cancelled_caller_cancels_nothing_for_others(run: Run, syncs: Syncs) -> None:
    cache: AsyncCache = syncs.cache  # type: ignore[attr-defined]

    async def main() -> None:
        first, second, third = (task(cache.flush()) for _ in range(3))
        await until(lambda: syncs.begun == 1)
        await joined(first, second, third)
        await cancel(first, second)
        syncs.is_open.set()
        await third

    run(main())
    run(cache.flush())


def test_a_failed_sync_is_the_error_of_its_callers_and_the_next_one_may_succeed(
    run: Run, syncs: Syncs
) -> None:
    cache: AsyncCache = syncs.cache  # type: ignore[attr-defined]

    async def main() -> None:
        syncs.error = BackupError("the disk is broken")
        callers = [task(cache.flush()) for _ in range(3)]
        await until(lambda: syncs.begun == 1)
        syncs.is_open.set()
        results = [await outcome(caller) for caller in callers]
        assert all(isinstance(result, BackupError) for result in results)
        syncs.error = None
        await cache.flush()

    run(main())


def test_an_event_loop_that_ends_during_a_sync_keeps_nobody_waiting(run: Run, syncs: Syncs) -> None:
    cache: AsyncCache = syncs.cache  # type: ignore[attr-defined]
    loop = asyncio.new_event_loop()
    flush = loop.create_task(cache.flush())
    while syncs.begun == 0:
        loop.run_until_complete(asyncio.sleep(0))
    flush.cancel()
    loop.run_until_complete(asyncio.gather(flush, return_exceptions=True))
    loop.close()

    async def main() -> None:
        flush = task(cache.flush())
        await joined(flush)
        syncs.is_open.set()
        await flush

    run(main())


def test_several_event_loops_share_a_sync(syncs: Syncs) -> None:
    cache: AsyncCache = syncs.cache  # type: ignore[attr-defined]
    threads = [threading.Thread(target=lambda: asyncio.run(cache.flush())) for _ in range(4)]
    for thread in threads:
        thread.start()
    syncs.is_open.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_a_durable_write_is_stored_at_once(run: Run, path: Path) -> None:
    cache = opened(path)

    async def main() -> None:
        done = cache.set("a", 1, durable=True)
        assert value_of(cache, "a") == 1
        await done
        await cache.set("b", 2, 3600, durable=True)
        await cache.set("c", 3, durable=False)

    run(main())
    assert found(opened(killed(path)), "abc") == {"a": 1, "b": 2, "c": 3}


@pytest.mark.parametrize(
    "backup",
    [lambda path: None, lambda path: DiskBackend(path), lambda path: MemoryBackend()],
    ids=["no backup", "snapshots", "a user's backend"],
)
def test_durable_needs_a_journal_and_a_flush_without_one_does_nothing(
    run: Run, path: Path, backup: Callable[[Path], Any]
) -> None:
    cache = AsyncCache(backup=backup(path))
    with pytest.raises(ValueError, match="journal=True"):
        _ = cache.set("a", 1, durable=True)
    assert value_of(cache, "a") is None, "nothing was stored"
    run(cache.flush())
    cache.set("a", 1, durable=False)


@pytest.mark.parametrize("durable", [1, "yes", None])
def test_durable_is_true_or_false(path: Path, durable: Any) -> None:
    with pytest.raises(TypeError, match="durable is True or False"):
        _ = opened(path).set("a", 1, durable=durable)


def test_a_journal_that_is_not_open_is_an_error_and_not_a_silent_promise(run: Run, path: Path) -> None:
    cache = opened(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        second = AsyncCache(backup=DiskBackend(path, journal=True))
    with pytest.raises(BackupError, match="would not be durable"):
        _ = second.set("a", 1, durable=True)
    with pytest.raises(BackupError, match="not open"):
        run(second.flush())
    cache.close_journal(10)
    with pytest.raises(BackupError, match="has closed the journal"):
        _ = cache.set("a", 1, durable=True)
    nothing = AsyncCache(maxsize=0, backup=DiskBackend(path.with_name("b"), journal=True))
    with pytest.raises(BackupError, match="maxsize is 0"):
        _ = nothing.set("a", 1, durable=True)


def test_a_durable_write_that_is_not_awaited_warns_and_is_stored(path: Path) -> None:
    cache = opened(path)
    with pytest.warns(RuntimeWarning, match="never awaited"):
        call = cache.set("a", 1, durable=True)
        del call
    assert value_of(cache, "a") == 1


# The thread


def test_the_thread_syncs_by_itself_and_ends_with_the_last_cache(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cache import _upkeep

    keeper = _upkeep.Keeper()
    monkeypatch.setattr(_upkeep, "_keeper", keeper)
    cache = opened(path, flush=0.001)
    cache.set("a", 1)
    thread = keeper._thread
    assert thread is not None and thread.is_alive() and thread.name == "cache journal"
    del cache
    keeper._news.put(None)
    thread.join(10)
    assert not thread.is_alive()


def test_a_plan_comes_back_after_the_interval_or_sooner_if_there_is_more(path: Path) -> None:
    from cache._upkeep import JournalPlan

    class Fake:
        pauses: list[float | None] = [None, 0.5, 100.0]
        steps = 0

        def is_journaled(self) -> bool:
            return True

        def tend_journal(self, flush_every: float) -> float | None:
            self.steps += 1
            return self.pauses[self.steps - 1]

    cache: Any = Fake()
    now = time.monotonic()
    plan = JournalPlan(cache, None, 10.0, now)  # type: ignore[arg-type]
    assert (plan.look(now + 1), cache.steps) == (now + 10, 0)
    assert (plan.look(now + 10), cache.steps) == (now + 20, 1)
    for at, pause in ((20, 0.5), (30, 10.0)):
        before = time.monotonic()
        due = plan.look(now + at)
        assert before + pause <= due <= time.monotonic() + pause
    assert not plan.is_dead()
    del cache
    assert plan.is_dead()


def test_a_closed_journal_is_looked_after_no_more(path: Path) -> None:
    from cache._upkeep import JournalPlan

    cache = opened(path, flush=NEVER)
    persistence = cache._persistence
    assert persistence is not None
    plan = JournalPlan(cache, persistence, 0.0, 0.0)
    cache.close_journal(10)
    plan.look(1.0)
    assert plan.is_dead()

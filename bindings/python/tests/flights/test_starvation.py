"""A caller whose own loader would succeed is answered, even if many loads of its key do not help.

The story: a task on another event loop began a load of a key, cancelled the load, and began the
next load, without end. A caller that had joined asked again after each load, found the next load,
and joined again. Now a caller joins at most two loads of this kind, and then loads on its own event
loop.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Any

import pytest
from loops import Run, task, turns, until

from cache import AsyncCache
from cache.errors import LoadCancelledError

MANY = 20


class Canceller:
    """An event loop in a thread. Begins loads of a key, and cancels each of them on request."""

    def __init__(self, cache: AsyncCache, get: Any) -> None:
        self.begun = 0
        self._get = get
        self._cache = cache
        self._running = threading.Semaphore(0)
        self._next = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._run()], daemon=True)
        self._thread.start()

    def wait_for_a_load(self) -> None:
        """Returns when a load is running."""
        assert self._running.acquire(timeout=60)

    def cancel(self) -> None:
        """Cancels the load. The next load begins in the same turn in which the callers are
        answered.
        """
        self._loop.call_soon_threadsafe(self._next.set)

    def end(self) -> None:
        """Ends the thread after its present load."""
        self.begun = MANY
        self.cancel()
        self._thread.join()
        self._loop.close()

    async def _run(self) -> None:
        loads: list[asyncio.Task[Any]] = []

        async def stand_still(*_: Any) -> None:
            loads.append(task_of_load())
            await asyncio.get_running_loop().create_future()

        while self.begun < MANY:
            self.begun += 1
            asks = task(self._get(self._cache, stand_still))
            await until(lambda: len(loads) == 1)
            self._running.release()
            await self._next.wait()
            self._next.clear()
            loads.pop().cancel()
            with suppress(LoadCancelledError):
                await asks


def task_of_load() -> asyncio.Task[Any]:
    """Returns the running task."""
    running = asyncio.current_task()
    assert running is not None
    return running


def _single(cache: AsyncCache, load: Any) -> Any:
    return cache.get("k", load)


def _batch(cache: AsyncCache, load: Any) -> Any:
    return cache.get("k", batch_loader=load)


@pytest.mark.parametrize("get", [_single, _batch], ids=["single", "batch"])
def test_a_caller_is_answered_though_another_loop_begins_and_cancels_loads_for_ever(
    get: Any,
) -> None:
    cache = AsyncCache(batch_window_ms=0)
    canceller = Canceller(cache, get)
    loop, loads = asyncio.new_event_loop(), 0

    async def own(keys: list[str] | None = None) -> Any:
        nonlocal loads
        loads += 1
        await asyncio.sleep(0)
        return "own" if keys is None else ["own"]

    async def ask() -> list[Any]:
        return list(await asyncio.gather(get(cache, own), get(cache, own), get(cache, own)))

    canceller.wait_for_a_load()
    asks = loop.create_task(ask())
    cancelled = 0
    while not asks.done() and cancelled < MANY // 2:
        loop.run_until_complete(turns())
        if cancelled < 2:
            assert cache.stats()["joined"] == 3 * (cancelled + 1), "the scene: all callers have joined"
        canceller.cancel()
        cancelled += 1
        canceller.wait_for_a_load()
        loop.run_until_complete(turns())
    assert asks.done(), f"still waiting after {cancelled} loads"
    assert (asks.result(), cancelled) == (["own"] * 3, 2)
    assert loads == 1, "callers on one event loop share a load"
    assert loop.run_until_complete(_value(cache)) == "own"
    canceller.end()
    loop.close()


async def _value(cache: AsyncCache) -> Any:
    return await cache.get("k")


class ForItsCallerOnly(Exception):
    """An error such as that of a detected loop of tool calls."""

    _is_for_its_caller_only = True


def test_a_caller_is_answered_though_others_fail_for_ever_with_errors_of_their_own(run: Run) -> None:
    async def main() -> None:
        cache, failed = AsyncCache(), 0

        async def fails() -> None:
            await asyncio.sleep(0)
            raise ForItsCallerOnly

        async def own() -> str:
            await asyncio.sleep(0)
            return "own"

        async def fail_for_ever() -> None:
            nonlocal failed
            for _ in range(MANY):
                with suppress(ForItsCallerOnly):
                    await cache.get("k", fails)
                    return
                failed += 1

        disturbs = task(fail_for_ever())
        await turns(1)
        assert await cache.get("k", own) == "own"
        await disturbs
        assert failed <= 4
        assert await cache.get("k") == "own"

    run(main())

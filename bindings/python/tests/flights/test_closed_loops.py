"""Event loops that close while they run a load."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

import pytest
from flight_calls import batching
from loops import Load, Run, new_loop, turns

from cache import AsyncCache


class OtherLoop:
    """An event loop in a thread of its own."""

    def __init__(self, kind: str) -> None:
        self.loop = new_loop(kind)
        self.loop.set_exception_handler(lambda *_: None)
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def start(self, function: Callable[[], Awaitable[Any]]) -> Future[Any]:
        """Starts a function on the loop."""

        async def call() -> Any:
            return await function()

        return asyncio.run_coroutine_threadsafe(call(), self.loop)

    def do(self, function: Callable[[], Awaitable[Any]]) -> Any:
        """Runs a function on the loop, and waits for the result."""
        return self.start(function).result()

    def close(self, cancels: bool) -> None:
        """Ends the loop with all its tasks; as `asyncio.run` does, or without cancelling."""

        async def cancel_all() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for one in tasks:
                one.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        if cancels:
            self.do(cancel_all)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
@pytest.mark.parametrize("what", ["single", "batch"])
def test_the_loop_of_the_first_caller_ends_and_callers_on_other_loops_are_answered(
    kind: str, what: str
) -> None:
    cache, load = batching(1), Load()
    first, second, third = OtherLoop(kind), OtherLoop(kind), OtherLoop(kind)

    async def get() -> Any:
        return await (cache.get("k", load) if what == "single" else cache.get("k", batch_loader=load))

    first.start(get)
    first.do(load.called)
    others = [second.start(get), third.start(get)]
    second.do(turns)
    third.do(turns)
    first.close(cancels=True)

    async def answer() -> None:
        await load.called(2)
        gate = load.calls[1]
        gate.get_loop().call_soon_threadsafe(gate.set_result, {"k": "v"} if what == "batch" else "v")

    second.do(answer)
    assert [other.result() for other in others] == ["v", "v"]
    assert len(load.calls) == 2
    second.close(cancels=True)
    third.close(cancels=True)


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
@pytest.mark.parametrize("what", ["single", "batch"])
def test_the_loop_of_the_first_caller_is_closed_without_a_word_and_nobody_hangs(kind: str, what: str) -> None:
    cache, load = batching(1), Load()
    first, second = OtherLoop(kind), OtherLoop(kind)

    async def get() -> Any:
        return await (cache.get("k", load) if what == "single" else cache.get("k", batch_loader=load))

    started: Future[Any] | None = first.start(get)
    first.do(load.called)
    other = second.start(get)
    second.do(turns)
    first.close(cancels=False)
    started = first = None  # type: ignore[assignment]  # noqa: F841
    load.calls.clear()
    gc.collect()

    async def answer() -> None:
        await load.called(1)
        load.answer({"k": "v"} if what == "batch" else "v")

    second.do(answer)
    assert other.result() == "v"
    second.close(cancels=True)


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
@pytest.mark.parametrize("what", ["single", "batch"])
def test_a_load_whose_loop_is_closed_does_not_hold_up_new_callers(kind: str, what: str) -> None:
    cache, load = batching(1), Load()
    first = OtherLoop(kind)

    async def get() -> Any:
        return await (cache.get("k", load) if what == "single" else cache.get("k", batch_loader=load))

    first.start(get)
    first.do(load.called)
    first.close(cancels=False)
    # The load that can never continue is kept alive by its future, in `load.calls`.
    second = OtherLoop(kind)
    other = second.start(get)

    async def answer() -> None:
        await load.called(2)
        load.answer({"k": "v"} if what == "batch" else "v")

    second.do(answer)
    assert other.result() == "v"
    second.close(cancels=True)
    load.calls.clear()
    del first
    gc.collect()


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
@pytest.mark.parametrize("cancels", [True, False], ids=["cancelling", "without a word"])
def test_batch_the_loop_that_was_to_send_it_closes_and_callers_on_other_loops_are_answered(
    kind: str, cancels: bool
) -> None:
    async def load(keys: list[str]) -> list[str]:
        return [key.upper() for key in keys]

    cache = AsyncCache(batch_window_ms=1_000)
    first, second = OtherLoop(kind), OtherLoop(kind)

    async def get(key: str) -> Any:
        return await cache.get(key, batch_loader=load)

    first.start(lambda: get("a"))
    first.do(turns)
    others = [second.start(lambda: get("a")), second.start(lambda: get("b"))]
    second.do(turns)
    first.close(cancels)
    later = second.start(lambda: get("c"))
    assert [one.result() for one in (*others, later)] == ["A", "B", "C"]
    second.close(cancels=True)
    del first
    gc.collect()


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_one_cache_serves_many_loops_in_many_threads_at_once(kind: str) -> None:
    cache = AsyncCache(maxsize=None)
    loads: list[int] = []
    everybody = threading.Barrier(8)

    def loader(key: int) -> Callable[[], Awaitable[int]]:
        async def load() -> int:
            loads.append(key)
            await turns(2)
            return key * key

        return load

    async def main() -> list[int]:
        return list(await asyncio.gather(*(cache.get(key, loader(key)) for key in range(300))))

    results: list[list[int]] = []

    def work() -> None:
        run = Run(kind)
        everybody.wait()
        results.append(run(main()))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[key * key for key in range(300)]] * 8
    assert sorted(loads) == list(range(300))

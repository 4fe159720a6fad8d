"""Every cell of the table of flights: no caller hangs, and one load is one load.

The names of the tests are the cells: the event, for a single load and for a batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from flight_calls import _returns, batching
from loops import NEVER_MS, Load, Run, cancel, joined, outcome, task, turns, until

from cache import AsyncCache


def test_single_one_caller_is_cancelled_and_the_load_goes_on_for_the_others(run: Run) -> None:
    async def main() -> None:
        cache, load = AsyncCache(), Load()
        first, second, third = (task(cache.get("k", load)) for _ in range(3))
        await joined(first, second, third)
        await cancel(second)
        load.answer("v")
        assert list(await asyncio.gather(first, third)) == ["v", "v"]
        assert (len(load.calls), load.cancelled) == (1, 0)
        assert await cache.get("k") == "v"

    run(main())


def test_batch_one_caller_is_cancelled_and_the_load_goes_on_for_the_others(run: Run) -> None:
    async def main() -> None:
        cache, load = batching(2), Load()
        a, a_too, b = (task(cache.get(key, batch_loader=load)) for key in ("a", "a", "b"))
        await load.called()
        await cancel(a_too)
        load.answer({"a": 1, "b": 2})
        assert list(await asyncio.gather(a, b)) == [1, 2]
        assert (load.keys, load.cancelled) == ([["a", "b"]], 0)

    run(main())


def test_batch_one_caller_is_cancelled_before_the_batch_leaves_and_its_neighbours_are_answered(
    run: Run,
) -> None:
    async def main() -> None:
        cache, load = batching(3), Load()
        a, a_too, b = (task(cache.get(key, batch_loader=load)) for key in ("a", "a", "b"))
        await joined(a, a_too, b)
        await cancel(a_too)
        c = task(cache.get("c", batch_loader=load))
        await load.called()
        assert load.keys == [["a", "b", "c"]]
        load.answer([1, 2, 3])
        assert list(await asyncio.gather(a, b, c)) == [1, 2, 3]

    run(main())


# The first caller is cancelled.


def test_single_the_first_caller_is_cancelled_and_the_load_goes_on_and_runs_once(run: Run) -> None:
    async def main() -> None:
        cache, load = AsyncCache(), Load()
        first, second, third = (task(cache.get("k", load)) for _ in range(3))
        await joined(first, second, third)
        await cancel(first)
        load.answer("v")
        assert list(await asyncio.gather(second, third)) == ["v", "v"]
        assert (len(load.calls), load.cancelled) == (1, 0)
        assert await cache.get("k") == "v"

    run(main())


def test_batch_the_first_caller_is_cancelled_and_the_load_goes_on_and_runs_once(run: Run) -> None:
    async def main() -> None:
        cache, load = batching(2), Load()
        first, second, b = (task(cache.get(key, batch_loader=load)) for key in ("a", "a", "b"))
        await load.called()
        await cancel(first)
        load.answer({"a": 1, "b": 2})
        assert list(await asyncio.gather(second, b)) == [1, 2]
        assert (load.keys, load.cancelled) == ([["a", "b"]], 0)

    run(main())


def test_batch_the_caller_who_filled_the_batch_is_cancelled_and_the_others_are_answered(run: Run) -> None:
    async def main() -> None:
        cache, load = batching(2), Load()
        a = task(cache.get("a", batch_loader=load))
        await joined(a)
        last = task(cache.get("b", batch_loader=load))
        await load.called()
        await cancel(last)
        load.answer({"a": 1, "b": 2})
        assert await a == 1
        assert await cache.get("b") == 2

    run(main())


def test_batch_the_first_caller_is_cancelled_before_the_window_ends_and_the_batch_still_leaves(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        cache, load = AsyncCache(), Load()
        ends: list[Callable[[], None]] = []
        with monkeypatch.context() as patched:
            # The test itself ends the window.
            loop = asyncio.get_running_loop()
            patched.setattr(loop, "call_later", lambda _, callback: ends.append(callback))
            first, second = (task(cache.get(key, batch_loader=load)) for key in ("a", "b"))
            await joined(first, second)
        await cancel(first)
        assert (load.keys, len(ends)) == ([], 1)
        ends[0]()
        await load.called()
        assert load.keys == [["b"]]
        load.answer(["B"])
        assert await second == "B"

    run(main())


# The last caller is cancelled.


def test_single_the_last_caller_is_cancelled_and_the_load_is_cancelled(run: Run) -> None:
    async def main() -> None:
        cache, load = AsyncCache(), Load()
        callers = [task(cache.get("k", load)) for _ in range(3)]
        await joined(*callers)
        await cancel(*callers[:2])
        assert load.cancelled == 0
        await cancel(callers[2])
        await turns()
        assert load.cancelled == 1
        assert load.calls[0].cancelled()
        assert "k" not in cache.cache
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_batch_the_last_caller_is_cancelled_before_the_batch_leaves_and_the_key_is_dropped(run: Run) -> None:
    async def main() -> None:
        cache, load = batching(3), Load()
        a, b = (task(cache.get(key, batch_loader=load)) for key in ("a", "b"))
        await joined(a, b)
        await cancel(a)
        c, d = (task(cache.get(key, batch_loader=load)) for key in ("c", "d"))
        await load.called()
        assert load.keys == [["b", "c", "d"]]
        load.answer([2, 3, 4])
        assert list(await asyncio.gather(b, c, d)) == [2, 3, 4]

    run(main())


def test_batch_all_callers_are_cancelled_before_the_batch_leaves_and_no_load_is_made(run: Run) -> None:
    async def main() -> None:
        asked: list[list[str]] = []

        async def load(keys: list[str]) -> list[str]:
            asked.append(list(keys))
            return keys

        cache = AsyncCache(batch_window_ms=NEVER_MS)
        callers = [task(cache.get(key, batch_loader=load)) for key in ("a", "b")]
        await joined(*callers)
        await cancel(*callers)
        cache.batch_window_ms = 1
        assert await cache.get("c", batch_loader=load) == "c"
        assert asked == [["c"]]

    run(main())


def test_batch_the_last_caller_is_cancelled_after_the_batch_left_and_the_result_is_stored(run: Run) -> None:
    async def main() -> None:
        cache, load = batching(2), Load()
        a, b = (task(cache.get(key, batch_loader=load)) for key in ("a", "b"))
        await load.called()
        await cancel(a)
        load.answer({"a": 1, "b": 2})
        assert await b == 2
        assert await cache.get("a") == 1
        assert load.cancelled == 0

    run(main())


# Beyond the table.


def test_a_herd_of_a_thousand_callers_is_one_load(run: Run) -> None:
    async def main() -> None:
        cache, load = AsyncCache(), Load()
        callers = [task(cache.get("k", load)) for _ in range(1_000)]
        await joined(*callers)
        await cancel(*callers[::2])
        load.answer("v")
        assert await asyncio.gather(*callers[1::2]) == ["v"] * 500
        assert len(load.calls) == 1
        stats = cache.stats()
        assert (stats["loads"], stats["joined"], stats["misses"], stats["hits"]) == (1, 999, 1_000, 0)

    run(main())


def test_a_herd_of_a_thousand_callers_of_a_batch_asks_each_key_once(run: Run) -> None:
    async def main() -> None:
        cache, load = batching(10, maxsize=None), Load()
        callers = [task(cache.get(number % 10, batch_loader=load)) for number in range(1_000)]
        await joined(*callers)
        assert load.keys == [list(range(10))]
        load.answer({key: -key for key in range(10)})
        assert await asyncio.gather(*callers) == [-(number % 10) for number in range(1_000)]

    run(main())


def test_a_herd_on_a_failing_load_gets_the_same_exception_and_no_traceback_that_grows(run: Run) -> None:
    async def main() -> None:
        cache, load, error = AsyncCache(), Load(), ValueError("no")
        callers = [task(outcome(cache.get("k", load))) for _ in range(1_000)]
        await joined(*callers)
        load.fail(error)
        assert all(got is error for got in await asyncio.gather(*callers))
        frames, traceback = 0, error.__traceback__
        while traceback is not None:
            frames, traceback = frames + 1, traceback.tb_next
        assert frames < 20

    run(main())


def test_a_caller_that_is_cancelled_before_it_runs_asks_for_nothing(run: Run) -> None:
    async def main() -> None:
        cache, load = AsyncCache(), Load()
        caller = asyncio.create_task(cache.get("k", load))
        await cancel(caller)
        assert load.calls == []
        assert cache.get_metrics()["misses"] == 0

    run(main())


def test_a_caller_that_is_cancelled_in_the_turn_in_which_it_joins_leaves_the_load_alone(run: Run) -> None:
    async def main() -> None:
        cache, load = AsyncCache(), Load()
        first = task(cache.get("k", load))
        await load.called()
        second = task(cache.get("k", load))
        await asyncio.sleep(0)
        await cancel(second)
        assert load.cancelled == 0
        load.answer("v")
        assert await first == "v"

    run(main())


def test_a_caller_that_is_cancelled_in_the_turn_of_the_answer_loses_nothing_for_the_others(run: Run) -> None:
    async def main() -> None:
        for first_is_cancelled in (True, False):
            cache, load = AsyncCache(), Load()
            one, two = (task(outcome(cache.get("k", load))) for _ in range(2))
            await joined(one, two)
            load.answer("v")
            (one if first_is_cancelled else two).cancel()
            assert await (two if first_is_cancelled else one) == "v"
            await outcome(one if first_is_cancelled else two)
            assert await cache.get("k", _returns("w")) == "v"

    run(main())


def test_a_cancelled_last_caller_and_then_a_new_get_loads_anew(run: Run) -> None:
    async def main() -> None:
        cache, load = AsyncCache(), Load()
        last = task(cache.get("k", load))
        await load.called()
        last.cancel()
        new = task(cache.get("k", load))
        await load.called(2)
        load.answer("v")
        assert await new == "v"
        assert load.calls[0].cancelled()
        assert isinstance(await outcome(last), asyncio.CancelledError)
        assert await cache.get("k") == "v"

    run(main())


def test_a_load_that_suppresses_its_cancellation_neither_hangs_nor_stores_over_a_newer_one(run: Run) -> None:
    async def main() -> None:
        cache, gate = AsyncCache(), asyncio.Event()
        stubborn_ended = False

        async def stubborn() -> str:
            nonlocal stubborn_ended
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                await gate.wait()
            stubborn_ended = True
            return "stubborn"

        last = task(cache.get("k", stubborn))
        await joined(last)
        await cancel(last)
        load = Load()
        new = task(cache.get("k", load))
        await load.called()
        load.answer("new")
        assert await new == "new"
        gate.set()
        await until(lambda: stubborn_ended)
        await turns()
        assert await cache.get("k") == "new"

    run(main())


def test_wait_for_times_out_for_its_own_caller_only(run: Run) -> None:
    async def main() -> None:
        cache, load = AsyncCache(), Load()
        patient = task(cache.get("k", load))
        await load.called()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(cache.get("k", load), 0.001)
        load.answer("v")
        assert await patient == "v"

    run(main())


def test_wait_for_of_the_only_caller_cancels_the_load(run: Run) -> None:
    async def main() -> None:
        cache, load = AsyncCache(), Load()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(cache.get("k", load), 0.1)
        await turns()
        assert load.cancelled == 1
        assert await cache.get("k", _returns("v")) == "v"

    run(main())


def test_a_caller_that_is_closed_by_hand_leaves_its_load(run: Run) -> None:
    async def main() -> None:
        cache, load = AsyncCache(), Load()
        by_hand: Any = cache.get("k", load)
        by_hand.send(None)
        await load.called()
        by_hand.close()
        await turns()
        assert load.cancelled == 1

    run(main())


def test_a_loader_sees_the_context_of_the_caller_who_started_it(run: Run) -> None:
    import contextvars

    who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")

    async def main() -> None:
        async def load() -> str:
            before = who.get()
            await turns(2)
            assert who.get() == before
            return before

        who.set("me")
        assert await AsyncCache().get("k", load) == "me"

    run(main())

"""The awaitable of a call is driven by hand: `send`, `throw`, `close`, and inspection."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
from typing import Any
from unittest import mock

import pytest
from awaitables import counting, square
from loops import Load, Run, task, turns

from cache import AsyncCache


def by_hand(made: Any) -> Any:
    return made


def test_send_of_a_hit_by_hand_stops_with_the_value() -> None:
    cache = AsyncCache()
    value = object()
    cache.set("k", value)
    with pytest.raises(StopIteration) as stop:
        by_hand(cache.get("k")).send(None)
    assert stop.value.value is value


@pytest.mark.parametrize(
    "value",
    [(1, 2), (), StopIteration(3), ValueError("a value, not raised"), None],
    ids=lambda value: repr(value),
)
def test_a_value_that_looks_like_an_exceptions_arguments_arrives_as_it_is(run: Run, value: Any) -> None:
    async def main() -> None:
        cache = AsyncCache()
        cache.set("k", value)
        assert await cache.get("k") is value
        assert await task(cache.get("k")) is value
        with pytest.raises(StopIteration) as stop:
            by_hand(cache.get("k")).send(None)
        assert stop.value.value is value

    run(main())


def test_send_of_something_to_a_fresh_one_is_a_type_error() -> None:
    cache = AsyncCache()
    made = by_hand(cache.get("k"))
    with pytest.raises(TypeError, match="can't send non-None value to a just-started"):
        made.send(1)
    made.close()


def test_throw_into_a_fresh_one_raises_it_and_asks_for_nothing() -> None:
    cache, calls, error = AsyncCache(), list[int](), ValueError("thrown")
    made = by_hand(cache.get("k", counting(calls)))
    with pytest.raises(ValueError) as thrown:
        made.throw(error)
    assert thrown.value is error
    assert (calls, cache.misses) == ([], 0)
    with pytest.raises(RuntimeError):
        made.send(None)


def test_throw_of_a_class_raises_an_instance() -> None:
    made = by_hand(AsyncCache().get("k"))
    with pytest.raises(KeyError):
        made.throw(KeyError)


def test_throw_into_a_waiting_one_raises_it_and_leaves_the_load(run: Run) -> None:
    async def main() -> None:
        cache, load, error = AsyncCache(), Load(), ValueError("thrown")
        made = by_hand(cache.get("k", load))
        made.send(None)
        await load.called()
        with pytest.raises(ValueError) as thrown:
            made.throw(error)
        assert thrown.value is error
        await turns()
        assert load.cancelled == 1

    run(main())


def test_send_throw_and_close_of_a_finished_one(run: Run) -> None:
    async def main() -> None:
        cache = AsyncCache()
        for finish in (lambda one: one.close(), lambda one: pytest.raises(StopIteration, one.send, None)):
            made = by_hand(cache.get("k"))
            finish(made)
            with pytest.raises(RuntimeError):
                made.send(None)
            with pytest.raises((RuntimeError, ValueError)):
                made.throw(ValueError("thrown"))
            made.close()

    run(main())


def test_dropping_a_waiting_one_leaves_the_load(run: Run) -> None:
    async def main() -> None:
        cache, load = AsyncCache(), Load()
        made = by_hand(cache.get("k", load))
        made.send(None)
        await load.called()
        del made
        gc.collect()
        await turns()
        assert load.cancelled == 1

    run(main())


def test_a_miss_without_an_event_loop_is_an_error_and_not_a_crash() -> None:
    cache, calls = AsyncCache(), list[int]()
    with pytest.raises(RuntimeError, match="no running event loop"):
        by_hand(cache.get("k", counting(calls))).send(None)
    assert asyncio.run(by_hand(cache.get("k", counting(calls)))) == "v"


def test_await_dunder_gives_an_iterator(run: Run) -> None:
    async def main() -> None:
        cache = AsyncCache()
        cache.set("k", 1)
        made = cache.get("k")
        iterator = made.__await__()
        assert iter(iterator) is iterator
        with pytest.raises(StopIteration) as stop:
            next(iterator)
        assert stop.value.value == 1

    run(main())


def test_it_has_the_name_of_what_was_called() -> None:
    made: Any = square(3)
    assert made.__name__ == "square" or "square" in repr(made)
    assert made.cr_frame is None or hasattr(made.cr_frame, "f_lineno")
    assert made.cr_running is False
    made.close()


def test_a_task_of_it_can_be_shown_and_its_stack_asked_for(run: Run) -> None:
    async def main() -> None:
        cache, load = AsyncCache(), Load()
        waits = asyncio.create_task(cache.get("k", load))
        await load.called()
        assert repr(waits)
        assert isinstance(waits.get_stack(), list)
        load.answer("v")
        assert await waits == "v"
        assert repr(waits)

    run(main())


def test_debug_mode_of_the_loop_is_no_problem() -> None:
    async def main() -> None:
        cache, load = AsyncCache(), Load()
        waits = asyncio.create_task(cache.get("k", load))
        await load.called()
        load.answer("v")
        assert await waits == "v"
        assert await square(4) == 16

    asyncio.run(main(), debug=True)


def test_reference_counts_of_the_value_return(run: Run) -> None:
    async def main() -> None:
        cache, value = AsyncCache(), object()
        cache.set("k", value)
        before = sys.getrefcount(value)
        for _ in range(1_000):
            await cache.get("k")
        assert sys.getrefcount(value) == before

    run(main())


def test_get_passes_for_a_coroutine_function(run: Run) -> None:
    """Mock made a stand-in that could not be awaited, and Starlette called `get` in a thread."""
    assert inspect.iscoroutinefunction(AsyncCache.get)
    assert inspect.iscoroutinefunction(AsyncCache().get)
    assert list(inspect.signature(AsyncCache().get).parameters) == ["key", "loader", "batch_loader", "ttl"]
    assert (AsyncCache.get.__name__, AsyncCache.get.__qualname__) == ("get", "Cache.get")
    assert AsyncCache.get.__doc__ is not None and "on a miss the loader's result" in AsyncCache.get.__doc__
    for stand_in in (mock.create_autospec(AsyncCache, instance=True), mock.AsyncMock(spec=AsyncCache)):
        stand_in.get.return_value = 5
        assert run(stand_in.get("key")) == 5
    of_class: Any = AsyncCache.get
    for wrong in ((), (5, "key")):
        with pytest.raises(TypeError, match="called on a cache"):
            of_class(*wrong)
    with pytest.raises(TypeError, match="missing"):
        of_class(AsyncCache())
    cache = AsyncCache()
    cache.set("key", 1)
    get: Any = cache.get
    calls = (get("key"), AsyncCache.get(cache, "key"), get(key="key"), next(map(get, ["key"])))
    assert [run(call) for call in calls] == [1, 1, 1, 1]

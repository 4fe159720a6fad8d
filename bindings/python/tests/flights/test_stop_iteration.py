"""The value of a hit in a `StopIteration` belongs to the hit only, even if user code keeps the
exception or the awaitable.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from loops import Run

from cache import AsyncCache, AsyncLRU


class Value:
    """An object that can be watched, and run code when it is freed."""

    def __init__(self, when_freed: Callable[[], None] = lambda: None) -> None:
        self.when_freed = when_freed

    def __del__(self) -> None:
        self.when_freed()


@pytest.fixture(autouse=True)
def _without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def cache_of(**entries: Any) -> AsyncCache:
    cache = AsyncCache()
    for key, value in entries.items():
        cache.set(key, value)
    return cache


def stopped(awaitable: Any) -> StopIteration:
    """The exception that `__next__` of a hit raises."""
    iterator = awaitable.__await__()
    try:
        next(iterator)
    except StopIteration as stop:
        return stop
    raise AssertionError("it did not stop")


def test_an_exception_that_is_kept_is_neither_raised_again_nor_changed(run: Run) -> None:
    cache = cache_of(a=1, b=2)
    first = stopped(cache.get("a"))
    second = stopped(cache.get("b"))

    async def main() -> list[Any]:
        return [await cache.get(key) for key in ("b", "a", "b")]

    assert run(main()) == [2, 1, 2]
    assert first is not second
    assert (first.value, second.value) == (1, 2)


@pytest.mark.parametrize("part", ["__traceback__", "__dict__", "__context__"])
def test_nothing_of_an_exception_is_found_in_the_next_one(part: str) -> None:
    cache = cache_of(a=1, b=2)
    try:
        raise KeyError("being handled")
    except KeyError:
        first = stopped(cache.get("a"))
        first.mark = "mine"  # type: ignore[attr-defined]
        kept = getattr(first, part)
    del first
    second = stopped(cache.get("b"))
    assert second.value == 2
    assert getattr(second, part) is not kept
    assert second.__context__ is None
    assert not hasattr(second, "mark")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes are new in Python 3.11")
def test_notes_and_a_cause_are_not_found_in_the_next_exception() -> None:
    cache = cache_of(a=1)
    first: Any = stopped(cache.get("a"))
    first.add_note("mine")
    first.__cause__ = KeyError()
    first.args = ("mine",)
    del first
    second = stopped(cache.get("a"))
    assert not hasattr(second, "__notes__")
    assert (second.__cause__, second.__suppress_context__, second.value) == (None, False, 1)
    assert second.args != ("mine",)


def test_the_exception_being_handled_is_the_context_and_does_not_live_longer() -> None:
    class Handled(Exception):
        pass

    cache = cache_of(a=1)
    handled = Handled()
    freed = weakref.ref(handled)
    try:
        raise handled
    except Handled:
        stop = stopped(cache.get("a"))
    assert stop.__context__ is handled
    del stop, handled
    assert freed() is None


def test_a_value_lives_no_longer_than_the_exception_that_it_was_in(run: Run) -> None:
    cache = cache_of(a=Value(), b=Value(), c=1)
    watched = [weakref.ref(stopped(cache.get(key)).value) for key in ("a", "b")]

    async def main() -> None:
        await cache.get("a")
        await cache.get("b")

    run(main())
    cache.clear()
    assert [value() for value in watched] == [None, None]


def test_a_cycle_through_a_kept_exception_is_collected() -> None:
    cache = cache_of(a=Value())
    value = stopped(cache.get("a")).value
    value.stop = stopped(cache.get("a"))
    freed = weakref.ref(value)
    cache.clear()
    del value
    assert freed() is not None
    gc.collect()
    assert freed() is None


def test_a_finalizer_may_hit_while_the_value_of_another_hit_is_dropped() -> None:
    cache, seen = cache_of(b=2), list[Any]()
    cache.set("a", Value(lambda: seen.append(stopped(cache.get("b")).value)))
    stop = stopped(cache.get("a"))
    cache.delete("a")
    assert seen == []
    del stop
    assert seen == [2]
    assert stopped(cache.get("b")).value == 2


def test_a_tracer_may_hit_and_keep_every_exception(run: Run) -> None:
    cache, kept = cache_of(a=1, b=2), list[tuple[StopIteration, Any]]()
    others = list[Any]()

    def trace(frame: Any, event: str, argument: Any) -> Any:
        if event == "exception" and isinstance(argument[1], StopIteration):
            kept.append((argument[1], argument[1].value))
            if len(others) < 4:
                others.append(None)
                others.append(stopped(cache.get("b")).value)
        return trace

    async def main() -> list[Any]:
        return [await cache.get("a") for _ in range(5)]

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        values = run(main())
    finally:
        sys.settrace(before)
    assert values == [1] * 5
    assert {other for other in others if other is not None} <= {2}
    assert all(stop.value is value for stop, value in kept)


def test_awaitables_that_are_made_before_the_first_is_awaited_get_their_own_values(run: Run) -> None:
    cache = AsyncCache(maxsize=300)
    for number in range(300):
        cache.set(f"k{number}", [number])

    async def main() -> None:
        calls = [cache.get(f"k{number}") for number in range(300)]
        assert [(await call) for call in calls] == [[number] for number in range(300)]

    for _ in range(3):
        run(main())


def test_what_the_collector_shows_can_be_held_while_others_hit(run: Run) -> None:
    cache = cache_of(a=1)

    async def hits() -> None:
        assert [await cache.get("a") for _ in range(3)] == [1, 1, 1]

    async def main() -> None:
        await hits()
        held: list[Any] = [
            found
            for found in gc.get_objects()
            if type(found).__module__ == "cache._native" and type(found).__name__ in ("Call", "StopIteration")
        ]
        await hits()
        for found in held:
            repr(found)
            if isinstance(found, StopIteration):
                assert (found.value, found.args) == (None, ())
            else:
                with pytest.raises((ValueError, RuntimeError)):
                    found.send(None)
        held.clear()
        await hits()

    run(main())


def test_a_finished_call_shows_the_collector_nothing() -> None:
    cache, value = cache_of(a=Value()), Value()
    cache.set("b", value)
    stopped(cache.get("b"))
    found = [type(holder).__name__ for holder in gc.get_referrers(value)]
    assert "Call" not in found
    assert "StopIteration" not in found


def test_threads_get_their_own_values() -> None:
    cached = AsyncLRU(maxsize=None)(_twice)
    wrong = list[Any]()

    async def main(start: int) -> None:
        for number in range(2000):
            key = start + number % 7
            if (got := await cached(key)) != 2 * key:
                wrong.append((key, got))

    threads = [threading.Thread(target=lambda at=at: asyncio.run(main(at))) for at in range(0, 40, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_a_cache_has_no_dict_before_a_subclass_or_a_user_sets_an_attribute() -> None:
    cache = AsyncCache()
    assert vars(cache) == {}  # a made dict keeps the interpreter from caching the look-up of `get`
    assert cache.backup is None
    vars(cache)["note"] = "mine"
    assert cache.note == "mine"  # type: ignore[attr-defined]


async def _twice(number: int) -> int:
    return 2 * number

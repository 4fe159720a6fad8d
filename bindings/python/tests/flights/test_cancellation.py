"""Every cell of the table of flights: no caller hangs, and one load is one load.

The names of the tests are the cells: the event, for a single load and for a batch.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

import pytest
from loops import NEVER_MS, Load, Run, cancel, joined, new_loop, outcome, task, turns, until

from cache import AsyncCache, AsyncLRU, CacheError, LoadCancelledError, RecursiveLoadError


class Fatal(BaseException):
    """Not an `Exception`, and does not stop an event loop."""


def batching(size: int, **options: Any) -> AsyncCache:
    """A cache whose batches leave with exactly this many keys."""
    return AsyncCache(batch_window_ms=NEVER_MS, max_batch_size=size, **options)


# One caller is cancelled.


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
    run: Run,
) -> None:
    async def main() -> None:
        async def load(keys: list[str]) -> list[str]:
            return [key.upper() for key in keys]

        cache = AsyncCache(batch_window_ms=5)
        first, second = (task(cache.get(key, batch_loader=load)) for key in ("a", "b"))
        await joined(first, second)
        await cancel(first)
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


# The loader raises.


def test_single_the_loader_raises_and_every_caller_gets_it_and_the_next_get_loads_anew(run: Run) -> None:
    async def main() -> None:
        cache, load, error = AsyncCache(), Load(), ValueError("no")
        callers = [task(outcome(cache.get("k", load))) for _ in range(3)]
        await joined(*callers)
        load.fail(error)
        for got in await asyncio.gather(*callers):
            assert got is error
        again = task(cache.get("k", load))
        await load.called(2)
        load.answer("v")
        assert await again == "v"
        assert cache.stats()["load_errors"] == 1

    run(main())


def test_batch_the_loader_raises_and_every_caller_of_that_batch_gets_it(run: Run) -> None:
    async def main() -> None:
        cache, load, error = batching(2), Load(), ValueError("no")
        callers = [task(outcome(cache.get(key, batch_loader=load))) for key in ("a", "b", "a", "c", "d")]
        await load.called(2)
        load.fail(error, 0)
        load.answer({"c": 3, "d": 4}, 1)
        a, b, a_too, c, d = await asyncio.gather(*callers)
        assert a is error
        assert b is error
        assert a_too is error
        assert [c, d] == [3, 4]
        again = [task(cache.get(key, batch_loader=load)) for key in ("a", "b")]
        await load.called(3)
        assert load.keys[2] == ["a", "b"]
        load.answer([1, 2])
        assert await asyncio.gather(*again) == [1, 2]

    run(main())


def test_single_a_loader_that_raises_before_its_first_await_or_when_called(run: Run) -> None:
    async def main() -> None:
        error = LookupError("at once")

        async def raises() -> None:
            raise error

        def raises_when_called() -> Awaitable[None]:
            raise error

        cache = AsyncCache()
        for loader in (raises, raises_when_called):
            for got in await asyncio.gather(*(outcome(cache.get("k", loader)) for _ in range(3))):
                assert got is error
        assert len(cache.cache) == 0

    run(main())


def test_single_a_loader_that_returns_no_awaitable_is_an_error_of_every_caller(run: Run) -> None:
    async def main() -> None:
        cache = AsyncCache()
        not_async: Any = lambda: 1  # noqa: E731
        for got in await asyncio.gather(*(outcome(cache.get("k", not_async)) for _ in range(3))):
            assert isinstance(got, TypeError)
        assert "k" not in cache.cache

    run(main())


# The loader raises BaseException, or is cancelled from within.


def test_single_the_loader_raises_a_base_exception_and_every_caller_gets_it_at_once(run: Run) -> None:
    async def main() -> None:
        cache, load, error = AsyncCache(), Load(), Fatal("no")
        callers = [task(outcome(cache.get("k", load))) for _ in range(3)]
        await joined(*callers)
        load.fail(error)
        for got in await asyncio.gather(*callers):
            assert got is error
        assert await cache.get("k", _returns("v")) == "v"

    run(main())


def test_batch_the_loader_raises_a_base_exception_and_every_caller_gets_it_at_once(run: Run) -> None:
    async def main() -> None:
        cache, load, error = batching(2), Load(), Fatal("no")
        callers = [task(outcome(cache.get(key, batch_loader=load))) for key in ("a", "b", "a")]
        await load.called()
        load.fail(error)
        for got in await asyncio.gather(*callers):
            assert got is error

    run(main())


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt()], ids=["SystemExit", "KeyboardInterrupt"]
)
@pytest.mark.parametrize("kind", ["single", "batch"])
@pytest.mark.parametrize("loop_kind", ["asyncio", "uvloop"])
def test_the_loader_asks_the_process_to_exit_and_callers_and_loop_are_told(
    loop_kind: str, kind: str, error: BaseException
) -> None:
    loop = new_loop(loop_kind)
    # The loop reports, as for every task, that the exception it raised itself was not retrieved
    # from the task.
    loop.set_exception_handler(lambda *_: None)
    told = 0

    async def exits(keys: list[str] | None = None) -> None:
        await turns(3)
        raise error

    async def main() -> list[Any]:
        cache = AsyncCache(batch_window_ms=0)
        option: dict[str, Any] = {"loader" if kind == "single" else "batch_loader": exits}
        return await asyncio.gather(*(outcome(cache.get("k", **option)) for _ in range(3)))

    try:
        everybody = loop.create_task(main())
        while not everybody.done():
            try:
                loop.run_until_complete(everybody)
            except type(error):
                told += 1
        assert everybody.result() == [error] * 3
        assert told == 1
    finally:
        loop.close()


def test_single_the_loader_is_cancelled_from_within_and_every_caller_gets_an_error(run: Run) -> None:
    async def main() -> None:
        cache, load = AsyncCache(), Load()
        callers = [task(outcome(cache.get("the key", load))) for _ in range(3)]
        await joined(*callers)
        load.calls[0].cancel()
        for got in await asyncio.gather(*callers):
            assert isinstance(got, LoadCancelledError)
            assert isinstance(got, CacheError)
            assert "the key" in str(got)
        assert len(load.calls) == 1
        assert await cache.get("the key", _returns("v")) == "v"

    run(main())


def test_batch_the_loader_is_cancelled_from_within_and_every_caller_gets_an_error(run: Run) -> None:
    async def main() -> None:
        cache, load = batching(2), Load()
        callers = [task(outcome(cache.get(key, batch_loader=load))) for key in ("a", "b", "a")]
        await load.called()
        load.calls[0].cancel()
        for got in await asyncio.gather(*callers):
            assert isinstance(got, LoadCancelledError)
        assert len(load.calls) == 1

    run(main())


def test_single_the_loader_cancels_its_own_task_and_every_caller_gets_an_error(run: Run) -> None:
    async def main() -> None:
        async def cancels_itself() -> None:
            this = asyncio.current_task()
            assert this is not None
            this.cancel()
            await asyncio.sleep(0)

        async def later() -> None:
            await turns(3)
            await cancels_itself()

        cache = AsyncCache()
        for got in await asyncio.gather(*(outcome(cache.get("k", later)) for _ in range(3))):
            assert isinstance(got, LoadCancelledError)

    run(main())


def test_single_the_load_is_cancelled_by_somebody_else_and_nobody_hangs(run: Run) -> None:
    async def main() -> None:
        cache, load = AsyncCache(), Load()
        callers = [task(outcome(cache.get("k", load))) for _ in range(3)]
        await joined(*callers)
        (driver,) = asyncio.all_tasks() - {asyncio.current_task(), *callers}
        driver.cancel()
        await turns()
        # A caller that did not get the error asks again.
        if len(load.calls) == 2:
            load.answer("v")
        first, *others = await asyncio.gather(*callers)
        assert isinstance(first, LoadCancelledError)
        for got in others:
            assert got == "v" or isinstance(got, LoadCancelledError)

    run(main())


# The loader asks for its own key.


def test_single_the_loader_asks_for_its_own_key_and_gets_an_error_that_names_it(run: Run) -> None:
    async def main() -> None:
        cache = AsyncCache()

        async def load() -> Any:
            await turns(2)
            return await cache.get("my own key", load)

        for got in await asyncio.gather(*(outcome(cache.get("my own key", load)) for _ in range(3))):
            assert isinstance(got, RecursiveLoadError)
            assert "my own key" in str(got)
        assert await cache.get("my own key", _returns("v")) == "v"

    run(main())


def test_single_the_loader_may_catch_the_error_of_asking_for_its_own_key(run: Run) -> None:
    async def main() -> None:
        cache = AsyncCache()

        async def load() -> str:
            with pytest.raises(RecursiveLoadError):
                await cache.get("k", load)
            return "v"

        assert await cache.get("k", load) == "v"
        assert await cache.get("k") == "v"

    run(main())


def test_single_the_loader_asks_for_its_own_key_through_other_loaders(run: Run) -> None:
    async def main() -> None:
        one, two = AsyncCache(), AsyncCache()

        async def load_a() -> Any:
            return await two.get("b", load_b)

        async def load_b() -> Any:
            await turns(2)
            return await asyncio.gather(one.get("a", load_a), one.get("c", _returns(3)))

        for got in await asyncio.gather(*(outcome(one.get("a", load_a)) for _ in range(2))):
            assert isinstance(got, RecursiveLoadError)
            assert "'a'" in str(got)

    run(main())


def test_single_two_loads_that_ask_for_each_other_end(run: Run) -> None:
    async def main() -> None:
        cache = AsyncCache()

        def asks_for(other: str) -> Callable[[], Awaitable[Any]]:
            async def load() -> Any:
                await turns(3)
                return await cache.get(other, asks_for("ab".replace(other, "")))

            return load

        got = await asyncio.gather(
            outcome(cache.get("a", asks_for("b"))), outcome(cache.get("b", asks_for("a")))
        )
        assert [type(one) for one in got] == [RecursiveLoadError, RecursiveLoadError]

    run(main())


def test_single_loaders_that_ask_for_other_keys_are_no_recursion(run: Run) -> None:
    async def main() -> None:
        @AsyncLRU(maxsize=None)
        async def fibonacci(n: int) -> int:
            if n < 2:
                return n
            return sum(await asyncio.gather(fibonacci(n - 1), fibonacci(n - 2)))

        assert await fibonacci(60) == 1548008755920
        assert fibonacci.get_metrics()["size"] == 61
        assert fibonacci.stats()["loads"] == 61

    run(main())


def test_batch_the_loader_asks_for_its_own_key_and_gets_an_error_that_names_it(run: Run) -> None:
    async def main() -> None:
        cache = batching(2)

        async def load(keys: list[str]) -> Any:
            return [await cache.get(key, batch_loader=load) for key in keys]

        for got in await asyncio.gather(
            *(outcome(cache.get(key, batch_loader=load)) for key in ("key one", "key two"))
        ):
            assert isinstance(got, RecursiveLoadError)
            assert "key one" in str(got)

    run(main())


def test_decorated_a_function_that_calls_itself_with_its_own_arguments_is_an_error(run: Run) -> None:
    async def main() -> None:
        @AsyncLRU()
        async def f(x: str) -> Any:
            return await f(x)

        got = await outcome(f("my own key"))
        assert isinstance(got, RecursiveLoadError)
        assert "my own key" in str(got)

    run(main())


# Set, delete, clear and invalidate during the load.


@pytest.mark.parametrize("how", ["set", "delete", "clear"])
def test_single_a_change_during_the_load_fences_it(run: Run, how: str) -> None:
    async def main() -> None:
        cache, load = AsyncCache(), Load()
        before = task(cache.get("k", load))
        await load.called()
        _change(cache, how, "k")
        load.answer("old")
        assert await before == "old"
        assert await cache.get("k") == ("set" if how == "set" else None)
        if how != "clear":
            assert cache.stats()["fenced"] == 1

    run(main())


@pytest.mark.parametrize("how", ["delete", "clear"])
def test_single_a_get_after_an_invalidation_starts_a_new_load(run: Run, how: str) -> None:
    async def main() -> None:
        cache, load = AsyncCache(), Load()
        before = task(cache.get("k", load))
        await load.called()
        _change(cache, how, "k")
        after = task(cache.get("k", load))
        await load.called(2)
        load.answer("new", 1)
        assert await after == "new"
        assert not before.done()
        load.answer("old", 0)
        assert await before == "old"
        assert await cache.get("k") == "new"

    run(main())


def test_single_the_error_of_a_fenced_load_reaches_only_who_was_waiting(run: Run) -> None:
    async def main() -> None:
        cache, load, error = AsyncCache(), Load(), ValueError("old")
        before = task(outcome(cache.get("k", load)))
        await load.called()
        cache.delete("k")
        after = task(cache.get("k", load))
        await load.called(2)
        load.fail(error, 0)
        assert await before is error
        load.answer("new", 1)
        assert await after == "new"
        assert await cache.get("k") == "new"

    run(main())


def test_single_the_last_caller_of_a_fenced_load_is_cancelled_and_the_new_load_is_not(run: Run) -> None:
    async def main() -> None:
        cache, load = AsyncCache(), Load()
        before = task(cache.get("k", load))
        await load.called()
        cache.delete("k")
        after = task(cache.get("k", load))
        await load.called(2)
        await cancel(before)
        await turns()
        assert load.calls[0].cancelled()
        assert load.cancelled == 1
        load.answer("new", 1)
        assert await after == "new"

    run(main())


@pytest.mark.parametrize("how", ["set", "delete", "clear"])
def test_batch_a_change_during_the_load_fences_it(run: Run, how: str) -> None:
    async def main() -> None:
        cache, load = batching(2), Load()
        a, b = (task(cache.get(key, batch_loader=load)) for key in ("a", "b"))
        await load.called()
        _change(cache, how, "a")
        load.answer({"a": "old", "b": "b"})
        assert list(await asyncio.gather(a, b)) == ["old", "b"]
        assert await cache.get("a") == ("set" if how == "set" else None)
        assert await cache.get("b") == (None if how == "clear" else "b")

    run(main())


def test_batch_a_get_after_an_invalidation_starts_a_new_load(run: Run) -> None:
    async def main() -> None:
        cache, load = batching(2), Load()
        a, b = (task(cache.get(key, batch_loader=load)) for key in ("a", "b"))
        await load.called()
        cache.delete("a")
        again, c = (task(cache.get(key, batch_loader=load)) for key in ("a", "c"))
        await load.called(2)
        assert load.keys == [["a", "b"], ["a", "c"]]
        load.answer({"a": "new", "c": 3}, 1)
        assert list(await asyncio.gather(again, c)) == ["new", 3]
        load.answer({"a": "old", "b": 2}, 0)
        assert list(await asyncio.gather(a, b)) == ["old", 2]
        assert await cache.get("a") == "new"

    run(main())


def test_decorated_an_invalidation_during_the_load_fences_it(run: Run) -> None:
    async def main() -> None:
        load = Load()

        @AsyncLRU()
        async def f(x: int) -> Any:
            return await load()

        before = task(f(1))
        await load.called()
        f.invalidate_cache(1)
        load.answer("old")
        assert await before == "old"
        after = task(f(1))
        await load.called(2)
        load.answer("new")
        assert await after == "new"

    run(main())


# The event loop of the first caller closes.


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
            await asyncio.wait_for(cache.get("k", load), 0.001)
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


def _returns(value: Any) -> Callable[[], Awaitable[Any]]:
    async def load() -> Any:
        return value

    return load


def _change(cache: AsyncCache, how: str, key: str) -> None:
    if how == "set":
        cache.set(key, "set")
    elif how == "delete":
        cache.delete(key)
    else:
        cache.clear()

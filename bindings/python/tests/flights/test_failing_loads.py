"""Loaders that raise, and loads that are cancelled from within."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from flight_calls import _returns, batching
from loops import Load, Run, joined, new_loop, outcome, task, turns

from cache import AsyncCache, CacheError, LoadCancelledError


class Fatal(BaseException):
    """Not an `Exception`, and does not stop an event loop."""


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

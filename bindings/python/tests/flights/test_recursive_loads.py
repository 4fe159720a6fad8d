"""Loaders that ask for their own key."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from flight_calls import _returns, batching
from loops import Run, outcome, turns

from cache import AsyncCache, AsyncLRU, RecursiveLoadError


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

"""Callables that are not plain functions, decorated or as loaders. Each test is a former bug."""

from __future__ import annotations

import asyncio
import functools
import inspect
import types
from collections.abc import Iterator
from typing import Any

import pytest
from loops import Run, outcome, task
from programs import complete

from cache import AsyncCache, AsyncLRU, AsyncLRUInvalidator


def test_a_loader_that_raises_stop_iteration_is_a_runtime_error(run: Run) -> None:
    """`await` treated the exception as the coroutine's return, and a task hung for ever."""
    cache = AsyncCache()

    class Key:
        def __hash__(self) -> int:
            raise StopIteration(7)

    empty: Iterator[Any] = iter(())

    async def main() -> None:
        for call in (
            lambda: cache.get("key", lambda: next(empty)),
            lambda: task(cache.get("key", lambda: next(empty))),
            lambda: cache.get(Key()),
            lambda: task(cache.get(Key())),
        ):
            error = await outcome(call())
            assert isinstance(error, RuntimeError)
            assert str(error) == "coroutine raised StopIteration"
            assert isinstance(error.__cause__, StopIteration)

    run(main())
    call = cache.get("key")
    with pytest.raises(RuntimeError, match="coroutine raised StopIteration"):
        call.throw(StopIteration("thrown"))


def _kinds_of_callables() -> dict[str, Any]:
    class Api:
        async def fetch(self, x: int) -> int:
            return x

        async def __call__(self, x: int) -> int:
            return x

    async def plain(x: int) -> int:
        return x

    async def two(y: int, x: int) -> int:
        return x

    return {
        "a bound method": Api().fetch,
        "a partial": functools.partial(two, 1),
        "a callable object": Api(),
        "a partial of a bound method": functools.partial(Api().fetch),
        "a cached function": AsyncLRU()(plain),
    }


@pytest.mark.parametrize("kind", _kinds_of_callables())
def test_what_is_decorated_need_not_be_a_plain_function(kind: str) -> None:
    """A decorated bound method claimed to be a method but had no `__func__`: `inspect` raised
    `AttributeError`.
    """
    function = _kinds_of_callables()[kind]
    cached = AsyncLRU()(function)
    assert inspect.iscoroutinefunction(cached)
    assert list(inspect.signature(cached).parameters) == ["x"]
    assert asyncio.run(cached(3)) == 3
    calls = []

    @AsyncLRUInvalidator(cached)
    async def write(x: int) -> None:
        calls.append(x)

    asyncio.run(write(3))
    assert cached.get_metrics()["size"] == 0


def test_names_of_arguments_may_be_of_a_subclass_of_str() -> None:
    """Its `__eq__` is Python code. It ran while the cache's state was borrowed."""

    @AsyncLRU()
    async def function(**kwargs: int) -> int:
        return sum(kwargs.values())

    class Name(str):
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            function.get_metrics()
            return str.__eq__(self, other)

    assert asyncio.run(function(**{"xy": 1})) == 1
    assert asyncio.run(function(**{Name("xy"): 1})) == 1
    assert function.get_metrics()["hits"] == 1
    function.invalidate_cache(**{Name("xy"): 1})
    assert function.get_metrics()["size"] == 0


def test_a_loader_may_be_a_generator_of_types_coroutine(run: Run) -> None:
    """`await` accepts these generators, and so does the cache."""

    @types.coroutine
    def load() -> Any:
        yield from asyncio.sleep(0).__await__()
        return 5

    async def main() -> None:
        assert await AsyncCache().get("key", load) == 5

    run(main())


def test_a_function_that_is_decorated_again_and_again_takes_no_stack() -> None:
    # Each level asked the next lower level for its class, on the stack: 20,000 levels were a
    # segmentation fault.
    program = """
import gc
from cache import AsyncLRU

async def function(number):
    return number

for _ in range(20_000):
    function = AsyncLRU()(function)
assert function.__name__ == "function" and function.__code__.co_argcount == 1
del function
gc.collect()
"""
    assert complete(program).returncode == 0

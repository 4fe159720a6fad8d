"""An invalidation reaches every way to write a call, and every way to access the function, or is
refused.

The story: parameters have defaults that some callers write out, so ``read(1)``, ``read(1, False)``
and ``read(1, verbose=False)`` were three entries, of which a write of 1 removed one. And
``repository.get.invalidate_cache(7)`` looked the attribute up on the function, which did not know
the object, and removed an unrelated entry. Both were silently accepted, and the old row was
returned.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from loops import Run, turns
from signatures import all_calls, counted
from stores import MemoryBackend

from agent_cache import AgentCache, AgentCacheInvalidator
from cache import AsyncLRU, AsyncLRUInvalidator, AsyncTTL
from cache._ways import MOST

SIGNATURES: list[tuple[str, list[dict[str, Any]]]] = [
    ("number", [{"number": 1}]),
    ("number, verbose=False", [{"number": 1}, {"number": 1, "verbose": True}]),
    ("number, verbose=0, *, deep=None", [{"number": 1}, {"number": 1, "deep": 5}]),
    ("number, /, verbose=False", [{"number": 1}]),
    ("number=1, verbose=False, /", [{}, {"verbose": True}]),
    ("a, /, b=2, *, c=3", [{"a": 1}, {"a": 1, "b": 5}]),
    ("a=1, b=[], c={}", [{}, {"b": [1]}]),
    ("a, b=float('nan')", [{"a": 1}]),
    ("*, a=1, b=2", [{}, {"b": 3}]),
    ("a, *args, k=1", [{"a": 1}, {"a": 1, "*": (2, 3)}]),
    ("a, b=2, *args", [{"a": 1}, {"a": 1, "*": (2, 3)}]),
    ("a, b=2, **others", [{"a": 1}, {"a": 1, "**": {"z": 1}}]),
]


@pytest.mark.parametrize(("source", "all_values"), SIGNATURES)
@pytest.mark.parametrize("typed", [False, True])
def test_an_invalidation_by_any_way_to_write_a_call_reaches_all_ways(
    run: Run, source: str, all_values: list[dict[str, Any]], typed: bool
) -> None:
    async def main() -> None:
        for values in all_values:
            function, runs = counted(source)
            ways = list(all_calls(function, values))
            assert ways
            read = AsyncLRU(maxsize=None, typed=typed)(function)
            for args, kwargs in ways:
                for a, k in ways:
                    await read(*a, **k)
                before = len(runs)
                read.invalidate_cache(*args, **kwargs)
                assert read.get_metrics()["size"] == 0, f"{args} {kwargs}"
                for a, k in ways:
                    await read(*a, **k)
                assert len(runs) > before

    run(main())


def test_only_calls_with_these_arguments_are_invalidated(run: Run) -> None:
    async def main() -> None:
        function, runs = counted("number, verbose=False")
        read = AsyncLRU()(function)
        for call in (read(1), read(1, True), read(2), read(2, verbose=False)):
            await call
        read.invalidate_cache(1)
        assert read.get_metrics()["size"] == 3
        read.invalidate_cache(2)
        assert read.get_metrics()["size"] == 1

    run(main())


def test_a_value_that_is_equal_to_the_default_is_the_default(run: Run) -> None:
    class Unit:
        def __init__(self, name: str) -> None:
            self.name = name

    async def main() -> None:
        default = Unit("metre")
        function, runs = counted("number, unit=default, sizes=(1, 2)", default=default)
        read = AsyncLRU()(function)
        await read(1)
        await read(1, Unit("metre"), [1, 2])
        read.invalidate_cache(1, Unit("metre"))
        assert read.get_metrics()["size"] == 0

    run(main())


def test_typed_functions_do_not_take_zero_for_false(run: Run) -> None:
    async def main() -> None:
        function, _ = counted("number, verbose=False")
        read = AsyncLRU(typed=True)(function)
        await read(1)
        await read(1, 0)
        read.invalidate_cache(1, 0)
        assert read.get_metrics()["size"] == 1, "read(1) is another call"

    run(main())


def test_too_many_ways_clear_the_function_and_keep_its_metrics(run: Run) -> None:
    async def main() -> None:
        function, _ = counted(", ".join(f"p{n}=None" for n in range(30)))
        read = AsyncLRU()(function)
        await read(p29=1, p3=None)
        await read(p29=2)
        read.invalidate_cache(p29=1)
        assert MOST < 2**29
        assert read.get_metrics() == {"hits": 0, "misses": 2, "size": 0, "hit_rate": 0.0}

    run(main())


def test_arguments_that_no_call_could_have_are_refused() -> None:
    function, _ = counted("number, verbose=False")
    read = AsyncLRU()(function)
    for args, kwargs, told in (
        ((), {}, "number"),
        ((1, 2, 3), {}, "3 were given"),
        ((1,), {"number": 1}, "two values"),
        ((1,), {"colour": 1}, "colour"),
    ):
        with pytest.raises(TypeError, match=told):
            read.invalidate_cache(*args, **kwargs)
    read.invalidate_cache(1, use_cache=False)


def test_a_function_whose_signature_is_not_known_or_not_its_own_is_cleared(run: Run) -> None:
    """A decorator that adds a session shows the signature of the wrapped function, which includes
    the session.
    """

    async def inner(session: str, number: int) -> int:
        return number

    @functools.wraps(inner)
    async def with_session(*args: Any) -> int:
        return await inner("a session", *args)

    class Unknown:
        __signature__ = "none"

        async def __call__(self, number: int) -> int:
            return number

    async def main() -> None:
        for function in (with_session, Unknown()):
            read = AsyncLRU()(function)
            await read(1)
            read.invalidate_cache(1)
            assert read.get_metrics()["size"] == 0

    run(main())


def test_an_argument_that_has_no_key_is_the_callers_error(run: Run) -> None:
    class NoKey:
        def __eq__(self, other: object) -> bool:
            raise ValueError("not comparable")

        def __reduce_ex__(self, protocol: Any) -> Any:
            raise ValueError("no key")

    function, _ = counted("number, verbose=False")
    read = AsyncLRU()(function)
    read.invalidate_cache(1)
    keyed = AgentCache(resource="r", key=lambda number: 1 // number)(function)
    with pytest.raises(ZeroDivisionError):
        keyed.invalidate_cache(0)
    keyed.invalidate_cache(1)  # though the function of the key does not take `verbose`


def test_an_invalidation_fences_the_loads_of_all_ways(run: Run) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        row = "old"

        @AsyncLRU()
        async def read(number: int, verbose: bool = False) -> str:
            found = row
            await gate.wait()
            return found

        loads = [asyncio.ensure_future(call) for call in (read(1), read(1, False), read(number=1))]
        await turns(5)
        row = "new"
        read.invalidate_cache(1)
        gate.set()
        assert await asyncio.gather(*loads) == ["old"] * 3
        assert [await read(1), await read(1, False), await read(number=1)] == ["new"] * 3

    run(main())


def test_defaults_that_were_replaced_are_those_of_the_next_invalidation(run: Run) -> None:
    runs = []

    async def row(number: int, verbose: bool = False, *, depth: int = 1) -> int:
        runs.append(number)
        return len(runs)

    read = AsyncLRU()(row)

    async def main() -> None:
        assert await read(1, False) == 1
        read.invalidate_cache(1)  # inspects the signature
        row.__defaults__ = (True,)
        assert await read(1, True) == 2
        read.invalidate_cache(1)
        assert await read(1, True) == 3
        assert row.__kwdefaults__ is not None
        row.__kwdefaults__["depth"] = 2
        assert await read(1, depth=2) == 4
        read.invalidate_cache(1)
        assert await read(1, depth=2) == 5

    run(main())


def passed_on(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def between(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return between


def without_first(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def between(first: str, *args: Any) -> Any:
        return await function(*args)

    between.__signature__ = inspect.signature(lambda first, number: None)  # type: ignore[attr-defined]
    return between


@pytest.mark.parametrize("outer", [AsyncLRU(), AgentCache(resource="twice")], ids=["AsyncLRU", "AgentCache"])
@pytest.mark.parametrize(
    "between", [lambda f: f, passed_on, without_first], ids=["", "a wrapper", "fewer arguments"]
)
def test_a_function_that_is_cached_twice_is_invalidated_in_both_caches(
    run: Run, outer: Any, between: Callable[..., Any]
) -> None:
    # The outer cache's entry was removed, and the next call got the old value from the inner cache.
    runs = []

    @AsyncTTL(time_to_live=60)
    async def row(number: int, verbose: bool = False) -> int:
        runs.append(number)
        return len(runs)

    read = outer(between(row))
    args = ("first", 1) if between is without_first else (1,)

    @AsyncLRUInvalidator(read, clear_all=True)
    async def write() -> None:
        pass

    async def main() -> None:
        assert [await read(*args), await read(*args)] == [1, 1]
        read.invalidate_cache(*args)
        assert await read(*args) == 2
        await write()
        assert await read(*args) == 3

    run(main())


def test_a_write_tool_reaches_what_its_read_tools_have_cached_inside(run: Run) -> None:
    runs = []

    @AgentCache(resource="twice-written")
    @AsyncLRU()
    async def read(number: int) -> int:
        runs.append(number)
        return len(runs)

    @AgentCacheInvalidator(resource="twice-written")
    async def write() -> None:
        pass

    async def main() -> None:
        assert [await read(1), await read(1)] == [1, 1]
        await write()
        assert await read(1) == 2

    run(main())


def test_a_method_that_is_cached_twice_is_invalidated_for_its_object(run: Run) -> None:
    class Repository:
        def __init__(self, name: str) -> None:
            self.name = name
            self.runs = 0

        @AsyncLRU(per_instance=True)
        async def read(self, number: int) -> int:
            self.runs += 1
            return self.runs

    one, two = Repository("one"), Repository("two")
    read_one: Any = AsyncLRU()(one.read)
    read_two: Any = AsyncLRU()(two.read)

    async def main() -> None:
        assert [await read_one(1), await read_two(1)] == [1, 1]
        read_one.invalidate_cache(1)
        assert [await read_one(1), await read_two(1), await two.read(1)] == [2, 1, 1]

    run(main())


def test_a_backend_of_the_users_own_is_invalidated_alike(run: Run) -> None:
    async def main() -> None:
        function, _ = counted("number, verbose=False")
        read = AsyncLRU(backup=MemoryBackend())(function)
        for call in (read(1), read(1, False), read(number=1, verbose=False)):
            await call
        read.invalidate_cache(1)
        assert read.get_metrics()["size"] == 0

    run(main())


def test_a_decorator_says_where_it_goes_among_others() -> None:
    others: list[Any] = [classmethod, staticmethod]
    for other in others:
        with pytest.raises(TypeError, match=f"@{other.__name__} above @AsyncLRU"):
            AsyncLRU()(other(counted("a")[0]))

"""The result of `cache.get(...)` or a decorated call behaves like a coroutine, the function like a
function.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import pickle
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from awaitables import counting, plain, square
from loops import Load, Run, outcome, task, turns

from cache import AsyncCache, AsyncLRU, AsyncTTL

# The function


def test_a_decorated_function_is_a_coroutine_function() -> None:
    assert inspect.iscoroutinefunction(square)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert asyncio.iscoroutinefunction(square)


def test_a_partial_of_a_decorated_function_is_a_coroutine_function() -> None:
    assert inspect.iscoroutinefunction(functools.partial(square, 3))


def test_a_decorated_function_is_a_function() -> None:
    assert inspect.isfunction(square)
    assert callable(square)


def test_a_decorated_function_has_the_signature_and_the_names_of_the_function() -> None:
    assert inspect.signature(square) == inspect.signature(plain)
    assert square.__name__ == "square"
    assert square.__qualname__ == "square"
    assert square.__module__ == plain.__module__
    assert square.__doc__ == "Raises to a power."
    assert square.__annotations__ == plain.__annotations__
    assert inspect.iscoroutinefunction(square.__wrapped__)
    assert square.__wrapped__ is not square


def test_a_decorated_function_keeps_its_attributes() -> None:
    async def f() -> None: ...

    f.mark = "kept"  # type: ignore[attr-defined]
    decorated: Any = AsyncLRU()(f)
    assert decorated.mark == "kept"


def test_a_decorated_function_is_pickled_by_name() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(square, protocol)) is square


def test_a_decorated_function_may_be_referred_to_weakly_and_copied_and_hashed() -> None:
    import copy
    import weakref

    assert weakref.ref(square)() is square
    assert copy.copy(square) is square
    assert copy.deepcopy(square) is square
    assert {square: 1}[square] == 1
    assert "square" in repr(square)


def test_wrong_arguments_are_the_functions_own_type_error(run: Run) -> None:
    async def main() -> None:
        bad: Any = square
        for arguments, options in (((), {}), ((1, 2), {}), ((1,), {"colour": 1})):
            with pytest.raises(TypeError, match="square"):
                await bad(*arguments, **options)

    run(main())


def test_methods_are_bound_and_keyed_by_their_self(run: Run) -> None:
    async def main() -> None:
        class Shop:
            def __init__(self, name: str) -> None:
                self.name = name

            @AsyncLRU()
            async def product(self, number: int) -> str:
                """Gets."""
                return f"{self.name}{number}"

            @classmethod
            @AsyncLRU()
            async def of_class(cls, number: int) -> str:
                return f"{cls.__name__}{number}"

            @staticmethod
            @AsyncTTL()
            async def static(number: int) -> int:
                return number

        a, b = Shop("a"), Shop("b")
        assert [await a.product(1), await b.product(1), await a.product(number=1)] == ["a1", "b1", "a1"]
        assert await Shop.product(a, 1) == "a1"
        assert [await a.of_class(1), await Shop.of_class(1)] == ["Shop1", "Shop1"]
        assert [await a.static(1), await Shop.static(1)] == [1, 1]
        assert inspect.ismethod(a.product)
        assert a.product.__self__ is a
        assert a.product.__doc__ == "Gets."
        assert inspect.iscoroutinefunction(a.product)
        assert list(inspect.signature(a.product).parameters) == ["number"]
        assert Shop.static.get_metrics()["hits"] == 1
        assert Shop.of_class.get_metrics()["hits"] == 1

    run(main())


def test_decorators_may_be_stacked(run: Run) -> None:
    async def main() -> None:
        calls = 0

        @AsyncLRU()
        @AsyncTTL()
        async def f(x: int) -> int:
            nonlocal calls
            calls += 1
            return x

        assert [await f(1), await f(1)] == [1, 1]
        assert calls == 1
        assert f.__name__ == "f"
        inner: Any = f.__wrapped__
        assert inner.get_metrics()["misses"] == 1

        def logged(function: Callable[[int], Awaitable[int]]) -> Callable[[int], Coroutine[Any, Any, int]]:
            @functools.wraps(function)
            async def wrapper(x: int) -> int:
                return await function(x)

            return wrapper

        @logged
        @AsyncLRU()
        async def g(x: int) -> int:
            return x

        assert await g(2) == 2
        assert await functools.partial(f, 1)() == 1

    run(main())


# The awaitable


def make_awaitables(run_kind: str) -> Coroutine[Any, Any, Any]:
    """A coroutine made by the package, with the result 9."""
    if run_kind == "decorated":
        return square(3)
    cache = AsyncCache()
    if run_kind == "hit":
        cache.set("k", 9)
        return cache.get("k")

    async def load() -> int:
        await asyncio.sleep(0)
        return 9

    return cache.get("k", load)


KINDS = pytest.mark.parametrize("kind", ["decorated", "hit", "miss"])


@KINDS
def test_it_is_a_coroutine(run: Run, kind: str) -> None:
    made = make_awaitables(kind)
    assert inspect.isawaitable(made)
    assert isinstance(made, Awaitable)
    assert isinstance(made, Coroutine)
    assert asyncio.iscoroutine(made)
    assert run(made) == 9


@KINDS
def test_it_fits_wherever_a_coroutine_does(run: Run, kind: str) -> None:
    async def main() -> None:
        assert await make_awaitables(kind) == 9
        assert await asyncio.create_task(make_awaitables(kind), name="a name") == 9
        assert await asyncio.ensure_future(make_awaitables(kind)) == 9
        assert await asyncio.gather(*(make_awaitables(kind) for _ in range(3))) == [9, 9, 9]
        assert await asyncio.wait_for(make_awaitables(kind), 10) == 9
        assert await asyncio.shield(make_awaitables(kind)) == 9
        for first in asyncio.as_completed([make_awaitables(kind)]):
            assert await first == 9
        done, _ = await asyncio.wait([asyncio.ensure_future(make_awaitables(kind))])
        assert [one.result() for one in done] == [9]

    run(main())


@KINDS
@pytest.mark.skipif(not hasattr(asyncio, "TaskGroup"), reason="asyncio.TaskGroup is of Python 3.11")
def test_it_fits_a_task_group(run: Run, kind: str) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined,unused-ignore]
            tasks = [group.create_task(make_awaitables(kind)) for _ in range(3)]
        assert [one.result() for one in tasks] == [9, 9, 9]

    run(main())


@KINDS
def test_it_fits_asyncio_run_and_run_coroutine_threadsafe(kind: str) -> None:
    assert asyncio.run(make_awaitables(kind)) == 9

    async def main() -> None:
        loop = asyncio.get_running_loop()
        found = await asyncio.to_thread(
            lambda: asyncio.run_coroutine_threadsafe(make_awaitables(kind), loop).result()
        )
        assert found == 9

    asyncio.run(main())


def test_nothing_happens_before_it_is_awaited(run: Run) -> None:
    async def main() -> None:
        cache, calls = AsyncCache(), list[int]()
        made = cache.get("k", counting(calls))
        await turns()
        assert (calls, cache.misses) == ([], 0)
        cache.set("k", "set before it was awaited")
        assert await made == "set before it was awaited"
        assert calls == []

    run(main())


def test_a_decorated_call_looks_when_it_is_awaited(run: Run) -> None:
    async def main() -> None:
        calls: list[int] = []

        @AsyncLRU()
        async def f(x: int) -> int:
            calls.append(x)
            return x

        early = f(1)
        assert (calls, f.get_metrics()["misses"]) == ([], 0)
        await f(1)
        await early
        assert calls == [1]
        assert f.get_metrics()["hits"] == 1

    run(main())


@KINDS
def test_one_that_is_never_awaited_is_warned_of(kind: str) -> None:
    with pytest.warns(RuntimeWarning, match="was never awaited"):
        del_me: Any = make_awaitables(kind)
        del del_me
        gc.collect()


@KINDS
def test_one_that_is_closed_is_not_warned_of(kind: str) -> None:
    made = make_awaitables(kind)
    made.close()
    made.close()
    del made
    gc.collect()


def test_what_set_and_delete_return_is_not_warned_of() -> None:
    cache = AsyncCache()
    cache.set("k", 1)
    cache.delete("k")
    gc.collect()


@KINDS
def test_awaiting_twice_is_a_runtime_error(run: Run, kind: str) -> None:
    async def main() -> None:
        made = make_awaitables(kind)
        assert await made == 9
        with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
            await made

    run(main())


@KINDS
def test_awaiting_a_closed_one_is_a_runtime_error(run: Run, kind: str) -> None:
    async def main() -> None:
        made = make_awaitables(kind)
        made.close()
        with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
            await made

    run(main())


def test_awaiting_one_that_another_task_waits_on_is_a_runtime_error(run: Run) -> None:
    async def main() -> None:
        cache, load = AsyncCache(), Load()
        made = cache.get("k", load)
        waits = task(made)
        await load.called()
        assert isinstance(await asyncio.wait_for(outcome(made), 5), RuntimeError)
        load.answer("v")
        assert await waits == "v"

    run(main())

"""The promises of the compatibility tables about decorators and invalidators, row by row."""

from __future__ import annotations

from typing import Any

import pytest
from loops import Run, outcome

from cache import (
    AsyncLRU,
    AsyncLRUInvalidator,
    AsyncTTL,
    AsyncTTLInvalidator,
)


def test_the_decorators_take_the_original_arguments_by_position() -> None:
    AsyncLRU(10, 1, None)
    AsyncTTL(60, 10, 1, None)
    AsyncTTL(None)
    AsyncLRU(None)


@pytest.mark.parametrize("decorator", [AsyncLRU, AsyncTTL])
def test_a_decorated_function_loads_once_for_each_arguments(run: Run, decorator: Any) -> None:
    async def main() -> None:
        calls: list[tuple[int, int]] = []

        @decorator()  # type: ignore[untyped-decorator,unused-ignore]
        async def add(a: int, b: int = 0) -> int:
            calls.append((a, b))
            return a + b

        assert [await add(1), await add(1), await add(1, 2), await add(1, b=2), await add(1, b=2)] == [
            1,
            1,
            3,
            3,
            3,
        ]
        assert calls == [(1, 0), (1, 2), (1, 2)]
        assert add.get_metrics() == {"hits": 2, "misses": 3, "size": 3, "hit_rate": 0.4}

    run(main())


def test_a_decorated_function_keeps_its_name_and_has_the_methods() -> None:
    @AsyncLRU()
    async def product(number: int) -> int:
        """Gets a product."""
        return number

    assert product.__name__ == "product"
    assert product.__doc__ == "Gets a product."
    for method in ("clear_cache", "invalidate_cache", "get_metrics", "save_to_backup", "load_from_backup"):
        assert callable(getattr(product, method))


def test_use_cache_false_loads_anew_and_stores(run: Run) -> None:
    async def main() -> None:
        values = iter("abc")

        @AsyncTTL()
        async def f(x: int) -> str:
            return next(values)

        assert [
            await f(1),
            await f(1),
            await f(1, use_cache=False),
            await f(1),
            await f(1, use_cache=True),
        ] == list("aabbb")
        assert f.get_metrics() == {"hits": 3, "misses": 2, "size": 1, "hit_rate": 0.6}

    run(main())


def test_use_cache_is_not_passed_to_the_function(run: Run) -> None:
    @AsyncLRU()
    async def f(**options: int) -> dict[str, int]:
        return options

    assert run(f(a=1, use_cache=False)) == {"a": 1}


def test_invalidate_cache_removes_one_result_and_clear_cache_all(run: Run) -> None:
    async def main() -> None:
        calls: list[tuple[Any, ...]] = []
        decorator = AsyncLRU()

        @decorator
        async def f(*args: Any, **options: Any) -> None:
            calls.append((args, options))

        await f(1, a=2, b=3)
        await f(2)
        f.invalidate_cache(1, b=3, a=2)
        assert f.get_metrics()["size"] == 1
        f.invalidate_cache("never called so")
        await f(2)
        await f(1, a=2, b=3)
        assert len(calls) == 3
        f.clear_cache()
        assert f.get_metrics() == {"hits": 0, "misses": 0, "size": 0, "hit_rate": 0.0}
        await f(2)
        decorator.clear_cache()
        assert f.get_metrics()["size"] == 0

    run(main())


def test_skip_args_leaves_the_first_argument_out_of_the_key(run: Run) -> None:
    async def main() -> None:
        class Shop:
            calls = 0

            @AsyncLRU(skip_args=1)
            async def product(self, number: int) -> int:
                Shop.calls += 1
                return number

        assert [await Shop().product(1), await Shop().product(1), await Shop().product(2)] == [1, 1, 2]
        assert Shop.calls == 2
        nobody: Any = None
        Shop.product.invalidate_cache(nobody, 1)
        await Shop().product(1)
        assert Shop.calls == 3

    run(main())


def test_ttl_zero_of_a_decorator_never_hits_and_none_always(run: Run) -> None:
    async def main() -> None:
        for ttl, expected in ((0, 2), (None, 1), (3600, 1), (3600.5, 1)):
            calls = 0

            @AsyncTTL(time_to_live=ttl)
            async def f() -> None:
                nonlocal calls
                calls += 1

            await f()
            await f()
            assert calls == expected

    run(main())


def test_errors_of_a_decorated_function_are_not_cached(run: Run) -> None:
    async def main() -> None:
        error, calls = ValueError("no"), 0

        @AsyncLRU()
        async def f() -> None:
            nonlocal calls
            calls += 1
            raise error

        assert await outcome(f()) is error
        assert await outcome(f()) is error
        assert calls == 2

    run(main())


def test_one_decorator_on_two_functions_shares_maxsize_and_mixes_no_entries(run: Run) -> None:
    async def main() -> None:
        shared = AsyncLRU(maxsize=3)

        def make(name: str) -> Any:
            async def same(x: int) -> str:
                return f"{name}{x}"

            return shared(same)

        one, two = make("one"), make("two")
        assert [await one(1), await two(1), await one(1), await two(1)] == ["one1", "two1", "one1", "two1"]
        await two(2)
        await two(3)
        assert one.get_metrics()["size"] == 3
        one.invalidate_cache(1)
        assert await two(1) == "two1"

    run(main())


# Invalidators


@pytest.mark.parametrize(
    ("decorator", "invalidator"), [(AsyncLRU, AsyncLRUInvalidator), (AsyncTTL, AsyncTTLInvalidator)]
)
@pytest.mark.parametrize("how", ["own arguments", "key_fn", "clear_all"])
def test_an_invalidator_removes_what_the_write_changed(
    run: Run, decorator: Any, invalidator: Any, how: str
) -> None:
    async def main() -> None:
        database = {1: "a", 2: "b"}

        @decorator()  # type: ignore[untyped-decorator,unused-ignore]
        async def read(number: int) -> str:
            return database[number]

        all_options: dict[str, dict[str, Any]] = {
            "own arguments": {},
            "key_fn": {"key_fn": lambda args, kwargs: ((kwargs["number"],), {})},
            "clear_all": {"clear_all": True},
        }
        options = all_options[how]

        if how == "own arguments":

            @invalidator(read)  # type: ignore[untyped-decorator,unused-ignore]
            async def write(number: int) -> str:
                database[number] += "!"
                return "written"
        else:

            @invalidator(read, **options)  # type: ignore[untyped-decorator,unused-ignore]
            async def write(*, number: int) -> str:
                database[number] += "!"
                return "written"

        assert [await read(1), await read(2)] == ["a", "b"]
        database[2] = "changed behind its back"
        assert write.__name__ == "write"
        assert await (write(1) if how == "own arguments" else write(number=1)) == "written"
        assert await read(1) == "a!"
        assert await read(2) == ("changed behind its back" if how == "clear_all" else "b")

    run(main())


def test_an_invalidator_uses_the_writes_first_arguments(run: Run) -> None:
    async def main() -> None:
        calls = 0

        @AsyncLRU()
        async def read(number: int) -> int:
            nonlocal calls
            calls += 1
            return calls

        @AsyncLRUInvalidator(read)
        async def write(number: int, value: str) -> None: ...

        await read(1)
        await read(2)
        await write(1, "the value is no argument of the read")
        assert [await read(1), await read(2)] == [3, 2]

    run(main())


def test_an_invalidator_for_a_read_with_skip_args_needs_a_key_fn(run: Run) -> None:
    @AsyncLRU(skip_args=1)
    async def read(self: Any, number: int) -> int:
        return number

    with pytest.raises(TypeError, match="key_fn"):
        AsyncLRUInvalidator(read)
    AsyncLRUInvalidator(read, key_fn=lambda args, kwargs: (args, kwargs))


def test_a_write_that_raises_leaves_the_entry_gone(run: Run) -> None:
    async def main() -> None:
        error, calls = ValueError("no"), 0

        @AsyncLRU()
        async def read(number: int) -> int:
            nonlocal calls
            calls += 1
            return calls

        @AsyncLRUInvalidator(read)
        async def write(number: int) -> None:
            await read(number)
            raise error

        await read(1)
        assert await outcome(write(1)) is error
        assert calls == 2
        assert await read(1) == 3

    run(main())

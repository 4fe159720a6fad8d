"""Keys of decorated calls: by value, whatever the arguments are."""

from __future__ import annotations

from typing import Any

from loops import Run

from cache import AsyncLRU, AsyncTTL


def test_keyword_arguments_are_equal_in_any_order(run: Run) -> None:
    async def main() -> None:
        calls = 0

        @AsyncLRU()
        async def f(*args: Any, **options: Any) -> None:
            nonlocal calls
            calls += 1

        await f(a=1, b=2, c=3)
        await f(c=3, b=2, a=1)
        await f(b=2, **{"c": 3, "a": 1})
        assert calls == 1
        await f(a=1, b=2, c=4)
        await f(a=1, b=2)
        await f(1, b=2)
        await f("a", 1, "b", 2)
        await f(("a", 1), ("b", 2))
        await f()
        assert calls == 7

    run(main())


def test_a_positional_and_a_keyword_argument_are_two_keys(run: Run) -> None:
    async def main() -> None:
        calls = 0

        @AsyncTTL()
        async def f(x: int) -> None:
            nonlocal calls
            calls += 1

        await f(1)
        await f(x=1)
        await f(1)
        await f(x=1)
        assert calls == 2

    run(main())


def test_one_one_point_zero_and_true_are_one_key_unless_typed(run: Run) -> None:
    async def count(*arguments: Any, typed: bool) -> int:
        @AsyncLRU(typed=typed)
        async def f(x: Any = None, y: Any = None) -> None: ...

        for one in arguments:
            await f(one)
            await f(y=one)
            await f(0, one)
        return int(f.get_metrics()["size"]) // 3

    assert run(count(1, 1.0, True, typed=False)) == 1
    assert run(count(1, 1.0, True, typed=True)) == 3
    assert run(count(0, -0.0, False, typed=False)) == 1
    assert run(count("a", b"a", typed=False)) == 2


def test_many_arguments_are_a_key_of_all_of_them(run: Run) -> None:
    async def main() -> None:
        @AsyncLRU(maxsize=None)
        async def f(*args: int) -> int:
            return sum(args)

        for count in range(40):
            for changed in range(count):
                args = [0] * count
                args[changed] = 1
                assert await f(*args) == 1
            assert await f(*[0] * count) == 0
        assert f.get_metrics()["size"] == sum(range(40)) + 40

    run(main())


def test_the_argument_is_passed_to_the_function_as_it_is_and_not_changed(run: Run) -> None:
    async def main() -> None:
        argument = {"a": [1, {2}]}
        options = {"o": [1]}

        @AsyncLRU()
        async def f(x: Any, **kwargs: Any) -> Any:
            assert kwargs["o"] is options["o"]
            return x

        assert await f(argument, **options) is argument
        assert (argument, options) == ({"a": [1, {2}]}, {"o": [1]})

    run(main())


def test_an_argument_that_changes_after_the_call_is_another_key(run: Run) -> None:
    async def main() -> None:
        @AsyncLRU()
        async def f(x: list[int]) -> int:
            return len(x)

        argument = [1]
        assert await f(argument) == 1
        argument.append(2)
        assert await f(argument) == 2
        assert await f([1]) == 1
        assert f.get_metrics() == {"hits": 1, "misses": 2, "size": 2, "hit_rate": 1 / 3}

    run(main())


def test_an_argument_that_contains_itself_is_an_argument_and_not_a_crash(run: Run) -> None:
    async def main() -> None:
        @AsyncLRU()
        async def f(x: Any) -> int:
            return 1

        circle: list[Any] = []
        circle.append(circle)
        assert await f(circle) == 1
        deep: Any = 1
        for _ in range(100_000):
            deep = [deep]
        assert await f(deep) == 1
        while isinstance(deep, list):
            deep = deep[0]

    run(main())


def test_an_argument_whose_repr_raises_is_known_by_its_identity(run: Run) -> None:
    async def main() -> None:
        error = ValueError("no repr")

        class Bad:
            __slots__ = ()

            def __repr__(self) -> str:
                raise error

        @AsyncLRU()
        async def f(x: Any) -> int:
            return 1

        assert await f(Bad()) == 1
        assert await f(2) == 1

    run(main())

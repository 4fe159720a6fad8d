"""Keys: by value for calls, by Python's comparison for `AsyncCache`, and safe against any
behaviour.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from loops import Load, Run, outcome, task, until

from cache import AsyncCache, AsyncLRU, AsyncTTL
from cache.key import KEY, _to_hashable, make_key

Point = collections.namedtuple("Point", "x y")
Size = collections.namedtuple("Size", "x y")


class Thing:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Slots:
    __slots__ = ("shown",)

    def __init__(self, shown: str) -> None:
        self.shown = shown

    def __repr__(self) -> str:
        return f"Slots({self.shown})"


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass
class Order:
    number: int
    lines: list[str]


def same_name(marker: int) -> type:
    class Same:
        def __init__(self) -> None:
            self.marker = marker

    return Same


# cache.key


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1, 2], (1, 2)),
        ([1, [2, 3]], (1, (2, 3))),
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}),
        ({1, 2, 3}, {3, 2, 1}),
        (frozenset({1, 2}), frozenset({2, 1})),
        (Thing(a=1, b=2), Thing(b=2, a=1)),
        (Order(1, ["a"]), Order(1, ["a"])),
        (Slots("a"), Slots("a")),
        (Point(1, 2), Point(1, 2)),
        (Colour.RED, Colour.RED),
        ({1: "a", "1": "b"}, {"1": "b", 1: "a"}),
        (1, 1.0),
        (True, 1),
    ],
    ids=repr,
)
def test_equal_by_value(run: Run, a: Any, b: Any) -> None:
    assert KEY((a,), {}) == KEY((b,), {})
    assert hash(KEY((a,), {})) == hash(KEY((b,), {}))
    assert hash(_to_hashable(a)) == hash(_to_hashable(b))
    assert calls_of(run, (a,), (b,)) == 1


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1, 2], [2, 1]),
        ([[1], 2], [1, [2]]),
        ({"a": 1}, {"a": 2}),
        ({1, 2}, {1, 3}),
        (Thing(a=1), Thing(a=2)),
        (Order(1, ["a"]), Order(1, ["b"])),
        (Slots("a"), Slots("b")),
        (Point(1, 2), Size(1, 2)),
        (Point(1, 2), (1, 2)),
        (Colour.RED, Colour.BLUE),
        ("1", 1),
        (b"a", "a"),
        (None, 0),
        (None, "None"),
        ("", ()),
        (10**30, 10**30 + 1),
        (0.1, 0.2),
    ],
    ids=repr,
)
def test_different_by_value(run: Run, a: Any, b: Any) -> None:
    assert KEY((a,), {}) != KEY((b,), {})
    assert calls_of(run, (a,), (b,)) == 2


def test_two_classes_of_one_name_are_different_keys(run: Run) -> None:
    one, two = same_name(1), same_name(1)
    assert one.__qualname__ == two.__qualname__
    assert KEY((one(),), {}) != KEY((two(),), {})
    assert KEY((one(),), {}) == KEY((one(),), {})
    assert calls_of(run, (one(),), (two(),)) == 2
    assert calls_of(run, (one(),), (one(),)) == 1
    assert calls_of(run, (one,), (two,)) == 2


def test_key_keeps_no_use_cache_and_changes_no_argument() -> None:
    options = {"b": [1], "use_cache": False, "a": {"x": 1}}
    key = KEY(([1],), options)
    assert options == {"b": [1], "use_cache": False, "a": {"x": 1}}
    assert key == KEY(([1],), {"a": {"x": 1}, "b": [1]})
    assert "use_cache" not in repr(key)
    assert key != "another type"
    assert (key == "another type") is False


def test_make_key_tells_functions_and_skips_arguments() -> None:
    async def f() -> None: ...

    async def g() -> None: ...

    assert make_key(f, (1,), {"a": 1}) == make_key(f, (1,), {"a": 1, "use_cache": False})
    assert make_key(f, (1,), {}) != make_key(g, (1,), {})
    assert make_key(f, (1, 2), {}, 1) == make_key(f, (3, 2), {}, skip_args=1)
    assert make_key(f, (1, 2), {}) != make_key(f, (3, 2), {})
    assert f.__qualname__ in repr(make_key(f, (), {}))
    assert {make_key(f, ([1],), {"b": {}}): 1}[make_key(f, ([1],), {"b": {}})] == 1


def test_to_hashable_leaves_plain_values_as_they_are() -> None:
    for value in (1, 1.5, "a", b"a", None, True, 10**50):
        assert _to_hashable(value) is value
    assert _to_hashable([1, [2]]) == (1, (2,))


# Decorated calls


def calls_of(run: Run, *arguments: tuple[Any, ...]) -> int:
    """The number of loads for calls with these arguments, by position; by keyword the number is the
    same.
    """

    async def main() -> int:
        by_position, by_keyword = 0, 0

        @AsyncLRU()
        async def f(*args: Any) -> None:
            nonlocal by_position
            by_position += 1

        @AsyncLRU()
        async def g(**options: Any) -> None:
            nonlocal by_keyword
            by_keyword += 1

        for args in arguments:
            await f(*args)
            await g(args=args)
        assert by_position == by_keyword
        return by_position

    return run(main())


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


# AsyncCache: as Python compares


def test_keys_of_a_cache_are_compared_as_python_does(run: Run) -> None:
    async def main() -> None:
        cache = AsyncCache(maxsize=None)
        keys: list[Any] = [
            "a",
            b"a",
            1,
            1.5,
            (1, "a"),
            (1, ("a",)),
            None,
            frozenset({1}),
            Colour.RED,
            Point(1, 2),
            int,
        ]
        for number, key in enumerate(keys):
            cache.set(key, number)
        assert [await cache.get(key) for key in keys] == list(range(len(keys)))
        assert await cache.get(True) == await cache.get(1.0) == 2
        assert await cache.get((1, 2)) == 9
        assert await cache.get(float("nan")) is None
        nan = float("nan")
        cache.set(nan, "nan")
        assert await cache.get(nan) == "nan"
        cache.set(10**40, "big")
        assert await cache.get(10**40) == "big"
        assert len(cache.cache) == len(keys) + 2

    run(main())


def test_a_key_that_cannot_be_hashed_is_a_type_error(run: Run) -> None:
    async def main() -> None:
        cache, load = AsyncCache(), Load()
        bad: Any = [1]
        for make in _operations(cache, bad, load):
            with pytest.raises(TypeError, match="unhashable"):
                await make()
        assert len(cache.cache) == 0
        assert load.calls == []

    run(main())


class Evil:
    """A key whose hash and comparison run code of the test."""

    def __init__(
        self,
        number: int = 0,
        on_hash: Callable[[], None] | None = None,
        on_eq: Callable[[], bool] | None = None,
    ) -> None:
        self.number, self.on_hash, self.on_eq = number, on_hash, on_eq

    def __hash__(self) -> int:
        if self.on_hash is not None:
            self.on_hash()
        return 7

    def __eq__(self, other: object) -> bool:
        if self.on_eq is not None:
            return self.on_eq()
        if isinstance(other, Evil) and other.on_eq is not None:
            return other.on_eq()
        return isinstance(other, Evil) and self.number == other.number


def _operations(cache: AsyncCache, key: Any, load: Load) -> list[Callable[[], Awaitable[Any]]]:
    async def contains() -> bool:
        return key in cache.cache

    async def do(function: Callable[[], Awaitable[Any]]) -> Any:
        return await function()

    return [
        lambda: do(lambda: cache.get(key)),
        lambda: do(lambda: cache.get(key, load)),
        lambda: do(lambda: cache.get(key, batch_loader=load)),
        lambda: do(lambda: cache.set(key, 1)),
        lambda: do(lambda: cache.delete(key)),
        contains,
    ]


def test_a_key_whose_hash_raises_raises_that(run: Run) -> None:
    async def main() -> None:
        error = ValueError("no hash")

        def fail() -> None:
            raise error

        cache, load = AsyncCache(), Load()
        for make in _operations(cache, Evil(on_hash=fail), load):
            assert await outcome(make()) is error
        assert (len(cache.cache), load.calls) == (0, [])

    run(main())


def test_a_key_whose_comparison_raises_raises_that_and_leaves_the_cache_whole(run: Run) -> None:
    async def main() -> None:
        error = ValueError("no comparison")

        def fail() -> bool:
            raise error

        cache, load = AsyncCache(), Load()
        cache.set(Evil(1), "one")
        cache.set(Evil(2), "two")
        for make in _operations(cache, Evil(3, on_eq=fail), load):
            assert await outcome(make()) is error
        assert load.calls == []
        assert [await cache.get(Evil(1)), await cache.get(Evil(2))] == ["one", "two"]
        assert len(cache.cache) == 2

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


@pytest.mark.parametrize("change", ["clear", "delete", "set", "grow", "get"])
def test_a_comparison_may_re_enter_and_change_the_cache(run: Run, change: str) -> None:
    async def main() -> None:
        cache = AsyncCache(maxsize=50, batch_window_ms=0)
        busy = False

        def re_enter() -> bool:
            nonlocal busy
            if busy:
                return False
            busy = True
            try:
                if change == "clear":
                    cache.clear()
                elif change == "delete":
                    for number in range(10):
                        cache.delete(Evil(number))
                elif change == "set":
                    cache.set(Evil(3), "changed")
                elif change == "grow":
                    for number in range(200):
                        cache.set(f"filler {number}", number)
                else:
                    asker: Any = cache.get(Evil(1))
                    with pytest.raises(StopIteration):
                        asker.send(None)
            finally:
                busy = False
            return False

        for make in range(6):
            for number in range(10):
                cache.set(Evil(number), number)
            key = Evil(99, on_eq=re_enter)
            load = Load()
            asked = task(outcome(_operations(cache, key, load)[make]()))
            await until(lambda load=load, asked=asked: bool(load.calls) or asked.done())  # type: ignore[misc]
            if load.calls:
                load.answer(["v"] if load.keys else "v")
            got = await asked
            assert not isinstance(got, BaseException), got
            assert len(cache.cache) <= 50
            cache.clear()
            cache.set(Evil(1), "still works")
            assert await cache.get(Evil(1)) == "still works"

    run(main())


def test_a_hash_may_re_enter_the_cache(run: Run) -> None:
    async def main() -> None:
        cache = AsyncCache()

        def clear() -> None:
            cache.clear()
            cache.set("other", 1)

        cache.set(Evil(1, on_hash=clear), "v")
        assert await cache.get(Evil(1)) == "v"
        assert await cache.get("other") == 1

    run(main())


def test_a_value_whose_finaliser_re_enters_the_cache_is_dropped_outside(run: Run) -> None:
    async def main() -> None:
        cache = AsyncCache(maxsize=2)
        finalised: list[int] = []

        class Value:
            def __init__(self, number: int) -> None:
                self.number = number

            def __del__(self) -> None:
                finalised.append(self.number)
                assert len(cache.cache) <= 2
                if self.number < 3:
                    cache.set(f"from the finaliser {self.number}", 1)

        cache.set("k", Value(0))
        cache.set("k", Value(1))
        cache.set("l", Value(2))
        cache.delete("k")
        cache.set("m", Value(3))
        cache.set("n", Value(4))
        cache.set("o", Value(5))
        cache.clear()
        gc.collect()
        assert sorted(finalised) == [0, 1, 2, 3, 4, 5]

    run(main())


def test_colliding_hashes_are_different_keys(run: Run) -> None:
    async def main() -> None:
        cache = AsyncCache(maxsize=None)
        for number in range(500):
            cache.set(Evil(number), number)
        for number in range(0, 500, 2):
            cache.delete(Evil(number))
        found = [await cache.get(Evil(number)) for number in range(500)]
        assert found == [number if number % 2 else None for number in range(500)]

    run(main())


def test_a_stored_key_that_changes_its_hash_is_lost_and_no_crash(run: Run) -> None:
    async def main() -> None:
        class Changing:
            value = 1

            def __hash__(self) -> int:
                return self.value

        cache, key = AsyncCache(maxsize=3), Changing()
        cache.set(key, "v")
        key.value = 2
        assert await cache.get(key) is None
        for number in range(10):
            cache.set(number, number)
        assert len(cache.cache) == 3

    run(main())

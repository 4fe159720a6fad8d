"""Keys of `AsyncCache`: by Python's comparison, and safe against any behaviour."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from key_classes import Colour, Point
from loops import Load, Run, outcome, task, until

from cache import AsyncCache


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

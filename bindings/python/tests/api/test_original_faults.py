"""Faults of the original that this package does not have. Cancellation has a file of its own."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from loops import NEVER_MS, Load, Run, outcome, returns, task, turns

from cache import (
    AsyncCache,
    AsyncLRU,
    AsyncLRUInvalidator,
    AsyncTTL,
)


def test_a_batch_loader_gets_each_key_once(run: Run) -> None:
    async def main() -> None:
        cache, load = AsyncCache(batch_window_ms=NEVER_MS, max_batch_size=2), Load()
        callers = [task(cache.get(key, batch_loader=load)) for key in "aaab"]
        await load.called()
        assert load.keys == [["a", "b"]]
        load.answer([1, 2])
        assert await asyncio.gather(*callers) == [1, 1, 1, 2]

    run(main())


def test_a_slow_batch_blocks_no_other(run: Run) -> None:
    async def main() -> None:
        cache, slow, quick = AsyncCache(batch_window_ms=0), Load(), Load()
        waits = task(cache.get("slow", batch_loader=slow))
        await slow.called()
        answered = task(cache.get("quick", batch_loader=quick))
        again = task(cache.get("slow too", batch_loader=slow))
        await quick.called()
        await slow.called(2)
        quick.answer([1])
        assert await answered == 1
        assert not waits.done()
        slow.answer([2], 1)
        slow.answer([3], 0)
        assert list(await asyncio.gather(again, waits)) == [2, 3]

    run(main())


@pytest.mark.parametrize("length", [0, 1, 4])
def test_a_batch_result_of_another_length_is_an_error_that_says_both(run: Run, length: int) -> None:
    async def main() -> None:
        async def load(keys: list[str]) -> list[int]:
            return [1] * length

        cache = AsyncCache(batch_window_ms=NEVER_MS, max_batch_size=3)
        for got in await asyncio.gather(*(outcome(cache.get(key, batch_loader=load)) for key in "abc")):
            assert isinstance(got, Exception)
            assert str(length) in str(got)
            assert "3" in str(got)
        assert len(cache.cache) == 0

    run(main())


@pytest.mark.parametrize("result", ["abc", b"abc", 7, None], ids=["str", "bytes", "int", "None"])
def test_a_batch_result_that_is_neither_mapping_nor_sequence_of_values_is_an_error(
    run: Run, result: Any
) -> None:
    async def main() -> None:
        async def load(keys: list[str]) -> Any:
            return result

        cache = AsyncCache(batch_window_ms=NEVER_MS, max_batch_size=2)
        for got in await asyncio.gather(*(outcome(cache.get(key, batch_loader=load)) for key in "ab")):
            assert isinstance(got, Exception)

    run(main())


def test_expired_entries_are_reclaimed_although_maxsize_is_none() -> None:
    cache = AsyncCache(maxsize=None, default_ttl=0.001)
    for number in range(20_000):
        cache.set(number, number)
    deadline = time.monotonic() + 5
    while cache.stats()["size"] > 1_000:
        cache.set("one more", 1)
        assert time.monotonic() < deadline
    assert cache.stats()["expirations"] >= 19_000


def test_no_loop_is_special(run: Run) -> None:
    cache = AsyncCache()
    load = returns(1)

    async def many() -> list[Any]:
        return await asyncio.gather(*(cache.get(key, load) for key in "aab"))

    async def batch(keys: list[str]) -> list[str]:
        await turns(1)
        return keys

    for key in "xyz":
        assert run(many()) == [1, 1, 1]
        assert run(cache.get(key, batch_loader=batch)) == key


def test_a_reader_that_recaches_during_the_write_does_not_leave_the_old_value(run: Run) -> None:
    async def main() -> None:
        database = {"k": "old"}

        @AsyncLRU()
        async def read(key: str) -> str:
            return database[key]

        @AsyncLRUInvalidator(read)
        async def write(key: str) -> None:
            assert await read(key) == "old"
            database[key] = "new"

        await write("k")
        assert await read("k") == "new"

    run(main())


def test_a_reader_that_is_still_loading_when_the_write_ends_does_not_leave_the_old_value(run: Run) -> None:
    async def main() -> None:
        load = Load()

        @AsyncLRU()
        async def read(key: str) -> Any:
            return await load()

        @AsyncLRUInvalidator(read)
        async def write(key: str) -> None: ...

        reader = task(read("k"))
        await load.called()
        await write("k")
        load.answer("old")
        assert await reader == "old"
        after = task(read("k"))
        await load.called(2)
        load.answer("new")
        assert await after == "new"

    run(main())


@pytest.mark.parametrize("decorator", [AsyncLRU, AsyncTTL])
def test_a_decorator_without_parentheses_says_so(decorator: Any) -> None:
    async def f() -> None: ...

    with pytest.raises(TypeError, match=rf"@{decorator.__name__}\(\)"):
        decorator(f)

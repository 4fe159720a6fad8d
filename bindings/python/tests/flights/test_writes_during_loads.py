"""Set, delete, clear and invalidate during a load."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from flight_calls import batching
from loops import Load, Run, cancel, outcome, task, turns

from cache import AsyncCache, AsyncLRU


@pytest.mark.parametrize("how", ["set", "delete", "clear"])
def test_single_a_change_during_the_load_fences_it(run: Run, how: str) -> None:
    async def main() -> None:
        cache, load = AsyncCache(), Load()
        before = task(cache.get("k", load))
        await load.called()
        _change(cache, how, "k")
        load.answer("old")
        assert await before == "old"
        assert await cache.get("k") == ("set" if how == "set" else None)
        if how != "clear":
            assert cache.stats()["fenced"] == 1

    run(main())


@pytest.mark.parametrize("how", ["delete", "clear"])
def test_single_a_get_after_an_invalidation_starts_a_new_load(run: Run, how: str) -> None:
    async def main() -> None:
        cache, load = AsyncCache(), Load()
        before = task(cache.get("k", load))
        await load.called()
        _change(cache, how, "k")
        after = task(cache.get("k", load))
        await load.called(2)
        load.answer("new", 1)
        assert await after == "new"
        assert not before.done()
        load.answer("old", 0)
        assert await before == "old"
        assert await cache.get("k") == "new"

    run(main())


def test_single_the_error_of_a_fenced_load_reaches_only_who_was_waiting(run: Run) -> None:
    async def main() -> None:
        cache, load, error = AsyncCache(), Load(), ValueError("old")
        before = task(outcome(cache.get("k", load)))
        await load.called()
        cache.delete("k")
        after = task(cache.get("k", load))
        await load.called(2)
        load.fail(error, 0)
        assert await before is error
        load.answer("new", 1)
        assert await after == "new"
        assert await cache.get("k") == "new"

    run(main())


def test_single_the_last_caller_of_a_fenced_load_is_cancelled_and_the_new_load_is_not(run: Run) -> None:
    async def main() -> None:
        cache, load = AsyncCache(), Load()
        before = task(cache.get("k", load))
        await load.called()
        cache.delete("k")
        after = task(cache.get("k", load))
        await load.called(2)
        await cancel(before)
        await turns()
        assert load.calls[0].cancelled()
        assert load.cancelled == 1
        load.answer("new", 1)
        assert await after == "new"

    run(main())


@pytest.mark.parametrize("how", ["set", "delete", "clear"])
def test_batch_a_change_during_the_load_fences_it(run: Run, how: str) -> None:
    async def main() -> None:
        cache, load = batching(2), Load()
        a, b = (task(cache.get(key, batch_loader=load)) for key in ("a", "b"))
        await load.called()
        _change(cache, how, "a")
        load.answer({"a": "old", "b": "b"})
        assert list(await asyncio.gather(a, b)) == ["old", "b"]
        assert await cache.get("a") == ("set" if how == "set" else None)
        assert await cache.get("b") == (None if how == "clear" else "b")

    run(main())


def test_batch_a_get_after_an_invalidation_starts_a_new_load(run: Run) -> None:
    async def main() -> None:
        cache, load = batching(2), Load()
        a, b = (task(cache.get(key, batch_loader=load)) for key in ("a", "b"))
        await load.called()
        cache.delete("a")
        again, c = (task(cache.get(key, batch_loader=load)) for key in ("a", "c"))
        await load.called(2)
        assert load.keys == [["a", "b"], ["a", "c"]]
        load.answer({"a": "new", "c": 3}, 1)
        assert list(await asyncio.gather(again, c)) == ["new", 3]
        load.answer({"a": "old", "b": 2}, 0)
        assert list(await asyncio.gather(a, b)) == ["old", 2]
        assert await cache.get("a") == "new"

    run(main())


def test_decorated_an_invalidation_during_the_load_fences_it(run: Run) -> None:
    async def main() -> None:
        load = Load()

        @AsyncLRU()
        async def f(x: int) -> Any:
            return await load()

        before = task(f(1))
        await load.called()
        f.invalidate_cache(1)
        load.answer("old")
        assert await before == "old"
        after = task(f(1))
        await load.called(2)
        load.answer("new")
        assert await after == "new"

    run(main())


def _change(cache: AsyncCache, how: str, key: str) -> None:
    if how == "set":
        cache.set(key, "set")
    elif how == "delete":
        cache.delete(key)
    else:
        cache.clear()

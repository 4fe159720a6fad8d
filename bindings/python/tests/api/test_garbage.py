"""Memory: objects dropped by the cache are freed, cycles through the cache are collected, and
nothing grows.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from loops import Load, Run, cancel, outcome, returns, task, turns

from cache import AsyncCache, AsyncLRU, DiskBackend

# The interpreter's own caches take and free a few blocks; a leak of one block per operation is
# thousands.
SLACK_BLOCKS = 300


class Value:
    """An object for weak references."""

    def __init__(self) -> None:
        self.other: Any = None


# Dropped objects


@pytest.mark.parametrize("how", ["evicted", "replaced", "deleted", "cleared", "cache dropped"])
def test_a_value_and_its_key_die_when_they_leave_the_cache(how: str) -> None:
    class Key:
        pass

    cache: AsyncCache | None = AsyncCache(maxsize=2)
    assert cache is not None
    key, value = Key(), Value()
    references = [weakref.ref(value)] + ([] if how == "replaced" else [weakref.ref(key)])
    cache.set(key, value)
    del value
    if how == "evicted":
        cache.set(1, 1)
        cache.set(2, 2)
    elif how == "replaced":
        cache.set(key, 1)
    elif how == "deleted":
        cache.delete(key)
    elif how == "cleared":
        cache.clear()
    else:
        cache = None
        gc.collect()
    del key
    assert [reference() for reference in references] == [None] * len(references)


def test_an_expired_value_dies_by_later_writes() -> None:
    cache = AsyncCache(maxsize=None)
    value = Value()
    reference = weakref.ref(value)
    cache.set("k", value, ttl=0)
    del value
    for number in range(100):
        cache.set(number, number)
    assert reference() is None


def test_a_load_keeps_nothing_when_it_has_ended(run: Run) -> None:
    async def main() -> None:
        cache = AsyncCache()

        class Loader:
            async def __call__(self) -> Value:
                await asyncio.sleep(0)
                return Value()

        loader = Loader()
        of_loader = weakref.ref(loader)
        value = await cache.get("k", loader)
        of_value = weakref.ref(value)
        del loader, value
        await turns()
        gc.collect()
        assert of_loader() is None
        assert of_value() is not None
        cache.delete("k")
        gc.collect()
        assert of_value() is None

    run(main())


def test_the_error_of_a_load_is_not_kept(run: Run) -> None:
    async def main() -> None:
        class Error(Exception):
            pass

        async def load() -> None:
            raise Error

        cache = AsyncCache()
        error = await outcome(cache.get("k", load))
        reference = weakref.ref(error)
        del error
        await turns()
        gc.collect()
        assert reference() is None

    run(main())


def test_the_arguments_of_a_decorated_call_die_with_its_entry(run: Run) -> None:
    async def main() -> None:
        @AsyncLRU(maxsize=1)
        async def f(x: Value) -> int:
            return 1

        argument = Value()
        reference = weakref.ref(argument)
        await f(argument)
        del argument
        await f(Value())
        await turns()
        gc.collect()
        assert reference() is None

    run(main())


# Cycles


def test_a_cache_in_a_cycle_through_its_values_is_collected() -> None:
    class Holder(Value):
        pass

    cache = AsyncCache()
    holder = Holder()
    holder.other = cache
    cache.set("k", holder)
    reference = weakref.ref(holder)
    del cache, holder
    gc.collect()
    assert reference() is None


def test_a_cache_in_a_cycle_through_its_keys_is_collected() -> None:
    cache, key = AsyncCache(), Value()
    key.other = cache
    cache.set(key, 1)
    reference = weakref.ref(key)
    del cache, key
    gc.collect()
    assert reference() is None


def test_a_cache_in_a_cycle_through_a_key_that_was_evicted_before_a_save_is_collected(tmp_path: Path) -> None:
    cache, key = AsyncCache(maxsize=1, backup=DiskBackend(tmp_path / "cycle.cache")), Value()
    key.other = cache
    cache.set(key, 1)
    cache.set("other", 1)
    reference = weakref.ref(key)
    del cache, key
    gc.collect()
    assert reference() is None


def test_a_decorated_function_in_a_cycle_is_collected(run: Run) -> None:
    def make() -> weakref.ref[Any]:
        value = Value()

        @AsyncLRU()
        async def f(x: int) -> Value:
            return value

        value.other = f
        run(f(1))
        return weakref.ref(value)

    reference = make()
    gc.collect()
    assert reference() is None


def test_a_call_that_was_never_awaited_in_a_cycle_is_collected() -> None:
    cache, loader = AsyncCache(), Value()

    def load_of(kept: Value) -> Callable[[], Awaitable[Value]]:
        async def load() -> Value:
            return kept

        return load

    made = cache.get("k", load_of(loader))
    loader.other = made
    made.close()
    reference = weakref.ref(loader)
    del made, loader
    gc.collect()
    assert reference() is None


def test_a_waiting_call_and_its_load_are_collected_with_their_closed_loop_and_cache() -> None:
    cache: AsyncCache = AsyncCache()
    value = Value()
    reference = weakref.ref(value)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)

    async def main(kept: Value, cache: AsyncCache) -> None:
        async def load() -> Value:
            await asyncio.get_running_loop().create_future()
            return kept

        kept.other = task(cache.get("k", load))
        await turns()

    loop.run_until_complete(main(value, cache))
    loop.close()
    del value, loop, cache
    gc.collect()
    assert reference() is None


# Growth


def times(request: pytest.FixtureRequest) -> int:
    """The number of operations of each kind."""
    million = request.config.getoption("--million") or os.environ.get("ASYNC_CACHE_MILLION")
    return 1_000_000 if million else 20_000


async def hits(cache: AsyncCache, count: int) -> None:
    cache.set("k", "v")
    for _ in range(count):
        await cache.get("k")


async def misses(cache: AsyncCache, count: int) -> None:
    for number in range(count):
        await cache.get(number)


async def loads(cache: AsyncCache, count: int) -> None:
    for number in range(count):
        await cache.get(number, returns(number))


async def batches(cache: AsyncCache, count: int) -> None:
    async def load(keys: list[int]) -> list[int]:
        return keys

    cache.max_batch_size = 10
    # The loop keeps the timers of full batches until their windows are over, and later the memory
    # of the timers that it had at one time. With a short window, these are few on a machine of any
    # speed.
    cache.batch_window_ms = 1
    for number in range(0, count, 10):
        await asyncio.gather(*(cache.get(key, batch_loader=load) for key in range(number, number + 10)))
    # This window is the last one to end.
    passed = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(cache.batch_window_ms / 1000, passed.set_result, None)
    await passed


async def errors(cache: AsyncCache, count: int) -> None:
    async def load() -> None:
        raise ValueError("no")

    for number in range(count):
        assert isinstance(await outcome(cache.get(number, load)), ValueError)


async def cancellations(cache: AsyncCache, count: int) -> None:
    load = Load()
    for number in range(count):
        caller = task(cache.get(number, load))
        await load.called()
        await cancel(caller)
        await turns(2)
        load.calls.clear()


async def evictions(cache: AsyncCache, count: int) -> None:
    for number in range(count):
        cache.set(f"key {number}", [number])


async def expirations(cache: AsyncCache, count: int) -> None:
    for number in range(count):
        cache.set(number, number, ttl=0 if number % 2 else 0.0001)


async def fences(cache: AsyncCache, count: int) -> None:
    for number in range(count):
        load = Load()
        caller = task(cache.get(number, load))
        await load.called()
        cache.delete(number)
        load.answer(1)
        await caller


async def re_entrant_keys(cache: AsyncCache, count: int) -> None:
    class Key:
        def __hash__(self) -> int:
            return 1

        compared = 0

        def __eq__(self, other: object) -> bool:
            # Not at every comparison: the cache would stop looking for a place that changes all the
            # time.
            Key.compared += 1
            if Key.compared % 50 == 0:
                cache.delete("other")
                cache.set("other", 1)
            return self is other

    for _ in range(count // 20):
        cache.set(Key(), 1)
        await cache.get(Key())
        if len(cache.cache) > 5:
            cache.clear()


async def cycles(cache: AsyncCache, count: int) -> None:
    for number in range(count):
        value = Value()
        value.other = (value, cache, cache.get)
        cache.set(number, value)


async def dropped_caches(cache: AsyncCache, count: int) -> None:
    for _ in range(count // 10):
        one = AsyncCache()
        one.set("self", one)
        one.set("k", Value())


async def decorated(cache: AsyncCache, count: int) -> None:
    @AsyncLRU(maxsize=10)
    async def f(*args: Any, **options: Any) -> int:
        return 1

    for number in range(count // 4):
        await f(number)
        await f(1, x=[number])
        await f(1, use_cache=False)
        f.invalidate_cache(number)


async def never_run(cache: AsyncCache, count: int) -> None:
    for number in range(count):
        cache.get(number, returns(1)).close()


KINDS: list[Callable[[AsyncCache, int], Awaitable[None]]] = [
    *(hits, misses, loads, batches, errors, cancellations, evictions, expirations, fences, re_entrant_keys),
    *(cycles, dropped_caches, decorated, never_run),
]


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("operation", KINDS, ids=lambda one: one.__name__)
def test_nothing_grows_with_many(
    run: Run, operation: Callable[[AsyncCache, int], Awaitable[None]], request: pytest.FixtureRequest
) -> None:
    count = times(request)

    async def main() -> None:
        def blocks() -> int:
            gc.collect()
            return sys.getallocatedblocks()

        async def once(number: int) -> int:
            cache = AsyncCache(maxsize=10)
            await operation(cache, number)
            await turns()
            cache.clear()
            del cache
            gc.collect()
            return blocks()

        # The memory kept by the interpreter and the loop is allocated in the first round.
        await once(1_000)
        before = await once(1_000)
        resident = _resident_bytes()
        after = await once(count)
        assert after - before < SLACK_BLOCKS
        assert _resident_bytes() - resident < 16 * 2**20

    run(main())


def _resident_bytes() -> int:
    """Memory of the process, including native memory; 0 where it is not known."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def test_reference_counts_return_after_every_kind_of_call(run: Run) -> None:
    async def main() -> None:
        key, value, cache = Value(), Value(), AsyncCache()
        loader = returns(value)
        error = ValueError("no")

        async def fails() -> None:
            raise error

        before = [sys.getrefcount(one) for one in (key, value, loader)]
        for _ in range(100):
            await cache.get(key)
            await cache.get(key, loader)
            await cache.get(key)
            cache.set(key, value)
            assert key in cache.cache
            cache.delete(key)
            assert await outcome(cache.get(key, fails)) is error
            cache.get(key, loader).close()
            waits = task(cache.get(key, Load()))
            await turns(2)
            await cancel(waits)
        error.__traceback__ = None
        del waits
        await turns()
        gc.collect()
        assert [sys.getrefcount(one) for one in (key, value, loader)] == before

    run(main())

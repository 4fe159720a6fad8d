"""Objects with their own `__eq__`: the reach of invalidations, and objects kept alive."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

from own_equality import (
    EQUAL,
    Held,
    Spelling,
    _odd,
    cached,
    run,
    shares,
)

from agent_cache import AgentCache, AgentCacheInvalidator
from cache import AsyncLRU, AsyncLRUInvalidator, AsyncTTL, _native


@EQUAL
def test_an_invalidation_with_an_equal_object_reaches_the_entry(one: Any, other: Any) -> None:
    read, loads = cached()

    @AsyncLRUInvalidator(read)
    async def write(value: Any) -> None:
        pass

    async def calls() -> None:
        assert await read(one) == 1
        read.invalidate_cache(other)
        assert await read(one) == 2
        await write(other)
        assert await read(one) == 3

    run(calls())


def test_the_object_of_a_method_is_known_by_its_equality() -> None:
    loads: list[Any] = []

    class Service(Spelling):
        @AsyncTTL(time_to_live=None)
        async def read(self, number: int) -> int:
            loads.append(self)
            return len(loads)

        @AsyncLRU(per_instance=True)
        async def own(self, number: int) -> int:
            loads.append(self)
            return len(loads)

    one, other = Service("a"), Service("A")

    async def calls() -> None:
        assert await one.read(1) == await other.read(1) == 1
        other.read.invalidate_cache(1)
        assert await one.read(1) == 2
        # By identity, whatever the class defines.
        assert await one.own(1) != await other.own(1)

    run(calls())


def test_tools_of_agents_know_objects_by_their_equality() -> None:
    loads: list[Any] = []

    @AgentCache(resource="spellings")
    async def read(value: Any) -> int:
        loads.append(value)
        return len(loads)

    @AgentCacheInvalidator(resource="spellings")
    async def write() -> None:
        pass

    async def calls() -> None:
        assert await read(Spelling("a")) == await read(Spelling("A")) == 1
        read.invalidate_cache(Spelling("A"))
        assert await read(Spelling("a")) == 2
        await write()
        assert await read(Spelling("A")) == 3

    run(calls())


def test_an_invalidation_fences_the_load_of_an_equal_object() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    loads = 0

    @AsyncLRU()
    async def read(value: Any) -> int:
        nonlocal loads
        loads += 1
        begun.set()
        await go_on.wait()
        return loads

    async def calls() -> None:
        first = asyncio.ensure_future(read(Spelling("a")))
        await begun.wait()
        read.invalidate_cache(Spelling("A"))
        go_on.set()
        await first
        assert await read(Spelling("a")) == 2

    run(calls())


# Objects kept alive.


class Part:
    pass


def test_a_twin_goes_with_the_entry() -> None:
    read, _ = cached()
    gc.collect()
    before = _native._count_twins()
    held = Held("a", Part())
    part = weakref.ref(held.part)
    own = weakref.ref(held)

    async def call(value: Any) -> int:
        return int(await read(value))

    run(call(held))
    assert _native._count_twins() == before + 1
    _.clear()
    del held
    gc.collect()
    # The object is gone; the snapshot lives as long as the entry.
    assert own() is None
    assert part() is not None
    read.invalidate_cache(Held("A"))
    gc.collect()
    assert part() is None
    assert _native._count_twins() == before


def test_a_twin_that_leads_to_its_own_cache_is_collected() -> None:
    class Owner:
        def __init__(self) -> None:
            self.read, self.loads = cached()
            self.held = Held("a", self)

    owner = Owner()
    gone = weakref.ref(owner)
    before = _native._count_twins()

    async def call() -> None:
        await owner.read(owner.held)

    run(call())
    del owner
    gc.collect()
    assert gone() is None
    assert _native._count_twins() <= before


def test_nothing_grows_over_many_objects() -> None:
    read, loads = cached(maxsize=10)
    gc.collect()
    before = _native._count_twins()

    async def calls() -> None:
        for number in range(10_000):
            await read(Held(f"a{number}"))
            loads.clear()

    run(calls())
    gc.collect()
    assert _native._count_twins() - before <= 10
    read.clear_cache()
    gc.collect()
    assert _native._count_twins() == before


def test_classes_are_not_kept_alive() -> None:
    odd = _odd(lambda a, b: bool(a.content == b.content))
    gone = weakref.ref(odd)
    assert shares(odd(1), odd(1))
    del odd
    gc.collect()
    assert gone() is None

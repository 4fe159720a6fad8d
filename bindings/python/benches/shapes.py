"""The measured loops, the same for every library.

Each loop is written out, with nothing between the ``for`` and the operation.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from itertools import repeat
from typing import Any

from timing import Bench

Call = Callable[..., Awaitable[Any]]

HERD = 1000
BATCH = 100


async def one(x: int) -> int:
    """A cached function with one argument."""
    return x


async def three(x: int, y: str, z: int) -> int:
    """A cached function with three arguments."""
    return x


async def suspends() -> int:
    """A loader that yields to the event loop, like all code that waits for a socket."""
    await asyncio.sleep(0)
    return 1


async def answers() -> int:
    """A loader that returns at once."""
    return 1


async def nothing() -> None:
    """The base of the comparisons."""


def empty_loop() -> Bench:
    """The loop alone."""

    async def bench(count: int) -> None:
        for _ in repeat(None, count):
            pass

    return bench


def awaiting_nothing() -> Bench:
    """The yardstick: awaits an empty ``async def``."""

    async def bench(count: int) -> None:
        for _ in repeat(None, count):
            await nothing()

    return bench


def calling(function: Callable[[int], object]) -> Bench:
    """Calls a plain function with one argument."""

    async def bench(count: int) -> None:
        for _ in repeat(None, count):
            function(1)

    return bench


def awaiting_tool(function: Call, session: Callable[[], Any]) -> Bench:
    """Awaits a function of one argument within a session; the figure includes the session's begin
    and end.
    """

    async def bench(count: int) -> None:
        async with session():
            for _ in repeat(None, count):
                await function(1)

    return bench


def awaiting_one(function: Call) -> Bench:
    """Awaits a function of one argument."""

    async def bench(count: int) -> None:
        for _ in repeat(None, count):
            await function(1)

    return bench


def awaiting_method(service: Any) -> Bench:
    """Awaits a method of one argument."""

    async def bench(count: int) -> None:
        for _ in repeat(None, count):
            await service.read(1)

    return bench


def awaiting_with(function: Call, argument: Any) -> Bench:
    """Awaits a function with the given argument."""

    async def bench(count: int) -> None:
        for _ in repeat(None, count):
            await function(argument)

    return bench


def awaiting_three(function: Call) -> Bench:
    """Awaits a function of three arguments, the last by name."""

    async def bench(count: int) -> None:
        for _ in repeat(None, count):
            await function(1, "two", z=3)

    return bench


def calling_three(function: Callable[..., object]) -> Bench:
    """Calls a plain function of three arguments, the last by name."""

    async def bench(count: int) -> None:
        for _ in repeat(None, count):
            function(1, "two", z=3)

    return bench


def awaiting_get(cache: Any) -> Bench:
    """Awaits the ``get`` of a cache."""

    async def bench(count: int) -> None:
        for _ in repeat(None, count):
            await cache.get("key")

    return bench


def awaiting_get_of(cache: Any, key: Any) -> Bench:
    """Awaits the ``get`` of a key."""
    cache.set(key, 1)

    async def bench(count: int) -> None:
        for _ in repeat(None, count):
            await cache.get(key)

    return bench


def calling_set(cache: Any) -> Bench:
    """Calls the ``set`` of a cache, for an existing key."""

    async def bench(count: int) -> None:
        for _ in repeat(None, count):
            cache.set("key", 1)

    return bench


def calling_set_of(cache: Any, value: Any) -> Bench:
    """Calls the ``set`` of a cache with a value, for an existing key."""

    async def bench(count: int) -> None:
        for _ in repeat(None, count):
            cache.set("key", value)

    return bench


def setting_item(cache: Any) -> Bench:
    """Sets an existing item of a mapping."""

    async def bench(count: int) -> None:
        for _ in repeat(None, count):
            cache["key"] = 1

    return bench


def awaiting_set(cache: Any) -> Bench:
    """Awaits the ``set`` of a cache, for an existing key."""

    async def bench(count: int) -> None:
        for _ in repeat(None, count):
            await cache.set("key", 1)

    return bench


def missing(cache: Any, load: Call) -> Bench:
    """Awaits the ``get`` of a missing key, with a loader."""
    fresh = itertools.count()

    async def bench(count: int) -> None:
        for key in itertools.islice(fresh, count):
            await cache.get(key, loader=load)

    return bench


def missing_call(function: Call) -> Bench:
    """Awaits a decorated function with a new argument."""
    fresh = itertools.count()

    async def bench(count: int) -> None:
        for key in itertools.islice(fresh, count):
            await function(key)

    return bench


def bare_task(load: Call) -> Bench:
    """A load in a task, without a cache."""

    async def bench(count: int) -> None:
        create_task: Any = asyncio.get_running_loop().create_task
        for _ in repeat(None, count):
            await create_task(load())

    return bench


def herd(get: Callable[[int, Call], Awaitable[Any]] | None) -> Bench:
    """`HERD` simultaneous callers of one missing key; without a `get`, they wait for one event.

    The load ends when all of them wait. An operation is one caller.
    """
    fresh = itertools.count()

    async def bench(count: int) -> None:
        for key in itertools.islice(fresh, count // HERD):
            event = asyncio.Event()
            loads = 0

            async def load(event: asyncio.Event = event) -> int:
                nonlocal loads
                loads += 1
                await event.wait()
                return loads

            callers = [event.wait() if get is None else get(key, load) for _ in repeat(None, HERD)]
            answers = await asyncio.gather(*callers, _set_soon(event))
            assert get is None or (loads == 1 and answers[:HERD] == [1] * HERD)

    return bench


async def _set_soon(event: asyncio.Event) -> None:
    for _ in range(3):
        await asyncio.sleep(0)
    event.set()


def batches(cache: Any) -> Bench:
    """`BATCH` missing keys at once, in one call of a batch loader. An operation is one key."""
    fresh = itertools.count()

    async def load(keys: list[int]) -> dict[int, int]:
        await asyncio.sleep(0)
        return {key: key for key in keys}

    async def bench(count: int) -> None:
        for _ in repeat(None, count // BATCH):
            keys = list(itertools.islice(fresh, BATCH))
            answers = await asyncio.gather(*[cache.get(key, batch_loader=load) for key in keys])
            assert answers == keys

    return bench


def bare_batch() -> Bench:
    """`BATCH` tasks waiting for one event, without a cache."""

    async def bench(count: int) -> None:
        for _ in repeat(None, count // BATCH):
            event = asyncio.Event()
            await asyncio.gather(*[event.wait() for _ in repeat(None, BATCH)], _set_soon(event))

    return bench

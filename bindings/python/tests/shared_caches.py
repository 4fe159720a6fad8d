"""Helpers for caches that share a server: what reaches another cache, and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from cache import AsyncCache, RedisBackend

SOON = 2.0  # seconds; news from the server that take longer are lost


class Counted:
    """A loader that counts its calls, and returns a value for each call."""

    def __init__(self, value: Any = None, seconds: float = 0.0) -> None:
        self.calls = 0
        self.value = value
        self.seconds = seconds

    async def __call__(self) -> Any:
        self.calls += 1
        await asyncio.sleep(self.seconds)
        return self.calls if self.value is None else self.value


async def soon(happened: Callable[[], bool]) -> float:
    """Waits until a condition is true; returns the seconds that this took."""
    begun = time.monotonic()
    while not happened():
        assert time.monotonic() - begun < SOON, "it did not happen"
        await asyncio.sleep(0.001)
    return time.monotonic() - begun


async def within(seconds: float, happened: Callable[[], Awaitable[bool]]) -> float:
    """Asks again and again until the answer is true; returns the seconds that this took."""
    begun = time.monotonic()
    while not await happened():
        assert time.monotonic() - begun < seconds, f"it did not happen within {seconds} s"
        await asyncio.sleep(0.01)
    return time.monotonic() - begun


async def connected(*caches: AsyncCache) -> None:
    """Lets caches connect."""
    for cache in caches:
        await cache.get("a key that connects")
        await soon(lambda cache=cache: cache.stats()["remote_up"])  # type: ignore[misc]


async def acknowledged(*caches: AsyncCache) -> None:
    """Waits until the server has acknowledged all writes of the caches."""
    for cache in caches:
        await soon(lambda cache=cache: cache.stats()["remote_pending"] == 0)  # type: ignore[misc]


async def timed(awaitable: Awaitable[Any]) -> tuple[Any, float]:
    """The result of an awaitable, and the seconds that it took."""
    begun = time.monotonic()
    result = await awaitable
    return result, time.monotonic() - begun


def pair(backend: RedisBackend, **options: Any) -> tuple[AsyncCache, AsyncCache]:
    """Two caches, as two processes would have them."""
    return AsyncCache(remote_cache=backend, **options), AsyncCache(remote_cache=backend, **options)

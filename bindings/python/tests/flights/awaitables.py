"""Functions and awaitables of the tests of coroutine behaviour."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from cache import AsyncLRU


@AsyncLRU()
async def square(number: int, *, power: int = 2) -> int:
    """Raises to a power."""
    return int(number**power)


async def plain(number: int, *, power: int = 2) -> int:
    """Raises to a power."""
    return int(number**power)


def counting(calls: list[Any]) -> Callable[[], Awaitable[str]]:
    async def load() -> str:
        calls.append(1)
        return "v"

    return load

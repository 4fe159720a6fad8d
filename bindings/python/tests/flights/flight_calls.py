"""Calls of the tests of flights."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from loops import NEVER_MS

from cache import AsyncCache


def batching(size: int, **options: Any) -> AsyncCache:
    """A cache whose batches leave with exactly this many keys."""
    return AsyncCache(batch_window_ms=NEVER_MS, max_batch_size=size, **options)


def _returns(value: Any) -> Callable[[], Awaitable[Any]]:
    async def load() -> Any:
        return value

    return load

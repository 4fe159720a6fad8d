"""Writes that make cached reads stale: when the reads are invalidated.

Rules:

1. The reads are invalidated before the write, so that no caller gets a value about to change. They
   are invalidated again after the write, whether it returns, raises or is cancelled, so that values
   read meanwhile are removed.
2. An interrupt (a raising signal handler) between any two lines does not prevent the second
   invalidation. If the interrupt hits the invalidation itself, the invalidation is repeated.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

R = TypeVar("R")


async def invalidating(invalidate: Callable[[], None], write: Callable[[], Awaitable[R]]) -> R:
    """Runs a write and its invalidations, and returns the result of the write."""
    invalidate()  # Rule 1.
    try:
        try:
            result = await write()
        finally:
            invalidate()
    except BaseException:
        invalidate()  # Rule 2.
        raise
    return result

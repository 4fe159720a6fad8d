"""Writes that make cached reads stale: what they invalidate, and when.

Rules:

1. Invalidated before the write, so that nobody is served what is about to change, and after it,
   whether it returns, raises or is cancelled, so that what somebody read meanwhile goes.
2. An interrupt (a signal's handler that raises) between any two lines does not keep the second
   invalidation from being done, not even one in the middle of it: then it is done again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

R = TypeVar("R")


async def invalidating(invalidate: Callable[[], None], write: Callable[[], Awaitable[R]]) -> R:
    """Runs a write and what invalidates for it, and returns what the write returns."""
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

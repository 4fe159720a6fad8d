"""Batch windows and lives of any size. Each test is a former bug."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from loops import Run, cancel, task, turns

from cache import AsyncCache


@pytest.mark.parametrize("window", [1e300, 1.7e308, 1e15, 10**30])
def test_a_batch_window_beyond_the_clock_is_for_ever(run: Run, window: float) -> None:
    """The native module panicked, and `except Exception` does not catch the panic."""
    cache = AsyncCache(batch_window_ms=5, max_batch_size=2)
    cache.batch_window_ms = window
    assert cache.batch_window_ms == float(window)
    assert AsyncCache(batch_window_ms=window).batch_window_ms == float(window)

    async def load(keys: list[int]) -> list[int]:
        return keys

    async def main() -> tuple[list[int], bool]:
        values = await asyncio.gather(*(cache.get(key, batch_loader=load) for key in (1, 2)))
        alone = task(cache.get(3, batch_loader=load))
        await turns()
        waits = not alone.done()
        await cancel(alone)
        return values, waits

    assert run(main()) == ([1, 2], True)


@pytest.mark.parametrize("window", [-1, math.nan, math.inf, "5", None, 10**400])
def test_a_batch_window_that_is_none_is_refused(window: Any) -> None:
    with pytest.raises((ValueError, TypeError, OverflowError), match="batch_window_ms|too large"):
        AsyncCache(batch_window_ms=window)
    with pytest.raises((ValueError, TypeError, OverflowError), match="batch_window_ms|too large"):
        AsyncCache().batch_window_ms = window


@pytest.mark.parametrize("life", [5e-324, 1e-9, 1e17, 1e308, 2**63, 10**400])
def test_lives_of_any_length_are_kept(run: Run, life: float) -> None:
    cache = AsyncCache(default_ttl=life, maxsize=2**62, max_batch_size=2**62)
    cache.set("default", 1)
    cache.set("own", 2, ttl=life)
    for key, value in (("default", 1), ("own", 2)):
        assert run(cache.get(key)) == (None if life < 1 else value)
    assert ("own" in cache.cache) == (life >= 1)


@pytest.mark.parametrize("life", [-1, -1e308, -(10**400), -0.0, 0])
def test_lives_that_are_over_store_nothing(run: Run, life: float) -> None:
    cache = AsyncCache(default_ttl=life)
    cache.set("default", 1)
    AsyncCache().set("own", 2, ttl=life)
    assert run(cache.get("default")) is None
    assert "default" not in cache.cache

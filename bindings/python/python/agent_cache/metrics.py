"""Counters over all tools and sessions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cache import AsyncCache, _native

from ._registry import registry


def get_metrics() -> dict[str, int | float]:
    """`hits`, `misses`, `invalidations`, `loop_detections` and `hit_rate` since the process began.

    Counted over all tools and all sessions, including sessions that have ended.
    """
    return with_hit_rate(_native.total_counts())


def stats() -> dict[str, Any]:
    """`get_metrics`, the current counters of all tools' caches, and the number of open
    `sessions`.
    """
    caches = [
        cache
        for resource in registry.resources()
        for tool in registry.tools(resource)
        for cache in tool._agent_caches()
    ]
    return {**summed(caches), **get_metrics(), "sessions": len(registry.sessions())}


def with_hit_rate(counts: dict[str, int]) -> dict[str, int | float]:
    """The counts, and the share of hits."""
    asked = counts["hits"] + counts["misses"]
    return {**counts, "hit_rate": counts["hits"] / asked if asked else 0.0}


def summed(caches: Iterable[AsyncCache]) -> dict[str, Any]:
    """The counters of several caches, added up.

    `last_save_error` is the error of one of the caches, if any; `oldest_load` is the greatest age
    of all loads.
    """
    total: dict[str, Any] = AsyncCache(maxsize=0).stats()
    for cache in caches:
        for name, value in cache.stats().items():
            if name == "last_save_error":
                total[name] = total[name] or value
            elif name == "oldest_load":
                total[name] = max((age for age in (total[name], value) if age is not None), default=None)
            else:
                total[name] = total.get(name, 0) + value
    del total["hit_rate"]
    return total

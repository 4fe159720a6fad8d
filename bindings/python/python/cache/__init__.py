"""An async cache that is never cold.

One load per key for any number of callers, batches, TTL and LRU, metrics; entries survive a deploy,
a crash and ``kill -9``, and are available again in milliseconds.

    >>> from cache import AsyncCache, DiskBackend
    >>> backup = DiskBackend("/var/cache/app/pages.cache")
    >>> cache = AsyncCache(maxsize=10_000, default_ttl=3600, backup=backup)
    >>> from cache import AsyncCache, DiskBackend
    >>> page = await cache.get("key", loader=lambda: fetch("key"))
    >>> cache.save_to_backup()
"""

from ._native import __version__
from .async_cache import AsyncCache
from .async_lru import AsyncLRU
from .async_ttl import AsyncTTL
from .backend import CacheBackend, DiskBackend
from .errors import (
    BackupError,
    CacheError,
    CacheWarning,
    LoadCancelledError,
    LoadError,
    RecursiveLoadError,
)
from .invalidators import AsyncLRUInvalidator, AsyncTTLInvalidator
from .remote import RedisBackend, RemoteCacheBackend

__all__ = [
    "AsyncCache",
    "AsyncLRU",
    "AsyncLRUInvalidator",
    "AsyncTTL",
    "AsyncTTLInvalidator",
    "BackupError",
    "CacheBackend",
    "CacheError",
    "CacheWarning",
    "DiskBackend",
    "LoadCancelledError",
    "LoadError",
    "RecursiveLoadError",
    "RedisBackend",
    "RemoteCacheBackend",
    "__version__",
]

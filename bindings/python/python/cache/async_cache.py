"""`AsyncCache`: the native cache, and the methods that need not be native."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, TypeVar

from . import _autosave, _leaving, _native, _upkeep
from ._native import Cache
from ._persistence import Persistence
from .backend import CacheBackend
from .remote import RemoteCacheBackend, attach, check_remote

C = TypeVar("C", bound="AsyncCache")

_WARMUP_AT_ONCE = 32
# Attributes of the native class for this package's own use.
_INTERNAL = frozenset(name for name in vars(Cache) if not name.startswith("_")) - {
    *("get", "set", "delete", "clear", "stats", "hits", "misses", "maxsize"),
    *("default_ttl", "batch_window_ms", "max_batch_size"),
}


class AsyncCache(Cache):
    """An in-memory cache for asyncio, kept across processes by a backup if given.

    `maxsize`: the maximum number of entries; the least recently used are evicted (``None``:
    unlimited, 0: nothing is kept). `default_ttl` in seconds (``None``: for ever). Not bound to an
    event loop: one cache serves any number of loops and threads.

    With a backup the cache can save itself, in a thread, if it has changed: every `autosave`
    seconds, after `autosave_changes` writes (checked twice a second), and with `save_at_exit` when
    the process ends, including by SIGTERM (docs/semantics.md lists the installed handlers). A
    failed save is logged and repeated; `stats()` has `autosaves`, `save_errors` and
    `last_save_error`.

    With a `remote_cache` (a `RedisBackend`) several hosts share entries, loads and invalidations.
    No failure of the remote cache reaches a caller as an exception.

    ``with`` and ``async with`` save at the end of the block, if the cache has changed since its
    last save. When the body raises, its exception leaves the block, and a failed save is a
    `CacheWarning`.
    """

    # Attributes in slots leave `__dict__` unmade. From Python 3.13 on the interpreter caches the
    # look-up of `get` only for objects without a made `__dict__`.
    __slots__ = ("__dict__", "_persistence", "backup", "remote_cache")

    def __init__(
        self,
        maxsize: int | None = 128,
        default_ttl: float | None = None,
        batch_window_ms: float = 5,
        max_batch_size: int = 100,
        backup: CacheBackend | None = None,
        remote_cache: RemoteCacheBackend | None = None,
        *,
        backend: CacheBackend | None = None,
        autosave: float | None = None,
        autosave_changes: int | None = None,
        save_at_exit: bool = False,
    ) -> None:
        check_remote(remote_cache)
        if backup is not None and backend is not None:
            raise TypeError("backup and backend are two names of one argument: give one of them")
        self._configure(maxsize, default_ttl, batch_window_ms, max_batch_size)
        self.backup = backup if backup is not None else backend
        self._persistence: Persistence | None = None
        is_saved_unasked = autosave is not None or autosave_changes is not None or save_at_exit
        if is_saved_unasked:
            _autosave.check(autosave, autosave_changes, self.backup is not None)
        self.remote_cache = remote_cache
        if remote_cache is not None:
            attach(self, remote_cache, "default")
        if self.backup is not None:
            self._persist(persistence_of(self.backup))
        if is_saved_unasked:
            self._save_unasked(autosave, autosave_changes, save_at_exit)

    def _persist(self, persistence: Persistence) -> None:
        """Opens the backup; called later by a decorator, which makes the cache before it knows the
        function.
        """
        self._persistence = persistence
        self._load(persistence)

    def _load(self, persistence: Persistence) -> None:
        had_journal = self.is_journaled()
        persistence.load(self)
        if self.is_journaled() and not had_journal:
            _upkeep.look_after(self, persistence, persistence.flush_every)

    def _save_unasked(self, every: float | None, changes: int | None, at_exit: bool) -> None:
        if self._persistence is not None:
            _autosave.plan(self, self._persistence, every, changes, at_exit)

    @property
    def cache(self) -> Entries:
        """The entries: supports `in` and `len`."""
        return Entries(self)

    def stats(self) -> dict[str, Any]:
        """All counters since the cache was made or cleared."""
        stats = super().stats()
        persistence = self._persistence
        stats["autosaves"] = 0 if persistence is None else persistence.autosaves
        stats["last_save_error"] = None if persistence is None else persistence.last_error
        return stats

    def get_metrics(self) -> dict[str, int | float]:
        """`hits`, `misses`, `size` and `hit_rate` since the cache was made or cleared."""
        stats = self.stats()
        return {name: stats[name] for name in ("hits", "misses", "size", "hit_rate")}

    async def get_many(self, keys: Iterable[Any]) -> dict[Any, Any]:
        """The values of the keys that are in memory, in the backup or in the remote cache, which is
        asked with one read. Absent keys are left out. Nothing is loaded.
        """
        values, again = await self._look_up_many(list(dict.fromkeys(keys)))
        found = await asyncio.gather(*map(self._look_up, again)) if again else ()
        for key, value in zip(again, found, strict=True):
            if value is _native.ABSENT:
                del values[key]
            else:
                values[key] = value
        return values

    async def warmup(self, keys_with_loaders: Mapping[Any, Callable[[], Awaitable[Any]]]) -> None:
        """Loads missing keys, several at a time; the first error of a loader is raised."""
        missing = iter(list(keys_with_loaders.items()))

        async def load() -> None:
            for key, loader in missing:
                await self.get(key, loader=loader)

        at_once = min(_WARMUP_AT_ONCE, len(keys_with_loaders))
        workers = [asyncio.ensure_future(load()) for _ in range(at_once)]
        try:
            await asyncio.gather(*workers)  # raises the first error at once
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    def save_to_backup(self) -> None:
        """Saves all entries to the backup. Without a backup nothing happens.

        Blocks only the caller. Raises `BackupError`, or the exception of a user's own backend; the
        old file is then unchanged.
        """
        if self._persistence is not None:
            self._persistence.save(self)

    async def save_to_backup_async(self) -> None:
        """`save_to_backup` in a thread, so that the event loop is not blocked. If cancelled, the
        save still completes.
        """
        if self._persistence is not None:
            await _leaving.save_in_thread(self, self._persistence)

    def load_from_backup(self) -> None:
        """Adds the entries of the backup that are not in the cache. Without a backup nothing
        happens.
        """
        if self._persistence is not None:
            self._load(self._persistence)

    async def flush(self) -> None:
        """Makes every write that has returned survive a power loss, if the backup has a journal;
        otherwise nothing happens. Callers at the same time share a sync, which runs in a thread.

        Raises `BackupError` if the disk has failed: then nothing since the last flush is known to
        be durable; and if the journal is not open, for example because another process has it. If
        cancelled, the sync still completes.
        """
        persistence = self._persistence
        if persistence is not None and persistence.wants_journal:
            await persistence.flush(self)

    def _flush_of_journal(self) -> Callable[[], Awaitable[None]]:
        """For ``set(..., durable=True)``: the flush that follows the write. Raises if the write
        could not be made durable.
        """
        if self._persistence is None:
            raise ValueError(
                "durable=True needs a journal: give the cache DiskBackend(path, journal=True) as its backup"
            )
        self._persistence.check_journal(self)
        return self.flush

    def __repr__(self) -> str:
        limit = "" if self.maxsize is None else f" of {self.maxsize}"
        backup = getattr(self, "backup", None)
        return f"<{type(self).__name__}: {self.size()}{limit} entries{'' if backup is None else f', {backup!r}'}>"

    def __dir__(self) -> list[str]:
        """The public names."""
        return [name for name in super().__dir__() if name not in _INTERNAL]

    def __enter__(self: C) -> C:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._persistence is not None and self._persistence.unsaved_changes(self):
            with _leaving.giving_way_to(error):
                self.save_to_backup()

    async def __aenter__(self: C) -> C:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._persistence is not None and self._persistence.unsaved_changes(self):
            with _leaving.giving_way_to(error):
                await self.save_to_backup_async()


def persistence_of(backup: CacheBackend, scope: str = "", function: Any = None) -> Persistence:
    """The backup of a cache; `scope` and `function` for the cache of a decorated function."""
    return Persistence(
        backup,
        scope,
        function,
        after_turn=_autosave.resume,
        after_save=_autosave.wake,
        collect=_upkeep.collect,
    )


class Entries:
    """A view of a cache's keys: `in` and `len`. A look-up here does not count as a use of the
    entry.
    """

    __slots__ = ("_cache",)

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def __contains__(self, key: object) -> bool:
        return self._cache.contains(key)

    def __len__(self) -> int:
        return self._cache.size()

    def __repr__(self) -> str:
        return f"<the entries of {self._cache!r}>"

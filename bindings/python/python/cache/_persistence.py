"""What a cache does with its backup: saving, loading, and who may use which file."""

from __future__ import annotations

import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import CodeType
from typing import Any, cast

from . import _autosave
from ._native import Cache
from .backend import CacheBackend, DiskBackend
from .errors import BackupError, CacheWarning

# Which cache uses which file, as long as both live. The scope tells the functions apart that cache in files.
_users: weakref.WeakValueDictionary[str, Persistence] = weakref.WeakValueDictionary()
_users_lock = threading.Lock()


class Persistence:
    """The backup of one cache.

    `scope` names the function whose results are cached, ``""`` for an `AsyncCache`: keys of one function mean nothing
    to another, so a file belongs to a scope, and its version tag says to which.
    """

    def __init__(self, backend: CacheBackend, scope: str = "", function: Any = None) -> None:
        if not isinstance(backend, CacheBackend):
            raise TypeError(
                f"a backup is a DiskBackend, or another CacheBackend, not {type(backend).__qualname__}"
            )
        self.backend = backend
        self._scope = scope
        self._function = function
        self._set_aside = False
        self._saving = threading.Lock()
        self._saver: int | None = None
        self._saved_changes = 0
        self.autosaves = 0
        self.last_error: str | None = None
        _autosave.register(self)
        # A subclass that overrides the contract's methods is called by them.
        kind = type(backend)
        self.is_native = (
            isinstance(backend, DiskBackend)
            and kind.load is DiskBackend.load
            and kind.save is DiskBackend.save
            and kind.clear is DiskBackend.clear
        )
        if isinstance(backend, DiskBackend):
            self._claim(backend)

    def _claim(self, backend: DiskBackend) -> None:
        path = os.path.realpath(backend.path)
        with _users_lock:
            other = _users.get(path)
            if other is not None and not other._is_alike(self):
                raise ValueError(
                    f"{backend.path} keeps the cache of {other._owner()} already; give {self._owner()} a file of its own"
                )
            _users[path] = self

    def _is_alike(self, other: Persistence) -> bool:
        """Whether two caches mean the same by the same key: one function, decorated twice."""
        if self._scope != other._scope:
            return False
        return _parts(self._function) == _parts(other._function)

    def _owner(self) -> str:
        return f"the function {self._scope}" if self._scope else "an AsyncCache"

    @property
    def _tag(self) -> str:
        version = cast(DiskBackend, self.backend).version
        scope = self._scope
        if len(scope.encode()) > 140:
            import hashlib

            scope = scope[:60] + "#" + hashlib.sha256(scope.encode()).hexdigest()[:32]
        return f"{version}\x1f{scope}" if scope else version

    @property
    def _merge(self) -> float | None:
        """How many seconds a save waits for that of another process; ``None`` if it does not merge."""
        backend = cast(DiskBackend, self.backend)
        return backend.lock_timeout if backend.merge else None

    def unsaved_changes(self, cache: Cache) -> int:
        """How often the cache was written to since its last save that succeeded."""
        return cache.changes() - self._saved_changes

    def save(self, cache: Cache, warn: Callable[[str], None] | None = None) -> None:
        """Saves all entries of the cache. `warn` is told of what was left out or set aside."""
        me = threading.get_ident()
        if self._saver == me:
            raise BackupError("this thread is in the middle of a save of this very cache")
        with self._saving:
            self._saver = me
            try:
                changes = cache.changes()
                self._save(cache, warn or _warn)
                self._saved_changes = changes
                self.last_error = None
            except BaseException as error:
                cache.count_save_error()
                self.last_error = f"{type(error).__qualname__}: {error}"
                raise
            finally:
                self._saver = None

    def _save(self, cache: Cache, warn: Callable[[str], None]) -> None:
        if self.is_native:
            path = Path(cast(DiskBackend, self.backend).path)
            report = cache.save_to_file(path, self._tag, True, self._set_aside, self._merge)
            self._set_aside = False
            if report["left_out"]:
                warn(
                    f"{path}: {report['left_out']} entries were not saved; the first one is {report['why_left_out']}"
                )
            if report["set_aside"] is not None:
                warn(
                    f"{path}: what stood there was not this cache, or could not be read; it is at "
                    f"{report['set_aside']} now"
                )
            return
        self.backend.save({key: (value, left) for key, value, left in cache.entries()})
        cache.count_save()

    def hold(self, patience: float) -> bool:
        """Keeps saves and loads from beginning until `release`; ``False`` if one does not end in time."""
        return self._saver != threading.get_ident() and self._saving.acquire(timeout=patience)

    def release(self) -> None:
        self._saving.release()

    def after_fork(self) -> None:
        """In the child: whoever held the lock is not there."""
        self._saving = threading.Lock()
        self._saver = None

    def load(self, cache: Cache) -> None:
        """Takes in what is in the backup and not in the cache; warns if that cannot be read."""
        with self._saving:
            try:
                if self.is_native:
                    self._open(cache)
                else:
                    self._restore(cache)
            except Exception as error:
                backend = self.backend.path if self.is_native else type(self.backend).__qualname__  # type: ignore[attr-defined]
                warnings.warn(CacheWarning(f"{backend}: {error}; the cache starts without it"), stacklevel=4)

    def _open(self, cache: Cache) -> None:
        backend = cast(DiskBackend, self.backend)
        tag = cache.tag_of_file(Path(backend.path))
        if (
            tag is not None
            and tag != self._tag
            and tag.partition("\x1f")[2] != self._tag.partition("\x1f")[2]
        ):
            owner = tag.partition("\x1f")[2]
            self._set_aside = True
            raise BackupError(
                f"the file keeps the cache of {f'the function {owner}' if owner else 'an AsyncCache'}, not of "
                f"{self._owner()}; the next save sets it aside"
            )
        cache.open_from_file(Path(backend.path), self._tag, True, self._merge)

    def _restore(self, cache: Cache) -> None:
        loaded = self.backend.load()
        if loaded is None:  # a backend that has not been written yet, as in the documentation's example
            return
        if not isinstance(loaded, Mapping):
            raise TypeError(
                f"load() returned {type(loaded).__qualname__}; it returns a dict of key to (value, deadline or None)"
            )
        now = time.monotonic()
        # The last ones are the most recently used, and each one comes in as the coldest.
        for key, (value, deadline) in reversed(list(loaded.items())):
            left = None if deadline is None else deadline - now
            if left is None or left > 0:
                cache.restore(key, value, left)


def _warn(message: str) -> None:
    warnings.warn(CacheWarning(message), stacklevel=6)


def _parts(function: Any) -> tuple[CodeType | None, Any, Any, tuple[Any, ...]]:
    """What makes a function what it does: its code, its defaults, and what it closes over."""
    code = getattr(function, "__code__", None)
    cells = getattr(function, "__closure__", None) or ()
    return (
        code,
        getattr(function, "__defaults__", None),
        getattr(function, "__kwdefaults__", None),
        tuple(id(cell.cell_contents) if _is_full(cell) else None for cell in cells),
    )


def _is_full(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True

"""A cache and its backup: saving, loading, and the ownership of files."""

from __future__ import annotations

import functools
import gc
import math
import os
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import CodeType
from typing import Any, cast

from ._flushes import Flushes
from ._forks import ForkLock
from ._native import Cache
from ._turn import Turn
from ._warn import in_words, warn
from .backend import CacheBackend, DiskBackend
from .errors import BackupError
from .key import KEY

_HOW_TO_JOURNAL = "give the cache DiskBackend(path, journal=True) as its backup"

# The caches that use each file, as long as they live. The scope distinguishes functions with
# results in files.
_users: dict[str, weakref.WeakSet[Persistence]] = {}
# Re-entrant, because the collector may run a finaliser that makes a cache while the lock is held.
_users_lock = ForkLock()


class Persistence:
    """The backup of one cache.

    `scope` names the function whose results are cached, ``""`` for an `AsyncCache`. The keys of one
    function have no meaning for another, so a file belongs to a scope, which is part of the file's
    version tag.
    """

    def __init__(
        self,
        backend: CacheBackend,
        scope: str = "",
        function: Any = None,
        *,
        after_turn: Callable[[], None],
        after_save: Callable[[], None],
        collect: Callable[[], object],
    ) -> None:
        """`after_turn` is called after every save and load, `after_save` after every save, whether
        it succeeded or not. `collect` collects dropped caches.
        """
        if not isinstance(backend, CacheBackend):
            raise TypeError(
                f"a backup is a DiskBackend, or another CacheBackend, not {type(backend).__qualname__}"
            )
        self.backend = backend
        self._scope = scope
        self._function = function
        self._after_turn = after_turn
        self._after_save = after_save
        self._collect = collect
        # The cache, if it has a journal.
        self._journaled: weakref.ref[Cache] | None = None
        # Why there is no journal although the backend has one.
        self._why_no_journal = ""
        # Whether the journal was closed, or belongs to the parent of this process.
        self.has_left_journal = False
        self._set_aside = False
        self._told_of_locks = False
        # One save or load at a time. Re-entrant, so that a thread that re-enters (in a signal
        # handler, or in a backend that calls the cache) gets an error instead of a deadlock.
        self._turn = Turn()
        # Present if there is a journal.
        self._flushes: Flushes | None = None
        # Whether the function was redefined since, and the file belongs to the new one.
        self._is_superseded = False
        # The cache's count of changes at the beginning of its last successful save.
        self._saved_changes = 0
        self._told_of_shrinking = False
        self.autosaves = 0
        self.last_error: str | None = None
        # A subclass that overrides methods of the contract is called through them.
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
        path = os.path.realpath(backend._file)
        _users_lock.run(functools.partial(self._claim_path, backend, path))

    def _claim_path(self, backend: DiskBackend, path: str) -> None:
        if self._refusal(path) is not None:
            # A dropped function may be waiting for the collector.
            gc.collect()
        refusal = self._refusal(path)
        if refusal is not None:
            raise ValueError(f"{backend.path} {refusal}")
        for other in _users.setdefault(path, weakref.WeakSet()):
            if not other._is_alike(self):
                other._supersede()
        _users[path].add(self)
        if len(_users) & (len(_users) - 1) == 0:
            for unused in [path for path, users in list(_users.items()) if not users]:
                del _users[unused]

    def _supersede(self) -> None:
        """The function was defined again: the file, with its journal, belongs to the new one."""
        self._is_superseded = True
        cache = self._journaled() if self._journaled is not None else None
        if cache is not None:
            self.has_left_journal = True
            try:
                cache.close_journal(cast(DiskBackend, self.backend).lock_timeout)
            except BackupError as error:  # nothing is lost
                warn(str(error))

    def _refusal(self, path: str) -> str | None:
        """Why this cache may not use a file that another cache uses."""
        for other in _users.get(path, ()):
            if other._is_superseded or other._is_alike(self) or other._is_defined_again_by(self):
                continue
            if other._scope and other._scope == self._scope:
                return (
                    f"keeps the cache of another function with the name {self._scope} already: one with other code, or "
                    "that closes over something else; give this one a file of its own"
                )
            return f"keeps the cache of {other._owner()} already; give {self._owner()} a file of its own"
        return None

    def _is_alike(self, other: Persistence) -> bool:
        """Whether equal keys of the two caches have the same meaning: one function, decorated
        twice.
        """
        if self._scope != other._scope:
            return False
        return _parts(self._function) == _parts(other._function)

    def _is_defined_again_by(self, other: Persistence) -> bool:
        """Whether the other function has replaced this one: a notebook cell was run again, or a
        module was reloaded. Functions inside functions do not count, because several of them may
        exist at a time.
        """
        if not self._scope or self._scope != other._scope or "<locals>" in self._scope:
            return False
        return _closed_over(self._function) == _closed_over(other._function)

    def place(self) -> str:
        """The place of the backup, for messages."""
        return self.backend.path if isinstance(self.backend, DiskBackend) else type(self.backend).__qualname__

    def _owner(self) -> str:
        return f"the function {self._scope}" if self._scope else "an AsyncCache"

    @property
    def _tag(self) -> str:
        version = cast(DiskBackend, self.backend).version
        scope = self._scope
        if len(scope.encode()) > 140:
            import hashlib

            start = scope.encode()[:60].decode(errors="ignore")
            scope = start + "#" + hashlib.sha256(scope.encode()).hexdigest()[:32]
        return f"{version}\x1f{scope}" if scope else version

    @property
    def wants_journal(self) -> bool:
        """Whether the backend has a journal, open or not."""
        return self.is_native and cast(DiskBackend, self.backend).journal

    @property
    def flush_every(self) -> float:
        """How often the journal is synced, in seconds."""
        return self.backend.flush if isinstance(self.backend, DiskBackend) else math.inf

    def keep_others_out(self, work: Callable[[], None], patience: float) -> bool:
        """Runs a function while no other thread saves or loads the cache. Returns ``False`` without
        running the function if another thread does not finish within `patience` seconds.
        """
        try:
            return self._turn.keep(work, patience)
        finally:
            self._after_turn()

    def is_held_here(self) -> bool:
        """Whether this thread is in the middle of a save or load, or prevents others."""
        return self._turn.is_mine()

    def unsaved_changes(self, cache: Cache) -> int:
        """The number of writes since the last successful save; 0 if the cache is not saved any
        more.
        """
        return 0 if self._is_superseded else cache.changes() - self._saved_changes

    def save(self, cache: Cache, tell: Callable[[str], None] = warn) -> None:
        """Saves all entries of the cache. After the save, `tell` is called with remarks about
        left-out entries and files set aside: a filter that turns warnings into errors does not make
        the save a failure.
        """
        if self._is_superseded:
            tell(f"{self._owner()} was defined again since: its results are saved by the new one only")
            return
        remarks: list[str] = []
        try:
            self._turn.take(functools.partial(self._save_in_turn, cache, remarks.append))
        finally:
            self._after_turn()
            self._after_save()
        for remark in remarks:
            tell(remark)

    def _save_in_turn(self, cache: Cache, tell: Callable[[str], None]) -> None:
        try:
            changes = cache.changes()
            self._save(cache, tell)
            self._saved_changes = changes
            self.last_error = None
        except BaseException as error:
            cache.count_save_error()
            self.last_error = in_words(error)
            raise

    def _save(self, cache: Cache, tell: Callable[[str], None]) -> None:
        if not self.is_native:
            self._hand_over(cache, tell)
            return
        if cache.is_journaled():
            cache.save_journal()
            return
        backend = cast(DiskBackend, self.backend)
        path = Path(backend._file)
        # A file put there by another function since the load is set aside too.
        set_aside = self._set_aside or self._foreign(cache) is not None
        report = cache.save_to_file(path, self._tag, backend._options, set_aside)
        self._set_aside = False
        if report["left_out"]:
            tell(
                f"{path}: {report['left_out']} entries were not saved; the first one is {report['why_left_out']}"
            )
        if report["refused"]:
            tell(
                f"{path}: {report['refused']} entries that other processes had saved there are pickled, and so were not "
                "kept, for this backend has pickle=False; give all workers the same option, or this one a path of its own"
            )
        if report["unsure"]:
            tell(
                f"{path}: {report['unsure']} entries that other processes had saved there were dropped: this process has "
                "deleted more keys since its last save than it remembers, and may have deleted these; save more often"
            )
        if report["shrunk_to"] is not None:
            self._tell_of_shrinking(tell, str(path), report["dropped"], report["shrunk_to"])
        if report["set_aside"] is not None:
            tell(
                f"{path}: what stood there was not this cache, or could not be read; it is at "
                f"{report['set_aside']} now"
            )
        if report["without_locks"] is not None and backend.merge and not self._told_of_locks:
            self._told_of_locks = True
            tell(
                f"{path}: files cannot be locked in its folder ({report['without_locks']}), so this cache saves without "
                "a lock: if several processes save to the path at the same moment, one may overwrite what another has "
                "saved; give each a path of its own, or use a file system with locks"
            )

    def _tell_of_shrinking(self, tell: Callable[[str], None], place: str, dropped: int, maxsize: int) -> None:
        """Reports once in a cache's life that entries were dropped because other caches keep more
        entries.
        """
        if not self._told_of_shrinking:
            self._told_of_shrinking = True
            tell(
                f"{place}: this save dropped {dropped} entries that were there, for maxsize is {maxsize} here, less than "
                "what others keep; give all caches of one backup the same maxsize (stats()['dropped'] counts further "
                "ones)"
            )

    def _hand_over(self, cache: Cache, tell: Callable[[str], None]) -> None:
        """Saves to a user's own backend."""
        entries, left_out = {}, []
        listed = cache.entries()
        listed.reverse()
        # One by one: dropping a million tuples at once would block an event loop for too long.
        while listed:
            key, value, left = listed.pop()
            if self._scope and isinstance(key, tuple) and isinstance(key[-1], KEY) and not key[-1].is_stable:
                left_out.append(key)
            else:
                entries[key] = (value, left)
        self.backend.save(entries)
        dropped = cache.count_save()
        if dropped:
            # A cache without a limit drops nothing.
            self._tell_of_shrinking(tell, type(self.backend).__qualname__, dropped, cache.maxsize or 0)
        if left_out:
            tell(
                f"{type(self.backend).__qualname__}: {len(left_out)} entries were not saved; the first one is "
                f"{left_out[0]!r:.200}: {left_out[0][-1].why_not_saved()}"
            )

    def load(self, cache: Cache) -> None:
        """Adds the entries of the backup that are not in the cache; warns if the backup cannot be
        read.
        """
        try:
            self._turn.take(functools.partial(self._load_in_turn, cache))
        finally:
            self._after_turn()

    def _load_in_turn(self, cache: Cache) -> None:
        try:
            if self.is_native:
                self._open(cache)
            else:
                self._restore(cache)
        except MemoryError:
            raise
        except Exception as error:
            warn(self._without_it(str(error)))

    def _without_it(self, why: str) -> str:
        """Why a load added nothing, with the path once and the consequence once."""
        places = [self.place()]
        if isinstance(self.backend, DiskBackend):
            places.append(self.backend._file)
        if not any(why.startswith(f"{place}:") for place in places):
            why = f"{places[0]}: {why}"
        return why if "the cache starts empty" in why else f"{why}; the cache starts without it"

    def _foreign(self, cache: Cache) -> str | None:
        """The scope of the file, if the file belongs to another scope."""
        backend = cast(DiskBackend, self.backend)
        tag = cache.tag_of_file(Path(backend._file), backend._options)
        if tag is None:
            return None
        scope = tag.partition("\x1f")[2]
        return None if scope == self._tag.partition("\x1f")[2] else scope

    def check_journal(self, cache: Cache) -> None:
        """Raises an exception if writes of the cache cannot be made durable: `ValueError` if the
        backend has no journal, `BackupError` if the journal is not open.
        """
        if cache.is_journaled():
            return
        if not self.wants_journal:
            raise ValueError(f"durable=True needs a journal: {_HOW_TO_JOURNAL}")
        why = self._why_no_journal or (
            "this process was forked from the one that made the cache, or has closed the journal"
        )
        raise BackupError(
            f"{self.place()}: the write would not be durable, for the journal is not open: {why}"
        )

    async def flush(self, cache: Cache) -> None:
        """Waits until every write that has returned survives a power loss."""
        self.check_journal(cache)
        if self._flushes is not None:
            await self._flushes.join(cache)

    def _open_journal(self, cache: Cache) -> bool:
        """Opens the journal if the backend has one. ``False``: the file is opened as a snapshot."""
        backend = cast(DiskBackend, self.backend)
        if cache.maxsize == 0 and backend.disk_bytes is None:
            self._why_no_journal = "the cache keeps nothing, for its maxsize is 0"
        if not backend.journal or self.has_left_journal or self._why_no_journal:
            return False
        path = Path(backend._file)
        absent = cache.open_journal(path, self._tag, backend._options)
        if absent is not None and absent[1]:
            # The journal of a dropped cache may be waiting for the collector.
            self._collect()
            absent = cache.open_journal(path, self._tag, backend._options)
        if absent is None:
            self._journaled = weakref.ref(cache)
            self._flushes = Flushes()
            return True
        self._why_no_journal = absent[0]
        warn(f"{absent[0]}; so there is no journal, and only what a save writes survives this process")
        return False

    def _open(self, cache: Cache) -> None:
        backend = cast(DiskBackend, self.backend)
        if cache.is_journaled():
            return
        self._set_aside = False
        owner = self._foreign(cache)
        if owner is not None:
            self._set_aside = True
            # After the file is set aside, others may save to the path too.
            cache.share_file(Path(backend._file), self._tag, backend._options)
            raise BackupError(
                f"the file keeps the cache of {f'the function {owner}' if owner else 'an AsyncCache'}, not of "
                f"{self._owner()}; the next save sets it aside"
            )
        if self._open_journal(cache):
            return
        cache.open_from_file(Path(backend._file), self._tag, backend._options)

    def _restore(self, cache: Cache) -> None:
        loaded = self.backend.load()
        if loaded is None:  # a backend not written yet, as in the documentation's example
            return
        if not isinstance(loaded, Mapping):
            raise TypeError(
                f"load() returned {type(loaded).__qualname__}; it returns a dict of key to (value, deadline or None)"
            )
        now = time.monotonic()
        no_room = 0
        refused: list[str] = []
        # The last entries are the most recently used, and each entry is added as the coldest.
        listed, count = list(loaded.items()), len(loaded)
        while listed:
            key, entry = listed.pop()
            try:
                value, left = _entry(entry, now)
                if left is None or left > 0:
                    no_room += not cache.restore(key, value, left) and not cache.contains(key)
            except MemoryError:
                raise
            except Exception as error:
                refused.append(f"{key!r:.200}: {error}")
        cache.count_no_room(no_room)
        if refused:
            warn(
                f"{type(self.backend).__qualname__}: {len(refused)} of {count} entries could not be taken in; the "
                f"first one is {refused[-1]}"
            )


def _entry(entry: Any, now: float) -> tuple[Any, float | None]:
    """Value and seconds left of a loaded entry."""
    if not isinstance(entry, tuple | list) or len(entry) != 2:
        raise TypeError(f"load() returns (value, deadline or None) for each key, not {entry!r:.200}")
    value, deadline = entry
    if deadline is None or deadline == math.inf:
        return value, None
    return value, deadline - now


def _parts(function: Any) -> tuple[CodeType | None, Any, Any, tuple[Any, ...]]:
    """The parts that determine a function's behaviour: its code, its defaults, and the contents of
    its closure. (The objects of methods and the arguments of partials are in its scope.)
    """
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    cells = getattr(function, "__closure__", None) or ()
    return (
        code,
        getattr(function, "__defaults__", None),
        getattr(function, "__kwdefaults__", None),
        tuple(id(cell.cell_contents) if _is_full(cell) else None for cell in cells),
    )


def _closed_over(function: Any) -> dict[str, int | None]:
    """The contents of a function's closure, except its own class, which differs each time."""
    code, _, _, contents = _parts(function)
    names = code.co_freevars if code is not None else ()
    return {name: content for name, content in zip(names, contents, strict=True) if name != "__class__"}


def _is_full(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True

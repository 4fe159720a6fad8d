"""Automatic saves: one thread per process serves all caches made with `autosave` or
`autosave_changes`.

Rules:

1. A cache is saved if it has changed since its last save (by any caller of the save), and its time
   has come or it has changed often enough. An unchanged cache is not saved.
2. A failed save is logged and repeated, after one second, two, four and so on up to a minute, as
   long as the cache lives and has something to save. `stats()` reports the failure. Whatever
   exception one cache's save raises, the other caches are saved.
3. The thread is a `Worker`. A save takes the interpreter's lock for slices of half a millisecond.
4. When the process ends, running saves are waited for, for at most `_PATIENCE` in total, and caches
   made with `save_at_exit` are saved once more; other caches are not. A cache that cannot be saved
   then is logged. The ways in which a process ends, and the place that handles each:

   - the interpreter ends (a return, `sys.exit`, an exception, Ctrl-C): `atexit`;
   - a child of multiprocessing ends, which skips `atexit`: `_children`;
   - SIGTERM: `_signals`;
   - SIGKILL, `os._exit`: nowhere, and nothing is saved.
5. A fork waits for the saves and loads of this process to end (`_forks`), so that the child has
   neither a lock that no thread will release nor a file locked on behalf of its parent. The child
   has a thread of its own. At its end it saves a cache only if it has changed the cache itself:
   inherited changes belong to the parent.
"""

from __future__ import annotations

import atexit
import functools
import logging
import math
import os
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from ._children import Children
from ._forks import PATIENCE
from ._signals import Signals
from ._warn import in_words
from ._worker import Worker
from .errors import CacheError

if TYPE_CHECKING:
    from ._native import Cache
    from ._persistence import Persistence

_log = logging.getLogger("cache")

_LOOK_EVERY = 0.5  # seconds, if changes are counted: a change is not reported
_LONGEST_PAUSE = 60.0  # seconds between attempts of a failing save
_PATIENCE = PATIENCE  # seconds for which an exit waits for running saves, in total


class Plan:
    """When one cache is to be saved. Gets the time and the result of each save; knows no clock and
    no thread.
    """

    def __init__(
        self,
        cache: Cache,
        persistence: Persistence,
        every: float | None,
        changes: int | None,
        at_exit: bool,
        now: float,
    ) -> None:
        self._cache = weakref.ref(cache)
        self._persistence = persistence
        self._every = every
        self._changes = changes
        self._at_exit = at_exit
        self._failures = 0
        self._due = math.inf if every is None else now + every
        self._not_before = now
        # The cache's count of changes at the fork that made this process.
        self._inherited_changes: int | None = None

    def is_dead(self) -> bool:
        return self._cache() is None

    def look(self, now: float) -> float:
        """Saves the cache if its time has come. Returns when to look again, on the same clock."""
        cache = self._cache()
        if cache is None:
            return math.inf
        if now >= self._not_before:
            unsaved = self._persistence.unsaved_changes(cache)
            is_time = (
                now >= self._due or (self._changes is not None and unsaved >= self._changes) or self._failures
            )
            if not unsaved:
                self._failures = 0
            if unsaved and is_time:
                self._save(cache, now)
            elif now >= self._due and self._every is not None:
                self._due = now + self._every
        look = math.inf if self._changes is None else now + _LOOK_EVERY
        return max(min(look, self._not_before if self._failures else self._due), self._not_before)

    def _save(self, cache: Cache, now: float) -> None:
        if self._every is not None:
            self._due = now + self._every
        try:
            self._persistence.save(cache, _log.warning)
        except BaseException as error:  # would end the thread, which serves other caches too
            self._not_before = now + min(2.0**self._failures, _LONGEST_PAUSE)
            self._failures += 1
            pause = self._not_before - now
            _log.warning("a cache could not be saved, and will be again in %g s: %s", pause, _say(error))
        else:
            self._failures = 0
            self._persistence.autosaves += 1

    def exit(self, patience: float) -> None:
        """Saves the cache a last time, if requested. Waits for a running save for `patience`
        seconds.
        """
        cache = self._cache()
        if cache is None or not self._persistence.unsaved_changes(cache):
            return
        if cache.changes() == self._inherited_changes:  # Rule 5.
            return
        try:
            if not self._persistence.keep_others_out(functools.partial(self._save_last, cache), patience):
                _log.warning(
                    "%s: the process ends while a save to it has not: what was written since the one before is lost",
                    self._persistence.place(),
                )
        except BaseException as error:  # would end the last saves of other caches
            _log.warning("a cache could not be saved at exit: %s", _say(error))

    def _save_last(self, cache: Cache) -> None:
        if self._at_exit:
            self._persistence.save(cache, _log.warning)

    def is_saving_here(self) -> bool:
        """Whether the running thread is in the middle of a save or load of the cache."""
        return self._persistence.is_held_here()

    def after_fork(self) -> None:
        """Called in a forked child: the changes so far were made by the parent."""
        cache = self._cache()
        if cache is not None:
            self._inherited_changes = cache.changes()


class Saver(Worker[Plan]):
    """The thread, and its plans."""

    def __init__(self) -> None:
        super().__init__("cache autosave", "caches are not saved unasked")
        self.signals = Signals(self.save_at_last, self._is_saving_here)
        self.children = Children(self.exit)
        # Called after the last saves with the rest of the patience; `_upkeep` adds a function.
        self.after_saves: list[Callable[[float], None]] = []

    def _look_also(self, now: float) -> float:
        return self.signals.look(now)

    def exit(self, is_last: bool = True) -> None:
        self.save_at_last(self.end(_PATIENCE), is_last)

    def save_at_last(self, patience: float, is_last: bool) -> None:
        """Saves the caches with `save_at_exit` at the end of the process.

        Waits for running saves for `patience` seconds in total. `is_last`: the process certainly
        ends.
        """
        deadline = time.monotonic() + patience
        for plan in list(self._plans):
            plan.exit(max(0.0, deadline - time.monotonic()))
        if is_last:
            for work in self.after_saves:
                work(max(0.0, deadline - time.monotonic()))

    def _is_saving_here(self) -> bool:
        return any(plan.is_saving_here() for plan in list(self._plans))

    def after_fork(self) -> None:
        # Before the thread starts, which looks at the signals at once.
        self.signals.after_fork()
        self.children.after_fork()
        super().after_fork()


_saver = Saver()


def arm(after_saves: Callable[[float], None]) -> None:
    """Calls a function at the end of the process, after the last saves."""
    if after_saves not in _saver.after_saves:
        _saver.after_saves.append(after_saves)
    _saver.signals.arm()
    _saver.children.arm()


def look_at_signals(now: float) -> float:
    """For a thread that runs if no cache is saved unasked. Returns when to look again."""
    return _saver.signals.look(now)


def plan(
    cache: Cache, persistence: Persistence, every: float | None, changes: int | None, at_exit: bool
) -> None:
    """Registers a cache for automatic saves."""
    _saver.add(Plan(cache, persistence, every, changes, at_exit, time.monotonic()))
    if at_exit:
        _saver.signals.arm()
        _saver.children.arm()


def check(every: float | None, changes: int | None, has_backup: bool) -> None:
    """Checks the arguments with these names."""
    if every is not None and not (isinstance(every, (int, float)) and 0 < every < 1e9):
        raise ValueError(f"autosave is a number of seconds above 0, or None, not {every!r}")
    if changes is not None and not (isinstance(changes, int) and changes > 0):
        raise ValueError(f"autosave_changes is a number of changes, 1 or more, or None, not {changes!r}")
    if not has_backup:
        raise ValueError("autosave, autosave_changes and save_at_exit need a backup to save to: give one")


def wake() -> None:
    """Called after every save of a cache, because the thread may have been unable to start
    before.
    """
    _saver.wake()


def resume() -> None:
    """Called after every save or load of a cache, in the same thread."""
    _saver.signals.resume()


def _say(error: BaseException) -> str:
    return str(error) if isinstance(error, CacheError) else in_words(error)


atexit.register(_saver.exit)
if hasattr(os, "register_at_fork"):
    # After `_forks` has renewed the locks: `_forks` is imported first.
    os.register_at_fork(after_in_child=_saver.after_fork)

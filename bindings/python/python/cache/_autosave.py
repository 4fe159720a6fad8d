"""Saving unasked: one thread per process looks after all caches that were made with `autosave` or `autosave_changes`.

Rules:

1. A cache is saved when it has changed since its last save, by whomever, and its time has come or it has changed often
   enough. What has not changed is not saved.
2. A save that fails is logged and tried again, after one second, two, four and so on up to a minute, as long as the cache
   lives. `stats()` tells of it.
3. The thread holds no cache alive, is a daemon, and starts with the first cache that needs it. No event loop is
   involved: a save takes the interpreter's lock for slices of half a millisecond.
4. When the interpreter ends, a save that runs is waited for, and caches made with `save_at_exit` are saved once more;
   others are not.
5. A fork waits for the saves and loads of this process to end, so that the child has neither a lock that nobody will
   release nor a file that is locked on behalf of its parent. The child has a thread of its own.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING

from .errors import CacheError

if TYPE_CHECKING:
    from ._persistence import Persistence
    from .async_cache import AsyncCache

_log = logging.getLogger("cache")

_LOOK_EVERY = 0.5  # seconds, where changes are counted: nothing calls when one happens
_LONGEST_PAUSE = 60.0  # seconds between tries of a save that fails
_PATIENCE = 10.0  # seconds for which an exit or a fork waits for a save


class Plan:
    """When one cache is to be saved. Asked with the time, and told what came of it; knows no clock and no thread."""

    def __init__(
        self,
        cache: AsyncCache,
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

    def is_dead(self) -> bool:
        return self._cache() is None

    def look(self, now: float) -> float:
        """Saves the cache if it is time to. When to look again, on the same clock."""
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

    def _save(self, cache: AsyncCache, now: float) -> None:
        if self._every is not None:
            self._due = now + self._every
        try:
            self._persistence.save(cache, _log.warning)
        except BaseException as error:  # also what would end the thread, which serves other caches, too
            self._not_before = now + min(2.0**self._failures, _LONGEST_PAUSE)
            self._failures += 1
            pause = self._not_before - now
            _log.warning("a cache could not be saved, and will be again in %g s: %s", pause, _say(error))
        else:
            self._failures = 0
            self._persistence.autosaves += 1

    def exit(self) -> None:
        """Saves the cache a last time, if that was asked for."""
        cache = self._cache()
        if cache is None or not self._at_exit or not self._persistence.unsaved_changes(cache):
            return
        try:
            self._persistence.save(cache, _log.warning)
        except Exception as error:
            _log.warning("a cache could not be saved at exit: %s", _say(error))


class Saver:
    """The thread, and the plans that it follows."""

    def __init__(self) -> None:
        self._plans: list[Plan] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._ended = False

    def add(self, plan: Plan) -> None:
        with self._changed:
            self._plans.append(plan)
            self._start()
            self._changed.notify()

    def _start(self) -> None:
        if not self._ended and (self._thread is None or not self._thread.is_alive()):
            thread = threading.Thread(target=self._run, name="cache autosave", daemon=True)
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        me = threading.current_thread()
        while True:
            with self._changed:
                self._plans = [plan for plan in self._plans if not plan.is_dead()]
                plans = list(self._plans)
                if not plans:
                    self._thread = None
                if self._thread is not me or self._ended:
                    return
            look = min(plan.look(time.monotonic()) for plan in plans)
            del plans
            with self._changed:
                left = look - time.monotonic()
                if left > 0 and not self._ended:
                    # So that the plans of caches that are gone go, too.
                    self._changed.wait(min(left, 60.0))

    def exit(self) -> None:
        with self._changed:
            self._ended = True
            thread = self._thread
            self._changed.notify_all()
        if thread is not None:
            thread.join(_PATIENCE)
        for plan in self._plans:
            plan.exit()

    def after_fork(self) -> None:
        self._changed = threading.Condition()
        self._thread = None
        if self._plans:
            with self._changed:
                self._start()


_saver = Saver()
# Which backups there are, so that a fork can wait for what they do.
_persistences: weakref.WeakSet[Persistence] = weakref.WeakSet()
_held: list[Persistence] = []


def plan(
    cache: AsyncCache, persistence: Persistence, every: float | None, changes: int | None, at_exit: bool
) -> None:
    """Has a cache saved from now on."""
    _saver.add(Plan(cache, persistence, every, changes, at_exit, time.monotonic()))


def check(every: float | None, changes: int | None, has_backup: bool) -> None:
    """Says what is wrong with the arguments of these names."""
    if every is not None and not (isinstance(every, (int, float)) and 0 < every < 1e9):
        raise ValueError(f"autosave is a number of seconds above 0, or None, not {every!r}")
    if changes is not None and not (isinstance(changes, int) and changes > 0):
        raise ValueError(f"autosave_changes is a number of changes, 1 or more, or None, not {changes!r}")
    if not has_backup:
        raise ValueError("autosave, autosave_changes and save_at_exit need a backup to save to: give one")


def register(persistence: Persistence) -> None:
    """Has forks wait for what this one does."""
    _persistences.add(persistence)


def _say(error: BaseException) -> str:
    return str(error) if isinstance(error, CacheError) else f"{type(error).__qualname__}: {error}"


def _before_fork() -> None:
    # In one order, so that two threads that fork do not wait for each other.
    for persistence in sorted(_persistences, key=id):
        if persistence.hold(_PATIENCE):
            _held.append(persistence)


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().release()


def _after_fork_in_child() -> None:
    _after_fork_in_parent()
    for persistence in _persistences:
        persistence.after_fork()
    _saver.after_fork()


atexit.register(_saver.exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )

"""Automatic saves: one thread per process serves all caches made with `autosave` or
`autosave_changes`.

Rules:

1. A cache is saved if it has changed since its last save (by any caller of the save), and its time
   has come or it has changed often enough. An unchanged cache is not saved.
2. A failed save is logged and repeated, after one second, two, four and so on up to a minute, as
   long as the cache lives and has something to save. `stats()` reports the failure. Whatever
   exception one cache's save raises, the other caches are saved.
3. The thread keeps no cache alive, is a daemon, and starts with the first cache that needs it. If
   it cannot start, the failure is logged, and the start is repeated with the next cache, the next
   save by hand, and in a forked child. No event loop is involved: a save takes the interpreter's
   lock for slices of half a millisecond.
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
import contextlib
import functools
import logging
import math
import os
import queue
import threading
import time
import weakref
from typing import TYPE_CHECKING

from ._children import Children
from ._forks import PATIENCE, run_holding
from ._signals import Signals
from ._warn import in_words
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


class Saver:
    """The thread, and its plans."""

    def __init__(self) -> None:
        self.signals = Signals(self.save_at_last, self._is_saving_here)
        self.children = Children(self.exit)
        self._plans: list[Plan] = []
        # Held while the plans or the thread change. The main thread takes the lock by
        # `run_holding`, so that an interrupt leaves the lock free.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        # Receives an item whenever the thread must look at the plans. A queue written in C, because
        # the locks of a Python queue may be left taken by an interrupt.
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()
        # Whether the log already reports that the thread cannot start.
        self._is_missing = False
        self._ended = False

    def add(self, plan: Plan) -> None:
        run_holding(self._lock, functools.partial(self._add, plan))

    def _add(self, plan: Plan) -> None:
        self._plans.append(plan)
        self._news.put(None)
        self._start()

    def wake(self) -> None:
        """Starts the thread if there are plans but no thread."""
        if self._plans and not self._is_there():
            run_holding(self._lock, self._start)

    def _is_there(self) -> bool:
        thread = self._thread
        return thread is not None and thread.is_alive()

    def _start(self) -> None:
        if self._ended or self._is_there():
            return
        self._thread = threading.Thread(target=self._run, name="cache autosave", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # too many threads, or the interpreter is about to end
            was_missing, self._is_missing = self._is_missing, True
            if not was_missing:
                _log.warning("caches are not saved unasked until a thread can be started for it: %s", error)
        else:
            self._is_missing = False

    def _run(self) -> None:
        me = threading.current_thread()
        while True:
            try:
                if run_holding(self._lock, functools.partial(self._is_over, me)):
                    return
                self._look()
            except BaseException:
                # Raised by the log, or a lack of memory. Nothing can be reported, but the caches
                # must still be saved; not at once, in case the exception is raised every time.
                time.sleep(_LOOK_EVERY)

    def _is_over(self, thread: threading.Thread) -> bool:
        """Whether the thread must end: no cache needs saving, or another thread has taken over."""
        self._plans = [plan for plan in self._plans if not plan.is_dead()]
        if not self._plans:
            self._thread = None
        return self._thread is not thread or self._ended

    def _look(self) -> None:
        """Looks at every plan, and waits until it is time to look again."""
        # Limited, so that the plans of dropped caches are removed.
        look = time.monotonic() + _LONGEST_PAUSE
        for plan in list(self._plans):
            try:
                look = min(look, plan.look(time.monotonic()))
            except BaseException:
                # Raised by the log; the other caches must be saved.
                continue
            finally:
                del plan
        look = min(look, self.signals.look(time.monotonic()))
        news = self._news
        with contextlib.suppress(queue.Empty):
            news.get(timeout=max(0.0, look - time.monotonic()))
            while True:
                news.get_nowait()

    def exit(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        self._ended = True
        thread = self._thread
        self._news.put(None)
        try:
            if thread is not None and thread.is_alive():
                thread.join(_PATIENCE)
        except KeyboardInterrupt:  # the user does not want to wait any longer
            deadline = time.monotonic()
        self.save_at_last(deadline - time.monotonic())

    def save_at_last(self, patience: float) -> None:
        """Saves the caches with `save_at_exit` at the end of the process.

        Waits for running saves for `patience` seconds in total.
        """
        deadline = time.monotonic() + patience
        for plan in list(self._plans):
            plan.exit(max(0.0, deadline - time.monotonic()))

    def _is_saving_here(self) -> bool:
        return any(plan.is_saving_here() for plan in list(self._plans))

    def after_fork(self) -> None:
        self._lock = threading.RLock()
        self._news = queue.SimpleQueue()
        self._thread = None
        for plan in self._plans:
            plan.after_fork()
        self.signals.after_fork()
        self.children.after_fork()
        if self._plans:
            self._start()


_saver = Saver()


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

"""The upkeep of journals: one thread per process serves all caches with a journal.

Rules:

1. The thread syncs a journal every `flush` seconds if there is something to sync, and then does a
   step of the other work (indexes, collections) with the interpreter's lock released. More work
   takes a tenth of a core. Failures are counted in ``stats()["write_errors"]``; the first one is
   logged.
2. At the end of the process the journals are closed after the last saves: the entries of a small
   cache are then in its file, and the folder of the journal is gone. `_autosave` lists the ends,
   and tells which of them certainly are the last. Every other end loses nothing either: the next
   opening reads the journal as the process left it.
3. A cache that is dropped does not close its journal, because the collector must not wait for a
   disk. The path can be opened again at once; the opening reads the journal.
4. A forked child leaves the journals that its parent has opened.
"""

from __future__ import annotations

import atexit
import functools
import gc
import logging
import math
import os
import time
import weakref
from typing import TYPE_CHECKING

from . import _autosave
from ._forks import PATIENCE, ForkLock
from ._warn import in_words
from ._worker import Worker
from .errors import CacheError

if TYPE_CHECKING:
    from ._native import Cache
    from ._persistence import Persistence

_log = logging.getLogger("cache")

# Held during a step: the thread refers to the cache strongly then.
_step = ForkLock()


class JournalPlan:
    """When the journal of one cache needs the thread. Knows no clock and no thread."""

    def __init__(self, cache: Cache, persistence: Persistence, every: float, now: float) -> None:
        self._cache = weakref.ref(cache)
        self._persistence = persistence
        self._every = every
        self._due = now + every
        self._is_over = False

    def is_dead(self) -> bool:
        return self._is_over or self._cache() is None

    def look(self, now: float) -> float:
        """Does a step if it is due. Returns when the next step is due, on the same clock."""
        if now >= self._due:
            pause = _step.run(self._tend)
            self._due = now + self._every if pause is None else time.monotonic() + min(pause, self._every)
        return math.inf if self._is_over else self._due

    def _tend(self) -> float | None:
        cache = self._cache()
        if cache is None or not cache.is_journaled():
            self._is_over = True
            return None
        return cache.tend_journal(self._every)

    def close(self, patience: float) -> None:
        """Closes the journal at the end of the process. Waits for a running save for `patience`
        seconds.
        """
        cache = self._cache()
        if cache is None or not cache.is_journaled():
            return
        try:
            if not self._persistence.keep_others_out(functools.partial(_close, cache, patience), patience):
                _log.warning(
                    "%s: the process ends during a save, and its journal is not closed; nothing is lost",
                    self._persistence.place(),
                )
        except BaseException as error:  # would keep the journals of other caches open
            said = str(error) if isinstance(error, CacheError) else in_words(error)
            _log.warning("a journal could not be closed; nothing is lost: %s", said)

    def after_fork(self) -> None:
        """Rule 4."""
        cache = self._cache()
        if cache is not None:
            cache.leave_journal()
        self._persistence.has_left_journal = True
        self._is_over = True


class Keeper(Worker[JournalPlan]):
    """The thread, and its plans."""

    def __init__(self) -> None:
        super().__init__("cache journal", "journals are not synced unasked")

    def _look_also(self, now: float) -> float:
        return _autosave.look_at_signals(now)

    def close_all(self, patience: float) -> None:
        """Rule 2. Waits for running saves for `patience` seconds in total."""
        deadline = time.monotonic() + patience
        for plan in list(self._plans):
            plan.close(max(0.0, deadline - time.monotonic()))


def _close(cache: Cache, patience: float) -> None:
    cache.close_journal(patience)


_keeper = Keeper()


def look_after(cache: Cache, persistence: Persistence, every: float) -> None:
    """Looks after the journal of a cache, until the cache is dropped."""
    _keeper.add(JournalPlan(cache, persistence, every, time.monotonic()))
    _autosave.arm(_keeper.close_all)


def collect() -> None:
    """Lets the collector find dropped caches, while the thread refers to none."""
    _step.run(gc.collect)


# Before the last saves: functions registered later are called earlier.
atexit.register(_keeper.end, PATIENCE)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keeper.after_fork)

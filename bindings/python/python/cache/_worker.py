"""A thread that looks at caches again and again: to save them (`_autosave`), or to look after their
journals (`_upkeep`).

Rules:

1. The thread keeps no cache alive, is a daemon, and starts with the first cache that needs it. If
   it cannot start, the failure is logged, and the start is repeated with the next cache, the next
   save by hand, and in a forked child. No event loop is involved.
2. Whatever exception the look at one cache raises, the thread looks at the others.
3. A forked child has a thread of its own.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import threading
import time
from typing import Generic, Protocol, TypeVar

from ._forks import run_holding

_log = logging.getLogger("cache")

_AFTER_AN_ERROR = 0.5  # seconds
_LONGEST_PAUSE = 60.0  # seconds; limited, so that the plans of dropped caches are removed


class WorkerPlan(Protocol):
    """When the thread looks at one cache. Times are those of `time.monotonic`."""

    def is_dead(self) -> bool:
        """Whether the cache needs the thread no more."""

    def look(self, now: float) -> float:
        """Does what has to be done now. Returns when to look again."""

    def after_fork(self) -> None:
        """Called in a forked child."""


P = TypeVar("P", bound=WorkerPlan)


class Worker(Generic[P]):
    """The thread, and its plans. `name` is the thread's, `complaint` the start of the message if
    the thread cannot start.
    """

    def __init__(self, name: str, complaint: str) -> None:
        self._name = name
        self._complaint = complaint
        self._plans: list[P] = []
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

    def add(self, plan: P) -> None:
        run_holding(self._lock, functools.partial(self._add, plan))

    def _add(self, plan: P) -> None:
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
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # too many threads, or the interpreter is about to end
            was_missing, self._is_missing = self._is_missing, True
            if not was_missing:
                _log.warning("%s until a thread can be started for it: %s", self._complaint, error)
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
                # Raised by the log, or a lack of memory. Nothing can be reported, but the work must
                # go on; not at once, in case the exception is raised every time.
                time.sleep(_AFTER_AN_ERROR)

    def _is_over(self, thread: threading.Thread) -> bool:
        """Whether the thread must end: no cache needs it, or another thread has taken over."""
        self._plans = [plan for plan in self._plans if not plan.is_dead()]
        if not self._plans:
            self._thread = None
        return self._thread is not thread or self._ended

    def _look(self) -> None:
        """Looks at every plan, and waits until it is time to look again."""
        look = time.monotonic() + _LONGEST_PAUSE
        for plan in list(self._plans):
            try:
                look = min(look, plan.look(time.monotonic()))
            except BaseException:
                # Raised by the log; the thread must look at the other caches.
                continue
            finally:
                del plan
        look = min(look, self._look_also(time.monotonic()))
        news = self._news
        with contextlib.suppress(queue.Empty):
            news.get(timeout=max(0.0, look - time.monotonic()))
            while True:
                news.get_nowait()

    def _look_also(self, now: float) -> float:
        """More work of the thread. Returns when to look again."""
        return now + _LONGEST_PAUSE

    def end(self, patience: float) -> float:
        """Ends the thread, waiting for its present look. Returns the rest of the patience."""
        deadline = time.monotonic() + patience
        self._ended = True
        thread = self._thread
        self._news.put(None)
        try:
            if thread is not None and thread.is_alive():
                thread.join(patience)
        except KeyboardInterrupt:  # the user does not want to wait any longer
            return 0.0
        return max(0.0, deadline - time.monotonic())

    def after_fork(self) -> None:
        self._lock = threading.RLock()
        self._news = queue.SimpleQueue()
        self._thread = None
        for plan in self._plans:
            plan.after_fork()
        self._plans = [plan for plan in self._plans if not plan.is_dead()]
        if self._plans:
            self._start()

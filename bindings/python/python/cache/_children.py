"""Children of multiprocessing: they end by `os._exit`, which skips `atexit` but follows
multiprocessing's own finalizers.

Rules:

1. A child with caches to save at its end has a finalizer of multiprocessing. The finalizer runs
   when the child's function returns, raises or exits. A child that is killed, or calls `os._exit`
   itself, saves nothing, like any process.
2. multiprocessing drops all finalizers when a child begins, and then calls the functions registered
   to run after a fork. The finalizer is made there.
3. A non-daemon thread of the child continues after the finalizers. Its writes are saved when the
   thread has ended.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any


class Children:
    """The finalizer of this process, if the process is a child of multiprocessing. `save` saves its
    caches; its argument is whether no thread writes any more.
    """

    def __init__(self, save: Callable[[bool], None]) -> None:
        self._save = save
        self._is_wanted = False
        # Whether multiprocessing calls `arm` in children. Children inherit both the registration
        # and the flag.
        self._is_registered = False
        self._finalizer: Any = None
        self._pid = 0  # of the process that the finalizer is for

    def arm(self) -> None:
        """Arranges the last save if this process is, or is about to become, a child of
        multiprocessing.
        """
        self._is_wanted = True
        # A child has imported both modules, and so has the forking process.
        process = sys.modules.get("multiprocessing.process")
        util = sys.modules.get("multiprocessing.util")
        if process is None or util is None:
            return
        if not self._is_registered:
            # Rule 2. The child of a fork server imports the program before multiprocessing makes it
            # a child.
            util.register_after_fork(self, Children.arm)
            self._is_registered = True
        if process.parent_process() is None or (self._pid == os.getpid() and self._finalizer.still_active()):
            return
        # Below 0: after the child's own children have been joined, and after the finalizers of
        # other modules.
        self._finalizer = util.Finalize(None, self._end, exitpriority=-100)
        self._pid = os.getpid()

    def after_fork(self) -> None:
        """For every forked child, of multiprocessing or not."""
        if self._is_wanted:
            self.arm()

    def _end(self) -> None:
        # Rule 3. Threads of executors end only when the interpreter waits for all threads, which is
        # the next step. So an additional thread, for which the interpreter waits too, waits for
        # them.
        others = [thread for thread in threading.enumerate() if not thread.daemon and thread is not _me()]
        self._save(not others)
        if others:
            try:
                threading.Thread(target=self._wait_and_save, args=(others,), name="cache exit").start()
            except RuntimeError:  # no more threads: later writes are not saved
                return

    def _wait_and_save(self, threads: list[threading.Thread]) -> None:
        for thread in threads:
            thread.join()
        self._save(True)


def _me() -> threading.Thread:
    return threading.current_thread()

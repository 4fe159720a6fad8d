"""Signals that stop services: caches with `save_at_exit` are saved before a signal ends the
process.

A signal with the default action ends a process without running any more Python code. A server that
shuts down in good order restores that action afterwards: always for SIGTERM, and for SIGINT if the
server has removed Python's own handler (gunicorn's uvicorn workers). So this module installs a
handler. Rules:

1. The handler is installed only where a signal has its default action. If the program has installed
   a handler, or installs a handler later, the program's handler stays. Only the main thread can
   install a handler; other threads let the main thread do so.
2. The signal is never swallowed. After the save the default action is restored and the signal is
   raised again. If the process does not die of the signal (the first process of a container does
   not), it continues, and the handler is installed again.
3. The handler runs between any two lines of the main thread, which may hold any lock. So the save
   runs in a thread of its own, and the handler waits for the thread for `PATIENCE`.
4. If the main thread is in the middle of a save or load, the signal is put off until the save or
   load has ended, because no other thread could end it. A second signal ends the process at once.
5. uvicorn has handlers of its own while serving. After its shutdown uvicorn restores the previous
   handlers and raises the signal again. If the cache was made only after uvicorn had installed its
   handlers (`--workers`, `--reload`, a cache made in the lifespan), the previous handlers are the
   default action. Then the caches are saved at the end of the server's `shutdown`.
6. A server may reset signals in a forked worker. In the first minute of a forked process the thread
   of `_autosave` checks several times whether the handler must be installed.
"""

from __future__ import annotations

import _thread
import functools
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from . import _native
from ._forks import PATIENCE

_log = logging.getLogger("cache")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_FIRST_PAUSE = 0.01  # seconds after a fork; doubled with every check
_LAST_PAUSE = 32.0


class Signals:
    """The handler.

    `save` saves the caches at the end of the process; its arguments are the number of seconds to
    wait for saves of other threads, and whether the process certainly ends. `is_busy` returns
    whether the running thread is in the middle of a save or load.
    """

    def __init__(self, save: Callable[[float, bool], None], is_busy: Callable[[], bool]) -> None:
        self._save = save
        self._is_busy = is_busy
        self._is_wanted = False
        # The signal that was received, if the process has not died of it yet.
        self._ending: int | None = None
        self._is_put_off = False
        # When to check again after a fork, and how long to wait after the next check.
        self._look = math.inf
        self._pause = _FIRST_PAUSE

    def arm(self) -> bool:
        """Arranges the last save for signals that the program does not handle itself.

        Returns whether the save is arranged.
        """
        self._is_wanted = True
        return all([self._arm(one) for one in _SIGNALS])

    def _arm(self, signum: int) -> bool:
        handler = signal.getsignal(signum)
        # Python's own handler raises `KeyboardInterrupt`, and the interpreter ends.
        if handler in (self._handle, signal.default_int_handler):
            return True
        server = _uvicorn_server(handler)
        if server is not None:
            self._follow(server)
            return True
        if handler is not signal.SIG_DFL:  # Rule 1.
            return False
        if threading.current_thread() is threading.main_thread():
            return self._install(signum)
        _native.call_in_main_thread(functools.partial(self._install, signum))
        return False

    def _install(self, signum: int) -> bool:
        if signal.getsignal(signum) is not signal.SIG_DFL:
            return False
        try:
            signal.signal(signum, self._handle)
        except ValueError:  # not in the main interpreter
            return False
        return True

    def look(self, now: float) -> float:
        """Checks after a fork whether the handler is still installed (rule 6). Returns when to
        check again.
        """
        if now >= self._look:
            is_over = self.arm() or self._pause > _LAST_PAUSE
            self._look = math.inf if is_over else now + self._pause
            self._pause *= 2
        return self._look

    def after_fork(self) -> None:
        """Called in a forked child."""
        self._ending, self._is_put_off = None, False
        self._pause = _FIRST_PAUSE
        self._look = time.monotonic() + self._pause if self._is_wanted else math.inf

    def resume(self) -> None:
        """Called when a save or load has ended: ends the process now if a signal was put off."""
        if self._ending is None or not self._is_put_off:
            return
        if threading.current_thread() is threading.main_thread() and not self._is_busy():
            self._is_put_off = False
            self._end(self._ending)

    def _handle(self, signum: int, frame: Any) -> None:
        if self._ending is not None:
            self._die(signum)
            return
        self._ending = signum
        if self._is_busy():  # Rule 4.
            self._is_put_off = True
            return
        self._end(signum)

    def _end(self, signum: int) -> None:
        try:
            # The first process of a container does not die (rule 2).
            self._save_within(PATIENCE, os.getpid() != 1)
        finally:
            self._die(signum)

    def _save_within(self, patience: float, is_last: bool) -> None:
        """Saves in a thread, and waits for the thread for `patience` seconds (rule 3)."""
        ended = _thread.allocate_lock()
        ended.acquire()

        def save() -> None:
            try:
                self._save(patience, is_last)
            finally:
                ended.release()

        try:
            # Not `threading`: the interrupted code may hold locks of that module.
            _thread.start_new_thread(save, ())
        except RuntimeError:  # too many threads, or the interpreter is about to end
            save()
        if not ended.acquire(timeout=patience):
            _log.warning("the process ends though its caches could not be saved within %g s", patience)

    def _die(self, signum: int) -> None:
        signal.signal(signum, signal.SIG_DFL)
        signal.raise_signal(signum)
        # Rule 2: the process continues.
        self._ending = None
        self._install(signum)

    def _follow(self, server: Any) -> None:
        """Saves after a uvicorn server has shut down (rule 5)."""
        shutdown = server.shutdown
        if getattr(shutdown, "_saves_caches", False):
            return

        @functools.wraps(shutdown)
        async def shut_down_and_save(*args: Any, **kwargs: Any) -> Any:
            try:
                return await shutdown(*args, **kwargs)
            finally:
                # A program may go on after its server.
                self._save_within(PATIENCE, False)

        shut_down_and_save._saves_caches = True  # type: ignore[attr-defined]
        server.shutdown = shut_down_and_save


def _uvicorn_server(handler: Any) -> Any:
    """The uvicorn server whose method the handler is, if any."""
    server = getattr(handler, "__self__", None)
    kinds = type(server).__mro__
    is_server = any(kind.__module__ == "uvicorn.server" and kind.__name__ == "Server" for kind in kinds)
    return server if is_server and hasattr(server, "shutdown") else None

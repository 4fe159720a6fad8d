"""Flushes of one journal: all callers that wait share a sync (group commit).

Rules:

1. One sync runs at a time. A caller that comes during a sync waits for the next sync, because the
   running sync may have begun before the caller's write.
2. A sync runs in a thread of this module, and not of an event loop: callers on several event loops
   share it, and a loop that stops or closes delays no others.
3. The cancellation of a caller ends its wait only.
4. A forked child has no thread of its parent, and no journal: nobody waits there.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ._forks import ForkLock

if TYPE_CHECKING:
    from ._native import Cache

Waiter = asyncio.Future[None]

# Syncs of as many caches run at the same time; others wait.
_MOST_THREADS = 8

_threads: list[ThreadPoolExecutor] = []


def _executor() -> ThreadPoolExecutor:
    if not _threads:
        _threads.append(ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="cache flush"))
    return _threads[0]


class Flushes(ForkLock):
    """The callers that wait for a sync of one journal."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[Waiter] = []
        self._is_running = False

    async def join(self, cache: Cache) -> None:
        """Waits for a sync that begins from now on."""
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self.run(functools.partial(self._enter, cache, waiter))
        await waiter

    def _enter(self, cache: Cache, waiter: Waiter) -> None:
        self._waiting.append(waiter)
        if not self._is_running:
            self._begin(cache)

    def _begin(self, cache: Cache) -> None:
        try:
            _executor().submit(self._sync, cache)
            self._is_running = True
        except BaseException as error:  # no more threads, or the interpreter is about to end
            self._is_running = False
            waiting, self._waiting = self._waiting, []
            _tell(waiting, error)

    def _sync(self, cache: Cache) -> None:
        waiting = self.run(self._take)
        error: BaseException | None = None
        try:
            cache.flush_journal()
        except BaseException as raised:  # for the callers
            error = raised
        self.run(functools.partial(self._end, cache))
        _tell(waiting, error)

    def _take(self) -> list[Waiter]:
        waiting, self._waiting = self._waiting, []
        return waiting

    def _end(self, cache: Cache) -> None:
        if self._waiting:
            self._begin(cache)
        else:
            self._is_running = False


def _tell(waiting: list[Waiter], error: BaseException | None) -> None:
    """Answers callers, each on its event loop."""
    loops: dict[asyncio.AbstractEventLoop, list[Waiter]] = {}
    for waiter in waiting:
        loops.setdefault(waiter.get_loop(), []).append(waiter)
    for loop, waiters in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: its callers are gone
            loop.call_soon_threadsafe(_answer, waiters, error)


def _answer(waiters: list[Waiter], error: BaseException | None) -> None:
    for waiter in waiters:
        if waiter.done():  # Rule 3.
            continue
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.clear)  # Rule 4.

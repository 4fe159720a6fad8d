"""Locks for a process that forks: the fork waits for the holders, and in the child every lock can
be taken.

A fork copies a lock in its current state, but copies only the forking thread. If another thread
held the lock at that moment, nothing in the child would ever release it. Rules:

1. Before a process forks, the forking thread takes every `ForkLock`, so that the guarded data is
   whole in the child. It waits for `PATIENCE` in total; then the process forks without the locks
   that are still held.
2. The holder of a lock may be waiting for another lock that the forking thread already holds. To
   avoid a deadlock, the forking thread waits only for a moment while it holds any lock; then it
   releases all of them, waits for the contended lock alone, and starts over.
3. Only the forking thread knows which locks its fork took: several threads may fork at a time. A
   lock is noted before it is taken, and released only if the fork has it: an interrupt (a raising
   signal handler) at any moment leaves no lock taken. The work under a lock is a function of its
   own, called by `run_holding`: an interrupt between an `acquire` and the `try` after it would
   leave the lock taken, and so would an interrupt inside an `__enter__` written in Python.
4. In the child a lock held by another thread is replaced by a new lock. A lock held by the forking
   thread itself, because it forks in the middle of the guarded work, is left alone on both sides.
5. Nothing here raises, except exceptions of signal handlers.
6. In the child the parent's loads have ended (`_native.after_fork_in_child`), before the locks are
   released and any other code can use a cache: the loads run in the parent only, and the child
   loads for itself.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from . import _native

R = TypeVar("R")

PATIENCE = 10.0  # seconds for which a fork waits, for all locks in total

_MOMENT = 0.05  # seconds of waiting for a lock while others are held

# All locks, by the ids of these references. Only single, atomic operations of the dict are used,
# because locks are added and removed in other threads, and in finalisers that the collector may run
# anywhere.
_locks: dict[int, weakref.ref[ForkLock]] = {}


def run_holding(lock: Any, work: Callable[[], R]) -> R:
    """Calls a function while holding a lock of `threading`, and returns the function's result.

    A signal handler that raises, as Ctrl-C does, leaves the lock free: no Python call lies between
    the lock's methods, which are C functions, and the body, and all of them are in one line.
    """
    with lock: return work()  # fmt: skip # noqa: E701


class ForkLock:
    """A re-entrant lock. A subclass overrides `renew` to make more data anew after a fork."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        reference = weakref.ref(self, _forget)
        _locks[id(reference)] = reference

    def acquire(self, patience: float = -1) -> bool:
        """Takes the lock. Waits for `patience` seconds, or for ever; ``False`` if another thread
        kept the lock all the time.
        """
        return self._lock.acquire(timeout=patience)

    def release(self) -> None:
        """Releases the lock once; ``RuntimeError`` if this thread does not hold the lock."""
        self._lock.release()

    def run(self, work: Callable[[], R]) -> R:
        """Calls a function while this thread holds the lock, and returns the function's result."""
        return run_holding(self._lock, work)

    def is_mine(self) -> bool:
        """Whether this thread holds the lock."""
        return self._lock._is_owned()  # type: ignore[attr-defined,no-any-return]  # as `Condition` asks it

    def renew(self) -> None:
        """In a forked child: replaces the lock, whose holder does not exist here."""
        self._lock = threading.RLock()


class _Forks(threading.local):
    """The forks of one thread, each with the locks taken for it. Several if a signal handler forks
    during a fork.
    """

    def __init__(self) -> None:
        self.taken: list[list[ForkLock]] = []


_forks = _Forks()


def _forget(reference: weakref.ref[ForkLock], locks: dict[int, weakref.ref[ForkLock]] = _locks) -> None:
    locks.pop(id(reference), None)


def _all() -> list[ForkLock]:
    return [lock for reference in list(_locks.values()) if (lock := reference()) is not None]


def _before() -> None:
    taken: list[ForkLock] = []
    _forks.taken.append(taken)
    deadline = time.monotonic() + PATIENCE
    locks = _all()
    while (in_the_way := _take_all(locks, taken, deadline)) is not None:
        _release(taken)
        _take(in_the_way, taken, max(0.0, deadline - time.monotonic()))


def _take_all(locks: list[ForkLock], taken: list[ForkLock], deadline: float) -> ForkLock | None:
    """Takes the locks that this thread does not hold. Returns the first lock that has to be waited
    for alone, if any.
    """
    for lock in locks:
        left = deadline - time.monotonic()
        if not _take(lock, taken, max(0.0, min(_MOMENT, left))) and left > 0:
            return lock
    return None


def _take(lock: ForkLock, taken: list[ForkLock], patience: float) -> bool:
    if lock.is_mine():
        return True
    taken.append(lock)
    if lock.acquire(patience):
        return True
    taken.remove(lock)
    return False


def _release(taken: list[ForkLock]) -> None:
    while taken:
        with contextlib.suppress(RuntimeError):  # if the lock was noted but not taken
            taken[-1].release()
        taken.pop()


def _after() -> None:
    if _forks.taken:
        _release(_forks.taken[-1])


def _over() -> None:
    # Once more: if an interrupt hits the start of `_after`, the interpreter reports the interrupt
    # and calls `_over` next.
    _after()
    if _forks.taken:
        _forks.taken.pop()


def _renew() -> None:
    for lock in _all():
        if not lock.is_mine():
            if lock.acquire(0):
                lock.release()
            else:
                lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_native.after_fork_in_child)
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)
    os.register_at_fork(after_in_parent=_over, after_in_child=_over)
    os.register_at_fork(after_in_child=_renew)

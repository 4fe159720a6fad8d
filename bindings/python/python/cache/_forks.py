"""Locks that outlive a fork: it waits for their holders, and in the child every one of them can be taken.

A fork copies a lock as it is, but only the thread that forks. What another thread held at that moment, nobody in the
child will ever release. Rules:

1. Whoever forks first takes every `ForkLock`, so that what they guard is whole in the child. It waits for `PATIENCE`
   altogether; then the process forks without those that are still held.
2. The holder of a lock may be waiting for another one that the forking thread has already. So that thread waits only
   for a moment while it holds any; then it lets go of all, and waits for the lock in its way alone.
3. Which locks a fork took is known to the thread that forks, and to no other: several may fork at a time. A lock is
   noted before it is taken, and released only if its taker has it: an interrupt (a signal's handler that raises) at
   whatever moment leaves no lock behind. What a lock guards is a function of its own, called by `run_holding`: between
   an `acquire` and the `try` after it an interrupt would leave the lock taken, and so would one inside of an `__enter__`
   that is written in Python.
4. In the child a lock that another thread holds is replaced by a new one. A lock that the forking thread holds by itself,
   for it forks in the middle of what the lock guards, is left alone on both sides.
5. Nothing here raises, but for what signal handlers raise.
6. In the child the loads of the parent have ended (`_native.after_fork_in_child`), before the locks are released and
   any other code can use a cache: they run in the parent only, and the child loads for itself.
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

PATIENCE = 10.0  # seconds for which a fork waits, for all locks together

_MOMENT = 0.05  # seconds for which one lock is waited for while others are held

# All locks, by the ids of these references. Only single operations of the dict are used, which are atomic, for locks come
# and go in other threads, and in finalisers that the collector may run anywhere.
_locks: dict[int, weakref.ref[ForkLock]] = {}


def run_holding(lock: Any, work: Callable[[], R]) -> R:
    """Runs a function while a lock of `threading`'s is held, and returns what it returns.

    A signal's handler that raises, as Ctrl-C does, leaves the lock free: no call of Python's lies
    between the lock's methods, which are C functions, and the body, and all is one line.
    """
    with lock: return work()  # fmt: skip # noqa: E701


class ForkLock:
    """A re-entrant lock; a subclass may keep more that a fork has to make anew in `renew`."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        reference = weakref.ref(self, _forget)
        _locks[id(reference)] = reference

    def acquire(self, patience: float = -1) -> bool:
        """Takes the lock, waiting for so many seconds, or for ever; ``False`` if somebody else had it all that time."""
        return self._lock.acquire(timeout=patience)

    def release(self) -> None:
        """Releases it once; ``RuntimeError`` if this thread does not have it."""
        self._lock.release()

    def run(self, work: Callable[[], R]) -> R:
        """Runs a function while this thread has the lock, and returns what it returns."""
        return run_holding(self._lock, work)

    def is_mine(self) -> bool:
        """Whether this thread has it."""
        return self._lock._is_owned()  # type: ignore[attr-defined,no-any-return]  # as `Condition` asks it

    def renew(self) -> None:
        """In a forked child: whoever held it is not there."""
        self._lock = threading.RLock()


class _Forks(threading.local):
    """The forks of one thread, each with the locks it took; more than one if a signal handler forks during a fork."""

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
    """Takes the locks that this thread does not have; the one that it is to wait for alone, if any is."""
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
        with contextlib.suppress(RuntimeError):  # if it was noted, but not taken
            taken[-1].release()
        taken.pop()


def _after() -> None:
    if _forks.taken:
        _release(_forks.taken[-1])


def _over() -> None:
    # Once more: an interrupt as `_after` began is reported by the interpreter, which then calls the next one.
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

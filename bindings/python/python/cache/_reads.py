"""Threads that read cold entries of journals, while the event loops of the callers go on.

`src/reading.rs` has the rules for one read. Here:

1. A few reads run at the same time; others wait, in the order of their beginning.
2. A read that has begun ends, also when the interpreter ends: its callers are woken in every case.
   If there is no thread for a read, `submit` raises, and the caller waits for the disk itself.
3. A forked child has no thread of its parent: there, the reads of the parent end at the fork, and
   their callers look into memory, because the journal is the parent's.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._native import ColdRead

_MOST_THREADS = 8

_threads: list[ThreadPoolExecutor] = []

# The reads under way, by their ids. Only single, atomic operations of the dict are used.
_running: dict[int, ColdRead] = {}


def submit(read: ColdRead) -> None:
    """Lets a thread do a read. Raises if there is no thread."""
    _running[id(read)] = read
    try:
        if not _threads:
            _threads.append(ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="cache read"))
        _threads[0].submit(_run, read)
    except BaseException:
        _running.pop(id(read), None)
        raise


def _run(read: ColdRead) -> None:
    try:
        read.run()
    finally:
        _running.pop(id(read), None)


def _after_fork() -> None:
    """Rule 3."""
    _threads.clear()
    while _running:
        read = _running.popitem()[1]
        try:
            read.end()
        except BaseException:  # an interrupt; the callers of the other reads wait as well
            continue


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

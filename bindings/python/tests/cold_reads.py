"""Cold entries whose reads wait for the disk, and threads whose reads begin when a test says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from journals import attempts, forget, opened
from loops import outcome, turns

from cache import AsyncCache

KEYS = 40


class ReadThreads:
    """The threads of reads. A read begins when the test says."""

    def __init__(self) -> None:
        self.held: list[Callable[[], None]] = []
        self.count = 0
        self.refuses: BaseException | None = None
        self.refused = 0

    def submit(self, work: Callable[..., None], *arguments: Any) -> None:
        if self.refuses is not None:
            self.refused += 1
            raise self.refuses
        self.count += 1
        self.held.append(lambda: work(*arguments))

    def read(self) -> None:
        """Does the reads that are held, on another thread, and waits for it."""
        held, self.held = self.held, []
        thread = threading.Thread(target=lambda: [work() for work in held])
        thread.start()
        thread.join()


def cold(path: Path, **options: Any) -> AsyncCache:
    """A cache with all entries on the disk: the keys below `KEYS`, with the values "0" to "39"."""
    cache = opened(path, **{"maxsize": 0, "disk_bytes": 1 << 30, **options})
    for key in range(KEYS):
        cache.set(key, str(key))
    forget(path)
    return cache


async def never(*_: Any) -> Any:
    raise AssertionError("the loader of a stored key was called")


async def begun(awaitable: Any) -> asyncio.Task[Any]:
    """A task that has come to its first wait."""
    task = asyncio.ensure_future(outcome(awaitable))
    await turns(3)
    return task


async def waiting(
    path: Path, ask: Callable[[], Any], *, evict: Callable[[], object] = lambda: None
) -> asyncio.Task[Any]:
    """A task that waits for a read. When a call is served in place, the call is made again. If the
    cache keeps entries in memory, `evict` removes the entry from memory before the next call.
    """
    for _ in attempts(path):
        task = await begun(ask())
        if not task.done():
            return task
        evict()
    raise AssertionError("unreachable: the test was skipped")

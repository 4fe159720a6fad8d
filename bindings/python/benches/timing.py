"""Times a loop of awaits: the common part of the benchmarks and the process that measures the
original.

A case is measured by one coroutine that repeats its operation `count` times, so the measured time
is that of the operation and a ``for`` over `itertools.repeat`; nothing is subtracted. Does not know
any cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

_NEW_LOOP: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
with contextlib.suppress(ImportError):
    import uvloop

    _NEW_LOOP["uvloop"] = uvloop.new_event_loop

LOOPS = tuple(_NEW_LOOP)

Bench = Callable[[int], Awaitable[None]]
"""Does an operation `count` times."""


@dataclass(frozen=True)
class Case:
    """One contender of one table."""

    table: str
    name: str
    make: Callable[[], Awaitable[Bench]]
    """Sets up the case, on the loop on which it will be measured."""
    loop: str = "asyncio"


class Timer:
    """Measures cases on event loops that live as long as the timer."""

    def __init__(self) -> None:
        self._loops = {kind: new_loop() for kind, new_loop in _NEW_LOOP.items()}
        self._benches: dict[Case, Bench] = {}

    def seconds(self, case: Case, count: int) -> float:
        """The seconds taken by `count` operations of a case."""
        return self._loops[case.loop].run_until_complete(self._timed(case, count))

    async def _timed(self, case: Case, count: int) -> float:
        bench = self._benches.get(case)
        if bench is None:
            bench = self._benches[case] = await case.make()
        started = time.perf_counter()
        await bench(count)
        return time.perf_counter() - started

    def close(self) -> None:
        """Closes the loops, and ends tasks that a library left running on them."""
        self._benches.clear()
        for loop in self._loops.values():
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.wait(left) if left else asyncio.sleep(0))
            loop.close()

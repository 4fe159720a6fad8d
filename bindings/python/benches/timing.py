"""Times a loop of awaits: what the benchmarks and the process that measures the original have in common.

A case is measured by one coroutine that does its operation `count` times, so what is timed is the operation
and a ``for`` over `itertools.repeat`; nothing is subtracted. Knows no cache.
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
"""Does an operation so many times."""


@dataclass(frozen=True)
class Case:
    """One contender of one table."""

    table: str
    name: str
    make: Callable[[], Awaitable[Bench]]
    """Sets everything up, on the loop that the case is going to be measured on."""
    loop: str = "asyncio"


class Timer:
    """Measures cases on event loops that live as long as it does."""

    def __init__(self) -> None:
        self._loops = {kind: new_loop() for kind, new_loop in _NEW_LOOP.items()}
        self._benches: dict[Case, Bench] = {}

    def seconds(self, case: Case, count: int) -> float:
        """How long `count` operations of a case take."""
        return self._loops[case.loop].run_until_complete(self._timed(case, count))

    async def _timed(self, case: Case, count: int) -> float:
        bench = self._benches.get(case)
        if bench is None:
            bench = self._benches[case] = await case.make()
        started = time.perf_counter()
        await bench(count)
        return time.perf_counter() - started

    def close(self) -> None:
        """Closes the loops, and ends what a library left running on them."""
        self._benches.clear()
        for loop in self._loops.values():
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.wait(left) if left else asyncio.sleep(0))
            loop.close()

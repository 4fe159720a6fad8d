"""Loads that wait for loads that wait for loads, thousands of them, on small stacks.

The bug's story: from Python 3.12 on a load begins inside its first caller's `await`, so each level
of a recursive decorated function lay on the stack above the previous level. In a thread with a
stack of 1 MiB, which servers with many threads use, a few hundred levels were a segmentation fault,
far below the interpreter's recursion limit.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from cache import AsyncCache, AsyncLRU, LoadCancelledError

LEVELS = 4000
STACKS = [256, 512, 1024]  # KiB


@pytest.fixture(params=STACKS, ids=lambda kib: f"{kib} KiB")
def on_stack(request: pytest.FixtureRequest) -> Callable[[Callable[[], Any]], Any]:
    """Runs a function in a thread with a small stack; returns what it returns."""

    def run(work: Callable[[], Any]) -> Any:
        results: list[Any] = []
        before = threading.stack_size(request.param << 10)
        try:
            thread = threading.Thread(target=lambda: results.append(work()))
            thread.start()
        finally:
            threading.stack_size(before)
        thread.join()
        assert len(results) == 1, "the thread raised"
        return results[0]

    return run


class Nested:
    """A function whose every call waits for the next lower call; the last waits for `bottom`."""

    def __init__(self, bottom: Callable[[], Any]) -> None:
        @AsyncLRU(maxsize=None)
        async def add(number: int) -> int:
            if number == 0:
                return int(await bottom())
            return number + int(await add(number - 1))

        self.add = add


OnStack = Callable[[Callable[[], Any]], Any]
SUM = LEVELS * (LEVELS + 1) // 2


def test_loads_nest_thousands_of_levels_deep(on_stack: OnStack) -> None:
    async def bottom() -> int:
        return 0

    assert on_stack(lambda: asyncio.run(Nested(bottom).add(LEVELS))) == SUM


def test_loads_that_all_wait_are_answered_level_by_level(on_stack: OnStack) -> None:
    async def main() -> int:
        gate, reached = asyncio.Event(), asyncio.Event()

        async def bottom() -> int:
            reached.set()
            await gate.wait()
            return 0

        caller = asyncio.ensure_future(Nested(bottom).add(LEVELS))
        await reached.wait()
        gate.set()
        return int(await caller)

    assert on_stack(lambda: asyncio.run(main())) == SUM


def test_the_error_of_the_deepest_load_reaches_the_first_caller(on_stack: OnStack) -> None:
    async def bottom() -> int:
        raise LookupError("at the bottom")

    async def main() -> str:
        try:
            await Nested(bottom).add(LEVELS)
        except LookupError as error:
            return str(error)
        return "nothing"

    assert on_stack(lambda: asyncio.run(main())) == "at the bottom"


def test_cancelling_the_first_caller_ends_all_levels(on_stack: OnStack) -> None:
    async def main() -> int:
        reached = asyncio.Event()

        async def bottom() -> int:
            reached.set()
            await asyncio.Event().wait()
            return 0

        caller = asyncio.ensure_future(Nested(bottom).add(LEVELS))
        await reached.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)
        return len(asyncio.all_tasks())

    assert on_stack(lambda: asyncio.run(main())) == 1


def test_levels_that_are_dropped_with_their_loop_are_freed(on_stack: OnStack) -> None:
    """Freed inside each other, the levels would need as much stack as at their beginning."""

    def work() -> str:
        async def main() -> None:
            reached = asyncio.Event()

            async def bottom() -> int:
                reached.set()
                await asyncio.Event().wait()
                return 0

            callers.append(asyncio.ensure_future(Nested(bottom).add(LEVELS)))
            await reached.wait()

        callers: list[Any] = []
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)
        loop.run_until_complete(main())
        loop.close()
        callers.clear()
        del loop
        gc.collect()
        return "freed"

    assert on_stack(work) == "freed"


def test_a_cancelled_load_in_the_middle_is_an_error_of_those_above(on_stack: OnStack) -> None:
    async def main() -> Any:
        reached = asyncio.Event()

        async def bottom() -> int:
            reached.set()
            await asyncio.Event().wait()
            return 0

        caller = asyncio.ensure_future(Nested(bottom).add(LEVELS))
        await reached.wait()
        for task in asyncio.all_tasks():
            if task is not caller and task is not asyncio.current_task():
                task.cancel()
        return (await asyncio.gather(caller, return_exceptions=True))[0]

    assert isinstance(on_stack(lambda: asyncio.run(main())), LoadCancelledError)


def test_loads_of_one_cache_nest_through_get_and_batches_alike(on_stack: OnStack) -> None:
    cache = AsyncCache(maxsize=None, max_batch_size=1)

    async def one(number: int) -> int:
        async def load() -> int:
            return number and number + await one(number - 1)

        async def load_many(keys: list[int]) -> list[int]:
            return [await load()]

        if number % 2:
            return int(await cache.get(number, batch_loader=load_many))
        return int(await cache.get(number, loader=load))

    assert on_stack(lambda: asyncio.run(one(LEVELS))) == SUM


def test_the_main_thread_nests_as_deep_under_a_small_limit_of_its_stack() -> None:
    program = f"""
import asyncio
from cache import AsyncLRU

@AsyncLRU(maxsize=None)
async def add(number):
    return number and number + await add(number - 1)

print(asyncio.run(add({LEVELS})))
"""
    command = ["sh", "-c", 'ulimit -s 512; exec "$0" -c "$1"', sys.executable, program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, str(SUM)), done.stderr


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a task begins at once from Python 3.12 on only")
def test_a_load_that_does_not_suspend_still_costs_no_turn_of_the_event_loop() -> None:
    async def main() -> tuple[int, int]:
        turned = 0

        def turn() -> None:
            nonlocal turned
            turned += 1

        async def bottom() -> int:
            return 0

        asyncio.get_running_loop().call_soon(turn)
        await Nested(bottom).add(10)
        shallow = turned
        asyncio.get_running_loop().call_soon(turn)
        await Nested(bottom).add(100)
        return shallow, turned

    assert asyncio.run(main()) == (0, 2)

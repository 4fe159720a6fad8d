"""Event loops to run a test on, and loaders that do what the test says when it says so.

Nothing here waits for a time to pass: a test goes on when what it waits for has happened, or fails at its time
limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

try:
    import uvloop
except ImportError:
    uvloop = None  # type: ignore[assignment,unused-ignore]

LOOPS = ["asyncio", "uvloop" if uvloop is not None else "uvloop (cannot be installed on this Python)"]

# A window that no test outlives: such a batch leaves when it is full, or never.
NEVER_MS = 3_600_000


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    """A new event loop of a kind in `LOOPS`."""
    if kind == "uvloop":
        assert uvloop is not None
        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        return loop
    return asyncio.new_event_loop()


class Run:
    """Runs an awaitable to its end on a new event loop, as `asyncio.run` does.

    What the loop was told of and nobody asked for (an exception that was never retrieved, a task that was
    destroyed) is kept in `complaints`.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.complaints: list[dict[str, Any]] = []

    def __call__(self, awaitable: Awaitable[T]) -> T:
        loop = new_loop(self.kind)
        loop.set_exception_handler(lambda _, context: self.complaints.append(context))
        asyncio.set_event_loop(loop)
        try:
            return loop.run_until_complete(_awaited(awaitable))
        finally:
            try:
                _cancel_all(loop)
                loop.run_until_complete(loop.shutdown_asyncgens())
                loop.run_until_complete(loop.shutdown_default_executor())
            finally:
                asyncio.set_event_loop(None)
                loop.close()


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        # Not longer than this, for a test that hung is not to hang again here.
        loop.run_until_complete(asyncio.wait(tasks, timeout=5))


async def turns(count: int = 20) -> None:
    """Lets the event loop turn, so that everything that can run now has run until it waits."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(happened: Callable[[], bool]) -> None:
    """Turns the event loop until something has happened; the test's time limit is the deadline."""
    while not happened():
        await asyncio.sleep(0)


async def outcome(awaitable: Awaitable[Any]) -> Any:
    """What an awaitable returns, or the exception it raises, whichever that is."""
    try:
        return await awaitable
    except BaseException as error:
        return error


class Load:
    """A loader whose every call waits until the test answers it."""

    def __init__(self) -> None:
        self.calls: list[asyncio.Future[Any]] = []
        self.keys: list[list[Any]] = []
        self.cancelled = 0

    async def __call__(self, keys: list[Any] | None = None) -> Any:
        if keys is not None:
            self.keys.append(list(keys))
        gate = asyncio.get_running_loop().create_future()
        self.calls.append(gate)
        try:
            return await gate
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def called(self, times: int = 1) -> None:
        """Waits until the loader was called so many times."""
        await until(lambda: len(self.calls) >= times)

    def answer(self, value: Any, call: int = -1) -> None:
        """Lets a call return."""
        self.calls[call].set_result(value)

    def fail(self, error: BaseException, call: int = -1) -> None:
        """Lets a call raise."""
        self.calls[call].set_exception(error)


def task(awaitable: Awaitable[T]) -> asyncio.Task[T]:
    """A task of the running loop."""
    coroutine: Coroutine[Any, Any, T] = _awaited(awaitable)
    return asyncio.get_running_loop().create_task(coroutine)


async def joined(*tasks: asyncio.Task[Any]) -> None:
    """Lets new callers get as far as they come: each waits for a load, or is done."""
    await turns()
    assert not any(task.cancelled() for task in tasks)


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancels callers and waits until they have ended so."""
    for one in tasks:
        one.cancel()
    for one in tasks:
        assert isinstance(await outcome(one), asyncio.CancelledError)
        assert one.cancelled()

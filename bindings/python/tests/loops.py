"""Event loops for the tests, and loaders whose calls end when the test says.

No test waits for time to pass: a test continues when the awaited event has happened, or fails at
its time limit.
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

# A window longer than any test: a batch leaves when it is full, or never.
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

    Problems reported to the loop's exception handler (an exception that was never retrieved, a task
    that was destroyed) are kept in `complaints`.
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
        # Limited, so that a test that hung does not hang here again.
        loop.run_until_complete(asyncio.wait(tasks, timeout=5))


async def turns(count: int = 20) -> None:
    """Lets the event loop turn, until all code that can run now has run and waits."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(happened: Callable[[], bool]) -> None:
    """Turns the event loop until the condition is true; the test's time limit is the deadline."""
    while not happened():
        await asyncio.sleep(0)


async def outcome(awaitable: Awaitable[Any]) -> Any:
    """The result of an awaitable, or the exception that it raises."""
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
        """Waits until the loader was called `times` times."""
        await until(lambda: len(self.calls) >= times)

    def answer(self, value: Any, call: int = -1) -> None:
        """Lets a call return."""
        self.calls[call].set_result(value)

    def fail(self, error: BaseException, call: int = -1) -> None:
        """Lets a call raise."""
        self.calls[call].set_exception(error)


def returns(value: Any) -> Callable[[], Awaitable[Any]]:
    """A loader that returns the value."""

    async def load() -> Any:
        return value

    return load


def task(awaitable: Awaitable[T]) -> asyncio.Task[T]:
    """A task of the running loop."""
    coroutine: Coroutine[Any, Any, T] = _awaited(awaitable)
    return asyncio.get_running_loop().create_task(coroutine)


async def joined(*tasks: asyncio.Task[Any]) -> None:
    """Lets new callers run as far as they can: each waits for a load, or has ended."""
    await turns()
    assert not any(task.cancelled() for task in tasks)


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancels callers and waits until they have ended as cancelled."""
    for one in tasks:
        one.cancel()
    for one in tasks:
        assert isinstance(await outcome(one), asyncio.CancelledError)
        assert one.cancelled()

"""Interrupts inside the event loop, while it works for a load.

The bug's story: Ctrl-C came between two lines of `call_soon`, as the task of a load was made. The
interrupt's traceback kept the load, which never ran, and all callers of its key waited for ever,
even in the next run of the loop. In `call_later`, as the window of a batch began, the same happened
to all keys of the batch loader. And an interrupt during the notification of a load's callers was
lost: the program continued as if Ctrl-C had never been pressed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cache import AsyncCache


class Interrupted(asyncio.SelectorEventLoop):
    """Is interrupted once in one of its methods, before or after the method's work."""

    def __init__(self) -> None:
        super().__init__()
        self.next: tuple[str, str] | None = None

    def _is_interrupted(self, method: str, moment: str) -> None:
        if self.next == (method, moment):
            self.next = None
            raise KeyboardInterrupt

    def call_soon(self, callback: Any, *args: Any, **options: Any) -> asyncio.Handle:  # type: ignore[override]
        self._is_interrupted("call_soon", "before")
        handle = super().call_soon(callback, *args, **options)
        self._is_interrupted("call_soon", "after")
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, **options: Any) -> asyncio.TimerHandle:  # type: ignore[override]
        self._is_interrupted("call_later", "before")
        handle = super().call_later(delay, callback, *args, **options)
        self._is_interrupted("call_later", "after")
        return handle


@pytest.fixture
def event_loop_() -> Iterator[Interrupted]:
    event_loop = Interrupted()
    asyncio.set_event_loop(event_loop)
    yield event_loop
    event_loop.close()
    asyncio.set_event_loop(None)


def own_task(event_loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    return asyncio.Task(coroutine, loop=event_loop, **options)


async def one() -> int:
    return 1


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("factory", [None, own_task], ids=["no factory", "a task factory"])
def test_a_load_whose_start_is_interrupted_keeps_nobody_waiting(
    event_loop_: Interrupted, moment: str, factory: Callable[..., Any] | None
) -> None:
    cache = AsyncCache()
    # With a factory the loop begins the task, in every version of Python.
    event_loop_.set_task_factory(factory)

    async def ask() -> Any:
        event_loop_.next = ("call_soon", moment)
        return await cache.get("key", one)

    kept = []
    try:
        event_loop_.run_until_complete(ask())
    except KeyboardInterrupt as interrupt:
        kept.append(interrupt)
    event_loop_.next = None
    value = event_loop_.run_until_complete(asyncio.wait_for(cache.get("key", one), 10))
    assert value == 1
    assert kept or factory is None
    assert cache.stats()["running_loads"] == 0


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_batch_whose_window_is_interrupted_keeps_no_other_key_waiting(
    event_loop_: Interrupted, moment: str
) -> None:
    cache = AsyncCache()
    asked = []

    async def load(keys: list[str]) -> list[str]:
        asked.append(keys)
        return keys

    async def ask() -> Any:
        event_loop_.next = ("call_later", moment)
        return await cache.get("a", batch_loader=load)

    kept = []
    with pytest.raises(KeyboardInterrupt) as interrupt:
        event_loop_.run_until_complete(ask())
    kept.append(interrupt)

    async def both() -> list[Any]:
        calls = (cache.get(key, batch_loader=load) for key in ("a", "b"))
        return list(await asyncio.wait_for(asyncio.gather(*calls), 10))

    assert event_loop_.run_until_complete(both()) == ["a", "b"]
    assert asked == [["a", "b"]]
    assert kept


@pytest.mark.parametrize("is_error", [False, True], ids=["a value", "an error"])
@pytest.mark.parametrize("is_batch", [False, True], ids=["one key", "a batch"])
def test_an_interrupt_while_callers_are_told_is_raised(
    event_loop_: Interrupted, is_batch: bool, is_error: bool
) -> None:
    cache = AsyncCache(batch_window_ms=0)

    async def load(keys: object = None) -> Any:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        event_loop_.next = ("call_soon", "after")
        if is_error:
            raise ValueError("the loader's own")
        return [1] if is_batch else 1

    async def ask() -> Any:
        loader: dict[str, Any] = {"batch_loader": load} if is_batch else {"loader": load}
        try:
            return await cache.get("key", **loader)
        except ValueError as error:
            return str(error)

    async def make() -> list[asyncio.Task[Any]]:
        return [asyncio.ensure_future(ask()) for _ in range(3)]

    callers = event_loop_.run_until_complete(make())
    with pytest.raises(KeyboardInterrupt):
        event_loop_.run_until_complete(asyncio.wait_for(asyncio.gather(*callers), 10))
    # All callers were notified before the exception was raised.
    done, waiting = event_loop_.run_until_complete(asyncio.wait(callers, timeout=10))
    assert not waiting
    assert {caller.result() for caller in done} == {"the loader's own" if is_error else 1}


@pytest.mark.parametrize("is_batch", [False, True], ids=["one key", "a batch"])
def test_a_loop_that_makes_no_tasks_is_the_callers_error(event_loop_: Interrupted, is_batch: bool) -> None:
    cache = AsyncCache(batch_window_ms=0)

    async def load(keys: object = None) -> Any:
        return [1] if is_batch else 1

    def refuse(event_loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        if "AsyncCache.load" in repr(coroutine):
            raise RuntimeError("no more tasks")
        return asyncio.Task(coroutine, loop=event_loop, **options)

    async def ask() -> Any:
        loader: dict[str, Any] = {"batch_loader": load} if is_batch else {"loader": load}
        return await cache.get("key", **loader)

    event_loop_.set_task_factory(refuse)
    event_loop_.set_exception_handler(lambda *_: None)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no more tasks"):
            event_loop_.run_until_complete(asyncio.wait_for(ask(), 10))
    assert cache.stats()["running_loads"] == 0

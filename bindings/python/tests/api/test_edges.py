"""Conflicts of the interpreter's rules with ours: shutdown, recursion limits, the collector, and
threads at the wrong moment. Each test is a former bug.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import subprocess
import sys
import threading
import types
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from loops import Load, Run, cancel, task, turns

from cache import AsyncCache, AsyncLRU, AsyncLRUInvalidator


async def _other() -> str:
    return "other"


class _Elsewhere:
    """A load that runs on an event loop in a thread of its own, and ends on request."""

    def __init__(self, cache: AsyncCache) -> None:
        self._cache = cache
        self._started = threading.Event()
        self._finish: Callable[[], object] = lambda: None
        self.ended = threading.Event()
        self.held: list[Any] = []
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        loop = asyncio.SelectorEventLoop()

        async def load() -> str:
            gate = loop.create_future()
            self.held.append(gate)
            self._finish = lambda: loop.call_soon_threadsafe(gate.set_result, None)
            self._started.set()
            await gate
            return "value"

        async def main() -> None:
            await self._cache.get("key", load)
            self.ended.set()

        loop.run_until_complete(main())
        loop.close()

    def start(self) -> None:
        self.thread.start()
        assert self._started.wait(20)

    def finish(self) -> None:
        self._finish()
        assert self.ended.wait(20)


def test_a_load_that_ends_while_a_caller_sits_down_answers_him() -> None:
    """A future calls `get_debug` of its loop, which is Python code: another thread ran, ended the
    load and notified all callers with a seat; the caller took its seat after that, and was never
    notified.
    """
    cache = AsyncCache()
    elsewhere = _Elsewhere(cache)

    class Loop(asyncio.SelectorEventLoop):
        hook: Callable[[], None] | None = None

        def get_debug(self) -> bool:
            hook, self.hook = self.hook, None
            if hook is not None:
                hook()
            return super().get_debug()

    elsewhere.start()
    loop = Loop()

    async def caller() -> Any:
        loop.hook = elsewhere.finish
        return await cache.get("key", _other)

    assert loop.run_until_complete(asyncio.wait_for(caller(), 20)) == "value"
    loop.close()
    elsewhere.thread.join()


@pytest.mark.parametrize("is_closed", [True, False])
def test_callers_elsewhere_load_anew_when_the_loop_of_a_load_stops(is_closed: bool) -> None:
    """A loop that stops or is closed notifies nobody. If other code held the future awaited by the
    load, the task was not collected, and callers on other loops hung until a new caller arrived.
    """
    cache = AsyncCache()
    stopped = asyncio.new_event_loop()
    held: list[Any] = []

    async def load() -> Any:
        held.append(stopped.create_future())
        return await held[0]

    async def start() -> None:
        held.append(None)
        del held[:]
        task(cache.get("key", load))
        await turns()

    stopped.run_until_complete(start())
    joined = threading.Event()

    async def elsewhere() -> Any:
        call = task(cache.get("key", _other))
        await turns()
        joined.set()
        return await call

    running = threading.Event()

    def keep_running() -> None:
        stopped.call_soon(running.set)
        stopped.run_until_complete(stopped.run_in_executor(None, joined.wait))

    # The loop of the load runs until the caller elsewhere has joined, and then stops for good.
    keeper = threading.Thread(target=keep_running)
    keeper.start()
    assert running.wait(20)
    assert asyncio.run(asyncio.wait_for(elsewhere(), 20)) == "other"
    keeper.join()
    assert cache.stats()["loads"] == 2
    for pending in asyncio.all_tasks(stopped):
        pending.cancel()
    if is_closed:
        stopped.run_until_complete(turns())
    stopped.run_until_complete(stopped.shutdown_default_executor())
    stopped.close()


def test_a_subclass_may_have_an_init_of_its_own() -> None:
    """The limits were taken from the arguments of `__new__`, which are the subclass's: they were
    silently lost.
    """

    class Products(AsyncCache):
        def __init__(self, name: str, ttl: float = 60) -> None:
            super().__init__(maxsize=10_000, default_ttl=ttl, max_batch_size=7)
            self.name = name

    products = Products("books", 30)
    assert (products.maxsize, products.default_ttl, products.max_batch_size) == (10_000, 30, 7)
    assert products.name == "books"
    products.set("key", 1)
    with pytest.raises(RuntimeError, match="make a new one"):
        AsyncCache.__init__(products)


@pytest.mark.parametrize(
    "program",
    [
        "result = fetch(1); print(result)",
        "loop = asyncio.new_event_loop(); call = loop.create_task(fetch(1)); loop.run_until_complete(asyncio.sleep(0))",
        "import sys; sys.modules['kept'] = fetch(1)",
        "class Late:\n    def __del__(self): fetch.clear_cache(); cache.set(1, 2); cache.get(1)\nlate = Late()",
    ],
)
def test_the_interpreter_ends_in_good_order_whatever_is_left(program: str) -> None:
    """An awaitable dropped while the interpreter shut down aborted the process: a forgotten
    `asyncio.run` was enough.
    """
    head = (
        "import asyncio\nfrom cache import AsyncLRU, AsyncCache\ncache = AsyncCache()\n@AsyncLRU()\n"
        "async def fetch(x):\n    await asyncio.sleep(3600)\n    return x\n"
    )
    ended = subprocess.run([sys.executable, "-c", head + program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert "panicked" not in ended.stderr


def test_equal_keys_are_equal_close_to_the_recursion_limit() -> None:
    """A comparison through the interpreter counts as a level of recursion. At the limit the
    comparison failed, two equal keys became two entries, and a deleted value came back.
    """
    cache = AsyncCache()

    def key() -> str:
        return "".join(["k", "ey"] * 30)

    cache.set(key(), "old")
    new = key()

    def deep(levels: int) -> None:
        if levels:
            deep(levels - 1)
        else:
            cache.set(new, "new")

    limit = sys.getrecursionlimit()
    depth = len(inspect.stack())
    refused = 0
    try:
        sys.setrecursionlimit(depth + 100)
        for levels in range(60, 110):
            try:
                deep(levels)
            except RecursionError:
                refused += 1
    finally:
        sys.setrecursionlimit(limit)
    assert refused
    assert len(cache.cache) == 1
    cache.delete(key())
    assert new not in cache.cache


def test_the_collector_leaves_a_load_that_somebody_waits_for(run: Run) -> None:
    """The task of a load was held weakly. If it waited for a future without other references, both
    were garbage, though a caller was waiting; a plain `await` would have kept them.
    """
    cache = AsyncCache()
    futures: weakref.WeakValueDictionary[str, asyncio.Future[int]] = weakref.WeakValueDictionary()

    async def load() -> int:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        futures["gate"] = future
        return await future

    async def batch_load(keys: list[Any]) -> list[int]:
        return [await load() for _ in keys]

    async def main() -> None:
        for options in ({"loader": load}, {"batch_loader": batch_load}):
            call = task(cache.get("key", **options))
            while "gate" not in futures:
                await asyncio.sleep(0.001)
            gc.collect()
            futures["gate"].set_result(1)
            assert await call == 1
            cache.clear()
            futures.clear()
            await turns()

    run(main())


def test_an_argument_that_changes_before_the_load_begins_is_never_cached_under_its_old_key(run: Run) -> None:
    """The key was made of ``[1]``, and the function ran with ``[1, 2]``, one turn of the loop
    later.
    """

    @AsyncLRU()
    async def copy(items: list[int]) -> list[int]:
        return list(items)

    async def main() -> None:
        items = [1]
        call = task(copy(items))
        await asyncio.sleep(0)
        items.append(2)
        assert await call in ([1], [1, 2])
        assert await copy([1]) == [1]
        assert await copy([1, 2]) == [1, 2]

    run(main())


def test_a_call_that_was_not_awaited_is_not_iterable() -> None:
    """`list(cache.get(key))` was an empty list, but with a coroutine it is a `TypeError`."""
    cache = AsyncCache()
    cache.set("key", [1, 2])
    call = cache.get("key")
    with pytest.raises(TypeError, match="not iterable"):
        list(call)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="not iterable"):
        for _ in call:  # type: ignore[attr-defined]
            pass

    @types.coroutine
    def through_await() -> Any:
        return (yield from call.__await__())

    async def main() -> Any:
        return await through_await()

    assert asyncio.run(main()) == [1, 2]


def test_the_seats_of_cancelled_callers_are_used_again(run: Run) -> None:
    """Each caller that timed out left a future behind, as long as the load ran."""
    cache = AsyncCache()
    load = Load()

    async def main() -> None:
        first = task(cache.get("key", load))
        await load.called()
        gc.collect()
        before = len(gc.get_objects())
        for _ in range(30):
            callers = [task(cache.get("key", load)) for _ in range(50)]
            await turns(3)
            await cancel(*callers)
        del callers
        gc.collect()
        assert len(gc.get_objects()) - before < 300
        load.answer(1)
        assert await first == 1

    run(main())


def test_a_cache_that_is_dropped_is_gone_at_once() -> None:
    """The cache was in a cycle with its own view, so it kept its values and its file until the next
    collection.
    """
    cache = AsyncCache()
    cache.set("key", 1)
    assert "key" in cache.cache
    gone = weakref.ref(cache)
    gc.disable()
    try:
        del cache
        assert gone() is None
    finally:
        gc.enable()


def test_a_write_invalidates_however_the_read_was_called(run: Run) -> None:
    """``read(1)`` and ``read(key=1)`` are two keys; only the key in the form of the write's call
    was invalidated.
    """
    rows = {1: "old"}

    @AsyncLRU()
    async def read(key: int, language: str = "en") -> str:
        return rows[key]

    @AsyncLRUInvalidator(read)
    async def write(key: int, language: str, value: str) -> None:
        rows[key] = value

    async def main() -> None:
        ways: list[Callable[[], Awaitable[str]]] = [
            lambda: read(1, "de"),
            lambda: read(1, language="de"),
            lambda: read(key=1, language="de"),
        ]
        for value, call in (
            ("a", lambda: write(1, "de", "a")),
            ("b", lambda: write(1, language="de", value="b")),
            ("c", lambda: write(key=1, language="de", value="c")),
        ):
            assert {await way() for way in ways} == {rows[1]}
            await call()  # type: ignore[no-untyped-call]
            assert {await way() for way in ways} == {value}

    run(main())


def test_warmup_reports_the_first_error_at_once(run: Run) -> None:
    """The errors were awaited in order: an error was raised only after all earlier loads had
    ended.
    """
    cache = AsyncCache()
    slow = Load()

    async def fails() -> int:
        raise ValueError("no")

    async def main() -> None:
        with pytest.raises(ValueError, match="no"):
            await cache.warmup({"slow": slow, "fails": fails})
        assert slow.cancelled == 1

    run(main())


def test_a_batch_loader_that_returns_a_set_is_an_error(run: Run) -> None:
    """The order of a set has no meaning, so its values were assigned to arbitrary keys."""
    cache = AsyncCache(batch_window_ms=0)

    async def load(keys: list[int]) -> Any:
        return {key * 10 for key in keys}

    async def main() -> None:
        with pytest.raises(TypeError, match="not set"):
            await cache.get(1, batch_loader=load)

    run(main())

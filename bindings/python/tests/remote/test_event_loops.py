"""Event loops that end, several loops, and forks."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
import time
import warnings
import weakref
from typing import Any

import pytest
from loops import LOOPS, Run, cancel, new_loop, task, turns
from programs import output_of
from servers import Server, fields
from shared_caches import Counted, acknowledged, connected, pair, soon, timed

from cache import AsyncCache, RedisBackend


def connections(server: Server) -> int:
    """How many caches are connected."""
    return int(fields(server.call("INFO", "clients"))["connected_clients"]) - 1


def test_a_cache_serves_one_event_loop_after_another(run: Run, server: Server, backend: RedisBackend) -> None:
    cache = AsyncCache(remote_cache=backend)
    load = Counted()

    async def first() -> None:
        assert await cache.get("k", load) == 1

    async def later() -> None:
        assert await cache.get("k", load) == 1
        await soon(lambda: cache.stats()["remote_up"])

    async def deleted_meanwhile() -> None:
        assert await cache.get("k", load) == 2

    run(first())
    assert connections(server) == 0, "closed with its loop"
    run(later())
    other = AsyncCache(remote_cache=backend)

    async def delete() -> None:
        other.delete("k")
        await acknowledged(other)

    run(delete())
    run(deleted_meanwhile())


def test_writes_outside_of_event_loops_are_sent_by_the_next_loop(run: Run, backend: RedisBackend) -> None:
    first, second = pair(backend)

    async def get(cache: AsyncCache) -> Any:
        await connected(cache)
        value = await cache.get("k")
        await acknowledged(cache)
        return value

    first.set("k", "value")
    assert run(get(first)) == "value"
    assert run(get(second)) == "value"
    second.delete("k")
    run(get(second))
    assert run(get(first)) is None


def test_two_loops_in_two_threads_share_one_connection(
    run: Run, server: Server, backend: RedisBackend
) -> None:
    cache = AsyncCache(remote_cache=backend)
    is_over = threading.Event()
    is_ready = threading.Event()
    seen: list[Any] = []

    async def owner() -> None:
        await connected(cache)
        is_ready.set()
        while not is_over.is_set():
            await asyncio.sleep(0.001)

    async def guest() -> None:
        load = Counted("value")
        seen.extend(await asyncio.gather(*[cache.get(("k", number), load) for number in range(10)]))
        await cache.set("set", "value")
        await acknowledged(cache)

    def own() -> None:
        loop = new_loop(run.kind)
        try:
            loop.run_until_complete(owner())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    thread = threading.Thread(target=own)
    thread.start()
    try:
        assert is_ready.wait(10)
        run(guest())
        assert seen == ["value"] * 10
        assert connections(server) == 1
        assert server.call("DBSIZE") > 10
    finally:
        is_over.set()
        thread.join(10)

    async def afterwards() -> None:
        assert await cache.get("set") == "value", "the other loop has ended, and this one takes over"

    run(afterwards())


def test_a_loop_that_was_closed_without_ceremony_is_replaced(run: Run, backend: RedisBackend) -> None:
    cache = AsyncCache(remote_cache=backend)
    loop = new_loop(run.kind)

    async def write() -> None:
        await cache.set("k", "value")
        await acknowledged(cache)

    loop.run_until_complete(write())
    with pytest.warns(ResourceWarning):
        loop.close()

        async def read() -> None:
            assert await cache.get("other", Counted("loaded")) == "loaded"
            assert await cache.get("k") == "value"

        run(read())
        del loop
        gc.collect()
        # uvloop closes sockets itself.
        warnings.warn("for uvloop", ResourceWarning, stacklevel=1)


def test_memory_is_not_served_unasked_after_a_loop_was_closed_without_ceremony(
    run: Run, backend: RedisBackend
) -> None:
    first, second = pair(backend)
    loop = new_loop(run.kind)

    async def write() -> None:
        await connected(first)
        await first.set("k", "old")

    async def change() -> None:
        await second.set("k", "new")

    async def read() -> Any:
        return await first.get("k")

    loop.run_until_complete(write())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop.close()
        gc.collect()
    run(change())
    assert run(read()) == "new"


def test_a_loop_that_takes_over_while_the_owner_is_closed_keeps_its_connection(
    run: Run, server: Server
) -> None:
    patience = 3.0

    def closed_beside_writes() -> float:
        cache = AsyncCache(remote_cache=RedisBackend(*server.address, timeout=patience))
        is_written = threading.Event()

        async def write() -> None:
            await cache.set("a", 1)
            is_written.set()
            time.sleep(0.02)  # the other loop writes, and asks this one to drive

        async def take_over() -> float:
            return max([(await timed(cache.set("b", 1)))[1] for _ in range(3)])

        def own() -> None:
            loop = new_loop(run.kind)
            loop.run_until_complete(write())
            time.sleep(0.01)
            loop.close()

        thread = threading.Thread(target=own)
        thread.start()
        assert is_written.wait(10)
        slowest = run(take_over())
        thread.join(10)
        return slowest

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slowest = max(closed_beside_writes() for _ in range(20))
        gc.collect()
    assert slowest < patience / 2


def test_loads_of_a_loop_that_was_closed_without_ceremony_end(run: Run, backend: RedisBackend) -> None:
    cache = AsyncCache(remote_cache=backend)
    loop, other = new_loop(run.kind), new_loop(run.kind)

    async def begin() -> None:
        await connected(cache)
        task(cache.get("k", Counted("never")))
        await asyncio.sleep(0)

    async def read() -> Any:
        return await asyncio.wait_for(cache.get("k", Counted("loaded")), 5)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loop.run_until_complete(begin())
        loop.close()
        assert other.run_until_complete(read()) in ("loaded", "never")
        other.close()
        gc.collect()


def test_a_cache_that_is_dropped_closes_its_connection(
    run: Run, server: Server, backend: RedisBackend
) -> None:
    async def main() -> None:
        cache = AsyncCache(remote_cache=backend)
        await connected(cache)
        assert connections(server) == 1
        dropped = weakref.ref(cache)
        del cache
        gc.collect()
        assert dropped() is None
        while connections(server):
            await asyncio.sleep(0.01)

    run(main())


FORK = """
import asyncio, os, sys
from cache import AsyncCache, RedisBackend

cache = AsyncCache(remote_cache=RedisBackend("127.0.0.1", int(sys.argv[1])))
kind = sys.argv[2]
if kind == "uvloop":
    import uvloop

def new_loop():
    return uvloop.new_event_loop() if kind == "uvloop" else asyncio.new_event_loop()

async def load():
    return "loaded by " + ("the child" if is_child else "the parent")

async def before():
    assert await cache.get("before", load) == "loaded by the parent"

async def afterwards():
    # The child has deleted the key, and this connection is still sound.
    for _ in range(200):
        if "before" not in cache.cache:
            break
        await asyncio.sleep(0.01)
    assert await cache.get("before") is None
    assert await cache.get("by the child") == "loaded by the child"
    print("sound", cache.stats()["remote_up"])

async def child():
    assert await cache.get("before", load) == "loaded by the parent"
    assert await cache.get("by the child", load) == "loaded by the child"
    cache.delete("before")
    while cache.stats()["remote_pending"]:
        await asyncio.sleep(0.001)

is_child = False
loop = new_loop()
loop.run_until_complete(before())
pid = os.fork()
if pid == 0:
    is_child = True
    other = new_loop()
    other.run_until_complete(child())
    other.run_until_complete(other.shutdown_asyncgens())
    other.close()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
loop.run_until_complete(afterwards())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("kind", LOOPS)
def test_a_forked_child_connects_itself_and_leaves_the_connection_of_its_parent_alone(
    server: Server, kind: str
) -> None:
    if kind not in ("asyncio", "uvloop"):
        pytest.skip(kind)
    assert output_of(FORK, server.port, kind, PYTHONWARNINGS="ignore") == "sound True\n"


@pytest.mark.parametrize("stops", ["returns", "blocks"])
def test_a_caller_on_another_loop_is_answered_when_the_owners_loop_stands_still(
    run: Run, backend: RedisBackend, stops: str
) -> None:
    """The caller waits for the load of another process, and the loop that owns the connection
    returns from ``run_until_complete``, or is blocked.
    """
    cache, other = pair(backend)
    is_owned, waits, loads = threading.Event(), threading.Event(), threading.Event()
    is_answered = threading.Event()

    async def slow() -> str:
        loads.set()
        await asyncio.sleep(1)
        return "value"

    async def own() -> None:
        await connected(cache)
        is_owned.set()
        assert waits.wait(20)
        await asyncio.sleep(0.1)  # the question is sent
        if stops == "blocks":
            is_answered.wait(10)

    def owner() -> None:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(own())
        is_answered.wait(20)  # neither closed nor driven
        loop.run_until_complete(asyncio.sleep(0.05))
        loop.close()

    def holder() -> None:
        asyncio.run(other.get("k", slow))

    async def wait() -> Any:
        assert loads.wait(20)
        call = asyncio.ensure_future(cache.get("k", slow))
        await asyncio.sleep(0.1)
        waits.set()
        return await asyncio.wait_for(call, 6)

    threads = [threading.Thread(target=owner)]
    threads[0].start()
    assert is_owned.wait(20)
    threads.append(threading.Thread(target=holder))
    threads[1].start()
    try:
        assert run(wait()) == "value"
    finally:
        is_answered.set()
        for thread in threads:
            thread.join(20)


def test_a_driver_that_another_loop_has_replaced_meanwhile_does_nothing_more(
    run: Run, server: Server, backend: RedisBackend
) -> None:
    """The owner's driver is held up in a filter of the log, and another loop takes over. The bytes
    of a later write are written by the new owner, not by the held driver, which goes on.
    """
    cache, log = AsyncCache(remote_cache=backend), logging.getLogger("async_cache.remote")
    is_held, is_released = threading.Event(), threading.Event()

    def hold(_: logging.LogRecord) -> bool:
        if threading.current_thread() is owner:
            is_held.set()
            assert is_released.wait(20)
        return True

    owner = threading.Thread(target=lambda: asyncio.run(connected(cache)))

    async def guest() -> None:
        assert await cache.get("taken over", Counted("value")) == "value"
        assert await cache.get("connects", Counted("value")) == "value"
        await soon(lambda: cache.stats()["remote_up"])
        await acknowledged(cache)
        await turns()
        # This loop stands still from here on.
        before = server.call("DBSIZE")
        writer = threading.Thread(target=lambda: cache.set("written", 1))
        writer.start()
        writer.join()
        is_released.set()
        owner.join(20)
        assert server.call("DBSIZE") == before
        await acknowledged(cache)
        assert server.call("DBSIZE") == before + 1

    level = log.level
    log.setLevel(logging.INFO)
    log.addFilter(hold)
    try:
        owner.start()
        assert is_held.wait(20)
        run(guest())
    finally:
        is_released.set()
        log.removeFilter(hold)
        log.setLevel(level)
        owner.join(20)


def test_an_interrupt_while_the_end_of_a_loop_waits_for_writes_still_ends_the_connection(
    run: Run, server: Server, backend: RedisBackend
) -> None:
    cache = AsyncCache(remote_cache=backend)

    async def main() -> None:
        await connected(cache)
        server.pause()
        try:
            cache.set("k", 1)
            end = task(asyncio.get_running_loop().shutdown_asyncgens())
            await asyncio.sleep(0.02)
            assert cache.stats()["remote_up"], "it waits"
            await cancel(end)
            assert not cache.stats()["remote_up"]
        finally:
            server.resume()

    run(main())
    assert connections(server) == 0

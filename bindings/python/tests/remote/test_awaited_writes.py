"""Awaited writes: they are on the server when the caller goes on, or the server is not well."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import warnings
from typing import Any

import pytest
from loops import Run, outcome, task
from programs import output_of
from proxy import Direction, Proxy
from servers import Server
from shared_caches import connected, pair, soon, timed
from test_own_backend import Memory

from cache import AsyncCache, RedisBackend

TIMEOUT = 0.25  # seconds; the default
AT_ONCE = 0.15  # seconds; on a machine with other work


def fresh(backend: RedisBackend) -> AsyncCache:
    """A cache of another process."""
    return AsyncCache(remote_cache=backend)


def test_an_awaited_write_is_on_the_server(run: Run, backend: RedisBackend) -> None:
    async def main() -> None:
        cache = fresh(backend)
        for number in range(50):
            await cache.set("k", number)
            assert cache.stats()["remote_pending"] == 0
        assert await fresh(backend).get("k") == 49
        await cache.delete("k")
        assert await fresh(backend).get("k") is None
        await cache.set("k", 1)
        await cache.clear()
        assert await fresh(backend).get("k") is None

    run(main())


def test_a_write_may_be_run_as_a_program(backend: RedisBackend) -> None:
    asyncio.run(fresh(backend).set("k", 1))
    assert asyncio.run(fresh(backend).get("k")) == 1
    asyncio.run(fresh(backend).delete("k"))
    assert asyncio.run(fresh(backend).get("k")) is None
    asyncio.run(backend.set("s", 2))
    assert asyncio.run(fresh(backend).get("s")) == 2
    asyncio.run(fresh(backend).clear())
    assert asyncio.run(fresh(backend).get("s")) is None


def test_an_awaited_write_that_meets_a_clear_leaves_nothing_older(
    run: Run, server: Server, backend: RedisBackend
) -> None:
    with Proxy(server.address) as proxy:

        async def main() -> None:
            writer, other = AsyncCache(remote_cache=RedisBackend(*proxy.address)), fresh(backend)
            await connected(writer)
            # The writer hears late of the clear, and that its own write has run.
            proxy.delay(Direction.TO_CLIENT, 0.05)
            await other.clear()
            await other.set("k", "old")
            await writer.delete("k")
            await other.get("another key")  # hears what the server has done
            assert await other.get("k") is None

        run(main())


def test_a_loop_that_ends_delivers_writes_that_nobody_awaits(
    run: Run, server: Server, backend: RedisBackend
) -> None:
    with Proxy(server.address) as proxy:
        cache = AsyncCache(remote_cache=RedisBackend(*proxy.address))

        async def main() -> None:
            await connected(cache)
            proxy.delay(Direction.TO_SERVER, 0.05)
            cache.set("k", 1)

        run(main())
        assert cache.stats()["remote_pending"] == 0
    assert run(fresh(backend).get("k")) == 1


def test_the_end_of_a_program_waits_for_its_writes(server: Server, backend: RedisBackend) -> None:
    program = """
        import asyncio, sys
        from cache import AsyncCache, RedisBackend
        cache = AsyncCache(remote_cache=RedisBackend(port=int(sys.argv[1])))
        async def main():
            await cache.get("connects")
            for number in range(200):
                cache.set(number, "x" * 10_000)
        asyncio.run(main())
    """
    output_of(program, str(server.address[1]))
    assert asyncio.run(fresh(backend).get(199)) == "x" * 10_000


def test_a_silent_server_costs_the_timeout_once(run: Run, server: Server, backend: RedisBackend) -> None:
    async def main() -> None:
        cache = fresh(backend)
        await connected(cache)
        server.pause()
        try:
            nothing, seconds = await timed(cache.set("k", 1))
            assert nothing is None
            assert TIMEOUT - 0.05 < seconds < TIMEOUT + AT_ONCE
            for write in (cache.delete("k"), cache.set("k", 2), cache.clear()):
                assert (await timed(write))[1] < AT_ONCE
        finally:
            server.resume()

    run(main())


def test_a_server_that_is_away_is_not_waited_for(run: Run, server: Server, backend: RedisBackend) -> None:
    async def main() -> None:
        cache = fresh(backend)
        await connected(cache)
        waiting = task(cache.set("before", 1))
        server.kill()
        await waiting
        await soon(lambda: not cache.stats()["remote_up"])
        for write in (cache.set("k", 2), cache.delete("k"), cache.clear()):
            assert (await timed(write))[1] < AT_ONCE
        assert (await timed(fresh(backend).set("k", 1)))[1] < AT_ONCE

    run(main())


def test_a_cancelled_caller_leaves_and_the_write_goes_on(
    run: Run, server: Server, backend: RedisBackend
) -> None:
    async def main() -> None:
        cache = fresh(backend)
        await connected(cache)
        server.pause()
        try:
            caller = task(cache.set("k", 1))
            await asyncio.sleep(0.01)
            assert not caller.done()
            caller.cancel()
            assert isinstance(await outcome(caller), asyncio.CancelledError)
        finally:
            server.resume()
        await cache.set("later", 1)
        assert await fresh(backend).get("k") == 1

    run(main())


def test_a_write_may_be_awaited_by_several_and_again(run: Run, backend: RedisBackend) -> None:
    async def main() -> None:
        cache = fresh(backend)
        written: Any = cache.set("k", 1)

        async def wait() -> None:
            await written

        await asyncio.gather(wait(), wait(), wait())
        await written
        written.close()
        await written
        assert await fresh(backend).get("k") == 1

    run(main())


def test_a_write_on_another_event_loop_is_awaited_there(run: Run, backend: RedisBackend) -> None:
    async def main() -> None:
        cache = fresh(backend)
        await connected(cache)
        seen: list[Any] = []

        def elsewhere() -> None:
            async def write() -> None:
                await cache.set("k", 1)
                seen.append(cache.stats()["remote_pending"])

            asyncio.run(write())

        thread = threading.Thread(target=elsewhere)
        thread.start()
        await asyncio.to_thread(thread.join)
        assert seen == [0]
        assert await fresh(backend).get("k") == 1

    run(main())


def test_thousands_of_awaited_writes_are_each_looked_at_once(
    run: Run, backend: RedisBackend, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        cache = AsyncCache(remote_cache=backend, maxsize=None)
        await connected(cache)
        begun = time.process_time()
        await asyncio.gather(*[cache.set(number, number) for number in range(500)])
        few = time.process_time() - begun
        begun = time.process_time()
        await asyncio.gather(*[cache.set(number, number) for number in range(4000)])
        assert time.process_time() - begun < 30 * few
        assert cache.stats()["remote_pending"] == 0

    with caplog.at_level(logging.WARNING, "async_cache.remote"):
        run(main())
    assert caplog.records == []


def test_an_awaited_write_does_not_wait_for_later_writes(run: Run, server: Server) -> None:
    with Proxy(server.address) as proxy:

        async def main() -> None:
            cache = AsyncCache(remote_cache=RedisBackend(*proxy.address))
            await connected(cache)
            proxy.delay(Direction.TO_SERVER, 0.01)
            ended = False

            async def others() -> None:
                number = 0
                while not ended:
                    cache.set("k", number)
                    number += 1
                    await asyncio.sleep(0.001)

            writes = task(others())
            seconds = [(await timed(cache.set("k", -1)))[1] for _ in range(9)]
            seconds.append((await timed(cache.clear()))[1])
            ended = True
            await writes
            assert sorted(seconds)[5] < TIMEOUT / 2, seconds

        run(main())


def test_a_write_of_a_loop_that_has_ended_is_awaited_on_another(run: Run, backend: RedisBackend) -> None:
    cache = fresh(backend)
    first = asyncio.new_event_loop()
    first.run_until_complete(connected(cache))
    written: Any = cache.set("k", 1)
    first.run_until_complete(first.shutdown_asyncgens())
    first.close()

    async def main() -> None:
        await written
        assert cache.stats()["remote_pending"] == 0

    run(main())


def test_a_write_that_nobody_awaits_says_nothing(run: Run, backend: RedisBackend) -> None:
    async def main() -> None:
        first, second = pair(backend)
        await connected(first, second)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            first.set("k", 1)
            first.delete("k")
            first.clear()
        assert "remote" in repr(first.set("k", 1))
        assert "remote" not in repr(first.set("k", 1, write_remote=False))

    run(main())


def test_a_write_to_a_backend_of_ones_own_is_awaited(run: Run) -> None:
    backend = Memory()

    async def main() -> None:
        cache = AsyncCache(remote_cache=backend)
        await cache.set("k", 1)
        assert list(backend.values.values()) == [1]
        await cache.delete("k")
        assert backend.values == {}

    run(main())

"""A blocked event loop, and loops that end while the connection is at work.

A loop that was blocked for longer than the timeout has not heard a healthy server. The bug's story:
the next call took the unread socket for a silent server, ran the loader, and logged an outage.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest
from loops import LOOPS, Run, task, turns
from programs import complete
from servers import Server
from shared_caches import Counted, acknowledged, connected, pair, soon, timed
from test_own_backend import Memory

from cache import AsyncCache, RedisBackend

BLOCKED = 0.3  # seconds; longer than the timeout
TIMEOUT = 0.25  # seconds; the default
AT_ONCE = 0.15  # seconds; on a machine with other work


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "async_cache.remote")


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_block_after_a_write_is_no_silence_of_the_server(
    run: Run, backend: RedisBackend, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        cache, other = pair(backend)
        await connected(cache, other)
        await other.set("k", "value")
        caplog.clear()
        for number in range(3):
            load = Counted("loaded")
            cache.set(("written", number), number)
            time.sleep(BLOCKED)
            assert await cache.get("k", load) == "value"
            assert load.calls == 0
            await other.set("k", "value")
            await soon(lambda: "k" not in cache.cache)
        assert caplog.records == []
        await acknowledged(cache)

    run(main())


def test_a_block_while_a_call_waits_is_no_silence_of_the_server(
    run: Run, backend: RedisBackend, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        cache, other = pair(backend)
        await connected(cache, other)
        for number in range(3):
            await other.set(("k", number), "value")
        caplog.clear()
        load = Counted("loaded")
        for number in range(3):
            call = task(cache.get(("k", number), load))
            # The question is sent in the first turn, and its answer is not read.
            await asyncio.sleep(0)
            time.sleep(BLOCKED)
            assert await call == "value"
        assert load.calls == 0
        assert caplog.records == []

    run(main())


def test_a_loop_that_is_always_busy_notices_a_frozen_server(
    run: Run, server: Server, backend: RedisBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """Each turn of the loop takes long, so all of its timers are late."""

    async def main() -> None:
        cache = AsyncCache(remote_cache=backend)
        await connected(cache)
        server.pause()
        is_over = False

        async def work() -> None:
            while not is_over:
                time.sleep(0.05)
                await asyncio.sleep(0)

        working = task(work())
        try:
            value, seconds = await timed(cache.get("first", Counted("value")))
            assert value == "value"
            assert 0.2 < seconds < TIMEOUT + 5 * 0.05 + AT_ONCE
            value, seconds = await timed(cache.get("later", Counted("value")))
            assert (value, seconds < 5 * 0.05) == ("value", True)
        finally:
            is_over = True
            server.resume()
        await working
        await soon(lambda: cache.stats()["remote_up"])

    run(main())
    assert len(warnings_in(caplog)) == 1


@pytest.mark.parametrize("count", range(10))
def test_a_loop_that_ends_while_it_connects_ends_at_once_and_says_nothing(
    run: Run, backend: RedisBackend, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    """The program writes once, its loop turns a few times, and it ends."""
    cache = AsyncCache(remote_cache=backend)

    async def main() -> None:
        cache.set("k", 1)
        await turns(count)

    begun = time.monotonic()
    run(main())
    assert time.monotonic() - begun < AT_ONCE
    assert warnings_in(caplog) == []
    run(connected(cache))
    run(cache.set("k", 2))
    assert run(AsyncCache(remote_cache=backend).get("k")) == 2


PROGRAM = """
import asyncio, logging, sys, time
from cache import AsyncCache, RedisBackend

logging.basicConfig(level=logging.WARNING)
run = asyncio.run
if sys.argv[2] == "uvloop":
    from uvloop import run
cache = AsyncCache(remote_cache=RedisBackend(port=int(sys.argv[1]), timeout=10))

async def main():
    cache.set("k", 1)
    for _ in range(int(sys.argv[3])):
        await asyncio.sleep(0)
    return time.monotonic()

begun = run(main())
print(time.monotonic() - begun)
"""


@pytest.mark.parametrize("kind", LOOPS)
def test_a_short_program_ends_at_once_and_says_nothing(server: Server, kind: str) -> None:
    if kind not in ("asyncio", "uvloop"):
        pytest.skip(kind)
    for count in range(4):
        done = complete(PROGRAM, str(server.port), kind, str(count))
        assert float(done.stdout) < 5  # half of the timeout
        assert done.stderr == ""


class Slow(Memory):
    """A backend whose values take long to arrive."""

    async def set(self, key: str, value: Any, ttl: float | None = None) -> None:
        await asyncio.sleep(5)
        await super().set(key, value, ttl)


class SlowToRemove(Memory):
    """A backend whose first removal takes long."""

    removals = 0

    async def delete(self, key: str) -> None:
        self.removals += 1
        if self.removals == 1:
            await asyncio.sleep(5)
        await super().delete(key)


@pytest.mark.parametrize("count", range(4))
def test_a_loop_that_ends_cuts_a_write_to_a_backend_of_ones_own_short(
    run: Run, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    backend = Slow()
    backend.values["k"] = "old"
    cache = AsyncCache(remote_cache=backend)

    async def main() -> None:
        await cache.get("k")
        cache.set("k", "new")
        await turns(count)

    begun = time.monotonic()
    run(main())
    assert time.monotonic() - begun < AT_ONCE
    assert backend.values == {}, "nothing older than the write is left"
    assert not any("silent" in line for line in warnings_in(caplog))
    assert cache.stats()["remote_pending"] == 0


def test_a_removal_that_the_end_of_a_loop_cancels_runs_again(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    backend = SlowToRemove()
    backend.values["k"] = "old"
    cache = AsyncCache(remote_cache=backend)

    async def main() -> None:
        await cache.get("k")
        cache.delete("k")
        await turns()

    begun = time.monotonic()
    run(main())
    assert time.monotonic() - begun < AT_ONCE
    assert backend.values == {}
    assert warnings_in(caplog) == []
    assert cache.stats()["remote_pending"] == 0

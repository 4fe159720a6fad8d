"""A primary that Sentinels watch is killed, and its replica takes over."""

from __future__ import annotations

import asyncio
import gc
import logging
import ssl
import time

import pytest
from loops import Run
from nodes import NAME, Failover, failover
from proxy import Direction, Proxy
from servers import AUTHORITY, Program, eventually
from shared_caches import Counted, acknowledged, connected, pair, soon, within

from cache import AsyncCache, RedisBackend

LIMIT = 20  # seconds; a promotion takes about two


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "async_cache.remote")


async def is_promoted(nodes: Failover) -> bool:
    return await asyncio.to_thread(nodes.master_port) == nodes.replica.port


async def keep(key: str, value: str, backend: RedisBackend, nodes: Failover) -> None:
    """Stores a value with a cache that ends, so that no cache sends the write once more."""
    writer = AsyncCache(remote_cache=backend)
    await writer.set(key, value)
    await acknowledged(writer)
    del writer
    gc.collect()

    async def has_it() -> bool:
        return bool(await asyncio.to_thread(nodes.replica.call, "KEYS", f"*:s{key}"))

    await within(5, has_it)


async def outlive_the_primary(backend: RedisBackend, nodes: Failover) -> None:
    await keep("kept", "old", backend, nodes)
    await keep("gone", "old", backend, nodes)
    one, two = pair(backend)
    for cache in (one, two):
        await connected(cache)
        assert (await cache.get("kept"), await cache.get("gone")) == ("old", "old")
    nodes.master.kill()
    load, calls = Counted(), 0

    async def callers_are_answered() -> bool:
        nonlocal calls
        calls += 1
        assert await one.get(("during", calls), load) == calls
        assert await two.get("kept") == "old", "served while the server is away"
        return await is_promoted(nodes)

    await within(LIMIT, callers_are_answered)
    assert load.calls == calls
    # Removed where the caches do not listen yet.
    await asyncio.to_thread(nodes.replica.call, "DEL", *nodes.replica.call("KEYS", "*:sgone"))
    number = 0

    async def writes_arrive() -> bool:
        nonlocal number
        number += 1
        await one.set("after", number)
        return bool(await two.get("after") == number)

    await within(10, writes_arrive)
    assert await two.get("gone") is None, "memory was suspect"
    before = two.stats()["remote_hits"]
    assert await AsyncCache(remote_cache=backend).get("kept", Counted("loaded")) == "old"
    assert await two.get("kept", Counted("loaded")) == "old", "the new primary has it"
    assert two.stats()["remote_hits"] >= before
    assert nodes.replica.call("KEYS", "*:safter"), "on the new primary"
    # News of the new primary are heard.
    await acknowledged(one)
    assert await two.get("after") == number
    one.delete("after")
    await soon(lambda: "after" not in two.cache)


def test_writes_resume_after_a_promotion_and_no_caller_sees_an_error(
    run: Run, program: Program, caplog: pytest.LogCaptureFixture
) -> None:
    with failover(program) as nodes:
        # The first Sentinel is not there.
        url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{nodes.sentinel.port}/{NAME}"
        run(outlive_the_primary(RedisBackend(url=url), nodes))
        place = f"the primary {NAME} of Sentinels 127.0.0.1:1, 127.0.0.1:{nodes.sentinel.port}"
        messages = [record.getMessage() for record in caplog.records]
        for port in (nodes.master.port, nodes.replica.port):
            assert f"{place} is connected at 127.0.0.1:{port}" in messages
        assert any(message.startswith(f"{place} is away: ") for message in messages)


def test_a_promotion_with_encrypted_connections(run: Run, program: Program) -> None:
    if not program.speaks_tls():
        pytest.skip(f"built without TLS: {program}")
    with failover(program, "tls") as nodes:
        context = ssl.create_default_context(cafile=str(AUTHORITY))
        url = f"rediss+sentinel://localhost:{nodes.sentinel.port}/{NAME}"
        run(outlive_the_primary(RedisBackend(url=url, ssl=context), nodes))


def test_a_silent_sentinel_holds_up_no_caller_and_the_next_one_is_asked(run: Run, program: Program) -> None:
    async def main(url: str) -> None:
        cache, load = AsyncCache(remote_cache=RedisBackend(url=url)), Counted()
        begun = time.monotonic()
        assert [await cache.get(number, load) for number in range(20)] == [*range(1, 21)]
        assert time.monotonic() - begun < 1

        async def is_up() -> bool:
            return bool(cache.stats()["remote_up"])

        await within(5, is_up)

    with failover(program) as nodes, Proxy(nodes.sentinel.address) as silent:
        silent.hold(Direction.TO_CLIENT)
        sentinels = f"127.0.0.1:{silent.address[1]},127.0.0.1:{nodes.sentinel.port}"
        run(main(f"redis+sentinel://{sentinels}/{NAME}"))


def test_a_loop_that_ends_while_a_sentinel_is_silent_leaves_nothing_behind(
    run: Run, program: Program
) -> None:
    async def main(proxy: Proxy) -> None:
        url = f"redis+sentinel://127.0.0.1:{proxy.address[1]}/{NAME}"
        cache = AsyncCache(remote_cache=RedisBackend(url=url))
        assert await cache.get("k", Counted("value")) == "value"
        assert proxy.open() == 1

    with program.start() as server, Proxy(server.address) as proxy:
        proxy.hold(Direction.TO_CLIENT)
        run(main(proxy))
        proxy.release(Direction.TO_CLIENT)
        eventually("the connection is closed", lambda: proxy.open() == 0)


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("redis+sentinel://127.0.0.1:{sentinel}/other", "does not know `other`; check the name"),
        ("redis+sentinel://127.0.0.1:{master}/main", "ERR unknown command"),
        ("redis+sentinel://127.0.0.1:1/main", "no connection to 127.0.0.1:1: "),
        ("redis://127.0.0.1:{sentinel}", "the server is a Sentinel; use a URL with redis+sentinel://"),
        ("redis://127.0.0.1:{replica}", "the server is a replica; connect to the primary"),
    ],
)
def test_a_wrong_place_is_said_with_the_remedy_and_callers_go_on(
    run: Run, program: Program, caplog: pytest.LogCaptureFixture, form: str, words: str
) -> None:
    async def main(url: str) -> None:
        cache = AsyncCache(remote_cache=RedisBackend(url=url))
        load = Counted()
        assert await cache.get("k", load) == 1
        assert await cache.get("k", load) == 1
        await cache.set("k", "set")
        assert await cache.get("k", load) == "set"

        def said() -> list[str]:
            return [
                message for message in map(logging.LogRecord.getMessage, caplog.records) if words in message
            ]

        await soon(lambda: bool(said()))
        assert len(said()) == 1
        assert not cache.stats()["remote_up"]

    with failover(program) as nodes:
        ports = {"sentinel": nodes.sentinel.port, "master": nodes.master.port}
        run(main(form.format(**ports, replica=nodes.replica.port)))


def test_sentinels_with_a_password_of_their_own(run: Run, program: Program) -> None:
    async def main(url: str) -> None:
        cache = AsyncCache(remote_cache=RedisBackend(url=url, password="at the server"))
        await connected(cache)

    with failover(program) as nodes:
        nodes.master.call("CONFIG", "SET", "requirepass", "at the server")
        with nodes.sentinel.connect() as client:
            client.call("ACL", "SETUSER", "default", "resetpass", ">at the sentinel")
        query = "sentinel_password=at%20the%20sentinel"
        run(main(f"redis+sentinel://127.0.0.1:{nodes.sentinel.port}/{NAME}?{query}"))

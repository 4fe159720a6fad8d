"""Servers that cannot do everything: of RESP2 only, or a replica after a change of roles."""

from __future__ import annotations

import logging

import pytest
from loops import Run
from servers import Program, Server
from shared_caches import Counted, acknowledged, connected, pair, soon, within

from cache import AsyncCache, RedisBackend


def test_a_server_of_resp2_only_shares_entries_for_a_short_time(
    run: Run, program: Program, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "async_cache.remote")

    async def main(server: Server) -> None:
        one, two = pair(RedisBackend(*server.address, uncovered_ttl=0.1))
        await connected(one, two)
        load = Counted({"a": (1, 2)})
        assert await one.get("k", load) == {"a": (1, 2)}
        await acknowledged(one)
        assert await two.get("k", load) == {"a": (1, 2)}
        assert load.calls == 1
        await one.set("k", "new")
        await soon(lambda: "k" not in two.cache)
        assert await two.get("k", load) == "new"
        assert any("speaks RESP2 only, or forbids HELLO" in message for message in caplog.messages)

    with program.start('rename-command HELLO ""') as server:
        run(main(server))


def test_a_primary_that_becomes_a_replica_is_left_until_it_is_primary_again(
    run: Run, program: Program, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(other: Server) -> None:
        cache, load = AsyncCache(remote_cache=RedisBackend(*server.address)), Counted()
        await connected(cache)
        await cache.set("before", 1)
        await acknowledged(cache)
        server.call("REPLICAOF", "127.0.0.1", other.port)
        cache.delete("before")
        await soon(lambda: not cache.stats()["remote_up"])
        for number in range(1, 4):
            assert await cache.get(("during", number), load) == number
        assert "the server is a replica" in caplog.messages[0]
        assert "use a URL with redis+sentinel://" in caplog.messages[0]
        server.call("REPLICAOF", "NO", "ONE")

        async def is_up() -> bool:
            return bool(cache.stats()["remote_up"])

        await within(10, is_up)
        await acknowledged(cache)
        assert await cache.get("before") is None
        assert not server.call("KEYS", "*:sbefore")

    with program.start() as other:
        run(main(other))

"""Servers that freeze, die, come back or refuse: no caller gets an exception, or waits for long."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from loops import Load, Run, task
from proxy import Direction, Proxy
from servers import Server
from shared_caches import Counted, acknowledged, connected, pair, soon, timed

from cache import AsyncCache, DiskBackend, RedisBackend

AT_ONCE = 0.15  # seconds; on a machine with other work
FIRST_CALL = 0.4  # seconds; a timeout of 0.25, and other work


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "async_cache.remote")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The changes of state in the log."""
    words = ("is away", "is connected", "refuses")
    messages = [record.getMessage() for record in caplog.records]
    return [next((word for word in words if word in message), message) for message in messages]


def test_a_frozen_server_costs_one_call_a_timeout_and_later_calls_nothing(
    run: Run, server: Server, backend: RedisBackend, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        cache = AsyncCache(remote_cache=backend)
        await connected(cache)
        server.pause()
        try:
            gets = [cache.get(("first", number), Counted("value")) for number in range(20)]
            values, seconds = await timed(asyncio.gather(*gets))
            assert values == ["value"] * 20
            assert 0.2 < seconds < FIRST_CALL
            for number in range(3):
                value, seconds = await timed(cache.get(("later", number), Counted("value")))
                assert (value, seconds < AT_ONCE) == ("value", True)
            cache.delete("k")
            await cache.set("k", 1)
            assert await cache.get("k") == 1
        finally:
            server.resume()
        await soon(lambda: cache.stats()["remote_up"])
        await acknowledged(cache)
        assert said(caplog) == ["is connected", "is away", "is connected"]

    run(main())


def test_a_write_of_a_lost_connection_does_not_arrive_after_those_of_the_next(
    run: Run, server: Server, backend: RedisBackend
) -> None:
    async def main() -> None:
        with Proxy(server.address) as proxy:
            writer, other = (
                AsyncCache(remote_cache=RedisBackend(*proxy.address)),
                AsyncCache(remote_cache=backend),
            )
            await connected(writer)
            proxy.delay(Direction.TO_SERVER, 3)
            writer.set("k", "old")
            await asyncio.sleep(0.1)
            proxy.delay(Direction.TO_SERVER, 0)
            # The silent connection is given up, and there is another.
            await soon(lambda: proxy.accepted() == 2)
            await acknowledged(writer)
            await writer.set("k", "new")
            assert await other.get("k") == "new"
            await asyncio.sleep(2.5)
            await connected(other)
            assert await other.get("k") == "new"

    run(main())


def test_a_killed_server_and_its_return(
    run: Run, server: Server, backend: RedisBackend, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        first, second = pair(backend)
        await first.set("kept", 1)
        await acknowledged(first)
        assert await second.get("kept") == 1
        server.kill()
        await soon(lambda: not first.stats()["remote_up"] and not second.stats()["remote_up"])
        assert (await timed(first.get("new", Counted("value"))))[0] == "value"
        assert await second.get("kept") == 1, "served while the server is away"
        first.delete("kept")
        await asyncio.to_thread(server.restart)
        await soon(lambda: first.stats()["remote_up"] and second.stats()["remote_up"])
        load = Counted("loaded anew")
        assert await second.get("kept", load) == "loaded anew"
        assert await first.get("kept", load) == "loaded anew"
        assert load.calls == 1
        assert said(caplog).count("is away") == 2, "once for each cache"

    run(main())


def test_without_serving_nothing_is_served_while_the_server_is_away(run: Run, server: Server) -> None:
    async def main() -> None:
        cache = AsyncCache(remote_cache=RedisBackend(*server.address, while_down="bypass"))
        await cache.set("k", "old")
        await acknowledged(cache)
        assert await cache.get("k") == "old"
        server.kill()
        await soon(lambda: "k" not in cache.cache)
        load = Counted()
        assert [await cache.get("k", load), await cache.get("k", load)] == [1, 2]

    run(main())


def test_no_server_at_all(run: Run, server: Server, backend: RedisBackend) -> None:
    server.kill()

    async def main() -> None:
        cache = AsyncCache(remote_cache=backend)
        load = Counted()
        assert (await timed(cache.get("k", load)))[1] < FIRST_CALL
        assert await cache.get("k", load) == 1
        assert await cache.get("none") is None
        cache.delete("k")
        cache.clear()
        assert await cache.get("k", load) == 2

    run(main())


def test_a_cut_connection_is_made_anew_and_what_was_deleted_meanwhile_stays_deleted(
    run: Run, server: Server
) -> None:
    async def main() -> None:
        with Proxy(server.address) as proxy:
            far = AsyncCache(remote_cache=RedisBackend(*proxy.address))
            near = AsyncCache(remote_cache=RedisBackend(*server.address))
            await near.set("k", "old")
            await acknowledged(near)
            assert await far.get("k") == "old"
            proxy.refuse()
            proxy.cut()
            await soon(lambda: not far.stats()["remote_up"])
            near.delete("k")
            far.delete("other")
            await acknowledged(near)
            assert await far.get("k") == "old", "it could not hear"
            proxy.accept()
            await soon(lambda: far.stats()["remote_up"])
            assert await far.get("k") is None
            await acknowledged(far)

    run(main())


def test_a_half_open_connection_is_given_up(run: Run, server: Server) -> None:
    async def main() -> None:
        with Proxy(server.address) as proxy:
            cache = AsyncCache(remote_cache=RedisBackend(*proxy.address))
            await connected(cache)
            before = proxy.accepted()
            proxy.hold(Direction.TO_CLIENT)
            assert (await timed(cache.get("k", Counted("value"))))[1] < FIRST_CALL
            # After a timeout and a second of silence: another connection.
            while proxy.accepted() == before:
                await asyncio.sleep(0.01)
            proxy.release(Direction.TO_CLIENT)
            await soon(lambda: cache.stats()["remote_up"])

    run(main())


def test_bytes_that_come_one_by_one(run: Run, server: Server) -> None:
    async def main() -> None:
        with Proxy(server.address) as proxy:
            proxy.split(Direction.TO_CLIENT)
            proxy.split(Direction.TO_SERVER)
            first, second = pair(RedisBackend(*proxy.address, timeout=5))
            assert await first.get("k", Counted({"a": [1, 2]})) == {"a": [1, 2]}
            await acknowledged(first)
            assert await second.get("k", Counted()) == {"a": [1, 2]}

    run(main())


def test_a_user_without_the_right_to_hear_of_changes(
    run: Run, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.call("ACL", "SETUSER", "deaf", "on", ">secret", "~*", "&*", "+@all", "-client|tracking")

    async def main() -> None:
        backend = RedisBackend(*server.address, username="deaf", password="secret", uncovered_ttl=0.1)
        first, second = pair(backend)
        await first.set("k", "old")
        await acknowledged(first)
        assert await second.get("k") == "old"
        await first.set("k", "new")
        await soon(lambda: "k" not in second.cache)
        assert await second.get("k") == "new"
        assert any("CLIENT TRACKING" in record.getMessage() for record in caplog.records)

    run(main())


def test_a_user_without_the_right_to_run_scripts(run: Run, server: Server) -> None:
    rights = ("~*", "&*", "+@all", "-eval", "-evalsha", "-@scripting")
    server.call("ACL", "SETUSER", "plain", "on", ">secret", *rights)

    async def main() -> None:
        first, second = pair(RedisBackend(*server.address, username="plain", password="secret"))
        load = Counted()
        assert await first.get("k", load) == 1
        await acknowledged(first)
        # Such a load is not among the acknowledged writes.
        while await second.get("k") is None:
            await asyncio.sleep(0.001)
        assert await second.get("k", load) == 1

    run(main())


def test_a_file_is_not_trusted_while_the_server_can_be_asked(
    run: Run, server: Server, backend: RedisBackend, path: Path
) -> None:
    async def before() -> None:
        cache = AsyncCache(remote_cache=backend, backup=DiskBackend(path))
        await cache.set("k", "in the file")
        await cache.set("gone", "in the file")
        await acknowledged(cache)
        cache.save_to_backup()
        cache.delete("gone")
        await acknowledged(cache)
        other = AsyncCache(remote_cache=backend)
        await other.set("k", "newer")
        await acknowledged(other)

    async def after() -> None:
        cache = AsyncCache(remote_cache=backend, backup=DiskBackend(path))
        assert await cache.get("k", Counted("loaded")) == "newer"
        assert await cache.get("gone", Counted("loaded")) == "loaded"

    async def without_the_server() -> None:
        cache = AsyncCache(remote_cache=backend, backup=DiskBackend(path))
        load = Counted("loaded")
        assert await cache.get("k", load) == "in the file"
        assert load.calls == 0

    run(before())
    run(after())
    server.kill()
    run(without_the_server())


@pytest.mark.parametrize("state", ["connecting", "reading", "waiting", "loading"])
def test_a_cancelled_call_leaves_nothing_behind(run: Run, server: Server, state: str) -> None:
    async def main() -> None:
        with Proxy(server.address) as proxy:
            cache = AsyncCache(remote_cache=RedisBackend(*proxy.address, timeout=10))
            other = AsyncCache(remote_cache=RedisBackend(*server.address))
            await connected(other)
            if state != "connecting":
                await connected(cache)
            if state in ("connecting", "reading"):
                proxy.hold(Direction.TO_CLIENT)
            others = Load()
            if state == "waiting":
                loading = task(other.get("k", others))
                await others.called()
            load = Load()
            call = task(cache.get("k", load))
            if state == "loading":
                await load.called()
            else:
                await asyncio.sleep(0.05)
                assert load.calls == []
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert cache.stats()["running_loads"] == 0
            proxy.release(Direction.TO_CLIENT)
            if state == "waiting":
                others.answer("value")
                assert await loading == "value"
            value, seconds = await timed(other.get("k", Counted("value")))
            assert (value, seconds < 1) == ("value", True), "no lease is left"
            assert await cache.get("k", Counted("value")) == "value"

    run(main())


def test_a_server_that_is_too_old_or_none_is_said_to_be_away(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async def speaks_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(10)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        listener = await asyncio.start_server(speaks_http, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        cache = AsyncCache(remote_cache=RedisBackend("127.0.0.1", port))
        assert await cache.get("k", Counted("value")) == "value"
        await soon(lambda: len(caplog.records) > 0)
        assert "HTTP" in caplog.records[0].getMessage()
        cache.remote_cache = None
        listener.close()

    run(main())

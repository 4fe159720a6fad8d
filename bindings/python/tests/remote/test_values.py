"""Values that go to a server, and those that do not."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from loops import Run
from servers import Server
from shared_caches import Counted, acknowledged, connected, pair, soon

from cache import AsyncCache, RedisBackend

SECRET = b"sixteen bytes and more"


class Pickled:
    """A value that only pickle can represent."""

    def __init__(self, number: int) -> None:
        self.number = number


def test_without_a_secret_a_pickled_value_stays_in_its_process_and_that_is_said_once(
    run: Run, backend: RedisBackend, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        first, second = pair(backend)
        await connected(first, second)
        caplog.clear()
        for number in range(3):
            await first.set(number, Pickled(number))
        await acknowledged(first)
        assert (await first.get(1)).number == 1
        load = Counted("of its own")
        assert await second.get(1, load) == "of its own"
        assert await second.get(1, load) == "of its own"
        assert load.calls == 1, "memory keeps it"
        first.delete(1)
        await soon(lambda: 1 not in second.cache)  # its changes are heard nevertheless
        assert first.stats()["remote_unshared"] == 3
        said = [
            record.getMessage() for record in caplog.records if "this process only" in record.getMessage()
        ]
        assert len(said) == 1
        assert "secret" in said[0]

    run(main())


def test_with_a_secret_a_pickled_value_is_shared(run: Run, server: Server) -> None:
    async def main() -> None:
        first, second = pair(RedisBackend(*server.address, secret=SECRET))
        await first.set("k", Pickled(7))
        await acknowledged(first)
        assert (await second.get("k")).number == 7

    run(main())


def test_another_secret_shares_nothing(run: Run, server: Server) -> None:
    async def main() -> None:
        first = AsyncCache(remote_cache=RedisBackend(*server.address, secret=SECRET))
        other = AsyncCache(remote_cache=RedisBackend(*server.address, secret=b"another " + SECRET))
        await first.set("k", 1)
        await acknowledged(first)
        assert await other.get("k") is None
        assert await other.get("k", Counted("own")) == "own"

    run(main())


def test_a_value_beyond_max_value_stays_in_its_process(run: Run, server: Server) -> None:
    async def main() -> None:
        first, second = pair(RedisBackend(*server.address, max_value=1000))
        big = "x" * 2000
        await first.set("k", big)
        await acknowledged(first)
        load = Counted(big)
        assert await second.get("k", load) == big
        assert load.calls == 1
        assert first.stats()["remote_unshared"] == 1

    run(main())


def test_foreign_bytes_are_no_value_and_run_no_code(run: Run, server: Server) -> None:
    async def main() -> None:
        first, second = pair(RedisBackend(*server.address))
        await first.set("k", 1)
        await acknowledged(first)
        (key,) = [key for key in server.call("KEYS", "*") if key.endswith(b":sk")]
        stored = server.call("GET", key)
        for damaged in (b"", b"junk", stored[:-1], stored[:-1] + bytes([stored[-1] ^ 0xFF])):
            server.call("SET", key, damaged)
            cache = AsyncCache(remote_cache=first.remote_cache)
            value = await cache.get("k", Counted("loaded"))
            assert value in ("loaded", -2), damaged  # a bit of an integer may be another integer
        assert second.stats()["load_errors"] == 0

    run(main())


def test_long_keys_and_keys_of_all_kinds_are_shared(run: Run, backend: RedisBackend) -> None:
    async def main() -> None:
        first, second = pair(backend)
        keys: list[Any] = ["x" * 1000, ("a", 1, None), 1.5, b"bytes", frozenset({1, 2}), "a b\n", "{}", ""]
        for number, key in enumerate(keys):
            await first.set(key, number)
        await acknowledged(first)
        assert [await second.get(key) for key in keys] == list(range(len(keys)))

    run(main())


def test_the_log_never_has_the_password(run: Run, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.call("CONFIG", "SET", "requirepass", "correct horse")

    async def main() -> None:
        cache = AsyncCache(remote_cache=RedisBackend(*server.address, password="wrong battery"))
        load = Counted("value")
        assert await cache.get("k", load) == "value"
        await soon(lambda: len(caplog.records) > 0)

    with caplog.at_level(logging.INFO, "async_cache.remote"):
        run(main())
    (said,) = [record.getMessage() for record in caplog.records]
    assert "is away" in said and "password" in said
    assert "wrong battery" not in said

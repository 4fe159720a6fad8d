"""Encrypted connections: which servers are trusted, and what the log says about the others.

The servers of Debian speak TLS; the Valkey of PyPI was built without, and plays the server without.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from loops import Run
from proxy import Direction, Proxy
from servers import AUTHORITY, Program, Server
from shared_caches import Counted, acknowledged, connected, pair, soon

from cache import AsyncCache, RedisBackend

SPEAKS_TLS = "check that the server speaks TLS on this port"
NOT_TRUSTED = "TLS: the certificate of the server is not trusted: "


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "async_cache.remote")


@pytest.fixture
def encrypted(program: Program) -> Iterator[Server]:
    """A server whose port speaks TLS only."""
    server = program.start_with_tls()
    if server is None:
        pytest.skip(f"built without TLS: {program}")
    with server:
        yield server


@pytest.fixture
def context() -> ssl.SSLContext:
    """Trusts the authority of the servers, and no other."""
    return ssl.create_default_context(cafile=str(AUTHORITY))


async def shares(backend: RedisBackend) -> None:
    """Two caches share values of every size, and hear of changes."""
    one, two = pair(backend)
    await connected(one, two)
    for length in (1, 20_000, 900_000):
        await one.set(length, "x" * length)
        await acknowledged(one)
        assert await two.get(length) == "x" * length
    one.delete(1)
    await soon(lambda: 1 not in two.cache)


async def goes_on(backend: RedisBackend, caplog: pytest.LogCaptureFixture, words: str) -> None:
    """A cache without its server answers its callers, and says the reason once."""
    cache = AsyncCache(remote_cache=backend)
    load = Counted()
    assert [await cache.get("k", load), await cache.get("k", load)] == [1, 1]
    await cache.set("k", "set")
    assert await cache.get("k", load) == "set"
    await soon(lambda: bool(caplog.messages))
    assert not cache.stats()["remote_up"]
    assert len(caplog.messages) == 1 and words in caplog.messages[0], caplog.messages


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_caches_share_over_encrypted_connections(
    run: Run, encrypted: Server, context: ssl.SSLContext, host: str
) -> None:
    backend = RedisBackend(url=f"rediss://{host}:{encrypted.port}", ssl=context, timeout=5)
    run(shares(backend))


def test_the_authorities_of_the_system_are_trusted_by_default(
    run: Run, encrypted: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where OpenSSL looks for them.
    monkeypatch.setenv("SSL_CERT_FILE", str(AUTHORITY))
    run(shares(RedisBackend(url=f"rediss://localhost:{encrypted.port}", timeout=5)))
    run(shares(RedisBackend("localhost", encrypted.port, ssl=True, timeout=5, namespace="other")))


def test_an_unknown_authority_is_not_trusted(
    run: Run, encrypted: Server, caplog: pytest.LogCaptureFixture
) -> None:
    backend = RedisBackend(url=f"rediss://localhost:{encrypted.port}")
    run(goes_on(backend, caplog, NOT_TRUSTED))
    assert "give ssl a context with a private authority" in caplog.messages[0]


def test_a_certificate_for_another_host_is_not_trusted(
    run: Run, encrypted: Server, context: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    # Another spelling of 127.0.0.1, which is not in the certificate.
    url = f"rediss://127.1:{encrypted.port}"
    run(goes_on(RedisBackend(url=url, ssl=context), caplog, NOT_TRUSTED))
    assert "127.1" in caplog.messages[0] and "is for this host" in caplog.messages[0]
    context.check_hostname = False
    run(shares(RedisBackend(url=url, ssl=context, timeout=5)))


def test_a_server_without_tls_is_named_in_the_log(
    run: Run, server: Server, context: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    backend = RedisBackend(url=f"rediss://localhost:{server.port}", ssl=context)
    run(goes_on(backend, caplog, f"no connection to localhost:{server.port}: "))
    assert SPEAKS_TLS in caplog.messages[0]


def test_a_server_that_says_nothing_is_named_in_the_log(
    run: Run, server: Server, context: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    with Proxy(server.address) as proxy:
        proxy.hold(Direction.TO_CLIENT)
        backend = RedisBackend(*proxy.address, ssl=context)
        run(goes_on(backend, caplog, f"it does not answer; {SPEAKS_TLS}"))


def test_a_server_that_closes_the_connection_is_named_in_the_log(
    run: Run, server: Server, context: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    with Proxy(server.address) as proxy:
        proxy.refuse()
        run(goes_on(RedisBackend(*proxy.address, ssl=context), caplog, SPEAKS_TLS))


def test_a_connection_without_tls_to_a_server_with_tls_is_named_in_the_log(
    run: Run, encrypted: Server, caplog: pytest.LogCaptureFixture
) -> None:
    words = "if the server expects TLS on this port, use a URL with rediss://"
    run(goes_on(RedisBackend(*encrypted.address), caplog, words))


def test_a_connection_that_is_cut_is_encrypted_again(
    run: Run, encrypted: Server, context: ssl.SSLContext
) -> None:
    async def main(proxy: Proxy) -> None:
        one, two = pair(RedisBackend(*proxy.address, ssl=context, timeout=5))
        await one.set("k", 1)
        await acknowledged(one)
        assert await two.get("k") == 1
        proxy.cut()
        await soon(lambda: not one.stats()["remote_up"] and not two.stats()["remote_up"])
        await soon(lambda: one.stats()["remote_up"] and two.stats()["remote_up"])
        await one.set("k", 2)
        await acknowledged(one)
        assert await two.get("k") == 2

    with Proxy(encrypted.address) as proxy:
        run(main(proxy))


def test_a_context_that_cannot_be_made_leaves_the_callers_alone(
    run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> ssl.SSLContext:
        raise OSError("no authorities here")

    monkeypatch.setattr(ssl, "create_default_context", fails)
    run(goes_on(RedisBackend(url="rediss://localhost"), caplog, "TLS: no authorities here"))

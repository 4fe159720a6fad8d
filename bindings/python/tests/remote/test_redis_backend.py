"""`RedisBackend`: its arguments, and its own methods."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from loops import Run
from servers import AUTHORITY, Program, Server

from cache import AsyncCache, RedisBackend, RemoteCacheBackend


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"host": 1}, TypeError, "host: it is a text"),
        ({"port": "6379"}, TypeError, "port: it is a whole number"),
        ({"port": 0}, ValueError, "port: it is from 1 to 65535, not 0"),
        ({"db": -1}, ValueError, "db: it is from 0"),
        ({"password": b"bytes"}, TypeError, "password: it is a text"),
        ({"username": "me"}, ValueError, "password: there is a user without a password"),
        ({"url": "localhost"}, ValueError, "url: it has no `://`"),
        ({"url": "http://localhost"}, ValueError, "url: the scheme `http` is unknown"),
        ({"url": "redis://localhost", "port": 1}, ValueError, "url: it has the host"),
        ({"url": "redis+sentinel://localhost"}, ValueError, "url: the name of the primary is missing"),
        ({"url": "redis+cluster://a,b:x"}, ValueError, "url: the port is no number"),
        ({"url": "redis://h?sentinel_password=p"}, ValueError, "url: the query has an unknown setting"),
        ({"ssl": "yes"}, TypeError, "ssl: it is True, an ssl.SSLContext or None"),
        ({"url": "rediss://localhost", "ssl": False}, ValueError, "ssl: the url asks for TLS"),
        ({"url": "unix:///run/redis.sock", "ssl": True}, ValueError, "ssl: a socket on this host"),
        ({"namespace": "a:b"}, ValueError, "namespace: `a:b` has a colon"),
        ({"namespace": ""}, ValueError, "namespace: it is empty"),
        ({"version": "1:2"}, ValueError, "version: `1:2` has a colon"),
        ({"prefix": "a{}"}, ValueError, "prefix: "),
        ({"timeout": 0}, ValueError, "timeout: it is from 0.001 to 86400 seconds"),
        ({"timeout": "1"}, TypeError, "timeout: it is a number of seconds"),
        ({"lease": float("nan")}, ValueError, "lease: "),
        ({"max_value": 0}, ValueError, "max_value: it is from 1"),
        ({"max_value": 2**40}, ValueError, "max_value: "),
        ({"secret": b"short"}, ValueError, "secret: it has 5 bytes"),
        ({"secret": 5}, TypeError, "secret: it is bytes"),
        ({"while_down": "stop"}, ValueError, 'while_down: it is "serve" or "bypass"'),
        ({"uncovered_ttl": -1}, ValueError, "uncovered_ttl: "),
        ({"tracking": 1}, TypeError, "tracking: it is True or False"),
    ],
)
def test_a_wrong_argument_raises_at_once(options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as raised:
        RedisBackend(**options)
    assert words in str(raised.value)


def test_a_repr_names_the_place_and_no_secret() -> None:
    shown = repr(RedisBackend(url="redis://me:hunter2@cache.example:6380/3", namespace="pages"))
    assert shown == "RedisBackend(cache.example:6380/3, namespace='pages')"
    assert repr(RedisBackend("localhost", password="hunter2", ssl=True)) == (
        "RedisBackend(localhost:6379/0, TLS)"
    )
    query = "sentinel_password=hunter2"
    assert repr(RedisBackend(url=f"rediss+sentinel://:hunter2@a,b:1/main/2?{query}")) == (
        "RedisBackend(the primary main of Sentinels a:26379, b:1, db=2, TLS)"
    )
    assert repr(RedisBackend(url="redis+cluster://a,b:1")) == "RedisBackend(the cluster at a:6379, b:1)"
    assert repr(RedisBackend(url="unix:///run/redis.sock")) == "RedisBackend(/run/redis.sock)"


def test_the_classes_are_where_the_original_has_them() -> None:
    import cache.remote

    assert cache.remote.RedisBackend is RedisBackend
    assert cache.remote.RemoteCacheBackend is RemoteCacheBackend
    assert issubclass(RedisBackend, RemoteCacheBackend)
    with pytest.raises(TypeError, match="abstract"):
        RemoteCacheBackend()  # type: ignore[abstract]


def test_a_backend_works_alone(run: Run, backend: RedisBackend) -> None:
    async def main() -> None:
        assert await backend.get("k") is None
        await backend.set("k", {"a": 1}, ttl=60)
        assert await backend.get("k") == {"a": 1}
        assert await AsyncCache(remote_cache=backend).get("k") == {"a": 1}, "the same namespace"
        await backend.delete("k")
        assert await backend.get("k") is None
        await backend.set("k", 2)
        await backend.clear()
        assert await backend.get("k") is None
        await backend.close()
        await backend.set("k", 3)
        assert await backend.get("k") == 3, "it connects anew"

    run(main())


def test_a_backend_speaks_tls(run: Run, program: Program) -> None:
    server = program.start_with_tls()
    if server is None:
        pytest.skip("built without TLS")

    async def main(port: int) -> None:
        context = ssl.create_default_context(cafile=str(AUTHORITY))
        backend = RedisBackend("localhost", port, ssl=context)
        await backend.set("k", 1)
        assert await backend.get("k") == 1

    with server:
        run(main(server.port))


def test_a_backend_speaks_through_a_socket_of_the_host(run: Run, program: Program) -> None:
    async def main(server: Server) -> None:
        backend = RedisBackend(url=f"unix://{server.socket}")
        await backend.set("k", 1)
        assert await backend.get("k") == 1

    with program.start_on_socket() as server:
        run(main(server))

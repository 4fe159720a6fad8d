"""Tiers beyond one host: Redis and Valkey, and the base class for a backend of one's own.

A cache with a remote tier asks memory first, then the tier, then the loader. Several processes on
several hosts share one load for each key, and an invalidation in one process reaches the memory of
all others. No failure of the tier reaches a caller as an exception: the cache goes on with memory,
its file and its loaders, and the logger ``async_cache.remote`` says so once.
"""

from __future__ import annotations

import ssl as _ssl
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from . import _native
from ._scope import scope_of

if TYPE_CHECKING:
    from .async_cache import AsyncCache

__all__ = ["RedisBackend", "RemoteCacheBackend"]

_MAX_NAMESPACE = 200  # bytes


class RemoteCacheBackend(ABC):
    """A tier beyond one host, of one's own: subclass it for another server than Redis or Valkey.

    ``AsyncCache(remote_cache=backend)`` calls these methods on an event loop that uses the cache.
    Calls for one key run one after the other, calls for several keys at the same time. A method
    that raises, or takes too long, counts as a tier that is away. A key is a text: see
    ``docs/semantics.md``.
    """

    @abstractmethod
    async def get(self, key: str) -> Any:
        """The value of a key; ``None`` if there is none."""

    @abstractmethod
    async def set(self, key: str, value: Any, ttl: float | None = None) -> None:
        """Stores a value, for `ttl` seconds (``None``: until it is removed)."""

    @abstractmethod
    async def delete(self, key: str) -> None:
        """Removes a key, if it is there."""

    @abstractmethod
    async def clear(self) -> None:
        """Removes all entries of the cache."""

    @abstractmethod
    async def close(self) -> None:
        """Closes connections."""


class RedisBackend(RemoteCacheBackend):
    """A tier in Redis (6 or later) or Valkey.

    `url` replaces `host`, `port` and `db`: ``redis://[user[:password]@]host[:port][/db]``,
    ``unix:///path``, ``redis+sentinel://host[:port][,host[:port]...]/name[/db]`` for the primary
    that Sentinels know by a name, or ``redis+cluster://host[:port][,host[:port]...]``. With
    ``rediss`` for ``redis``, or with `ssl`, all connections are encrypted: `ssl` is ``True`` or an
    `ssl.SSLContext`. Every key on the server begins with `prefix`; `namespace` is the name of the
    cache among all caches with the prefix. By default it is ``default`` for an `AsyncCache`, and
    the module and the qualified name of a decorated function. `version` names the shape of your
    data: caches of several versions share nothing.

    `timeout`: how many seconds a call waits for a server that does not answer. After a server was
    silent for so long, no call waits until the server speaks again. `lease`: for how many seconds
    the load of a silent process is expected to be running. `max_value`: the longest value, in
    bytes; longer values stay in their process. `while_down`: while changes cannot be heard, entries
    are served (``"serve"``), or loaded anew (``"bypass"``). `uncovered_ttl`: for how many seconds
    memory keeps an entry if the server does not tell of changes. ``tracking=False`` does not ask
    the server to tell of changes.

    Values that MessagePack cannot represent exactly need pickle, and unpickling runs code named in
    the bytes. So they are shared only with a `secret`, of at least 16 bytes: then every value
    carries a tag that cannot be made without it. Give all processes the same secret.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = 6379,
        db: int = 0,
        password: str | None = None,
        prefix: str = "ac:",
        *,
        url: str | None = None,
        username: str | None = None,
        ssl: bool | _ssl.SSLContext | None = None,
        namespace: str | None = None,
        version: str = "",
        timeout: float = 0.25,
        lease: float = 10.0,
        max_value: int = 1024 * 1024,
        secret: bytes | str | None = None,
        while_down: str = "serve",
        uncovered_ttl: float = 5.0,
        tracking: bool = True,
    ) -> None:
        for name, text in (("host", host), ("prefix", prefix), ("version", version)):
            _check(name, text, str, "a text (str)")
        for name, optional in (
            *(("password", password), ("url", url)),
            *(("username", username), ("namespace", namespace)),
        ):
            if optional is not None:
                _check(name, optional, str, "a text (str) or None")
        if url is not None and (host, port, db) != ("localhost", 6379, 0):
            raise ValueError("url: it has the host, the port and the db: give them there, or no url")
        _check_number("port", port, 1, 65535)
        _check_number("db", db, 0, 2**31 - 1)
        _check_number("max_value", max_value, 1, 2**63 - 1)
        _check_seconds("timeout", timeout)
        _check_seconds("lease", lease)
        _check_seconds("uncovered_ttl", uncovered_ttl)
        _check("tracking", tracking, bool, "True or False")
        if ssl is not None and not isinstance(ssl, bool | _ssl.SSLContext):
            raise TypeError(f"ssl: it is True, an ssl.SSLContext or None, not {type(ssl).__qualname__}")
        if while_down not in ("serve", "bypass"):
            raise ValueError(f'while_down: it is "serve" or "bypass", not {while_down!r}')
        if isinstance(secret, str):
            secret = secret.encode()
        if secret is not None:
            _check("secret", secret, bytes, "bytes")
        self._options = _native.RedisOptions(
            address=None if url is not None else (host, port, db),
            url=url,
            tls=bool(ssl),
            username=username,
            password=password,
            prefix=prefix,
            version=version,
            timeout=timeout,
            lease=lease,
            max_value=max_value,
            secret=secret,
            serves_while_down=while_down == "serve",
            uncovered_ttl=uncovered_ttl,
            tracking=tracking,
        )
        if ssl is False and self._options.tls:
            raise ValueError("ssl: the url asks for TLS: leave ssl out, or use redis://")
        ssl = ssl or self._options.tls
        if ssl and self._options.is_local:
            raise ValueError("ssl: a socket on this host is not encrypted: leave ssl out")
        self._ssl: bool | _ssl.SSLContext = ssl
        self.namespace = namespace
        self._options.check_namespace("default" if namespace is None else namespace)
        self._own: AsyncCache | None = None

    def _context(self) -> _ssl.SSLContext | None:
        """The settings of TLS; ``None`` without TLS."""
        if self._ssl is True:
            self._ssl = _ssl.create_default_context()
        return self._ssl or None

    def __repr__(self) -> str:
        namespace = "" if self.namespace is None else f", namespace={self.namespace!r}"
        return f"RedisBackend({self._options.place}{namespace}{', TLS' if self._ssl else ''})"

    def _alone(self) -> AsyncCache:
        """A cache that keeps nothing in memory, for the methods of the backend itself."""
        if self._own is None:
            from .async_cache import AsyncCache

            self._own = AsyncCache(maxsize=0, remote_cache=self)
        return self._own

    async def get(self, key: str) -> Any:
        """The value of a key; ``None`` if there is none."""
        return await self._alone().get(key)

    async def set(self, key: str, value: Any, ttl: float | None = None) -> None:
        """Stores a value, for `ttl` seconds (``None``: until it is removed)."""
        await self._alone().set(key, value, ttl)

    async def delete(self, key: str) -> None:
        """Removes a key, if it is there."""
        await self._alone().delete(key)

    async def clear(self) -> None:
        """Removes all entries of the namespace, and no others."""
        await self._alone().clear()

    async def close(self) -> None:
        """Closes the connection that these methods use. Caches keep their own connections."""
        if self._own is not None:
            self._own._close_remote()


def namespace_of_function(function: Any) -> str:
    """The namespace of a decorated function."""
    return in_namespace(scope_of(function))


def in_namespace(name: str) -> str:
    """A name in the form for a namespace, which has no colon and at most 200 bytes."""
    name = quote(name, safe="/ <>()@.,+-_")
    if len(name) > _MAX_NAMESPACE:
        import hashlib

        name = name[:120] + "#" + hashlib.sha256(name.encode()).hexdigest()[:32]
    return name


def check_remote(backend: Any) -> None:
    """Raises `TypeError` if a remote cache is none."""
    if backend is not None and not isinstance(backend, RemoteCacheBackend):
        raise TypeError(
            f"remote_cache is a RedisBackend, or another RemoteCacheBackend, not {type(backend).__qualname__}"
        )


def attach(cache: AsyncCache, backend: RemoteCacheBackend, namespace: str) -> None:
    """Gives a new cache its remote tier."""
    from . import _connection

    if isinstance(backend, RedisBackend):
        own = backend.namespace
        cache._attach_remote(backend._options, namespace if own is None else own, backend)
    else:
        cache._attach_remote(None, namespace, backend)
    _connection.keep(cache)


def _check(name: str, value: Any, kind: type, wanted: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name}: it is {wanted}, not {type(value).__qualname__}")


def _check_number(name: str, value: Any, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: it is a whole number (int), not {type(value).__qualname__}")
    if not least <= value <= most:
        raise ValueError(f"{name}: it is from {least} to {most}, not {value}")


def _check_seconds(name: str, value: Any) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name}: it is a number of seconds, not {type(value).__qualname__}")
    if not 0.001 <= value <= 86400:
        raise ValueError(f"{name}: it is from 0.001 to 86400 seconds, not {value}")

"""The connection of a cache to its remote tier: opening it on an event loop, and its ends.

The native part owns the connection (`remote` there); this module has the few steps that asyncio
wants as coroutines. Rules:

1. a connection is opened in an empty context, so that it keeps nothing of the call that needed it;
2. when an event loop ends in order (`asyncio.run`), it closes its asynchronous generators. One of
   them belongs to the connection, and closes it while the loop still runs, once all writes are
   acknowledged, or after the timeout;
3. in a forked child, a cache does not touch the connection of its parent: see `keep`.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import ssl
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import Any

_log = logging.getLogger("async_cache.remote")

# The caches of this process that have a remote tier.
_caches: weakref.WeakSet[Any] = weakref.WeakSet()


def keep(cache: Any) -> None:
    """Notes a cache, for a fork."""
    _caches.add(cache)


def _forked() -> None:
    for cache in list(_caches):
        cache._leave_remote_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def open_connection(
    loop: asyncio.AbstractEventLoop,
    protocol: Any,
    backend: Any,
    failed: Callable[[str], None],
    left: Any,
) -> asyncio.Task[None]:
    """Begins to open a connection. `failed` gets the reason of a failure; `left`, if given, is
    called when the loop ends in order.
    """
    opening = _open(loop, protocol, backend, failed, left)
    # Rule 1.
    return contextvars.Context().run(asyncio.Task, opening, loop=loop, name="async_cache.connect")


def watch_loop(loop: asyncio.AbstractEventLoop, protocol: Any, left: Any) -> asyncio.Task[None]:
    """Lets `left` be called when the loop ends in order, for a connection without a socket."""
    return contextvars.Context().run(asyncio.Task, _watch_end(protocol, left), loop=loop)


async def _watch_end(protocol: Any, left: Any) -> None:
    end = _until_the_loop_ends(left)
    await end.__anext__()
    protocol.end_of_loop(end)


async def _open(
    loop: asyncio.AbstractEventLoop,
    protocol: Any,
    backend: Any,
    failed: Callable[[str], None],
    left: Any,
) -> None:
    if left is not None:
        await _watch_end(protocol, left)
    place = backend._options.place
    try:
        context = backend._context()
        if isinstance(place, str):
            await loop.create_unix_connection(lambda: protocol, place)
        else:
            await loop.create_connection(lambda: protocol, *place, ssl=context)
    except ssl.SSLCertVerificationError as error:
        failed(f"the certificate of the server is not trusted ({error.verify_message}); give ssl a context")
    except Exception as error:
        failed(str(error) or type(error).__qualname__)


async def _until_the_loop_ends(left: Any) -> AsyncGenerator[None]:
    # Rule 2.
    try:
        yield
    finally:
        await _written(left)
        left()
        # The transport tells its protocol in the next turn, and closes its socket.
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def _written(left: Any) -> None:
    future = asyncio.get_running_loop().create_future()
    patience = left.await_writes(future)
    if patience is not None:
        await _end_in_time(future, patience)


async def acknowledged(cache: Any, name: bytes | None, patience: float) -> None:
    """Waits until the server has acknowledged a write, of the key with this name or of everything,
    for `patience` seconds at most, and not if no word is expected soon.
    """
    loop = asyncio._get_running_loop()
    if loop is None:
        return
    future = loop.create_future()
    if cache._await_write(name, future):
        await _end_in_time(future, patience)


async def _end_in_time(future: asyncio.Future[None], patience: float) -> None:
    timer = future.get_loop().call_later(patience, _end, future)
    try:
        await future
    finally:
        timer.cancel()


def _end(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def say(level: int, message: str) -> None:
    """Logs a change of state."""
    _log.log(level, "%s", message)

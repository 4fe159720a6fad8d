"""The connection of a cache to its remote tier: opening it on an event loop, and its ends.

The native part owns the connection (`remote` there); this module has the few steps that asyncio
wants as coroutines. Rules:

1. a connection is opened in an empty context, so that it keeps nothing of the call that needed it;
2. when an event loop ends in order (`asyncio.run`), it closes its asynchronous generators. One of
   them belongs to the connection, and closes it while the loop still runs;
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
    left: Callable[[], None] | None,
) -> asyncio.Task[None]:
    """Begins to open a connection. `failed` gets the reason of a failure; `left`, if given, is
    called when the loop ends in order.
    """
    opening = _open(loop, protocol, backend, failed, left)
    # Rule 1.
    return contextvars.Context().run(asyncio.Task, opening, loop=loop, name="async_cache.connect")


def watch_loop(
    loop: asyncio.AbstractEventLoop, protocol: Any, left: Callable[[], None]
) -> asyncio.Task[None]:
    """Lets `left` be called when the loop ends in order, for a connection without a socket."""
    return contextvars.Context().run(asyncio.Task, _watch_end(protocol, left), loop=loop)


async def _watch_end(protocol: Any, left: Callable[[], None]) -> None:
    end = _until_the_loop_ends(left)
    await end.__anext__()
    protocol.end_of_loop(end)


async def _open(
    loop: asyncio.AbstractEventLoop,
    protocol: Any,
    backend: Any,
    failed: Callable[[str], None],
    left: Callable[[], None] | None,
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


async def _until_the_loop_ends(left: Callable[[], None]) -> AsyncGenerator[None]:
    # Rule 2.
    try:
        yield
    finally:
        left()
        # The transport tells its protocol in the next turn, and closes its socket.
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def say(level: int, message: str) -> None:
    """Logs a change of state."""
    _log.log(level, "%s", message)

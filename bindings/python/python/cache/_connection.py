"""The connection of a cache to its remote tier: opening it on an event loop, and its ends.

The native part owns the connection (`remote` there); this module has the few steps that asyncio
wants as coroutines. Rules:

1. a connection is opened in an empty context, so that it keeps nothing of the call that needed it;
2. when an event loop ends in order (`asyncio.run`), it closes its asynchronous generators. One of
   them belongs to the connection, and closes it while the loop still runs, once all writes are
   acknowledged, or after the timeout. Before, `asyncio.run` cancels all tasks, so that a
   connection which is being made ends without a word in the log;
3. in a forked child, a cache does not touch the connection of its parent: see `keep`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import ssl
import weakref
from collections.abc import AsyncGenerator, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._native import Attempt

_log = logging.getLogger("async_cache.remote")

_PIECE = 16 * 1024  # bytes; the longest piece of an answer about the way
_CHECK_PORT = "check that the server speaks TLS on this port"

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
    attempt: Attempt,
    backend: Any,
    left: Any,
) -> asyncio.Task[None]:
    """Begins to open a connection. `attempt` knows the way, and gets the reason of a failure;
    `left`, if given, is called when the loop ends in order.
    """
    if left is not None:
        watch_loop(protocol, left)
    opening = _open(loop, protocol, attempt, backend)
    # Rule 1.
    task = contextvars.Context().run(asyncio.Task, opening, loop=loop, name="async_cache.connect")

    def ended(task: asyncio.Task[None]) -> None:
        # A task that is cancelled before its first step runs nothing.
        if task.cancelled():
            attempt.cancelled()

    task.add_done_callback(ended, context=contextvars.Context())
    return task


def watch_loop(protocol: Any, left: Any) -> None:
    """Lets `left` be called when the running loop ends in order. At once, not in a task: the loop
    may end before its next turn.
    """
    end = _until_the_loop_ends(left)
    with contextlib.suppress(StopIteration):
        end.__anext__().send(None)
    protocol.end_of_loop(end)


async def _open(loop: asyncio.AbstractEventLoop, protocol: Any, attempt: Attempt, backend: Any) -> None:
    try:
        context = backend._context()
    except Exception as error:
        attempt.failed(f"TLS: {error}")
        return
    while (step := attempt.step()) is not None:
        place, patience, asks = step
        connecting: Coroutine[Any, Any, Any]
        if asks:
            connecting = _ask(place, context, attempt)
        elif isinstance(place, str):
            connecting = loop.create_unix_connection(lambda: protocol, place)
        else:
            connecting = loop.create_connection(lambda: protocol, *place, ssl=context)
        try:
            await _connected(connecting, patience)
        except asyncio.CancelledError:
            attempt.cancelled()
            raise
        except Exception as error:
            attempt.failed(_reason(error, context is not None))
        else:
            if not asks:
                return


async def _connected(connecting: Coroutine[Any, Any, Any], patience: float) -> None:
    """Waits for a connection, and cancels it when time is up. Unlike `asyncio.wait_for` (before
    Python 3.12), it raises at once if the caller is cancelled: before a transport that is given up
    can say so.
    """
    task = asyncio.ensure_future(connecting)
    try:
        done, _ = await asyncio.wait([task], timeout=patience)
    except asyncio.CancelledError:
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        task.cancel()
        raise
    if not done:
        task.cancel()
        await asyncio.wait([task])
    if task.cancelled():
        raise asyncio.TimeoutError
    task.result()


async def _ask(place: str | tuple[str, int], context: ssl.SSLContext | None, attempt: Attempt) -> None:
    """Asks a server for the way, on a connection of its own."""
    if isinstance(place, str):
        reader, writer = await asyncio.open_unix_connection(place)
    else:
        reader, writer = await asyncio.open_connection(*place, ssl=context)
    try:
        writer.write(attempt.question())
        while not attempt.answer(await reader.read(_PIECE)):
            pass
    finally:
        writer.transport.abort()


def _reason(error: Exception, is_encrypted: bool) -> str:
    """Why a server was not reached, for the log."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"TLS: the certificate of the server is not trusted: {error.verify_message}; check that the "
            "certificate is for this host, and give ssl a context with a private authority"
        )
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}; {_CHECK_PORT}"
    if isinstance(error, asyncio.TimeoutError) and not str(error):
        reason = "it does not answer"
    elif isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError):
        reason = str(error) or "the server has closed the connection"
    else:
        return str(error) or type(error).__qualname__
    # A server without TLS may wait for the end of a command.
    return f"{reason}; {_CHECK_PORT}" if is_encrypted else reason


async def _until_the_loop_ends(left: Any) -> AsyncGenerator[None]:
    # Rule 2.
    try:
        yield
    finally:
        try:
            await _written(left)
        finally:
            left()
            # The transport tells its protocol in the next turn, and closes its socket.
            await asyncio.sleep(0)
            await asyncio.sleep(0)


async def _written(left: Any) -> None:
    future = asyncio.get_running_loop().create_future()
    patience = left.await_writes(future)
    if patience is not None:
        await _end_in_time(future, patience)


async def acknowledged(done: Any, patience: float) -> None:
    """Waits until the server has acknowledged a write, for `patience` seconds at most, and not if no
    word is expected soon.
    """
    loop = asyncio._get_running_loop()
    if loop is None:
        return
    future = loop.create_future()
    if done._begin_wait(future):
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

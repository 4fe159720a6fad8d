"""A user's own remote backend: its methods run as tasks of one event loop.

Calls about one key run one after the other, in the order of the cache; calls about several keys at
the same time; `clear` alone. Every call ends with a report to the native part, in any order. So
does a call that is cancelled, as `asyncio.run` does at its end: the native part removes the key of
a `set` that was cut short. A removal that is cancelled begins once more.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

from .remote import RemoteCacheBackend

Ended = Callable[[int, "list[Any] | None", "str | None"], None]


class Runner:
    """The calls of one connection. `ended` gets the number of a command, and its values or its
    error.
    """

    def __init__(self, backend: RemoteCacheBackend, loop: asyncio.AbstractEventLoop, ended: Ended) -> None:
        self._backend = backend
        self._loop = loop
        self._ended = ended
        # The last call about each key, and the last `clear`.
        self._last: dict[str, asyncio.Task[Any]] = {}
        self._clear: asyncio.Task[Any] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_aborted = False

    def run(
        self, number: int, kind: str, keys: list[str], value: Any, ttl: float | None, is_again: bool = False
    ) -> None:
        """Begins a command."""
        before = self._before(kind, keys)
        # An empty context: the call belongs to no load.
        task = contextvars.Context().run(
            asyncio.Task, self._run(number, before, kind, keys, value, ttl), loop=self._loop
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

        def ended(task: asyncio.Task[Any]) -> None:
            # Here, not in the task: a task that is cancelled before its first step runs nothing.
            if not task.cancelled():
                return
            if kind in ("delete", "clear") and not is_again and not self._is_aborted:
                self.run(number, kind, keys, value, ttl, is_again=True)
            else:
                self._ended(number, None, f"{type(self._backend).__qualname__}.{kind} was cancelled")

        task.add_done_callback(ended, context=contextvars.Context())
        for key in keys:
            self._last[key] = task
            task.add_done_callback(lambda done, key=key: self._forget(key, done))  # type: ignore[misc]
        if kind == "clear":
            self._clear = task

    def _before(self, kind: str, keys: list[str]) -> list[asyncio.Task[Any]]:
        if kind == "clear":
            return list(self._tasks)
        before = [self._last[key] for key in keys if key in self._last]
        if self._clear is not None and not self._clear.done():
            before.append(self._clear)
        return before

    def _forget(self, key: str, done: asyncio.Task[Any]) -> None:
        if self._last.get(key) is done:
            del self._last[key]

    async def _run(
        self,
        number: int,
        before: list[asyncio.Task[Any]],
        kind: str,
        keys: list[str],
        value: Any,
        ttl: float | None,
    ) -> None:
        if before:
            await asyncio.wait(before)
        values: list[Any] | None = None
        try:
            if kind == "get":
                values = list(await asyncio.gather(*[self._backend.get(key) for key in keys]))
            elif kind == "set":
                await self._backend.set(keys[0], value, ttl)
            elif kind == "delete":
                await asyncio.gather(*[self._backend.delete(key) for key in keys])
            else:
                await self._backend.clear()
        except Exception as error:
            self._ended(number, None, f"{type(self._backend).__qualname__}.{kind}: {error!r:.200}")
        else:
            self._ended(number, values, None)

    def abort(self) -> None:
        """Cancels all calls."""
        self._is_aborted = True
        for task in list(self._tasks):
            task.cancel()

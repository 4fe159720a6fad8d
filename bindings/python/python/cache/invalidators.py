"""Decorators for writes that make cached reads stale."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from ._invalidation import invalidation_of
from ._writing import invalidating
from ._written import WrittenArguments

P = ParamSpec("P")
R = TypeVar("R")

KeyFn = Callable[[tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]


class AsyncLRUInvalidator:
    """Decorates an async write: the results that `cached_fn` has cached for the write's own
    arguments are invalidated.

    The invalidation happens before the write and again after it, whether the write succeeds or not.
    If a reader caches the old value in between, the second invalidation removes it; a read still
    running stores nothing. All ways of writing the read (by position, by name, with defaults
    written out or left out) are invalidated. The write's arguments are matched to those of the read
    by position and by name: for a read ``row(number, verbose=False)`` the write ``change(number,
    text)`` invalidates ``row(number)``, and so does ``change(text, number)``. A write that lacks a
    required argument of the read is a `TypeError`.

    `clear_all=True` invalidates everything. `key_fn(args, kwargs)` returns the ``(args, kwargs)``
    of the cached call to invalidate, for writes whose first arguments are not those of the read.
    """

    def __init__(self, cached_fn: Any, clear_all: bool = False, key_fn: KeyFn | None = None) -> None:
        if not (hasattr(cached_fn, "invalidate_cache") and hasattr(cached_fn, "clear_cache")):
            raise TypeError(f"{cached_fn!r} is not a function decorated with AsyncLRU or AsyncTTL")
        if getattr(cached_fn, "skip_args", 0) and not clear_all and key_fn is None:
            raise TypeError(
                f"{cached_fn!r} has skip_args, so its arguments are not those of the write: give "
                "key_fn=lambda args, kwargs: (args_of_the_read, kwargs_of_the_read), or clear_all=True"
            )
        self._cached = cached_fn
        self._clear_all = clear_all
        self._key_fn = key_fn

    def __call__(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        if not callable(function):
            raise TypeError(f"an async function can be decorated, not {type(function).__qualname__}")
        written = None
        if not self._clear_all and self._key_fn is None:
            written = WrittenArguments(self._cached, function)

        @functools.wraps(function)
        async def write(*args: P.args, **kwargs: P.kwargs) -> R:
            return await invalidating(
                functools.partial(self._invalidate, written, args, kwargs), lambda: function(*args, **kwargs)
            )

        return write

    def _invalidate(
        self, written: WrittenArguments | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if self._clear_all:
            invalidation, _ = invalidation_of(self._cached.invalidate_cache)
            if invalidation is not None:
                invalidation.remove_all_inside()
            self._cached.clear_cache()
        elif self._key_fn is not None:
            args, kwargs = self._key_fn(args, kwargs)
            self._cached.invalidate_cache(*args, **kwargs)
        elif written is not None:
            written.invalidate(args, kwargs)


class AsyncTTLInvalidator(AsyncLRUInvalidator):
    """`AsyncLRUInvalidator`, under the name that matches `AsyncTTL`."""

"""Decorators for writes that make cached reads stale."""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

KeyFn = Callable[[tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]


class AsyncLRUInvalidator:
    """Decorates an async write: what `cached_fn` has cached for the write's own arguments is invalidated.

    Before the write and after it, whether it succeeds or not: a reader that cached the old value in between does not
    leave it behind, and a read that is still running stores nothing. `clear_all=True` invalidates everything;
    `key_fn(args, kwargs)` returns the ``(args, kwargs)`` of the cached call to be invalidated, where they are not
    the write's first arguments.
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
        self._parameters: Mapping[str, inspect.Parameter] | None = None
        with contextlib.suppress(TypeError, ValueError):
            self._parameters = inspect.signature(cached_fn).parameters

    def __call__(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        @functools.wraps(function)
        async def write(*args: P.args, **kwargs: P.kwargs) -> R:
            self._invalidate(args, kwargs)
            try:
                return await function(*args, **kwargs)
            finally:
                self._invalidate(args, kwargs)

        return write

    def _invalidate(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._clear_all:
            self._cached.clear_cache()
            return
        if self._key_fn is not None:
            args, kwargs = self._key_fn(args, kwargs)
            self._cached.invalidate_cache(*args, **kwargs)
            return
        for way, named in self._ways_to_call(*self._own_arguments(args, kwargs)):
            self._cached.invalidate_cache(*way, **named)

    def _ways_to_call(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
        """All calls of the read with these arguments: ``f(1)`` and ``f(x=1)`` are two keys, and both are stale."""
        parameters = (self._parameters or {}).values()
        only = [p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_ONLY]
        names = only + [p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
        if len(args) > len(names):
            yield args, kwargs
            return
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        leading = list(itertools.takewhile(given.__contains__, names))
        others = {name: value for name, value in given.items() if name not in leading}
        for count in range(min(len(only), len(leading)), len(leading) + 1):
            named = {name: given[name] for name in leading[count:]}
            yield tuple(given[name] for name in leading[:count]), {**named, **others}

    def _own_arguments(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The first arguments of the write: as many as the read takes, and those of its names."""
        if self._parameters is None:
            return args, kwargs
        kinds = [parameter.kind for parameter in self._parameters.values()]
        if inspect.Parameter.VAR_POSITIONAL not in kinds:
            positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
            args = args[: sum(kind in positional for kind in kinds)]
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            kwargs = {name: value for name, value in kwargs.items() if name in self._parameters}
        return args, kwargs


class AsyncTTLInvalidator(AsyncLRUInvalidator):
    """`AsyncLRUInvalidator`, under the name that goes with `AsyncTTL`."""

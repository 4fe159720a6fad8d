"""The common base of the two decorators: a native callable around a function, and its methods."""

from __future__ import annotations

import functools
import operator
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, ParamSpec, TypeVar

from . import _autosave, _native
from ._excluded import check_exclude, places_of
from ._function import check_function, inner_function
from ._instances import check_per_instance, instance_of
from ._invalidation import Invalidation
from ._scope import scope_of
from ._types import CachedFunction
from ._ways import Ways
from .async_cache import AsyncCache, persistence_of
from .backend import CacheBackend
from .key import key_of_call
from .remote import RemoteCacheBackend, attach, check_remote, namespace_of_function

P = ParamSpec("P")
R = TypeVar("R")


class Decorator:
    """Caches an async function's results by its arguments."""

    def __init__(
        self,
        *,
        maxsize: int | None,
        default_ttl: float | None,
        skip_args: int,
        backup: CacheBackend | None,
        remote_cache: RemoteCacheBackend | None,
        backend: CacheBackend | None,
        typed: bool,
        exclude: Iterable[str] = (),
        per_instance: bool = False,
        autosave: float | None = None,
        autosave_changes: int | None = None,
        save_at_exit: bool = False,
    ) -> None:
        if callable(maxsize) or callable(default_ttl):
            name = type(self).__qualname__
            raise TypeError(
                f"{name} takes its arguments first: write @{name}() above the function, not @{name}"
            )
        try:
            is_count = operator.index(skip_args) >= 0
        except TypeError:
            kind = type(skip_args).__qualname__
            raise TypeError(f"skip_args is a number of arguments, 0 or more, not {kind}") from None
        if not is_count:
            raise ValueError(f"skip_args is a number of arguments, 0 or more, not {skip_args}")
        if backup is not None and backend is not None:
            raise TypeError("backup and backend are two names of one argument: give one of them")
        self.cache = AsyncCache(maxsize=maxsize, default_ttl=default_ttl)
        self._backup = backup if backup is not None else backend
        self._autosave = (autosave, autosave_changes, save_at_exit)
        if self._autosave != (None, None, False):
            _autosave.check(autosave, autosave_changes, self._backup is not None)
        check_remote(remote_cache)
        self._remote = remote_cache
        self.skip_args = skip_args
        self.exclude = check_exclude(exclude)
        self.per_instance = check_per_instance(
            per_instance, skip_args, self._backup is not None, remote_cache is not None
        )
        self._typed = typed
        self._decorated = 0

    def clear_cache(self) -> None:
        """Removes all cached results, and sets the metrics to zero."""
        self.cache.clear()

    def __call__(self, function: Callable[P, Awaitable[R]]) -> CachedFunction[P, R]:
        check_function(function, type(self).__qualname__)
        if self._backup is not None and self._decorated:
            raise ValueError(
                f"this decorator has a backup and decorates a function already: give {_name(function)} a decorator "
                "and a file of its own"
            )
        if self._remote is not None and self._decorated:
            raise ValueError(
                f"this decorator has a remote_cache and decorates a function already: give {_name(function)} a "
                "decorator of its own"
            )
        instance = instance_of(function, self.per_instance, self.exclude)
        cache = self.cache
        if self._remote is not None:
            cache.remote_cache = self._remote
            attach(cache, self._remote, namespace_of_function(function))
        make = None if self._backup is None else open_backup(cache, self._backup, function)
        if self._backup is not None and self._autosave != (None, None, False):
            cache._save_unasked(*self._autosave)
        cached = _native.decorate(
            function,
            cache,
            self._decorated,
            self._typed,
            self.skip_args,
            make,
            inner_function(function),
            places_of(function, self.exclude, self.skip_args),
            instance,
        )
        self._decorated += 1
        functools.update_wrapper(cached, function)
        ways = Ways(function, self.exclude, self.skip_args, self._typed)
        cached.clear_cache = self.clear_cache
        cached.invalidate_cache = Invalidation(function, ways, lambda: (cached,))
        cached.get_metrics = cache.get_metrics
        cached.stats = cache.stats
        cached.save_to_backup = cache.save_to_backup
        cached.save_to_backup_async = cache.save_to_backup_async
        cached.load_from_backup = cache.load_from_backup
        cached.skip_args = self.skip_args
        decorated: CachedFunction[P, R] = cached
        return decorated


MakeKey = Callable[[tuple[Any, ...], dict[str, Any]], Any]


def open_backup(cache: AsyncCache, backup: CacheBackend, function: Callable[..., Any]) -> MakeKey | None:
    """Attaches a backup to the cache of a function. Returns the maker of the keys if the backend
    needs keys as objects.
    """
    persistence = persistence_of(backup, scope_of(function), function)
    cache.backup = backup
    cache._persist(persistence)
    return None if persistence.is_native else functools.partial(_key_for_backend, function)


def _key_for_backend(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The key of a call for a user's own backend, which needs objects that can be pickled and
    compared.
    """
    return key_of_call(function, args, kwargs)


def _name(function: Any) -> str:
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"

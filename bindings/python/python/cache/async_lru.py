"""`AsyncLRU`: caches an async function's results, the least recently used make room."""

from __future__ import annotations

from collections.abc import Iterable

from .backend import CacheBackend
from .decorator import Decorator


class AsyncLRU(Decorator):
    """Caches the results of an async function by its arguments, as `functools.lru_cache` does for others.

    `maxsize` results (``None``: unlimited); `skip_args=1` leaves the first argument, such as ``self``, out of the key,
    and ``exclude={"session"}`` the argument of this name, however it is given: all calls that differ in nothing else
    share one result. `per_instance=True` keeps the results of a method for each object, by identity, as long as the
    object lives. `typed=True` tells ``f(1)`` from ``f(1.0)``; with a `backup` the results survive the process.
    """

    def __init__(
        self,
        maxsize: int | None = 128,
        skip_args: int = 0,
        backup: CacheBackend | None = None,
        *,
        backend: CacheBackend | None = None,
        typed: bool = False,
        exclude: Iterable[str] = (),
        per_instance: bool = False,
        autosave: float | None = None,
        autosave_changes: int | None = None,
        save_at_exit: bool = False,
    ) -> None:
        super().__init__(
            maxsize=maxsize,
            default_ttl=None,
            skip_args=skip_args,
            backup=backup,
            backend=backend,
            typed=typed,
            exclude=exclude,
            per_instance=per_instance,
            autosave=autosave,
            autosave_changes=autosave_changes,
            save_at_exit=save_at_exit,
        )

"""`AsyncLRU`: caches an async function's results and evicts the least recently used."""

from __future__ import annotations

from collections.abc import Iterable

from .backend import CacheBackend
from .decorator import Decorator
from .remote import RemoteCacheBackend


class AsyncLRU(Decorator):
    """Caches the results of an async function by its arguments, like `functools.lru_cache` for
    plain functions.

    `maxsize`: how many results are kept (``None``: unlimited). `skip_args=1` leaves the first
    argument, for example ``self``, out of the key, and ``exclude={"session"}`` leaves out the
    argument with the given name, passed by position or by name. Calls that differ only in excluded
    arguments share one result. `per_instance=True` keeps the results of a method for each object,
    by identity, as long as the object lives. `typed=True` distinguishes ``f(1)`` from ``f(1.0)``.
    With a `backup` the results survive the process; with a `remote_cache` several hosts share them.
    """

    def __init__(
        self,
        maxsize: int | None = 128,
        skip_args: int = 0,
        backup: CacheBackend | None = None,
        remote_cache: RemoteCacheBackend | None = None,
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
            remote_cache=remote_cache,
            backend=backend,
            typed=typed,
            exclude=exclude,
            per_instance=per_instance,
            autosave=autosave,
            autosave_changes=autosave_changes,
            save_at_exit=save_at_exit,
        )

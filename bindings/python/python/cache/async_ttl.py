"""`AsyncTTL`: caches an async function's results for a time."""

from __future__ import annotations

from collections.abc import Iterable

from . import _native
from .backend import CacheBackend
from .decorator import Decorator
from .remote import RemoteCacheBackend


class AsyncTTL(Decorator):
    """Caches the results of an async function by its arguments, each for `time_to_live` seconds.

    With ``time_to_live=None`` results never expire. The other arguments are the same as for
    `AsyncLRU`.
    """

    def __init__(
        self,
        time_to_live: float | None = 60,
        maxsize: int | None = 1024,
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
        if not callable(time_to_live):  # the base reports a missing call of the decorator
            _native.check_ttl(time_to_live, "time_to_live")
        super().__init__(
            maxsize=maxsize,
            default_ttl=time_to_live,
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

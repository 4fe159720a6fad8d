"""`AgentCache`: caches a tool that reads."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, ParamSpec, TypeVar

from cache import AsyncCache, CacheBackend, _native
from cache._excluded import check_exclude, places_of
from cache._function import check_function
from cache._instances import check_per_instance, instance_of
from cache._invalidation import Invalidation
from cache._scope import scope_of
from cache._types import CachedTool
from cache._ways import Ways
from cache.decorator import MakeKey, open_backup
from cache.remote import RemoteCacheBackend, attach, check_remote, in_namespace

from . import metrics
from ._registry import active_session, check_resource, check_scope, registry

P = ParamSpec("P")
R = TypeVar("R")

_numbers = itertools.count(1)


class AgentCache:
    """Caches the results of an async tool by its arguments, under the name of the resource that the
    tool reads.

    ``scope="global"``: one cache for the process, shared across processes by a `backup` if given.
    ``scope="session"``: results are kept in the active `AgentCacheSession` and end with it; outside
    every session the tool runs uncached, and each call computes its own result. Several tools may
    read one resource: their results never mix, and `AgentCacheInvalidator` invalidates them
    together.

    `ttl` in seconds (``None``: for ever). `maxsize`: how many results of this tool are kept,
    counted for each session (``None``: unlimited). `skip_args=1` leaves the first argument, for
    example ``self``, out of the key, and ``exclude={"client"}`` leaves out the argument with the
    given name. ``per_instance=True`` keeps the results of a method for each object, by identity, as
    long as the object lives. ``key(*args, **kwargs)`` returns a key to use instead.
    """

    def __init__(
        self,
        resource: str,
        scope: str = "global",
        ttl: float | None = None,
        backup: CacheBackend | None = None,
        *,
        remote_cache: RemoteCacheBackend | None = None,
        maxsize: int | None = 1024,
        skip_args: int = 0,
        exclude: Iterable[str] = (),
        per_instance: bool = False,
        key: Callable[..., Any] | None = None,
        backend: CacheBackend | None = None,
    ) -> None:
        self.resource = check_resource(resource, "AgentCache")
        self.scope = check_scope(scope)
        if backup is not None and backend is not None:
            raise TypeError("backup and backend are two names of one argument: give one of them")
        self._backup = backup if backup is not None else backend
        if self._backup is not None and self.scope == "session":
            raise ValueError(
                'a tool with scope="session" takes no backup: its results end with the session; '
                'leave the backup out, or use scope="global"'
            )
        check_remote(remote_cache)
        self._remote = remote_cache
        if remote_cache is not None and self.scope == "session":
            raise ValueError(
                'a tool with scope="session" takes no remote_cache: its results end with the session; '
                'leave it out, or use scope="global"'
            )
        if operator.index(skip_args) < 0:
            raise ValueError(f"skip_args is 0 or more, not {skip_args}")
        if key is not None and not callable(key):
            raise TypeError(f"key is a function of the tool's arguments, not {type(key).__qualname__}")
        self.skip_args = skip_args
        self.exclude = check_exclude(exclude)
        if key is not None and self.exclude:
            raise TypeError("key makes the key of all arguments: leave out there what exclude names")
        self.per_instance = check_per_instance(
            per_instance, skip_args, self._backup is not None, remote_cache is not None
        )
        if key is not None and self.per_instance:
            raise TypeError("key makes the key of all arguments, the object included: leave per_instance out")
        self._key = key
        _native.check_ttl(ttl, "ttl")
        self._ttl = ttl
        self._maxsize = maxsize
        self._new_cache()  # raises for wrong arguments now rather than at the first call
        self._decorated = False

    def _new_cache(self) -> AsyncCache:
        return AsyncCache(maxsize=self._maxsize, default_ttl=self._ttl)

    def __call__(self, function: Callable[P, Awaitable[R]]) -> CachedTool[P, R]:
        check_function(function, "AgentCache")
        places = places_of(function, self.exclude, self.skip_args)
        instance = instance_of(function, self.per_instance, self.exclude)
        if self._backup is not None and self._decorated:
            raise ValueError(
                f"this AgentCache has a backup and decorates a function already: give "
                f"{getattr(function, '__qualname__', function)!r} an AgentCache and a file of its own"
            )
        if self._remote is not None and self._decorated:
            raise ValueError(
                f"this AgentCache has a remote_cache and decorates a function already: give "
                f"{getattr(function, '__qualname__', function)!r} an AgentCache of its own"
            )
        self._decorated = True
        is_global = self.scope == "global"
        make_key = None if self._key is None else _make_key(self._key)
        # Outside sessions a session tool uses a cache that keeps nothing.
        cache = self._new_cache() if is_global else AsyncCache(maxsize=0)
        if self._remote is not None:
            # Several tools may read one resource, and their results never mix.
            cache.remote_cache = self._remote
            attach(cache, self._remote, in_namespace(f"{self.resource}/{scope_of(function)}"))
        if self._backup is not None:
            for_backend = open_backup(cache, self._backup, function)
            make_key = make_key if for_backend is None or make_key is not None else for_backend
        run = _inside(function, is_global)
        number = next(_numbers)

        def for_session(session: _native.AgentSession) -> Any:
            own = self._new_cache()
            kept = _native.decorate(run, own, 0, False, self.skip_args, make_key, run, places, instance)
            kept.cache = own
            kept.resource = self.resource
            return kept

        tool = _native.decorate_tool(
            run, cache, self.skip_args, make_key, number, None if is_global else for_session, places, instance
        )
        functools.update_wrapper(tool, function)
        tool.skip_args = self.skip_args
        ways = Ways(function, self.exclude, self.skip_args, typed=False)
        _Methods(tool, number, cache, is_global, self.resource).add_to(tool, function, ways)
        if registry.register(self.resource, tool):
            # The resource was written to before the tool was registered, so the entries of its file
            # are stale.
            cache.remove_all()
        decorated: CachedTool[P, R] = tool
        return decorated


def _make_key(key: Callable[..., Any]) -> MakeKey:
    return lambda args, kwargs: key(*args, **kwargs)


def _inside(function: Callable[P, Awaitable[R]], is_global: bool) -> Callable[P, Awaitable[R]]:
    """The function, run in a frame of its own: calls made by the function are inside the frame."""

    @functools.wraps(function)
    async def run(*args: P.args, **kwargs: P.kwargs) -> R:
        outer = _native.enter_agent_tool(is_global)
        own = None if outer is None else _native.current_agent_frame()
        try:
            return await function(*args, **kwargs)
        finally:
            # Not in another context: if no code holds the call, the collector closes it, in any
            # task.
            if own is not None and _native.current_agent_frame() is own:
                _native.set_current_agent_frame(outer)

    return run


class _Methods:
    """The methods and attributes of a decorated tool."""

    def __init__(self, tool: Any, number: int, cache: AsyncCache, is_global: bool, resource: str) -> None:
        import weakref

        # Weakly, so that an unused tool is freed at once, together with its caches.
        self._tool = weakref.ref(tool)
        self._number = number
        self._cache = cache
        self._is_global = is_global
        self._resource = resource

    def add_to(self, tool: Any, function: Any, ways: Ways) -> None:
        tool.resource = self._resource
        tool.scope = "global" if self._is_global else "session"
        # Everywhere, or in the active session.
        tool.invalidate_cache = Invalidation(function, ways, self._keepers)
        tool.clear_cache = self.clear_cache
        tool.get_metrics = self.get_metrics
        tool.stats = self.stats
        tool.save_to_backup = self._cache.save_to_backup
        tool.save_to_backup_async = self._cache.save_to_backup_async
        tool.load_from_backup = self._cache.load_from_backup
        tool._agent_caches = self._caches

    def _caches(self) -> list[AsyncCache]:
        """The caches that hold results of the tool now."""
        if self._is_global:
            return [self._cache]
        functions = (one for session in registry.sessions() for one in session.functions(self._number))
        return [function.cache for function in functions]

    def _keepers(self) -> list[Any]:
        """The functions whose results an invalidation removes."""
        if self._is_global:
            return [self._tool()]
        session = active_session()
        return [] if session is None else list(session.functions(self._number))

    def clear_cache(self) -> None:
        """Removes all results, in all sessions, and sets the tool's metrics to zero."""
        for cache in self._caches():
            cache.clear()
        _native.reset_tool_counts(self._tool())

    def get_metrics(self) -> dict[str, int | float]:
        """The tool's `hits`, `misses`, `invalidations`, `loop_detections`, `hit_rate`, `size`."""
        counts = metrics.with_hit_rate(_native.tool_counts(self._tool()))
        return {**counts, "size": sum(cache.size() for cache in self._caches())}

    def stats(self) -> dict[str, Any]:
        """`get_metrics`, and all counters of the tool's caches."""
        return {**metrics.summed(self._caches()), **self.get_metrics()}

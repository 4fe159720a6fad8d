"""`AgentCacheInvalidator`: decorates a tool that writes."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from cache import _native
from cache._invalidation import invalidation_of
from cache._writing import invalidating

from ._registry import active_session, check_resource, check_scope, registry

P = ParamSpec("P")
R = TypeVar("R")


class AgentCacheInvalidator:
    """Decorates an async tool that writes: all results cached under the resource are invalidated.

    The invalidation happens before the write and again after it, whether the write succeeds, raises
    or is cancelled. If a reader caches the old value in between, the second invalidation removes
    it; a read still running stores nothing. ``scope="global"`` invalidates the results of all tools
    of the resource, both those shared by everyone and those in the active session;
    ``scope="session"`` invalidates only the results in the active session.
    """

    def __init__(self, resource: str, scope: str = "global") -> None:
        self.resource = check_resource(resource, "AgentCacheInvalidator")
        self.scope = check_scope(scope)

    def __call__(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        if not callable(function):
            raise TypeError(f"an async function can be decorated, not {type(function).__qualname__}")

        @functools.wraps(function)
        async def write(*args: P.args, **kwargs: P.kwargs) -> R:
            session = active_session()
            self._count(session)
            return await invalidating(
                functools.partial(self._invalidate, session), lambda: function(*args, **kwargs)
            )

        return write

    def _count(self, session: _native.AgentSession | None) -> None:
        _native.count_invalidation()
        if session is not None:
            session.count_invalidation()
        for tool in registry.tools(self.resource):
            if tool.scope == "session" or self.scope == "global":
                _native.count_tool_invalidation(tool)

    def _invalidate(self, session: _native.AgentSession | None) -> None:
        for tool in registry.tools(self.resource):
            invalidation, _ = invalidation_of(tool.invalidate_cache)
            if invalidation is not None:
                invalidation.remove_all_inside()
        if self.scope == "global":
            registry.write(self.resource)
            for tool in registry.tools(self.resource):
                if tool.scope == "global":
                    for cache in tool._agent_caches():
                        cache.remove_all()
        if session is not None:
            for kept in session.functions():
                if kept.resource == self.resource:
                    kept.cache.remove_all()

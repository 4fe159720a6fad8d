"""The types of decorated functions, for type checkers.

At run time decorated functions are `_native.CachedFunction` and `_native.CachedMethod`; no object
is an instance of these classes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

P = ParamSpec("P")
Q = ParamSpec("Q")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")


class _Cached(Generic[P, R_co]):
    """The attributes of a decorated function, and of a method of a decorated function."""

    __name__: str
    __qualname__: str
    skip_args: int
    clear_cache: Callable[[], None]
    get_metrics: Callable[[], dict[str, int | float]]
    stats: Callable[[], dict[str, Any]]
    save_to_backup: Callable[[], None]
    save_to_backup_async: Callable[[], Coroutine[Any, Any, None]]
    load_from_backup: Callable[[], None]

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]: ...
    # Beside a `ParamSpec` the decorator's own argument has no type, so the other arguments are not
    # checked here.
    @overload
    def __call__(self, *args: Any, use_cache: bool, **kwargs: Any) -> Coroutine[Any, Any, R_co]: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    @property
    def invalidate_cache(self) -> Callable[P, None]:
        """Removes the cached result of a call with these arguments, in all ways of writing the
        call.
        """
        raise NotImplementedError


class CachedFunction(_Cached[P, R_co]):
    """A cached async function: a plain function, or a method in its class."""

    @property
    def __wrapped__(self) -> Callable[P, Awaitable[R_co]]:
        raise NotImplementedError

    # A method of an object or a class, a method of the class itself, or a static method. mypy
    # cannot distinguish them (it erases `S` before it compares), so the first argument may be given
    # or left out.
    @overload
    def __get__(
        self: CachedFunction[Concatenate[S, Q], R_co], instance: object, owner: type | None = None, /
    ) -> CachedMember[P, Q, R_co]: ...
    # A static method without parameters.
    @overload
    def __get__(self, instance: object, owner: type | None = None, /) -> CachedFunction[P, R_co]: ...
    def __get__(self, instance: Any, owner: Any = None, /) -> Any:
        raise NotImplementedError


class CachedMember(CachedFunction[P, R_co], Generic[P, Q, R_co]):
    """A decorated function, found in a class: takes its first argument, or is bound to it."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]: ...
    @overload
    def __call__(self, *args: Q.args, **kwargs: Q.kwargs) -> Coroutine[Any, Any, R_co]: ...
    @overload
    def __call__(self, *args: Any, use_cache: bool, **kwargs: Any) -> Coroutine[Any, Any, R_co]: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    @property
    def invalidate_cache(self) -> Invalidate[P, Q]:
        """Removes the cached result of a call with these arguments, in all ways of writing the
        call.
        """
        raise NotImplementedError


class Invalidate(Generic[P, Q]):
    """`invalidate_cache` of a member of a class."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None: ...
    @overload
    def __call__(self, *args: Q.args, **kwargs: Q.kwargs) -> None: ...
    def __call__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError


class CachedTool(CachedFunction[P, R_co]):
    """A cached tool of an agent."""

    resource: str
    scope: str

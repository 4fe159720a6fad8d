"""`invalidate_cache`: removes the cached result of a call, in all ways of writing the call, or
raises an error.

Rules:

1. An invalidation reaches every way to write its call (see `_ways`), or raises `TypeError`.
2. An invalidation through an object or a class (``repository.get.invalidate_cache(7)``) applies to
   the object. The object may be given a second time, as the library that this package replaces
   required. Another object of the class may be given too: then the invalidation applies to the
   given object, and also to the first object if the arguments are a valid call there.
3. If a function is decorated twice, both caches are invalidated, the inner cache first: a running
   load of the outer cache may hold the inner cache's old value, and is fenced. If another decorator
   stands between the two, it may change the arguments, so the inner cache is emptied.
4. Consider an invalidation for which the object is not known, and an argument could be mistaken for
   the object. A class method is then invalidated for its class and all subclasses. All other
   methods are refused: the entry of another object would be removed, and the stale entry would
   stay.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import MethodType
from typing import Any

from . import _native
from ._ways import GivenCall, Ways


def invalidation_of(invalidate: Any) -> tuple[Invalidation | None, tuple[Any, ...]]:
    """The `Invalidation` behind the `invalidate_cache` of a read, if the read is ours, and the
    object it is bound to.
    """
    if isinstance(invalidate, Invalidation):
        return invalidate, ()
    if isinstance(invalidate, MethodType):
        through = getattr(invalidate.__func__, "__self__", None)
        if isinstance(through, Invalidation):
            return through, (invalidate.__self__,)
    return None, ()


class Invalidation:
    """`invalidate_cache` of a decorated function."""

    __slots__ = ("_function", "_keepers", "_ways")

    def __init__(self, function: Any, ways: Ways, keepers: Callable[[], Iterable[Any]]) -> None:
        self._function = function
        self._ways = ways
        # The native functions whose caches hold the results.
        self._keepers = keepers

    def __call__(self, /, *args: Any, **kwargs: Any) -> None:
        """Removes the cached result of a call with these arguments."""
        kwargs.pop("use_cache", None)
        self.remove(self._readings(args, kwargs))

    def through(self, instance: Any, /, *args: Any, **kwargs: Any) -> None:
        """`invalidate_cache`, called through an object. The native bound method calls `through`."""
        kwargs.pop("use_cache", None)
        readings: list[GivenCall] = [((instance, *args), kwargs)]
        if args and (args[0] is instance or self._may_be_called_on(args[0])):  # Rule 2
            readings.append((args, kwargs))
        self.remove(readings)

    def remove(self, readings: list[GivenCall]) -> None:
        """Removes the cached results of calls. Readings that are not valid calls are ignored."""
        calls = self._ways.all_ways(readings)
        inner, before = self._inner()
        if inner is not None and isinstance(self._function, _native.CachedFunction | _native.CachedMethod):
            inner.remove([((*before, *args), kwargs) for args, kwargs in readings])  # Rule 3
        else:
            self.remove_all_inside()
        for keeper in self._keepers():
            _native.invalidate(keeper, calls)

    def remove_all(self) -> None:
        """Removes all results; the counters are kept."""
        self.remove_all_inside()
        for keeper in self._keepers():
            _native.invalidate(keeper, None)

    def remove_all_inside(self) -> None:
        """Removes all results of the decorated function, if the decorated function is cached itself
        (rule 3).
        """
        inner, _ = self._inner()
        if inner is not None:
            inner.remove_all()

    @property
    def ways(self) -> Ways:
        """The ways to write calls of the function."""
        return self._ways

    def _inner(self) -> tuple[Invalidation | None, tuple[Any, ...]]:
        """The `invalidate_cache` of the decorated function, if the decorated function is cached
        itself, and the object to which it is bound.
        """
        return invalidation_of(getattr(self._function, "invalidate_cache", None))

    def __repr__(self) -> str:
        return f"<invalidate_cache of {self._function!r}>"

    def _readings(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[GivenCall]:
        """The readings of an invalidation that, as far as we know, was not made through an
        object.
        """
        parameters = self._ways.parameters
        as_it_is = (args, kwargs)
        if parameters is None or not parameters.keys_its_object():
            return [as_it_is]
        if not parameters.accepts((None, *args), kwargs):
            return [as_it_is]
        is_call = parameters.accepts(args, kwargs)
        if is_call and (not args or self._may_be_called_on(args[0])):
            return [as_it_is]
        shifted: list[GivenCall] = [((cls, *args), kwargs) for cls in self._classes()]
        if is_call and not shifted:  # Rule 4
            name = getattr(self._function, "__qualname__", repr(self._function))
            raise TypeError(
                f"{name}.invalidate_cache() takes the object (for a class method the class) first, as {name}() does; "
                f"{type(args[0]).__qualname__!r} is not of the class"
            )
        return [as_it_is, *shifted]

    def _may_be_called_on(self, instance: Any) -> bool:
        """Whether an object, or a class, has the function as a method."""
        module = getattr(self._function, "__module__", None)
        owner = getattr(self._function, "__qualname__", "").rpartition(".")[0]
        kinds = [type(instance), instance.__class__, *([instance] if isinstance(instance, type) else [])]
        classes = [cls for kind in kinds for cls in kind.__mro__]
        if any(cls.__qualname__ == owner and cls.__module__ == module for cls in classes):
            return True
        return any(self._is_it(member) for cls in classes for member in vars(cls).values())

    def _classes(self) -> list[type]:
        """For a class method: its class, and all subclasses.

        From Python 3.13 on a class method does not bind the wrapped function, so the class is not
        available otherwise.
        """
        *path, name = getattr(self._function, "__qualname__", "").split(".")
        owner: Any = sys.modules.get(getattr(self._function, "__module__", ""))
        for part in path:
            owner = getattr(owner, "__dict__", {}).get(part)
        if not isinstance(owner, type) or not path:
            return []
        member = vars(owner).get(name)
        if not isinstance(member, classmethod) or not self._is_it(member):
            return []
        found: list[type] = [owner]
        for cls in found:
            subclasses: list[type] = type.__subclasses__(cls)
            found += [subclass for subclass in subclasses if subclass not in found]
        return found

    def _is_it(self, member: Any) -> bool:
        """Whether a member of a class is the function, however it is wrapped."""
        for _ in range(100):
            if member is self._function:
                return True
            if isinstance(member, classmethod | staticmethod):
                member = member.__func__
            else:
                member = getattr(member, "__dict__", {}).get("__wrapped__")
            if member is None:
                return False
        return False

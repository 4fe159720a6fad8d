"""`invalidate_cache`: removes what a call has cached, however it is written, or says why that cannot be.

Rules:

1. An invalidation reaches every way to write its call (see `_ways`), or raises `TypeError`.
2. Asked through an object or a class (``repository.get.invalidate_cache(7)``), it is for that object. The object may be
   given once more, as the library that this one replaces wanted it; so may another object of the class be, and then it
   is for that one, and for the first one if that is a call, too.
3. Of a function that is decorated twice both caches are invalidated, the inner one first: a load of the outer cache that
   runs meanwhile may have the inner one's old value, and is fenced. Of the inner one everything goes if another decorator
   is between the two, which may change the arguments.
4. Where the object is not known and an argument could be taken for it, a class method is invalidated for its class and
   all subclasses, anything else is refused: an entry of another object would be removed, and the stale one would stay.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import MethodType
from typing import Any

from . import _native
from ._ways import GivenCall, Ways


def invalidation_of(invalidate: Any) -> tuple[Invalidation | None, tuple[Any, ...]]:
    """What the `invalidate_cache` of a read is, if it is one of ours, and the object that it is bound to."""
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
        # The native functions whose caches have the results.
        self._keepers = keepers

    def __call__(self, /, *args: Any, **kwargs: Any) -> None:
        """Removes what a call with these arguments has cached."""
        kwargs.pop("use_cache", None)
        self.remove(self._readings(args, kwargs))

    def through(self, instance: Any, /, *args: Any, **kwargs: Any) -> None:
        """`invalidate_cache` as it is called through an object; the native bound method asks for it."""
        kwargs.pop("use_cache", None)
        readings: list[GivenCall] = [((instance, *args), kwargs)]
        if args and (args[0] is instance or self._may_be_called_on(args[0])):  # Rule 2
            readings.append((args, kwargs))
        self.remove(readings)

    def remove(self, readings: list[GivenCall]) -> None:
        """Removes what calls have cached; those of the readings that are no call are left out."""
        calls = self._ways.all_ways(readings)
        inner, before = self._inner()
        if inner is not None and isinstance(self._function, _native.CachedFunction | _native.CachedMethod):
            inner.remove([((*before, *args), kwargs) for args, kwargs in readings])  # Rule 3
        else:
            self.remove_all_inside()
        for keeper in self._keepers():
            _native.invalidate(keeper, calls)

    def remove_all(self) -> None:
        """Removes all results; what was counted stays."""
        self.remove_all_inside()
        for keeper in self._keepers():
            _native.invalidate(keeper, None)

    def remove_all_inside(self) -> None:
        """Removes all results of the function that is decorated, if it is cached itself (rule 3)."""
        inner, _ = self._inner()
        if inner is not None:
            inner.remove_all()

    @property
    def ways(self) -> Ways:
        """The ways to write calls of the function."""
        return self._ways

    def _inner(self) -> tuple[Invalidation | None, tuple[Any, ...]]:
        """The `invalidate_cache` of the function that is decorated, if it is cached itself, and the object that it is
        bound to.
        """
        return invalidation_of(getattr(self._function, "invalidate_cache", None))

    def __repr__(self) -> str:
        return f"<invalidate_cache of {self._function!r}>"

    def _readings(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[GivenCall]:
        """A call that was not asked for through an object, as far as we know."""
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
        """If it is a class method: its class, and all classes under it.

        From Python 3.13 on a class method does not bind what it wraps, so it does not tell us the class.
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

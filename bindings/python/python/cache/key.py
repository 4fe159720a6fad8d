"""Keys by value, as objects: for those who make keys themselves, and for backends of the user's own.

What is not plain is compared by the encoding that the decorators' native keys have, too, so that both tell the same
arguments apart.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import pickle
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

from . import _native, _stand_ins

T = TypeVar("T")

_PLAIN = (str, int, float, bool, bytes, type(None))
# A longer text is known by its digest: a cache would keep all of it alive.
_MAX_PLAIN_LENGTH = 1 << 16
# Lists that are deeper, or have more lists in them, are left to the encoding, which takes any.
_MAX_DEPTH = 64
_MAX_LISTS = 1 << 12


def register(cls: type[T], function: Callable[[T], Any]) -> None:
    """Says what stands for objects of a class where they are arguments, or inside of one.

    `function` gets the object and returns a value that tells it from others. That value is part of
    the key, instead of all that the object holds: two objects of one class are one key if and only
    if their values are. It holds for classes that inherit from `cls`, too, unless something is
    registered for them. The class itself is part of the key in any case.

    Register before the first call, when modules are imported. Built-in types (``int``, ``list`` and
    the like) and classes of classes are a ``TypeError``. What `function` raises makes the call a
    ``TypeError`` that names the class.

    Leave out only what no result depends on. A value that is too small makes two objects one key,
    and the results of the one are served for the other: the tenant, the user, the language belong
    in it.
    """
    if not isinstance(cls, type) or not callable(function):
        raise TypeError("cache.key.register takes a class and a function of its objects")
    if cls in _stand_ins.BUILT_IN or issubclass(cls, type):
        raise TypeError(
            f"objects of {cls.__qualname__} are known by their value: register a class of your own"
        )
    _stand_ins.register(cls, function)


class ByValue:
    """Stands for a value that is not plain: equal to what stands for an equal value.

    That is its canonical encoding, and the classes, functions and modules that the encoding names: two classes of one
    name are not the same. What has no value, such as a lambda, is equal to itself only; then `is_stable` is false, for
    no other process knows it, and pickling it is an error.
    """

    __slots__ = ("_bytes", "_named", "is_stable")

    def __init__(self, data: bytes, named: tuple[Any, ...], is_stable: bool) -> None:
        self._bytes = data
        self._named = named
        self.is_stable = is_stable

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ByValue):
            return NotImplemented
        return (
            self._bytes == other._bytes
            and len(self._named) == len(other._named)
            and all(a is b for a, b in zip(self._named, other._named, strict=True))
        )

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __repr__(self) -> str:
        return f"<by value: {self._bytes!r}>"

    def why_not_saved(self) -> str:
        """Why no other process could have an equal one, and what to do."""
        return _native._why_not_saved(self._named)

    def __reduce__(self) -> tuple[Any, ...]:
        if not self.is_stable:
            raise pickle.PicklingError(f"the key of a call cannot be pickled: {self.why_not_saved()}")
        # Pickle takes classes and functions by name, modules not at all.
        named = tuple(_Module(one.__name__) if isinstance(one, ModuleType) else one for one in self._named)
        return (_restored, (self._bytes, named))


class _Module:
    """A module by its name, in a pickle."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __reduce__(self) -> tuple[Any, ...]:
        return (importlib.import_module, (self._name,))


def _restored(data: bytes, named: tuple[Any, ...]) -> ByValue:
    return ByValue(data, named, True)


def _to_hashable(value: Any) -> Any:
    """A hashable that stands for a value: equal values give equal ones, whatever the order of dicts and sets.

    Plain values are themselves, and lists are as tuples. For anything else stands a `ByValue`.
    """
    if type(value) is list or type(value) is tuple:
        # Lists in lists may come to any number, if some are shared. How many there are depends on the value alone.
        with contextlib.suppress(_TooMuchError):
            return _hashable(value, 0, itertools.count())
        return _by_value(value)
    return _hashable(value, 0, itertools.count())


class _TooMuchError(Exception):
    pass


def _hashable(value: Any, depth: int, lists: itertools.count[int]) -> Any:
    kind = type(value)
    # NaN is not equal to itself.
    if kind in _PLAIN and value == value and not (kind in (str, bytes) and len(value) > _MAX_PLAIN_LENGTH):
        return value
    if kind is list or kind is tuple:
        if depth >= _MAX_DEPTH or next(lists) >= _MAX_LISTS:
            raise _TooMuchError
        return tuple([_hashable(item, depth + 1, lists) for item in value])
    return _by_value(value)


def _by_value(value: Any) -> ByValue:
    data, named, is_stable = _native._encode_by_value(value)
    return ByValue(data, tuple(named), is_stable)


def _is_stable(part: Any) -> bool:
    if isinstance(part, ByValue):
        return part.is_stable
    return not isinstance(part, tuple) or all(map(_is_stable, part))


def _why_not_saved(part: Any) -> str | None:
    if isinstance(part, ByValue):
        return None if part.is_stable else part.why_not_saved()
    if not isinstance(part, tuple):
        return None
    return next((why for one in part if (why := _why_not_saved(one)) is not None), None)


class KEY:
    """The arguments of a call as a key: hashable, and equal for equal arguments in any order of keywords."""

    __slots__ = ("args", "kwargs")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args = tuple(_to_hashable(arg) for arg in args)
        self.kwargs = tuple(
            (name, _to_hashable(value)) for name, value in sorted(kwargs.items()) if name != "use_cache"
        )

    @property
    def is_stable(self) -> bool:
        """Whether another process could have an equal key. One that is not cannot be pickled."""
        return _is_stable(self.args) and _is_stable(self.kwargs)

    def why_not_saved(self) -> str | None:
        """Why no other process could have an equal key, and what to do; None if one could."""
        return _why_not_saved((self.args, self.kwargs))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KEY):
            return NotImplemented
        return self.args == other.args and self.kwargs == other.kwargs

    def __hash__(self) -> int:
        return hash((self.args, self.kwargs))

    def __repr__(self) -> str:
        return f"KEY(args={self.args}, kwargs={self.kwargs})"


def make_key(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], skip_args: int = 0) -> tuple[str, KEY]:
    """The key of a call: the function's qualified name and its arguments, without the first `skip_args`."""
    name = getattr(func, "__qualname__", None) or getattr(func, "__name__", None) or type(func).__qualname__
    return (name, KEY(args[skip_args:], kwargs))

"""Keys by value, as objects: for code that makes keys itself, and for a user's own backends.

Values that are not plain are compared by their canonical encoding. The decorators' native keys use
the same encoding, so both kinds of keys distinguish the same arguments.
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
# A longer text is represented by its digest, because a key would keep the whole text alive.
_MAX_PLAIN_LENGTH = 1 << 16
# Lists nested deeper, or containing more lists, are left to the encoding, which accepts any list.
_MAX_DEPTH = 64
_MAX_LISTS = 1 << 12


def register(cls: type[T], function: Callable[[T], Any]) -> None:
    """Registers a function that represents objects of a class in keys, as arguments or inside
    arguments.

    `function` gets the object and returns a value that distinguishes the object from others. The
    value is part of the key instead of the object's whole content: two objects of one class give
    the same key if and only if their values are equal. The registration also applies to classes
    that inherit from `cls`, unless they have a registration of their own. The class itself is
    always part of the key.

    Register before the first call, when modules are imported. Built-in types (``int``, ``list`` and
    so on) and metaclasses are a ``TypeError``. If `function` raises, the call is a ``TypeError``
    that names the class.

    Leave out of the value only data on which no result depends. If the value contains too little,
    two objects give the same key, and the results for the first are returned for the second:
    include the tenant, the user, the language.
    """
    if not isinstance(cls, type) or not callable(function):
        raise TypeError("cache.key.register takes a class and a function of its objects")
    if cls in _stand_ins.BUILT_IN or issubclass(cls, type):
        raise TypeError(
            f"objects of {cls.__qualname__} are known by their value: register a class of your own"
        )
    _stand_ins.register(cls, function)


class ByValue:
    """Represents a value that is not plain. Two `ByValue` objects are equal if the represented
    values are equal.

    It consists of the value's canonical encoding and of the classes, functions and modules named in
    the encoding: two classes with the same name are different. An object without a value, for
    example a lambda, is equal only to itself. `is_stable` is then false, because no other process
    can recognise the object, and pickling it raises.
    """

    __slots__ = ("_bytes", "_named", "is_stable", "of_one_call")

    def __init__(
        self, data: bytes, named: tuple[Any, ...], is_stable: bool, of_one_call: type | None = None
    ) -> None:
        self._bytes = data
        self._named = named
        self.is_stable = is_stable
        # The class of a contained object that exists in one call only, such as the request of a web
        # framework.
        self.of_one_call = of_one_call

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
        """Why no other process could have an equal key, and how to change that."""
        return _native._why_not_saved(self._named)

    def __reduce__(self) -> tuple[Any, ...]:
        if not self.is_stable:
            raise pickle.PicklingError(f"the key of a call cannot be pickled: {self.why_not_saved()}")
        # Pickle saves classes and functions by name, but does not save modules.
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
    """A hashable that represents a value: equal for equal values, whatever the order of dicts and
    sets.

    Plain values represent themselves, and lists are represented as tuples. All others are
    represented by a `ByValue`.
    """
    if type(value) is list or type(value) is tuple:
        # If lists are shared, nested lists can multiply without bound. Their number depends on the
        # value alone.
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
    of_one_call = None if is_stable else _native._class_of_one_call(value)
    return ByValue(data, tuple(named), is_stable, of_one_call)


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


def _class_of_one_call(part: Any) -> type | None:
    if isinstance(part, ByValue):
        return part.of_one_call
    if isinstance(part, tuple):
        return next(filter(None, map(_class_of_one_call, part)), None)
    return None


class KeyOfOneCall(tuple[str, "KEY"]):
    """The key of a call with an argument that exists in one call only. The result of the call is
    not stored.
    """

    __slots__ = ()

    @property
    def of_one_call(self) -> type | None:
        """The class of the argument that exists in one call only."""
        return _class_of_one_call(self[1].args) or _class_of_one_call(self[1].kwargs)


def key_of_call(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, KEY]:
    """`make_key`, for a decorated function whose results are kept by a user's own backend."""
    key = make_key(func, args, kwargs)
    special = KeyOfOneCall(key)
    return key if key[1].is_stable or special.of_one_call is None else special


class KEY:
    """The arguments of a call as a key: hashable, equal for equal arguments in any order of
    keywords.
    """

    __slots__ = ("args", "kwargs")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args = tuple(_to_hashable(arg) for arg in args)
        self.kwargs = tuple(
            (name, _to_hashable(value)) for name, value in sorted(kwargs.items()) if name != "use_cache"
        )

    @property
    def is_stable(self) -> bool:
        """Whether another process could have an equal key. An unstable key cannot be pickled."""
        return _is_stable(self.args) and _is_stable(self.kwargs)

    def why_not_saved(self) -> str | None:
        """Why no other process could have an equal key, and how to change that; None if another
        process could.
        """
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
    """The key of a call: the function's qualified name and the arguments without the first
    `skip_args`.
    """
    name = getattr(func, "__qualname__", None) or getattr(func, "__name__", None) or type(func).__qualname__
    return (name, KEY(args[skip_args:], kwargs))

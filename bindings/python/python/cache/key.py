"""Keys by value, as objects: for those who make keys themselves, and for backends of the user's own.

What is not plain is compared by the encoding that the decorators' native keys have, too, so that both tell the same
arguments apart.
"""

from __future__ import annotations

import importlib
import pickle
from types import ModuleType
from typing import Any

from . import _native

_PLAIN = (str, int, float, bool, bytes, type(None))
# As deep as the encoding goes.
_MAX_DEPTH = 64


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

    def __reduce__(self) -> tuple[Any, ...]:
        if not self.is_stable:
            raise pickle.PicklingError(
                "an argument is of a class, or is one, that no other process would find by its name, so its key cannot "
                "be pickled"
            )
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
    return _hashable(value, 0)


def _hashable(value: Any, depth: int) -> Any:
    kind = type(value)
    # NaN is not equal to itself.
    if kind in _PLAIN and value == value:
        return value
    # Beyond the depth the encoding says what is wrong.
    if (kind is list or kind is tuple) and depth < _MAX_DEPTH:
        return tuple([_hashable(item, depth + 1) for item in value])
    data, named, is_stable = _native._encode_by_value(value)
    return ByValue(data, tuple(named), is_stable)


def _is_stable(part: Any) -> bool:
    if isinstance(part, ByValue):
        return part.is_stable
    return not isinstance(part, tuple) or all(map(_is_stable, part))


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

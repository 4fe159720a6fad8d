"""Keys by value, as objects: for those who make keys themselves, and for backends of the user's own.

The decorators make their keys natively, by the same rules.
"""

from __future__ import annotations

from typing import Any

_PLAIN = (str, int, float, bool, bytes, type(None))


class _Tagged(tuple[Any, ...]):
    """A tuple that equals only its like, so that a dict is not a list of pairs."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and tuple.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((type(self).__name__, tuple(self)))


class _Dict(_Tagged):
    __slots__ = ()


class _Object(_Tagged):
    __slots__ = ()


def _to_hashable(value: Any) -> Any:
    """A hashable that stands for a value: equal values give equal ones, whatever the order of dicts and sets.

    Lists are as tuples. Other objects are their type and their attributes, or their `repr` if they have none.
    """
    return _hashable(value, ())


def _hashable(value: Any, outer: tuple[int, ...]) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if id(value) in outer:
        raise ValueError(
            f"an argument of type {kind.__qualname__} contains itself, so it cannot be part of a key"
        )
    outer = (*outer, id(value))
    if kind is list or kind is tuple:
        return tuple(_hashable(item, outer) for item in value)
    if kind is dict:
        return _Dict(
            sorted(((_hashable(k, outer), _hashable(v, outer)) for k, v in value.items()), key=_order)
        )
    if kind is set or kind is frozenset:
        return frozenset(_hashable(item, outer) for item in value)
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return _Object((kind, getattr(value, "__module__", None), value.__qualname__))
    parts: list[Any] = [kind]
    if isinstance(value, tuple | list):
        parts.append(tuple(_hashable(item, outer) for item in value))
    elif isinstance(value, dict):
        pairs = ((_hashable(k, outer), _hashable(v, outer)) for k, v in value.items())
        parts.append(_Dict(sorted(pairs, key=_order)))
    elif isinstance(value, set | frozenset):
        parts.append(frozenset(_hashable(item, outer) for item in value))
    elif isinstance(value, str | int | float | bytes):
        for base in (str, bytes, float, int):
            if isinstance(value, base):
                parts.append(base(value))  # type: ignore[arg-type]
                break
    attributes = getattr(value, "__dict__", None)
    if attributes:
        pairs = ((_hashable(k, outer), _hashable(v, outer)) for k, v in attributes.items())
        parts.append(_Dict(sorted(pairs, key=_order)))
    elif len(parts) == 1:
        parts.append(repr(value) if attributes is None else ())
    return _Object(parts)


def _order(item: Any) -> tuple[str, str]:
    return (type(item[0]).__qualname__, repr(item[0]))


class KEY:
    """The arguments of a call as a key: hashable, and equal for equal arguments in any order of keywords."""

    __slots__ = ("args", "kwargs")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args = tuple(_to_hashable(arg) for arg in args)
        self.kwargs = tuple(
            (name, _to_hashable(value)) for name, value in sorted(kwargs.items()) if name != "use_cache"
        )

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

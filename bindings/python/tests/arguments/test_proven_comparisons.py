"""Classes whose `__eq__` is read, and proven to compare some attributes only."""

from __future__ import annotations

import functools
import types
from typing import Any

from own_equality import (
    shares,
)

from cache import _equality


def _with(eq: Any, **space: Any) -> Any:
    return type("Made", (), {"__eq__": eq, "__hash__": lambda self: 1, **space})


def _same_class(a: Any, b: Any) -> Any:
    return a.__class__ is b.__class__ and a.x == b.x


def _types(a: Any, b: Any) -> Any:
    return type(a) is type(b) and a.x == b.x and a.y == b.y


def _early(a: Any, b: Any) -> Any:
    if a is b:
        return True
    if b is None or not isinstance(b, type(a)):
        return NotImplemented
    if a.x != b.x:
        return False
    return not (a.y != b.y)  # noqa: SIM202


def _tuples(a: Any, b: Any) -> Any:
    return (a.x, (a.y, a.z)) == (b.x, (b.y, b.z))


def _any(a: Any, b: Any) -> Any:
    return a.x == b.x or a.y == b.y


def _crossed(a: Any, b: Any) -> Any:
    return a.x == b.y


def _identical(a: Any, b: Any) -> Any:
    return a.x is b.x


def _none_first(a: Any, b: Any) -> Any:
    return a.x is None or a.x == b.x


def _constant(a: Any, b: Any) -> Any:
    return a.x == b.x and a.y == 5


def _truth(a: Any, b: Any) -> Any:
    return a.x and a.x == b.x


def _deeper(a: Any, b: Any) -> Any:
    return a.x.y == b.x.y


def _inverted(a: Any, b: Any) -> Any:
    return (a.x, a.y) != (b.x, b.y)


def _both_or_neither(a: Any, b: Any) -> Any:
    return (a.x == b.x) == (a.y == b.y)


def _called(a: Any, b: Any) -> Any:
    return a.key() == b.key()


def _length(a: Any, b: Any) -> Any:
    return len(a.x) == len(b.x)


def _sum(a: Any, b: Any) -> Any:
    return a.x + a.y == b.x + b.y


def _guarded(a: Any, b: Any) -> Any:
    try:
        return a.x == b.x
    except AttributeError:
        return False


def _whole(a: Any, b: Any) -> Any:
    return a.__dict__ == b.__dict__


def _whole_vars(a: Any, b: Any) -> Any:
    return type(a) == type(b) and vars(a) == vars(b)  # noqa: E721


def _nothing(a: Any, b: Any) -> Any:
    return isinstance(b, a.__class__)


def _less(a: Any, b: Any) -> Any:
    return a.x <= b.x


def test_what_is_proven_of_a_comparison() -> None:
    proven = [
        (_same_class, ("x",)),
        (_types, ("x", "y")),
        (_early, ("x", "y")),
        (_tuples, ("x", "y", "z")),
        (_nothing, ()),
    ]
    for eq, names in proven:
        assert _equality.of(_with(eq)) == (names, None), eq
    for eq in (_whole, _whole_vars):
        assert _equality.of(_with(eq)) is None, eq
    in_doubt = [
        *(_any, _crossed, _identical, _none_first, _constant, _truth, _deeper, _inverted, _both_or_neither),
        *(_called, _length, _sum, _guarded, _less),
    ]
    for eq in in_doubt:
        assert _equality.of(_with(eq)) == (None, None), eq
    # An attribute that is not data proves nothing.
    for attribute in (property(lambda self: 1), functools.cached_property(lambda self: 1), len):
        assert _equality.of(_with(_same_class, x=attribute)) in ((None, None), (("x",), None))
    assert _equality.of(_with(_same_class, x=property(lambda self: 1))) == (None, None)
    assert _equality.of(_with(_same_class, x=functools.cached_property(lambda self: 1))) == (None, None)
    assert _equality.of(_with(_same_class, x=5)) == (("x",), None)


def test_names_that_pass_for_builtins_prove_nothing() -> None:
    def eq(a: Any, b: Any) -> Any:
        return isinstance(b, object) and a.x == b.x  # type: ignore[attr-defined]

    fake = types.FunctionType(eq.__code__, {"isinstance": lambda *_: False, "object": object})
    assert _equality.of(_with(fake)) == (None, None)
    assert _equality.of(_with(eq)) == (("x",), None)


def test_data_of_the_class_is_what_an_object_without_its_own_is_compared_by() -> None:
    cls = _with(_same_class, x=5)
    one, other, third = (cls() for _ in range(3))
    other.x, third.x = 5, 6
    assert one == other
    assert shares(one, other)
    assert not shares(one, third)


def test_an_object_that_lacks_a_compared_attribute_is_known_by_all_it_holds() -> None:
    cls = _with(_same_class)
    one, other = (cls() for _ in range(2))
    one.y, other.y = 1, 2
    assert not shares(one, other)
    assert shares(one, one)

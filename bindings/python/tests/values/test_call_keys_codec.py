"""Arguments of calls as bytes."""

import array
import collections
import datetime as dt
import functools
import itertools
import math
import os
import re
import types
import uuid
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from codec_values import (
    BERLIN,
    UTC,
    Access,
    Level,
    Name,
    Pair,
    Point,
    Shade,
    Sly,
    Thing,
    Words,
    by_value,
    encode_key,
    keys,
    native,
)
from hypothesis import HealthCheck, given, settings
from naming import stable_name


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a: Any) -> None:
        self.a = a


def recorder() -> Any:
    class Recorder:
        def __init__(self) -> None:
            self.a = 1

    return Recorder


def adder(n: Any) -> Any:
    return lambda x: x + n


SAME_ARGUMENTS = [
    (1, 1.0, True, Decimal(1), Fraction(1)),
    ([1, 2], (1, 2)),
    ([[1], []], ((1,), ())),
    ({"a": 1, "b": [2]}, {"b": (2,), "a": 1.0}),
    ({1, 2, 3}, frozenset([3, 2, 1])),
    (Thing(a=1, b=[2]), Thing(b=[2], a=1)),
    (Slotted(1), Slotted(1)),
    (Pair(1, [2]), Pair(1, (2,))),
    (math.nan, -math.nan),
    (Shade.DARK, Shade.DIM),
    (dt.datetime(2024, 1, 1, 12, tzinfo=UTC), dt.datetime(2024, 1, 1, 13, tzinfo=BERLIN)),
    (functools.partial(max, 1), functools.partial(max, 1)),
    (collections.OrderedDict(a=1, b=2), collections.OrderedDict(a=1, b=2)),
    (array.array("i", [1, 2]), array.array("i", [1, 2])),
    (collections.deque([1]), collections.deque([1])),
    (Thing().__init__, Thing().__init__),  # type: ignore[misc]
    (ValueError("a"), ValueError("a")),
]


DIFFERENT_ARGUMENTS = [
    None,
    1,
    "1",
    b"1",
    bytearray(b"1"),
    [],
    [1],
    [[1]],
    {},
    {"a": 1},
    [("a", 1)],
    set(),
    {1},
    Point(1, 2),
    collections.namedtuple("Spot", "x y")(1, 2),  # type: ignore[call-arg, arg-type]
    (1, 2),
    Level.LOW,
    Shade.DARK,
    Access.READ | Access.WRITE,
    Access(0),
    Name("1"),
    Sly("1"),
    Words([1]),
    collections.OrderedDict(a=1),
    collections.Counter(a=1),
    Thing(),
    Thing(a=1),
    Thing(a=2),
    Thing(b=1),
    Slotted(1),
    Slotted(2),
    Pair(1, 2),
    Pair(2, 1),
    types.SimpleNamespace(a=1),
    Thing,
    Slotted,
    len,
    max,
    os,
    os.path.join,
    functools.partial(max, 1),
    functools.partial(min, 1),
    array.array("i", [1, 2]),
    array.array("i", [1, 3]),
    array.array("I", [1, 2]),
    collections.deque([1]),
    collections.deque([2]),
    range(3),
    re.compile("a"),
    ValueError("a"),
    ValueError("b"),
    KeyError("a"),
    Thing(a=1).__init__,  # type: ignore[misc]
    Thing(a=2).__init__,  # type: ignore[misc]
    dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN),
    math.nan,
    complex(0, math.nan),
    10**10_000,
    Decimal("1E+999999999"),
    dt.time(1, tzinfo=UTC),
    BERLIN,
]


@pytest.mark.parametrize("arguments", SAME_ARGUMENTS, ids=stable_name)
def test_arguments_of_the_same_value_have_the_same_bytes(arguments: Any) -> None:
    for argument in arguments:
        assert native._encode_by_value(argument) == native._encode_by_value(arguments[0])


def test_arguments_of_different_values_have_different_bytes() -> None:
    encoded: dict[Any, Any] = {}
    for argument in DIFFERENT_ARGUMENTS:
        data = by_value(argument)
        assert data not in encoded, (argument, encoded[data])
        encoded[data] = argument
        # Long encodings are digests, and containers of them are long themselves.
        assert by_value([argument]) == b"\x91" + data or data[:2] == b"\xc7\x28"


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(keys)
def test_a_key_that_is_no_subclass_is_the_same_by_value(key: Any) -> None:
    data = encode_key(key)
    if data is not None and "Point" not in repr(key) and "Level" not in repr(key):
        assert by_value(key) == data


def test_the_types_that_were_met_are_told_in_the_order_of_their_names() -> None:
    _, found, is_stable = native._encode_by_value([Thing(a=Pair(1, Shade.DARK)), Point(1, 2), len])
    assert found == [len, Pair, Point, Shade, Thing]
    assert native._encode_by_value([len, Shade.DARK, Pair, Point, Thing(), Pair, len])[1] == found
    assert is_stable
    assert native._encode_by_value([1, "a", {2}])[1:] == ([], True)


def test_the_types_in_a_set_are_told_in_one_order() -> None:
    for _ in range(20):
        found = native._encode_by_value({Point(1, 2), Pair(1, 2), Name("a"), Shade.DARK, uuid.UUID(int=1)})[1]
        assert len(found) == 4
        assert (
            found
            == native._encode_by_value({Shade.DARK, Name("a"), Pair(1, 2), Point(1, 2), uuid.UUID(int=1)})[1]
        )


def test_two_classes_of_one_name_are_told_apart_by_type() -> None:
    one, two = recorder(), recorder()
    a, b = native._encode_by_value(one()), native._encode_by_value(two())
    assert a[0] != b[0]
    assert (a[1], b[1]) == ([one], [two])
    assert not a[2]
    assert a == native._encode_by_value(one())
    # In any combination: each of the two may replace the other.
    several = [[make() for make in makes] for makes in itertools.product((one, two), repeat=3)]
    assert len({by_value(each) for each in several}) == 8


@pytest.mark.parametrize("make", [object, lambda: adder(1), lambda: [].append, recorder], ids=stable_name)
def test_what_has_no_name_and_shows_nothing_is_itself(make: Any) -> None:
    one, two = make(), make()
    a, b = native._encode_by_value(one), native._encode_by_value(two)
    assert a[1][-1] is one
    assert b[1][-1] is two
    assert not a[2]


def test_arrays_are_known_by_their_whole_content() -> None:
    numpy = pytest.importorskip("numpy")
    one, two = numpy.zeros(100_000), numpy.zeros(100_000)
    assert by_value(one) == by_value(two)
    two[50_000] = 1
    assert by_value(one) != by_value(two)
    assert by_value(numpy.zeros((2, 3))) != by_value(numpy.zeros((3, 2)))
    assert by_value(numpy.array(["a", None], dtype=object)) == by_value(
        numpy.array(["a", None], dtype=object)
    )


def test_what_an_object_raises_while_it_is_looked_at_is_not_there() -> None:
    class Angry:
        __slots__ = ("unset",)

        def __getattr__(self, name: str) -> Any:
            raise LookupError(name)

        def __repr__(self) -> str:
            raise LookupError("no")

    one = Angry()
    assert by_value([1, one]) == by_value([1, one])
    assert by_value([1, one]) != by_value([1, Angry()])

    class Interrupted:
        __slots__ = ()

        def __repr__(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        by_value(Interrupted())

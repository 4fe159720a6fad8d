"""Objects as bytes: `docs/values.md`, whose examples are tested here too."""

import collections
import datetime as dt
import gc
import math
import pathlib
import struct
import sys
import uuid
import zoneinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from codec_values import (
    UTC,
    Level,
    Name,
    Pair,
    Point,
    Shade,
    Thing,
    Words,
    decode,
    decode_key,
    encode,
    encode_key,
    is_pickled,
    native,
    same,
    values,
)
from hypothesis import HealthCheck, given, settings
from naming import stable_name


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(values)
def test_what_comes_back_is_equal_and_of_the_same_type(value: Any) -> None:
    assert same(decode(encode(value)), value)


@pytest.mark.parametrize("offset", [-1, 0, 1])
@pytest.mark.parametrize("power", [5, 7, 8, 15, 16, 31, 32, 63, 64, 128, 2000])
@pytest.mark.parametrize("sign", [-1, 1])
def test_integers_at_the_edges_of_their_forms_come_back(sign: Any, power: Any, offset: Any) -> None:
    number = sign * 2**power + offset
    assert same(decode(encode(number)), number)
    assert same(decode_key(encode_key(number)), number)


@pytest.mark.parametrize("length", [0, 15, 16, 31, 32, 255, 256, 65535, 65536])
def test_lengths_at_the_edges_of_their_forms_come_back(length: Any) -> None:
    for value in ["x" * length, b"x" * length, bytearray(length), [0] * length, tuple(range(length))]:
        assert same(decode(encode(value)), value)
    value = dict.fromkeys(range(length))
    assert same(decode(encode(value)), value)


@pytest.mark.parametrize(
    "value",
    [
        -0.0,
        math.inf,
        -math.inf,
        struct.unpack(">d", bytes.fromhex("7ff8000000000123"))[0],
        complex(-0.0, math.inf),
        "\ud800x",
        Decimal("1.10"),
        Decimal("-0E+5"),
        Decimal("sNaN12"),
        Decimal("1E+999999"),
        uuid.UUID(int=0),
        dt.datetime.max,
        dt.datetime(2024, 10, 27, 2, 30, fold=1),
        dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=5, microseconds=1), "here")),
        dt.time(1, tzinfo=UTC, fold=1),
        dt.timezone(dt.timedelta(0), "UTC"),
        dt.timezone(dt.timedelta(hours=1), ""),
        dt.timedelta.min,
        dt.timedelta.max,
        {"b": 1, "a": 2},
        {1: "int", "1": "str", (1, (2,)): "tuple", frozenset([1]): "set", b"1": "bytes", None: None},
        [],
        (),
        {},
        set(),
        frozenset(),
        [[], [()], {}],
    ],
    ids=stable_name,
)
def test_each_of_these_comes_back_without_pickle(value: Any) -> None:
    data = encode(value, pickle=False)
    assert same(decode(data, pickle=False), value)


def test_the_utc_of_a_datetime_is_the_one_utc() -> None:
    assert decode(encode(dt.datetime(2024, 1, 1, tzinfo=UTC))).tzinfo is UTC


@pytest.mark.parametrize(
    "value",
    [
        Level.LOW,
        Shade.DARK,
        Point(1, 2),
        Name("name"),
        Words([1]),
        collections.OrderedDict(a=1),
        collections.OrderedDict(a=1, b=2),
        collections.OrderedDict(b=2, a=1),
        Fraction(1, 3),
        pathlib.PurePosixPath("a/b"),
        dt.datetime(2024, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")),
        Pair(1, [2]),
        range(3),
        Thing,
        len,
    ],
    ids=stable_name,
)
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [1, x], lambda x: {"k": (x,)}])
def test_any_other_object_comes_back_through_pickle_as_a_whole(wrap: Any, value: Any) -> None:
    value = wrap(value)
    data = encode(value)
    assert is_pickled(data)
    assert same(decode(data), value)


def test_a_bool_is_no_int() -> None:
    assert (encode(True), encode(1)) == (b"\xc3", b"\x01")


# Values: identity.

CONTAINERS = [list, dict, set, bytearray, lambda: ([],)]


WRAPPERS = {
    "list": (lambda x: [x, x], list),
    "tuple": (lambda x: (x, x), list),
    "dict": (lambda x: {"a": x, "b": x}, lambda value: value.values()),
    "nested": (lambda x: [[x], {"a": (x,)}], lambda value: (value[0][0], value[1]["a"][0])),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("make", CONTAINERS, ids=["list", "dict", "set", "bytearray", "tuple of list"])
def test_one_object_that_occurs_twice_is_one_object_again(make: Any, wrapper: Any) -> None:
    wrap, unwrap = WRAPPERS[wrapper]
    data = encode(wrap(make()))  # type: ignore[no-untyped-call]
    assert is_pickled(data)
    first, second = unwrap(decode(data))  # type: ignore[no-untyped-call]
    assert first is second


def containers_of(make: Any) -> Any:
    return {
        "list": [make(), make()],
        "tuple": (make(), make()),
        "dict": {"a": make(), "b": make()},
        "nested": [[make()], {"a": (make(),)}, (make(), [make()])],
    }


@pytest.mark.parametrize("wrapper", ["list", "tuple", "dict", "nested"])
@pytest.mark.parametrize("make", CONTAINERS, ids=["list", "dict", "set", "bytearray", "tuple of list"])
def test_equal_objects_are_not_taken_for_one(make: Any, wrapper: Any) -> None:
    value = containers_of(make)[wrapper]
    data = encode(value, pickle=False)
    assert same(decode(data), value)


def test_an_object_that_is_held_elsewhere_too_is_not_shared() -> None:
    held = [[n] for n in range(50)]
    value = list(held)
    assert not is_pickled(encode(value))
    assert is_pickled(encode([*value, held[30]]))
    assert held[30][0] == 30


@pytest.mark.parametrize("several", [1, 7, 8, 9, 30])
def test_sharing_is_seen_among_many_held_objects(several: Any) -> None:
    held: list[Any] = [[] for _ in range(several)]
    for one in held:
        assert is_pickled(encode([*held, one]))


def test_cycles_come_back() -> None:
    value: Any = [1]
    value.append(value)
    back = decode(encode(value))
    assert back[1] is back
    deep: Any = {"a": {"b": [()]}}
    deep["a"]["b"].append((deep,))
    back = decode(encode(deep))
    assert back["a"]["b"][1][0] is back
    inner: list[Any] = []
    inner.append(inner)
    value = ["x", inner]
    del inner
    back = decode(encode(value))
    assert back[1][0] is back[1]


def test_atoms_and_flat_tuples_may_repeat() -> None:
    text, pair, few = "text", ("a", 1), frozenset([1])
    value = [text, text, pair, pair, few, few, (), (), None, None]
    assert not is_pickled(encode(value))
    assert same(decode(encode(value)), value)


def test_what_is_small_in_memory_does_not_explode() -> None:
    value: Any = ("x",)
    for _ in range(100):
        value = (value, value)
    assert len(encode(value)) < 10_000
    for unit in ["x" * 100_000, b"x" * 100_000, (1,) * 20_000]:
        assert len(encode([unit] * 1000)) < 1_000_000


def test_encoding_changes_no_reference_count() -> None:
    inner = [1]
    value = {"a": inner, "b": (inner, "text"), "c": {1, 2}}
    before = sys.getrefcount(inner), sys.getrefcount(value)
    for _ in range(100):
        encode(value)
        encode_key(("a", 1.5, (2, frozenset([3]))))
        native._encode_by_value(value)
    gc.collect()
    assert (sys.getrefcount(inner), sys.getrefcount(value)) == before

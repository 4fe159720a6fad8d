"""Objects as bytes: `docs/values.md`, whose examples are tested here too."""

import array
import collections
import contextlib
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import gc
import itertools
import math
import os
import pathlib
import pickle
import random
import re
import socket
import struct
import subprocess
import sys
import types
import uuid
import zoneinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache import _native

# The codec is private, and not part of the stubs.
native: Any = _native
encode = native._encode_value
decode = native._decode_value
encode_key = native._encode_key
decode_key = native._decode_key

DOCUMENT = pathlib.Path(__file__).parents[4] / "docs" / "values.md"
UTC = dt.timezone.utc
PICKLE = 15


def is_pickled(data: Any) -> Any:
    """Whether the outermost marker is an extension of the type for pickles."""
    kind_at = {0xC7: 2, 0xC8: 3, 0xC9: 5}.get(data[0], 1)
    is_ext = 0xC7 <= data[0] <= 0xC9 or 0xD4 <= data[0] <= 0xD8
    return is_ext and data[kind_at] == PICKLE


def bits(number: Any) -> Any:
    return struct.pack(">d", number)


def same(a: Any, b: Any) -> Any:
    """Equal, of the same type, in the same order, recursively."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return bits(a) == bits(b)
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(
            same(x, y) and same(v, w) for (x, v), (y, w) in zip(a.items(), b.items(), strict=True)
        )
    if isinstance(a, (set, frozenset)):
        return len(a) == len(b) and all(any(same(x, y) for y in b) for x in a)
    if isinstance(a, (dt.datetime, dt.time)):
        return a == b and a.fold == b.fold and same(a.tzinfo, b.tzinfo)
    if isinstance(a, dt.timezone):
        return repr(a) == repr(b)
    if isinstance(a, Decimal):
        return a.as_tuple() == b.as_tuple()
    return a == b


class Point(collections.namedtuple("Point", "x y")):
    __slots__ = ()


class Shade(enum.Enum):
    DARK = 1
    DIM = DARK
    LIGHT = 2


class Level(enum.IntEnum):
    LOW = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Words(list[Any]):
    pass


class Name(str):
    __slots__ = ()


class Sly(str):
    __slots__ = ()

    def __eq__(self, other: Any) -> Any:
        return True

    def __hash__(self) -> Any:
        return 1


class Thing:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a: Any) -> None:
        self.a = a


class Outer:
    class Inner(enum.Enum):
        ONE = "one"


@dataclasses.dataclass(frozen=True)
class Pair:
    left: object
    right: object


# Values: round trips.

offsets = st.integers(-86_399_999_999, 86_399_999_999).map(lambda us: dt.timedelta(microseconds=us))
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
zones = st.none() | st.just(UTC) | st.builds(dt.timezone, offsets) | st.builds(dt.timezone, offsets, names)
folded = st.booleans().map(int)
datetimes = st.builds(
    lambda value, zone, fold: value.replace(tzinfo=zone, fold=fold), st.datetimes(), zones, folded
)
times = st.builds(lambda value, zone, fold: value.replace(tzinfo=zone, fold=fold), st.times(), zones, folded)

hashable_atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([2**n + d for n in (5, 7, 8, 15, 16, 31, 32, 63, 64) for d in (-1, 0, 1)]),
    st.floats(),
    st.text(),
    st.text(st.characters(categories=["Cs", "Ll"]), max_size=5),
    st.binary(),
    st.complex_numbers(),
    st.decimals().filter(lambda value: not value.is_snan()),  # signalling NaNs have no hash
    st.uuids(),
    st.dates(),
    datetimes,
    times,
    st.timedeltas(),
    zones,
)
hashables = st.recursive(
    hashable_atoms,
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4),
    max_leaves=8,
)
values = st.recursive(
    hashable_atoms | st.builds(bytearray, st.binary()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=20),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(hashables, inner, max_size=20),
        st.sets(hashables, max_size=4),
        st.frozensets(hashables, max_size=4),
    ),
    max_leaves=30,
)


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
    ids=repr,
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
    ids=repr,
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


# Values: depth, pickle, errors.


def nested(depth: Any, wrap: Any) -> Any:
    value = 0
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize(
    "wrap", [lambda x: [x], lambda x: (x,), lambda x: {0: x}], ids=["list", "tuple", "dict"]
)
def test_values_nest_256_levels_and_are_pickled_beyond(wrap: Any) -> None:
    deepest = nested(256, wrap)
    assert not is_pickled(encode(deepest))
    assert decode(encode(deepest)) == deepest
    deeper = nested(257, wrap)
    assert is_pickled(encode(deeper))
    assert decode(encode(deeper)) == deeper
    with pytest.raises(TypeError, match="deeper than 256"):
        encode(deeper, pickle=False)


def test_bytes_that_nest_too_deep_are_an_error() -> None:
    assert decode(b"\x91" * 256 + b"\x00")
    for opener in [b"\x91", b"\x81\x00", b"\x81"]:
        with pytest.raises(ValueError, match="256 nested levels"):
            decode(opener * 100_000 + b"\x00")
    data = b"\x00"
    for _ in range(300):
        data = b"\xc8" + struct.pack(">H", len(data) + 1) + b"\x01\x91" + data
    with pytest.raises(ValueError, match="256 nested levels"):
        decode(data)


def test_pickle_false_refuses_to_write_and_names_the_type() -> None:
    with pytest.raises(TypeError, match=r"Pair\b"):
        encode({"a": [Pair(1, 2)]}, pickle=False)
    shared: list[Any] = []
    with pytest.raises(TypeError, match="list object twice"):
        encode([shared, shared], pickle=False)


class Bomb:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("unpickled",))


def bomb() -> bytes:
    """A pickle as a value, which fails the test if it is read."""
    data = pickle.dumps(Bomb())
    return b"\xc7" + bytes([len(data) + 2]) + b"\x0f\xc4" + bytes([len(data)]) + data


def test_pickle_false_refuses_to_read_and_runs_nothing() -> None:
    with pytest.raises(ValueError, match="pickle=False"):
        decode(bomb(), pickle=False)


def test_a_pickle_inside_of_a_value_is_an_error() -> None:
    data = bomb()
    for wrapped in [
        b"\x91" + data,
        b"\x81\x00" + data,
        b"\xc8" + struct.pack(">H", len(data) + 1) + b"\x01\x91" + data,
    ]:
        with pytest.raises(ValueError, match="pickle inside"):
            decode(wrapped)
    with pytest.raises(ValueError, match="pickle"):
        decode_key(data)


def test_errors_of_pickle_are_passed_on_and_leave_nothing() -> None:
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        encode([lambda: None])
    data = encode(Pair(1, 2))
    with pytest.raises(AttributeError):
        decode(data.replace(b"Pair", b"Piar"))


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_back_writable_without_passing_through_the_pickle(order: Any) -> None:
    numpy = pytest.importorskip("numpy")
    value = {"a": numpy.asarray(numpy.arange(12_000.0).reshape(100, 120), order=order), "b": [1]}
    data = encode(value)
    back = decode(data)
    assert (back["a"] == value["a"]).all()
    assert back["a"].dtype == value["a"].dtype
    assert back["a"].flags.writeable
    back["a"][0, 0] = 7
    assert decode(data)["a"][0, 0] == 0
    value["a"].flags.writeable = False
    back = decode(encode(value))
    assert not back["a"].flags.writeable
    strided = value["a"][::2, ::3]
    assert (decode(encode(strided)) == strided).all()


class Strided:
    """Shows its content to pickle as a buffer without raw bytes."""

    def __init__(self, content: Any) -> None:
        self.content = bytes(content)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return (Strided, (pickle.PickleBuffer(memoryview(self.content)),))


def test_a_buffer_that_is_not_contiguous_is_pickled_within() -> None:
    assert decode(encode([Strided(b"abcdef")]))[0].content == b"abcdef"


# Untrusted bytes.


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("82a26964cd0102a473697a65ca3f000000", {"id": 258, "size": 0.5}),
        ("93cc01cd0001ce00000001", [1, 1, 1]),
        ("92cf0000000000000001d3ffffffffffffffff", [1, -1]),
        ("94d0ffd1ffffd2ffffffffca7f800000", [-1, -1, -1, math.inf]),
        ("dd0000000101", [1]),
        ("df0000000101c0", {1: None}),
        ("db0000000161", "a"),
        ("c60000000161", b"a"),
        ("c900000004" + "04" + "00000005", 5),
    ],
)
def test_what_other_writers_of_messagepack_write_can_be_read(data: Any, value: Any) -> None:
    assert same(decode(bytes.fromhex(data)), value)


@pytest.mark.parametrize(
    "data",
    [
        "",
        "c1",
        "a2ff41",
        "a1ff",
        "ddffffffff00",
        "dfffffffff00",
        "dbffffffff00",
        "c6ffffffff00",
        "c9ffffffff0100",
        "dd00000002" + "00",
        "0000",
        "91",
        "8190c0",
        "8180c0",
        "d46300",
        "d4ff00",
        "d40100",
        "c7020190" + "00",
        "c70301" + "91" + "9000",
        "c70202" + "9190",
        "c70203" + "9180",
        "c7020192",
        "d505" + "0000",
        "d40600",
        "d607" + "00000000",
        "d607" + "07e80d01",
        "d808" + "00" * 16,
        "d708" + "18000000" + "00000000",
        "d708" + "00000008" + "00000000",
        "d708" + "00000002" + "00000000",
        "c71008" + "00000002" + "00000000" + "7fffffffffffffff",
        "c70c09" + "7fffffff" + "00000000" + "00000000",
        "c7090a" + "00" + "0000000000000000",
        "d60b" + "313233ff",
        "d60b" + "31323378",
        "d70c" + "00" * 8,
        "d40e" + "ff",
        "c7020f" + "c400",
        "d40f" + "c0",
        "c70310" + "920100",
        "c70210" + "9101",
        "c70411" + "92a178a1",
        "c70b12" + "93a26f73a470617468a0",
        "c70813" + "92a26f73a36f70656e",
        "c70014",
        "c70015",
    ],
)
def test_malformed_bytes_are_a_value_error_that_says_where(data: Any) -> None:
    with pytest.raises(ValueError, match="at byte"):
        decode(bytes.fromhex(data), pickle=False)


def reads_or_refuses(data: Any) -> None:
    for read in (lambda data: decode(data, pickle=False), decode_key):
        with contextlib.suppress(ValueError):
            read(data)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_do_worse_than_a_value_error(data: Any) -> None:
    reads_or_refuses(data)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(values, st.randoms(use_true_random=False))
def test_damaged_bytes_do_no_worse_than_a_value_error(value: Any, chance: Any) -> None:
    data = encode(value)
    for length in range(min(len(data), 100)):
        with pytest.raises(ValueError, match="not an encoded value"):
            decode(data[:length], pickle=False)
    for _ in range(50):
        damaged = bytearray(data)
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        reads_or_refuses(bytes(damaged))


def test_random_extension_types_do_no_worse_than_a_value_error() -> None:
    chance = random.Random(7)
    for _ in range(20_000):
        body = chance.randbytes(chance.choice([0, 1, 2, 4, 8, 9, 12, 16, 20]))
        kind = chance.randrange(1, 24)
        reads_or_refuses(bytes([0xC7, len(body), kind]) + body)


# Keys.

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
EQUAL: list[Any] = [
    (1, 1.0, True, Decimal(1), Decimal("1.000"), Fraction(1), complex(1), Level.LOW),
    (0, -0.0, False, 0.0, Decimal("-0E+900000000"), Fraction(0), -0j),
    (2**63, float(2**63), Decimal(2**63)),
    (2**64, float(2**64), Decimal(2**64)),
    (-(2**63), float(-(2**63))),
    (10**300, Decimal("1E300")),
    (int(1e300), 1e300),
    (0.5, Decimal("0.5"), Fraction(1, 2), complex(0.5, -0.0)),
    (0.1, Decimal.from_float(0.1), Fraction(0.1)),
    (Decimal("0.1"), Decimal("0.10"), Fraction(1, 10)),
    (math.inf, Decimal("Infinity"), complex(math.inf)),
    (-math.inf, Decimal("-Infinity")),
    (5e-324, Fraction(5e-324)),
    (Fraction(1, 3), Fraction(2, 6)),
    (Fraction(10**400, 3), Fraction(2 * 10**400, 6)),
    (complex(0.0, 1), complex(-0.0, 1)),
    ("a", Name("a")),
    (b"a", type("Raw", (bytes,), {})(b"a")),
    ((1, 2), Point(1, 2), (1.0, True + 1)),
    ((), type("Empty", (tuple,), {})()),
    (frozenset([1, "a", (2, 3)]), frozenset([(2.0, 3), "a", True])),
    (frozenset(), type("None_", (frozenset,), {})()),
    (Shade.DARK, Shade.DIM),
    (pathlib.PurePosixPath("a//b/"), pathlib.PurePosixPath("a/b")),
    (pathlib.PurePosixPath("a"), pathlib.Path("a")) if os.name == "posix" else (1, 1.0),
    (pathlib.PureWindowsPath("A/b"), pathlib.PureWindowsPath("a\\B")),
    (dt.datetime(2024, 1, 1, 12, tzinfo=UTC), dt.datetime(2024, 1, 1, 13, tzinfo=BERLIN),
     dt.datetime(2024, 1, 1, 14, tzinfo=dt.timezone(dt.timedelta(hours=2), "x"))),
    (dt.datetime(2024, 1, 1, 12), dt.datetime(2024, 1, 1, 12, fold=1)),
    (dt.time(12), dt.time(12, fold=1)),
    (dt.timedelta(days=1), dt.timedelta(hours=24)),
    (dt.timezone(dt.timedelta(hours=1)), dt.timezone(dt.timedelta(hours=1), "x")),
    ("\ud800", Name("\ud800")),
]  # fmt: skip
DISTINCT = [
    None,
    "",
    b"",
    (),
    frozenset(),
    "a",
    b"a",
    "1",
    b"1",
    ("1",),
    (1,),
    ((1,),),
    frozenset([1]),
    frozenset([(1,)]),
    0.3,
    Decimal("0.3"),
    Fraction(1, 7),
    1j,
    2j,
    2**53,
    2**53 + 1,
    2**70,
    -(2**70),
    math.nextafter(1, 2),
    pathlib.PurePosixPath("a"),
    pathlib.PurePosixPath("A"),
    pathlib.PureWindowsPath("a"),
    uuid.UUID(int=97),
    Shade.DARK,
    Shade.LIGHT,
    Outer.Inner.ONE,
    Access.READ,
    dt.date(2024, 1, 1),
    dt.datetime(2024, 1, 1),
    dt.datetime(2024, 1, 1, tzinfo=UTC),
    dt.time(1),
    dt.timedelta(1),
    UTC,
    "\ud800",
    "\udfff",
]


@pytest.mark.parametrize("keys", EQUAL, ids=repr)
def test_equal_keys_have_the_same_bytes(keys: Any) -> None:
    first = encode_key(keys[0])
    assert first is not None
    for key in keys:
        assert key == keys[0]
        assert encode_key(key) == first
        assert encode_key((key,)) == encode_key((keys[0],))
        assert decode_key(first) == key
        assert hash(decode_key(first)) == hash(key)


def test_unequal_keys_have_different_bytes() -> None:
    found: dict[Any, Any] = {}
    for key in [*DISTINCT, *(keys[0] for keys in EQUAL)]:
        data = encode_key(key)
        assert decode_key(data) == key
        for other, other_data in found.items():
            assert (data == other_data) == (key == other), (key, other)
        found[key] = data


@pytest.mark.parametrize(
    "key",
    [
        object(),
        math.nan,
        Decimal("NaN"),
        complex(1, math.nan),
        (1, math.nan),
        (1, object()),
        frozenset([object()]),
        Thing(),
        Pair(1, 2),
        Sly("a"),
        len,
        Thing,
        ...,
        range(3),
        Access.READ | Access.WRITE,
        enum.Enum("Local", "A").A,  # type: ignore[attr-defined]
        Decimal("1E+999999999"),
        Decimal("1E-999999999"),
        10**10_000,
        Fraction(1, 10**10_000),
        dt.time(1, tzinfo=UTC),
        dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN),
        dt.datetime(2024, 3, 31, 2, 30, tzinfo=BERLIN),
        dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=5))),
    ],
    ids=lambda key: type(key).__name__,
)
def test_a_key_without_a_sure_form_has_none(key: Any) -> None:
    assert encode_key(key) is None


def test_keys_nest_deep_or_not_at_all() -> None:
    assert encode_key(nested(256, lambda x: (x,))) is not None
    assert encode_key(nested(257, lambda x: (x,))) is None
    deepest = nested(256, lambda x: frozenset([x]))
    assert decode_key(encode_key(deepest)) == deepest


numbers = st.one_of(
    st.integers(-3, 3),
    st.integers(),
    st.booleans(),
    st.floats(allow_nan=False),
    st.integers(-3, 3).map(float),
    st.integers(-6, 6).map(lambda n: n / 2),
    st.decimals(allow_nan=False),
    st.integers(-30, 30).map(lambda n: Decimal(n) / 10),
    st.fractions(),
    st.fractions(-2, 2, max_denominator=10),
    st.complex_numbers(allow_nan=False),
    st.integers(-3, 3).map(complex),
)
berlin_times = st.builds(
    lambda value, fold: value.replace(tzinfo=BERLIN, fold=fold),
    st.datetimes(dt.datetime(2024, 3, 30), dt.datetime(2024, 4, 1)),
    folded,
)
key_atoms = st.one_of(
    numbers,
    st.none(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.uuids(),
    st.dates(),
    datetimes,
    berlin_times,
    st.timedeltas(),
    st.sampled_from([Shade.DARK, Shade.LIGHT, Level.LOW, pathlib.PurePosixPath("a")]),
)
keys = st.recursive(
    key_atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple),
        st.frozensets(inner, max_size=3),
        st.builds(Point, inner, inner),
    ),
    max_leaves=5,
)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(keys)
def test_a_key_comes_back_equal(key: Any) -> None:
    data = encode_key(key)
    if data is not None:
        back = decode_key(data)
        assert back == key
        assert hash(back) == hash(key)
        assert encode_key(back) == data


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(numbers, min_size=2, max_size=30))
def test_numbers_are_equal_if_and_only_if_their_bytes_are(several: Any) -> None:
    encoded = [(key, encode_key(key)) for key in several]
    for a, a_data in encoded:
        assert a_data is not None
        for b, b_data in encoded:
            assert (a == b) == (a_data == b_data)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(keys, min_size=2, max_size=10))
def test_keys_are_equal_if_and_only_if_their_bytes_are(several: Any) -> None:
    encoded = [(key, data) for key in several if (data := encode_key(key)) is not None]
    for a, a_data in encoded:
        for b, b_data in encoded:
            assert (a == b) == (a_data == b_data)


def test_reading_a_key_imports_nothing() -> None:
    name = "this"  # a module that prints when it is imported
    sys.modules.pop(name, None)
    data = encode_key(Shade.DARK)
    own = __name__.encode()
    body = b"\x93\xa4" + name.encode() + data[data.index(own) + len(own) :]
    with pytest.raises(ValueError, match="not imported"):
        decode_key(bytes([0xC7, len(body), 18]) + body)
    assert name not in sys.modules


SCRIPT = """
import sys, uuid, datetime
from cache import _native
class Thing: pass
thing = Thing(); thing.tags = {"c", "b", "a"}; thing.n = 1
pairs = frozenset([("x", 1), ("y", 2.5), None])
key = (frozenset("abcdefgh"), pairs, 1.5, "text", b"bytes", uuid.UUID(int=5))
argument = [{"b": {3, "4"}, "a": set("hello")}, thing, datetime.date(2024, 1, 1)]
by_value, _, is_stable = _native._encode_by_value(argument)
assert is_stable
print(_native._encode_key(key).hex(), by_value.hex())
"""


def test_bytes_do_not_hang_on_the_process() -> None:
    outputs = set()
    for seed in ("0", "1", "31337"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", SCRIPT]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
        outputs.add(run.stdout)
    assert len(outputs) == 1


# By value.


def by_value(argument: Any) -> Any:
    return native._encode_by_value(argument)[0]


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


@pytest.mark.parametrize("arguments", SAME_ARGUMENTS, ids=repr)
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


@pytest.mark.parametrize("make", [object, lambda: adder(1), lambda: [].append, recorder], ids=repr)
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


# The document.

EXAMPLE = re.compile(r"^\| `(?P<source>[^`]+)` \| `(?P<hex>[0-9a-f ]+)` \|", re.MULTILINE)


def examples(heading: Any) -> Any:
    section = DOCUMENT.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [(found["source"], bytes.fromhex(found["hex"])) for found in EXAMPLE.finditer(section)]


def evaluate(source: Any) -> Any:
    modules = (collections, dt, decimal, uuid, pathlib, re, socket, types)
    return eval(source, {"Fraction": Fraction, **{module.__name__: module for module in modules}})


@pytest.mark.parametrize(
    ("source", "data"), examples("Values"), ids=lambda x: x if isinstance(x, str) else ""
)
def test_the_documents_values_are_what_is_written(source: Any, data: Any) -> None:
    value = evaluate(source)
    assert encode(value).hex(" ") == data.hex(" ")
    assert same(decode(data), value)


@pytest.mark.parametrize(("source", "data"), examples("Keys"), ids=lambda x: x if isinstance(x, str) else "")
def test_the_documents_keys_are_what_is_written(source: Any, data: Any) -> None:
    key = evaluate(source)
    assert encode_key(key).hex(" ") == data.hex(" ")
    assert decode_key(data) == key


@pytest.mark.parametrize(
    ("source", "data"), examples("By value"), ids=lambda x: x if isinstance(x, str) else ""
)
def test_the_documents_arguments_are_what_is_written(source: Any, data: Any) -> None:
    assert by_value(evaluate(source)).hex(" ") == data.hex(" ")

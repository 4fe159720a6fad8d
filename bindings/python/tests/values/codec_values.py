"""Values and classes of the tests of the codec."""

import collections
import dataclasses
import datetime as dt
import enum
import pathlib
import struct
import zoneinfo
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from cache import _native

# The codec is private, and not part of the stubs.
native: Any = _native


encode = native._encode_value


decode = native._decode_value


encode_key = native._encode_key


decode_key = native._decode_key


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


@dataclasses.dataclass(frozen=True)
class Pair:
    left: object
    right: object


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


def nested(depth: Any, wrap: Any) -> Any:
    value = 0
    for _ in range(depth):
        value = wrap(value)
    return value


BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


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


def by_value(argument: Any) -> Any:
    return native._encode_by_value(argument)[0]

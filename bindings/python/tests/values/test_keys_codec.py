"""Keys as bytes."""

import datetime as dt
import enum
import math
import os
import pathlib
import subprocess
import sys
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
    decode_key,
    encode_key,
    keys,
    nested,
    numbers,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from naming import stable_name


class Outer:
    class Inner(enum.Enum):
        ONE = "one"


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


@pytest.mark.parametrize("keys", EQUAL, ids=stable_name)
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
    for key in [*DISTINCT, *(pair[0] for pair in EQUAL)]:
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
    own = Shade.__module__.encode()
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

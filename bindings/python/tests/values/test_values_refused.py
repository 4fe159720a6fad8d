"""Values that are nested too deep, need pickle, or are damaged."""

import contextlib
import math
import pickle
import random
import struct
from typing import Any

import pytest
from codec_values import Pair, decode, decode_key, encode, is_pickled, nested, same, values
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


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

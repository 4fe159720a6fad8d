"""A value comes back from a file unchanged, including its type, or is not written.

`pickle.PickleBuffer(b"a")` came back as `b"a"`, and so does every object that is pickled as another
object: proxies, iterators over dicts and sets, objects whose `__reduce__` names a function that
makes another type. After a restart, a service got other types from its cache than before.
"""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import io
import ipaddress
import math
import operator
import pathlib
import pickle
import random
import re
import time
import types
import uuid
import weakref
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from loops import Run

from cache import AsyncCache, CacheWarning, DiskBackend, _native

native: Any = _native


def encode(value: Any) -> bytes:
    data: bytes = native._encode_value(value)
    return data


def decode(data: bytes) -> Any:
    return native._decode_value(data)


class Thing:
    """Only keeps attributes."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]


class Pair(NamedTuple):
    a: Any
    b: Any


@dataclasses.dataclass
class Record:
    part: Any


class Words(list[Any]):
    """A subclass of list."""


class Names(dict[str, Any]):
    """A subclass of dict."""


class Slotted:
    __slots__ = ("part",)

    def __init__(self, part: Any) -> None:
        self.part = part

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slotted) and self.part == other.part

    __hash__ = None  # type: ignore[assignment]


class Level(enum.IntEnum):
    LOW = 1


class Mode(enum.IntFlag):
    READ = 1
    WRITE = 2


class Colour(str, enum.Enum):
    RED = "red"


class Amount(int):
    pass


class Text(str):
    __slots__ = ()


class Moment(dt.datetime):
    pass


class OddError(Exception):
    """An error with attributes."""


def odd_error() -> OddError:
    error = OddError("a", 1)
    error.code = 7  # type: ignore[attr-defined]
    return error


class Matrix:
    """Shows its memory to pickle like arrays: in a buffer made for pickling."""

    def __init__(self, content: Any) -> None:
        self.content = bytearray(content)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Matrix._made, (pickle.PickleBuffer(self.content),)

    @classmethod
    def _made(cls, content: Any) -> Matrix:
        return cls(content)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Matrix) and self.content == other.content

    __hash__ = None  # type: ignore[assignment]


def frames_to_matrix(header: Any, frames: list[Any]) -> Frames:
    return Frames(*frames)


class Frames:
    """Several buffers, in a list made for pickling."""

    def __init__(self, *contents: Any) -> None:
        self.contents = [bytes(content) for content in contents]

    def __reduce_ex__(self, protocol: Any) -> Any:
        buffers = [pickle.PickleBuffer(content) for content in self.contents]
        return frames_to_matrix, ({"count": len(buffers)}, buffers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frames) and self.contents == other.contents

    __hash__ = None  # type: ignore[assignment]


KEPT: list[Any] = [
    *(Level.LOW, Mode.READ | Mode.WRITE, Colour.RED, Amount(5), Text("a"), Moment(2024, 1, 2)),
    *(True, 5, 1.5, 1j, decimal.Decimal("1.10"), fractions.Fraction(1, 3), ..., NotImplemented),
    *(b"a", bytearray(b"a"), array.array("d", [1, 2]), range(3), slice(1, 2), frozenset([1])),
    *(collections.OrderedDict(b=1, a=2), collections.Counter("aab"), collections.deque([1], 3)),
    *(collections.defaultdict(list, a=[1]), collections.ChainMap({"a": 1}), collections.UserDict(a=1)),
    *(Pair(1, [2]), Record([1]), Words([1]), Names(a=1), Slotted([1]), Thing(a=[1])),
    *(types.SimpleNamespace(a=1), uuid.UUID(int=5), ipaddress.ip_address("10.0.0.1")),
    *(pathlib.PurePosixPath("a"), Path("a"), re.compile("a+", re.I), zoneinfo.ZoneInfo("UTC")),
    *(dt.datetime(2024, 1, 2, tzinfo=zoneinfo.ZoneInfo("UTC")), dt.date(2024, 1, 2), dt.timedelta(1)),
    *(time.gmtime(0), list[int], int | None, Thing, len, math.sin, "a".upper),
    *(Matrix(b"abc"), Frames(b"ab", b"c"), [Matrix(b"ab")] * 2),
]


@pytest.mark.parametrize("value", KEPT, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_with_its_type(value: Any) -> None:
    for wrapped in (value, [value], {"a": value}, Thing(part=value), Pair(value, 1)):
        back = decode(encode(wrapped))
        assert type(back) is type(wrapped)
        assert back == wrapped or value == "a".upper
    assert type(decode(encode([value]))[0]) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        *(io.BytesIO(b"a"), random.Random(1), odd_error(), functools.partial(int, base=2)),
        *(Words([Words()]), operator.itemgetter(1)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_object_without_equality_comes_back_with_its_type_and_content(value: Any) -> None:
    back = decode(encode(value))
    assert type(back) is type(value)
    assert pickle.dumps(back) == pickle.dumps(value)


class Proxy:
    """Represents another object, and is pickled as the other object."""

    def __init__(self, target: Any) -> None:
        object.__setattr__(self, "_target", target)

    @property
    def __class__(self) -> Any:
        return type(object.__getattribute__(self, "_target"))

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise AttributeError

    def __reduce_ex__(self, protocol: Any) -> Any:
        return object.__getattribute__(self, "_target").__reduce_ex__(protocol)


class Lazy:
    """Is pickled as the object from which it would have been loaded."""

    def __reduce__(self) -> Any:
        return dict, ((("a", 1),),)


class Bytes:
    """A memory that comes back as its form in a pickle."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return bytearray, (pickle.PickleBuffer(b"a"),)


ALIVE = Thing(a=1)  # for the references below

CHANGED: list[Callable[[], Any]] = [
    lambda: pickle.PickleBuffer(b"a"),
    lambda: pickle.PickleBuffer(bytearray(b"a")),
    lambda: weakref.proxy(ALIVE),
    lambda: Proxy(Thing(a=1)),
    lambda: Proxy(Words([1])),
    Lazy,
    Bytes,
    lambda: iter({1: 2}),
    lambda: iter({1: 2}.items()),
    lambda: iter({1, 2}),
]


def holds(part: Any) -> list[Any]:
    named = Names()
    named["part"] = part
    words = Words()
    words.append(part)
    return [
        *(part, [part], {"a": part}, (part,), Thing(part=part), Pair(1, part), Record([part])),
        *(Slotted(part), words, named, collections.deque([part]), functools.partial(print, part)),
        [Matrix(b"ab"), part],
    ]


@pytest.mark.parametrize("make", CHANGED)
def test_what_would_come_back_as_another_type_is_refused_wherever_it_is(make: Callable[[], Any]) -> None:
    for value in holds(make()):
        with pytest.raises(TypeError, match=r"would (come back|bring an object of type)"):
            encode(value)


@pytest.mark.parametrize(
    "value",
    [memoryview(b"a"), {}.keys(), {}.values(), {}.items(), types.MappingProxyType({}), weakref.ref(ALIVE)],
    ids=lambda value: type(value).__name__,
)
def test_what_pickle_refuses_is_refused(value: Any) -> None:
    with pytest.raises((TypeError, pickle.PicklingError)):
        encode([value])


def test_a_buffer_that_an_object_holds_is_not_taken_for_one_made_for_pickle() -> None:
    class_of_its_own = Thing
    buffer = pickle.PickleBuffer(b"a")
    value = class_of_its_own(buffers=[buffer], others=(pickle.PickleBuffer(b"b"),))
    del buffer
    with pytest.raises(TypeError, match=r"pickle\.PickleBuffer would come back as bytes"):
        encode(value)


class Sometimes:
    """Comes back as itself or as another object, depending on its function's first argument."""

    def __init__(self, kind: type = object) -> None:
        self.kind = kind

    def __reduce__(self) -> Any:
        return make_one, (self.kind,)


def make_one(kind: type) -> Any:
    return kind()


def test_a_class_that_was_tried_once_is_tried_again_for_another_class_to_be_made() -> None:
    assert type(decode(encode(Sometimes(Sometimes)))) is Sometimes
    with pytest.raises(TypeError, match=r"Sometimes back as one of type int"):
        encode(Sometimes(int))
    assert type(decode(encode(Sometimes(Sometimes)))) is Sometimes


class Counts:
    """Counts how often it was unpickled."""

    made = 0

    def __reduce__(self) -> Any:
        return make_counts, ()


def make_counts() -> Counts:
    Counts.made += 1
    return Counts()


def test_a_class_is_tried_once_and_not_for_every_object() -> None:
    for _ in range(3):
        encode([Counts(), Counts()])
    assert Counts.made == 1


class Broken:
    """Can be pickled but not unpickled."""

    def __reduce__(self) -> Any:
        return operator.truediv, (1, 0)


def test_what_cannot_be_read_is_written_and_is_a_miss(run: Run, path: Path) -> None:
    cache = AsyncCache(backup=DiskBackend(path))
    cache.set("broken", Broken())
    cache.set("whole", 1)
    cache.save_to_backup()
    again = AsyncCache(backup=DiskBackend(path))
    assert (run(again.get("broken")), run(again.get("whole"))) == (None, 1)
    assert again.stats()["undecodable"] == 1


def test_a_value_that_would_come_back_as_another_type_is_left_out_with_a_warning(
    run: Run, path: Path
) -> None:
    cache = AsyncCache(backup=DiskBackend(path))
    cache.set("buffer", [pickle.PickleBuffer(b"a")])
    cache.set("bytes", b"a")
    with pytest.warns(CacheWarning, match=r"1 entries were not saved; .*'buffer'.*would come back as bytes"):
        cache.save_to_backup()
    assert DiskBackend(path).load() == {"bytes": (b"a", None)}
    assert "buffer" in cache.cache


def test_a_pickler_that_failed_is_not_used_again() -> None:
    whole = Thing(a=[1])
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        encode([whole, Thing(a=lambda: None)])
    assert decode(encode([whole, whole])) == [whole, whole]


class Reenters:
    """Pickles another value while it is pickled."""

    def __init__(self) -> None:
        self.inner: bytes = b""

    def __getstate__(self) -> Any:
        return {"inner": encode(Thing(a=1))}


def test_pickling_within_pickling_disturbs_neither() -> None:
    back = decode(encode([Reenters(), Thing(b=2)]))
    assert decode(back[0].inner) == Thing(a=1)
    assert back[1] == Thing(b=2)


def test_large_values_come_back_whole() -> None:
    value = [Thing(text="ä" * 300_000, data=b"x" * 200_000), Thing(a=[Thing(b=n) for n in range(5_000)])]
    for _ in range(2):
        assert decode(encode(value)) == value


def test_arrays_and_frames_of_libraries_come_back_with_their_types() -> None:
    numpy = pytest.importorskip("numpy")
    values = [
        numpy.float64(1.5),
        numpy.array(5),
        numpy.arange(6).reshape(2, 3)[:, ::2],
        numpy.array([("a", 1)], dtype=[("n", "U1"), ("v", "i4")]).view(numpy.recarray),
        numpy.array(["2024-01-01"], dtype="datetime64[D]"),
        numpy.array([Thing(a=1), None], dtype=object),
        numpy.ma.masked_array([1, 2], mask=[0, 1]),
        numpy.dtype("f8"),
    ]
    for value in values:
        back = decode(encode([value]))[0]
        assert type(back) is type(value)
        assert numpy.array_equal(numpy.asarray(back), numpy.asarray(value))

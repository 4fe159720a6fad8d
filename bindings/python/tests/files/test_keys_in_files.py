"""Keys that are equal to a key in the file but have a different class.

The bug's story: `numpy.int64(5)` equals 5 and has its hash, so in memory they are one key. But it
had no form in a file: `delete(numpy.int64(5))` removed 5 from memory but left 5 in the file, from
which it was served again. The same happened with subclasses of `Decimal`, `date` and other classes
that inherit the equality of their base.
"""

from __future__ import annotations

import datetime as dt
import pathlib
import uuid
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy
import pytest
from loops import Run, until

from cache import AsyncCache, DiskBackend, _native

native: Any = _native


class Amount(Decimal):
    pass


class Ratio(Fraction):
    pass


class Id(uuid.UUID):
    pass


class Day(dt.date):
    pass


class Moment(dt.datetime):
    pass


class Hour(dt.time):
    pass


class Span(dt.timedelta):
    pass


class PosixName(pathlib.PurePosixPath):
    pass


class WindowsName(pathlib.PureWindowsPath):
    pass


class Own(Decimal):
    """Has an equality of its own."""

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = Decimal.__hash__


UTC = dt.timezone.utc
EQUAL: list[tuple[Any, Any]] = [
    (5, numpy.int64(5)),
    (5, numpy.uint8(5)),
    (1, numpy.True_),
    (1.5, numpy.float64(1.5)),
    (1.5, numpy.float32(1.5)),
    (1.5, numpy.float16(1.5)),
    (1 + 2j, numpy.complex128(1 + 2j)),
    ("a", numpy.str_("a")),
    (b"a", numpy.bytes_(b"a")),
    ((1, "a"), (numpy.int32(1), numpy.str_("a"))),
    (5, Amount(5)),
    (Decimal("0.1"), Amount("0.1")),
    (Fraction(1, 3), Ratio(1, 3)),
    (uuid.UUID(int=5), Id(int=5)),
    (dt.date(2024, 1, 1), Day(2024, 1, 1)),
    (dt.datetime(2024, 1, 1), Moment(2024, 1, 1)),
    (dt.datetime(2024, 1, 1, tzinfo=UTC), Moment(2024, 1, 1, tzinfo=UTC)),
    (dt.time(1), Hour(1)),
    (dt.timedelta(1), Span(1)),
    (pathlib.PurePosixPath("a/b"), PosixName("a/b")),
    (pathlib.PureWindowsPath("A"), WindowsName("a")),
]


@pytest.mark.parametrize(("key", "equal"), EQUAL, ids=lambda key: type(key).__name__)
def test_equal_keys_of_another_class_are_one_key_in_the_file(
    run: Run, path: Path, key: Any, equal: Any
) -> None:
    assert (key, hash(key)) == (equal, hash(equal))
    assert native._encode_key(key) == native._encode_key(equal)
    cache = AsyncCache(backup=DiskBackend(path))
    cache.set(key, "old")
    cache.save_to_backup()
    assert run(AsyncCache(backup=DiskBackend(path)).get(equal)) == "old"
    deleting = AsyncCache(backup=DiskBackend(path))
    deleting.delete(equal)
    assert run(deleting.get(key)) is None
    replacing = AsyncCache(backup=DiskBackend(path))
    replacing.set(equal, "new")
    assert len(replacing.cache) == 1
    replacing.save_to_backup()
    assert run(AsyncCache(backup=DiskBackend(path)).get(key)) == "new"


@pytest.mark.parametrize(
    "key",
    [
        Own(5),
        numpy.datetime64("2024-01-01"),
        numpy.timedelta64(5, "ns"),
        numpy.float64("nan"),
        numpy.longdouble("0.1"),
        numpy.void(b"a"),
    ],
    ids=lambda key: type(key).__name__,
)
def test_a_key_whose_equality_is_not_that_of_its_base_has_no_form(key: Any) -> None:
    assert native._encode_key(key) is None


class Five:
    """Equal to 5, but the equality is not visible from outside."""

    def __eq__(self, other: object) -> bool:
        return other == 5

    def __hash__(self) -> int:
        return hash(5)


def test_what_was_written_under_an_equal_key_without_a_form_is_newer_than_the_file(
    run: Run, path: Path
) -> None:
    """After the entry had expired, the older value under 5 came back out of the file."""

    async def main() -> None:
        cache = AsyncCache(backup=DiskBackend(path))
        cache.set(5, "old")
        cache.set(6, "other")
        cache.save_to_backup()
        cache = AsyncCache(backup=DiskBackend(path))
        cache.set(Five(), "new", ttl=1e-6)
        await until(lambda: Five() not in cache.cache)
        assert [await cache.get(5), await cache.get(5), await cache.get(5)] == [None, None, None]
        cache = AsyncCache(backup=DiskBackend(path))
        cache.set(Five(), "new")
        assert [await cache.get(5), await cache.get(6)] == ["new", "other"]

    run(main())

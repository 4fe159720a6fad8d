"""The contents of the golden files that the Python package wrote with its options, and the program
that wrote them.

``python tests/golden_values.py`` writes missing files. An existing file is never written again:
every later version must be able to read its contents. So never change an entry here; a new kind of
value gets a new file.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import ipaddress
import uuid
from pathlib import Path
from typing import Any

from cache import AsyncCache, DiskBackend

GOLDEN = Path(__file__).parents[3] / "crates/async-cache-disk/tests/golden"
SECRET = "correct horse battery staple"
VERSION = "v1"
# The longest possible deadline: three hundred years.
FOR_EVER_NEARLY = 1e10

OPTIONS: dict[str, dict[str, Any]] = {
    "v1-python-mac.acf": {"secret": SECRET},
    "v1-python-zstd.acf": {"compression": "zstd"},
}

_UTC = datetime.timezone.utc
_CET = datetime.timezone(datetime.timedelta(hours=1), "CET")

VALUES: dict[Any, Any] = {
    "text": "grüße",
    "empty": "",
    ("user", 7): {"name": "Ada", "tags": ["admin", "staff"], "age": None},
    42: 0.5,
    None: [True, False, None, -1, 2**64 - 1],
    b"bytes": b"\x00\xff" * 40,
    "tuple": (1, ("two", 2.0), ()),
    "set": {3, 1, 2},
    "frozenset": frozenset({"a"}),
    "big": 2**70,
    "negative": -(2**70),
    "in a list": [2**64, (1,), {7}, decimal.Decimal("-0.00")],
    "complex": 1 - 2j,
    "bytearray": bytearray(b"ab"),
    "decimal": decimal.Decimal("1.10"),
    "uuid": uuid.UUID(int=7),
    "date": datetime.date(2024, 2, 29),
    "time": datetime.time(12, 34, 56, 789),
    "timedelta": datetime.timedelta(days=-1, seconds=2),
    "timezone": _CET,
    "datetime": datetime.datetime(2024, 2, 29, 12, 34, 56, 789),
    "datetime in UTC": datetime.datetime(2024, 2, 29, 12, tzinfo=_UTC),
    "datetime in CET": datetime.datetime(2024, 2, 29, 12, tzinfo=_CET),
    "surrogate": "\ud800",
    "pickled fraction": fractions.Fraction(1, 3),
    "pickled counter": collections.Counter("abracadabra"),
    "pickled address": [ipaddress.IPv4Address("10.0.0.1")],
    2**70: "under a big integer",
    frozenset({"b", "a"}): "under a frozenset",
    uuid.UUID(int=8): "under a UUID",
    fractions.Fraction(1, 3): "under a fraction",
    datetime.date(2024, 2, 29): "under a date",
    datetime.datetime(2024, 2, 29, 13, tzinfo=_CET): "under an instant",
}
# Similar values, so that a dictionary has something to learn.
VALUES |= {
    f"product:{number}": {
        "id": number,
        "name": f"product number {number}",
        "description": f"one of the finest products, with number {number * 7919}, in stock and ready to ship",
        "price": decimal.Decimal(number) / 4,
    }
    for number in range(120)
}

# Keys without a canonical encoding: they are pickled, and read when the file is opened.
EAGER: dict[Any, Any] = {
    datetime.time(12, tzinfo=_UTC): "under a time with a zone",
    ipaddress.IPv4Address("10.0.0.1"): ("under an address", 2**70),
    ("in a tuple", ipaddress.IPv6Address("::1")): fractions.Fraction(2, 3),
}

# Values with a deadline. (Whether the second one has expired depends on the reader's clock.)
LONG_LIVED = "text"
SHORT_LIVED = "short-lived"
DELETED = "deleted"


def cache_of(path: Path, **options: Any) -> AsyncCache:
    """A cache over a file with these options."""
    return AsyncCache(maxsize=None, backup=DiskBackend(path, version=VERSION, **options))


def write(path: Path, **options: Any) -> None:
    """Writes a golden file."""
    cache = cache_of(path, **options)
    for key, value in {**VALUES, **EAGER}.items():
        cache.set(key, value, ttl=FOR_EVER_NEARLY if key == LONG_LIVED else None)
    cache.set(SHORT_LIVED, "for a minute", ttl=60)
    cache.set(DELETED, "and deleted")
    cache.delete(DELETED)
    cache.save_to_backup()


if __name__ == "__main__":
    for name, options in OPTIONS.items():
        if not (GOLDEN / name).exists():
            write(GOLDEN / name, **options)
            (GOLDEN / f"{name}.lock").unlink(missing_ok=True)

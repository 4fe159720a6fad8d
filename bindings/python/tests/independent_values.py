"""Keys and values, read by a program written only from ``docs/values.md``, for
``independent_reader``.

Must not know the package; uses only facts from the page. Pickles are run: use only with our own
files.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import pickle
import struct
import uuid
from typing import Any

import msgpack

HAS_FOLD, HAS_ZONE, HAS_NAME = 1, 2, 4


def value(data: bytes) -> Any:
    """The value encoded by the bytes."""
    return msgpack.unpackb(data, ext_hook=_extension, strict_map_key=False, unicode_errors="strict")


def key(data: bytes) -> Any:
    """The key encoded by the bytes: like a value, except that arrays are tuples."""
    return msgpack.unpackb(data, ext_hook=_extension, strict_map_key=False, use_list=False)


def _extension(kind: int, body: bytes) -> Any:
    match kind:
        case 1:
            return tuple(value(body))
        case 2:
            return set(value(body))
        case 3:
            return frozenset(key(body))
        case 4:
            return int.from_bytes(body, "big", signed=True)
        case 5:
            return complex(*struct.unpack(">dd", body))
        case 6:
            return datetime.datetime.combine(_date(body[:4]), _time(body[4:]))
        case 7:
            return _date(body)
        case 8:
            return _time(body)
        case 9:
            days, seconds, microseconds = struct.unpack(">iII", body)
            return datetime.timedelta(days, seconds, microseconds)
        case 10:
            return _zone(body[0], body[1:])
        case 11:
            return decimal.Decimal(body.decode("ascii"))
        case 12:
            return uuid.UUID(bytes=body)
        case 13:
            return bytearray(body)
        case 14:
            return body.decode("utf-8", "surrogatepass")
        case 15:
            return _unpickled(body)
        case 16:
            return fractions.Fraction(*value(body))
    raise ValueError(f"extension type {kind}")


def _date(body: bytes) -> datetime.date:
    return datetime.date(*struct.unpack(">HBB", body))


def _time(body: bytes) -> datetime.time:
    hour, minute, second, flags, microsecond = struct.unpack_from(">BBBBI", body)
    zone = _zone(flags, body[8:]) if flags & HAS_ZONE else None
    return datetime.time(hour, minute, second, microsecond, zone, fold=flags & HAS_FOLD)


def _zone(flags: int, body: bytes) -> datetime.timezone:
    (microseconds,) = struct.unpack_from(">q", body)
    offset = datetime.timedelta(microseconds=microseconds)
    return datetime.timezone(offset, body[8:].decode()) if flags & HAS_NAME else datetime.timezone(offset)


def _unpickled(body: bytes) -> Any:
    unpacker = msgpack.Unpacker()
    unpacker.feed(body)
    stream, *parts = unpacker
    buffers = [
        part if read_only else bytearray(part) for read_only, part in zip(*[iter(parts)] * 2, strict=True)
    ]
    return pickle.loads(stream, buffers=buffers)

"""The golden files, read by a program that was written from ``docs/file-format.md`` alone."""

from __future__ import annotations

import datetime
import decimal
import struct
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import independent_reader as reader
import msgpack
import pytest

from cache import AsyncCache, DiskBackend

GOLDEN = Path(__file__).parents[3] / "crates/async-cache-disk/tests/golden"
SAVED_AT = 1_700_000_000_000_000_000
U64_MAX = 2**64 - 1

Entry = tuple[bytes, bytes, int | None]


def version_1() -> list[Entry]:
    """What ``crates/async-cache-disk/tests/golden.rs`` says is in the file."""
    entries: list[Entry] = [
        (b"", b"the empty key", None),
        (b"empty value", b"", SAVED_AT),
        (b"long value", b"l" * 1000, U64_MAX),
        (b"k" * 200, b"long key", 0),
        ("ключ".encode(), bytes([0, 255, 128, 10, 13]), None),
    ]
    for i in range(77):
        deadline = SAVED_AT + i * 7919 % 79 * 1_000_000_000 if i % 2 == 0 else None
        entries.append((f"product:{i}".encode(), f'{{"id": {i}}}'.encode(), deadline))
    return entries


EAGER: list[Entry] = [
    (b"pickle 1", b"one", None),
    (b"", b"", SAVED_AT + 1),
    (b"pickle 1", b"one again", U64_MAX),
    (b"k" * 300, b"v" * 300, None),
    ("ключ".encode(), b"the bytes of a key in the index", 0),
]


def open_golden(name: str) -> reader.Snapshot:
    snapshot = reader.read(GOLDEN / name)
    assert snapshot is not None
    return snapshot


def parts(record: reader.Record) -> Entry:
    return record.key, record.value, record.deadline


def check(snapshot: reader.Snapshot, expected: list[Entry], eager: list[Entry]) -> None:
    """By every way there is to see them."""
    assert [parts(record) for record in snapshot.entries().values()] == expected
    assert list(snapshot.entries()) == list(range(len(expected)))
    for rank, (key, value, deadline) in enumerate(expected):
        found = snapshot.find(key)
        assert found is not None
        assert (found[0], parts(found[1])) == (rank, (key, value, deadline))
    assert snapshot.find(b"no such key") is None
    ranked = [(deadline, rank) for rank, (_, _, deadline) in enumerate(expected) if deadline is not None]
    assert snapshot.deadlines() == sorted(ranked)
    assert [parts(record) for record in snapshot.eager()] == eager


def test_the_file_of_format_version_1_holds_what_it_should() -> None:
    snapshot = open_golden("v1.acf")
    assert (snapshot.saved_at, snapshot.version, snapshot.producer) == (SAVED_AT, "v1", "golden")
    check(snapshot, version_1(), [])
    # One record was taken back: it is walked over, and no entry.
    walked = [parts(record) for record in snapshot.walk()]
    assert walked == [(b"forgotten", b"nobody finds this", SAVED_AT), *version_1()]


def test_the_file_with_eager_records_holds_what_it_should() -> None:
    snapshot = open_golden("v1-eager.acf")
    check(snapshot, version_1(), EAGER)
    assert [parts(record) for record in snapshot.walk()] == version_1()


def ext(kind: int, body: bytes) -> msgpack.ExtType:
    return msgpack.ExtType(kind, body)


def test_the_file_that_python_wrote_holds_what_it_should() -> None:
    snapshot = open_golden("v1-python.acf")
    keys = {record.key: record for record in snapshot.entries().values()}
    values: dict[Any, Any] = {}
    for key, record in keys.items():
        found = snapshot.find(key)
        assert found is not None and found[1] == record
        unpacked = msgpack.unpackb(key, use_list=False, strict_map_key=False)
        values[unpacked] = msgpack.unpackb(record.value, strict_map_key=False)
    tuple_key = ("user", 7)
    assert values["text"] == "grüße"
    assert values[tuple_key] == {"name": "Ada", "tags": ["admin", "staff"], "age": None}
    assert values[42] == 0.5
    assert values["bytes"] == b"\x00\xff"
    assert values["tuple"] == ext(1, b"\x92\x01\x02")
    assert values["big"] == ext(4, (2**70).to_bytes(9, "big"))
    assert values["uuid"] == ext(12, uuid.UUID(int=7).bytes)
    assert values["decimal"] == ext(11, str(decimal.Decimal("1.10")).encode())
    day = datetime.date(2024, 2, 29)
    assert values["date"] == ext(7, struct.pack(">HBB", day.year, day.month, day.day))
    assert values["pickled"].code == 15
    # Only what may expire has a deadline, and the page lists it.
    due = [key for key, record in keys.items() if record.deadline is not None]
    assert due == [msgpack.packb("text")]
    assert [rank for _, rank in snapshot.deadlines()] == [list(keys).index(due[0])]
    # A key that pickle wrote is found by nobody, so it is eager.
    assert len(list(snapshot.eager())) == 1


def test_a_file_of_today_is_read_as_well_as_the_golden_ones(tmp_path: Path) -> None:
    path = tmp_path / "today.cache"
    cache = AsyncCache(maxsize=None, backup=DiskBackend(path))
    for number in range(2000):
        cache.set(f"key {number}", {"number": number}, ttl=3600 if number % 3 else None)
    cache.save_to_backup()
    snapshot = reader.read(path)
    assert snapshot is not None
    assert len(snapshot.deadlines()) == sum(1 for number in range(2000) if number % 3)
    for number in range(2000):
        found = snapshot.find(msgpack.packb(f"key {number}"))
        assert found is not None and msgpack.unpackb(found[1].value) == {"number": number}


def test_checksum_and_hash_are_those_of_the_papers() -> None:
    assert reader.crc32c(b"123456789") == 0xE3069283
    assert reader.siphash_1_3(bytes(range(16)), bytes(range(15))) == 0xD320D86D2A519956


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda data: b"x" + data[1:], "foreign"),
        (lambda data: data[:4000], "damaged"),
        (lambda data: data[:100] + b"\x01" + data[101:], "damaged"),
        (lambda data: resealed(data[:8] + b"\x02" + data[9:]), "newer"),
        (lambda data: resealed(data[:16] + b"\x80" + data[17:]), "newer"),
        (lambda data: data[:-1], "damaged"),
    ],
)
def test_files_that_are_not_valid_are_refused_by_name(change: Callable[[bytes], bytes], kind: str) -> None:
    with pytest.raises(reader.Unreadable) as caught:
        reader.Snapshot(change((GOLDEN / "v1.acf").read_bytes()))
    assert caught.value.kind == kind


def resealed(data: bytes) -> bytes:
    return data[:4092] + struct.pack("<I", reader.crc32c(data[:4092])) + data[4096:]


def test_no_flipped_byte_makes_a_wrong_value() -> None:
    data = (GOLDEN / "v1-eager.acf").read_bytes()
    truth = {record.key: parts(record) for record in reader.Snapshot(data).entries().values()}
    for offset in range(4096, len(data), 97):
        flipped = bytearray(data)
        flipped[offset] ^= 0x41
        for record in reader.Snapshot(bytes(flipped)).entries().values():
            assert truth[record.key] == parts(record)

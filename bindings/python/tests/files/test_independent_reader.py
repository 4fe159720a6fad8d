"""The golden files, read by a program written only from ``docs/file-format.md``."""

from __future__ import annotations

import datetime
import decimal
import struct
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import independent_blake3 as blake3
import independent_reader as reader
import msgpack
import pytest
import zstandard

from cache import AsyncCache, DiskBackend

GOLDEN = Path(__file__).parents[4] / "crates/async-cache-disk/tests/golden"
SAVED_AT = 1_700_000_000_000_000_000
U64_MAX = 2**64 - 1

Entry = tuple[bytes, bytes, int | None]


def version_1() -> list[Entry]:
    """The contents of the file, according to ``crates/async-cache-disk/tests/golden.rs``."""
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


SECRET = b"correct horse battery staple"


def compressed() -> list[Entry]:
    entries: list[Entry] = []
    for i in range(400):
        value = f'<a href="/pages/{i}">page number {i} of the golden file</a>{i * 7919}'
        entries.append((f"page:{i}".encode(), value.encode(), SAVED_AT + i if i % 2 == 0 else None))
    entries.append((b"long", b"a value that repeats itself until it compresses alone; " * 40, None))
    entries.append((b"short", b"plain", U64_MAX))
    return entries


def open_golden(name: str, secret: bytes | None = None) -> reader.Snapshot:
    snapshot = reader.read(GOLDEN / name, secret)
    assert snapshot is not None
    return snapshot


def unpack(snapshot: reader.Snapshot, record: reader.Record) -> bytes:
    """The saved value (section 8)."""
    if not record.is_compressed:
        return record.value
    frame = zstandard.get_frame_parameters(record.value)
    assert frame.content_size <= 256 * len(record.value)
    dictionary = None
    if frame.dict_id:
        body = snapshot.dictionary()
        assert body is not None
        dictionary = zstandard.ZstdCompressionDict(body)
        assert dictionary.dict_id() == frame.dict_id
    value = zstandard.ZstdDecompressor(dict_data=dictionary).decompress(record.value)
    assert len(value) == frame.content_size
    return value


def parts(snapshot: reader.Snapshot, record: reader.Record) -> Entry:
    return record.key, unpack(snapshot, record), record.deadline


def check(snapshot: reader.Snapshot, expected: list[Entry], eager: list[Entry]) -> None:
    """Compares the entries, by every way of reading them."""
    assert [parts(snapshot, record) for record in snapshot.entries().values()] == expected
    assert list(snapshot.entries()) == list(range(len(expected)))
    for rank, (key, value, deadline) in enumerate(expected):
        found = snapshot.find(key)
        assert found is not None
        assert (found[0], parts(snapshot, found[1])) == (rank, (key, value, deadline))
    assert snapshot.find(b"no such key") is None
    ranked = [(deadline, rank) for rank, (_, _, deadline) in enumerate(expected) if deadline is not None]
    assert snapshot.deadlines() == sorted(ranked)
    assert [parts(snapshot, record) for record in snapshot.eager()] == eager


def test_the_file_of_format_version_1_holds_what_it_should() -> None:
    snapshot = open_golden("v1.acf")
    assert (snapshot.saved_at, snapshot.version, snapshot.producer) == (SAVED_AT, "v1", "golden")
    check(snapshot, version_1(), [])
    # One record is superseded: the walk visits the record, but the record is not an entry.
    walked = [parts(snapshot, record) for record in snapshot.walk()]
    assert walked == [(b"forgotten", b"nobody finds this", SAVED_AT), *version_1()]


def test_the_file_with_eager_records_holds_what_it_should() -> None:
    snapshot = open_golden("v1-eager.acf")
    check(snapshot, version_1(), EAGER)
    assert [parts(snapshot, record) for record in snapshot.walk()] == version_1()


@pytest.mark.parametrize("name", ["v1-mac.acf", "v1-zstd.acf", "v1-zstd-mac.acf"])
def test_the_files_with_a_secret_and_with_compression_hold_what_they_should(name: str) -> None:
    snapshot = open_golden(name, SECRET if "mac" in name else None)
    expected = compressed() if "zstd" in name else version_1()
    check(snapshot, expected, EAGER)
    assert any(record.is_compressed for record in snapshot.walk()) == ("zstd" in name)
    for secret in (None, b"another secret, long enough") if "mac" in name else (SECRET,):
        with pytest.raises(reader.Unreadable) as caught:
            open_golden(name, secret)
        assert caught.value.kind == "not trusted"


def merged() -> list[tuple[bytes, bytes, int | None, int | None]]:
    """The contents of the files with times of writing, according to ``golden.rs``."""
    entries: list[tuple[bytes, bytes, int | None, int | None]] = [
        (b"of a program that does not merge", b"", None, None),
        (b"written and due", b"v", SAVED_AT + 5, SAVED_AT - 5),
        (b"since the clearing", b"v" * 300, None, SAVED_AT - 1),
    ]
    for i in range(50):
        entries.append((f"key {i}".encode(), f"value {i}".encode(), None, SAVED_AT - 900 + i))
    return entries


@pytest.mark.parametrize("name", ["v1-merged.acf", "v1-merged-mac.acf"])
def test_the_files_with_times_of_writing_and_tombstones_hold_what_they_should(name: str) -> None:
    snapshot = open_golden(name, SECRET if "mac" in name else None)
    expected = merged()
    check(snapshot, [entry[:3] for entry in expected], [(b"pickle", b"p", SAVED_AT + 7)])
    assert [record.written_at for record in snapshot.entries().values()] == [entry[3] for entry in expected]
    assert [record.written_at for record in snapshot.eager()] == [SAVED_AT - 3]
    assert snapshot.tombstones() == reader.Tombstones(
        cleared_at=SAVED_AT - 1000,
        floor=SAVED_AT - 2000,
        keys=((b"", SAVED_AT - 11), (b"gone", SAVED_AT - 10)),
        eager=((b"pickled and gone", SAVED_AT),),
    )
    assert snapshot.written_until == SAVED_AT


def test_the_keyed_hash_is_the_one_of_the_paper() -> None:
    key = b"whats the Elvish word for friend"
    data = bytes(number % 251 for number in range(3072))
    assert blake3.keyed_hash(key, b"").hex().startswith("92b2b75604ed3c76")
    assert blake3._hash(blake3._IV, b"", 0).hex().startswith("af1349b9f5f9a1a6")
    assert blake3._hash(blake3._IV, data[:1025], 0).hex().startswith("d00278ae47eb27b3")
    assert blake3._hash(blake3._IV, data, 0).hex().startswith("b98cb0ff3623be03")


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
    # Only entries that may expire have a deadline, and the page lists them.
    due = [key for key, record in keys.items() if record.deadline is not None]
    assert due == [msgpack.packb("text")]
    assert [rank for _, rank in snapshot.deadlines()] == [list(keys).index(due[0])]
    # A key written by pickle cannot be found by a look-up, so the entry is eager.
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
    snapshot = reader.Snapshot(data)
    truth = {record.key: parts(snapshot, record) for record in snapshot.entries().values()}
    for offset in range(4096, len(data), 97):
        flipped = bytearray(data)
        flipped[offset] ^= 0x41
        snapshot = reader.Snapshot(bytes(flipped))
        for record in snapshot.entries().values():
            assert truth[record.key] == parts(snapshot, record)

"""A reader of cache files, written only from ``docs/file-format.md``.

The reader proves that the page is sufficient: it shares no code with the package, and every
necessary guess was a gap in the page. Standard library only; the tests add ``msgpack`` for
``docs/values.md``, and a decoder of zstd for compressed values.

Deliberately slow: every checksum is computed bit by bit from its definition, and every number is
read at the place given by the page.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from independent_blake3 import derive_key, keyed_hash

MAGIC = b"\x89ACF\r\n\x1a\n"
HEADER_BYTES = 4096
PAGE_BYTES = 512
PAGE_ITEMS = 42
PAGE_ITEMS_WITH_TAG = 40
TAG_BYTES = 16
MAX_DICTIONARY_BYTES = 2**18
MIN_SECRET_BYTES = 16
MAC_CONTEXT = "async-cache 2026 cache file format 1 MAC key"
MAX_CHAIN = 8

RECORDS, INDEX, DEADLINES, EAGER, DICTIONARY, TOMBSTONES = 1, 2, 3, 4, 5, 7
FEATURE_MAC, FEATURE_COMPRESSION, FEATURE_EAGER = 1, 2, 4
HAS_DEADLINE, HAS_WRITTEN_AT, IS_COMPRESSED, HAS_TAG = 1, 2, 4, 8


class Unreadable(Exception):
    """The file is not a valid snapshot (section 1); ``kind`` is the word of section 3."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(f"{kind}: {what}")
        self.kind = kind


def _crc32c_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)  # Castagnoli, reflected
        table.append(crc)
    return table


_CRC32C = _crc32c_table()


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC32C[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def siphash_1_3(seed: bytes, data: bytes) -> int:
    """SipHash with one round a word and three at the end."""
    mask = 0xFFFFFFFFFFFFFFFF

    def rotate(word: int, bits: int) -> int:
        return (word << bits | word >> 64 - bits) & mask

    k0, k1 = int.from_bytes(seed[:8], "little"), int.from_bytes(seed[8:], "little")
    v0, v1 = k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D
    v2, v3 = k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573

    def rounds(count: int) -> None:
        nonlocal v0, v1, v2, v3
        for _ in range(count):
            v0 = v0 + v1 & mask
            v1 = rotate(v1, 13) ^ v0
            v0 = rotate(v0, 32)
            v2 = v2 + v3 & mask
            v3 = rotate(v3, 16) ^ v2
            v0 = v0 + v3 & mask
            v3 = rotate(v3, 21) ^ v0
            v2 = v2 + v1 & mask
            v1 = rotate(v1, 17) ^ v2
            v2 = rotate(v2, 32)

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 0xFF])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v3 ^= word
        rounds(1)
        v0 ^= word
    v2 ^= 0xFF
    rounds(3)
    return v0 ^ v1 ^ v2 ^ v3


@dataclass(frozen=True)
class Record:
    """A record with a valid checksum."""

    offset: int
    end: int
    deadline: int | None
    written_at: int | None
    key: bytes
    value: bytes
    """As stored: a frame of zstd, if compressed."""
    is_compressed: bool = False


@dataclass(frozen=True)
class Tombstones:
    """The deletes in the file (section 10)."""

    cleared_at: int = 0
    floor: int = 0
    keys: tuple[tuple[bytes, int], ...] = ()
    """Key and time."""
    eager: tuple[tuple[bytes, int], ...] = ()


@dataclass(frozen=True)
class Slot:
    """An entry of a bucket."""

    tag: int
    rank: int
    offset: int


class Snapshot:
    """An opened file with a valid header."""

    def __init__(self, data: bytes, secret: bytes | None = None) -> None:
        self.data = data
        self._validity: dict[tuple[int, int], bool] = {}
        if data[:8] != MAGIC:
            raise Unreadable("foreign", "other magic bytes")
        if len(data) < HEADER_BYTES:
            raise Unreadable("damaged", "shorter than a header")
        (checksum,) = struct.unpack_from("<I", data, 4092)
        if crc32c(data[:4092]) != checksum:
            raise Unreadable("damaged", "the header's checksum")
        format_version, section_count, required, _optional = struct.unpack_from("<IIQQ", data, 8)
        if format_version != 1:
            raise Unreadable("newer", f"format version {format_version}")
        if required & ~(FEATURE_MAC | FEATURE_COMPRESSION | FEATURE_EAGER):
            raise Unreadable("newer", f"features {required:#x}")
        self.file_id, self.hash_seed = data[32:48], data[48:64]
        self.may_compress = bool(required & FEATURE_COMPRESSION)
        self.mac_key = self._mac_key(bool(required & FEATURE_MAC), secret)
        self.page_items = PAGE_ITEMS_WITH_TAG if self.mac_key else PAGE_ITEMS
        self.saved_at, self.record_count, self.entry_count, self.deadline_count, self.bucket_count = (
            struct.unpack_from("<QIIII", data, 64)
        )
        (self.written_until,) = struct.unpack_from("<Q", data, 104)
        self.version, self.producer = self._label(256), self._label(512)
        self.sections = self._sections(section_count)
        self._check_counts(bool(required & FEATURE_EAGER))

    def _mac_key(self, has_mac: bool, secret: bytes | None) -> bytes | None:
        """The key of section 8, if the file has a MAC and the header's tag matches."""
        if has_mac != (secret is not None):
            raise Unreadable("not trusted", "a MAC without a secret, or a secret without a MAC")
        if secret is None:
            return None
        if len(secret) < MIN_SECRET_BYTES:
            raise ValueError("a secret has 16 bytes at least")
        key = derive_key(MAC_CONTEXT, secret)
        if self._tag(key, 0, self.data[:88] + self.data[104:4092]) != self.data[88:104]:
            raise Unreadable("not trusted", "another secret, or a forgery")
        return key

    def _tag(self, key: bytes, offset: int, body: bytes) -> bytes:
        return keyed_hash(key, self.file_id + struct.pack("<Q", offset) + body)[:TAG_BYTES]

    def _label(self, offset: int) -> str:
        length = self.data[offset]
        try:
            return self.data[offset + 1 : offset + 1 + length].decode()
        except UnicodeDecodeError as error:
            raise Unreadable("damaged", f"a label is no UTF-8: {error}") from error

    def _sections(self, count: int) -> dict[int, tuple[int, int]]:
        if count > 64:
            raise Unreadable("damaged", f"{count} sections")
        sections: dict[int, tuple[int, int]] = {}
        end = HEADER_BYTES
        for row in range(count):
            kind, _flags, offset, length = struct.unpack_from("<IIQQ", self.data, 768 + 24 * row)
            if offset < end or offset + length > len(self.data):
                raise Unreadable("damaged", f"section {kind} overlaps, or reaches beyond the file")
            end = offset + length
            if kind in (RECORDS, INDEX, DEADLINES, EAGER, DICTIONARY, TOMBSTONES):
                if kind in sections:
                    raise Unreadable("damaged", f"two sections of kind {kind}")
                sections[kind] = (offset, end)
        return sections

    def _check_counts(self, needs_eager: bool) -> None:
        length = {kind: end - start for kind, (start, end) in self.sections.items()}
        rules = [
            RECORDS in length and length[RECORDS] >= 7 * self.record_count,
            INDEX in length and length[INDEX] == PAGE_BYTES * self.bucket_count,
            self.record_count <= 2**32 - 2,
            self.entry_count <= min(self.record_count, self.page_items * self.bucket_count),
            self.deadline_count <= self.entry_count,
            length.get(DEADLINES, 0) == PAGE_BYTES * -(-self.deadline_count // self.page_items),
            needs_eager == (EAGER in length) and length.get(EAGER, 7) >= 7,
            DICTIONARY not in length or self.may_compress,
            length.get(DICTIONARY, 0) <= MAX_DICTIONARY_BYTES,
        ]
        if not all(rules):
            raise Unreadable("damaged", "counts and sections contradict each other")

    def _unit_is_valid(self, start: int, end: int) -> bool:
        """Sections 4 and 8. Cached, because the check is slow here."""
        if (start, end) not in self._validity:
            self._validity[start, end] = self._check_unit(start, end)
        return self._validity[start, end]

    def _check_unit(self, start: int, end: int) -> bool:
        checksum = int.from_bytes(self.data[start : start + 4], "little")
        if checksum != crc32c(self.file_id + struct.pack("<Q", start) + self.data[start + 4 : end]):
            return False
        if self.mac_key is None:
            return True
        body, tag = self.data[start + 4 : end - TAG_BYTES], self.data[end - TAG_BYTES : end]
        return self._tag(self.mac_key, start, body) == tag

    def dictionary(self) -> bytes | None:
        """The compression dictionary, if present and valid."""
        if DICTIONARY not in self.sections:
            return None
        start, end = self.sections[DICTIONARY]
        if not self._unit_is_valid(start, end):
            return None
        return self.data[start + 4 : end - (TAG_BYTES if self.mac_key else 0)]

    def tombstones(self) -> Tombstones:
        """The deletes; if the section is invalid, any key may have been deleted until the file
        time.
        """
        if TOMBSTONES not in self.sections:
            return Tombstones()
        start, end = self.sections[TOMBSTONES]
        unknown = Tombstones(floor=self.saved_at)
        if not self._unit_is_valid(start, end):
            return unknown
        body = self.data[start + 4 : end - (TAG_BYTES if self.mac_key else 0)]
        try:
            return _parse_tombstones(body)
        except (struct.error, ValueError):
            return unknown

    def record_at(self, offset: int, section: int) -> Record | None:
        """The record at an offset of a section, if valid (section 5)."""
        start, end = self.sections[section]
        if not start <= offset < end:
            return None
        try:
            return self._parse_record(offset, end)
        except (IndexError, struct.error, ValueError):
            return None

    def _parse_record(self, offset: int, end: int) -> Record | None:
        data = self.data[:end]
        flags = data[offset + 4]
        known = HAS_DEADLINE | HAS_WRITTEN_AT | HAS_TAG | (IS_COMPRESSED if self.may_compress else 0)
        if flags & ~known or bool(flags & HAS_TAG) != (self.mac_key is not None):
            return None
        key_length, at = _leb128(data, offset + 5)
        value_length, at = _leb128(data, at)
        deadline = written_at = None
        if flags & HAS_DEADLINE:
            (deadline,) = struct.unpack_from("<Q", data, at)
            at += 8
        if flags & HAS_WRITTEN_AT:
            (written_at,) = struct.unpack_from("<Q", data, at)
            at += 8
        value_at = at + key_length
        value_end = value_at + value_length
        last = value_end + (TAG_BYTES if self.mac_key else 0)
        if last > end or not self._unit_is_valid(offset, last):
            return None
        key, value, is_compressed = data[at:value_at], data[value_at:value_end], bool(flags & IS_COMPRESSED)
        return Record(offset, last, deadline, written_at, key, value, is_compressed)

    def walk(self) -> Iterator[Record]:
        """The records of the section from its start, entries or not, up to the first invalid
        record.
        """
        yield from self._walk(RECORDS)

    def eager(self) -> Iterator[Record]:
        """The eager records, up to the first invalid record."""
        if EAGER in self.sections:
            yield from self._walk(EAGER)

    def _walk(self, section: int) -> Iterator[Record]:
        offset, end = self.sections[section]
        while offset < end:
            record = self.record_at(offset, section)
            if record is None:
                return
            yield record
            offset = record.end

    def bucket(self, number: int) -> tuple[list[Slot], bool] | None:
        """The entries of a bucket and whether the bucket overflowed, if valid (section 6)."""
        offset = self.sections[INDEX][0] + PAGE_BYTES * number
        count, flags = self.data[offset + 4], self.data[offset + 5]
        if count > self.page_items or not self._unit_is_valid(offset, offset + PAGE_BYTES):
            return None
        slots = []
        for item in range(count):
            tag, rank, low, high = struct.unpack_from("<HIIH", self.data, offset + 8 + 12 * item)
            slot = Slot(tag, rank, high << 32 | low)
            start, end = self.sections[RECORDS]
            if rank < self.entry_count and start <= slot.offset < end:
                slots.append(slot)
        return slots, bool(flags & 1)

    def entries(self) -> dict[int, Record]:
        """All entries by rank, found through the index alone."""
        entries = {}
        for number in range(self.bucket_count):
            slots, _overflowed = self.bucket(number) or ([], False)
            for slot in slots:
                record = self.record_at(slot.offset, RECORDS)
                if record is not None:
                    entries[slot.rank] = record
        return dict(sorted(entries.items()))

    def find(self, key: bytes) -> tuple[int, Record] | None:
        """Rank and record of a key, by the look-up of section 6."""
        key_hash = siphash_1_3(self.hash_seed, key)
        home = (key_hash >> 32) * self.bucket_count >> 32
        for step in range(min(MAX_CHAIN, self.bucket_count)):
            bucket = self.bucket((home + step) % self.bucket_count)
            if bucket is None:
                continue  # whether the bucket overflowed is unknown
            slots, overflowed = bucket
            for slot in slots:
                if slot.tag == key_hash & 0xFFFF:
                    record = self.record_at(slot.offset, RECORDS)
                    if record is not None and record.key == key:
                        return slot.rank, record
            if not overflowed:
                break
        return None

    def deadlines(self) -> list[tuple[int, int]]:
        """Deadline and rank of all entries with a deadline, in the order of the valid pages
        (section 7).
        """
        found: list[tuple[int, int]] = []
        for number in range(-(-self.deadline_count // self.page_items)):
            offset = self.sections[DEADLINES][0] + PAGE_BYTES * number
            count = self.data[offset + 4]
            if count > self.page_items or not self._unit_is_valid(offset, offset + PAGE_BYTES):
                continue
            for item in range(count):
                deadline, rank = struct.unpack_from("<QI", self.data, offset + 8 + 12 * item)
                found.append((deadline, rank))
        return found


def _parse_tombstones(body: bytes) -> Tombstones:
    count, cleared_at, floor = struct.unpack_from("<IQQ", body)
    at = 20
    found: tuple[list[tuple[bytes, int]], list[tuple[bytes, int]]] = ([], [])
    for _ in range(count):
        flags, length, time = struct.unpack_from("<BIQ", body, at)
        at += 13
        if flags > 3 or at + length > len(body):
            raise ValueError("unknown flags, or a key that is cut off")
        found[flags & 1].append((body[at : at + length], time))
        at += length
    if at != len(body):
        raise ValueError("bytes behind the last tombstone")
    return Tombstones(cleared_at, floor, tuple(found[0]), tuple(found[1]))


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """A length, and the offset after it."""
    number = 0
    for step in range(5):
        byte = data[at + step]
        number |= (byte & 0x7F) << 7 * step
        if byte < 0x80:
            if number >= 2**32 or (byte == 0 and step > 0):
                raise ValueError("not the shortest form, or too long")
            return number, at + step + 1
    raise ValueError("a length of more than five bytes")


def read(path: Path, secret: bytes | None = None) -> Snapshot | None:
    """Opens a file; ``None`` if the file is empty and so has no snapshot."""
    data = path.read_bytes()
    return Snapshot(data, secret) if data else None

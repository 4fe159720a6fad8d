"""The files of a store: sections 13 to 16 of ``docs/file-format.md``, for ``independent_store``."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import independent_reader as part_one
from independent_blake3 import derive_key, keyed_hash
from independent_reader import MAC_CONTEXT, MAGIC, TAG_BYTES, Unreadable, crc32c

HEADER_BYTES = 4096
BUCKET_BYTES = 512
SECRET_ID_CONTEXT = "async-cache 2026 store secret id"
DIGEST_SPACING = 32 << 10
PAGE = 4096
MAX_CHAIN = 8
MASK40 = (1 << 40) - 1

MANIFEST, SEGMENT, RUN = 1, 2, 3
HAS_DEADLINE, HAS_WRITTEN_AT, IS_COMPRESSED, HAS_TAG = 1, 2, 4, 8
ENTRY, ENTRY_WITH_ATTRIBUTES, DELETE, EAGER, EAGER_WITH_ATTRIBUTES, EAGER_DELETE, CLEAR, DIGEST, USE = range(
    9
)
TAG = 9
WITH_ATTRIBUTES = {ENTRY_WITH_ATTRIBUTES, EAGER_WITH_ATTRIBUTES}
ENTRIES = {ENTRY, EAGER} | WITH_ATTRIBUTES
EAGER_KINDS = {EAGER, EAGER_WITH_ATTRIBUTES, EAGER_DELETE}
WITH_SLOT = {ENTRY, ENTRY_WITH_ATTRIBUTES, DELETE, 11, 12, 13, 14, 15}
WITHOUT_KEY = {CLEAR, USE}

Place = tuple[int, int]
"""Number of the segment, and offset."""


@dataclass(frozen=True)
class Record:
    """A valid record of a segment."""

    place: Place
    end: int
    kind: int
    written_at: int
    deadline: int | None
    attributes: bytes
    key: bytes
    value: bytes
    """As stored: a frame of zstd, if compressed."""
    is_compressed: bool

    @property
    def order(self) -> tuple[int, Place]:
        """Of two records the one with the greater order is later."""
        return self.written_at, self.place

    def may_be_served(self) -> bool:
        """Whether the attributes obey the rules, and need no newer reader."""
        data, at, last = self.attributes, 0, -1
        try:
            while at < len(data):
                kind = data[at]
                length, start = part_one._leb128(data, at + 1)
                at = start + length
                body = data[start:at]
                if at > len(data) or kind <= last or kind >= 128:
                    return False
                if kind == 1 and length != 8 or kind == 3 and length % 8:
                    return False
                if kind == 2 and part_one._leb128(body, 0)[1] != length:
                    return False
                last = kind
        except (IndexError, ValueError):
            return False
        return True


@dataclass(frozen=True)
class Damaged:
    """A record of which a digest or a run tells the hash."""

    order: tuple[int, Place]
    kind: int
    hash40: int

    def hides(self, order: tuple[int, Place]) -> bool:
        """Whether a record with this order is not later."""
        is_behind = order[1][0] == self.order[1][0] and order[1] > self.order[1]
        return not is_behind and order <= self.order


@dataclass(frozen=True)
class Digest:
    """A valid digest: the records since the previous digest."""

    offset: int
    written_at: int
    base: int
    synced: int
    rows: tuple[tuple[int, int, int], ...]
    """Offset, kind and hash."""


@dataclass(frozen=True)
class SegmentRow:
    """A segment, as the manifest describes it."""

    number: int
    is_sealed: bool
    file_id: bytes
    end: int
    entries: int
    earliest: int
    latest: int


@dataclass(frozen=True)
class RunRow:
    """A run, as the manifest describes it."""

    number: int
    level: int
    file_id: bytes
    first: int
    last: int
    latest: int


@dataclass(frozen=True)
class Entry:
    """An entry that counts. The value is as stored, with the file that has its dictionary."""

    value: bytes
    deadline: int | None
    written_at: int | None
    is_compressed: bool
    base: part_one.Snapshot | None = None


class StoreFile:
    """A file of a store with a valid header page."""

    def __init__(self, data: bytes, kind: int, secret: bytes | None) -> None:
        self.data = data
        self._validity: dict[tuple[int, int], bool] = {}
        if data[:8] != MAGIC:
            raise Unreadable("foreign", "other magic bytes")
        if len(data) < HEADER_BYTES or crc32c(data[:4092]) != int.from_bytes(data[4092:4096], "little"):
            raise Unreadable("damaged", "the header page")
        version, found_kind, required, _optional = struct.unpack_from("<IIQQ", data, 8)
        if version != 2 or required & ~3:
            raise Unreadable("newer", f"format version {version}, features {required:#x}")
        self.file_id, self.hash_seed = data[32:48], data[48:64]
        self.may_compress = bool(required & 2)
        if bool(required & 1) != (secret is not None):
            raise Unreadable("not trusted", "a MAC without a secret, or a secret without a MAC")
        self.mac_key = None if secret is None else derive_key(MAC_CONTEXT, secret)
        if self.mac_key is not None and self._tag(0, data[:88] + data[104:4092]) != data[88:104]:
            raise Unreadable("not trusted", "another secret, or a forgery")
        self.number = int.from_bytes(data[72:76], "little")
        self.store_id, self.boot_id = data[104:120], data[120:136]
        self.version = data[257 : 257 + data[256]].decode()
        self.producer = data[513 : 513 + data[512]].decode()
        is_numbered = self.number == 0 if kind == MANIFEST else 1 <= self.number < 1 << 24
        if found_kind != kind or not is_numbered:
            raise Unreadable("damaged", f"kind {found_kind}, number {self.number}")

    def _tag(self, offset: int, body: bytes) -> bytes:
        assert self.mac_key is not None
        return keyed_hash(self.mac_key, self.file_id + struct.pack("<Q", offset) + body)[:TAG_BYTES]

    @property
    def tag_bytes(self) -> int:
        return 0 if self.mac_key is None else TAG_BYTES

    def is_valid(self, start: int, end: int) -> bool:
        """Sections 4 and 8. Kept, because the check is slow here."""
        if (start, end) not in self._validity:
            self._validity[start, end] = self._check(start, end)
        return self._validity[start, end]

    def _check(self, start: int, end: int) -> bool:
        if end > len(self.data) or end - start < 4 + self.tag_bytes:
            return False
        checksum = int.from_bytes(self.data[start : start + 4], "little")
        if checksum != crc32c(self.file_id + struct.pack("<Q", start) + self.data[start + 4 : end]):
            return False
        if self.mac_key is None:
            return True
        body, tag = self.data[start + 4 : end - TAG_BYTES], self.data[end - TAG_BYTES : end]
        return self._tag(start, body) == tag

    def is_of(self, manifest: StoreFile, number: int, file_id: bytes) -> bool:
        """Whether this is the file that the manifest names."""
        own = (self.number, self.file_id, self.store_id, self.hash_seed, self.version, self.may_compress)
        named = (
            number,
            file_id,
            manifest.store_id,
            manifest.hash_seed,
            manifest.version,
            manifest.may_compress,
        )
        return own == named


class Manifest(StoreFile):
    """Section 16."""

    def __init__(self, data: bytes, secret: bytes | None) -> None:
        super().__init__(data, MANIFEST, secret)
        (length,) = struct.unpack_from("<Q", data, 768)
        if length < 80 + self.tag_bytes or not self.is_valid(4096, 4096 + length):
            raise Unreadable("damaged", "the body of the manifest")
        fixed = struct.unpack_from("<IQQQQQII16sII", data, 4100)
        flags, self.sequence, self.cleared_at, self.floor, self.dropped_until, self.written_until = fixed[:6]
        self.next_number, has_base, base, segments, runs = fixed[6:]
        self.is_clean, self.base = flags == 1, base if has_base else None
        if length != 80 + 64 * segments + 48 * runs + self.tag_bytes or flags & ~1 or has_base > 1:
            raise Unreadable("damaged", "the counts of the manifest")
        at = 4096 + 80
        self.segments = [self._segment(at + 64 * row) for row in range(segments)]
        self.runs = [self._run(at + 64 * segments + 48 * row) for row in range(runs)]
        covered = [row for row in self.segments if self.is_indexed(row)]
        rules = [
            _ascends(row.number for row in self.segments),
            _ascends(bound for row in self.runs for bound in ((row.first, 0), (row.last, 1))),
            all(row.is_sealed for row in (self.segments if self.is_clean else covered)),
            all(0 < row.number < self.next_number <= 1 << 24 for row in self.segments),
            all(0 < row.number < self.next_number <= 1 << 24 for row in self.runs),
        ]
        if not all(rules):
            raise Unreadable("damaged", "the rows of the manifest")

    def _segment(self, at: int) -> SegmentRow:
        number, flags, file_id, end, entries, earliest, latest, _deadline, _dead, _zero = struct.unpack_from(
            "<II16sIIQQQII", self.data, at
        )
        if flags & ~1:
            raise Unreadable("damaged", "the flags of a segment")
        return SegmentRow(number, flags == 1, file_id, end, entries, earliest, latest)

    def _run(self, at: int) -> RunRow:
        number, level, file_id, first, last, _earliest, latest = struct.unpack_from(
            "<II16sIIQQ", self.data, at
        )
        return RunRow(number, level, file_id, first, last, latest)

    def is_indexed(self, row: SegmentRow) -> bool:
        return any(run.first <= row.number <= run.last for run in self.runs)


def _ascends(values: Iterable[object]) -> bool:
    listed: list[object] = list(values)
    return all(left < right for left, right in zip(listed, listed[1:], strict=False))  # type: ignore[operator]


class Segment(StoreFile):
    """Section 14."""

    def __init__(self, data: bytes, row: SegmentRow, secret: bytes | None) -> None:
        super().__init__(data, SEGMENT, secret)
        self.row = row

    def record_at(self, offset: int) -> Record | None:
        """The record at an offset, if it is valid."""
        try:
            return self._parse(offset)
        except (IndexError, struct.error, ValueError):
            return None

    def _parse(self, offset: int, *, is_checked: bool = True) -> Record | None:
        data = self.data
        flags = data[offset + 4]
        kind = flags >> 4
        key_length, at = part_one._leb128(data, offset + 5)
        value_length, at = part_one._leb128(data, at)
        attributes_length = 0
        if kind in WITH_ATTRIBUTES:
            attributes_length, at = part_one._leb128(data, at)
        if not self._is_allowed(flags, kind, key_length, value_length):
            return None
        deadline = None
        if flags & HAS_DEADLINE:
            (deadline,) = struct.unpack_from("<Q", data, at)
            at += 8
        (written_at,) = struct.unpack_from("<Q", data, at)
        key_at = at + 8 + attributes_length
        value_at = key_at + key_length
        value_end = value_at + value_length
        end = value_end + self.tag_bytes
        if is_checked and not self.is_valid(offset, end):
            return None
        place = (self.row.number, offset)
        attributes, key, value = data[at + 8 : key_at], data[key_at:value_at], data[value_at:value_end]
        compressed = bool(flags & IS_COMPRESSED)
        return Record(place, end, kind, written_at, deadline, attributes, key, value, compressed)

    def _is_allowed(self, flags: int, kind: int, key_length: int, value_length: int) -> bool:
        if not flags & HAS_WRITTEN_AT or bool(flags & HAS_TAG) != (self.mac_key is not None):
            return False
        if flags & IS_COMPRESSED and not self.may_compress:
            return False
        if flags & (HAS_DEADLINE | IS_COMPRESSED) and kind not in ENTRIES:
            return False
        if kind in (DELETE, EAGER_DELETE, CLEAR, TAG) and value_length:
            return False
        if kind == DIGEST:
            return key_length == 8 and value_length >= 16 and value_length % 8 == 0
        return kind not in WITHOUT_KEY or key_length == 0

    def as_digest(self, record: Record) -> Digest | None:
        """The content of a digest."""
        if record.kind != DIGEST or record.key != self.file_id[:8]:
            return None
        base, synced, *numbers = struct.unpack(f"<{len(record.value) // 8}Q", record.value)
        rows = tuple((base + (row & 0xFFFFF), row >> 20 & 0xF, row >> 24) for row in numbers)
        return Digest(record.place[1], record.written_at, base, synced, rows)

    def digests_behind(self, offset: int) -> Iterator[Digest]:
        """The valid digests behind an offset, found by their keys."""
        found = self.data.find(self.file_id[:8], offset)
        while found >= 0:
            for begin in range(found - 19, found - 14):  # one to five bytes of the value's length
                record = self.record_at(begin) if begin > offset else None
                digest = record and self.as_digest(record)
                if digest:
                    yield digest
            found = self.data.find(self.file_id[:8], found + 1)

    def damaged_at(self, place: Place, kind: int) -> Damaged:
        """The record at a place named by a run, if it is invalid."""
        behind = next(self.digests_behind(place[1]), None)
        return Damaged((behind.written_at if behind else self.row.latest, place), kind, 0)

    def is_record_behind(self, offset: int) -> bool:
        return any(self.record_at(at) for at in range(offset + 1, len(self.data)))

    def ends_before(self, offset: int) -> bool:
        """Whether the file ends before the record at an offset does."""
        padded = Segment.__new__(Segment)
        padded.__dict__.update(self.__dict__)
        padded.data = self.data + b"\1" * 36  # in place of the missing bytes of a head
        try:
            record = padded._parse(offset, is_checked=False)
        except (IndexError, struct.error, ValueError):
            return True
        return record is not None and record.end > len(self.data)


class Run(StoreFile):
    """Section 15."""

    def __init__(self, data: bytes, row: RunRow, secret: bytes | None) -> None:
        super().__init__(data, RUN, secret)
        self.row = row
        self.slot_count, self.bucket_count, self.eager_count = struct.unpack_from("<III", data, 768)
        eager_bytes = 4 + 8 * self.eager_count + self.tag_bytes if self.eager_count else 0
        if HEADER_BYTES + BUCKET_BYTES * self.bucket_count + eager_bytes > len(data):
            raise Unreadable("damaged", "the run is cut off")

    def bucket(self, number: int) -> tuple[list[tuple[int, Place]], bool] | None:
        """The slots, hash and place; and whether the bucket overflowed. ``None``: it is invalid."""
        start = HEADER_BYTES + BUCKET_BYTES * number
        if not self.is_valid(start, start + BUCKET_BYTES):
            return None
        count, flags = self.data[start + 4], self.data[start + 5]
        if count > (40 if self.mac_key else 42):
            return None
        slots = []
        for at in range(start + 8, start + 8 + 12 * count, 12):
            hash40, number_of_segment = (
                int.from_bytes(self.data[at + a : at + b], "little") for a, b in ((0, 5), (5, 8))
            )
            slots.append((hash40, (number_of_segment, int.from_bytes(self.data[at + 8 : at + 12], "little"))))
        return slots, bool(flags & 1)

    def find(self, hash40: int) -> list[Place] | None:
        """The places of a hash; ``None`` if a bucket is invalid."""
        places: list[Place] = []
        home = (hash40 << 24 >> 32) * self.bucket_count >> 32
        for step in range(min(MAX_CHAIN, self.bucket_count)):
            found = self.bucket((home + step) % self.bucket_count)
            if found is None:
                return None
            places += [place for slot, place in found[0] if slot == hash40]
            if not found[1]:
                break
        return places

    def damaged(self) -> Damaged:
        """In place of whatever records an unreadable part of the run would name."""
        return Damaged((self.row.latest, (self.row.last, 1 << 32)), DELETE, 0)

    def eager(self) -> list[Place] | None:
        """The places of the eager records; ``None`` if the list is invalid."""
        start = HEADER_BYTES + BUCKET_BYTES * self.bucket_count
        end = start + 4 + 8 * self.eager_count + self.tag_bytes
        if self.eager_count == 0:
            return []
        if not self.is_valid(start, end):
            return None
        numbers = struct.unpack_from(f"<{2 * self.eager_count}I", self.data, start + 4)
        return [(numbers[at + 1], numbers[at]) for at in range(0, len(numbers), 2)]

"""A reader of stores, written only from part two of ``docs/file-format.md``.

Like ``independent_reader``, for part one: it shares no code with the package, and every necessary
guess was a gap in the page. Reads every file as a whole, and searches damaged segments byte by
byte: only for small stores.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import independent_reader as part_one
from independent_blake3 import derive_key, keyed_hash, plain_hash
from independent_reader import MAC_CONTEXT, MAGIC, TAG_BYTES, Unreadable, crc32c, siphash_1_3

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
            all(0 < row.number < self.next_number <= 1 << 24 for row in [*self.segments, *self.runs]),
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


@dataclass
class Replayed:
    """The content of a segment (section 17)."""

    records: list[Record] = field(default_factory=list)
    damaged: list[Damaged] = field(default_factory=list)
    floor: int = 0
    end: int = HEADER_BYTES


@dataclass
class _Replay:
    segment: Segment
    is_same_boot: bool
    now: int
    replayed: Replayed = field(default_factory=Replayed)
    since: int = HEADER_BYTES
    """Where the records since the previous digest begin."""
    listed: int = 0
    """How many records there are since."""

    def run(self) -> Replayed:
        segment, replayed = self.segment, self.replayed
        at: int | None = HEADER_BYTES
        while at is not None and at < len(segment.data):
            replayed.end = at
            record = segment.record_at(at)
            if record is None:
                at = self.behind_invalid(at)
                continue
            if record.kind == DIGEST:
                self.since, self.listed = record.end, 0
            else:
                self.listed += 1
                replayed.records.append(record)
            at = record.end
        if at is not None:
            replayed.end = at
        if len(segment.data) < segment.row.end:
            self.lose_rest()  # A segment that is shorter than its end has lost the records behind.
        return replayed

    def behind_invalid(self, at: int) -> int | None:
        """Where reading continues behind the invalid record at an offset, if it does."""
        segment = self.segment
        after = at + self.digest_length()
        following = next(segment.digests_behind(at), None)
        if self.is_damaged_digest(at, after, following):
            self.since, self.listed = after, 0
            return after
        if not self.is_damage(at):
            return None
        if following is None:
            self.lose_rest()
            return None
        index = next((n for n, (offset, _, _) in enumerate(following.rows) if offset == at), None)
        if index is None:
            self.replayed.floor = max(self.replayed.floor, following.written_at)
            first = following.base if following.base > at else following.offset
            self.since, self.listed = first, 0
            return first
        _, kind, hash40 = following.rows[index]
        if kind in (CLEAR, TAG):
            self.replayed.floor = max(self.replayed.floor, following.written_at)
        order = (following.written_at, (segment.row.number, at))
        self.replayed.damaged.append(Damaged(order, kind, hash40))
        self.listed += 1
        return following.rows[index + 1][0] if index + 1 < len(following.rows) else following.offset

    def digest_length(self) -> int:
        value = 16 + 8 * self.listed
        value_length = 1 if value < 1 << 7 else 2 if value < 1 << 14 else 3 if value < 1 << 21 else 4
        return 4 + 1 + 1 + value_length + 8 + 8 + value + self.segment.tag_bytes

    def is_damaged_digest(self, at: int, after: int, following: Digest | None) -> bool:
        segment, row = self.segment, self.segment.row
        if at - self.since >= DIGEST_SPACING:
            is_base = following is not None and following.base == after
            return after == len(segment.data) or is_base or segment.record_at(after) is not None
        is_last = row.is_sealed and after == len(segment.data) == row.end and self.listed > 0
        return is_last and self.has_digest_head(at)

    def has_digest_head(self, at: int) -> bool:
        """Whether flags, lengths and key are those of the digest, but for one byte."""
        value = 16 + 8 * self.listed
        lengths = bytes([8])
        while value >= 0x80:
            lengths, value = lengths + bytes([value & 0x7F | 0x80]), value >> 7
        tag = HAS_TAG if self.segment.mac_key else 0
        head = bytes([DIGEST << 4 | HAS_WRITTEN_AT | tag]) + lengths + bytes([value])
        start = at + 4
        found = self.segment.data[start : start + len(head)]
        found += self.segment.data[start + len(head) + 8 :][:8]
        expected = head + self.segment.file_id[:8]
        return sum(a != b for a, b in zip(found, expected, strict=False)) <= 1 and len(found) == len(expected)

    def is_damage(self, at: int) -> bool:
        """The table of section 17."""
        segment, row = self.segment, self.segment.row
        if row.is_sealed or at < row.end or any(digest.synced > at for digest in segment.digests_behind(at)):
            return True
        if not self.is_same_boot:
            return False
        if next(segment.digests_behind(at), None) or segment.is_record_behind(at):
            return True
        return not (segment.ends_before(at) and len(segment.data) % PAGE == 0)

    def lose_rest(self) -> None:
        row = self.segment.row
        floor = row.latest if row.is_sealed else max(self.now, row.latest)
        self.replayed.floor = max(self.replayed.floor, floor)


class Run(StoreFile):
    """Section 15."""

    def __init__(self, data: bytes, row: RunRow, secret: bytes | None) -> None:
        super().__init__(data, RUN, secret)
        self.row = row
        self.slot_count, self.bucket_count, self.eager_count = struct.unpack_from("<III", data, 768)
        if HEADER_BYTES + BUCKET_BYTES * self.bucket_count > len(data):
            raise Unreadable("damaged", "the run is cut off")

    def bucket(self, number: int) -> tuple[list[tuple[int, Place]], bool] | None:
        """The slots, hash and place, and whether the bucket overflowed; ``None`` if it is invalid."""
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


class Store:
    """An opened store, and its base (section 18)."""

    def __init__(
        self, folder: Path, base: part_one.Snapshot | None, secret: bytes | None, boot_id: bytes, now: int
    ) -> None:
        self.manifest = manifest = Manifest((folder / "manifest").read_bytes(), secret)
        self.base = base
        self.is_base_ours = manifest.base == (base.file_id if base else None)
        times = [now, manifest.written_until, manifest.floor, manifest.dropped_until]
        self.now = max([*times, *([base.written_until, base.saved_at] if base else [])])
        self.floor = manifest.floor
        self.runs: list[Run] = []
        for run_row in manifest.runs:
            run = _open_run(folder, manifest, run_row, secret)
            if run:
                self.runs.append(run)
        self.segments: dict[int, Segment] = {}
        self.tails: list[Replayed] = []
        self.indexed: list[Segment] = []
        for row in manifest.segments:
            segment = _open_segment(folder, manifest, row, secret)
            if segment is None:
                self.floor = max(self.floor, row.latest if row.is_sealed else self.now)
                continue
            self.segments[row.number] = segment
            if any(run.row.first <= row.number <= run.row.last for run in self.runs):
                self.indexed.append(segment)
                if len(segment.data) < row.end:
                    self.floor = max(self.floor, row.latest)
                continue
            is_same_boot = segment.boot_id not in (bytes(16),) and segment.boot_id == boot_id
            tail = _Replay(segment, is_same_boot, self.now).run()
            self.floor = max(self.floor, tail.floor)
            self.tails.append(tail)
        clears = [r.written_at for tail in self.tails for r in tail.records if r.kind in (CLEAR, TAG)]
        self.gone_until = max([self.floor, manifest.cleared_at, *clears])

    def hash(self, key: bytes) -> int:
        return siphash_1_3(self.manifest.hash_seed, key) & MASK40

    def _latest(self, key: bytes) -> Record | Damaged | None:
        """The latest record of a key in the segments, or the damage that hides it."""
        hash40 = self.hash(key)
        found: list[Record] = []
        hiding: list[Damaged] = []
        for tail in self.tails:
            found += [r for r in tail.records if r.kind in WITH_SLOT and r.key == key]
            hiding += [d for d in tail.damaged if d.kind in WITH_SLOT and d.hash40 == hash40]
        for run in self.runs:
            places = run.find(hash40)
            if places is None:
                hiding.append(run.damaged())
            for place in places or []:
                segment = self.segments.get(place[0])
                record = segment.record_at(place[1]) if segment else None
                if segment and record is None:
                    hiding.append(segment.damaged_at(place, DELETE))
                elif record and record.key == key:
                    found.append(record)
        latest = max(found, key=lambda it: it.order, default=None)
        hidden = [damaged for damaged in hiding if latest is None or damaged.hides(latest.order)]
        return hidden[0] if hidden else latest

    def find(self, key: bytes) -> Entry | None:
        """The entry of a key, if there is one."""
        latest = self._latest(key)
        in_base = self._find_in_base(key)
        if isinstance(latest, Damaged):
            return None
        if latest is not None and not (
            in_base and not self.is_base_ours and (in_base.written_at or 0) > latest.written_at
        ):
            return self._as_entry(latest)
        return in_base

    def _as_entry(self, record: Record) -> Entry | None:
        is_entry = record.kind in ENTRIES and record.written_at > self.gone_until and record.may_be_served()
        if not is_entry:
            return None
        return Entry(record.value, record.deadline, record.written_at, record.is_compressed)

    def _of_base(self, record: part_one.Record) -> Entry | None:
        gone_until = max(self.gone_until, self.manifest.dropped_until)
        if gone_until and (record.written_at or 0) <= gone_until:
            return None
        return Entry(record.value, record.deadline, record.written_at, record.is_compressed, self.base)

    def _find_in_base(self, key: bytes) -> Entry | None:
        found = self.base.find(key) if self.base else None
        return self._of_base(found[1]) if found else None

    def _all_records(self) -> Iterator[Record]:
        """The records of all segments, read without runs."""
        for segment in self.segments.values():
            sealed = replace(segment.row, is_sealed=True)
            if segment.row.is_sealed:
                again = Segment.__new__(Segment)
                again.__dict__.update(segment.__dict__)
                again.row = sealed
                yield from _Replay(again, True, self.now).run().records
        for tail in self.tails:
            yield from tail.records

    def entries(self) -> dict[bytes, Entry]:
        """All entries with canonical keys."""
        keys = {record.key for record in self._all_records() if record.kind in ENTRIES - EAGER_KINDS}
        keys |= {record.key for record in self.base.entries().values()} if self.base else set()
        found = ((key, self.find(key)) for key in keys)
        return {key: entry for key, entry in found if entry}

    def eager(self) -> dict[bytes, Entry]:
        """The eager entries; keys with the same bytes are equal."""
        writes: list[tuple[tuple[int, Place], Record | Damaged]] = []
        for tail in self.tails:
            listed: list[Record | Damaged] = [*tail.records, *tail.damaged]
            writes += [(it.order, it) for it in listed if it.kind in EAGER_KINDS]
        for run in self.runs:
            places = run.eager()
            if places is None:
                writes.append((run.damaged().order, run.damaged()))
            for place in places or []:
                segment = self.segments.get(place[0])
                record = segment.record_at(place[1]) if segment else None
                if segment:
                    write = record or segment.damaged_at(place, EAGER_DELETE)
                    writes.append((write.order, write))
        found: dict[bytes, tuple[tuple[int, Place], Entry]] = {}
        for number, record in enumerate(self.base.eager() if self.base else []):
            entry = self._of_base(record)
            if entry:
                order = (0 if self.is_base_ours else entry.written_at or 0, (0, number))
                found[record.key] = (order, entry)
        for order, write in sorted(writes, key=lambda it: it[0]):
            if isinstance(write, Damaged):
                found = {key: it for key, it in found.items() if not write.hides(it[0])}
            elif write.key not in found or found[write.key][0] <= order:
                entry = self._as_entry(write)
                found.pop(write.key, None)
                if entry:
                    found[write.key] = (order, entry)
        return {key: entry for key, (_, entry) in found.items()}


def _open_segment(folder: Path, manifest: Manifest, row: SegmentRow, secret: bytes | None) -> Segment | None:
    try:
        data = (folder / f"s{row.number:06x}").read_bytes()
        segment = Segment(data[: row.end] if row.is_sealed else data, row, secret)
    except (FileNotFoundError, Unreadable):
        return None
    return segment if segment.is_of(manifest, row.number, row.file_id) else None


def _open_run(folder: Path, manifest: Manifest, row: RunRow, secret: bytes | None) -> Run | None:
    try:
        run = Run((folder / f"i{row.number:06x}").read_bytes(), row, secret)
    except (FileNotFoundError, Unreadable):
        return None
    return run if run.is_of(manifest, row.number, row.file_id) else None


def folder_of(path: Path, version: str, secret: bytes | None) -> Path:
    """The folder of a store (section 12), beside a file with a name of at most 233 bytes."""
    label = version.encode()
    secret_id = b""
    if secret is not None:
        secret_id = derive_key(SECRET_ID_CONTEXT, derive_key(MAC_CONTEXT, secret))[:16]
    name = plain_hash(bytes([len(label)]) + label + secret_id)[:8].hex()
    return path.with_name(f"{path.name}.d") / name


def running_boot_id() -> bytes:
    """The boot id of the running system; zeros where there is none."""
    try:
        return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().replace("-", "").strip())
    except OSError:
        return bytes(16)


def read(path: Path, version: str, secret: bytes | None, now: int, boot_id: bytes | None = None) -> Store:
    """Opens the store beside a file, and the file, if its version is that of the store."""
    base = part_one.read(path, secret) if path.exists() else None
    if base is not None and base.version != version:
        base = None
    boot_id = running_boot_id() if boot_id is None else boot_id
    return Store(folder_of(path, version, secret), base, secret, boot_id, now)

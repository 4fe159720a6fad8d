"""A reader of stores, written only from part two of ``docs/file-format.md``.

Like ``independent_reader``, for part one: it shares no code with the package, and every necessary
guess was a gap in the page. Reads every file as a whole, and searches damaged segments byte by
byte: only for small stores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import independent_reader as part_one
from independent_blake3 import derive_key, plain_hash
from independent_reader import MAC_CONTEXT, Unreadable, siphash_1_3
from independent_segments import (
    CLEAR,
    DELETE,
    DIGEST,
    EAGER_DELETE,
    EAGER_KINDS,
    ENTRIES,
    HAS_TAG,
    HAS_WRITTEN_AT,
    HEADER_BYTES,
    TAG,
    WITH_SLOT,
    Damaged,
    Digest,
    Entry,
    Manifest,
    Place,
    Record,
    Run,
    RunRow,
    Segment,
    SegmentRow,
)

SECRET_ID_CONTEXT = "async-cache 2026 store secret id"
MASK40 = (1 << 40) - 1
DIGEST_SPACING = 32 << 10
PAGE = 4096


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
        for number, saved in enumerate(self.base.eager() if self.base else []):
            entry = self._of_base(saved)
            if entry:
                order = (0 if self.is_base_ours else entry.written_at or 0, (0, number))
                found[saved.key] = (order, entry)
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

//! Reading the records of a segment that no run indexes: the end of the segment, and damage (file
//! format, section 17).
//!
//! ```text
//!            valid            invalid            digest behind, which lists it
//! record ----------> record ----------> search ------------------------------> next row
//!                                         |  \
//!                                         |   `-- no digest: the end, or damage up to the end
//!                                         |
//!                                         `-- unlisted: the floor rises; the digest's first row
//! ```
//!
//! Rules:
//! 1. Within a single run of the system, everything that was acknowledged can be read: an invalid
//!    record with anything valid behind it is damage. After a power loss it is the end, unless the
//!    manifest or any digest behind it says that it was durable.
//! 2. A writer puts a digest before a record that would begin [`DIGEST_SPACING`] behind the
//!    previous digest. So the invalid record there is a digest, if what follows it begins where a
//!    digest of the records since would end. At the end of a sealed segment there need not be a
//!    digest: the invalid record there is one if it has a digest's head, but for one byte. A
//!    damaged digest costs nothing while the records since the previous one are sound.
//! 3. Searches, and records that turn out to be invalid, verify at most [`MOST_SEARCHED`] times the
//!    length of the file. After that, nothing more is found.
//! 4. The time of a digest is not earlier than that of any record before it in the segment; that of
//!    another record may be, because a copy has the time of the original. So only a digest bounds
//!    the times of what cannot be read.
//!
//! [`DIGEST_SPACING`]: crate::format::store::digest::DIGEST_SPACING

mod search;
mod window;

use crate::format::checksum::Seal;
use crate::format::store::digest::SegmentDigest;
use crate::format::store::manifest::SegmentRow;
use crate::format::store::record::{RecordKind, SegmentRecord};
use crate::format::store::{Hash40, StorePlace};
use crate::store::segment::{FIRST_RECORD, SegmentFile, SumUp, digest_spacing};
use window::ReplayWindow;

/// Rule 3.
const MOST_SEARCHED: u64 = 8;

/// What a replay finds.
pub(super) trait ReplayVisitor {
    /// A valid record. Digests are not shown.
    fn record(&mut self, place: StorePlace, record: &SegmentRecord, bytes: &[u8]);
    /// A damaged record of which only this is known.
    fn damaged(&mut self, place: StorePlace, kind: RecordKind, hash: Hash40);
    /// Anything else that cannot be read begins here.
    fn unreadable(&mut self, _place: StorePlace, _what: Unreadable) {}
}

/// Damage other than that of a record whose hash is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// A digest. Costs nothing.
    Digest,
    /// A clear: the floor rises.
    Clear,
    /// Records up to this offset: the floor rises.
    Until(u32),
    /// Everything up to the end of the segment: the floor rises.
    Rest,
}

/// The outcome of a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Replayed {
    /// The first offset behind the records that count.
    pub(super) end: u32,
    /// Entries that are not later than this time may have been overwritten or deleted by records
    /// that cannot be read. 0: none.
    pub(super) floor: u64,
    /// How many records, or ranges of records, are damaged.
    pub(super) damaged: u32,
    /// Counts and times of the valid records.
    pub(super) summary: SegmentRow,
}

/// The circumstances of a replay.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReplayOf<'r> {
    /// The segment's row in the manifest.
    pub(super) row: &'r SegmentRow,
    /// The system has not been started again since the segment was created.
    pub(super) is_same_boot: bool,
    /// The time of the opening, for a floor over everything. No time of the store is later.
    pub(super) now: u64,
}

/// Reads a segment from its start. `file_bytes`: the length of the file.
pub(super) fn replay(
    segment: &SegmentFile,
    file_bytes: u64,
    of: ReplayOf<'_>,
    visitor: &mut impl ReplayVisitor,
) -> Replayed {
    let bytes = u32::try_from(file_bytes).unwrap_or(u32::MAX);
    let bytes = if of.row.is_sealed { bytes.min(of.row.end) } else { bytes };
    if !of.row.is_sealed {
        segment.set_end(bytes); // A sealed segment is read by others meanwhile.
    }
    // The latest time stays: records that cannot be read had times, too.
    let summary = SegmentRow { entries: 0, earliest: 0, last_deadline: 0, ..*of.row };
    let replayed = Replayed { end: FIRST_RECORD, floor: 0, damaged: 0, summary };
    let mut walk = Walking {
        segment,
        of,
        bytes,
        buffer: Vec::new(),
        window: ReplayWindow::default(),
        left: u64::from(bytes).saturating_mul(MOST_SEARCHED),
        since: Since { base: FIRST_RECORD, records: 0 },
        next: NextDigest::Unknown,
        durable: None,
        replayed,
    };
    walk.run(visitor);
    if bytes < of.row.end {
        // The file lacks records that were durable once.
        walk.lose_all(bytes, visitor);
    }
    let mut replayed = walk.replayed;
    if !of.row.is_sealed {
        segment.set_end(replayed.end);
    }
    let records = replayed.end.saturating_sub(FIRST_RECORD);
    replayed.summary.dead_bytes = replayed.summary.dead_bytes.min(records);
    replayed
}

/// Reads a sealed segment from its start.
pub(super) fn replay_sealed(
    segment: &SegmentFile,
    row: &SegmentRow,
    visitor: &mut impl ReplayVisitor,
) -> Replayed {
    let bytes = segment.file.bytes().unwrap_or(u64::from(row.end));
    replay(segment, bytes, ReplayOf { row, is_same_boot: true, now: row.latest }, visitor)
}

/// The records since the previous digest.
#[derive(Debug)]
struct Since {
    /// The end of the previous digest.
    base: u32,
    records: u32,
}

/// A valid digest behind an invalid record.
#[derive(Debug)]
struct DigestBehind {
    offset: u32,
    written_at: u64,
    digest: SegmentDigest,
}

/// What is known of the digests behind the place that is being read.
#[derive(Debug)]
enum NextDigest {
    Unknown,
    At(DigestBehind),
    None,
}

struct Walking<'s> {
    segment: &'s SegmentFile,
    of: ReplayOf<'s>,
    /// The length of what is read.
    bytes: u32,
    buffer: Vec<u8>,
    window: ReplayWindow,
    /// Rule 3: bytes that may still be verified in vain.
    left: u64,
    since: Since,
    next: NextDigest,
    /// Rule 1: every byte before was durable. `None`: not searched for yet.
    durable: Option<u32>,
    replayed: Replayed,
}

impl Walking<'_> {
    fn run(&mut self, visitor: &mut impl ReplayVisitor) {
        let mut at = FIRST_RECORD;
        while at < self.bytes {
            self.replayed.end = at;
            let next = self.show(at, visitor).or_else(|| self.after_invalid(at, visitor));
            let Some(next) = next else { return };
            at = next;
        }
        self.replayed.end = at;
    }

    /// Shows the record at an offset; returns the offset behind it, `None` if it is not valid.
    fn show(&mut self, at: u32, visitor: &mut impl ReplayVisitor) -> Option<u32> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let limit = self.limit(at);
        let in_window = self.window.record(self.segment, self.bytes, (at, limit), &mut buffer);
        let record = in_window.or_else(|| self.segment.read_before(at, limit, &mut buffer));
        let next = record.and_then(|record| {
            let next = at.checked_add(u32::try_from(record.total()).ok()?)?;
            if record.kind == RecordKind::Digest {
                self.since = Since { base: next, records: 0 };
            } else {
                self.since.records = self.since.records.saturating_add(1);
                let times = record.times;
                self.replayed.summary.sum(record.kind, times.deadline, times.written_at);
                visitor.record(self.place(at), &record, &buffer);
            }
            Some(next)
        });
        self.buffer = buffer;
        next
    }

    fn place(&self, offset: u32) -> StorePlace {
        StorePlace { segment: self.segment.number, offset }
    }

    /// The offset behind the record at `at`, or a later one: a digest that lists the record says
    /// where the next one begins.
    fn limit(&self, at: u32) -> u32 {
        match &self.next {
            NextDigest::At(behind) if at < behind.offset => behind.row_after(at).unwrap_or(behind.offset),
            _ => self.bytes,
        }
    }

    /// Decides about the invalid record at `at`. Returns where to go on; `None` at the end.
    fn after_invalid(&mut self, at: u32, visitor: &mut impl ReplayVisitor) -> Option<u32> {
        if !self.charge(self.head(at, self.limit(at))) {
            self.lose_all(at, visitor); // Rule 3.
            return None;
        }
        if let Some(next) = self.behind_damaged_digest(at) {
            self.replayed.damaged = self.replayed.damaged.saturating_add(1);
            visitor.unreadable(self.place(at), Unreadable::Digest);
            self.since = Since { base: next, records: 0 };
            return Some(next);
        }
        if !self.is_damage(at) {
            return None;
        }
        self.find_digest(at);
        let NextDigest::At(behind) = &self.next else {
            self.lose_all(at, visitor);
            return None;
        };
        self.replayed.damaged = self.replayed.damaged.saturating_add(1);
        let (base, end) = (behind.digest.base, behind.offset);
        let row = behind.digest.row_at(at).and_then(|index| behind.digest.rows.get(index)).copied();
        let Some(row) = row else {
            // The records before the digest's first are in no list.
            self.replayed.floor = self.replayed.floor.max(behind.written_at);
            let next = if base > at { base } else { end };
            visitor.unreadable(self.place(at), Unreadable::Until(next));
            self.since = Since { base: next, records: 0 };
            return Some(next);
        };
        let next = behind.row_after(at).unwrap_or(end);
        match row.kind() {
            RecordKind::Clear | RecordKind::Tag => {
                self.replayed.floor = self.replayed.floor.max(behind.written_at); // Rule 4.
                visitor.unreadable(self.place(at), Unreadable::Clear);
            }
            kind => visitor.damaged(self.place(at), kind, row.hash()),
        }
        self.since.records = self.since.records.saturating_add(1);
        Some(next)
    }

    /// Rule 2: where the digest at `at` ends, if the invalid record there is a digest.
    fn behind_damaged_digest(&mut self, at: u32) -> Option<u32> {
        let next = at.checked_add(digest_bytes(self.since.records, self.segment.seal)?)?;
        let is_last = next == self.bytes;
        let is_digest = if at.saturating_sub(self.since.base) >= digest_spacing() {
            is_last || self.segment.read(next, &mut Vec::new()).is_some() || self.is_base(at, next)
        } else {
            let row = self.of.row;
            row.is_sealed && is_last && next == row.end && self.since.records > 0 && self.has_digest_head(at)
        };
        is_digest.then_some(next)
    }

    /// Whether the next digest behind `at` lists records from `next` on.
    fn is_base(&mut self, at: u32, next: u32) -> bool {
        self.find_digest(at);
        matches!(&self.next, NextDigest::At(behind) if behind.digest.base == next)
    }

    /// Rule 1.
    fn is_damage(&mut self, at: u32) -> bool {
        if self.of.row.is_sealed || at < self.of.row.end {
            return true; // It was durable.
        }
        if !self.of.is_same_boot {
            return at < self.durable(at);
        }
        self.find_digest(at);
        matches!(self.next, NextDigest::At(_)) || !self.is_torn(at) || self.is_record_behind(at)
    }

    /// The content from here to the end of the segment is unknown.
    fn lose_all(&mut self, at: u32, visitor: &mut impl ReplayVisitor) {
        visitor.unreadable(self.place(at), Unreadable::Rest);
        let Replayed { floor, damaged, summary, .. } = &mut self.replayed;
        // A sealed segment's row knows its latest time.
        let now = if self.of.row.is_sealed { 0 } else { self.of.now };
        *floor = now.max(summary.latest).max(*floor);
        *damaged = damaged.saturating_add(1);
    }
}

impl DigestBehind {
    /// Where the row behind that of the record at `at` begins.
    fn row_after(&self, at: u32) -> Option<u32> {
        let index = self.digest.row_at(at)?.checked_add(1)?;
        self.digest.rows.get(index).map(|row| self.digest.offset_of(*row))
    }
}

/// The length of a digest of this many records.
fn digest_bytes(records: u32, seal: Seal) -> Option<u32> {
    let digest = SegmentDigest::record_bytes(records)?;
    digest.checked_add(u32::try_from(seal.tag_bytes()).ok()?)
}

#[cfg(test)]
mod tests;

//! A segment: the file, from which records are read, and the end to which they are appended.
//!
//! A segment that this process appends to is *sound*, and *broken* after a write that failed.
//!
//! Rules:
//! 1. A record is appended with a single write at the end. The end moves when the whole write has
//!    succeeded, and only then; a reader reads nothing behind the end.
//! 2. A digest goes before a record that would begin [`DIGEST_SPACING`] or more behind the end of
//!    the previous digest, in the same write. The last record of a segment that was not broken when
//!    it was sealed here is a digest.
//! 3. A broken segment takes no further record: the bytes behind its end are unknown. It is cut off
//!    there if possible, because half a record would be damage if the process dies before another
//!    manifest says where the segment ends. It is sealed at its end, and synced all the same, for
//!    what is before its end was acknowledged.
//! 4. After a sync that failed, nothing of the segment is known to be durable, even if a later sync
//!    succeeds: the segment is broken, and `synced` stays.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::format::address::KeyHash;
use crate::format::checksum::{FRONT_BYTES, Seal};
use crate::format::header_page::HEADER_BYTES;
use crate::format::record::RecordForm;
use crate::format::store::digest::{DIGEST_SPACING, DigestRow, SegmentDigest};
use crate::format::store::manifest::SegmentRow;
use crate::format::store::record::{NewRecord, RecordKind, SegmentRecord};
use crate::format::store::{Hash40, StorePlace};
use crate::store::write::EntryPlace;
use crate::vfs::{Patience, ReadFailure, VfsFile, write_all_at};

/// Where the records of a segment begin.
#[allow(clippy::cast_possible_truncation)] // a page
pub(super) const FIRST_RECORD: u32 = HEADER_BYTES as u32;
/// Read at first for a record of unknown length: most records are shorter.
const FIRST_READ: u32 = 1 << 10;

#[cfg(test)]
thread_local! {
    /// So that a short segment has several digests.
    pub(super) static TEST_SPACING: std::cell::Cell<u32> = const { std::cell::Cell::new(DIGEST_SPACING) };
}

/// [`DIGEST_SPACING`], but for tests.
pub(super) fn digest_spacing() -> u32 {
    #[cfg(test)]
    return TEST_SPACING.get();
    #[cfg(not(test))]
    DIGEST_SPACING
}

/// A segment as a reader sees it.
#[derive(Debug)]
pub(super) struct SegmentFile {
    pub(super) file: Box<dyn VfsFile>,
    pub(super) number: u32,
    pub(super) file_id: [u8; 16],
    pub(super) seal: Seal,
    pub(super) form: RecordForm,
    /// Rule 1.
    end: AtomicU32,
    io_errors: AtomicU32,
    /// How many attempts to index the segment have failed.
    failed_attempts: AtomicU32,
    /// A replay of the whole segment has found no eager record, and no damage.
    has_no_eager: AtomicBool,
}

impl SegmentFile {
    pub(super) fn new(
        file: Box<dyn VfsFile>,
        number: u32,
        file_id: [u8; 16],
        seal: Seal,
        form: RecordForm,
        end: u32,
    ) -> Self {
        Self {
            file,
            number,
            file_id,
            seal,
            form,
            end: AtomicU32::new(end),
            io_errors: AtomicU32::new(0),
            failed_attempts: AtomicU32::new(0),
            has_no_eager: AtomicBool::new(false),
        }
    }

    /// The first offset behind the records that count.
    pub(super) fn end(&self) -> u32 {
        self.end.load(Ordering::Acquire)
    }

    /// Sets the end that a replay has found.
    pub(super) fn set_end(&self, end: u32) {
        self.end.store(end, Ordering::Release);
    }

    /// The length of the file; `None` if the system cannot tell.
    pub(super) fn file_bytes(&self) -> Option<u64> {
        let bytes = self.file.bytes();
        if bytes.is_err() {
            self.io_errors.fetch_add(1, Ordering::Relaxed);
        }
        bytes.ok()
    }

    /// Notes that a replay up to the end, which stays, has found no eager record and no damage.
    pub(super) fn set_without_eager(&self) {
        self.has_no_eager.store(true, Ordering::Release);
    }

    /// Whether the segment is known to have no eager record.
    pub(super) fn is_without_eager(&self) -> bool {
        self.has_no_eager.load(Ordering::Acquire)
    }

    /// How often the system has failed to read from the file.
    pub(super) fn io_errors(&self) -> u32 {
        self.io_errors.load(Ordering::Relaxed)
    }

    /// Notes that an attempt to index the segment has failed. Returns how many did before.
    pub(super) fn attempt_failed(&self) -> u32 {
        self.failed_attempts.fetch_add(1, Ordering::Relaxed)
    }

    /// Reads the record at an offset into `into`, and verifies it. `None` if there is no valid
    /// record, and also if it could not be read.
    pub(super) fn read(&self, offset: u32, into: &mut Vec<u8>) -> Option<SegmentRecord> {
        self.read_before(offset, self.end(), into)
    }

    /// [`read`](Self::read), with limited patience: if the read would wait, nothing is known.
    pub(super) fn read_with(
        &self,
        patience: &Patience,
        offset: u32,
        into: &mut Vec<u8>,
    ) -> Option<SegmentRecord> {
        self.read_record(patience, offset, self.end(), into)
    }

    /// [`read`](Self::read), if the record ends before this offset.
    pub(super) fn read_before(&self, offset: u32, end: u32, into: &mut Vec<u8>) -> Option<SegmentRecord> {
        self.read_record(&Patience::unlimited(), offset, end, into)
    }

    fn read_record(
        &self,
        patience: &Patience,
        offset: u32,
        end: u32,
        into: &mut Vec<u8>,
    ) -> Option<SegmentRecord> {
        let left = end.min(self.end()).checked_sub(offset).filter(|left| *left > 0)?;
        self.fill(patience, into, offset, left.min(FIRST_READ))?;
        let record = SegmentRecord::parse(into, self.form)?;
        let total = u32::try_from(record.total()).ok().filter(|total| *total <= left)?;
        if into.len() < record.total() {
            if !patience.allows(record.total()) {
                return None;
            }
            self.fill(patience, into, offset, total)?;
        }
        into.truncate(record.total());
        self.seal.open(u64::from(offset), into)?;
        // The bytes that were parsed may not be those that were verified.
        (SegmentRecord::parse(into, self.form)? == record).then_some(record)
    }

    fn fill(&self, patience: &Patience, into: &mut Vec<u8>, offset: u32, count: u32) -> Option<()> {
        into.resize(usize::try_from(count).ok()?, 0);
        let read = patience.read_exact_at(&*self.file, into, u64::from(offset));
        if let Err(ReadFailure::Io(_)) = read {
            self.io_errors.fetch_add(1, Ordering::Relaxed);
        }
        read.ok()
    }
}

/// Why a record was not appended.
#[derive(Debug)]
pub(super) enum NotAppended {
    /// The segment has no room, or is broken: begin another one.
    NextSegment,
    /// No segment can hold the record.
    TooLarge,
    /// The system's error. The segment is broken.
    Io(io::Error),
}

/// The end of a segment that this process appends to.
#[derive(Debug)]
pub(super) struct SegmentEnd {
    segment: Arc<SegmentFile>,
    /// No record begins at or behind this offset.
    limit: u32,
    /// The end of the previous digest.
    digest_base: u32,
    rows: Vec<DigestRow>,
    /// Every byte before is durable.
    synced: u32,
    is_broken: bool,
    /// Rule 4.
    has_sync_failed: bool,
    summary: SegmentRow,
    /// The records of a write, behind [`FRONT_BYTES`].
    buffer: Vec<u8>,
}

impl SegmentEnd {
    /// The end of a new segment, whose header page is written.
    pub(super) fn new(segment: Arc<SegmentFile>, limit: u32) -> Self {
        let summary = SegmentRow {
            number: segment.number,
            is_sealed: false,
            file_id: segment.file_id,
            end: FIRST_RECORD,
            entries: 0,
            earliest: 0,
            latest: 0,
            last_deadline: 0,
            dead_bytes: 0,
        };
        Self {
            segment,
            limit,
            digest_base: FIRST_RECORD,
            rows: Vec::new(),
            synced: FIRST_RECORD,
            is_broken: false,
            has_sync_failed: false,
            summary,
            buffer: Vec::new(),
        }
    }

    pub(super) fn segment(&self) -> &Arc<SegmentFile> {
        &self.segment
    }

    /// Whether no record was appended.
    pub(super) fn is_empty(&self) -> bool {
        self.segment.end() == FIRST_RECORD
    }

    /// The place of the next record, or a lower place behind all records.
    pub(super) fn place(&self) -> EntryPlace {
        StorePlace { segment: self.segment.number, offset: self.segment.end() }.into()
    }

    /// The row of the segment for a manifest that is written now.
    pub(super) fn row(&self) -> SegmentRow {
        SegmentRow { end: self.synced, ..self.summary }
    }

    /// Whether there are records that are not known to be durable.
    pub(super) fn is_dirty(&self) -> bool {
        self.synced < self.segment.end()
    }

    /// Rule 4.
    pub(super) fn has_sync_failed(&self) -> bool {
        self.has_sync_failed
    }

    #[cfg(test)]
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Appends a record; `hash` is that of its key.
    pub(super) fn append(
        &mut self,
        record: &NewRecord<'_>,
        hash: Option<KeyHash>,
    ) -> Result<StorePlace, NotAppended> {
        let begin = self.segment.end();
        if self.is_broken || begin >= self.limit {
            return Err(NotAppended::NextSegment);
        }
        self.clear_buffer();
        let is_digest_due = begin.saturating_sub(self.digest_base) >= digest_spacing();
        let mut offset = begin;
        if is_digest_due {
            offset = self.put_digest(begin, record.times.written_at)?; // Rule 2.
        }
        let total = record.append(&mut self.buffer, self.segment.seal, offset).ok_or_else(|| {
            if begin == FIRST_RECORD { NotAppended::TooLarge } else { self.too_large(record) }
        })?;
        let end = offset.checked_add(total).ok_or(NotAppended::NextSegment)?;
        self.write(begin, end)?;
        if is_digest_due {
            (self.digest_base, self.rows) = (offset, Vec::new());
        }
        let hash = hash.map(Hash40::of).unwrap_or_default();
        self.rows.extend(DigestRow::new(hash, record.kind, offset.saturating_sub(self.digest_base)));
        self.summary.sum_up(record);
        Ok(StorePlace { segment: self.segment.number, offset })
    }

    /// Whether an empty segment could hold a record that this segment cannot.
    fn too_large(&self, record: &NewRecord<'_>) -> NotAppended {
        let fits = record.measure(self.segment.seal);
        match fits.and_then(|(_, total)| FIRST_RECORD.checked_add(total)) {
            Some(_) => NotAppended::NextSegment,
            None => NotAppended::TooLarge,
        }
    }

    /// Puts the digest that is due at `begin` into the buffer; returns its end. Its time is not
    /// earlier than that of any record before it.
    fn put_digest(&mut self, begin: u32, now: u64) -> Result<u32, NotAppended> {
        let written_at = now.max(self.summary.latest);
        let rows = std::mem::take(&mut self.rows);
        let digest = SegmentDigest { base: self.digest_base, synced: self.synced, rows };
        let SegmentFile { seal, file_id, .. } = &*self.segment;
        let total = digest.append(&mut self.buffer, *seal, file_id, begin, written_at);
        self.rows = digest.rows;
        total.and_then(|total| begin.checked_add(total)).ok_or(NotAppended::NextSegment)
    }

    fn clear_buffer(&mut self) {
        self.buffer.clear();
        self.buffer.extend_from_slice(&[0; FRONT_BYTES]);
    }

    /// Writes the records in the buffer.
    fn write(&mut self, begin: u32, end: u32) -> Result<(), NotAppended> {
        let records = self.buffer.get(FRONT_BYTES..).unwrap_or_default();
        match write_all_at(&*self.segment.file, records, u64::from(begin)) {
            Ok(()) => {
                self.segment.set_end(end); // Rule 1.
                Ok(())
            }
            Err(error) => {
                self.is_broken = true; // Rule 3.
                let _ = self.segment.file.cut(begin.into());
                Err(NotAppended::Io(error))
            }
        }
    }

    /// Makes every record before `until`, an earlier end, durable. Returns the new end of what is
    /// durable. Call [`synced`](Self::synced) with it.
    ///
    /// # Errors
    /// The system's error; then call [`broke`](Self::broke).
    pub(super) fn sync(segment: &SegmentFile) -> io::Result<u32> {
        let until = segment.end();
        segment.file.sync_data().map(|()| until)
    }

    /// Notes the result of [`sync`](Self::sync).
    pub(super) fn synced(&mut self, until: u32) {
        if !self.has_sync_failed {
            self.synced = self.synced.max(until);
        }
    }

    /// Notes that a sync failed (rules 3 and 4).
    pub(super) fn broke(&mut self) {
        (self.is_broken, self.has_sync_failed) = (true, true);
    }

    /// Ends the segment: the last digest, and a sync, unless one failed before (rule 4). Returns
    /// the segment's row, sealed. A broken segment ends where it was sound, without a digest.
    ///
    /// # Errors
    /// The system's error. The segment is broken then; sealing it again ends it at its end.
    pub(super) fn seal(&mut self, written_at: u64) -> io::Result<SegmentRow> {
        let begin = self.segment.end();
        if !self.is_broken && !self.rows.is_empty() {
            self.clear_buffer();
            if let Ok(end) = self.put_digest(begin, written_at) {
                match self.write(begin, end) {
                    Ok(()) => (self.digest_base, self.rows) = (end, Vec::new()),
                    Err(NotAppended::Io(error)) => return Err(error),
                    Err(_) => {}
                }
            }
        }
        // What a broken segment holds before its end was acknowledged, too.
        if !self.has_sync_failed {
            match Self::sync(&self.segment) {
                Ok(until) => self.synced(until),
                Err(error) => {
                    self.broke();
                    return Err(error);
                }
            }
        }
        Ok(SegmentRow { is_sealed: true, end: self.segment.end(), ..self.summary })
    }
}

/// What the row of a segment says of its records.
pub(super) trait SumUp {
    /// Takes a record into account.
    fn sum(&mut self, kind: RecordKind, deadline: Option<u64>, written_at: u64);

    fn sum_up(&mut self, record: &NewRecord<'_>) {
        self.sum(record.kind, record.times.deadline, record.times.written_at);
    }
}

impl SumUp for SegmentRow {
    fn sum(&mut self, kind: RecordKind, deadline: Option<u64>, written_at: u64) {
        self.earliest = if self.earliest == 0 { written_at } else { self.earliest.min(written_at) };
        self.latest = self.latest.max(written_at);
        if kind.is_entry() {
            self.entries = self.entries.saturating_add(1);
            self.last_deadline = self.last_deadline.max(deadline.unwrap_or(u64::MAX));
        }
    }
}

#[cfg(test)]
pub(super) mod tests;

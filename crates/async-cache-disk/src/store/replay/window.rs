//! Reading the records of a segment in order through a buffer: one read for many records.
//!
//! Rule: the window only shows valid records. If it shows none, a read of its own decides what is
//! there, because another process may append to the segment meanwhile, and because one bad block
//! must not make a whole window unreadable.

use crate::format::store::record::{MAX_SEGMENT_HEAD_BYTES, SegmentRecord};
use crate::store::segment::SegmentFile;
use crate::vfs::read_exact_at;

const WINDOW_BYTES: u32 = 1 << 18;

/// A piece of a segment.
#[derive(Debug, Default)]
pub(super) struct ReplayWindow {
    bytes: Vec<u8>,
    /// The offset of the first byte.
    start: u32,
    /// A read has failed: there is no window any more.
    has_failed: bool,
}

impl ReplayWindow {
    /// The record at an offset, if it ends before `limit`; its bytes are copied to `into`. `bytes`:
    /// the length of the segment. `None` also if the window does not hold the record.
    pub(super) fn record(
        &mut self,
        segment: &SegmentFile,
        bytes: u32,
        (at, limit): (u32, u32),
        into: &mut Vec<u8>,
    ) -> Option<SegmentRecord> {
        let left = limit.min(segment.end()).min(bytes).checked_sub(at)?;
        if self.from(at).is_none_or(|held| held.len() < MAX_SEGMENT_HEAD_BYTES) {
            self.fill(segment, bytes, at)?;
        }
        let record = SegmentRecord::parse(self.from(at)?, segment.form)?;
        let total = u32::try_from(record.total()).ok().filter(|total| *total <= left)?;
        if total > WINDOW_BYTES {
            return None;
        }
        if self.from(at)?.len() < record.total() {
            self.fill(segment, bytes, at)?;
        }
        into.clear();
        into.extend_from_slice(self.from(at)?.get(..record.total())?);
        segment.seal.open(u64::from(at), into)?;
        // The window may have been read again since the head was parsed.
        (SegmentRecord::parse(into, segment.form)? == record).then_some(record)
    }

    /// What the window holds from an offset on.
    fn from(&self, at: u32) -> Option<&[u8]> {
        let skipped = usize::try_from(at.checked_sub(self.start)?).ok()?;
        self.bytes.get(skipped..)
    }

    /// Reads a window from `at` on, unless the window begins there.
    fn fill(&mut self, segment: &SegmentFile, bytes: u32, at: u32) -> Option<()> {
        if self.has_failed {
            return None;
        }
        if at == self.start && !self.bytes.is_empty() {
            return Some(());
        }
        let count = usize::try_from(bytes.checked_sub(at)?.min(WINDOW_BYTES)).ok()?;
        self.bytes.resize(count, 0);
        self.start = at;
        if read_exact_at(&*segment.file, &mut self.bytes, u64::from(at)).is_err() {
            self.bytes = Vec::new();
            self.has_failed = true;
            return None;
        }
        Some(())
    }
}

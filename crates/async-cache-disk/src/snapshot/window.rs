//! Reading consecutive records through a large buffer.

use std::ops::Range;

use super::Snapshot;
use crate::format::header::Section;
use crate::format::record::{MAX_HEAD_BYTES, RecordLayout};

const WINDOW_BYTES: usize = 1 << 20;

/// A piece of a section of records in memory.
#[derive(Debug)]
pub(crate) struct Window {
    bytes: Vec<u8>,
    /// The offset in the file of the first of `bytes`.
    start: u64,
}

/// A verified record in a [`Window`], until the window moves on.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) layout: RecordLayout,
    place: Range<usize>,
}

impl Loaded {
    /// The length of the whole record.
    pub(crate) fn total(&self) -> u64 {
        self.place.len() as u64
    }
}

impl Window {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new(), start: 0 }
    }

    /// The bytes of the record loaded last.
    pub(crate) fn get(&self, loaded: &Loaded) -> Option<&[u8]> {
        self.bytes.get(loaded.place.clone())
    }

    /// Loads the record at an offset of a section into memory and verifies it. The buffer never
    /// grows beyond the rest of the section, whatever length the record claims, and beyond some
    /// mebibytes only for a valid record.
    pub(crate) fn load(&mut self, snapshot: &Snapshot, section: Section, offset: u64) -> Option<Loaded> {
        let left = section.left_from(offset)?;
        let start = self.fill(snapshot, offset, left.min(MAX_HEAD_BYTES), left)?;
        let layout = RecordLayout::parse(self.bytes.get(start..)?, snapshot.header().form)?;
        let total = layout.total();
        if total > left || !snapshot.may_be_held(offset, total) {
            return None;
        }
        let start = self.fill(snapshot, offset, total, left)?;
        let place = start..start.checked_add(total)?;
        snapshot.seal().open(offset, self.bytes.get(place.clone())?)?;
        Some(Loaded { layout, place })
    }

    /// Ensures that `needed` bytes from `offset` on are in memory; returns their start in the
    /// buffer. A read covers a whole window of the section's rest (`left`).
    fn fill(&mut self, snapshot: &Snapshot, offset: u64, needed: usize, left: usize) -> Option<usize> {
        let held = offset.checked_sub(self.start).and_then(|start| usize::try_from(start).ok());
        if let Some(start) = held
            && start.checked_add(needed).is_some_and(|end| end <= self.bytes.len())
        {
            return Some(start);
        }
        self.bytes.resize(left.min(needed.max(WINDOW_BYTES)), 0);
        self.start = offset;
        if snapshot.read(&mut self.bytes, offset) {
            return Some(0);
        }
        // The file may have been truncated, or a block may have failed: then read as little as
        // possible.
        self.bytes.truncate(needed);
        if snapshot.read(&mut self.bytes, offset) {
            return Some(0);
        }
        self.bytes.clear();
        None
    }
}

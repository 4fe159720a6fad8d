//! Reading consecutive records through a large buffer: the ground of every walk over records.

use std::ops::Range;

use super::opened::Snapshot;
use super::source::Record;
use crate::compress::Decompressor;
use crate::format::header::Section;
use crate::format::record::{MAX_HEAD_BYTES, RecordLayout};

const WINDOW_BYTES: usize = 1 << 20;

/// Reads records of a snapshot one after another. Owns the snapshot, so that a walk can be kept
/// between calls.
pub(crate) struct Reader {
    pub(super) snapshot: Snapshot,
    pub(super) window: Window,
    pub(super) decompressor: Decompressor,
}

impl Reader {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        Self { snapshot, window: Window::new(), decompressor: Decompressor::default() }
    }

    /// Loads the record at an offset of a section into memory and verifies it. The record stays
    /// there until the next call. Reads about 1 MiB or the record, whichever is larger.
    pub(crate) fn load(&mut self, section: Section, offset: u64) -> Option<Loaded> {
        self.window.load(&self.snapshot, section, offset)
    }

    /// The key of the record loaded last.
    pub(crate) fn key(&self, loaded: &Loaded) -> Option<&[u8]> {
        self.window.get(loaded)?.get(loaded.layout.key.clone())
    }

    /// The record loaded last; `None` if its value does not decompress.
    pub(crate) fn record(&mut self, rank: Option<u32>, loaded: &Loaded) -> Option<Record<'_>> {
        let bytes = self.window.get(loaded)?;
        Record::of(&self.snapshot, rank, &loaded.layout, bytes, &mut self.decompressor)
    }
}

/// A piece of a section of records in memory.
#[derive(Debug)]
pub(super) struct Window {
    bytes: Vec<u8>,
    /// The offset in the file of the first of `bytes`.
    start: u64,
}

/// A verified record in the memory of a [`Reader`], until the next record is loaded.
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
    fn new() -> Self {
        Self { bytes: Vec::new(), start: 0 }
    }

    /// The bytes of the record loaded last.
    pub(super) fn get(&self, loaded: &Loaded) -> Option<&[u8]> {
        self.bytes.get(loaded.place.clone())
    }

    /// Loads the record at an offset of a section into memory and verifies it. The buffer never
    /// grows beyond the rest of the section, whatever length the record claims, and beyond some
    /// mebibytes only for a valid record.
    fn load(&mut self, snapshot: &Snapshot, section: Section, offset: u64) -> Option<Loaded> {
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

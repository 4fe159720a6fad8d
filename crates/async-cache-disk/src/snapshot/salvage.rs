//! Reading the intact entries of a damaged file, more than a cache may serve.
//!
//! Rules:
//! 1. Every returned record verifies, and is an entry: a valid bucket names it, or the file has no
//!    records that are no entries. (In a file with such records, a record whose bucket is damaged
//!    may have been replaced or deleted.)
//! 2. Behind an invalid record, the walk continues at the next record named by the index.
//! 3. An entry named by a valid bucket is never displaced by a record with the same key that no
//!    bucket names.

use std::fmt;

use super::window::{Loaded, Window};
use super::{Record, Scratch, Snapshot};
use crate::compress::Decompressor;

/// Goes through everything that can be recovered from a damaged file, coldest first. Made by
/// [`Snapshot::salvage`].
pub struct Salvage {
    snapshot: Snapshot,
    /// Offset and rank of the records named by valid buckets, by ascending offset.
    named: Vec<(u64, u32)>,
    next_offset: u64,
    window: Window,
    decompressor: Decompressor,
    scratch: Scratch,
}

/// The result of [`Salvage::next_step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SalvageStep<'r> {
    /// An entry. Its rank is the index's rank, or `u32::MAX` if no valid bucket names it.
    Record(Record<'r>),
    /// Bytes without a valid record.
    Lost {
        /// Where they begin in the file.
        offset: u64,
        /// How many they are.
        bytes: u64,
    },
}

impl Snapshot {
    /// Reads the intact entries, including entries that look-ups do not reach because the index is
    /// damaged: for tools that repair files. A cache must not serve these, see
    /// [`find`](Self::find). Memory: 40 bytes an entry.
    pub fn salvage(&self) -> Salvage {
        Salvage {
            named: self.places().iter().map(|place| (place.offset, place.rank)).collect(),
            next_offset: self.header().record_section.offset,
            window: Window::new(),
            decompressor: Decompressor::default(),
            scratch: Scratch::new(),
            snapshot: self.clone(),
        }
    }
}

impl Salvage {
    /// The next entry, or the news of a loss; `None` at the end.
    pub fn next_step(&mut self) -> Option<SalvageStep<'_>> {
        let section = self.snapshot.header().record_section;
        loop {
            let offset = self.next_offset;
            if offset >= section.end() {
                return None;
            }
            let Some(loaded) = self.window.load(&self.snapshot, section, offset) else {
                let next = self.named.partition_point(|(named, _)| *named <= offset);
                self.next_offset = self.named.get(next).map_or(section.end(), |(named, _)| *named);
                return Some(SalvageStep::Lost { offset, bytes: self.next_offset.saturating_sub(offset) });
            };
            self.next_offset = offset.saturating_add(loaded.total());
            if let Some(rank) = self.rank(offset, &loaded) {
                let bytes = loaded.total();
                let record = self.record(rank, &loaded);
                return Some(record.map_or(SalvageStep::Lost { offset, bytes }, SalvageStep::Record));
            }
        }
    }

    /// `None` if the record is no entry, as far as can be known.
    fn rank(&mut self, offset: u64, loaded: &Loaded) -> Option<u32> {
        let key = self.window.get(loaded)?.get(loaded.layout.key.clone())?;
        let by_index = self.snapshot.locate_here(key, &mut self.scratch);
        let first = self.named.partition_point(|(named, _)| *named < offset);
        match self.named.get(first) {
            // A look-up need not reach it: its own bucket is valid, but an earlier bucket of its
            // chain may not be.
            Some((named, rank)) if *named == offset => {
                by_index.is_none_or(|found| found == *rank).then_some(*rank)
            }
            _ => {
                let all_are_entries = self.snapshot.header().records == self.snapshot.header().entries;
                (all_are_entries && by_index.is_none()).then_some(u32::MAX)
            }
        }
    }

    /// `None` if its value does not decompress.
    fn record(&mut self, rank: u32, loaded: &Loaded) -> Option<Record<'_>> {
        let bytes = self.window.get(loaded)?;
        Record::of(&self.snapshot, rank, &loaded.layout, bytes, &mut self.decompressor)
    }
}

impl fmt::Debug for Salvage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Salvage");
        debug
            .field("snapshot", &self.snapshot)
            .field("next_offset", &self.next_offset)
            .finish_non_exhaustive()
    }
}

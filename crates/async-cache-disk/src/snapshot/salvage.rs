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

use super::lookup::Scratch;
use super::opened::Snapshot;
use super::source::{Item, Loss, Source};
use super::window::{Loaded, Reader};

/// Goes through everything that can be recovered from a damaged file, coldest first. Made by
/// [`Snapshot::salvage`].
pub struct Salvage {
    reader: Reader,
    /// Offset and rank of the records named by valid buckets, by ascending offset.
    named: Vec<(u64, u32)>,
    next_offset: u64,
    scratch: Scratch,
}

impl Snapshot {
    /// Reads the intact entries, including entries that look-ups do not reach because the index is
    /// damaged: for tools that repair files. A cache must not serve these, see
    /// [`find`](Self::find). Memory: 40 bytes an entry.
    pub fn salvage(&self) -> Salvage {
        Salvage {
            named: self.places().iter().map(|place| (place.offset, place.rank)).collect(),
            next_offset: self.header().record_section.offset,
            scratch: Scratch::new(),
            reader: Reader::new(self.clone()),
        }
    }
}

impl Source for Salvage {
    /// An entry has the index's rank, or no rank if no valid bucket names it.
    fn next(&mut self) -> Option<Item<'_>> {
        let section = self.reader.snapshot.header().record_section;
        loop {
            let offset = self.next_offset;
            if offset >= section.end() {
                return None;
            }
            let Some(loaded) = self.reader.load(section, offset) else {
                let next = self.named.partition_point(|(named, _)| *named <= offset);
                self.next_offset = self.named.get(next).map_or(section.end(), |(named, _)| *named);
                let bytes = self.next_offset.saturating_sub(offset);
                return Some(Item::Lost(Loss::Bytes { offset, bytes }));
            };
            self.next_offset = offset.saturating_add(loaded.total());
            let rank = self.named_rank(offset);
            if self.is_entry(rank, &loaded) {
                // The value may not decompress.
                let lost = Item::Lost(Loss::Bytes { offset, bytes: loaded.total() });
                return Some(self.reader.record(rank, &loaded).map_or(lost, Item::Entry));
            }
        }
    }
}

impl Salvage {
    /// The rank of the record at an offset, if a valid bucket names it.
    fn named_rank(&self, offset: u64) -> Option<u32> {
        let first = self.named.partition_point(|(named, _)| *named < offset);
        self.named.get(first).filter(|(named, _)| *named == offset).map(|(_, rank)| *rank)
    }

    /// Whether the record loaded last is an entry, as far as can be known (rules 1 and 3).
    fn is_entry(&mut self, rank: Option<u32>, loaded: &Loaded) -> bool {
        let Self { reader, scratch, .. } = self;
        let Some(key) = reader.key(loaded) else { return false };
        let by_index = reader.snapshot.locate_here(key, scratch);
        if let Some(rank) = rank {
            // A look-up need not reach the record: its own bucket is valid, but an earlier bucket
            // of its chain may not be.
            return by_index.is_none_or(|found| found == rank);
        }
        let header = reader.snapshot.header();
        header.records == header.entries && by_index.is_none()
    }
}

impl fmt::Debug for Salvage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Salvage");
        debug
            .field("snapshot", &self.reader.snapshot)
            .field("next_offset", &self.next_offset)
            .finish_non_exhaustive()
    }
}

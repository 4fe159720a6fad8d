//! The positions and sizes of records, without reading them: for tools that inspect files. The
//! index has all of this, and is small compared with the records.

use super::lookup::Scratch;
use super::opened::Snapshot;
use super::source::Record;
use crate::format::page::{BucketEntry, Page};

/// Where the record of an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordPlace {
    /// The entry's place in the order of use; 0 is the coldest.
    pub rank: u32,
    /// The offset of its record in the file.
    pub offset: u64,
    /// The number of bytes to the next record named by the index, or to the end of the records.
    /// This is the size of the record, unless records that were taken back follow it.
    pub bytes: u64,
}

/// How a file's bytes are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layout {
    /// The number of records, including records that were taken back and that no look-up finds.
    pub records: u32,
    /// How many buckets the index has.
    pub buckets: u32,
    /// The size of the records in bytes.
    pub record_bytes: u64,
    /// The size of the index in bytes.
    pub index_bytes: u64,
    /// The size of the pages of deadlines in bytes.
    pub deadline_bytes: u64,
    /// The size of the eager records in bytes.
    pub eager_bytes: u64,
    /// The size of the compression dictionary in bytes.
    pub dictionary_bytes: u64,
    /// The size of the tombstones in bytes.
    pub tombstone_bytes: u64,
}

impl Snapshot {
    /// How the file's bytes are used, by its header.
    pub fn layout(&self) -> Layout {
        let header = self.header();
        Layout {
            records: header.records,
            buckets: header.buckets,
            record_bytes: header.record_section.bytes,
            index_bytes: header.index_section.bytes,
            deadline_bytes: header.deadline_section.bytes,
            eager_bytes: self.eager_bytes(),
            dictionary_bytes: self.dictionary_bytes(),
            tombstone_bytes: header.tombstone_section.map_or(0, |section| section.bytes),
        }
    }

    /// The positions of the records of all entries, by ascending offset, which is also the order of
    /// use. Reads the index and nothing else. Entries in damaged buckets are missing. Memory: 24
    /// bytes an entry.
    pub fn places(&self) -> Vec<RecordPlace> {
        let section = self.header().record_section;
        let mut places = Vec::new(); // Rule 4: grows as slots are seen.
        self.each_bucket(|_, page| {
            for slot in page.into_iter().flat_map(Page::slots) {
                if slot.rank < self.header().entries && section.left_from(slot.offset).is_some() {
                    places.push(RecordPlace { rank: slot.rank, offset: slot.offset, bytes: 0 });
                }
            }
        });
        places.sort_unstable_by_key(|place| (place.offset, place.rank));
        let mut end = section.end();
        for place in places.iter_mut().rev() {
            place.bytes = end.saturating_sub(place.offset);
            end = place.offset;
        }
        places
    }

    /// Reads the entry whose record is at a place of [`places`](Self::places). `None`, and counted
    /// as damage, if the record does not verify.
    pub fn read_place<'s>(&'s self, place: &RecordPlace, scratch: &'s mut Scratch) -> Option<Record<'s>> {
        let slot = BucketEntry { tag: 0, rank: place.rank, offset: place.offset };
        self.read_slot(slot, scratch)
    }
}

//! Options, writes and places: the types of a store's calls.

use crate::error::DiskError;
use crate::format::store::StorePlace;
use crate::merge::Merged;
use crate::writer::SavedFile;

/// Segments that no run indexes have this many bytes at most in all (file format, section 16).
const MOST_TAIL_BYTES: u32 = 16 << 20;

/// The bound of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoreLimit {
    /// The number of entries, in memory and on disk together: an entry that memory evicts is
    /// deleted, and [`evict_coldest`](super::DiskStore::evict_coldest) deletes the entries that are
    /// only on disk. A collection removes garbage, and keeps every entry.
    #[default]
    Live,
    /// The bytes of the store and its base. An entry that memory evicts stays on disk. A collection
    /// keeps the entries that are in memory or were read from disk; the rest goes. (A read soon
    /// after the write does not count, a late read counts for two collections.)
    Bytes(u64),
}

/// The sizes of a store.
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions {
    /// A segment takes no further record from this length on, in bytes; at most 64 MiB. With a
    /// limit in bytes, also at most a 32nd of the limit, or 64 KiB.
    pub segment_bytes: u32,
    /// The bound of the store.
    pub limit: StoreLimit,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { segment_bytes: MOST_TAIL_BYTES / 2, limit: StoreLimit::Live }
    }
}

/// A write to the store.
#[derive(Debug, Clone, Copy)]
pub struct StoreWrite<'w> {
    /// The canonical bytes of the key.
    pub key: &'w [u8],
    /// The value.
    pub value: &'w [u8],
    /// When the entry expires, in nanoseconds since the Unix epoch. `None`: never.
    pub deadline: Option<u64>,
    /// Where the record of the entry stands that the write replaces in memory. `None`: memory has
    /// no entry of the key, or an entry without a record. For the count of cold entries.
    pub replaces: Option<EntryPlace>,
}

/// Where the record of an entry stands in a store. Ascends with the writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryPlace(u64);

impl EntryPlace {
    /// Before every place.
    pub(super) const NONE: Self = Self(0);
    /// No place is greater.
    pub(super) const LAST: Self = Self(u64::MAX);

    /// The place as a number that is not 0.
    pub fn to_number(self) -> u64 {
        self.0
    }

    /// The place of a number from [`to_number`](Self::to_number).
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The entry of a base has the number of no segment.
    pub(super) fn in_base(rank: u32) -> Self {
        Self(u64::from(rank).saturating_add(1))
    }

    /// An eager record of a base, by its number among the eager records, from 0. (Ranks are below
    /// the number of entries, so the two kinds meet in a file of 2³² entries only.)
    pub(super) fn eager_in_base(number: u32) -> Self {
        Self(u64::from(u32::MAX.saturating_sub(number)))
    }

    /// The last place before this one.
    pub(super) fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The first place of a segment.
    pub(super) fn start_of(segment: u32) -> Self {
        Self(u64::from(segment) << 32)
    }

    /// The number of the segment, and the offset there; in the base, 0 and the rank.
    pub(super) fn parts(self) -> (u32, u32) {
        let low = u32::try_from(self.0 & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        match u32::try_from(self.0 >> 32).unwrap_or(u32::MAX) {
            0 => (0, low.saturating_sub(1)),
            segment => (segment, low),
        }
    }
}

impl From<StorePlace> for EntryPlace {
    fn from(place: StorePlace) -> Self {
        Self(u64::from(place.segment) << 32 | u64::from(place.offset))
    }
}

/// A write that is on file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Where the record stands.
    pub place: EntryPlace,
    /// The time of the write: the wall clock, or later, for a later write has a later time.
    pub time: u64,
}

/// An eager write that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EagerWrite {
    /// An entry. It may have expired.
    Entry {
        /// The bytes of the key, for the front that wrote them.
        key: Vec<u8>,
        /// The value.
        value: Vec<u8>,
        /// When the entry expires, in nanoseconds since the Unix epoch. `None`: never.
        deadline: Option<u64>,
        /// When the entry was written. `None`: unknown, for an old entry of the base.
        written_at: Option<u64>,
        /// Where the record stands.
        place: EntryPlace,
    },
    /// A delete of every earlier entry with an equal key.
    Delete {
        /// The bytes of the key.
        key: Vec<u8>,
    },
}

/// The result of a fold.
#[derive(Debug)]
#[non_exhaustive]
pub enum Folded {
    /// The file holds every entry, and the store is removed.
    Whole {
        /// The file. `None`: nothing was written since the file was, and the file stays.
        saved: Option<SavedFile>,
        /// The result of the merge, if the file was written.
        merged: Option<Box<Merged>>,
    },
    /// The entries have more than 64 MiB: the store is closed.
    TooLarge,
    /// The file could not be written, or the store could not be removed, for this reason: the store
    /// is closed. Nothing is lost.
    Closed(DiskError),
}

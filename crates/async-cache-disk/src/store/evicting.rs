//! Evicting the coldest entries of a store without a limit in bytes.
//!
//! Rules:
//! 1. The coldest entry is the cold entry with the lowest place. The walk goes once over all
//!    places: an entry that it has passed was in memory, and memory's evictions are deletes; a copy
//!    of a cold entry has a later place.
//! 2. Segments of this process have cold entries only where copies are: segments without marks are
//!    passed unread.
//! 3. The delete is appended only while the entry is the latest of its key.
//! 4. The delete is of the kind *eviction*, which needs no tombstone of a delete in a fold
//!    (`fold::deletes`).
//! 5. Memory evicts an entry whose place it has. If the slot of the key in the tails has the place,
//!    the entry is the latest of its key, and no record is read. Otherwise the key is looked up:
//!    if the entry is in a run or in the base, if a run is later than the slot, if another program
//!    has replaced the base, or if a part of the tails is damaged.

use std::sync::Arc;

use super::live::LiveCursor;
use super::tails::SlotSeen;
use super::{DiskStore, EntryPlace, StoreAnswer, StoreLimit, StoreScratch, lock, plain, read};
use crate::error::DiskError;
use crate::format::address::KeyHash;
use crate::format::store::record::{RecordKind, RecordTimes};

impl DiskStore {
    /// Deletes the coldest entry that is not in memory. Returns whether there was an entry. Without
    /// effect as long as [`maintain`](Self::maintain) has not counted the entries of the opening,
    /// and in a store with a limit in bytes.
    ///
    /// # Errors
    /// [`Io`](crate::DiskErrorKind::Io) and [`Full`](crate::DiskErrorKind::Full): the entry stays.
    pub fn evict_coldest(&self, now: u64) -> Result<bool, DiskError> {
        self.refuse_fork()?;
        self.settle_counts();
        let mut cursor = lock(&self.evictor);
        {
            let counts = lock(&self.counts);
            if self.options.limit != StoreLimit::Live || !counts.is_counted() || counts.is_none_cold() {
                return Ok(false);
            }
        }
        loop {
            let until = self.pass_unmarked(&mut cursor);
            let Some(record) = cursor.next(self.look_up(), until) else { return Ok(false) };
            let (place, seen) = (record.place, record.seen);
            if !lock(&self.counts).is_cold(place) {
                continue;
            }
            let delete = |written_at| {
                plain(RecordKind::Eviction, &record.key, RecordTimes { deadline: None, written_at })
            };
            let count = |_| lock(&self.counts).evicted(place);
            match self.append_if_still(&seen, now, delete, count) {
                Ok(Some(_)) => return Ok(true),
                Ok(None) => cursor.visit_again(), // Rule 3.
                Err(error) => {
                    cursor.visit_again();
                    return Err(error);
                }
            }
        }
    }

    /// Deletes the entry of a key if it stands at a place: memory has evicted the entry of the key
    /// that was read from there, or written there. Returns whether the entry was deleted; `false`:
    /// the key was written or deleted since.
    ///
    /// # Errors
    /// [`Io`](crate::DiskErrorKind::Io) and [`Full`](crate::DiskErrorKind::Full): the entry stays.
    pub fn delete_at(
        &self,
        key: &[u8],
        place: EntryPlace,
        now: u64,
        scratch: &mut StoreScratch,
    ) -> Result<bool, DiskError> {
        let hash = self.hasher.hash(key);
        loop {
            let seen = match self.seen_in_tails(hash, place) {
                Some(seen) => seen, // Rule 5.
                None => match self.find(key, scratch) {
                    StoreAnswer::Entry(entry) if entry.sighting.place == place => entry.sighting.seen,
                    _ => return Ok(false),
                },
            };
            let delete =
                |written_at| plain(RecordKind::Eviction, key, RecordTimes { deadline: None, written_at });
            if self.append_if_still(&seen, now, delete, |_| ())?.is_some() {
                return Ok(true);
            }
        }
    }

    /// Rule 5: the slot of a key, if it shows that the entry at a place is the latest of the key.
    fn seen_in_tails(&self, hash: KeyHash, place: EntryPlace) -> Option<SlotSeen> {
        let (segment, _) = place.parts();
        let layout = read(&self.layout);
        let is_run_later = layout.runs.first().is_some_and(|placed| placed.first_segment > segment);
        if is_run_later || layout.segment(segment).is_none() || !layout.is_base_ours && layout.base.is_some()
        {
            return None;
        }
        read(&self.tails).seen_at(hash, place)
    }

    /// Rule 2. Returns where the walk ends for now.
    fn pass_unmarked(&self, cursor: &mut LiveCursor) -> EntryPlace {
        let layout = Arc::clone(&read(&self.layout));
        let counts = lock(&self.counts);
        let first = counts.first_own_segment();
        let numbers = layout.segments.iter().map(|segment| segment.number);
        let Some(open) = numbers.clone().next_back().filter(|last| *last >= first) else {
            return EntryPlace::LAST; // No segment is open.
        };
        if cursor.has_passed_base() && cursor.segment() >= first {
            let unread = numbers.filter(|number| (cursor.segment()..open).contains(number));
            if let Some(passed) = unread.take_while(|number| !counts.has_marks(*number)).last() {
                cursor.pass(passed);
            }
        }
        // Copies may still come to the segment that is open.
        if counts.has_marks(open) { EntryPlace::LAST } else { EntryPlace::start_of(open) }
    }
}

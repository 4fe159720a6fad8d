//! Counting cold entries: the reading that `counts` asks for.

use std::sync::Arc;

use super::counts::{Age, QueuedWrite};
use super::live::LiveCursor;
use super::run::InRun;
use super::tails::TailSlot;
use super::{DiskStore, EntryPlace, StoreLayout, StoreLimit, StoreScratch, lock, read};
use crate::error::DiskError;
use crate::format::store::record::RecordKind;
use crate::format::store::{Hash40, StorePlace};
use crate::vfs::Patience;

/// [`DiskStore::cold`] and an opening count at most this many entries themselves.
const COUNTED_IN_PLACE: u64 = 256;
/// A step of `maintain` visits this many entries.
const COUNTED_IN_STEP: u64 = 1 << 14;

impl DiskStore {
    /// Tells the store that a cold entry was read into memory. Call it under the lock of the key's
    /// shard, when [`is_current`](Self::is_current) has confirmed the look-up.
    pub fn promoted(&self, place: EntryPlace) {
        let age = self.age(place);
        lock(&self.counts).promoted(place, age);
    }

    /// The age of a record (rule 6), as a share of the segments that the store has, or may have.
    fn age(&self, place: EntryPlace) -> Age {
        let (number, _) = place.parts();
        let StoreLimit::Bytes(limit) = self.options.limit else { return Age::Old };
        let layout = read(&self.layout);
        let count = layout.segments.len() as u64;
        let earlier = layout.segments.partition_point(|segment| segment.number <= number) as u64;
        let share = limit.checked_div(self.options.segment_bytes.into()).unwrap_or(0);
        if number == 0 { Age::Old } else { Age::of(count.saturating_sub(earlier), count.max(share)) }
    }

    /// Tells a store with a limit in bytes that memory evicted entries that have records. (Without
    /// a limit in bytes, an evicted entry is deleted.)
    pub fn evicted(&self, entries: u64) {
        lock(&self.counts).left_memory(entries);
    }

    /// How many entries are the latest of their keys, and not in memory; expired entries count
    /// until something removes them. With a limit in bytes, an estimate. Else the count is exact
    /// once [`maintain`](Self::maintain) has counted the entries of the opening, and until then at
    /// least as high. Reads the disk for some keys.
    pub fn cold(&self) -> u64 {
        self.settle_counts();
        if lock(&self.counts).rest() <= COUNTED_IN_PLACE {
            let _ = self.count_step(); // Failed: the estimate stays.
        }
        lock(&self.counts).total()
    }

    /// Counts a write that memory had no record for (rule 1). The end is locked.
    pub(super) fn count_write(&self, key: &[u8], place: StorePlace, replaced: Option<TailSlot>) {
        match replaced {
            Some(slot) if slot.is_entry() => {
                let mut counts = lock(&self.counts);
                let counted = counts.counted();
                counts.replaced(slot.place().into(), counted);
            }
            Some(_) => {}
            None => {
                let has_earlier = {
                    let layout = read(&self.layout);
                    !layout.runs.is_empty() || layout.base.is_some()
                };
                if has_earlier && lock(&self.counts).enqueue(key, place) {
                    self.settle_counts();
                }
            }
        }
    }

    /// Settles the queue (rule 1).
    pub(super) fn settle_counts(&self) {
        // Also waits for another thread that has taken the queue.
        let _settling = lock(&self.settling);
        let queue = lock(&self.counts).take_queue();
        let mut scratch = StoreScratch::new();
        for write in &queue {
            let layout = Arc::clone(&read(&self.layout));
            if let Some(place) = self.entry_behind(write, &layout, &mut scratch) {
                lock(&self.counts).replaced(place, write.counted);
            }
        }
    }

    /// The place of the entry that a write has replaced in a run or in the base.
    fn entry_behind(
        &self,
        write: &QueuedWrite,
        layout: &StoreLayout,
        scratch: &mut StoreScratch,
    ) -> Option<EntryPlace> {
        let hash = Hash40::of(self.hasher.hash(&write.key));
        for placed in &layout.runs {
            let InRun::Places(places) = placed.run.find(hash) else { return None };
            for place in places.into_iter().filter(|place| *place < write.place) {
                if layout.segment(place.segment).is_some()
                    && scratch.read(&Patience::unlimited(), layout, place)?(&write.key)
                {
                    return scratch.is_entry_after(layout.cleared_at).then(|| place.into());
                }
            }
        }
        scratch.place_in_base(layout.base.as_ref()?, &write.key, layout)
    }

    /// [`cold`](Self::cold) as far as it is known without reading the disk: at least as high
    /// without a limit in bytes.
    pub fn roughly_cold(&self) -> u64 {
        lock(&self.counts).total()
    }

    /// A step of the walk of rule 2. Returns whether there is more to do.
    ///
    /// # Errors
    /// Those of a write: the count stays an estimate.
    pub(super) fn count_step(&self) -> Result<bool, DiskError> {
        let mut cursor = lock(&self.counter);
        let opened = lock(&self.counts).opened();
        if lock(&self.counts).is_counted() {
            *cursor = LiveCursor::new();
            return Ok(false);
        }
        let mut visited: u64 = 0;
        while visited < COUNTED_IN_STEP {
            let Some(record) = cursor.next(self.look_up(), opened) else {
                lock(&self.counts).end_count();
                return Ok(false);
            };
            visited = visited.saturating_add(1);
            if matches!(record.kind, RecordKind::Entry | RecordKind::EntryWithAttributes) {
                let (place, seen) = (record.place, record.seen);
                // No write comes between the check and the count.
                let _end = self.lock_end()?;
                if read(&self.tails).is_still(&seen) {
                    lock(&self.counts).count(place);
                } else {
                    cursor.visit_again();
                }
            }
        }
        Ok(true)
    }
}

//! Merging runs: neighbouring runs of a level become a run of the next level (file format, section
//! 19).
//!
//! Rules:
//! 1. A look-up ends at the latest record of its key. So the slot of an earlier record goes. A slot
//!    has 40 bits of the hash of its key: the keys of equal slots are read from the records.
//! 2. A damaged record has no key. Its slot stays, and hides earlier records. Of more than
//!    `MOST_DAMAGED` damaged records with one hash, the earliest go: the others hide as much.
//! 3. A slot stays if its record could not be read, because of an error of the system or rule 4.
//! 4. A merge reads at most `MOST_READS` records, and waits for the disk at most `MOST_WAITS`
//!    times: other indexes wait for the merge. A slot that stays is read by the next merge, or goes
//!    with its segment. If a hash has more than `MOST_UNREAD` slots, they are always read: a run
//!    has room for some hundreds of slots with one hash, and the next merge would fail.
//! 5. The slot of a delete stays: a base that another program brings back may have an earlier entry
//!    of the key.
//! 6. A run of a store with a limit in bytes covers at most half of the segments: the slots of
//!    collected segments take room until the whole run goes.
//! 7. Runs pile up while much is written. Then more than the usual number of runs are merged at
//!    once: each slot is written once, and not once for each level. A run counts as of the highest
//!    level among itself and the later runs: else small runs before a large one would never be
//!    merged again.
//! 8. No segment without a run may lie before the last run, as those of a lost run do: the new run
//!    would cover it, or the tails would forget it. It is indexed first.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use super::super::layout::StoreLayout;
use super::super::merged::MergedSlots;
use super::super::run::IndexRun;
use super::super::{DiskStore, StoreLimit, lock, read};
use super::{RunContents, is_sealed_tail};
use crate::error::DiskError;
use crate::format::address::{KeyHash, KeyHasher};
use crate::format::store::Hash40;
use crate::format::store::bucket::{EagerPlaces, RunSlot};
use crate::format::store::manifest::{RunRow, SegmentRow};
use crate::vfs::Patience;

/// This many neighbouring runs of a level become a run of the next level.
const RUNS_OF_LEVEL: usize = 8;
/// Rule 7: as many runs as two levels have.
const MOST_RUNS: usize = RUNS_OF_LEVEL * RUNS_OF_LEVEL;
/// Between so many slots, a merge looks at the tails: some 20 ms.
const SLOTS_OF_PART: u32 = 1 << 16;
/// Between so many slots, a merge flushes.
const SLOTS_OF_FLUSH: u32 = 1 << 20;
/// Rule 2.
const MOST_DAMAGED: u32 = 8;
/// Rule 4.
const MOST_READS: u32 = 1 << 20;
const MOST_WAITS: u32 = 1 << 12;
const MOST_UNREAD: usize = 2 * RUNS_OF_LEVEL;

impl DiskStore {
    /// Merges the first neighbouring runs of one level that are enough for the next level.
    pub(in crate::store) fn merge_runs(&self, now: u64) -> Result<bool, DiskError> {
        let (rows, segments) = {
            let end = lock(&self.end);
            let last = end.manifest.runs.last().map_or(0, |run| run.last_segment);
            let is_hole = |row: &SegmentRow| row.number < last && is_sealed_tail(&end.manifest, row);
            if end.manifest.segments.iter().any(is_hole) {
                return Ok(false); // Rule 8.
            }
            let numbers: Vec<u32> = end.manifest.segments.iter().map(|row| row.number).collect();
            (end.manifest.runs.clone(), numbers)
        };
        let Some((level, rows)) = self.mergeable(&rows, &segments) else { return Ok(false) };
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(false) };
        let row = RunRow {
            number: 0,
            level: level.saturating_add(if rows.len() < MOST_RUNS { 1 } else { 2 }),
            file_id: [0; 16],
            first_segment: first.first_segment,
            last_segment: last.last_segment,
            earliest: rows.iter().map(|row| row.earliest).min().unwrap_or(0),
            latest: rows.iter().map(|row| row.latest).max().unwrap_or(0),
        };
        let layout = Arc::clone(&read(&self.layout));
        let numbers = rows.iter().map(|row| row.number);
        let runs: Vec<Arc<IndexRun>> =
            numbers.filter_map(|number| layout.run(number)).map(Arc::clone).collect();
        let is_known = |slot: &RunSlot| layout.segment(slot.place.segment).is_some();
        let (slots, failed) = (Cell::new(0u32), RefCell::new(None));
        let index_between = |_: &RunSlot| {
            slots.set(slots.get().wrapping_add(1));
            if slots.get().is_multiple_of(SLOTS_OF_PART) && failed.borrow().is_none() {
                let flushes = slots.get().is_multiple_of(SLOTS_OF_FLUSH);
                *failed.borrow_mut() = self.between_parts(flushes, now).err();
            }
        };
        let merged = || MergedSlots::new(&runs).filter(is_known).inspect(index_between);
        let eager: Option<Vec<EagerPlaces>> = runs.iter().map(|run| run.eager()).collect();
        let mut all = MergedSlots::new(&runs);
        let mut keys = KeysOfRecords::new(&layout, &self.hasher);
        let replaced =
            Replaced::among(all.by_ref().filter(is_known).inspect(index_between), |slot, is_due| {
                keys.read(slot, is_due)
            });
        if let (Some(eager), 0) = (eager, all.invalid()) {
            let mut eager = EagerPlaces(eager.into_iter().flat_map(|places| places.0).collect());
            eager.0.retain(|place| layout.segment(place.segment).is_some());
            // Without the slots of a bucket, the bits would be those of other slots.
            let is_whole = || !runs.iter().any(|run| run.has_invalid_bucket());
            let (count, slots) = (replaced.kept, || replaced.rest_of(merged()));
            let contents = RunContents { count, slots, is_whole: &is_whole, eager: &eager, floor: 0 };
            self.install_run(row, contents, now)?;
        } else {
            // A damaged run is built again from its segments.
            let end = lock(&self.end);
            let covered = |segment: &&SegmentRow| row.covers(segment.number);
            let segments: Vec<SegmentRow> = end.manifest.segments.iter().filter(covered).copied().collect();
            drop(end);
            self.install_rebuilt(row, &segments, now)?;
        }
        failed.take().map_or(Ok(true), Err)
    }

    /// Does the work that must not wait for a long merge (rule 5 of `sealing`).
    fn between_parts(&self, flushes: bool, now: u64) -> Result<(), DiskError> {
        if flushes && self.is_dirty() {
            self.flush()?;
        }
        if self.unindexed_bytes() > u64::from(self.options.segment_bytes) {
            self.index_tails(now)?;
        }
        Ok(())
    }

    /// The first neighbouring runs that a merge takes, and their level (rules 6 and 7). `segments`:
    /// the numbers of all segments, ascending.
    fn mergeable<'r>(&self, rows: &'r [RunRow], segments: &[u32]) -> Option<(u32, &'r [RunRow])> {
        let most_covered = match self.options.limit {
            StoreLimit::Live => usize::MAX,
            StoreLimit::Bytes(_) => segments.len() / 2,
        };
        let before = |number: u32| segments.partition_point(|segment| *segment < number);
        let covered = |rows: &[RunRow]| {
            let (first, last) = (rows.first()?, rows.last()?);
            Some(before(last.last_segment.saturating_add(1)).saturating_sub(before(first.first_segment)))
        };
        let highest = rows.iter().rev().scan(0, |highest, row| {
            *highest = row.level.max(*highest);
            Some(*highest)
        });
        let mut levels: Vec<u32> = highest.collect();
        levels.reverse();
        (0..rows.len()).find_map(|start| {
            let level = *levels.get(start)?;
            let most = levels.get(start..)?.iter().take_while(|other| **other == level).count();
            let mut lengths = (RUNS_OF_LEVEL..=most.min(MOST_RUNS)).rev();
            let rows = lengths.find_map(|length| {
                let rows = rows.get(start..start.checked_add(length)?)?;
                (covered(rows) <= Some(most_covered)).then_some(rows)
            })?;
            Some((level, rows))
        })
    }
}

/// The key of a slot's record, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotKey {
    /// The whole hash of the key.
    Known(KeyHash),
    /// The record is damaged.
    Damaged,
    /// The record was not read.
    Unknown,
}

/// The keys of the slots with one hash: one key, nearly always.
#[derive(Debug, Default)]
pub(super) struct KeysOfHash {
    hash: Option<Hash40>,
    keys: Vec<KeyHash>,
    damaged: u32,
}

impl KeysOfHash {
    /// Whether no look-up needs the next slot, in the order of an index (rules 1 to 3).
    pub(super) fn is_replaced(&mut self, hash: Hash40, key: SlotKey) -> bool {
        if self.hash != Some(hash) {
            (self.hash, self.damaged) = (Some(hash), 0);
            self.keys.clear();
        }
        match key {
            SlotKey::Known(key) if self.keys.contains(&key) => return true,
            SlotKey::Known(key) => self.keys.push(key),
            SlotKey::Damaged => self.damaged = self.damaged.saturating_add(1),
            SlotKey::Unknown => {}
        }
        key == SlotKey::Damaged && self.damaged > MOST_DAMAGED
    }
}

/// Which slots of a sequence are replaced: a bit for each.
#[derive(Debug, Default)]
struct Replaced {
    bits: Vec<u64>,
    slots: u32,
    /// How many slots stay.
    kept: u32,
}

impl Replaced {
    /// Judges slots in the order of an index. `key` is asked for keys of slots with one hash, and
    /// told whether rule 4 requires that they are read.
    fn among(slots: impl Iterator<Item = RunSlot>, mut key: impl FnMut(RunSlot, bool) -> SlotKey) -> Self {
        let mut replaced = Self::default();
        let mut group: Vec<RunSlot> = Vec::new();
        for slot in slots {
            if group.first().is_some_and(|first| first.hash != slot.hash) {
                replaced.judge(&group, &mut key);
                group.clear();
            }
            group.push(slot);
        }
        replaced.judge(&group, &mut key);
        replaced
    }

    /// Judges all slots with one hash.
    fn judge(&mut self, group: &[RunSlot], key: &mut impl FnMut(RunSlot, bool) -> SlotKey) {
        let mut keys = KeysOfHash::default();
        for slot in group {
            let is_replaced =
                group.len() > 1 && keys.is_replaced(slot.hash, key(*slot, group.len() > MOST_UNREAD));
            self.push(is_replaced);
        }
    }

    fn push(&mut self, is_replaced: bool) {
        if self.slots.is_multiple_of(u64::BITS) {
            self.bits.push(0);
        }
        if let Some(last) = self.bits.last_mut().filter(|_| is_replaced) {
            *last |= 1 << (self.slots % u64::BITS);
        }
        self.slots = self.slots.saturating_add(1);
        self.kept = self.kept.saturating_add(u32::from(!is_replaced));
    }

    fn is_replaced(&self, number: u32) -> bool {
        let word = usize::try_from(number / u64::BITS).ok().and_then(|index| self.bits.get(index));
        word.is_some_and(|word| word >> (number % u64::BITS) & 1 != 0)
    }

    /// The slots that stay, of the same sequence.
    fn rest_of(&self, slots: impl Iterator<Item = RunSlot>) -> impl Iterator<Item = RunSlot> {
        (0u32..).zip(slots).filter(|(number, _)| !self.is_replaced(*number)).map(|(_, slot)| slot)
    }
}

/// Reads the keys of slots' records (rule 4).
struct KeysOfRecords<'s> {
    layout: &'s StoreLayout,
    hasher: &'s KeyHasher,
    bytes: Vec<u8>,
    reads: u32,
    waits: u32,
}

impl<'s> KeysOfRecords<'s> {
    fn new(layout: &'s StoreLayout, hasher: &'s KeyHasher) -> Self {
        Self { layout, hasher, bytes: Vec::new(), reads: MOST_READS, waits: MOST_WAITS }
    }

    /// The key of a slot's record. `is_due`: it is read in any case.
    fn read(&mut self, slot: RunSlot, is_due: bool) -> SlotKey {
        if is_due {
            return self.read_with(&Patience::unlimited(), slot);
        }
        let Some(reads) = self.reads.checked_sub(1) else { return SlotKey::Unknown };
        self.reads = reads;
        let patience = Patience::none();
        let key = self.read_with(&patience, slot);
        if !patience.would_wait() {
            return key;
        }
        let Some(waits) = self.waits.checked_sub(1) else { return SlotKey::Unknown };
        self.waits = waits;
        self.read_with(&Patience::unlimited(), slot)
    }

    fn read_with(&mut self, patience: &Patience, RunSlot { hash, place }: RunSlot) -> SlotKey {
        let Some(segment) = self.layout.segment(place.segment) else { return SlotKey::Unknown };
        let errors = segment.io_errors();
        let Some(record) = segment.read_with(patience, place.offset, &mut self.bytes) else {
            let is_unread = patience.would_wait() || segment.io_errors() != errors;
            return if is_unread { SlotKey::Unknown } else { SlotKey::Damaged }; // Rule 3.
        };
        let key = self.bytes.get(record.key).map(|key| self.hasher.hash(key));
        key.filter(|key| Hash40::of(*key) == hash).map_or(SlotKey::Unknown, SlotKey::Known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::store::StorePlace;
    use std::collections::HashMap;

    const A: SlotKey = SlotKey::Known(KeyHash(1));
    /// Another key with the same 40 bits.
    const B: SlotKey = SlotKey::Known(KeyHash(1 << 40 | 1));
    const D: SlotKey = SlotKey::Damaged;
    const U: SlotKey = SlotKey::Unknown;

    fn slot(hash: u64, offset: u32) -> RunSlot {
        RunSlot { hash: Hash40::of(KeyHash(hash)), place: StorePlace { segment: 1, offset } }
    }

    /// The numbers of the slots that stay, of the slots with one hash whose keys these are.
    fn kept(keys: &[SlotKey]) -> Vec<usize> {
        let count = u32::try_from(keys.len()).unwrap();
        let slots: Vec<RunSlot> = (0..count).rev().map(|n| slot(1, n)).collect();
        let of_slots: HashMap<u32, SlotKey> =
            slots.iter().map(|slot| slot.place.offset).zip(keys.iter().copied()).collect();
        let replaced = Replaced::among(slots.iter().copied(), |slot, is_due| {
            assert_eq!(is_due, keys.len() > MOST_UNREAD);
            of_slots[&slot.place.offset]
        });
        let rest: Vec<RunSlot> = replaced.rest_of(slots.iter().copied()).collect();
        assert_eq!(replaced.kept as usize, rest.len());
        let number = |slot: &RunSlot| slots.iter().position(|other| other == slot).unwrap();
        rest.iter().map(number).collect()
    }

    #[test]
    fn the_latest_slot_of_a_key_stays() {
        assert_eq!(kept(&[]), [0; 0]);
        assert_eq!(kept(&[A, A]), [0]);
        assert_eq!(kept(&[A; 500]), [0]);
    }

    #[test]
    fn keys_with_the_same_40_bits_stay_each() {
        assert_eq!(kept(&[A, B, A, B, B]), [0, 1]);
        assert_eq!(kept(&[B, B, A]), [0, 2]);
    }

    #[test]
    fn a_damaged_record_hides_and_what_was_not_read_stays() {
        assert_eq!(kept(&[D, A, A, D, A]), [0, 1, 3]);
        assert_eq!(kept(&[A, D, A]), [0, 1]);
        assert_eq!(kept(&[A, U, A, U, B]), [0, 1, 3, 4]);
        assert_eq!(kept(&[D; 600]), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(kept(&[U; 600]).len(), 600);
    }

    #[test]
    fn slots_of_one_hash_are_judged_by_themselves() {
        let slots: Vec<RunSlot> =
            (0..500).map(|n| slot(u64::from(n / 2), 1000_u32.saturating_sub(n))).collect();
        let replaced = Replaced::among(slots.iter().copied(), |_, is_due| if is_due { D } else { A });
        let rest: Vec<RunSlot> = replaced.rest_of(slots.iter().copied()).collect();
        assert_eq!(rest, slots.iter().copied().step_by(2).collect::<Vec<_>>());
        assert_eq!(Replaced::among(slots.iter().copied().step_by(2), |_, _| panic!("read")).kept, 250);
    }
}

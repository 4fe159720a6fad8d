//! The map in memory of the records that no run indexes.
//!
//! Rules:
//! 1. The map holds the latest place of each key, by the whole hash of the key. Two keys with the
//!    same hash share a slot: the later record takes the slot, and the earlier key is a miss. (The
//!    seed is random, so this happens by chance only, at 2⁻⁶⁴ a pair.)
//! 2. The generation changes when records leave the map, and when the store is cleared. So an
//!    unchanged slot of an unchanged generation shows that its key was not written since.
//! 3. A damaged record hides every earlier record with its hash, of which a digest has 40 bits.
//! 4. A clear leaves the slots, because look-ups judge them by the time of the record. Without the
//!    record, the place of the latest clear decides.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::format::address::KeyHash;
use crate::format::store::{Hash40, StorePlace};
use crate::store::write::EntryPlace;

/// The map. 16 bytes an entry, and the load of the table.
#[derive(Debug, Default)]
pub(super) struct Tails {
    latest: HashMap<u64, TailSlot, BuildHasherDefault<IsHash>>,
    damaged: HashMap<Hash40, StorePlace>,
    /// Rule 2.
    generation: u64,
    /// Rule 4: everything before this place was cleared.
    cleared_before: Option<EntryPlace>,
}

/// The latest record of a hash: its place, and whether it is an entry, in the lowest bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TailSlot(u64);

impl TailSlot {
    pub(super) fn new(place: StorePlace, is_entry: bool) -> Self {
        Self(u64::from(place.segment) << 33 | u64::from(place.offset) << 1 | u64::from(is_entry))
    }

    pub(super) fn place(self) -> StorePlace {
        let part = |shift: u32| u32::try_from(self.0 >> shift & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        StorePlace { segment: part(33), offset: part(1) }
    }

    pub(super) fn is_entry(self) -> bool {
        self.0 & 1 != 0
    }
}

/// The slot of a hash at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct SlotSeen {
    hash: u64,
    latest: Option<TailSlot>,
    generation: u64,
}

/// The answer of the map to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InTails {
    /// The latest record with the key's hash. If the record has another key, the key is a miss.
    At(StorePlace),
    /// A damaged record hides the key.
    Hidden,
    /// No record: the runs and the base decide.
    Absent,
}

impl SlotSeen {
    pub(super) fn hash(&self) -> KeyHash {
        KeyHash(self.hash)
    }
}

impl Tails {
    pub(super) fn find(&self, hash: KeyHash) -> InTails {
        let latest = self.latest.get(&hash.0).map(|slot| slot.place());
        if !self.damaged.is_empty()
            && let Some(damaged) = self.damaged.get(&Hash40::of(hash))
            && latest.is_none_or(|latest| latest < *damaged)
        {
            return InTails::Hidden; // Rule 3.
        }
        latest.map_or(InTails::Absent, InTails::At)
    }

    /// [`find`](Self::find), and the slot as it is now.
    pub(super) fn look(&self, hash: KeyHash) -> (InTails, SlotSeen) {
        (self.find(hash), self.seen(hash.0))
    }

    fn seen(&self, hash: u64) -> SlotSeen {
        SlotSeen { hash, latest: self.latest.get(&hash).copied(), generation: self.generation }
    }

    /// Whether a slot is as it was (rule 2).
    pub(super) fn is_still(&self, seen: &SlotSeen) -> bool {
        self.seen(seen.hash) == *seen
    }

    /// The slot of an entry at a place, if the slot alone shows that the entry is the latest record
    /// in the tails (rules 3 and 4). The caller knows that the record has the key.
    pub(super) fn seen_at(&self, hash: KeyHash, place: EntryPlace) -> Option<SlotSeen> {
        let seen = self.seen(hash.0);
        let is_there = seen.latest.is_some_and(|slot| slot.is_entry() && place == slot.place().into());
        (is_there && self.damaged.is_empty() && Some(place) >= self.cleared_before).then_some(seen)
    }

    /// Clears everything before a place (rules 2 and 4).
    pub(super) fn clear_before(&mut self, place: EntryPlace) {
        self.end_generation();
        self.cleared_before = self.cleared_before.max(Some(place));
    }

    /// Rule 2.
    pub(super) fn end_generation(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    /// Records a slot, unless the map has a later place. Returns the replaced slot.
    pub(super) fn insert(&mut self, hash: KeyHash, slot: TailSlot) -> Option<TailSlot> {
        match self.latest.insert(hash.0, slot) {
            Some(later) if later > slot => self.latest.insert(hash.0, later),
            replaced => replaced,
        }
    }

    /// Rule 3.
    pub(super) fn insert_damaged(&mut self, hash: Hash40, place: StorePlace) {
        let latest = self.damaged.entry(hash).or_insert(place);
        *latest = place.max(*latest);
    }

    /// Forgets the records of segments up to this number: a run indexes them now.
    pub(super) fn remove_until(&mut self, segment: u32) {
        self.end_generation();
        self.latest.retain(|_, slot| slot.place().segment > segment);
        self.damaged.retain(|_, place| place.segment > segment);
        self.latest.shrink_to(self.latest.len().saturating_mul(2));
    }

    /// How many hashes have an entry as their latest record.
    pub(super) fn entries(&self) -> u64 {
        self.latest.values().filter(|slot| slot.is_entry()).count() as u64
    }
}

/// The hash of a hash is the hash.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct IsHash(u64);

impl Hasher for IsHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(segment: u32, offset: u32) -> StorePlace {
        StorePlace { segment, offset }
    }

    fn entry(segment: u32, offset: u32) -> TailSlot {
        TailSlot::new(at(segment, offset), true)
    }

    #[test]
    fn a_slot_is_a_place_and_a_kind_in_the_order_of_places() {
        let last = at((1 << 24) - 1, u32::MAX);
        for (place, is_entry) in [(at(1, 4096), true), (at(1, u32::MAX), false), (last, true), (last, false)]
        {
            let slot = TailSlot::new(place, is_entry);
            assert_eq!((slot.place(), slot.is_entry()), (place, is_entry));
        }
        assert!(TailSlot::new(at(1, 9), true) < TailSlot::new(at(1, 10), false));
        assert!(TailSlot::new(at(1, u32::MAX), true) < TailSlot::new(at(2, 0), false));
    }

    #[test]
    fn the_latest_place_counts_in_whatever_order_places_come() {
        let mut tails = Tails::default();
        let hash = KeyHash(7);
        assert_eq!(tails.find(hash), InTails::Absent);
        assert_eq!(tails.insert(hash, entry(2, 4096)), None);
        assert_eq!(tails.insert(hash, entry(1, 9000)), Some(entry(1, 9000)));
        assert_eq!(tails.find(hash), InTails::At(at(2, 4096)));
        assert_eq!(tails.insert(hash, entry(2, 5000)), Some(entry(2, 4096)));
        assert_eq!((tails.find(hash), tails.entries()), (InTails::At(at(2, 5000)), 1));
        tails.remove_until(1);
        assert_eq!(tails.find(hash), InTails::At(at(2, 5000)));
        tails.remove_until(2);
        assert_eq!(tails.find(hash), InTails::Absent);
    }

    #[test]
    fn a_damaged_record_hides_what_is_earlier_and_nothing_later() {
        let mut tails = Tails::default();
        let (hash, other) = (KeyHash(0xFF_0000_0000_0007), KeyHash(0x11_0000_0000_0008));
        tails.insert(hash, entry(1, 4096));
        tails.insert_damaged(Hash40::of(hash), at(1, 5000));
        tails.insert_damaged(Hash40::of(hash), at(1, 4500));
        assert_eq!((tails.find(hash), tails.find(other)), (InTails::Hidden, InTails::Absent));
        // Another key with the same 40 bits is hidden, too.
        assert_eq!(tails.find(KeyHash(hash.0 ^ 1 << 60)), InTails::Hidden);
        tails.insert(hash, entry(1, 6000));
        assert_eq!(tails.find(hash), InTails::At(at(1, 6000)));
        tails.remove_until(1);
        assert_eq!(tails.find(hash), InTails::Absent);
    }
}

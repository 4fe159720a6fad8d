//! The map in memory of the records that no run indexes.
//!
//! Rules:
//! 1. The map holds the latest place of each key, by the whole hash of the key. Two keys with the
//!    same hash share a slot: the later record takes the slot, and the earlier key is a miss. (The
//!    seed is random, so this happens by chance only, at 2⁻⁶⁴ a pair.)
//! 2. The generation changes when records leave the map, and when the store is cleared. So an
//!    unchanged slot of an unchanged generation shows that its key was not written since.
//! 3. A damaged record hides every earlier record with its hash, of which a digest has 40 bits.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::format::address::KeyHash;
use crate::format::store::{Hash40, StorePlace};

/// The map. 16 bytes an entry, and the load of the table.
#[derive(Debug, Default)]
pub(super) struct Tails {
    latest: HashMap<u64, StorePlace, BuildHasherDefault<IsHash>>,
    damaged: HashMap<Hash40, StorePlace>,
    /// Rule 2.
    generation: u64,
}

/// The slot of a hash at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct SlotSeen {
    hash: u64,
    latest: Option<StorePlace>,
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

impl Tails {
    pub(super) fn find(&self, hash: KeyHash) -> InTails {
        let latest = self.latest.get(&hash.0).copied();
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

    /// Rule 2.
    pub(super) fn end_generation(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    /// Records a place, unless the map has a later place. Returns the replaced place.
    pub(super) fn insert(&mut self, hash: KeyHash, place: StorePlace) -> Option<StorePlace> {
        match self.latest.insert(hash.0, place) {
            Some(later) if later > place => self.latest.insert(hash.0, later),
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
        self.latest.retain(|_, place| place.segment > segment);
        self.damaged.retain(|_, place| place.segment > segment);
        self.latest.shrink_to(self.latest.len().saturating_mul(2));
    }

    /// How many keys the map has.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.latest.len()
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

    #[test]
    fn the_latest_place_counts_in_whatever_order_places_come() {
        let mut tails = Tails::default();
        let hash = KeyHash(7);
        assert_eq!(tails.find(hash), InTails::Absent);
        assert_eq!(tails.insert(hash, at(2, 4096)), None);
        assert_eq!(tails.insert(hash, at(1, 9000)), Some(at(1, 9000)));
        assert_eq!(tails.find(hash), InTails::At(at(2, 4096)));
        assert_eq!(tails.insert(hash, at(2, 5000)), Some(at(2, 4096)));
        assert_eq!((tails.find(hash), tails.len()), (InTails::At(at(2, 5000)), 1));
        tails.remove_until(1);
        assert_eq!(tails.find(hash), InTails::At(at(2, 5000)));
        tails.remove_until(2);
        assert_eq!(tails.find(hash), InTails::Absent);
    }

    #[test]
    fn a_damaged_record_hides_what_is_earlier_and_nothing_later() {
        let mut tails = Tails::default();
        let (hash, other) = (KeyHash(0xFF_0000_0000_0007), KeyHash(0x11_0000_0000_0008));
        tails.insert(hash, at(1, 4096));
        tails.insert_damaged(Hash40::of(hash), at(1, 5000));
        tails.insert_damaged(Hash40::of(hash), at(1, 4500));
        assert_eq!((tails.find(hash), tails.find(other)), (InTails::Hidden, InTails::Absent));
        // Another key with the same 40 bits is hidden, too.
        assert_eq!(tails.find(KeyHash(hash.0 ^ 1 << 60)), InTails::Hidden);
        tails.insert(hash, at(1, 6000));
        assert_eq!(tails.find(hash), InTails::At(at(1, 6000)));
        tails.remove_until(1);
        assert_eq!(tails.find(hash), InTails::Absent);
    }
}

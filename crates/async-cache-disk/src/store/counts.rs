//! The number of cold entries: entries that are the latest of their keys, and not in memory.
//!
//! A place is **own** if this process has written the record since it opened the store.
//!
//! | limit | mark of an own place | mark of another place | count |
//! |---|---|---|---|
//! | `Live` | the entry is cold (a copy of a cold entry) | the entry is in memory | exact |
//! | `Bytes` | the lives of the entry: 0 to 2 | the same | an estimate |
//!
//! Rules:
//! 1. A write reads no file. If memory has a record of the key, the write changes nothing. Else the
//!    slot in the tails names the replaced record. If there is no slot, and a run or the base
//!    may have the key, the key is queued, and counted later (*settled*). Nothing that the queue
//!    may refer to leaves the store before the queue is settled.
//! 2. `Live`: the entries of the opening are counted by a walk in the order of places, a record at
//!    a time. A change of an entry that the walk has not reached changes no count: the walk meets
//!    the entry as it is then. Nothing is collected or evicted before the walk has ended.
//! 3. `Live`: whether an entry is cold is decided with its mark, and each change of the count
//!    changes the mark as well. So a change that is reported twice counts once.
//! 4. Entries up to the latest *clear* are not cold.
//! 5. A copy moves the mark. A promotion of the old place, decided before the copy and reported
//!    after it, counts for the new place.
//! 6. `Bytes`: a collection copies an entry as often as the entry has lives: a copy has one life
//!    less. A read from disk gives lives by the age of the record, as a share of the segments:
//!
//!    | the record is in | lives after the read |
//!    |---|---|
//!    | the newest fifth | as before |
//!    | the oldest third | 2 |
//!    | another segment | 1 at least |

use std::collections::HashMap;

use super::marks::Marks;
use super::write::{EntryPlace, StoreLimit};
use crate::format::store::StorePlace;

/// The queue is settled when it has this many keys, or keys of this many bytes.
const MOST_QUEUED: usize = 1 << 12;
const MOST_QUEUED_BYTES: usize = 1 << 20;
/// A record is at least 16 bytes long if it has a key and a value, so no two entries share a mark.
const LIVE_GRANULE: u32 = 16;
/// Lives are two marks.
const USE_GRANULE: u32 = 32;

/// Rule 6: the age of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    Young,
    Middle,
    Old,
}

impl Age {
    /// `later`: how many segments are later than that of the record, of `segments`.
    pub(super) fn of(later: u64, segments: u64) -> Self {
        if later.saturating_mul(5) < segments {
            Self::Young
        } else if later.saturating_mul(3) < segments.saturating_mul(2) {
            Self::Middle
        } else {
            Self::Old
        }
    }
}

/// The count, and its parts.
#[derive(Debug)]
pub(super) struct Counts {
    is_live: bool,
    cold: u64,
    /// The first own place.
    opened: EntryPlace,
    /// Rule 2: the place that the walk has reached; `opened` at its end.
    counted: EntryPlace,
    /// How many entries the walk will still visit, at most.
    rest: u64,
    /// How many entries the opening has found at most, and how many the walk has met.
    found: (u64, u64),
    /// Rule 4: no entry before this place is cold.
    gone_until: EntryPlace,
    /// By segment, 0 for the base: a mark for each granule, or rank. `Bytes`: two marks.
    marks: HashMap<u32, Marks>,
    /// Rule 1.
    queue: Vec<QueuedWrite>,
    queued_bytes: usize,
    /// Rule 5: the copies of the latest collection, by their old places.
    moved: HashMap<EntryPlace, EntryPlace>,
}

/// A write whose key may have an earlier record in a run or in the base.
#[derive(Debug)]
pub(super) struct QueuedWrite {
    pub(super) key: Box<[u8]>,
    pub(super) place: StorePlace,
    /// `Counts::counted` at the time of the write.
    pub(super) counted: EntryPlace,
}

impl Counts {
    /// `entries`: how many entries the opening has found, at most. `opened`: the first segment of
    /// this process.
    pub(super) fn new(limit: StoreLimit, entries: u64, opened: u32) -> Self {
        let is_live = limit == StoreLimit::Live;
        let opened = EntryPlace::start_of(opened);
        Self {
            is_live,
            cold: if is_live { 0 } else { entries },
            opened,
            counted: if is_live { EntryPlace::NONE } else { opened },
            rest: if is_live { entries } else { 0 },
            found: (entries, 0),
            gone_until: EntryPlace::NONE,
            marks: HashMap::new(),
            queue: Vec::new(),
            queued_bytes: 0,
            moved: HashMap::new(),
        }
    }

    /// The walk is not needed: exactly these entries of the base are there.
    pub(super) fn set_counted(&mut self, cold: u64) {
        if self.is_live {
            (self.cold, self.rest, self.counted) = (cold, 0, self.opened);
            self.found = (cold, cold);
        }
    }

    /// Rule 4: the latest clear that the opening has found.
    pub(super) fn set_gone_until(&mut self, place: EntryPlace) {
        self.gone_until = place;
    }

    /// The count, with an estimate of what the walk has not reached.
    pub(super) fn total(&self) -> u64 {
        self.cold.saturating_add(self.rest)
    }

    /// The share of the entries of the opening that count, in 1,024; `None`: not counted yet.
    pub(super) fn live_share(&self) -> Option<u64> {
        let (entries, live) = self.found;
        self.is_counted().then(|| live.saturating_mul(1024).checked_div(entries).unwrap_or(0))
    }

    pub(super) fn is_counted(&self) -> bool {
        self.counted >= self.opened
    }

    pub(super) fn is_none_cold(&self) -> bool {
        self.cold == 0
    }

    pub(super) fn first_own_segment(&self) -> u32 {
        self.opened.parts().0
    }

    /// How many entries the walk will still visit, at most.
    pub(super) fn rest(&self) -> u64 {
        self.rest
    }

    /// Where the walk ends.
    pub(super) fn opened(&self) -> EntryPlace {
        self.opened
    }

    /// Where the walk is.
    pub(super) fn counted(&self) -> EntryPlace {
        self.counted
    }

    /// The walk has met the latest record of a key.
    pub(super) fn count(&mut self, place: EntryPlace) {
        if self.counted < place {
            self.counted = place;
            self.cold = self.cold.saturating_add(u64::from(!self.is_marked(place)));
            self.rest = self.rest.saturating_sub(1);
            self.found.1 = self.found.1.saturating_add(1);
        }
    }

    /// The walk has ended.
    pub(super) fn end_count(&mut self) {
        (self.counted, self.rest) = (self.opened, 0);
    }

    /// `Bytes`: memory has evicted entries that have records.
    pub(super) fn left_memory(&mut self, entries: u64) {
        if !self.is_live {
            self.cold = self.cold.saturating_add(entries);
        }
    }

    /// The queue, to be settled.
    pub(super) fn take_queue(&mut self) -> Vec<QueuedWrite> {
        self.queued_bytes = 0;
        std::mem::take(&mut self.queue)
    }

    /// The segment of a place, and the number of its mark; `Bytes`: of two marks.
    fn number(&self, place: EntryPlace) -> (u32, u32) {
        let (segment, at) = place.parts();
        let granule = match (segment, self.is_live) {
            (0, _) => 1,
            (_, true) => LIVE_GRANULE,
            (_, false) => USE_GRANULE,
        };
        let item = at.checked_div(granule).unwrap_or(0);
        (segment, if self.is_live { item } else { item.saturating_mul(2) })
    }

    fn is_marked(&self, place: EntryPlace) -> bool {
        let (segment, number) = self.number(place);
        self.marks.get(&segment).is_some_and(|marks| marks.contains(number))
    }

    fn mark(&mut self, place: EntryPlace, is_marked: bool) {
        let (segment, number) = self.number(place);
        self.marks.entry(segment).or_default().set(number, is_marked);
    }

    /// Rule 6: how often the entry at a place is copied.
    pub(super) fn lives(&self, place: EntryPlace) -> u8 {
        let (segment, number) = self.number(place);
        let Some(marks) = self.marks.get(&segment).filter(|_| !self.is_live) else { return 0 };
        match [number, number.saturating_add(1)].map(|number| marks.contains(number)) {
            [_, true] => 2,
            [true, false] => 1,
            [false, false] => 0,
        }
    }

    fn set_lives(&mut self, place: EntryPlace, lives: u8) {
        let (segment, number) = self.number(place);
        let marks = self.marks.entry(segment).or_default();
        marks.set(number, lives == 1);
        marks.set(number.saturating_add(1), lives > 1);
    }

    /// Whether a segment has a mark.
    pub(super) fn has_marks(&self, segment: u32) -> bool {
        self.marks.contains_key(&segment)
    }

    /// `Live`: whether memory has the entry whose latest record is at a place (rule 3).
    fn is_in_memory(&self, place: EntryPlace) -> bool {
        self.is_marked(place) != (place >= self.opened)
    }

    /// `Live`: whether the latest record of a key, at a place, counts as cold.
    pub(super) fn is_cold(&self, place: EntryPlace) -> bool {
        self.is_counted_by(self.counted, place) && !self.is_in_memory(place)
    }

    fn is_counted_by(&self, counted: EntryPlace, place: EntryPlace) -> bool {
        place >= self.gone_until && (place <= counted || place >= self.opened)
    }

    /// An entry at a place is not the latest of its key any more, and memory did not have it.
    pub(super) fn replaced(&mut self, place: EntryPlace, counted: EntryPlace) {
        if place < self.gone_until {
            return;
        }
        if !self.is_live || self.is_counted_by(counted, place) && !self.is_in_memory(place) {
            self.cold = self.cold.saturating_sub(1);
        }
    }

    /// `age`: of the record that was read.
    pub(super) fn promoted(&mut self, place: EntryPlace, age: Age) {
        let place = self.moved.get(&place).copied().unwrap_or(place); // Rule 5.
        if self.is_live {
            self.cold = self.cold.saturating_sub(u64::from(self.is_cold(place)));
            self.leave(place);
            return;
        }
        self.cold = self.cold.saturating_sub(1);
        // Rule 6.
        let lives = match age {
            Age::Young => return,
            Age::Middle => self.lives(place).max(1),
            Age::Old => 2,
        };
        self.set_lives(place, lives);
    }

    /// Rule 3: the entry at a place is not cold any more.
    fn leave(&mut self, place: EntryPlace) {
        self.mark(place, place < self.opened);
    }

    /// The cold entry at a place was deleted.
    pub(super) fn evicted(&mut self, place: EntryPlace) {
        if self.is_cold(place) {
            self.cold = self.cold.saturating_sub(1);
            self.leave(place);
        }
    }

    /// `Bytes`: some of these entries, which are not in memory, go with their segment.
    pub(super) fn dropped(&mut self, entries: u64) {
        self.cold = self.cold.saturating_sub(entries);
    }

    /// Everything up to a place is gone.
    pub(super) fn cleared(&mut self, place: EntryPlace) {
        (self.cold, self.rest, self.counted) = (0, 0, self.opened);
        self.gone_until = self.gone_until.max(place);
        (self.queue, self.queued_bytes) = (Vec::new(), 0);
    }

    /// Begins a collection (rule 5).
    pub(super) fn begin_moving(&mut self) {
        self.moved = HashMap::new();
    }

    /// The latest record of a key was copied.
    pub(super) fn copied(&mut self, from: EntryPlace, to: EntryPlace, is_in_memory: bool) {
        if !self.is_live {
            self.set_lives(to, self.lives(from).saturating_sub(1)); // Rule 6.
        } else if self.is_cold(from) {
            if is_in_memory {
                self.evicted(from);
            } else {
                self.mark(to, true);
            }
        }
        self.moved.insert(from, to);
    }

    /// Whether memory may have the entry of a copy.
    pub(super) fn may_be_in_memory(&self, copy: EntryPlace) -> bool {
        !self.is_live || self.is_in_memory(copy)
    }

    /// A segment, or the base as 0, is gone.
    pub(super) fn forget(&mut self, segment: u32) {
        self.marks.remove(&segment);
    }

    /// Rule 1. Returns whether the queue is full.
    pub(super) fn enqueue(&mut self, key: &[u8], place: StorePlace) -> bool {
        let is_full = self.queue.len() >= MOST_QUEUED || self.queued_bytes >= MOST_QUEUED_BYTES;
        if !is_full || self.is_live {
            self.queued_bytes = self.queued_bytes.saturating_add(key.len());
            self.queue.push(QueuedWrite { key: key.into(), place, counted: self.counted });
        }
        is_full && self.is_live
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts() -> Counts {
        Counts::new(StoreLimit::Bytes(1), 0, 1)
    }

    fn place(offset: u32) -> EntryPlace {
        StorePlace { segment: 1, offset }.into()
    }

    #[test]
    fn the_age_of_a_record_is_its_share_of_the_segments() {
        let ages = [0, 2, 3, 7, 9, 10, 14].map(|later| Age::of(later, 15));
        let [young, middle, old] = [Age::Young, Age::Middle, Age::Old];
        assert_eq!(ages, [young, young, middle, middle, middle, old, old]);
        assert_eq!([0, 1, 2].map(|later| Age::of(later, 3)), [young, middle, old]);
        assert_eq!(Age::of(0, 0), old);
    }

    #[test]
    fn a_read_gives_lives_by_the_age_of_the_record_and_a_copy_has_one_less() {
        for (reads, lives) in [
            (&[][..], 0_u8),
            (&[Age::Young], 0),
            (&[Age::Middle], 1),
            (&[Age::Middle, Age::Middle], 1),
            (&[Age::Old], 2),
            (&[Age::Old, Age::Middle, Age::Young], 2),
        ] {
            let mut counts = counts();
            for age in reads {
                counts.promoted(place(4096), *age);
            }
            counts.begin_moving();
            counts.copied(place(4096), place(8000), false);
            counts.copied(place(8000), place(9000), true);
            let found = [4096, 8000, 9000].map(|offset| counts.lives(place(offset)));
            assert_eq!(found, [lives, lives.saturating_sub(1), 0], "{reads:?}");
        }
    }

    #[test]
    fn neighbours_have_lives_of_their_own() {
        let mut counts = counts();
        counts.promoted(place(4096 + 32), Age::Old);
        counts.promoted(place(4096 + 64), Age::Middle);
        counts.promoted(EntryPlace::in_base(1), Age::Old);
        assert_eq!([0, 32, 64, 96].map(|more| counts.lives(place(4096 + more))), [0, 2, 1, 0]);
        assert_eq!([0, 1, 2].map(|rank| counts.lives(EntryPlace::in_base(rank))), [0, 2, 0]);
        counts.forget(1);
        assert_eq!(counts.lives(place(4096 + 32)), 0);
    }
}

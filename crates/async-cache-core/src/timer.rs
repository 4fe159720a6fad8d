//! The timer wheel: finds expired entries without looking at the others.
//!
//! Owns the wheel and the [`Chain::Timer`] links of the slots. A hierarchical timing wheel: level
//! `l` has 64 buckets of 64^l ticks each. An entry waits in the bucket of the highest level on
//! which its deadline differs from the wheel's `elapsed` tick; when the wheel reaches that bucket,
//! the entry moves to a lower level or, on the lowest, expires.
//!
//! Invariants:
//! 1. an entry is in the wheel if and only if it has a deadline, and `bucket` in its slot is its
//!    bucket;
//! 2. `elapsed` only grows, and all buckets before it are empty;
//! 3. a deadline is rounded up to a tick, so an entry is never reclaimed before its deadline;
//! 4. a step moves or expires a single entry, and an entry takes at most [`LEVELS`] steps in its
//!    life. So work can be bounded by steps, and a few steps a write keep up with any rate of
//!    writes.

use crate::slab::{Chain, Link, Linked, List, Slab};
use crate::time::{Deadline, Time};

/// 2^20 ns, about a millisecond.
const TICK_BITS: u32 = 20;
const LEVEL_BITS: u32 = 6;
const BUCKETS: usize = 1 << LEVEL_BITS;
/// 64-bit nanoseconds are 44 bits of ticks.
pub(crate) const LEVELS: usize = (64 - TICK_BITS).div_ceil(LEVEL_BITS) as usize;

/// `bucket` of a slot outside the wheel.
pub(crate) const NO_BUCKET: u16 = u16::MAX;

/// A slot, as needed by the wheel.
pub(crate) trait Timed: Linked {
    fn deadline(&self) -> Deadline;
    fn bucket(&self) -> u16;
    fn set_bucket(&mut self, bucket: u16);
}

#[derive(Debug)]
pub(crate) struct Wheel {
    /// In ticks.
    elapsed: u64,
    /// A bit for each bucket, set if the bucket is not empty.
    occupied: [u64; LEVELS],
    /// In ticks. Invariant 4; `u64::MAX` if no entry waits.
    next: u64,
    /// Made when the first entry with a deadline comes: most caches have all or none.
    buckets: Option<Box<[List; LEVELS * BUCKETS]>>,
}

/// A place in the wheel.
#[derive(Clone, Copy)]
struct WheelPlace {
    level: usize,
    slot: usize,
    /// The tick at which its bucket begins.
    begins: u64,
}

impl WheelPlace {
    #[inline]
    fn bucket(self) -> u16 {
        u16::try_from(self.level * BUCKETS + self.slot).expect("512 buckets")
    }
}

/// The result of a step of the wheel.
pub(crate) enum WheelStep {
    /// This entry has expired. It is out of the wheel.
    Expired(u32),
    /// An entry moved to a lower level.
    Moved,
    /// Nothing is due.
    Idle,
}

impl Wheel {
    pub(crate) const fn new() -> Self {
        Self { elapsed: 0, occupied: [0; LEVELS], next: u64::MAX, buckets: None }
    }

    /// Whether no entry waits. May return `false` for some time after the last entry has left.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.next == u64::MAX
    }

    /// Whether nothing is due. If so, the wheel advances to `now`.
    #[inline]
    pub(crate) fn is_idle(&mut self, now: Time) -> bool {
        let now = now.as_nanos() >> TICK_BITS;
        let is_idle = now < self.next; // Invariant 4
        if is_idle {
            self.elapsed = self.elapsed.max(now);
        }
        is_idle
    }

    /// Inserts a slot with this deadline; a slot without a deadline stays outside.
    #[inline]
    pub(crate) fn insert<T: Timed>(&mut self, slab: &mut Slab<T>, id: u32, deadline: Deadline) {
        if let Some(time) = deadline.time() {
            let place = self.place_of(time);
            self.put(slab, id, place);
        }
    }

    /// Moves a slot to the place of its new deadline, which is in the slot already.
    #[inline]
    pub(crate) fn replace<T: Timed>(&mut self, slab: &mut Slab<T>, id: u32, deadline: Deadline) {
        let place = deadline.time().map(|time| self.place_of(time));
        let old = slab[id].bucket();
        // The order within a bucket does not matter. Invariant 4 holds for a bucket with an entry.
        if old == place.map_or(NO_BUCKET, WheelPlace::bucket) {
            return;
        }
        self.remove(slab, id);
        if let Some(place) = place {
            self.put(slab, id, place);
        }
    }

    /// The place of an entry with a deadline at `time`.
    #[inline]
    fn place_of(&self, time: Time) -> WheelPlace {
        let nanos = time.as_nanos();
        // Invariant 3
        let tick = (nanos >> TICK_BITS) + u64::from(!nanos.is_multiple_of(1 << TICK_BITS));
        let tick = tick.max(self.elapsed);
        let level = level_of(self.elapsed, tick);
        WheelPlace {
            level,
            slot: slot_of(tick, level),
            begins: tick & (u64::MAX << (LEVEL_BITS as usize * level)),
        }
    }

    fn put<T: Timed>(&mut self, slab: &mut Slab<T>, id: u32, place: WheelPlace) {
        let WheelPlace { level, slot, begins } = place;
        let buckets = self.buckets.get_or_insert_with(|| Box::new([List::EMPTY; LEVELS * BUCKETS]));
        let list = &mut buckets[level * BUCKETS + slot];
        let back = list.back();
        let entry = &mut slab[id];
        entry.set_bucket(place.bucket());
        *entry.link_mut(Chain::Timer) = back;
        list.adopt_back(slab, Chain::Timer, id);
        self.occupied[level] |= 1 << slot;
        self.next = self.next.min(begins); // Invariant 4
    }

    /// Removes a slot from any bucket.
    #[inline]
    pub(crate) fn remove<T: Timed>(&mut self, slab: &mut Slab<T>, id: u32) {
        let slot = &mut slab[id];
        let (bucket, link) = (slot.bucket(), slot.link(Chain::Timer));
        slot.set_bucket(NO_BUCKET);
        self.forget(slab, bucket, link);
    }

    /// Removes a slot that has left the slab, given its bucket and its link.
    #[inline]
    pub(crate) fn forget<T: Timed>(&mut self, slab: &mut Slab<T>, bucket: u16, link: Link) {
        if bucket != NO_BUCKET {
            self.unlink(slab, usize::from(bucket), link);
        }
    }

    fn unlink<T: Timed>(&mut self, slab: &mut Slab<T>, bucket: usize, link: Link) {
        let list = &mut self.buckets.as_mut().expect("a slot is in a bucket")[bucket];
        list.bridge(slab, Chain::Timer, link);
        if list.is_empty() {
            self.occupied[bucket / BUCKETS] &= !(1 << (bucket % BUCKETS));
        }
    }

    /// Does a single step towards `now`.
    pub(crate) fn step<T: Timed>(&mut self, slab: &mut Slab<T>, now: Time) -> WheelStep {
        let now_tick = now.as_nanos() >> TICK_BITS;
        let first = self.first_occupied();
        let Some((level, slot, tick)) = first.filter(|&(_, _, tick)| tick <= now_tick) else {
            self.next = first.map_or(u64::MAX, |(_, _, tick)| tick);
            self.elapsed = self.elapsed.max(now_tick);
            return WheelStep::Idle;
        };
        self.elapsed = tick;
        let id = self.buckets.as_ref().expect("a bucket is occupied")[level * BUCKETS + slot].head;
        self.remove(slab, id);
        if level == 0 {
            return WheelStep::Expired(id);
        }
        let deadline = slab[id].deadline();
        self.insert(slab, id, deadline);
        WheelStep::Moved
    }

    /// The bucket to be emptied next: its level, its slot and the tick at which it begins. Of two
    /// buckets that begin together, the bucket on the higher level.
    fn first_occupied(&self) -> Option<(usize, usize, u64)> {
        let first_of_level = |level: usize| {
            let bits = self.occupied[level];
            (bits != 0).then(|| {
                let slot = bits.trailing_zeros() as usize;
                let shift = LEVEL_BITS as usize * level;
                let above = self.elapsed >> (shift + LEVEL_BITS as usize) << (shift + LEVEL_BITS as usize);
                (level, slot, (above | (slot as u64) << shift).max(self.elapsed))
            })
        };
        (0..LEVELS).rev().filter_map(first_of_level).min_by_key(|&(_, _, tick)| tick)
    }

    /// Checks the invariants; returns how many entries wait.
    pub(crate) fn validate<T: Timed>(&self, slab: &Slab<T>) -> usize {
        let Some(buckets) = &self.buckets else { return 0 };
        let mut len = 0;
        for (bucket, list) in buckets.iter().enumerate() {
            let (level, slot) = (bucket / BUCKETS, bucket % BUCKETS);
            assert_eq!(
                list.is_empty(),
                self.occupied[level] & 1 << slot == 0,
                "occupied bit of bucket {bucket}"
            );
            len += list.validate(slab, Chain::Timer);
            for id in list.iter(slab, Chain::Timer) {
                assert_eq!(usize::from(slab[id].bucket()), bucket, "slot {id} names another bucket");
                assert!(slot >= slot_of(self.elapsed, level), "bucket {bucket} lies before {}", self.elapsed);
            }
        }
        let first = self.first_occupied().map_or(u64::MAX, |(_, _, tick)| tick);
        assert!(self.next <= first, "nothing is due before `next`");
        len
    }
}

/// The highest level on which `tick` differs from `elapsed`.
fn level_of(elapsed: u64, tick: u64) -> usize {
    let differing = (elapsed ^ tick) | (BUCKETS as u64 - 1);
    ((u64::BITS - 1 - differing.leading_zeros()) / LEVEL_BITS) as usize
}

fn slot_of(tick: u64, level: usize) -> usize {
    (tick >> (LEVEL_BITS as usize * level)) as usize % BUCKETS
}

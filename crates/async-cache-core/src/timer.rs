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

use crate::slab::{Chain, Linked, List, Slab};
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
    /// Made when the first entry with a deadline comes: most caches have all or none.
    buckets: Option<Box<[List; LEVELS * BUCKETS]>>,
}

/// The result of a step of the wheel.
pub(crate) enum Step {
    /// This entry has expired. It is out of the wheel.
    Expired(u32),
    /// An entry moved to a lower level.
    Moved,
    /// Nothing is due.
    Idle,
}

impl Wheel {
    pub(crate) const fn new() -> Self {
        Self { elapsed: 0, occupied: [0; LEVELS], buckets: None }
    }

    /// Inserts a slot with a deadline; a slot without a deadline stays outside.
    pub(crate) fn insert<T: Timed>(&mut self, slab: &mut Slab<T>, id: u32) {
        let Some(time) = slab[id].deadline().time() else { return };
        let tick =
            (time.as_nanos() >> TICK_BITS) + u64::from(!time.as_nanos().is_multiple_of(1 << TICK_BITS));
        let tick = tick.max(self.elapsed);
        let level = level_of(self.elapsed, tick);
        let slot = slot_of(tick, level);
        let bucket = level * BUCKETS + slot;
        let buckets = self.buckets.get_or_insert_with(|| Box::new([List::EMPTY; LEVELS * BUCKETS]));
        buckets[bucket].push_back(slab, Chain::Timer, id);
        self.occupied[level] |= 1 << slot;
        slab[id].set_bucket(u16::try_from(bucket).expect("512 buckets"));
    }

    /// Removes a slot from any bucket.
    pub(crate) fn remove<T: Timed>(&mut self, slab: &mut Slab<T>, id: u32) {
        let bucket = slab[id].bucket();
        if bucket == NO_BUCKET {
            return;
        }
        let bucket = usize::from(bucket);
        let list = &mut self.buckets.as_mut().expect("a slot is in a bucket")[bucket];
        list.unlink(slab, Chain::Timer, id);
        if list.is_empty() {
            self.occupied[bucket / BUCKETS] &= !(1 << (bucket % BUCKETS));
        }
        slab[id].set_bucket(NO_BUCKET);
    }

    /// Does a single step towards `now`.
    pub(crate) fn step<T: Timed>(&mut self, slab: &mut Slab<T>, now: Time) -> Step {
        let now_tick = now.as_nanos() >> TICK_BITS;
        let Some((level, slot, tick)) = self.first_occupied().filter(|&(_, _, tick)| tick <= now_tick) else {
            self.elapsed = self.elapsed.max(now_tick);
            return Step::Idle;
        };
        self.elapsed = tick;
        let id = self.buckets.as_ref().expect("a bucket is occupied")[level * BUCKETS + slot].head;
        self.remove(slab, id);
        if level == 0 {
            return Step::Expired(id);
        }
        self.insert(slab, id);
        Step::Moved
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

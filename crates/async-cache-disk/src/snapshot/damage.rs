//! Damage: counts of unreadable and invalid units, and the buckets that are permanently dead.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::format::address::{KeyHash, chain};

/// The units that a snapshot could not read or verify since it was opened. The same record counts
/// at every request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// Invalid records named by a bucket: each a miss.
    pub records: u64,
    /// Buckets of the index, each counted once: keys in them are misses from then on.
    pub buckets: u64,
    /// Pages of deadlines: their entries are reclaimed only when they are asked for.
    pub deadline_pages: u64,
    /// Bytes at the end of the eager records, from the first invalid record on: their entries are
    /// lost.
    pub eager_bytes: u64,
    /// Errors reported by the system; each is also counted in another field.
    pub io_errors: u64,
}

/// Grows only.
#[derive(Debug, Default)]
pub(super) struct DamageLog {
    records: AtomicU64,
    deadline_pages: AtomicU64,
    eager_bytes: AtomicU64,
    io_errors: AtomicU64,
    /// Set after the first bucket went into `dead_buckets`, so that look-ups in intact files take
    /// no lock.
    any_dead: AtomicBool,
    dead_buckets: Mutex<Ranges>,
}

/// A set of numbers as ranges that do not touch, so that a hole in the file takes no memory,
/// however long it is.
#[derive(Debug, Default)]
struct Ranges {
    /// From the first number of each range to its end.
    ends: BTreeMap<u32, u32>,
    /// How many numbers there are in all.
    count: u64,
}

impl Ranges {
    fn contains(&self, number: u32) -> bool {
        self.ends.range(..=number).next_back().is_some_and(|(_, end)| number < *end)
    }

    /// Adds a range, joined with the ranges that it overlaps or touches.
    fn insert(&mut self, added: Range<u32>) {
        let Range { mut start, mut end } = added;
        if start >= end {
            return;
        }
        // From the last range that begins at or before the end: ranges that do not reach the start
        // are too early.
        while let Some((&other_start, &other_end)) = self.ends.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            self.ends.remove(&other_start);
            self.count = self.count.saturating_sub(u64::from(other_end.saturating_sub(other_start)));
            (start, end) = (start.min(other_start), end.max(other_end));
        }
        self.ends.insert(start, end);
        self.count = self.count.saturating_add(u64::from(end.saturating_sub(start)));
    }
}

impl DamageLog {
    pub(super) fn count_record(&self) {
        self.records.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_deadline_pages(&self, count: u64) {
        self.deadline_pages.fetch_add(count, Ordering::Relaxed);
    }

    /// Declares the last `bytes` of the eager section dead for the life of the snapshot.
    pub(super) fn record_dead_eager_bytes(&self, bytes: u64) {
        self.eager_bytes.fetch_max(bytes, Ordering::Relaxed);
    }

    /// How many bytes at the end of the eager section are dead.
    pub(super) fn dead_eager_bytes(&self) -> u64 {
        self.eager_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn count_io_error(&self) {
        self.io_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Declares buckets dead for the life of the snapshot.
    pub(super) fn record_dead_buckets(&self, buckets: Range<u32>) {
        self.dead().insert(buckets);
        self.any_dead.store(true, Ordering::Release);
    }

    /// Whether any bucket is dead.
    pub(super) fn any_dead(&self) -> bool {
        self.any_dead.load(Ordering::Acquire)
    }

    pub(super) fn is_dead(&self, bucket: u32) -> bool {
        self.any_dead() && self.dead().contains(bucket)
    }

    /// How many buckets are dead.
    pub(super) fn dead_count(&self) -> u64 {
        if self.any_dead() { self.dead().count } else { 0 }
    }

    /// Whether a key may have been in a dead bucket, of so many buckets in all.
    pub(super) fn may_have_held(&self, hash: KeyHash, buckets: u32) -> bool {
        chain(hash.home(buckets), buckets).any(|bucket| self.is_dead(bucket))
    }

    pub(super) fn so_far(&self) -> Damage {
        Damage {
            records: self.records.load(Ordering::Relaxed),
            buckets: self.dead().count,
            deadline_pages: self.deadline_pages.load(Ordering::Relaxed),
            eager_bytes: self.dead_eager_bytes(),
            io_errors: self.io_errors.load(Ordering::Relaxed),
        }
    }

    fn dead(&self) -> MutexGuard<'_, Ranges> {
        // Nothing under the lock panics.
        self.dead_buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_a_set_of_numbers_holds() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let (mut ranges, mut set) = (Ranges::default(), std::collections::BTreeSet::new());
            for _ in 0..30 {
                let start = random.u32(0..60);
                let end = start + random.u32(0..6);
                ranges.insert(start..end);
                set.extend(start..end);
                assert!((0..70).all(|number| ranges.contains(number) == set.contains(&number)));
                assert_eq!(ranges.count, set.len() as u64);
                let ends: Vec<(u32, u32)> = ranges.ends.iter().map(|(start, end)| (*start, *end)).collect();
                assert!(ends.windows(2).all(|pair| pair[0].1 < pair[1].0), "they do not touch: {ends:?}");
            }
        }
        let mut ranges = Ranges::default();
        ranges.insert(0..u32::MAX);
        ranges.insert(5..6);
        assert_eq!((ranges.ends.len(), ranges.count), (1, u64::from(u32::MAX)));
    }
}

//! What could not be read or did not verify: counts, and the buckets that are dead for good.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a snapshot could not read or verify since it was opened. The same record counts each time it is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// Records that a bucket named and that were not valid: each a miss.
    pub records: u64,
    /// Buckets of the index, each counted once: keys in them are misses from then on.
    pub buckets: u64,
    /// Pages of deadlines: their entries are reclaimed only when they are asked for.
    pub deadline_pages: u64,
    /// Bytes at the end of the eager records, from the first that was not valid on: their entries are lost.
    pub eager_bytes: u64,
    /// Errors that the system reported; each is also counted as one of the above.
    pub io_errors: u64,
}

/// Grows only.
#[derive(Debug, Default)]
pub(super) struct DamageLog {
    records: AtomicU64,
    deadline_pages: AtomicU64,
    eager_bytes: AtomicU64,
    io_errors: AtomicU64,
    /// Set after the first bucket went into `dead_buckets`, so that look-ups in sound files take no lock.
    any_dead: AtomicBool,
    dead_buckets: Mutex<BTreeSet<u32>>,
}

impl DamageLog {
    pub(super) fn record(&self) {
        self.records.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn deadline_page(&self) {
        self.deadline_pages.fetch_add(1, Ordering::Relaxed);
    }

    /// Declares the last `bytes` of the eager section dead for the life of the snapshot.
    pub(super) fn bury_eager(&self, bytes: u64) {
        self.eager_bytes.fetch_max(bytes, Ordering::Relaxed);
    }

    /// How many bytes at the end of the eager section are dead.
    pub(super) fn dead_eager_bytes(&self) -> u64 {
        self.eager_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn io_error(&self) {
        self.io_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Declares a bucket dead for the life of the snapshot.
    pub(super) fn bury(&self, bucket: u32) {
        self.dead().insert(bucket);
        self.any_dead.store(true, Ordering::Release);
    }

    /// Whether any bucket is dead.
    pub(super) fn any_dead(&self) -> bool {
        self.any_dead.load(Ordering::Acquire)
    }

    pub(super) fn is_dead(&self, bucket: u32) -> bool {
        self.any_dead() && self.dead().contains(&bucket)
    }

    pub(super) fn so_far(&self) -> Damage {
        Damage {
            records: self.records.load(Ordering::Relaxed),
            buckets: self.dead().len() as u64,
            deadline_pages: self.deadline_pages.load(Ordering::Relaxed),
            eager_bytes: self.dead_eager_bytes(),
            io_errors: self.io_errors.load(Ordering::Relaxed),
        }
    }

    fn dead(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        // The set is sound after any panic of a holder: insert and contains are all that happens under the lock.
        self.dead_buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Counts of a cache that belong to no shard: cold entries that left, and saves.

use std::sync::atomic::{AtomicU64, Ordering};

use async_cache_core::stats::Stats;

/// Counts of one cache that belong to no shard.
#[derive(Debug, Default)]
pub(crate) struct TierCounts {
    /// Cold entries that were damaged, or did not decode.
    pub(crate) undecodable: AtomicU64,
    /// Cold entries whose time has passed.
    pub(crate) expirations: AtomicU64,
    pub(crate) saves: AtomicU64,
    pub(crate) save_errors: AtomicU64,
    /// Cold entries that made room.
    pub(crate) evictions: AtomicU64,
    pub(crate) write_errors: AtomicU64,
    pub(crate) unjournaled: AtomicU64,
    /// Entries of other processes that saves dropped.
    pub(crate) dropped: AtomicU64,
}

impl TierCounts {
    /// Adds the counts to those of the shards.
    pub(crate) fn add_to(&self, stats: &mut Stats) {
        stats.undecodable += self.undecodable.load(Ordering::Relaxed);
        stats.expirations += self.expirations.load(Ordering::Relaxed);
        stats.saves += self.saves.load(Ordering::Relaxed);
        stats.save_errors += self.save_errors.load(Ordering::Relaxed);
        stats.evictions += self.evictions.load(Ordering::Relaxed);
        stats.write_errors += self.write_errors.load(Ordering::Relaxed);
        stats.unjournaled += self.unjournaled.load(Ordering::Relaxed);
        stats.dropped += self.dropped.load(Ordering::Relaxed);
    }

    /// Sets all counts to zero.
    pub(crate) fn reset(&self) {
        let all = [
            &self.undecodable,
            &self.expirations,
            &self.saves,
            &self.save_errors,
            &self.evictions,
            &self.write_errors,
            &self.unjournaled,
            &self.dropped,
        ];
        for count in all {
            count.store(0, Ordering::Relaxed);
        }
    }
}

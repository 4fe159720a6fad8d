//! The counters of a cache.
//!
//! Owns the counters of a shard and their sum. A hit under a shared borrow is not counted here: an
//! atomic addition would be a third of its cost, so the front counts hits where counting costs
//! less. Misses run under a shared borrow, too, and can afford an atomic; all other counters are
//! raised under an exclusive borrow.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

macro_rules! stats {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty,)+) => {
        /// Counters since the cache was made or last cleared, and its size now.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats { $($(#[doc = $doc])+ pub $name: $type,)+ }

        impl std::ops::AddAssign<&Stats> for Stats {
            fn add_assign(&mut self, other: &Stats) { $(self.$name += other.$name;)+ }
        }
    };
}

stats! {
    /// Calls that were served from memory or from the file.
    hits: u64,
    /// Calls that were not served.
    misses: u64,
    /// Entries now, cold ones included.
    size: usize,
    /// The part of `size` that is in the file and not in memory.
    cold: usize,
    /// The part of `hits` that was served from the file rather than from memory.
    cold_hits: u64,
    /// The part of `misses` that was served by the tier beyond one host, and brought into memory.
    remote_hits: u64,
    /// Started loads: calls of a loader, for one key each. While the tier beyond one host is asked,
    /// the load counts.
    loads: u64,
    /// The part of `loads` that ended in an error, a panic or without an answer.
    load_errors: u64,
    /// The total time of all loads.
    load_time: Duration,
    /// The part of `misses` that joined a running load.
    joined: u64,
    /// Calls of a batch loader.
    batches: u64,
    /// The total number of keys in these calls.
    batched_keys: u64,
    /// Flights whose result was not stored, because the key was set, deleted or cleared during the
    /// load.
    fenced: u64,
    /// Entries that made room for others.
    evictions: u64,
    /// Entries that were reclaimed after their deadline.
    expirations: u64,
    /// Entries of the snapshot that could not be served: damaged in the file, or no longer of the
    /// value's type.
    undecodable: u64,
    /// Successful saves to the backup.
    saves: u64,
    /// Failed saves to the backup. After a failed save, the previous save is intact.
    save_errors: u64,
    /// Writes that did not reach the journal, such as on a full disk. Memory has them.
    write_errors: u64,
    /// Entries that are in memory only, because their keys or values cannot be written to the
    /// journal.
    unjournaled: u64,
    /// Entries saved to the backup by other processes and dropped from it by saves: there was no
    /// room for them within `maxsize`, or this process may have deleted them.
    dropped: u64,
}

impl Stats {
    /// The share of calls that were hits, from 0.0 to 1.0; 0.0 if there were no calls.
    #[allow(clippy::cast_precision_loss)] // a ratio of counts; 2^53 calls are enough
    pub fn hit_rate(&self) -> f64 {
        match self.hits + self.misses {
            0 => 0.0,
            asked => self.hits as f64 / asked as f64,
        }
    }
}

/// The counters of a shard.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) misses: AtomicU64,
    /// The rest; `misses` and the sizes inside are unused.
    pub(crate) rest: Stats,
}

impl Counters {
    pub(crate) fn miss(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sum(&self, size: usize) -> Stats {
        let mut stats = self.rest.clone();
        stats.misses = self.misses.load(Ordering::Relaxed);
        stats.size = size;
        stats
    }
}

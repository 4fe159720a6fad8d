//! The orders of the tier beyond one host to memory and the file, and the entries that are served
//! while the tier is away.
//!
//! The task that carries the connection gives the orders (`remote::driver`), with nothing locked.
//! The only user code here is destructors of entries that leave memory, and `Clone` and `Eq` for a
//! suspect entry.

use std::hash::Hash;

use async_cache_core::shard::FlightFate;
use async_cache_tier::names::NameIndex;
use async_cache_tier::suspects::{self, Suspects};
use async_cache_tier::writes::CounterFate;

use crate::inner::Inner;
use crate::remote::Cached;

impl<K, V> Cached for Inner<K, V>
where
    K: Hash + Eq + Send + Sync,
    V: Clone + Send + Sync,
{
    fn forget_hash(&self, hash: u64, fences: bool) {
        let fate = if fences { FlightFate::Fenced } else { FlightFate::Kept };
        if let Some(host) = self.file_host() {
            let forgotten = suspects::forget_hash(&host, self.number(hash), hash, fate);
            forgotten.unwrap_or_else(|error| tracing::warn!("a key could not be removed: {error}"));
            return;
        }
        let now = self.now();
        let removed = self.shard(hash).write().shard.forget_hash(hash, fate, now);
        drop(removed);
    }

    fn suspect_all(&self, fences: bool) {
        let memory = self.memory();
        suspects::suspect_all(&memory);
        if fences {
            for shard in self.shards() {
                shard.write().shard.fence_all();
            }
        }
    }

    fn forget_all(&self) {
        self.empty(CounterFate::Kept);
    }

    fn compact(&self, names: &NameIndex) {
        let memory = self.memory();
        let is_there = |hash| self.shard(hash).read().shard.has_hash(hash);
        suspects::compact_names(&memory, names, is_there);
    }
}

impl<K: Hash + Eq, V: Clone> Inner<K, V> {
    /// Serves a suspect entry, from memory or from the file, if suspect entries are served now.
    pub(crate) fn suspect(&self, hash: u64, key: &K) -> Option<V> {
        if self.suspects() == Suspects::Withheld {
            return None;
        }
        let under = {
            let tiered = self.shard(hash).read();
            let slot = tiered.shard.find(hash, |known| known == key);
            let has_passed = |deadline| self.clock.has_passed(deadline);
            if let Some(value) = slot.and_then(|slot| tiered.shard.live_or_suspect(slot, has_passed)) {
                return Some(value.clone());
            }
            tiered.under()
        };
        self.cold(hash, key, under).ok()
    }
}

//! The entries in memory, for a save: listed shard by shard, cloned a slice at a time.
//!
//! Rule: `Clone` is the user's code, so a panic in `Clone` is an error of this entry only, like a
//! panic in `Serialize`.

use std::hash::Hash;
use std::sync::Arc;

use async_cache_core::cold::Frozen;
use async_cache_core::listing::Ticket;
use async_cache_core::time::{Deadline, Stamp};

use crate::backup::codec::or_panicked;
use crate::backup::opened::Opened;
use crate::error::BackendError;
use crate::inner::{Inner, Shard};
use crate::sync::RwLock;

/// The most entries whose values are taken under a single lock.
const SLICE: usize = 64;

/// Shards take turns at least this often, so that the last entries of a save are the most worth
/// keeping of all shards.
const FEWEST_ROUNDS: usize = 64;

/// The hot entries of all shards, to be taken in slices.
pub(crate) struct HotEntries {
    /// For each shard, coldest first.
    shards: Vec<Vec<Ticket>>,
    rounds: usize,
    round: usize,
    shard: usize,
}

/// An entry in its state at the time of a save.
pub(crate) struct Taken<K, V> {
    pub(crate) key: Result<K, BackendError>,
    pub(crate) value: Result<V, BackendError>,
    pub(crate) deadline: Deadline,
    pub(crate) stamp: Stamp,
}

/// Runs the user's `Clone`.
fn cloned<T>(clone: impl FnOnce() -> T) -> Result<T, BackendError> {
    or_panicked("Clone", || Ok::<_, BackendError>(clone()))
}

impl<K: Hash + Eq + 'static, V: Clone + 'static> Inner<K, V> {
    /// Lists the hot entries of all shards, and removes those that were cold in `cold` from it; see
    /// rule 2 of `save`.
    pub(crate) fn hot_entries(&self, cold: &mut Option<(Frozen, Arc<Opened<K, V>>)>) -> HotEntries {
        let mut list = |shard: &RwLock<Shard<K, V>>| {
            let shard = shard.read();
            let tickets = shard.cache.coldest_first();
            if let Some((frozen, opened)) = cold {
                if shard.opened.as_ref().is_some_and(|current| Arc::ptr_eq(current, opened)) {
                    let entries = tickets.iter().filter_map(|&ticket| shard.cache.store().redeem(ticket));
                    entries.filter_map(|entry| entry.meta.origin).for_each(|rank| frozen.remove(rank));
                } else {
                    *cold = None;
                }
            }
            tickets
        };
        let shards: Vec<Vec<Ticket>> = self.shards().iter().map(|shard| list(shard)).collect();
        let longest = shards.iter().map(Vec::len).max().unwrap_or(0);
        let rounds = longest.div_ceil(SLICE).max(longest.min(FEWEST_ROUNDS));
        HotEntries { rounds, shards, round: 0, shard: 0 }
    }
}

impl HotEntries {
    /// Clones all keys that can be cloned, a slice at a time, each with the time of its entry's
    /// writing.
    pub(crate) fn keys<K: Hash + Eq, V: Clone>(
        &self,
        inner: &Inner<K, V>,
        clone_key: fn(&K) -> K,
    ) -> impl Iterator<Item = (K, Stamp)> {
        let slices = self.shards.iter().zip(inner.shards());
        let slices =
            slices.flat_map(|(tickets, shard)| tickets.chunks(SLICE).map(move |slice| (slice, shard)));
        slices.flat_map(move |(slice, shard)| {
            let shard = shard.read();
            let store = shard.cache.store();
            let entries = slice.iter().filter_map(|&ticket| store.redeem(ticket));
            let keys =
                entries.filter_map(|entry| Some((cloned(|| clone_key(entry.key)).ok()?, entry.meta.stamp)));
            keys.collect::<Vec<_>>()
        })
    }

    /// Clones the next few entries; none if they have all left. `None` at the end.
    pub(crate) fn next_slice<K: Hash + Eq, V: Clone>(
        &mut self,
        inner: &Inner<K, V>,
        clone_key: fn(&K) -> K,
    ) -> Option<Vec<Taken<K, V>>> {
        if self.round == self.rounds {
            return None;
        }
        let tickets = &self.shards[self.shard];
        let part = |round: usize| tickets.len() * round / self.rounds;
        let slice = &tickets[part(self.round)..part(self.round + 1)];
        let taken = if slice.is_empty() {
            Vec::new()
        } else {
            let shard = inner.shards()[self.shard].read();
            let store = shard.cache.store();
            let taken = slice.iter().filter_map(|&ticket| {
                let entry = store.redeem(ticket)?;
                let (key, value) = (cloned(|| clone_key(entry.key)), cloned(|| entry.value.clone()));
                Some(Taken { key, value, deadline: entry.meta.deadline, stamp: entry.meta.stamp })
            });
            taken.collect()
        };
        self.shard += 1;
        if self.shard == self.shards.len() {
            (self.shard, self.round) = (0, self.round + 1);
        }
        Some(taken)
    }
}

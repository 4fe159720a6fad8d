//! The opened snapshot of a shard: opening and closing it, and making cold entries hot.

use std::sync::Arc;

use super::{OwedWhen, Shard, Trust};
use crate::address::Address;
use crate::cold::{ColdSet, Rank};
use crate::entry::NewEntry;
use crate::listing::Ticket;
use crate::removed::Removed;
use crate::time::Now;

impl<K, V, T> Shard<K, V, T> {
    /// The cold entries, if a snapshot is open.
    pub fn cold(&self) -> Option<&Arc<ColdSet>> {
        self.cold.as_ref()
    }

    /// Opens a snapshot, whose cold set all shards of the cache share. `ranks` has entries in
    /// memory, each with the rank of its key in the new snapshot: these ranks leave the set, since
    /// the entries in memory stay.
    ///
    /// Returns the entries in memory that `ranks` lacks, because they were written after it was
    /// made. Until the front has looked up their keys too and made those ranks leave the set
    /// ([`ColdSet::take`]), it must serve nothing from the snapshot. Loads go on; when one returns,
    /// the snapshot is asked for its key again. A cache of several shards locks all of them, then
    /// opens the snapshot under each.
    #[must_use = "these keys have to be looked up before the snapshot serves anything"]
    pub fn open(&mut self, cold: Arc<ColdSet>, ranks: &[(Ticket, Option<Rank>)]) -> Vec<Ticket> {
        let unknown = self.store.set_origins(ranks);
        for &rank in ranks.iter().filter_map(|(_, rank)| rank.as_ref()) {
            cold.take(rank); // Rule 3
        }
        self.cold = Some(cold);
        self.epoch = self.epoch.next();
        self.reported = 0;
        self.report();
        while self.is_overfull() && self.cold.as_ref().is_some_and(|cold| cold.take_coldest().is_some()) {}
        unknown
    }

    /// Whether there are more hot and cold entries than `maxsize` allows. Rule 4.
    fn is_overfull(&self) -> bool {
        let max = self.config.maxsize.unwrap_or(usize::MAX);
        self.cold.as_ref().is_some_and(|cold| cold.live() + cold.hot() > max)
    }

    /// Closes the snapshot, once none of its entries is cold. The shard shrinks to its own part of
    /// `maxsize`.
    pub fn close_snapshot(&mut self) -> Removed<K, V> {
        self.cold = None;
        self.reported = 0;
        let mut removed = Removed::default();
        while self.config.share.is_some_and(|share| self.store.len() > share)
            && self.store.evict(&mut removed)
        {
            self.counters.rest.evictions += 1;
        }
        removed
    }

    /// Whether the entry of this rank is cold.
    pub fn is_cold(&self, rank: Rank) -> bool {
        self.cold.as_ref().is_some_and(|cold| cold.contains(rank))
    }

    /// Makes the cold entry at an address hot, and counts a hit.
    ///
    /// # Errors
    /// The entry is returned if it has left the cold set meanwhile: the key is hot now, or was
    /// deleted, evicted or cleared.
    pub fn promote(
        &mut self,
        at: Address,
        new: NewEntry<K, V>,
        trust: Trust,
        now: Now,
    ) -> Result<Removed<K, V>, NewEntry<K, V>> {
        self.check(&at.found);
        if at.slot().is_some() || !at.rank.is_some_and(|rank| self.take_cold(rank)) {
            return Err(new);
        }
        Ok(self.make_hot(at, new, trust, now))
    }

    /// Brings an entry of the file into memory, and counts a hit.
    pub(super) fn make_hot(
        &mut self,
        at: Address,
        new: NewEntry<K, V>,
        trust: Trust,
        now: Now,
    ) -> Removed<K, V> {
        let mut removed = Removed::default();
        self.counters.rest.hits += 1;
        self.counters.rest.cold_hits += 1;
        let slot = self.put(at, new, OwedWhen::Never, now, &mut removed);
        if let (Some(slot), Trust::Suspect) = (slot, trust) {
            self.store.suspect(slot);
        }
        removed
    }

    pub(super) fn take_cold(&self, rank: Rank) -> bool {
        self.cold.as_ref().is_some_and(|cold| cold.take(rank))
    }

    /// Reports the present number of hot entries to the cold set, if there is a cold set.
    pub(super) fn report(&mut self) {
        if let Some(cold) = &self.cold {
            cold.report_hot(self.reported, self.store.len());
            self.reported = self.store.len();
        }
    }
}

//! How keys are found in a shard; see [`crate::address`].

use super::Shard;
use crate::address::{Address, Candidate, CandidatePlace, FoundKey, Search};
use crate::flight::FlightId;
use crate::probe::{Epoch, Probed, Stale};
use crate::store::SlotId;

impl<K, V, T> Shard<K, V, T> {
    /// Finds a key in memory; [`Store::find`](crate::store::Store::find).
    #[inline]
    pub fn find(&self, hash: u64, eq: impl FnMut(&K) -> bool) -> Option<SlotId> {
        self.store.find(hash, eq)
    }

    /// Finds a key in memory and among the running loads.
    #[inline]
    pub fn locate(&self, hash: u64, mut eq: impl FnMut(&K) -> bool) -> FoundKey {
        let slot = self.store.find(hash, &mut eq);
        let flight = self.flights.find(hash, eq);
        self.found(hash, slot, flight)
    }

    /// Finds where a key may be written, if the snapshot's answer for the key still counts.
    ///
    /// # Errors
    /// [`Stale`] if another snapshot was opened since.
    #[inline]
    pub fn address(&self, hash: u64, probed: Probed, eq: impl FnMut(&K) -> bool) -> Result<Address, Stale> {
        self.is_current(probed)?;
        self.admit(self.locate(hash, eq), probed)
    }

    /// [`Shard::address`] of a key that was found before.
    ///
    /// # Errors
    /// [`Stale`] if another snapshot was opened since the probe.
    #[inline]
    pub fn admit(&self, found: FoundKey, probed: Probed) -> Result<Address, Stale> {
        self.is_current(probed)?;
        // The ranks of a closed snapshot have no meaning any more.
        let rank = if self.cold.is_some() { probed.rank() } else { None };
        Ok(Address { found, rank })
    }

    /// The address at which a flight may land, with the snapshot's answer from the beginning of the
    /// load.
    ///
    /// # Errors
    /// [`Stale`] if another snapshot was opened since, and the flight would store its value.
    pub fn address_of_flight(&self, flight: FlightId, hash: u64) -> Result<Address, Stale>
    where
        K: Eq,
    {
        match self.flights.stores(flight) {
            Some((key, probed)) => {
                let slot = self.store.find(hash, |known| known == key);
                self.admit(self.found(hash, slot, Some(flight)), probed)
            }
            // The flight stores nothing, at no address.
            None => Ok(Address { found: self.found(hash, None, None), rank: None }),
        }
    }

    /// The epoch of the open snapshot. Read it under the same lock as the snapshot.
    #[inline]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether the snapshot's answer for a key still counts.
    #[inline]
    fn is_current(&self, probed: Probed) -> Result<(), Stale> {
        if self.cold.is_none() || probed.is_of(self.epoch) { Ok(()) } else { Err(Stale) }
    }

    /// Begins a search for a key whose comparison may fail or use the cache. `eq` runs no user
    /// code, and may miss the key.
    pub fn search(&self, hash: u64, mut eq: impl FnMut(&K) -> bool) -> Search {
        Search {
            hash,
            slot: self.store.find(hash, &mut eq),
            flight: self.flights.find(hash, eq),
            version: self.version(),
            compared: [0; 2],
            last: None,
        }
    }

    /// Goes on with a search.
    pub fn next_candidate(&self, search: &mut Search) -> Candidate<'_, K> {
        if self.version() != search.version {
            return Candidate::Changed;
        }
        let [slots, flights] = &mut search.compared;
        if search.slot.is_none()
            && let Some(slot) = self.store.candidate(search.hash, *slots)
        {
            *slots += 1;
            search.last = Some(CandidatePlace::Slot(slot));
            return Candidate::Compare(self.store.key(slot));
        }
        if search.flight.is_none()
            && let Some((flight, key)) = self.flights.candidate(search.hash, *flights)
        {
            *flights += 1;
            search.last = Some(CandidatePlace::Flight(flight));
            return Candidate::Compare(key);
        }
        Candidate::Found(self.found(search.hash, search.slot, search.flight))
    }

    #[inline]
    fn found(&self, hash: u64, slot: Option<SlotId>, flight: Option<FlightId>) -> FoundKey {
        FoundKey {
            hash,
            slot,
            flight,
            #[cfg(debug_assertions)]
            version: self.version(),
        }
    }

    /// Counts up whenever a key enters or leaves the store, or the open flights.
    pub(super) fn version(&self) -> u64 {
        self.store.version() + self.flights.version()
    }
}

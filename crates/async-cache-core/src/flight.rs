//! Flights: a running load of a key, and all callers that wait for it.
//!
//! Owns which caller loads, which callers wait, and which loads are fenced off. Knows neither tasks
//! nor wakers: a front gives each flight a token `T` (its waiting room), gets the token back when a
//! caller joins, and does the waiting.
//!
//! A flight is in one of two states, or gone:
//!
//! | state | found by its key | its result is stored |
//! |---|---|---|
//! | open | yes: new callers join it | yes |
//! | fenced | no: new callers start another flight | no, but it still answers the waiting callers |
//! | gone | no; its id is stale, and every operation on a stale id does nothing | |
//!
//! Rules:
//! 1. `lead` makes an open flight with a single caller. There is at most one open flight of a key;
//!    the front asks `find` first, under the same lock.
//! 2. `join` adds a caller to an open flight.
//! 3. `leave` removes a caller. When the last caller leaves, `leave` says so; the front stops the
//!    load and calls `end`. Until then the flight stays open, so that no second load starts beside
//!    a load that is still being stopped. A caller that joins in between is answered when the
//!    flight ends: with a value, or as abandoned, and then asks again.
//! 4. `fence` turns an open flight into a fenced flight, for ever.
//! 5. `end` makes the flight gone and returns whether it was open: only then may its result be
//!    stored.
//!
//! So between the first `lead` of a flight and its `end` any number of loads of the key may have
//! begun, but a value is stored only by the flight that no `set`, `delete`, `clear` or invalidation
//! has overtaken.

use std::num::NonZeroU64;

use hashbrown::HashTable;

use crate::probe::Probed;
use crate::slab::Slab;
use crate::store::spread;
use crate::time::Stamp;

/// The id of a flight. Ids are never used twice within a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlightId {
    slot: u32,
    /// Counts from 1 up, so that an `Option` of an id takes no more room.
    serial: NonZeroU64,
}

/// The running loads of a cache or shard.
#[derive(Debug)]
pub struct Flights<K, T> {
    /// Open flights by the hash of their key.
    index: HashTable<u32>,
    slab: Slab<Flight<K, T>>,
    /// Counts up with every flight, so that a stale id never names a later flight in the same slot.
    serial: u64,
    /// Changes with every flight that leaves the index; with `serial`, all changes of the index.
    departures: u64,
}

#[derive(Debug)]
struct Flight<K, T> {
    key: K,
    hash: u32,
    serial: NonZeroU64,
    state: FlightState,
    callers: u32,
    /// The stamp of its value, if a loader yields the value.
    stamp: Stamp,
    /// The snapshot's answer for its key when the flight began.
    probed: Probed,
    token: T,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FlightState {
    Open,
    Fenced,
}

/// The state after a caller has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Other callers still wait, or the flight has ended already.
    Others,
    /// No caller waits any more: stop the load, then [`Flights::end`] the flight.
    Nobody,
}

/// A flight that has ended.
#[derive(Debug)]
pub struct Ended<K, T> {
    /// The loaded key.
    pub key: K,
    /// Whether the result may be stored: nothing fenced the flight.
    pub stores: bool,
    /// The stamp of its value, if a loader yielded the value: the stamp of the beginning of the
    /// load.
    pub stamp: Stamp,
    /// Where its callers wait.
    pub token: T,
}

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, T> Flights<K, T> {
    /// No flights.
    pub const fn new() -> Self {
        Self { index: HashTable::new(), slab: Slab::new(), serial: 0, departures: 0 }
    }

    /// How many loads run, fenced ones included.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether no load runs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The open flight of a key.
    #[inline]
    pub fn find(&self, hash: u64, mut eq: impl FnMut(&K) -> bool) -> Option<FlightId> {
        if self.index.is_empty() {
            return None;
        }
        let hash = hash as u32;
        self.index
            .find(spread(hash), |&slot| self.slab[slot].hash == hash && eq(&self.slab[slot].key))
            .map(|&slot| self.id(slot))
    }

    /// Changes whenever a flight comes under its key or leaves from there.
    pub fn version(&self) -> u64 {
        self.serial + self.departures
    }

    /// The `nth` open flight whose key has this hash, for keys whose equality may fail or re-enter
    /// the cache: compare its key with nothing borrowed, and continue with the next if they differ.
    /// Begin again if [`Flights::version`] changed.
    pub fn candidate(&self, hash: u64, nth: usize) -> Option<(FlightId, &K)> {
        let hash = hash as u32;
        let mut with_hash = self.index.iter_hash(spread(hash)).filter(|&&slot| self.slab[slot].hash == hash);
        with_hash.nth(nth).map(|&slot| (self.id(slot), &self.slab[slot].key))
    }

    /// Starts a flight with a single caller. The front has seen, under the same lock, that no
    /// flight of the key is open.
    pub fn lead(&mut self, hash: u64, key: K, token: T) -> FlightId {
        let hash = hash as u32;
        self.serial += 1;
        let serial = NonZeroU64::new(self.serial).expect("it counts from 1 up");
        let (stamp, probed) = (Stamp::UNKNOWN, Probed::default());
        let flight = Flight { key, hash, serial, state: FlightState::Open, callers: 1, stamp, probed, token };
        let slot = self.slab.insert(flight);
        self.index.insert_unique(spread(hash), slot, |&slot| spread(self.slab[slot].hash));
        self.id(slot)
    }

    /// Records the facts of the beginning of a flight that its landing needs.
    pub(crate) fn began(&mut self, id: FlightId, stamp: Stamp, probed: Probed) {
        if let Some(flight) = self.get_mut(id) {
            (flight.stamp, flight.probed) = (stamp, probed);
        }
    }

    /// The key of an open flight, and the snapshot's answer for it when the flight began. `None` if
    /// the flight stores nothing: it was fenced, or has ended.
    pub(crate) fn stores(&self, id: FlightId) -> Option<(&K, Probed)> {
        let flight = self.slab.get(id.slot)?;
        let is_open = flight.serial == id.serial && flight.state == FlightState::Open;
        is_open.then_some((&flight.key, flight.probed))
    }

    /// Whether the value of a flight will be stored: the flight is running, and was not fenced.
    pub fn will_store(&self, id: FlightId) -> bool {
        self.stores(id).is_some()
    }

    /// Adds a caller to an open flight; returns the token of the room where the caller waits.
    pub fn join(&mut self, id: FlightId) -> Option<&T> {
        let flight = self.get_mut(id).filter(|flight| flight.state == FlightState::Open)?;
        flight.callers += 1;
        Some(&flight.token)
    }

    /// Removes a caller that no longer wants the answer.
    #[must_use = "the last caller to leave has to stop the load"]
    pub fn leave(&mut self, id: FlightId) -> Left {
        match self.get_mut(id) {
            None => Left::Others,
            Some(flight) => {
                flight.callers = flight.callers.checked_sub(1).expect("a caller leaves once");
                if flight.callers == 0 { Left::Nobody } else { Left::Others }
            }
        }
    }

    /// Whether a load still runs without waiting callers.
    pub fn is_forsaken(&self, id: FlightId) -> bool {
        self.slab.get(id.slot).is_some_and(|flight| flight.serial == id.serial && flight.callers == 0)
    }

    /// Fences an open flight: it stores nothing, and no caller finds it any more. `true` if it was
    /// open.
    pub fn fence(&mut self, id: FlightId) -> bool {
        let Some(flight) = self.get_mut(id).filter(|flight| flight.state == FlightState::Open) else {
            return false;
        };
        flight.state = FlightState::Fenced;
        let hash = flight.hash;
        self.unindex(hash, id.slot);
        true
    }

    /// Fences every open flight whose key has this hash; returns how many there were.
    pub fn fence_hash(&mut self, hash: u64) -> usize {
        let mut fenced = 0;
        while let Some((flight, _)) = self.candidate(hash, 0) {
            self.fence(flight);
            fenced += 1;
        }
        fenced
    }

    /// Fences every open flight; returns how many there were.
    pub fn fence_all(&mut self) -> usize {
        let fenced = self.index.len();
        self.departures += fenced as u64;
        for &slot in &self.index {
            self.slab[slot].state = FlightState::Fenced;
        }
        self.index.clear();
        fenced
    }

    /// Ends a flight: its load has returned, failed, panicked or been stopped. `None` if it has
    /// ended already.
    pub fn end(&mut self, id: FlightId) -> Option<Ended<K, T>> {
        let (state, hash) = self.get_mut(id).map(|flight| (flight.state, flight.hash))?;
        if state == FlightState::Open {
            self.unindex(hash, id.slot);
        }
        let flight = self.slab.remove(id.slot)?;
        let Flight { key, stamp, token, .. } = flight;
        Some(Ended { key, stores: state == FlightState::Open, stamp, token })
    }

    /// Where the callers of a flight wait.
    pub fn token(&self, id: FlightId) -> Option<&T> {
        self.slab.get(id.slot).filter(|flight| flight.serial == id.serial).map(|flight| &flight.token)
    }

    /// The key that a flight loads.
    pub fn key(&self, id: FlightId) -> Option<&K> {
        self.slab.get(id.slot).filter(|flight| flight.serial == id.serial).map(|flight| &flight.key)
    }

    /// All running loads, fenced ones included: their keys and tokens.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &T)> {
        self.slab.iter().map(|(_, flight)| (&flight.key, &flight.token))
    }

    /// Checks the invariants; for tests.
    ///
    /// # Panics
    /// If an invariant does not hold.
    pub fn validate(&self) {
        let open = self.slab.iter().filter(|(_, flight)| flight.state == FlightState::Open).count();
        assert_eq!(open, self.index.len(), "the index holds the open flights");
        for &slot in &self.index {
            assert_eq!(self.slab[slot].state, FlightState::Open, "the index holds the open flights only");
        }
    }

    fn id(&self, slot: u32) -> FlightId {
        FlightId { slot, serial: self.slab[slot].serial }
    }

    fn get_mut(&mut self, id: FlightId) -> Option<&mut Flight<K, T>> {
        self.slab.get_mut(id.slot).filter(|flight| flight.serial == id.serial)
    }

    fn unindex(&mut self, hash: u32, slot: u32) {
        let found = self.index.find_entry(spread(hash), |&candidate| candidate == slot);
        found.expect("an open flight is in the index").remove();
        self.departures += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_changes_whenever_the_answer_of_find_may() {
        let mut flights = Flights::new();
        let mut versions = vec![flights.version()];
        let a = flights.lead(1, "a", ());
        versions.push(flights.version());
        flights.fence(a);
        versions.push(flights.version());
        let b = flights.lead(1, "b", ());
        versions.push(flights.version());
        flights.end(b);
        versions.push(flights.version());
        flights.lead(1, "c", ());
        versions.push(flights.version());
        flights.fence_all();
        versions.push(flights.version());
        assert!(versions.is_sorted_by(|before, after| before < after), "{versions:?}");
        flights.end(a);
        assert_eq!(flights.version(), versions[6], "it was not under its key any more");
    }
}

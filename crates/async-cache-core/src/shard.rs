//! A shard of a cache: every decision about an entry, a flight or a cold entry is taken here.
//!
//! Owns a [`Store`], the [`Flights`] of its keys, its share of the [`ColdSet`] and its counters,
//! and keeps the rules that connect them:
//! 1. a write of a key (`set`, `delete`, `clear`) fences the key's flight and removes its cold
//!    entry, in a single step;
//! 2. the value of a load is stored only if its flight was not fenced, and replaces the existing
//!    value;
//! 3. a key is hot or cold, never both. An operation that inserts a key takes the key's rank out of
//!    the cold set in the same step. So the operation needs an [`Address`], which is made only from
//!    the snapshot's answer for the key ([`Probed`](crate::probe::Probed)), and only while that
//!    snapshot is open;
//! 4. cold entries make room first, because they are older than every entry that was used. While a
//!    cold set is open, hot and cold entries of all shards together are not more than the `maxsize`
//!    of the whole cache (except one entry of each thread that inserts at the same moment), and a
//!    shard may hold more than its part. Once the set is closed, every shard keeps to its own part;
//! 5. a suspect entry is no answer to a read, and stays the entry of its key for everything else:
//!    for writes, debts, the file, eviction and expiry (`era`).
//!
//! A front calls a shard in two steps with nothing between them: find a key, then act on the result
//! ([`crate::address`]). The front drops the keys and values in [`Removed`] where no lock and no
//! borrow is held.
//!
//! `snapshot` has opening and closing of snapshots and cold entries, `saving` the times of writing,
//! `journal` the places of records, `search` the search for keys, `suspects` the parts for a tier
//! beyond one host.

mod journal;
mod saving;
mod search;
mod snapshot;
mod suspects;

pub use suspects::{FlightFate, Trust};

use std::sync::Arc;
use std::time::Duration;

use crate::address::{Address, FoundKey};
use crate::cold::ColdSet;
use crate::entry::{Fetched, Meta, NewEntry, ValueSource};
use crate::flight::{FlightId, Flights, Left};
use crate::ledger::Debt;
use crate::listing::{Listing, Ticket};
use crate::order::Eviction;
use crate::probe::Epoch;
use crate::removed::{Cause, Removed};
use crate::stats::{Counters, Stats};
use crate::store::{SlotId, Store};
use crate::time::{Deadline, Now, Stamp};

/// The configuration of a cache, or of a shard.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The maximum number of entries in the whole cache; `None` is unlimited, 0 stores nothing.
    pub maxsize: Option<usize>,
    /// This shard's part of `maxsize`. At least 1, unless `maxsize` is 0.
    pub share: Option<usize>,
    /// Which entries make room for others.
    pub eviction: Eviction,
}

impl Config {
    /// A cache with a single shard.
    pub fn single(maxsize: Option<usize>, eviction: Eviction) -> Self {
        Self { maxsize, share: maxsize, eviction }
    }
}

/// A shard of a cache: hot entries, cold entries and flights.
#[derive(Debug)]
pub struct Shard<K, V, T> {
    config: Config,
    store: Store<K, V>,
    flights: Flights<K, T>,
    cold: Option<Arc<ColdSet>>,
    /// The epoch of the snapshot that `cold` belongs to.
    epoch: Epoch,
    /// The number of hot entries that this shard has reported to the cold set.
    reported: usize,
    counters: Counters,
    /// Counts up with every change that a save would show. Never set back, not even by a `clear`.
    changes: u64,
}

/// A load that has ended.
#[derive(Debug)]
pub struct FinishedLoad<K, V, T> {
    /// Where the callers of the flight wait for the answer.
    pub token: T,
    /// The entries that left the cache; also the key and value of a flight whose value was not
    /// stored.
    pub removed: Removed<K, V>,
}

/// The former content of a cleared cache; drop it where no lock and no borrow is held.
#[derive(Debug)]
#[must_use = "drop it where no lock and no borrow of the cache is held"]
pub struct Cleared<K, V> {
    /// The hot entries.
    pub store: Store<K, V>,
    /// The cold ones.
    pub cold: Option<Arc<ColdSet>>,
}

/// The end of [`Shard::restore`].
#[derive(Debug)]
pub enum Restored<K, V> {
    /// The entry is in the cache.
    Stored,
    /// Its key is there already, there is no room, or its deadline has passed.
    Refused(NewEntry<K, V>),
}

/// When a write is owed to the file; see [`crate::ledger`], rule 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwedWhen {
    Always,
    IfItReplaces,
    Never,
}

impl<K, V, T> Shard<K, V, T> {
    /// An empty shard.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            store: Store::new(config.eviction, config.share),
            flights: Flights::new(),
            cold: None,
            epoch: Epoch::default(),
            reported: 0,
            counters: Counters::default(),
            changes: 0,
        }
    }

    /// The maximum number of entries in the cache.
    pub fn maxsize(&self) -> Option<usize> {
        self.config.maxsize
    }

    /// The entries in memory, for reading.
    #[inline]
    pub fn store(&self) -> &Store<K, V> {
        &self.store
    }

    /// The running loads, for reading.
    pub fn flights(&self) -> &Flights<K, T> {
        &self.flights
    }

    /// Whether nothing is in memory and no load runs.
    pub fn is_pristine(&self) -> bool {
        self.store.is_empty() && self.flights.is_empty()
    }

    // Reads

    /// Serves the value of a key: calls `read` with it. Records the use as far as a shared borrow
    /// can. The front counts the hit. `None` if the key is not in memory, its entry is suspect, or
    /// the deadline of its entry has passed. `has_passed` compares a deadline with now; it is not
    /// called for an entry that never expires.
    #[inline]
    pub fn hit<R>(
        &self,
        hash: u64,
        eq: impl FnMut(&K) -> bool,
        has_passed: impl FnOnce(Deadline) -> bool,
        read: impl FnOnce(&V) -> R,
    ) -> Option<R> {
        self.store.hit(hash, eq, has_passed, read)
    }

    /// [`Shard::hit`], with the hit counted, and the use recorded in the order of eviction.
    #[inline]
    pub fn hit_in_order<R>(
        &mut self,
        hash: u64,
        eq: impl FnMut(&K) -> bool,
        has_passed: impl FnOnce(Deadline) -> bool,
        read: impl FnOnce(&V) -> R,
    ) -> Option<R> {
        let value = self.store.hit_mut(hash, eq, has_passed, read)?;
        self.counters.rest.hits += 1;
        Some(value)
    }

    /// [`Shard::hit_in_order`] of an entry that was found before, for a front that finds keys with
    /// a [`Search`](crate::address::Search).
    #[inline]
    pub fn hit_mut(&mut self, slot: SlotId, has_passed: impl FnOnce(Deadline) -> bool) -> Option<&V> {
        self.live(slot, has_passed)?;
        self.counters.rest.hits += 1;
        self.store.touch(slot);
        Some(self.store.value(slot))
    }

    /// Reads the value of a slot without counting or recording a use. `None` if the entry is
    /// suspect, or its deadline has passed.
    #[inline(always)]
    #[allow(clippy::inline_always)] // a call of its own is a tenth of a hit
    pub fn live(&self, slot: SlotId, has_passed: impl FnOnce(Deadline) -> bool) -> Option<&V> {
        if self.store.is_suspect(slot) { None } else { self.live_or_suspect(slot, has_passed) }
    }

    /// Counts a call that was not served.
    pub fn miss(&self) {
        self.counters.miss();
    }

    /// Reclaims all expired hot entries, so that [`Store::len`] and [`Shard::stats`] count only
    /// live entries.
    pub fn reclaim_all(&mut self, now: Now, removed: &mut Removed<K, V>) {
        self.counters.rest.expirations += self.store.reclaim_all(now.time, removed);
        self.report();
    }

    /// The hot entries from the least to the most worth keeping; for LRU, in the order of use.
    /// Needs only a shared borrow, so hits under other shared borrows continue.
    pub fn coldest_first(&self) -> Vec<Ticket> {
        self.store.coldest_first()
    }

    /// Begins to list the hot entries in pieces, in the order of [`Shard::coldest_first`]. A
    /// running listing starts over. The rules are in [`crate::listing`].
    pub fn begin_listing(&mut self) {
        self.store.begin_listing();
    }

    /// Appends the next `n` entries of the listing to `into`. (Reserve the capacity of `into` first
    /// if its growth must not take time here.) At [`Listing::Done`],
    /// [`keep_last`](crate::listing::keep_last) makes the list from the appended tickets. Also
    /// `Done` if no listing runs: none was begun, or the cache was cleared.
    pub fn list_some(&mut self, n: usize, into: &mut Vec<Ticket>) -> Listing {
        self.store.list_some(n, into)
    }

    // Writes

    /// Whether a write of an entry without a deadline must know the time, since other entries may
    /// have deadlines. If not, the write does not look at `now.time`.
    #[inline]
    pub fn watches_time(&self) -> bool {
        self.store.watches_time()
    }

    /// Stores a value under a key, for a caller. If `deadline` has passed, the value is not stored,
    /// and the old value of the key is removed.
    pub fn set(&mut self, at: Address, key: K, value: V, deadline: Deadline, now: Now) -> Removed<K, V> {
        // Also for a value that is not stored: every later write has a later stamp.
        let stamp = self.store.ledger_mut().stamp(now);
        self.set_stamped(at, key, value, Meta::written_at(stamp, deadline), now)
    }

    /// [`Shard::set`] with the stamp of the write in `meta`.
    pub fn set_stamped(&mut self, at: Address, key: K, value: V, meta: Meta, now: Now) -> Removed<K, V> {
        self.check(&at.found);
        self.fence(at.flight()); // Rule 1
        self.changes += 1;
        let mut removed = Removed::default();
        self.put(at, NewEntry { key, value, meta }, OwedWhen::Always, now, &mut removed);
        removed
    }

    /// Removes a key. [`Shard::stamp_delete`] returns the facts needed by merging saves.
    pub fn delete(&mut self, at: Address, now: Now) -> Removed<K, V> {
        self.check(&at.found);
        self.fence(at.flight()); // Rule 1
        let was_cold = at.rank.is_some_and(|rank| self.take_cold(rank));
        self.changes += u64::from(was_cold || at.slot().is_some());
        let mut removed = Removed::default();
        if let Some(slot) = at.slot() {
            let (key, value) = self.store.remove(slot);
            removed.push(Some(key), value, Cause::Deleted);
        }
        self.reclaim(now, &mut removed);
        self.report();
        removed
    }

    /// Removes everything, cold entries included, fences all flights and resets the counters.
    pub fn clear(&mut self) -> Cleared<K, V> {
        self.counters = Counters::default();
        self.remove_all()
    }

    /// Removes everything, cold entries included, and fences all flights. The counters stay.
    pub fn remove_all(&mut self) -> Cleared<K, V> {
        self.flights.fence_all(); // Rule 1
        self.changes += 1;
        let store = self.store.take(self.config.eviction, self.config.share);
        self.report();
        self.reported = 0;
        Cleared { store, cold: self.cold.take() }
    }

    /// Stores an entry from a backup, as the coldest, if its key is absent and there is room. For
    /// entries that arrive from the most to the least recently used.
    pub fn restore(
        &mut self,
        at: Address,
        mut new: NewEntry<K, V>,
        trust: Trust,
        now: Now,
    ) -> Restored<K, V> {
        self.check(&at.found);
        let is_known = at.slot().is_some() || at.rank.is_some_and(|rank| self.is_cold(rank));
        if is_known || self.is_full() || new.meta.deadline.has_passed(now.time) {
            return Restored::Refused(new);
        }
        new.meta.origin = at.rank;
        let slot = self.store.insert_coldest(at.hash(), new, Debt::None);
        if trust == Trust::Suspect {
            self.store.suspect(slot);
        }
        self.report();
        Restored::Stored
    }

    // Flights

    /// Joins a running load; the answer comes through the token.
    pub fn join(&mut self, flight: FlightId) -> Option<&T> {
        let token = self.flights.join(flight)?;
        self.counters.rest.joined += 1;
        Some(token)
    }

    /// Starts a load of a key. If another load of the key is open, it is fenced: it answers its own
    /// callers, and stores nothing. Stored entries do not change.
    pub fn lead(&mut self, at: Address, key: K, token: T, now: Now) -> FlightId {
        self.check(&at.found);
        self.fence(at.flight());
        self.counters.rest.loads += 1;
        let flight = self.flights.lead(at.hash(), key, token);
        let stamp = self.store.ledger().stamp_of_load(now);
        self.flights.began(flight, stamp, self.epoch.answered(at.rank));
        flight
    }

    /// Removes a caller that no longer wants the answer.
    #[must_use = "the last caller to leave has to stop the load"]
    pub fn leave(&mut self, flight: FlightId) -> Left {
        self.flights.leave(flight)
    }

    /// Ends a flight with a value, which is stored unless the flight was fenced. `at` is the
    /// present address of the flight's key, `took` the duration of the load. `None` if the flight
    /// has ended already.
    pub fn land(
        &mut self,
        flight: FlightId,
        at: Address,
        fetched: Fetched<V>,
        took: Duration,
        now: Now,
    ) -> Option<FinishedLoad<K, V, T>> {
        self.check(&at.found);
        let ended = self.flights.end(flight)?;
        self.counters.rest.load_time += took;
        let mut removed = Removed::default();
        let Fetched { value, deadline, stamp, from } = fetched;
        if ended.stores {
            self.changes += 1;
            let stamp = match from {
                ValueSource::Loader => ended.stamp,
                ValueSource::Tier => stamp,
            };
            let new = NewEntry { key: ended.key, value, meta: Meta::written_at(stamp, deadline) };
            self.put(at, new, OwedWhen::IfItReplaces, now, &mut removed);
        } else {
            removed.push(Some(ended.key), value, Cause::Fenced); // Rule 2
        }
        Some(FinishedLoad { token: ended.token, removed })
    }

    /// Ends a flight without a value: its load failed, panicked or was stopped. `None` if the
    /// flight has ended already.
    pub fn fail(&mut self, flight: FlightId, took: Duration) -> Option<(K, T)> {
        let ended = self.finish_without_storing(flight, took)?;
        self.counters.rest.load_errors += 1;
        Some(ended)
    }

    /// Ends a flight whose load succeeded and whose result is not stored: the key has no value, or
    /// the value is only for the waiting callers. Returns the flight's key and token; `None` if the
    /// flight has ended already.
    pub fn finish_without_storing(&mut self, flight: FlightId, took: Duration) -> Option<(K, T)> {
        let ended = self.flights.end(flight)?;
        self.counters.rest.load_time += took;
        Some((ended.key, ended.token))
    }

    /// A load that was started needs no loader: the tier beyond one host had the value.
    pub fn count_remote_hit(&mut self) {
        self.counters.rest.remote_hits += 1;
        self.count_no_load();
    }

    /// A load that was started needs no loader: nothing was to be loaded, or an entry that may be
    /// out of date is served.
    pub fn count_no_load(&mut self) {
        // The counters may have been reset since.
        self.counters.rest.loads = self.counters.rest.loads.saturating_sub(1);
    }

    /// Counts a call of a batch loader with this many keys. In a cache with several shards, only
    /// one of them counts.
    pub fn count_batch(&mut self, keys: usize) {
        self.counters.rest.batches += 1;
        self.counters.rest.batched_keys += keys as u64;
    }

    fn fence(&mut self, flight: Option<FlightId>) {
        if flight.is_some_and(|flight| self.flights.fence(flight)) {
            self.counters.rest.fenced += 1;
        }
    }

    // Counters

    /// If this differs from its value at a save, the next save would save other entries: an entry
    /// was stored, deleted or cleared since, or a write was lost. An entry that expired, was
    /// evicted otherwise, or was only used is no change.
    pub fn changes(&self) -> u64 {
        self.changes + self.store.ledger().losses()
    }

    /// The counters of this shard and the number of its hot entries. Cold entries belong to all
    /// shards together.
    pub fn stats(&self) -> Stats {
        self.counters.sum(self.store.len())
    }

    /// Checks the invariants; for tests.
    ///
    /// # Panics
    /// If an invariant does not hold.
    pub fn validate(&self) {
        self.store.validate();
        self.flights.validate();
        let (hot, cold) = (self.store.len(), self.cold.as_ref().map_or(0, |cold| cold.live()));
        if let Some(max) = self.config.maxsize {
            assert!(hot + cold <= max, "{hot} hot and {cold} cold entries in a cache of {max}");
        }
    }

    // The parts of a write

    /// Writes an entry at its address. Rule 3: its rank leaves the cold set. Returns the slot if
    /// the key was not in memory, and is now.
    fn put(
        &mut self,
        at: Address,
        mut new: NewEntry<K, V>,
        owed: OwedWhen,
        now: Now,
        removed: &mut Removed<K, V>,
    ) -> Option<SlotId> {
        let was_cold = at.rank.is_some_and(|rank| self.take_cold(rank));
        let is_owed = match owed {
            OwedWhen::Always => true,
            OwedWhen::IfItReplaces => {
                was_cold || at.slot().is_some_and(|slot| self.is_live_or_owed(slot, now))
            }
            OwedWhen::Never => false,
        };
        let debt = if is_owed { Debt::Owed } else { Debt::None };
        let Meta { deadline, stamp, .. } = new.meta;
        match at.slot() {
            Some(slot) if deadline.has_passed(now.time) => {
                let (key, value) = self.store.remove(slot);
                removed.push(Some(key), value, Cause::Replaced);
                self.refuse(new, debt, removed);
            }
            Some(slot) => {
                let old = self.store.replace(slot, new.value, deadline, stamp, debt);
                removed.push(Some(new.key), old, Cause::Replaced);
            }
            None if deadline.has_passed(now.time) || self.config.maxsize == Some(0) => {
                self.refuse(new, debt, removed);
            }
            None => {
                self.make_room(now, removed);
                new.meta.origin = at.rank;
                let slot = self.store.insert(at.hash(), new, debt);
                self.report();
                return Some(slot);
            }
        }
        self.reclaim(now, removed);
        self.report();
        None
    }

    fn is_live_or_owed(&self, slot: SlotId, now: Now) -> bool {
        !self.store.deadline(slot).has_passed(now.time) || self.store.owes(slot)
    }

    /// Does not store an entry. If the write is owed to the file, the write is lost.
    fn refuse(&mut self, new: NewEntry<K, V>, debt: Debt, removed: &mut Removed<K, V>) {
        let NewEntry { key, value, meta: Meta { stamp, .. } } = new;
        if debt == Debt::Owed && self.keeps_times() {
            removed.push(None, value, Cause::Refused);
            self.store.ledger_mut().lose(key, stamp, &mut removed.forgotten);
        } else {
            removed.push(Some(key), value, Cause::Refused);
        }
    }

    /// Rule 4: makes room for an entry. Expired entries go first, then cold entries, then the
    /// entries chosen by the store.
    fn make_room(&mut self, now: Now, removed: &mut Removed<K, V>) {
        self.reclaim(now, removed);
        self.report();
        while self.is_full() {
            if self.cold.as_ref().is_some_and(|cold| cold.take_coldest().is_some()) {
                self.counters.rest.evictions += 1;
            } else if self.store.evict(removed) {
                self.counters.rest.evictions += 1;
                self.report();
            } else {
                return;
            }
        }
    }

    /// Rule 4: whether a further entry would be too many.
    fn is_full(&self) -> bool {
        match (&self.cold, self.config.maxsize, self.config.share) {
            (Some(cold), Some(max), _) => cold.live() + cold.hot() >= max,
            (_, _, Some(share)) => self.store.len() >= share,
            _ => false,
        }
    }

    fn reclaim(&mut self, now: Now, removed: &mut Removed<K, V>) {
        self.counters.rest.expirations += self.store.reclaim_some(now.time, removed);
    }

    /// Whether `found` is still where its key is: nothing has changed in between.
    #[inline]
    fn check(&self, found: &FoundKey) {
        #[cfg(debug_assertions)]
        assert_eq!(found.version, self.version(), "the shard changed between finding a key and acting on it");
        let _ = found;
    }
}

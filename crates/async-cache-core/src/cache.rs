//! One shard of a cache: every decision about an entry, a flight or a cold entry is taken here.
//!
//! Owns a [`Store`], the [`Flights`] of its keys, its share of the [`ColdSet`] and its counters, and keeps
//! the rules that tie them together:
//! 1. a write of a key (`set`, `delete`, `clear`) fences the key's flight and makes its cold entry leave, in
//!    one step;
//! 2. the result of a load is stored only if its flight was not fenced, and takes the place of what is there;
//! 3. a key is hot or cold, never both: whatever inserts a key takes its rank out of the cold set in the same
//!    step. So the fronts ask the snapshot for the rank of a key *before* they insert it;
//! 4. cold entries make room first, for they are older than everything that was touched. As long as a cold set
//!    is there, hot and cold entries of all shards together are not more than the whole cache's `maxsize` (but
//!    for one entry of each thread that inserts at the same moment), and a shard may hold more than its part of
//!    it. When the set is let go, and ever after, every shard keeps to its own part.
//!
//! A front calls this in two steps, with nothing between them: address a key with [`Cache::find`] and
//! [`Cache::find_flight`] (or their candidates), then act with what they answered. It drops what is handed
//! out in [`Removed`] where no lock and no borrow is held.

use std::sync::Arc;
use std::time::Duration;

use crate::cold::{ColdSet, Rank};
use crate::flight::{FlightId, Flights, Left};
use crate::listing::Listing;
use crate::lost::LostWrites;
use crate::order::Eviction;
use crate::stats::{Counters, Stats};
use crate::store::{Entry, NewEntry, Removed, SlotId, Store, Ticket};
use crate::time::{Deadline, Time};

/// What a cache, or one shard of it, is made with.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The most entries that the whole cache may hold; `None` is unlimited, 0 stores nothing.
    pub maxsize: Option<usize>,
    /// This shard's part of `maxsize`. At least 1, unless `maxsize` is 0.
    pub share: Option<usize>,
    /// Which entries make room for others.
    pub eviction: Eviction,
}

impl Config {
    /// A cache of one shard.
    pub fn single(maxsize: Option<usize>, eviction: Eviction) -> Self {
        Self { maxsize, share: maxsize, eviction }
    }
}

/// One shard of a cache: hot entries, cold entries and flights.
#[derive(Debug)]
pub struct Cache<K, V, T> {
    config: Config,
    store: Store<K, V>,
    flights: Flights<K, T>,
    cold: Option<Arc<ColdSet>>,
    /// How many hot entries this shard has told the cold set of.
    reported: usize,
    counters: Counters,
    /// Counts up with every change that a save would show. Never set back, not even by a `clear`.
    changes: u64,
}

/// A load that has ended, and what came of it.
#[derive(Debug)]
pub struct Finished<K, V, T> {
    /// Where the callers of the flight wait for the answer.
    pub token: T,
    /// What left the cache; with it the key of a flight whose result was not stored, and the result.
    pub removed: Removed<K, V>,
}

/// What a cache was cleared of; drop it where no lock and no borrow is held.
#[derive(Debug)]
#[must_use = "drop it where no lock and no borrow of the cache is held"]
pub struct Cleared<K, V> {
    /// The hot entries.
    pub store: Store<K, V>,
    /// The cold ones.
    pub cold: Option<Arc<ColdSet>>,
}

impl<K, V, T> Cache<K, V, T> {
    /// An empty cache.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            store: Store::new(config.eviction, config.share),
            reported: 0,
            flights: Flights::new(),
            cold: None,
            counters: Counters::default(),
            changes: 0,
        }
    }

    /// The most entries that the cache may hold.
    pub fn maxsize(&self) -> Option<usize> {
        self.config.maxsize
    }

    /// The entries in memory, for addressing and reading.
    #[inline]
    pub fn store(&self) -> &Store<K, V> {
        &self.store
    }

    /// The running loads, for addressing.
    pub fn flights(&self) -> &Flights<K, T> {
        &self.flights
    }

    /// The cold entries, if a snapshot is open.
    pub fn cold(&self) -> Option<&Arc<ColdSet>> {
        self.cold.as_ref()
    }

    /// Whether nothing is in memory and no load runs: a snapshot can be opened under this cache.
    pub fn is_pristine(&self) -> bool {
        self.store.is_empty() && self.flights.is_empty()
    }

    /// Gives a pristine cache its cold entries, which its siblings share.
    ///
    /// # Panics
    /// If the cache is not pristine: a key could be hot and cold at once.
    pub fn open(&mut self, cold: Option<Arc<ColdSet>>) -> Option<Arc<ColdSet>> {
        assert!(self.is_pristine(), "a snapshot is opened under a pristine cache");
        self.reported = 0;
        std::mem::replace(&mut self.cold, cold)
    }

    /// Gives a cache of one shard another cold set, though it is not pristine. `ranks` are the ranks that the keys
    /// of all hot entries have in the new snapshot: they leave it, for what is in memory stays.
    ///
    /// # Errors
    /// The cold set is handed back if the hot entries are not exactly those of `ranks` any more.
    pub fn adopt(
        &mut self,
        cold: Arc<ColdSet>,
        ranks: &[(Ticket, Option<Rank>)],
    ) -> Result<(), Arc<ColdSet>> {
        if !self.store.set_origins(ranks) {
            return Err(cold);
        }
        for &rank in ranks.iter().filter_map(|(_, rank)| rank.as_ref()) {
            cold.take(rank);
        }
        self.cold = Some(cold);
        self.reported = 0;
        self.report();
        while self.is_full_beyond() && self.cold.as_ref().is_some_and(|cold| cold.take_coldest().is_some()) {}
        Ok(())
    }

    /// Whether there is more than `maxsize` allows.
    fn is_full_beyond(&self) -> bool {
        let cold = self.cold.as_ref().map_or(0, |cold| cold.live());
        self.config.maxsize.is_some_and(|max| self.store.len() + cold > max)
    }

    /// Forgets the cold set, once none of its entries is cold. The shard shrinks to its own part of `maxsize`.
    pub fn let_go(&mut self) -> Removed<K, V> {
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

    // Reads

    /// [`Store::find`].
    #[inline]
    pub fn find(&self, hash: u64, eq: impl FnMut(&K) -> bool) -> Option<SlotId> {
        self.store.find(hash, eq)
    }

    /// [`Flights::find`].
    pub fn find_flight(&self, hash: u64, eq: impl FnMut(&K) -> bool) -> Option<FlightId> {
        self.flights.find(hash, eq)
    }

    /// Serves a slot and notes the use, as far as a shared borrow can. The front counts the hit. `None` if
    /// its time has passed. `has_passed` compares a deadline with now; it is not called for an entry that
    /// never expires.
    #[inline]
    pub fn hit(&self, slot: SlotId, has_passed: impl FnOnce(Deadline) -> bool) -> Option<Entry<'_, K, V>> {
        let entry = self.live(slot, has_passed)?;
        self.store.touch_shared(slot);
        Some(entry)
    }

    /// [`Cache::hit`], with the hit counted, and everything noted that the order of eviction wants to know.
    #[inline]
    pub fn hit_mut(
        &mut self,
        slot: SlotId,
        has_passed: impl FnOnce(Deadline) -> bool,
    ) -> Option<Entry<'_, K, V>> {
        self.live(slot, has_passed)?;
        self.counters.rest.hits += 1;
        self.store.touch(slot);
        Some(self.store.entry(slot))
    }

    /// Reads a slot without counting or noting anything. `None` if its time has passed.
    #[inline]
    pub fn live(&self, slot: SlotId, has_passed: impl FnOnce(Deadline) -> bool) -> Option<Entry<'_, K, V>> {
        let entry = self.store.entry(slot);
        (entry.deadline.is_never() || !has_passed(entry.deadline)).then_some(entry)
    }

    /// Counts a call that was not served.
    pub fn miss(&self) {
        self.counters.miss();
    }

    /// Reclaims all expired hot entries, so that [`Store::len`] and [`Cache::stats`] count live ones only.
    pub fn reclaim_all(&mut self, now: Time, removed: &mut Removed<K, V>) {
        self.counters.rest.expirations += self.store.reclaim_all(now, removed);
        self.report();
    }

    /// The hot entries from the least to the most worth keeping; for LRU, in the order of use.
    pub fn coldest_first(&self) -> Vec<Ticket> {
        self.store.coldest_first()
    }

    /// Begins to list the hot entries in pieces, as [`Cache::coldest_first`] does in one go. A listing that
    /// runs begins anew. The rules are in [`crate::listing`].
    pub fn begin_listing(&mut self) {
        self.store.begin_listing();
    }

    /// Appends the next `n` entries of the listing to `into`; give it room before, where the time counts that
    /// its growing takes. When it is [`Listing::Done`], [`keep_last`](crate::listing::keep_last) makes the list
    /// of what was appended. `Done` also if no listing runs: none was begun, or the cache was cleared.
    pub fn list_some(&mut self, n: usize, into: &mut Vec<Ticket>) -> Listing {
        self.store.list_some(n, into)
    }

    // Writes

    /// Stores a value under a key. `slot` and `flight` are what the key was found at; `new.origin` is its
    /// rank in the opened snapshot. A value whose deadline has passed is not stored: what was there goes.
    pub fn set(
        &mut self,
        slot: Option<SlotId>,
        flight: Option<FlightId>,
        hash: u64,
        new: NewEntry<K, V>,
        now: Time,
    ) -> Removed<K, V> {
        self.fence(flight);
        self.changes += 1;
        let mut removed = Removed::default();
        self.put(slot, hash, new, Source::Caller, now, &mut removed);
        removed
    }

    /// Removes a key. `rank` is its rank in the opened snapshot.
    pub fn delete(
        &mut self,
        slot: Option<SlotId>,
        flight: Option<FlightId>,
        rank: Option<Rank>,
        now: Time,
    ) -> Removed<K, V> {
        self.fence(flight);
        let was_cold = rank.is_some_and(|rank| self.take_cold(rank));
        self.changes += u64::from(was_cold || slot.is_some()); // see also `time_of_delete`
        let mut removed = Removed::default();
        if let Some(slot) = slot {
            let (key, value) = self.store.remove(slot);
            removed.push(Some(key), value);
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

    /// Removes everything, cold entries included, and fences all flights. What was counted stays.
    pub fn remove_all(&mut self) -> Cleared<K, V> {
        self.flights.fence_all();
        self.changes += 1;
        let store = self.store.take(self.config.eviction, self.config.share);
        self.report();
        self.reported = 0;
        Cleared { store, cold: self.cold.take() }
    }

    /// Stores an entry that comes from a backup, as the coldest, if its key is not there and there is room
    /// for it. For entries that arrive from the most to the least recently used.
    pub fn restore(
        &mut self,
        slot: Option<SlotId>,
        hash: u64,
        new: NewEntry<K, V>,
        now: Time,
    ) -> Restored<K, V> {
        let known = slot.is_some() || new.origin.is_some_and(|rank| self.is_cold(rank));
        if known || self.is_full() || new.deadline.has_passed(now) {
            return Restored::Refused(new);
        }
        let written_at = self.written_at(new.written_at);
        let slot = self.store.insert_coldest(hash, new);
        self.store.set_written(slot, written_at, false);
        self.report();
        Restored::Stored
    }

    // Times of writing

    /// Keeps the time of every write from now on. What is there is as old as can be.
    pub fn keep_times(&mut self) {
        self.store.written_mut().get_or_insert_default();
    }

    /// What the wall clock shows, in nanoseconds since the Unix epoch: to be told before every [`Cache::set`],
    /// [`Cache::lead`] and [`Cache::time_of_delete`] of a cache that keeps times. Nothing otherwise.
    #[inline]
    pub fn tell_wall(&mut self, wall: u64) {
        if let Some(written) = self.store.written_mut() {
            written.tell(wall);
        }
    }

    /// Whether times of writing are kept.
    pub fn keeps_times(&self) -> bool {
        self.store.keeps_times()
    }

    /// A save begins that has all that is here now: hands out what was lost until now, which the file has to hear of.
    /// What has expired is lost by now, and goes into `removed`. What is listed for the save has to be listed after this,
    /// or under the same lock; and what of it is not written, in spite of that, is for the front to tell the file of.
    pub fn begin_save(&mut self, now: Time, removed: &mut Removed<K, V>) -> LostWrites<K> {
        let losses = self.store.losses();
        self.reclaim_all(now, removed);
        // This very save tells of them, so they are no reason for another one.
        self.store.count_losses(losses);
        if let Some(written) = self.store.written_mut() {
            written.owed_mut().begin_save();
        }
        self.store.take_lost()
    }

    /// The save that began last has succeeded: what it has need not be remembered when it leaves.
    pub fn saved(&mut self) {
        if let Some(written) = self.store.written_mut() {
            written.owed_mut().saved();
        }
    }

    /// Takes back what [`Cache::begin_save`] has handed out: the save could not make note of it.
    pub fn take_back(&mut self, lost: LostWrites<K>) {
        self.store.take_back(lost);
    }

    /// Hands out what was lost, as [`Cache::begin_save`] does, and no save begins: the file is about to be opened. What has
    /// expired is lost by now.
    pub fn take_lost(&mut self, now: Time, removed: &mut Removed<K, V>) -> LostWrites<K> {
        self.reclaim_all(now, removed);
        self.store.take_lost()
    }

    /// Hands out what was lost, and leaves what has expired where it is: for a front that has listed what is there.
    pub fn take_lost_only(&mut self) -> LostWrites<K> {
        self.store.take_lost()
    }

    /// The time of a delete or a clearing that happens now: later than every write before it. `None` if no times are kept.
    pub fn time_of_delete(&mut self) -> Option<u64> {
        let written = self.store.written_mut().as_mut()?;
        // It is news for others, though nothing may have been there.
        self.changes += 1;
        Some(written.next())
    }

    /// Sees to it that every write from now on is later than `time`.
    pub fn write_after(&mut self, time: u64) {
        if let Some(written) = self.store.written_mut() {
            written.not_before(time);
        }
    }

    fn written_at(&mut self, written_at: Option<u64>) -> u64 {
        match (written_at, self.store.written_mut()) {
            (Some(time), _) => time,
            (None, Some(written)) => written.next(),
            (None, None) => 0,
        }
    }

    // Flights

    /// Joins a running load; the answer comes through the token.
    pub fn join(&mut self, flight: FlightId) -> Option<&T> {
        let token = self.flights.join(flight)?;
        self.counters.rest.joined += 1;
        Some(token)
    }

    /// Starts a load of a key that has no open flight.
    pub fn lead(&mut self, hash: u64, key: K, token: T) -> FlightId {
        self.counters.rest.loads += 1;
        let flight = self.flights.lead(hash, key, token);
        if let Some(written) = self.store.written_mut() {
            let time = written.of_load();
            self.flights.begins_at(flight, time);
        }
        flight
    }

    /// Makes room for a load of the same key by a caller that cannot use the answer of this one: the load is fenced,
    /// and [`Cache::lead`] may follow under the same lock. Nothing that is stored changes.
    pub fn supersede(&mut self, flight: FlightId) {
        self.fence(Some(flight));
    }

    /// Takes a caller away who no longer wants the answer.
    #[must_use = "the last caller to leave has to stop the load"]
    pub fn leave(&mut self, flight: FlightId) -> Left {
        self.flights.leave(flight)
    }

    /// Ends a flight with a value. `slot` is where the flight's key is found now. The value is stored unless
    /// the flight was fenced. `None` if the flight has ended already.
    pub fn land(
        &mut self,
        flight: FlightId,
        slot: Option<SlotId>,
        hash: u64,
        loaded: Loaded<V>,
        now: Time,
    ) -> Option<Finished<K, V, T>> {
        let ended = self.flights.end(flight)?;
        self.counters.rest.load_time += loaded.took;
        let mut removed = Removed::default();
        if ended.stores {
            self.changes += 1;
            let Loaded { value, deadline, origin, .. } = loaded;
            let written_at = Some(ended.began_at);
            self.put(
                slot,
                hash,
                NewEntry { key: ended.key, value, deadline, origin, written_at },
                Source::Load,
                now,
                &mut removed,
            );
        } else {
            removed.push(Some(ended.key), loaded.value);
        }
        Some(Finished { token: ended.token, removed })
    }

    /// Ends a flight without a value: its load failed, panicked or was stopped. `None` if it has ended already.
    pub fn fail(&mut self, flight: FlightId, took: Duration) -> Option<(K, T)> {
        let ended = self.flights.end(flight)?;
        self.counters.rest.load_errors += 1;
        self.counters.rest.load_time += took;
        Some((ended.key, ended.token))
    }

    /// Ends a flight whose load went well and found that its key has no value: nothing is stored, and no error is
    /// counted. `None` if it has ended already.
    pub fn come_back_empty(&mut self, flight: FlightId, took: Duration) -> Option<(K, T)> {
        let ended = self.flights.end(flight)?;
        self.counters.rest.load_time += took;
        Some((ended.key, ended.token))
    }

    /// Counts a call of a batch loader for so many keys. Where a cache has several shards, one of them counts.
    pub fn count_batch(&mut self, keys: usize) {
        self.counters.rest.batches += 1;
        self.counters.rest.batched_keys += keys as u64;
    }

    fn fence(&mut self, flight: Option<FlightId>) {
        if flight.is_some_and(|flight| self.flights.fence(flight)) {
            self.counters.rest.fenced += 1;
        }
    }

    // Cold entries

    /// Whether the entry of this rank is cold.
    pub fn is_cold(&self, rank: Rank) -> bool {
        self.cold.as_ref().is_some_and(|cold| cold.contains(rank))
    }

    /// Makes a cold entry hot and counts a hit. `slot` is where its key is found now.
    ///
    /// # Errors
    /// The entry is handed back if it has left the cold set meanwhile: the key is hot now, or was deleted,
    /// evicted or cleared.
    pub fn promote(
        &mut self,
        rank: Rank,
        slot: Option<SlotId>,
        hash: u64,
        new: NewEntry<K, V>,
        now: Time,
    ) -> Result<Removed<K, V>, NewEntry<K, V>> {
        if slot.is_some() || !self.take_cold(rank) {
            return Err(new);
        }
        let mut removed = Removed::default();
        self.counters.rest.hits += 1;
        self.counters.rest.cold_hits += 1;
        self.put(None, hash, NewEntry { origin: Some(rank), ..new }, Source::File, now, &mut removed);
        Ok(removed)
    }

    fn take_cold(&mut self, rank: Rank) -> bool {
        self.cold.as_ref().is_some_and(|cold| cold.take(rank))
    }

    /// Tells the cold set how many hot entries there are now, as long as there is one.
    fn report(&mut self) {
        if let Some(cold) = &self.cold {
            cold.report_hot(self.reported, self.store.len());
            self.reported = self.store.len();
        }
    }

    // Both

    /// Differs from what it was at a save if the next one would save other entries: something was stored, deleted
    /// or cleared since, or a write was lost. What has expired or was evicted otherwise, or was only used, is no change.
    pub fn changes(&self) -> u64 {
        self.changes + self.store.losses()
    }

    /// The counters of this shard and the number of its hot entries. Cold entries belong to all shards
    /// together.
    pub fn stats(&self) -> Stats {
        self.counters.sum(self.store.len())
    }

    /// Checks the invariants; for tests.
    ///
    /// # Panics
    /// If one does not hold.
    pub fn validate(&self) {
        self.store.validate();
        self.flights.validate();
        let (hot, cold) = (self.store.len(), self.cold.as_ref().map_or(0, |cold| cold.live()));
        if let Some(max) = self.config.maxsize {
            assert!(hot + cold <= max, "{hot} hot and {cold} cold entries in a cache of {max}");
        }
    }

    fn put(
        &mut self,
        slot: Option<SlotId>,
        hash: u64,
        new: NewEntry<K, V>,
        source: Source,
        now: Time,
        removed: &mut Removed<K, V>,
    ) {
        let was_cold = new.origin.is_some_and(|rank| self.take_cold(rank));
        let is_owed = match source {
            Source::Caller => true,
            Source::File => false,
            Source::Load => was_cold || slot.is_some_and(|slot| self.is_live_or_owed(slot, now)),
        };
        // Also for what is not stored: whatever comes after it is later.
        let written_at = self.written_at(new.written_at);
        match slot {
            Some(slot) if new.deadline.has_passed(now) => {
                let (key, value) = self.store.remove(slot);
                removed.push(Some(key), value);
                self.refuse(new.key, new.value, is_owed.then_some(written_at), removed);
            }
            Some(slot) => {
                let old = self.store.replace(slot, new.value, new.deadline);
                self.store.set_written(slot, written_at, is_owed);
                removed.push(Some(new.key), old);
            }
            None if new.deadline.has_passed(now) || self.config.maxsize == Some(0) => {
                self.refuse(new.key, new.value, is_owed.then_some(written_at), removed);
            }
            None => {
                self.make_room(now, removed);
                let slot = self.store.insert(hash, new);
                self.store.set_written(slot, written_at, is_owed);
                self.report();
                return;
            }
        }
        self.reclaim(now, removed);
        self.report();
    }

    fn is_live_or_owed(&self, slot: SlotId, now: Time) -> bool {
        !self.store.entry(slot).deadline.has_passed(now) || self.store.is_owed(slot)
    }

    /// Does not store an entry. `owed` is when it was written, if the file has to know of it.
    fn refuse(&mut self, key: K, value: V, owed: Option<u64>, removed: &mut Removed<K, V>) {
        match owed {
            Some(written_at) if self.store.keeps_times() => {
                removed.push(None, value);
                self.store.lose(key, written_at, removed);
            }
            _ => removed.push(Some(key), value),
        }
    }

    /// Makes room for one entry: expired ones go first, then cold ones, then the store's own choice.
    fn make_room(&mut self, now: Time, removed: &mut Removed<K, V>) {
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

    /// Whether one more entry would be too many; see rule 4.
    fn is_full(&self) -> bool {
        match (&self.cold, self.config.maxsize, self.config.share) {
            (Some(cold), Some(max), _) => cold.live() + cold.hot() >= max,
            (_, _, Some(share)) => self.store.len() >= share,
            _ => false,
        }
    }

    fn reclaim(&mut self, now: Time, removed: &mut Removed<K, V>) {
        self.counters.rest.expirations += self.store.reclaim_some(now, removed);
    }
}

/// Where an entry comes from that is put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Caller,
    Load,
    File,
}

/// What a load brought.
#[derive(Debug)]
pub struct Loaded<V> {
    /// The value.
    pub value: V,
    /// When it stops being served.
    pub deadline: Deadline,
    /// The rank of the record with this key in the opened snapshot, if there is one.
    pub origin: Option<Rank>,
    /// How long the load took.
    pub took: Duration,
}

/// What became of an entry from a backup.
#[derive(Debug)]
pub enum Restored<K, V> {
    /// It is in the cache.
    Stored,
    /// Its key is there already, there is no room, or its time has passed.
    Refused(NewEntry<K, V>),
}

//! The store: the entries in memory, their order of eviction and their deadlines.
//!
//! Owns a slab of entries, the index over it, and the ledger of their writes. Every operation takes
//! two steps: *find* an entry by its hash and an equality test, then *act* on the found slot.
//! Nothing may change the store between the two; [`Store::version`] shows whether anything did.
//!
//! Invariants:
//! 1. the index, the order of eviction and (for entries with a deadline) the timer wheel hold
//!    exactly the occupied slots;
//! 2. at most one entry of a key: `insert` is for keys that `find` did not find;
//! 3. the only user code that runs here is the equality test of `find`. Keys and values that leave
//!    are returned in [`Removed`], to be dropped where nothing is borrowed;
//! 4. an entry is reclaimed by bounded work in later writes; a read never serves it after its
//!    deadline, reclaimed or not.
//!
//! A hash must be well mixed in all its bits. The upper half belongs to the front, to choose a
//! shard; the store uses the lower half.

use std::sync::atomic::{AtomicU8, Ordering};

use hashbrown::HashTable;

use crate::cold::Rank;
use crate::entry::{Entry, Meta, NewEntry};
use crate::ledger::{Debt, Ledger, LostWrites};
use crate::listing::Listing;
use crate::order::{Eviction, Order, Ordered, Queue};
use crate::removed::{Cause, Removed};
use crate::slab::{Chain, Link, Linked, Slab, Ticket};
use crate::time::{Deadline, Stamp, Time};
use crate::timer::{NO_BUCKET, Step, Timed, Wheel};

/// Steps of the timer wheel in each write. An entry takes at most eight in its life, most of them
/// fewer, so the wheel keeps up with the writes that fill it.
const STEPS_PER_WRITE: usize = 8;

/// Where an entry is, as long as the store does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotId(u32);

/// The entries in memory.
#[derive(Debug)]
pub struct Store<K, V> {
    index: HashTable<u32>,
    slab: Slab<Slot<K, V>>,
    order: Order,
    wheel: Wheel,
    version: u64,
    /// When entries were written, and which writes the file must learn of.
    ledger: Ledger<K>,
}

/// 40 bytes besides key and value; `queue` also tells the slab whether the slot is occupied.
#[derive(Debug)]
pub(crate) struct Slot<K, V> {
    key: K,
    value: V,
    deadline: Deadline,
    hash: u32,
    /// Rank of the record with this key in the opened snapshot, or `NO_ORIGIN`.
    origin: u32,
    /// Low half of the store's version when the entry came in: distinguishes it from a later entry
    /// in the same slot.
    serial: u32,
    order: Link,
    timer: Link,
    bucket: u16,
    /// Written under a shared borrow.
    visits: AtomicU8,
    queue: Queue,
}

const NO_ORIGIN: u32 = u32::MAX;

impl<K, V> Store<K, V> {
    /// An empty store with this order of eviction; the order is tuned for `capacity`, `None` if it
    /// is unlimited.
    pub(crate) fn new(eviction: Eviction, capacity: Option<usize>) -> Self {
        Self {
            index: HashTable::new(),
            slab: Slab::new(),
            order: Order::new(eviction, capacity),
            wheel: Wheel::new(),
            version: 0,
            ledger: Ledger::new(capacity),
        }
    }

    /// Takes out every entry. Versions and stamps continue, so that an earlier ticket or version
    /// names no entry that enters later.
    pub(crate) fn take(&mut self, eviction: Eviction, capacity: Option<usize>) -> Self {
        let (version, ledger) = (self.version + 1, self.ledger.emptied(capacity));
        let empty = Self { version, ledger, ..Self::new(eviction, capacity) };
        std::mem::replace(self, empty)
    }

    /// The number of entries in memory, including expired entries that were not reclaimed yet.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether no entry is in memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Changes whenever a key enters or leaves.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Finds an entry, expired or not.
    #[inline]
    pub fn find(&self, hash: u64, mut eq: impl FnMut(&K) -> bool) -> Option<SlotId> {
        let hash = hash as u32;
        let same = |&id: &u32| {
            let slot = &self.slab[id];
            slot.hash == hash && eq(&slot.key)
        };
        self.index.find(spread(hash), same).map(|&id| SlotId(id))
    }

    /// The `nth` entry whose key has this hash, for keys whose equality may fail or re-enter the
    /// cache: compare its key with nothing borrowed, and continue with the next if they differ.
    /// Begin again if [`Store::version`] changed.
    pub fn candidate(&self, hash: u64, nth: usize) -> Option<SlotId> {
        let hash = hash as u32;
        let mut with_hash = self.index.iter_hash(spread(hash)).filter(|&&id| self.slab[id].hash == hash);
        with_hash.nth(nth).map(|&id| SlotId(id))
    }

    /// Reads an entry without recording a use.
    pub fn entry(&self, id: SlotId) -> Entry<'_, K, V> {
        self.read(id.0, &self.slab[id.0])
    }

    /// Reads the entry named by a ticket, if the entry has not left.
    pub fn redeem(&self, ticket: Ticket) -> Option<Entry<'_, K, V>> {
        let slot = self.slab.get(ticket.slot).filter(|slot| slot.serial == ticket.serial)?;
        Some(self.read(ticket.slot, slot))
    }

    fn read<'a>(&self, id: u32, slot: &'a Slot<K, V>) -> Entry<'a, K, V> {
        let origin = (slot.origin != NO_ORIGIN).then_some(slot.origin);
        let meta = Meta { deadline: slot.deadline, stamp: self.ledger.stamp_of(id), origin };
        Entry { key: &slot.key, value: &slot.value, meta }
    }

    /// The key of an entry.
    pub(crate) fn key(&self, id: SlotId) -> &K {
        &self.slab[id.0].key
    }

    /// The deadline of an entry.
    #[inline]
    pub(crate) fn deadline(&self, id: SlotId) -> Deadline {
        self.slab[id.0].deadline
    }

    /// The value of an entry.
    #[inline]
    pub(crate) fn value(&self, id: SlotId) -> &V {
        &self.slab[id.0].value
    }

    // Times of writing

    pub(crate) fn ledger(&self) -> &Ledger<K> {
        &self.ledger
    }

    pub(crate) fn ledger_mut(&mut self) -> &mut Ledger<K> {
        &mut self.ledger
    }

    /// The lost writes that were not taken out yet.
    pub fn lost(&self) -> &LostWrites<K> {
        self.ledger.lost()
    }

    /// Whether the write of an entry is owed to the file.
    pub(crate) fn owes(&self, id: SlotId) -> bool {
        self.ledger.owes(id.0)
    }

    /// Removes an entry by eviction or expiry. If its write is owed to the file, the write is lost.
    fn part_with(&mut self, id: u32, cause: Cause, removed: &mut Removed<K, V>) {
        let (is_owed, stamp) = (self.ledger.owes(id), self.ledger.stamp_of(id));
        let (key, value) = self.detach(id);
        if is_owed {
            removed.push(None, value, cause);
            self.ledger.lose(key, stamp, &mut removed.forgotten);
        } else {
            removed.push(Some(key), value, cause);
        }
    }

    /// Gives entries their ranks in another snapshot; an entry that `ranks` lacks has none. Returns
    /// those entries.
    pub(crate) fn set_origins(&mut self, ranks: &[(Ticket, Option<Rank>)]) -> Vec<Ticket> {
        let slots = ranks.iter().map(|(ticket, _)| ticket.slot as usize + 1).max().unwrap_or(0);
        let mut is_known = vec![false; slots];
        let mut known = 0;
        for &(ticket, rank) in ranks {
            if self.redeem(ticket).is_some() {
                self.slab[ticket.slot].origin = rank.unwrap_or(NO_ORIGIN);
                is_known[ticket.slot as usize] = true;
                known += 1;
            }
        }
        if known == self.len() {
            return Vec::new();
        }
        let is_unknown = |id: u32| !is_known.get(id as usize).copied().unwrap_or(false);
        let slots = self.slab.iter().filter(|(id, _)| is_unknown(*id));
        let unknown: Vec<_> = slots.map(|(id, slot)| Ticket { slot: id, serial: slot.serial }).collect();
        for ticket in &unknown {
            self.slab[ticket.slot].origin = NO_ORIGIN;
        }
        unknown
    }

    /// Records a use of an entry, as far as a shared borrow can: everything for
    /// [`Eviction::Adaptive`], nothing for [`Eviction::Lru`].
    #[inline]
    pub(crate) fn touch_shared(&self, id: SlotId) {
        self.order.touch_shared(&self.slab[id.0]);
    }

    /// Records a use of an entry.
    pub(crate) fn touch(&mut self, id: SlotId) {
        self.order.touch(&mut self.slab, id.0);
    }

    /// Inserts an entry whose key is not in the store.
    pub(crate) fn insert(&mut self, hash: u64, new: NewEntry<K, V>, debt: Debt) {
        let id = self.enter(hash, new, debt);
        self.order.enter(&mut self.slab, id);
    }

    /// [`Store::insert`], as the entry that is evicted first.
    pub(crate) fn insert_coldest(&mut self, hash: u64, new: NewEntry<K, V>, debt: Debt) {
        let id = self.enter(hash, new, debt);
        self.order.enter_coldest(&mut self.slab, id);
    }

    fn enter(&mut self, hash: u64, new: NewEntry<K, V>, debt: Debt) -> u32 {
        let hash = hash as u32;
        let Meta { deadline, stamp, origin } = new.meta;
        let id = self.slab.insert(Slot {
            key: new.key,
            value: new.value,
            deadline,
            hash,
            origin: origin.unwrap_or(NO_ORIGIN),
            serial: self.version as u32,
            order: Link::UNLINKED,
            timer: Link::UNLINKED,
            bucket: NO_BUCKET,
            visits: AtomicU8::new(0),
            queue: Queue::Main,
        });
        self.index.insert_unique(spread(hash), id, |&id| spread(self.slab[id].hash));
        self.wheel.insert(&mut self.slab, id);
        self.ledger.record(id, stamp, debt);
        self.version += 1;
        id
    }

    /// Replaces the value of an entry, which counts as a use; returns the old value. The entry
    /// keeps its origin.
    #[must_use = "drop the old value where no lock and no borrow of the cache is held"]
    pub(crate) fn replace(
        &mut self,
        id: SlotId,
        value: V,
        deadline: Deadline,
        stamp: Stamp,
        debt: Debt,
    ) -> V {
        self.wheel.remove(&mut self.slab, id.0);
        let slot = &mut self.slab[id.0];
        slot.deadline = deadline;
        let old = std::mem::replace(&mut slot.value, value);
        self.wheel.insert(&mut self.slab, id.0);
        self.order.touch(&mut self.slab, id.0);
        self.ledger.record(id.0, stamp, debt);
        old
    }

    /// Removes an entry.
    pub(crate) fn remove(&mut self, id: SlotId) -> (K, V) {
        self.order.leave(&mut self.slab, id.0);
        self.detach(id.0)
    }

    /// Evicts the entry that is least worth keeping. `false`: there is none.
    pub(crate) fn evict(&mut self, removed: &mut Removed<K, V>) -> bool {
        let id = self.order.evict(&mut self.slab);
        id.is_some_and(|id| {
            self.part_with(id, Cause::Evicted, removed);
            true
        })
    }

    /// Does a few steps of reclaiming expired entries; returns the number of reclaimed entries.
    pub(crate) fn reclaim_some(&mut self, now: Time, removed: &mut Removed<K, V>) -> u64 {
        self.reclaim(now, STEPS_PER_WRITE, removed)
    }

    /// Reclaims all expired entries; returns how many there were.
    pub(crate) fn reclaim_all(&mut self, now: Time, removed: &mut Removed<K, V>) -> u64 {
        self.reclaim(now, usize::MAX, removed)
    }

    fn reclaim(&mut self, now: Time, steps: usize, removed: &mut Removed<K, V>) -> u64 {
        let mut reclaimed = 0;
        for _ in 0..steps {
            match self.wheel.step(&mut self.slab, now) {
                Step::Idle => break,
                Step::Moved => {}
                Step::Expired(id) => {
                    self.order.leave(&mut self.slab, id);
                    self.part_with(id, Cause::Expired, removed);
                    reclaimed += 1;
                }
            }
        }
        reclaimed
    }

    /// The entries from the least to the most worth keeping; for LRU, in the order of use.
    pub(crate) fn coldest_first(&self) -> Vec<Ticket> {
        let ids = self.order.coldest_first(&self.slab).into_iter();
        ids.map(|slot| Ticket { slot, serial: self.slab[slot].serial }).collect()
    }

    /// Begins to list the entries in pieces; see [`crate::listing`].
    pub(crate) fn begin_listing(&mut self) {
        self.order.begin_listing();
    }

    /// Appends the next `n` entries of the listing; see [`crate::listing`].
    pub(crate) fn list_some(&mut self, n: usize, into: &mut Vec<Ticket>) -> Listing {
        let ticket = |slot| Ticket { slot, serial: self.slab[slot].serial };
        self.order.list_some(&self.slab, n, |slot| into.push(ticket(slot)))
    }

    /// All entries, in no order, including expired entries; for a visitor of everything, such as a
    /// garbage collector.
    pub fn iter(&self) -> impl Iterator<Item = Entry<'_, K, V>> {
        self.slab.iter().map(|(id, slot)| self.read(id, slot))
    }

    /// All entries, by key and value, for a caller that drops many of them, a few at a time.
    pub fn into_entries(self) -> impl Iterator<Item = (K, V)> {
        self.slab.into_iter().map(|slot| (slot.key, slot.value))
    }

    /// Checks the invariants; for tests.
    ///
    /// # Panics
    /// If an invariant does not hold.
    pub fn validate(&self) {
        assert_eq!(self.index.len(), self.slab.len(), "the index holds every entry");
        for &id in &self.index {
            let slot = &self.slab[id];
            assert!(
                self.index.iter_hash(spread(slot.hash)).any(|&found| found == id),
                "slot {id} is not found under its hash"
            );
        }
        self.order.validate(&self.slab);
        let timed = self.slab.iter().filter(|(_, slot)| !slot.deadline.is_never()).count();
        assert_eq!(self.wheel.validate(&self.slab), timed, "the wheel holds the entries with a deadline");
    }

    fn detach(&mut self, id: u32) -> (K, V) {
        self.wheel.remove(&mut self.slab, id);
        let hash = self.slab[id].hash;
        let found = self.index.find_entry(spread(hash), |&candidate| candidate == id);
        found.expect("an entry is in the index").remove();
        self.version += 1;
        let slot = self.slab.remove(id).expect("looked at above");
        (slot.key, slot.value)
    }
}

/// The hash of the index, made from the half that is stored with an entry. It carries the low bits
/// upwards, to the tag bits of the index, but not the high bits down: the front's hash must be good
/// in all its bits.
#[inline]
pub(crate) fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl<K, V> Linked for Slot<K, V> {
    #[inline]
    fn link(&self, chain: Chain) -> Link {
        match chain {
            Chain::Order => self.order,
            Chain::Timer => self.timer,
        }
    }

    #[inline]
    fn link_mut(&mut self, chain: Chain) -> &mut Link {
        match chain {
            Chain::Order => &mut self.order,
            Chain::Timer => &mut self.timer,
        }
    }
}

impl<K, V> Timed for Slot<K, V> {
    fn deadline(&self) -> Deadline {
        self.deadline
    }

    fn bucket(&self) -> u16 {
        self.bucket
    }

    fn set_bucket(&mut self, bucket: u16) {
        self.bucket = bucket;
    }
}

impl<K, V> Ordered for Slot<K, V> {
    fn hash(&self) -> u32 {
        self.hash
    }

    #[inline]
    fn visits(&self) -> u8 {
        self.visits.load(Ordering::Relaxed)
    }

    #[inline]
    fn set_visits(&self, visits: u8) {
        self.visits.store(visits, Ordering::Relaxed);
    }

    fn queue(&self) -> Queue {
        self.queue
    }

    fn set_queue(&mut self, queue: Queue) {
        self.queue = queue;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_takes_forty_bytes_besides_key_and_value() {
        assert!(size_of::<Slot<u64, u64>>() <= 40 + 16);
        assert_eq!(size_of::<Option<Slot<u64, u64>>>(), size_of::<Slot<u64, u64>>(), "vacancy costs nothing");
    }
}

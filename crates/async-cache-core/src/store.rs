//! The store: the entries in memory, their order of eviction and their deadlines.
//!
//! Owns a slab of entries and the index over it. Two steps make every operation: *address* an entry by its
//! hash and an equality test ([`Store::find`], or [`Store::candidate`] where equality may fail or re-enter),
//! then *act* on the slot that was found. Nothing may change the store between the two; [`Store::version`]
//! tells whether anything did.
//!
//! Invariants:
//! 1. the index, the order of eviction and (for entries with a deadline) the timer wheel hold exactly the
//!    occupied slots;
//! 2. at most one entry of a key: `insert` is for keys that `find` did not find;
//! 3. no user code runs here but the equality test of `find`. Keys and values that go are handed out in
//!    [`Removed`], to be dropped where nothing is borrowed;
//! 4. an entry is reclaimed by bounded work in later writes; a read never serves it after its deadline,
//!    reclaimed or not.
//!
//! A hash has to be well mixed in all its bits. The upper half is the front's, to choose a shard; the store
//! uses the lower half.

use std::sync::atomic::{AtomicU8, Ordering};

use hashbrown::HashTable;

use crate::cold::Rank;
use crate::listing::Listing;
use crate::lost::LostWrites;
use crate::order::{Eviction, Order, Ordered, Queue};
use crate::slab::{Chain, Link, Linked, Slab};
use crate::time::{Deadline, Time};
use crate::timer::{NO_BUCKET, Step, Timed, Wheel};
use crate::written::Written;

/// Steps of the timer wheel that one write does. An entry takes at most eight in its life, most of them
/// fewer, so the wheel keeps up with the writes that fill it.
const STEPS_PER_WRITE: usize = 8;

/// Where an entry is, as long as the store does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotId(u32);

/// Names one entry from when it came in to when it leaves, whatever happens to the store. (Serials wrap after
/// 2^32 comings and goings; a ticket is meant to be kept for the length of a save.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    slot: u32,
    serial: u32,
}

impl Ticket {
    pub(crate) const fn slot(self) -> u32 {
        self.slot
    }
}

/// The entries in memory.
#[derive(Debug)]
pub struct Store<K, V> {
    index: HashTable<u32>,
    slab: Slab<Slot<K, V>>,
    order: Order,
    wheel: Wheel,
    version: u64,
    /// When entries were written, if that is kept.
    written: Option<Written>,
    /// What left before it was saved, if that is kept.
    lost: LostWrites<K>,
    /// How many were lost, ever, but for those that had just expired when a save began.
    losses: u64,
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
    /// Low half of the store's version when the entry came in: tells it from a later entry in the same slot.
    serial: u32,
    order: Link,
    timer: Link,
    bucket: u16,
    /// Written under a shared borrow.
    visits: AtomicU8,
    queue: Queue,
}

const NO_ORIGIN: u32 = u32::MAX;

/// An entry to be written.
#[derive(Debug)]
pub struct NewEntry<K, V> {
    /// The key, not in the store yet.
    pub key: K,
    /// Its value.
    pub value: V,
    /// When it stops being served.
    pub deadline: Deadline,
    /// The rank of the record with this key in the opened snapshot, if there is one, cold or not.
    pub origin: Option<Rank>,
    /// When it was written, in nanoseconds since the Unix epoch, if it comes from a file; `None`: it is written now.
    pub written_at: Option<u64>,
}

/// An entry as it is read.
#[derive(Debug)]
pub struct Entry<'a, K, V> {
    /// The key.
    pub key: &'a K,
    /// The value.
    pub value: &'a V,
    /// When it stops being served.
    pub deadline: Deadline,
    /// The rank of the record with this key in the opened snapshot, if there is one.
    pub origin: Option<Rank>,
}

/// Keys and values that left the store. Drop it where no lock and no borrow of the cache is held: dropping
/// runs user code. One entry costs no allocation.
#[derive(Debug)]
#[must_use = "drop it where no lock and no borrow of the cache is held"]
pub struct Removed<K, V> {
    first: Option<(Option<K>, V)>,
    more: Vec<(Option<K>, V)>,
    /// Of entries that left earlier, and that there were too many of.
    forgotten: Vec<K>,
}

impl<K, V> Default for Removed<K, V> {
    fn default() -> Self {
        Self { first: None, more: Vec::new(), forgotten: Vec::new() }
    }
}

impl<K, V> Removed<K, V> {
    /// How many values left.
    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    /// Whether none left.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The values that left, each with its key, unless that stays: the value was replaced under it, or it is kept as a
    /// [lost write](crate::lost).
    pub fn into_entries(self) -> impl Iterator<Item = (Option<K>, V)> {
        self.first.into_iter().chain(self.more)
    }

    pub(crate) fn push(&mut self, key: Option<K>, value: V) {
        match self.first {
            None => self.first = Some((key, value)),
            Some(_) => self.more.push((key, value)),
        }
    }
}

impl<K, V> Store<K, V> {
    /// An empty store that evicts in this order; `capacity` is what the order is tuned for, `None` if it is
    /// unlimited.
    pub fn new(eviction: Eviction, capacity: Option<usize>) -> Self {
        Self {
            index: HashTable::new(),
            slab: Slab::new(),
            order: Order::new(eviction, capacity),
            wheel: Wheel::new(),
            version: 0,
            written: None,
            lost: LostWrites::new(capacity),
            losses: 0,
        }
    }

    /// Hands out everything that is in the store. The versions go on, so that a ticket or a version of before
    /// names nothing of what comes in later.
    pub(crate) fn take(&mut self, eviction: Eviction, capacity: Option<usize>) -> Self {
        let written = self.written.as_ref().map(Written::emptied);
        let (version, losses) = (self.version + 1, self.losses);
        let empty = Self { version, written, losses, ..Self::new(eviction, capacity) };
        std::mem::replace(self, empty)
    }

    /// How many entries are in memory, expired ones that were not reclaimed yet included.
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

    /// The `nth` entry whose key has this hash, for keys whose equality may fail or re-enter the cache:
    /// compare its key with nothing borrowed, and go on with the next one if they differ. Begin again if
    /// [`Store::version`] changed.
    pub fn candidate(&self, hash: u64, nth: usize) -> Option<SlotId> {
        let hash = hash as u32;
        let mut with_hash = self.index.iter_hash(spread(hash)).filter(|&&id| self.slab[id].hash == hash);
        with_hash.nth(nth).map(|&id| SlotId(id))
    }

    /// Reads an entry without touching it.
    #[inline]
    pub fn entry(&self, id: SlotId) -> Entry<'_, K, V> {
        self.slab[id.0].entry()
    }

    /// Reads the entry that a ticket names, if it is still there.
    pub fn redeem(&self, ticket: Ticket) -> Option<Entry<'_, K, V>> {
        let slot = self.slab.get(ticket.slot).filter(|slot| slot.serial == ticket.serial)?;
        Some(slot.entry())
    }

    /// When the entry that a ticket names was written, in nanoseconds since the Unix epoch; zero if that is not kept,
    /// or not known.
    pub fn written_at(&self, ticket: Ticket) -> u64 {
        self.written.as_ref().map_or(0, |written| written.get(ticket.slot))
    }

    /// Whether times of writing are kept.
    pub fn keeps_times(&self) -> bool {
        self.written.is_some()
    }

    /// The times of writing, if they are kept.
    pub(crate) fn written_mut(&mut self) -> &mut Option<Written> {
        &mut self.written
    }

    /// Notes when an entry was written, and whether that is owed to the file.
    #[inline]
    pub(crate) fn set_written(&mut self, id: SlotId, time: u64, is_owed: bool) {
        if let Some(written) = &mut self.written {
            written.set(id.0, time);
            if is_owed {
                written.owed_mut().insert(id.0);
            }
        }
    }

    /// Whether the write of an entry is owed to the file.
    pub(crate) fn is_owed(&self, id: SlotId) -> bool {
        self.written.as_ref().is_some_and(|written| written.owed().contains(id.0))
    }

    /// Takes an entry's key and value away for good. If its write is owed to the file, that is a lost one.
    fn part_with(&mut self, id: SlotId, removed: &mut Removed<K, V>) {
        let is_owed = self.is_owed(id);
        let (key, value) = self.detach(id.0);
        if is_owed {
            let written_at = self.written.as_ref().map_or(0, |written| written.get(id.0));
            removed.push(None, value);
            self.lose(key, written_at, removed);
        } else {
            removed.push(Some(key), value);
        }
    }

    /// Notes a lost write.
    pub(crate) fn lose(&mut self, key: K, written_at: u64, removed: &mut Removed<K, V>) {
        self.losses += 1;
        self.lost.push(key, written_at, &mut removed.forgotten);
    }

    /// How many writes were lost, ever, but for those that had just expired when a save began.
    pub(crate) fn losses(&self) -> u64 {
        self.losses
    }

    /// Counts on from what [`Store::losses`] was.
    pub(crate) fn count_losses(&mut self, losses: u64) {
        self.losses = losses;
    }

    /// What was lost.
    pub fn lost(&self) -> &LostWrites<K> {
        &self.lost
    }

    pub(crate) fn take_back(&mut self, lost: LostWrites<K>) {
        self.lost.take_back(lost);
    }

    pub(crate) fn take_lost(&mut self) -> LostWrites<K> {
        self.lost.take()
    }

    /// Names for every entry its rank in another snapshot. `false`, and nothing is changed, if these are not
    /// exactly the entries that there are.
    pub(crate) fn set_origins(&mut self, ranks: &[(Ticket, Option<Rank>)]) -> bool {
        if ranks.len() != self.len() || ranks.iter().any(|&(ticket, _)| self.redeem(ticket).is_none()) {
            return false;
        }
        for &(ticket, rank) in ranks {
            self.slab[ticket.slot].origin = rank.unwrap_or(NO_ORIGIN);
        }
        true
    }

    /// Notes a use of an entry, as far as that can be done with a shared borrow: everything for
    /// [`Eviction::Adaptive`], nothing for [`Eviction::Lru`].
    #[inline]
    pub fn touch_shared(&self, id: SlotId) {
        self.order.touch_shared(&self.slab[id.0]);
    }

    /// Notes a use of an entry.
    pub fn touch(&mut self, id: SlotId) {
        self.order.touch(&mut self.slab, id.0);
    }

    /// Puts in an entry whose key is not in the store.
    pub fn insert(&mut self, hash: u64, new: NewEntry<K, V>) -> SlotId {
        let id = self.enter(hash, new);
        self.order.enter(&mut self.slab, id);
        SlotId(id)
    }

    /// Like [`Store::insert`], but as the entry that is evicted first.
    pub fn insert_coldest(&mut self, hash: u64, new: NewEntry<K, V>) -> SlotId {
        let id = self.enter(hash, new);
        self.order.enter_coldest(&mut self.slab, id);
        SlotId(id)
    }

    fn enter(&mut self, hash: u64, new: NewEntry<K, V>) -> u32 {
        let hash = hash as u32;
        let id = self.slab.insert(Slot {
            key: new.key,
            value: new.value,
            deadline: new.deadline,
            hash,
            origin: new.origin.unwrap_or(NO_ORIGIN),
            serial: self.version as u32,
            order: Link::UNLINKED,
            timer: Link::UNLINKED,
            bucket: NO_BUCKET,
            visits: AtomicU8::new(0),
            queue: Queue::Main,
        });
        self.index.insert_unique(spread(hash), id, |&id| spread(self.slab[id].hash));
        self.wheel.insert(&mut self.slab, id);
        self.version += 1;
        id
    }

    /// Gives an entry another value and deadline, and counts as a use of it; returns the old value.
    #[must_use = "drop the old value where no lock and no borrow of the cache is held"]
    pub fn replace(&mut self, id: SlotId, value: V, deadline: Deadline) -> V {
        self.wheel.remove(&mut self.slab, id.0);
        let slot = &mut self.slab[id.0];
        slot.deadline = deadline;
        let old = std::mem::replace(&mut slot.value, value);
        self.wheel.insert(&mut self.slab, id.0);
        self.order.touch(&mut self.slab, id.0);
        old
    }

    /// Takes an entry out.
    pub fn remove(&mut self, id: SlotId) -> (K, V) {
        self.order.leave(&mut self.slab, id.0);
        self.detach(id.0)
    }

    /// Takes out the entry that is to be evicted next. `false`: there is none.
    pub fn evict(&mut self, removed: &mut Removed<K, V>) -> bool {
        let id = self.order.evict(&mut self.slab);
        id.is_some_and(|id| {
            self.part_with(SlotId(id), removed);
            true
        })
    }

    /// Does a few steps of reclaiming expired entries; returns how many it reclaimed.
    pub fn reclaim_some(&mut self, now: Time, removed: &mut Removed<K, V>) -> u64 {
        self.reclaim(now, STEPS_PER_WRITE, removed)
    }

    /// Reclaims all expired entries; returns how many there were.
    pub fn reclaim_all(&mut self, now: Time, removed: &mut Removed<K, V>) -> u64 {
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
                    self.part_with(SlotId(id), removed);
                    reclaimed += 1;
                }
            }
        }
        reclaimed
    }

    /// The entries from the least to the most worth keeping; for LRU, in the order of use.
    pub fn coldest_first(&self) -> Vec<Ticket> {
        let ids = self.order.coldest_first(&self.slab).into_iter();
        ids.map(|slot| Ticket { slot, serial: self.slab[slot].serial }).collect()
    }

    /// Begins to list the entries in pieces; see [`crate::listing`].
    pub fn begin_listing(&mut self) {
        self.order.begin_listing();
    }

    /// Appends the next `n` entries of the listing; see [`crate::listing`].
    pub fn list_some(&mut self, n: usize, into: &mut Vec<Ticket>) -> Listing {
        let ticket = |slot| Ticket { slot, serial: self.slab[slot].serial };
        self.order.list_some(&self.slab, n, |slot| into.push(ticket(slot)))
    }

    /// All entries, in no order, expired ones included; for those who have to visit everything.
    pub fn iter(&self) -> impl Iterator<Item = Entry<'_, K, V>> {
        self.slab.iter().map(|(_, slot)| slot.entry())
    }

    /// All entries, by key and value, for those that drop many of them a few at a time.
    pub fn into_entries(self) -> impl Iterator<Item = (K, V)> {
        self.slab.into_iter().map(|slot| (slot.key, slot.value))
    }

    /// Checks the invariants; for tests.
    ///
    /// # Panics
    /// If one does not hold.
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

/// The hash of the index, made from the half that is stored with an entry. It carries the low bits upwards,
/// where the index takes its tags from, but not the high bits down: the front's hash has to be a good one in
/// all its bits.
#[inline]
pub(crate) fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl<K, V> Slot<K, V> {
    #[inline]
    fn entry(&self) -> Entry<'_, K, V> {
        let origin = (self.origin != NO_ORIGIN).then_some(self.origin);
        Entry { key: &self.key, value: &self.value, deadline: self.deadline, origin }
    }
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

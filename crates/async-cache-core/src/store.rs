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
//!    deadline, reclaimed or not;
//! 5. a suspect entry is not served until it is written anew. See `era`.
//!
//! `slot` has the layout of an entry.
//!
//! A hash must be well mixed in all its bits. The upper half belongs to the front, to choose a
//! shard; the store uses the lower half.

mod slot;

use hashbrown::HashTable;

use crate::cold::Rank;
use crate::entry::{Entry, Meta, NewEntry};
use crate::era::{Era, Marks};
use crate::ledger::{Debt, Ledger, LostWrites};
use crate::listing::Listing;
use crate::order::{Eviction, Order, Queue};
use crate::removed::{Cause, Removed};
use crate::slab::{Link, Slab, Ticket};
use crate::time::{Deadline, Stamp, Time};
use crate::timer::{NO_BUCKET, Wheel, WheelStep};

pub(crate) use self::slot::Slot;
use self::slot::{Head, NO_ORIGIN, Tail};

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
    /// Entries of another era are suspect.
    era: Era,
    /// How many entries are suspect.
    suspects: usize,
    /// When entries were written, and which writes the file must learn of.
    ledger: Ledger<K>,
}

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
            era: Era::FIRST,
            suspects: 0,
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
            slot.head.hash == hash && eq(&slot.key)
        };
        self.index.find(spread(hash), same).map(|&id| SlotId(id))
    }

    /// Finds an entry and reads it, expired or not.
    #[inline]
    fn look_up(&self, hash: u64, mut eq: impl FnMut(&K) -> bool) -> Option<(u32, &Slot<K, V>)> {
        let hash = hash as u32;
        let mut found = None;
        let id = self.index.find(spread(hash), |&id| match self.slab.get(id) {
            Some(slot) if slot.head.hash == hash && eq(&slot.key) => {
                found = Some(slot);
                true
            }
            _ => false,
        });
        id.copied().zip(found)
    }

    /// Calls `read` with the value of a key and records the use, with one look at the slot. `None`
    /// if the key has no entry, its entry is suspect, or the deadline of its entry has passed.
    #[inline]
    pub(crate) fn hit<R>(
        &self,
        hash: u64,
        eq: impl FnMut(&K) -> bool,
        has_passed: impl FnOnce(Deadline) -> bool,
        read: impl FnOnce(&V) -> R,
    ) -> Option<R> {
        let (_, slot) = self.look_up(hash, eq)?;
        let visits = slot.head.marks.visits_in(self.era)?; // Invariant 5
        if !slot.head.deadline.is_never() && has_passed(slot.head.deadline) {
            return None;
        }
        self.order.touch_shared(slot, visits);
        Some(read(&slot.value))
    }

    /// [`Store::hit`], with the use recorded in the order of eviction.
    #[inline]
    pub(crate) fn hit_mut<R>(
        &mut self,
        hash: u64,
        eq: impl FnMut(&K) -> bool,
        has_passed: impl FnOnce(Deadline) -> bool,
        read: impl FnOnce(&V) -> R,
    ) -> Option<R> {
        let (id, slot) = self.look_up(hash, eq)?;
        let visits = slot.head.marks.visits_in(self.era)?; // Invariant 5
        if !slot.head.deadline.is_never() && has_passed(slot.head.deadline) {
            return None;
        }
        let value = read(&slot.value);
        if self.order.moves_on_use() {
            let link = slot.tail.order;
            self.order.move_back(&mut self.slab, id, link);
        } else {
            self.order.touch_shared(slot, visits);
        }
        Some(value)
    }

    /// The `nth` entry whose key has this hash, for keys whose equality may fail or re-enter the
    /// cache: compare its key with nothing borrowed, and continue with the next if they differ.
    /// Begin again if [`Store::version`] changed.
    pub fn candidate(&self, hash: u64, nth: usize) -> Option<SlotId> {
        let hash = hash as u32;
        let mut with_hash = self.index.iter_hash(spread(hash)).filter(|&&id| self.slab[id].head.hash == hash);
        with_hash.nth(nth).map(|&id| SlotId(id))
    }

    /// Reads an entry without recording a use.
    pub fn entry(&self, id: SlotId) -> Entry<'_, K, V> {
        self.read(id.0, &self.slab[id.0])
    }

    /// Reads the entry named by a ticket, if the entry has not left.
    pub fn redeem(&self, ticket: Ticket) -> Option<Entry<'_, K, V>> {
        let slot = self.slab.get(ticket.slot).filter(|slot| slot.tail.serial == ticket.serial)?;
        Some(self.read(ticket.slot, slot))
    }

    fn read<'a>(&self, id: u32, slot: &'a Slot<K, V>) -> Entry<'a, K, V> {
        let origin = (slot.tail.origin != NO_ORIGIN).then_some(slot.tail.origin);
        let meta = Meta { deadline: slot.head.deadline, stamp: self.ledger.stamp_of(id), origin };
        Entry { key: &slot.key, value: &slot.value, meta }
    }

    /// The key of an entry.
    pub(crate) fn key(&self, id: SlotId) -> &K {
        &self.slab[id.0].key
    }

    /// The deadline of an entry.
    #[inline]
    pub(crate) fn deadline(&self, id: SlotId) -> Deadline {
        self.slab[id.0].head.deadline
    }

    /// The value of an entry.
    #[inline]
    pub(crate) fn value(&self, id: SlotId) -> &V {
        &self.slab[id.0].value
    }

    // Suspect entries

    /// Makes every entry suspect.
    pub(crate) fn suspect_all(&mut self) {
        self.suspects = self.len();
        if let Some(next) = self.era.next() {
            self.era = next;
            return;
        }
        // Rule 3 of `era`
        self.era = Era::FIRST;
        self.slab.iter().for_each(|(_, slot)| slot.head.marks.set_era(Era::ANCIENT));
    }

    /// Makes an entry suspect.
    pub(crate) fn suspect(&mut self, id: SlotId) {
        if !self.is_suspect(id) {
            self.slab[id.0].head.marks.set_era(Era::ANCIENT);
            self.suspects += 1;
        }
    }

    /// Whether an entry is suspect.
    #[inline]
    pub(crate) fn is_suspect(&self, id: SlotId) -> bool {
        self.slab[id.0].head.marks.visits_in(self.era).is_none()
    }

    /// How many entries are suspect.
    pub fn suspects(&self) -> usize {
        self.suspects
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
            removed.push_stamped(Some(key), value, cause, stamp);
        }
    }

    /// The entries whose stamps are in this range, in no order.
    pub(crate) fn stamped_within(
        &self,
        range: std::ops::RangeInclusive<Stamp>,
    ) -> impl Iterator<Item = (Stamp, Ticket)> {
        self.slab.iter().filter_map(move |(id, slot)| {
            let stamp = self.ledger.stamp_of(id);
            range.contains(&stamp).then_some((stamp, Ticket { slot: id, serial: slot.tail.serial }))
        })
    }

    /// Replaces the place of an entry by another, if the entry has not left, and its place is
    /// still `from`.
    pub(crate) fn move_place(&mut self, ticket: Ticket, from: Stamp, to: Stamp) {
        if self.redeem(ticket).is_some() {
            self.ledger.move_place(ticket.slot, from, to);
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
                self.slab[ticket.slot].tail.origin = rank.unwrap_or(NO_ORIGIN);
                is_known[ticket.slot as usize] = true;
                known += 1;
            }
        }
        if known == self.len() {
            return Vec::new();
        }
        let is_unknown = |id: u32| !is_known.get(id as usize).copied().unwrap_or(false);
        let slots = self.slab.iter().filter(|(id, _)| is_unknown(*id));
        let unknown: Vec<_> = slots.map(|(id, slot)| Ticket { slot: id, serial: slot.tail.serial }).collect();
        for ticket in &unknown {
            self.slab[ticket.slot].tail.origin = NO_ORIGIN;
        }
        unknown
    }

    /// Records a use of an entry.
    pub(crate) fn touch(&mut self, id: SlotId) {
        self.order.touch(&mut self.slab, id.0);
    }

    /// Inserts an entry whose key is not in the store.
    pub(crate) fn insert(&mut self, hash: u64, new: NewEntry<K, V>, debt: Debt) -> SlotId {
        let queue = self.order.choose(&mut self.slab, hash as u32);
        let id = self.enter(hash, new, debt, queue);
        self.order.enter(&mut self.slab, id, queue);
        SlotId(id)
    }

    /// [`Store::insert`], as the entry that is evicted first.
    pub(crate) fn insert_coldest(&mut self, hash: u64, new: NewEntry<K, V>, debt: Debt) -> SlotId {
        let id = self.enter(hash, new, debt, Queue::Main);
        self.order.enter_coldest(&mut self.slab, id);
        SlotId(id)
    }

    /// Makes the slot of an entry, linked to the back of its queue, and inserts the slot everywhere
    /// but into the queue.
    #[inline]
    fn enter(&mut self, hash: u64, new: NewEntry<K, V>, debt: Debt, queue: Queue) -> u32 {
        let hash = hash as u32;
        let Meta { deadline, stamp, origin } = new.meta;
        let id = self.slab.insert(Slot {
            head: Head { deadline, hash, bucket: NO_BUCKET, marks: Marks::unvisited(self.era), queue },
            key: new.key,
            value: new.value,
            tail: Tail {
                order: self.order.back(queue),
                timer: Link::UNLINKED,
                origin: origin.unwrap_or(NO_ORIGIN),
                serial: self.version as u32,
            },
        });
        self.index.insert_unique(spread(hash), id, |&id| spread(self.slab[id].head.hash));
        self.wheel.insert(&mut self.slab, id, deadline);
        self.ledger.record(id, stamp, debt);
        self.version += 1;
        id
    }

    /// Replaces the value of an entry, which counts as a use; returns the old value. The entry
    /// keeps its origin and its ticket, and is not suspect any more.
    #[must_use = "drop the old value where no lock and no borrow of the cache is held"]
    pub(crate) fn replace(
        &mut self,
        id: SlotId,
        value: V,
        deadline: Deadline,
        stamp: Stamp,
        debt: Debt,
    ) -> V {
        let slot = &mut self.slab[id.0];
        slot.head.deadline = deadline;
        if slot.head.marks.visits_in(self.era).is_none() {
            slot.head.marks.set_era(self.era);
            self.suspects -= 1;
        }
        let old = std::mem::replace(&mut slot.value, value);
        self.wheel.replace(&mut self.slab, id.0, deadline);
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
    #[inline]
    pub(crate) fn reclaim_some(&mut self, now: Time, removed: &mut Removed<K, V>) -> u64 {
        if self.wheel.is_idle(now) { 0 } else { self.reclaim(now, STEPS_PER_WRITE, removed) }
    }

    /// Whether an entry may have a deadline.
    #[inline]
    pub(crate) fn watches_time(&self) -> bool {
        !self.wheel.is_empty()
    }

    /// Reclaims all expired entries; returns how many there were.
    pub(crate) fn reclaim_all(&mut self, now: Time, removed: &mut Removed<K, V>) -> u64 {
        self.reclaim(now, usize::MAX, removed)
    }

    fn reclaim(&mut self, now: Time, steps: usize, removed: &mut Removed<K, V>) -> u64 {
        let mut reclaimed = 0;
        for _ in 0..steps {
            match self.wheel.step(&mut self.slab, now) {
                WheelStep::Idle => break,
                WheelStep::Moved => {}
                WheelStep::Expired(id) => {
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
        ids.map(|slot| Ticket { slot, serial: self.slab[slot].tail.serial }).collect()
    }

    /// Begins to list the entries in pieces; see [`crate::listing`].
    pub(crate) fn begin_listing(&mut self) {
        self.order.begin_listing();
    }

    /// Appends the next `n` entries of the listing; see [`crate::listing`].
    pub(crate) fn list_some(&mut self, n: usize, into: &mut Vec<Ticket>) -> Listing {
        let ticket = |slot| Ticket { slot, serial: self.slab[slot].tail.serial };
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
                self.index.iter_hash(spread(slot.head.hash)).any(|&found| found == id),
                "slot {id} is not found under its hash"
            );
        }
        self.order.validate(&self.slab);
        let timed = self.slab.iter().filter(|(_, slot)| !slot.head.deadline.is_never()).count();
        assert_eq!(self.wheel.validate(&self.slab), timed, "the wheel holds the entries with a deadline");
        let suspects = self.slab.iter().filter(|(id, _)| self.is_suspect(SlotId(*id))).count();
        assert_eq!(self.suspects, suspects, "the count of suspect entries");
    }

    fn detach(&mut self, id: u32) -> (K, V) {
        let slot = self.slab.remove(id).expect("the order and the wheel hold occupied slots");
        self.wheel.forget(&mut self.slab, slot.head.bucket, slot.tail.timer);
        let found = self.index.find_entry(spread(slot.head.hash), |&candidate| candidate == id);
        found.expect("an entry is in the index").remove();
        self.suspects -= usize::from(slot.head.marks.visits_in(self.era).is_none());
        self.version += 1;
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

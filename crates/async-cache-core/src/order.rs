//! The order of eviction: which entry makes room for another.
//!
//! Owns the queues (the `Chain::Order` links of the slots) and the memory of recent evictions. Two
//! policies:
//!
//! **[`Eviction::Lru`]**: a single queue, strictly least recently used first. A hit moves its
//! entry, so the hit needs the shard exclusively.
//!
//! **[`Eviction::Adaptive`]**: S3-FIFO (Yang et al., SOSP 2023) with a small queue that finds its
//! own size, as in ARC (Megiddo and Modha, FAST 2003). A hit only raises a small counter in its
//! entry, so the hit needs only a shared borrow. Two queues, both first in first out: *small* for
//! entries on probation, *main* for entries that were used again; and a *ghost*, a table of
//! fingerprints of evicted entries and the queue they left from. Rules:
//! 1. Hit: `visits` goes up by one, to `MAX_VISITS` at most.
//! 2. Insert: into small; into main if the ghost remembers the key as evicted from small, because
//!    it was evicted too early.
//! 3. A ghost hit moves `target`, the desired size of small, towards the queue from which the key
//!    was evicted, by a quarter of an entry, weighted by how few of the remembered evictions came
//!    from there.
//! 4. While the cache is not full, small passes its oldest entry to main once it has reached
//!    `target`.
//! 5. Evict: take the oldest of small if small has reached `target` or main is empty, else the
//!    oldest of main. If the entry was visited, it moves: from small to main with its visits reset,
//!    within main to the back with one visit less, and the search continues, for `SCAN` steps at
//!    most. If the entry was not visited, it is evicted, and the ghost remembers it.
//!
//! The reasons, the traces and the rejected alternatives: `docs/design/0002-eviction.md`.
//!
//! The order can be listed in pieces, while it changes: see [`crate::listing`].

use crate::listing::{Cursor, Listing};
use crate::slab::{Chain, Link, Linked, List, NONE, Slab};

/// Which entries make room for others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Eviction {
    /// The order with the cheapest hits, and with LRU's hit ratio or a better one on every trace on
    /// which it was chosen: entries that are used once do not push out entries that are used again.
    #[default]
    Adaptive,
    /// Strictly the least recently used first.
    Lru,
}

/// The most visits that are counted: two bits, see [`crate::era`].
pub(crate) const MAX_VISITS: u8 = 3;

/// The longest search for a victim, so that an insertion takes bounded time even if every entry was
/// visited.
const SCAN: usize = 64;

/// `target` counts in parts of an entry, because ghost hits move it by less than one.
const ONE: u64 = 1 << 16;
/// Bounds of `target` and its first value, in hundredths of the capacity.
const TARGET_MIN: u64 = 5;
const TARGET_MAX: u64 = 90;
const TARGET_START: u64 = 10;

/// The queue of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queue {
    Small,
    Main,
}

/// A slot, as needed by the order.
pub(crate) trait Ordered: Linked {
    fn hash(&self) -> u32;
    fn visits(&self) -> u8;
    /// Under a shared borrow, and so lossy: of two simultaneous visits, one may be lost.
    fn set_visits(&self, visits: u8);
    fn queue(&self) -> Queue;
    fn set_queue(&mut self, queue: Queue);
}

#[derive(Debug)]
pub(crate) struct Order {
    eviction: Eviction,
    /// Oldest first. LRU uses main alone.
    small: Fifo,
    main: Fifo,
    /// `None`: unlimited, nothing is ever evicted, and all entries stay in the order of insertion.
    capacity: Option<u64>,
    /// The desired size of small, in units of 1 / [`ONE`] entries.
    target: u64,
    /// Recent evictions from small and from main; halved together, so that old evictions count
    /// less.
    evicted: [u64; 2],
    ghost: Ghost,
    /// The position of the running listing, if any. Only with LRU is it ever in the middle of a
    /// queue.
    cursor: Cursor,
}

#[derive(Clone, Copy, Debug)]
struct Fifo {
    list: List,
    len: u64,
}

impl Fifo {
    const EMPTY: Self = Self { list: List::EMPTY, len: 0 };

    /// Removes the head; `next` is the slot after it.
    #[inline]
    fn pop_front<T: Linked>(&mut self, slab: &mut Slab<T>, next: u32) {
        self.list.bridge(slab, Chain::Order, Link { prev: NONE, next });
        self.len -= 1;
    }
}

impl Order {
    pub(crate) fn new(eviction: Eviction, capacity: Option<usize>) -> Self {
        let capacity = capacity.map(|capacity| capacity as u64);
        Self {
            eviction,
            small: Fifo::EMPTY,
            main: Fifo::EMPTY,
            capacity,
            target: capacity.map_or(0, |capacity| percent(capacity, TARGET_START)),
            evicted: [0; 2],
            ghost: Ghost::default(),
            cursor: Cursor::IDLE,
        }
    }

    /// Notes a use, as far as a shared borrow can. `visits`: the slot's, which the caller has read.
    #[inline]
    pub(crate) fn touch_shared<T: Ordered>(&self, slot: &T, visits: u8) {
        if self.eviction == Eviction::Adaptive && visits < MAX_VISITS {
            slot.set_visits(visits + 1);
        }
    }

    /// Records a use.
    #[inline(always)]
    #[allow(clippy::inline_always)] // a call of its own is a tenth of a hit
    pub(crate) fn touch<T: Ordered>(&mut self, slab: &mut Slab<T>, id: u32) {
        match self.eviction {
            Eviction::Adaptive => self.touch_shared(&slab[id], slab[id].visits()),
            Eviction::Lru => self.move_back(slab, id, slab[id].link(Chain::Order)),
        }
    }

    /// Moves an entry with this link to the place of the most recently used entry. For
    /// [`Eviction::Lru`].
    #[inline]
    pub(crate) fn move_back<T: Ordered>(&mut self, slab: &mut Slab<T>, id: u32, link: Link) {
        // A hot key is often requested twice in a row.
        if self.main.list.tail != id {
            self.cursor.before_unlink(slab, id);
            self.main.list.bridge(slab, Chain::Order, link);
            self.main.list.push_back(slab, Chain::Order, id);
        }
    }

    /// Whether a use moves the entry.
    #[inline]
    pub(crate) fn moves_on_use(&self) -> bool {
        self.eviction == Eviction::Lru
    }

    /// Chooses the queue of a new entry whose key has this hash. The store has made room before. It
    /// then makes the slot with the queue and with [`Order::back`], and calls [`Order::enter`].
    #[inline]
    pub(crate) fn choose<T: Ordered>(&mut self, slab: &mut Slab<T>, hash: u32) -> Queue {
        let (Eviction::Adaptive, Some(capacity)) = (self.eviction, self.capacity) else { return Queue::Main };
        let left_from = self.ghost.forget(hash);
        if let Some(queue) = left_from {
            self.adapt(queue, capacity); // Rule 3
        }
        if self.small.len + self.main.len + 1 < capacity && self.small_is_due() {
            self.graduate(slab); // Rule 4
        }
        if left_from == Some(Queue::Small) { Queue::Main } else { Queue::Small } // Rule 2
    }

    /// The link of an entry that enters a queue.
    #[inline]
    pub(crate) fn back(&mut self, queue: Queue) -> Link {
        self.queue(queue).list.back()
    }

    /// Appends a new entry to its queue. The slot has [`Order::back`] as its link.
    #[inline]
    pub(crate) fn enter<T: Ordered>(&mut self, slab: &mut Slab<T>, id: u32, queue: Queue) {
        let fifo = self.queue(queue);
        fifo.list.adopt_back(slab, Chain::Order, id);
        fifo.len += 1;
    }

    /// Takes in an entry from a backup, as the first to go.
    pub(crate) fn enter_coldest<T: Ordered>(&mut self, slab: &mut Slab<T>, id: u32) {
        slab[id].set_queue(Queue::Main);
        self.main.list.push_front(slab, Chain::Order, id);
        self.main.len += 1;
    }

    /// Unlinks an entry that was removed, expired or replaced by nothing.
    pub(crate) fn leave<T: Ordered>(&mut self, slab: &mut Slab<T>, id: u32) {
        self.unlink(slab, id);
    }

    /// Chooses the entry to be evicted, and unlinks it.
    pub(crate) fn evict<T: Ordered>(&mut self, slab: &mut Slab<T>) -> Option<u32> {
        for step in 1.. {
            let has_main = !self.main.list.is_empty();
            let is_small = self.small_is_due() || !(has_main || self.small.list.is_empty());
            let queue = if is_small { Queue::Small } else { Queue::Main };
            let id = self.queue(queue).list.head;
            if id == NONE {
                return None;
            }
            self.cursor.before_unlink(slab, id);
            let slot = &mut slab[id];
            let (visits, hash, next) = (slot.visits(), slot.hash(), slot.link(Chain::Order).next);
            self.queue(queue).pop_front(slab, next);
            if visits == 0 || step == SCAN {
                self.remember(hash, queue);
                return Some(id);
            }
            slab[id].set_visits(if is_small { 0 } else { visits - 1 });
            self.push(slab, id, Queue::Main);
        }
        unreachable!("the search ends after {SCAN} steps")
    }

    /// All entries, from the least to the most worth keeping: entries without visits from the
    /// oldest on, then entries with one, two and three. For LRU, this is the order of use. Each
    /// count of visits is read once, because it may rise meanwhile: entries are listed under a
    /// shared borrow.
    pub(crate) fn coldest_first<T: Ordered>(&self, slab: &Slab<T>) -> Vec<u32> {
        let main = self.main.list.iter(slab, Chain::Order);
        let all = main.chain(self.small.list.iter(slab, Chain::Order));
        let mut by_visits = [const { Vec::new() }; MAX_VISITS as usize + 1];
        all.for_each(|id| by_visits[usize::from(slab[id].visits())].push(id));
        by_visits.concat()
    }

    /// Begins to list all entries in pieces, from the beginning if a listing runs.
    pub(crate) fn begin_listing(&mut self) {
        self.cursor.begin(self.small.len + self.main.len);
    }

    /// Lists the next `n` entries, or all of them if the order is not the order of use.
    pub(crate) fn list_some<T: Ordered>(
        &mut self,
        slab: &Slab<T>,
        n: usize,
        each: impl FnMut(u32),
    ) -> Listing {
        match self.eviction {
            Eviction::Lru => self.cursor.advance(self.main.list, slab, n, each),
            Eviction::Adaptive => {
                if self.cursor.end() {
                    self.coldest_first(slab).into_iter().for_each(each);
                }
                Listing::Done
            }
        }
    }

    pub(crate) fn validate<T: Ordered>(&self, slab: &Slab<T>) {
        for (name, queue) in [(Queue::Small, &self.small), (Queue::Main, &self.main)] {
            let len = queue.list.validate(slab, Chain::Order);
            assert_eq!(queue.len, len as u64, "length of queue {name:?}");
            for id in queue.list.iter(slab, Chain::Order) {
                assert_eq!(slab[id].queue(), name, "slot {id} names another queue");
            }
        }
        assert_eq!(self.small.len + self.main.len, slab.len() as u64, "every entry is in one queue");
        let mut in_main = self.main.list.iter(slab, Chain::Order);
        let at = self.cursor.at();
        assert!(at == NONE || in_main.any(|id| id == at), "the cursor is before main or at an entry of it");
        if let Some(capacity) = self.capacity {
            assert!(self.target <= percent(capacity, TARGET_MAX), "the target is within its bounds");
        }
    }

    #[inline]
    fn small_is_due(&self) -> bool {
        self.small.len >= (self.target / ONE).max(1)
    }

    /// Moves the oldest of small to main, though nothing has to go; see rule 4.
    fn graduate<T: Ordered>(&mut self, slab: &mut Slab<T>) {
        let id = self.small.list.head;
        self.unlink(slab, id);
        slab[id].set_visits(slab[id].visits().saturating_sub(1));
        self.push(slab, id, Queue::Main);
    }

    /// Rule 3: moves the target after a ghost hit on an entry evicted from `queue`.
    fn adapt(&mut self, queue: Queue, capacity: u64) {
        let [small, main] = self.evicted.map(|evicted| evicted + 1);
        let target = match queue {
            Queue::Small => self.target + ONE / 4 * main / (small + main),
            Queue::Main => self.target.saturating_sub(ONE / 4 * small / (small + main)),
        };
        self.target = target.clamp(percent(capacity, TARGET_MIN), percent(capacity, TARGET_MAX));
    }

    fn remember(&mut self, hash: u32, queue: Queue) {
        let (Eviction::Adaptive, Some(capacity)) = (self.eviction, self.capacity) else { return };
        self.ghost.remember(hash, queue, capacity);
        self.evicted[usize::from(queue == Queue::Main)] += 1;
        if self.evicted[0] + self.evicted[1] > capacity {
            self.evicted = self.evicted.map(|evicted| evicted / 2);
        }
    }

    #[inline]
    fn queue(&mut self, queue: Queue) -> &mut Fifo {
        match queue {
            Queue::Small => &mut self.small,
            Queue::Main => &mut self.main,
        }
    }

    fn push<T: Ordered>(&mut self, slab: &mut Slab<T>, id: u32, queue: Queue) {
        let back = self.back(queue);
        let slot = &mut slab[id];
        slot.set_queue(queue);
        *slot.link_mut(Chain::Order) = back;
        self.enter(slab, id, queue);
    }

    fn unlink<T: Ordered>(&mut self, slab: &mut Slab<T>, id: u32) {
        self.cursor.before_unlink(slab, id);
        let fifo = self.queue(slab[id].queue());
        fifo.list.unlink(slab, Chain::Order, id);
        fifo.len -= 1;
    }
}

fn percent(capacity: u64, percent: u64) -> u64 {
    // A capacity beyond 2^40 is as good as unlimited; it must not overflow here.
    capacity.min(1 << 40) * ONE / 100 * percent
}

/// Recent evictions: for each key a fingerprint and the queue it left from, two bytes in all.
///
/// Sets of [`WAYS`] words, the newest in the lowest bits; a new word pushes out the oldest of its
/// set. The ghost may forget a key, and may take one key for another: it only advises.
#[derive(Debug, Default)]
struct Ghost {
    /// Made at the first eviction: a cache that never fills does not pay for it. The words of a set
    /// are compared all at once.
    sets: Vec<u128>,
}

const WAYS: usize = 8;
const WORD_BITS: u32 = 16;
/// A bit of every word of a set: the lowest, and the highest.
const LOWEST: u128 = u128::from_le_bytes([1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0]);
const HIGHEST: u128 = LOWEST << (WORD_BITS - 1);

impl Ghost {
    #[inline]
    fn remember(&mut self, hash: u32, queue: Queue, capacity: u64) {
        if self.sets.is_empty() {
            self.make_sets(capacity);
        }
        let word = fingerprint(hash) | u16::from(queue == Queue::Main);
        if let Some(set) = self.set(hash) {
            *set = *set << WORD_BITS | u128::from(word);
        }
    }

    #[cold]
    #[inline(never)]
    fn make_sets(&mut self, capacity: u64) {
        let sets = usize::try_from(capacity).unwrap_or(usize::MAX).div_ceil(WAYS).max(1);
        self.sets = vec![0; sets];
    }

    #[inline]
    fn forget(&mut self, hash: u32) -> Option<Queue> {
        let set = self.set(hash)?;
        let differing = (*set & !LOWEST) ^ (u128::from(fingerprint(hash)) * LOWEST);
        // The lowest bit that is set belongs to the newest equal word. Bits above may be wrong.
        let equal = differing.wrapping_sub(LOWEST) & !differing & HIGHEST;
        if equal == 0 {
            return None;
        }
        let at = equal.trailing_zeros() / WORD_BITS * WORD_BITS;
        let queue = if *set >> at & 1 == 1 { Queue::Main } else { Queue::Small };
        let newer = *set & !(u128::MAX << at);
        *set = *set >> WORD_BITS >> at << at | newer;
        Some(queue)
    }

    /// The set of a hash, by its upper bits; `None` before the first eviction.
    #[inline]
    fn set(&mut self, hash: u32) -> Option<&mut u128> {
        let set = (u64::from(hash) * self.sets.len() as u64) >> 32;
        self.sets.get_mut(set as usize)
    }
}

/// The lower bits of the hash without the lowest bit; never 0, which is an empty word.
#[inline]
fn fingerprint(hash: u32) -> u16 {
    (hash as u16 & !1).max(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ghost that compares word by word.
    #[derive(Default)]
    struct Plain(Vec<[u16; WAYS]>);

    impl Plain {
        fn remember(&mut self, hash: u32, queue: Queue) {
            let set = self.set(hash);
            set.rotate_right(1);
            set[0] = fingerprint(hash) | u16::from(queue == Queue::Main);
        }

        fn forget(&mut self, hash: u32) -> Option<Queue> {
            let set = self.set(hash);
            let at = set.iter().position(|word| word & !1 == fingerprint(hash))?;
            let queue = if set[at] & 1 == 1 { Queue::Main } else { Queue::Small };
            set[at..].rotate_left(1);
            set[WAYS - 1] = 0;
            Some(queue)
        }

        fn set(&mut self, hash: u32) -> &mut [u16; WAYS] {
            let set = (u64::from(hash) * self.0.len() as u64) >> 32;
            &mut self.0[set as usize]
        }
    }

    #[test]
    fn a_set_compared_at_once_finds_the_word_that_a_search_finds() {
        let (mut ghost, mut plain) = (Ghost::default(), Plain(vec![[0; WAYS]; 3]));
        let mut random = 1_u64;
        let mut found = 0;
        for _ in 0..20_000 {
            random = random.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
            let roll = random >> 32;
            // Few fingerprints, so that equal words occur. With neighbours and the highest bit.
            let hash =
                (roll as u32 & 0xC000_0000) | [0, 1, 2, 3, 4, 5, 0x7FFE, 0x8000, 0xFFFF][roll as usize % 9];
            let queue = if roll & 64 == 0 { Queue::Small } else { Queue::Main };
            if roll & 128 == 0 || ghost.sets.is_empty() {
                ghost.remember(hash, queue, 3 * WAYS as u64);
                plain.remember(hash, queue);
            } else {
                let (ours, theirs) = (ghost.forget(hash), plain.forget(hash));
                assert_eq!(ours, theirs);
                found += usize::from(ours.is_some());
            }
        }
        assert!(found > 1000, "{found}");
    }
}

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
use crate::slab::{Chain, Linked, List, NONE, Slab};

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

const MAX_VISITS: u8 = 3;

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

    /// Notes a use, as far as a shared borrow can.
    #[inline]
    pub(crate) fn touch_shared<T: Ordered>(&self, slot: &T) {
        if self.eviction == Eviction::Adaptive {
            let visits = slot.visits();
            if visits < MAX_VISITS {
                slot.set_visits(visits + 1);
            }
        }
    }

    /// Notes a use.
    pub(crate) fn touch<T: Ordered>(&mut self, slab: &mut Slab<T>, id: u32) {
        match self.eviction {
            Eviction::Adaptive => self.touch_shared(&slab[id]),
            // The most recently used entry is at its place already; a hot entry is often requested
            // again at once.
            Eviction::Lru if self.main.list.tail == id => {}
            Eviction::Lru => {
                self.cursor.before_unlink(slab, id);
                self.main.list.unlink(slab, Chain::Order, id);
                self.main.list.push_back(slab, Chain::Order, id);
            }
        }
    }

    /// Takes in a new entry. The store has made room before.
    pub(crate) fn enter<T: Ordered>(&mut self, slab: &mut Slab<T>, id: u32) {
        let queue = match (self.eviction, self.capacity) {
            (Eviction::Lru, _) | (_, None) => Queue::Main,
            (Eviction::Adaptive, Some(capacity)) => {
                let left_from = self.ghost.forget(slab[id].hash());
                if let Some(queue) = left_from {
                    self.adapt(queue, capacity);
                }
                if self.small.len + self.main.len + 1 < capacity && self.small_is_due() {
                    self.graduate(slab);
                }
                if left_from == Some(Queue::Small) { Queue::Main } else { Queue::Small }
            }
        };
        self.push(slab, id, queue);
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
            let queue =
                if self.small_is_due() || self.main.list.is_empty() { Queue::Small } else { Queue::Main };
            let queue = if self.small.list.is_empty() { Queue::Main } else { queue };
            let list = self.queue(queue).list;
            if list.is_empty() {
                return None;
            }
            let id = list.head;
            self.unlink(slab, id);
            let visits = slab[id].visits();
            if visits == 0 || step == SCAN {
                self.remember(slab[id].hash(), queue);
                return Some(id);
            }
            slab[id].set_visits(if queue == Queue::Small { 0 } else { visits - 1 });
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
        if self.evicted.iter().sum::<u64>() > capacity {
            self.evicted = self.evicted.map(|evicted| evicted / 2);
        }
    }

    fn queue(&mut self, queue: Queue) -> &mut Fifo {
        match queue {
            Queue::Small => &mut self.small,
            Queue::Main => &mut self.main,
        }
    }

    fn push<T: Ordered>(&mut self, slab: &mut Slab<T>, id: u32, queue: Queue) {
        slab[id].set_queue(queue);
        let fifo = self.queue(queue);
        fifo.list.push_back(slab, Chain::Order, id);
        fifo.len += 1;
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
/// Sets of [`WAYS`] words, newest first; a new word pushes out the oldest of its set. The ghost may
/// forget a key, and may take one key for another: it only advises.
#[derive(Debug, Default)]
struct Ghost {
    /// Made at the first eviction: a cache that never fills does not pay for it.
    words: Vec<u16>,
}

const WAYS: usize = 8;

impl Ghost {
    fn remember(&mut self, hash: u32, queue: Queue, capacity: u64) {
        if self.words.is_empty() {
            let sets = usize::try_from(capacity).unwrap_or(usize::MAX).div_ceil(WAYS).max(1);
            self.words = vec![0; sets * WAYS];
        }
        let (start, fingerprint) = self.locate(hash);
        let set = &mut self.words[start..start + WAYS];
        set.copy_within(..WAYS - 1, 1);
        set[0] = fingerprint | u16::from(queue == Queue::Main);
    }

    fn forget(&mut self, hash: u32) -> Option<Queue> {
        if self.words.is_empty() {
            return None;
        }
        let (start, fingerprint) = self.locate(hash);
        let set = &mut self.words[start..start + WAYS];
        let at = set.iter().position(|word| word & !1 == fingerprint)?;
        let queue = if set[at] & 1 == 1 { Queue::Main } else { Queue::Small };
        set.copy_within(at + 1.., at);
        set[WAYS - 1] = 0;
        Some(queue)
    }

    /// The set from the upper bits of the hash, the fingerprint from the lower; 0 is an empty word.
    fn locate(&self, hash: u32) -> (usize, u16) {
        let sets = self.words.len() as u64 / WAYS as u64;
        let set = (u64::from(hash) * sets) >> 32;
        (set as usize * WAYS, (hash as u16 & !1).max(2))
    }
}

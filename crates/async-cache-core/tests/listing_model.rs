//! Listing in pieces, with every possible operation between two pieces.
//!
//! The model knows the time of each entry's arrival and last use. A finished list holds every entry
//! that was present from its beginning to its end, once: first the entries not used in the
//! meantime, in their order at the beginning, then all others in the order of their last use. The
//! list also equals a listing in one piece at the same moment, except for entries that were
//! restored in the meantime. How to replay and soak: see `replay/mod.rs`.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use async_cache_core::address::Address;
use async_cache_core::entry::{Meta, NewEntry};
use async_cache_core::listing::{Listing, Ticket, keep_last};
use async_cache_core::order::Eviction;
use async_cache_core::removed::Removed;
use async_cache_core::shard::{Config, Restored, Shard, Trust};
use async_cache_core::store::SlotId;
use async_cache_core::time::{Deadline, Now, Stamp, Time};

use crate::replay::every_seed;

/// The granularity of reclaiming, in nanoseconds; see the head of `timer.rs`.
const TICK: u64 = 1 << 20;

/// Equal by name. The stay is new each time the key is inserted again.
#[derive(Clone, Copy, Debug)]
struct Key {
    name: u32,
    stay: u64,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Begin,
    ListSome {
        n: usize,
    },
    Set {
        name: u32,
        ttl: Option<Duration>,
    },
    Hit {
        name: u32,
    },
    Delete {
        name: u32,
    },
    Restore {
        name: u32,
    },
    /// Sets a key that was never present: evicts an entry if there is no room.
    SetNew,
    Expire {
        nanos: u64,
    },
    Clear,
}

/// A running listing.
struct Running {
    /// The entries present at the beginning, in order.
    start: Vec<u64>,
    /// The beginning, in the count of uses.
    began: u64,
    list: Vec<Ticket>,
    /// Entries restored since, as the coldest.
    restored: HashSet<u64>,
}

struct Pair {
    cache: Shard<Key, (), ()>,
    eviction: Eviction,
    names: u32,
    now: Time,
    stays: u64,
    /// The last use of each stay. Restoring does not count as a use.
    used: HashMap<u64, u64>,
    uses: u64,
    running: Option<Running>,
    finished: usize,
}

#[test]
fn a_listing_in_pieces_says_what_one_in_one_go_says_at_its_end() {
    every_seed(1_000, |run| {
        let eviction = if run.dice.u32(..8) == 0 { Eviction::Adaptive } else { Eviction::Lru };
        let maxsize = run.dice.choice([Some(1), Some(2), Some(8), Some(40), None]).unwrap();
        let names = run.dice.u32(1..60);
        // Some programs list fast and change little, others the opposite.
        let haste = run.dice.u32(1..40);
        run.set_up(&(eviction, maxsize, names, haste));
        let mut pair = Pair::new(eviction, maxsize, names);
        for _ in 0..500 {
            let op = pair.choose(haste, &mut run.dice);
            run.note(op);
            pair.apply(op);
            pair.cache.validate();
        }
        pair.begin();
        while pair.list_some(3) == Listing::More {}
    });
}

#[test]
fn a_listing_ends_although_all_entries_are_used_faster_than_they_are_listed() {
    let mut pair = Pair::new(Eviction::Lru, None, 10);
    (0..10).for_each(|name| pair.set(name, None));
    pair.begin();
    let mut pieces = 1;
    while pair.list_some(1) == Listing::More {
        (0..10).for_each(|name| pair.hit(name));
        pieces += 1;
    }
    assert_eq!((pieces, pair.finished), (21, 1), "two steps an entry, and the rest in one go");
}

#[test]
fn a_listing_begins_anew_when_it_is_begun_again() {
    let mut pair = Pair::new(Eviction::Lru, None, 3);
    (0..3).for_each(|name| pair.set(name, None));
    pair.begin();
    assert_eq!(pair.list_some(2), Listing::More);
    pair.begin();
    assert_eq!(pair.list_some(2), Listing::More);
    assert_eq!(pair.list_some(2), Listing::Done);
    assert_eq!(pair.finished, 1);
}

#[test]
fn clearing_ends_a_listing_and_what_comes_in_later_is_not_in_it() {
    let mut pair = Pair::new(Eviction::Lru, None, 4);
    (0..4).for_each(|name| pair.set(name, None));
    pair.begin();
    assert_eq!(pair.list_some(2), Listing::More);
    let list = pair.running.take().unwrap().list;
    drop(pair.cache.clear());
    pair.set(0, None);
    let mut more = Vec::new();
    assert_eq!((pair.cache.list_some(9, &mut more), more.len()), (Listing::Done, 0));
    assert!(list.iter().all(|&ticket| pair.cache.store().redeem(ticket).is_none()), "the tickets are void");
}

#[test]
fn who_began_no_listing_gets_nothing() {
    for eviction in [Eviction::Lru, Eviction::Adaptive] {
        let mut pair = Pair::new(eviction, None, 2);
        pair.set(0, None);
        let mut list = Vec::new();
        assert_eq!((pair.cache.list_some(9, &mut list), list.len()), (Listing::Done, 0));
    }
}

impl Pair {
    fn new(eviction: Eviction, maxsize: Option<usize>, names: u32) -> Self {
        Self {
            cache: Shard::new(Config::single(maxsize, eviction)),
            eviction,
            names,
            now: Time::from_nanos(1_000 * TICK),
            stays: 0,
            used: HashMap::new(),
            uses: 0,
            running: None,
            finished: 0,
        }
    }

    fn choose(&self, haste: u32, dice: &mut fastrand::Rng) -> Op {
        let name = dice.u32(..self.names);
        if dice.u32(..40) < haste {
            return match &self.running {
                Some(_) if dice.u32(..40) > 0 => Op::ListSome { n: dice.usize(0..8) },
                _ => Op::Begin,
            };
        }
        match dice.u32(..100) {
            0..25 => Op::Set { name, ttl: None },
            25..40 => Op::Set { name, ttl: Some(Duration::from_nanos(dice.u64(..4 * TICK))) },
            40..75 => Op::Hit { name },
            75..82 => Op::Delete { name },
            82..88 => Op::Restore { name },
            88..94 => Op::SetNew,
            94..99 => Op::Expire { nanos: dice.u64(..4 * TICK) },
            _ => Op::Clear,
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Begin => self.begin(),
            Op::ListSome { n } => drop(self.list_some(n)),
            Op::Set { name, ttl } => self.set(name, ttl),
            Op::Hit { name } => self.hit(name),
            Op::Delete { name } => {
                drop(self.cache.delete(self.at(name), self.now()));
            }
            Op::Restore { name } => self.restore(name),
            Op::SetNew => self.set(self.names + u32::try_from(self.stays).unwrap(), None),
            Op::Expire { nanos } => {
                self.now = self.now.later(Duration::from_nanos(nanos));
                let mut removed = Removed::default();
                self.cache.reclaim_all(self.now(), &mut removed);
            }
            Op::Clear => {
                drop(self.cache.clear());
                let mut list = Vec::new();
                assert_eq!((self.cache.list_some(1, &mut list), list.len()), (Listing::Done, 0));
                self.running = None;
            }
        }
    }

    fn set(&mut self, name: u32, ttl: Option<Duration>) {
        let deadline = ttl.map_or(Deadline::NEVER, |ttl| Deadline::after(self.now, ttl));
        let key = self.new_key(name);
        drop(self.cache.set(self.at(name), key, (), deadline, self.now()));
        if let Some(slot) = self.find(name) {
            self.note_use(slot);
        }
    }

    fn hit(&mut self, name: u32) {
        let Some(slot) = self.find(name) else { return };
        let now = self.now;
        if self.cache.hit_mut(slot, |deadline| deadline.has_passed(now)).is_some() {
            self.note_use(slot);
        }
    }

    fn restore(&mut self, name: u32) {
        let key = self.new_key(name);
        let meta = Meta::written_at(Stamp::UNKNOWN, Deadline::NEVER);
        let stay = key.stay;
        let new = NewEntry { key, value: (), meta };
        let restored = self.cache.restore(self.at(name), new, Trust::Covered, self.now());
        if let (Restored::Stored, Some(running)) = (restored, &mut self.running) {
            running.restored.insert(stay);
        }
    }

    fn begin(&mut self) {
        self.cache.begin_listing();
        self.running = Some(Running {
            start: self.stays_of(&self.cache.coldest_first()),
            began: self.uses,
            list: Vec::new(),
            restored: HashSet::new(),
        });
    }

    fn list_some(&mut self, n: usize) -> Listing {
        let running = self.running.as_mut().expect("a listing runs");
        let before = running.list.len();
        let listing = self.cache.list_some(n, &mut running.list);
        let listed = running.list.len() - before;
        if listing == Listing::Done {
            self.check_list();
        } else {
            assert_eq!(self.eviction, Eviction::Lru, "the other order is listed in one go");
            assert!((1..=n.max(1)).contains(&listed), "{listed} entries in a piece of {n}");
            assert!(running.list.len() <= 2 * running.start.len(), "the rest should have come in one go");
        }
        listing
    }

    /// Checks the list for the properties named at the head of this file.
    fn check_list(&mut self) {
        let Running { start, began, list, restored } = self.running.take().expect("a listing ran");
        self.finished += 1;
        let listed = self.stays_of(&keep_last(list));
        let now = self.stays_of(&self.cache.coldest_first());
        let used_since = |stay: &u64| self.used.get(stay).filter(|&&used| used > began).copied();

        let may_miss = |stay: &u64| restored.contains(stay) && used_since(stay).is_none();
        let in_list: HashSet<u64> = listed.iter().copied().collect();
        assert_eq!(in_list.len(), listed.len(), "an entry is in the list twice");
        let expected: Vec<u64> =
            now.iter().copied().filter(|stay| in_list.contains(stay) || !may_miss(stay)).collect();
        assert_eq!(listed, expected, "what one go says now");

        // The same check again, without asking the cache for its order.
        if self.eviction == Eviction::Lru {
            let there: HashSet<u64> = self.cache.store().iter().map(|entry| entry.key.stay).collect();
            let mut expected: Vec<u64> =
                start.into_iter().filter(|stay| there.contains(stay) && used_since(stay).is_none()).collect();
            let mut used: Vec<u64> =
                there.iter().copied().filter(|stay| used_since(stay).is_some()).collect();
            used.sort_unstable_by_key(|stay| self.used[stay]);
            expected.extend(used);
            let listed: Vec<u64> = listed.into_iter().filter(|stay| !may_miss(stay)).collect();
            assert_eq!(listed, expected, "by the beginning and the uses since");
        }
    }

    fn find(&self, name: u32) -> Option<SlotId> {
        self.cache.find(hash(name), |key| key.name == name)
    }

    fn at(&self, name: u32) -> Address {
        crate::addressing::at(&self.cache, hash(name), None, |key| key.name == name)
    }

    fn now(&self) -> Now {
        Now::without_wall(self.now)
    }

    fn new_key(&mut self, name: u32) -> Key {
        self.stays += 1;
        Key { name, stay: self.stays }
    }

    fn note_use(&mut self, slot: SlotId) {
        self.uses += 1;
        let stay = self.cache.store().entry(slot).key.stay;
        self.used.insert(stay, self.uses);
    }

    /// The stays of the tickets that are not void.
    fn stays_of(&self, tickets: &[Ticket]) -> Vec<u64> {
        let entries = tickets.iter().filter_map(|&ticket| self.cache.store().redeem(ticket));
        entries.map(|entry| entry.key.stay).collect()
    }
}

fn hash(name: u32) -> u64 {
    fastrand::Rng::with_seed(name.into()).u64(..)
}

//! Several shards over one set of cold entries, against a naive model of one cache; with saves
//! running at the same time.
//!
//! The model holds the cold ranks and, for each shard, a vector of hot entries, coldest first. The
//! snapshot is a table: the key of rank `r` is `r` itself, and its value and deadline are computed
//! when it is read. The following is checked after every operation:
//! - `validate()`; the same ranks are cold;
//! - the same keys are hot with the same values, for LRU in the same order; no key is both hot and
//!   cold;
//! - the returned entries are those that had to leave;
//! - until the cold set is closed, there are at most `maxsize` hot and cold entries, except for one
//!   additional entry in a shard with nothing to evict; from then on every shard keeps to its
//!   share.
//!
//! A save runs step by step between the operations, by the rules that the fronts follow: it copies
//! the cold set, lists the hot entries of one shard after another and removes their origins from
//! the copy, writes the ranks left in the copy, then redeems its tickets. If the cold set is gone
//! from a shard by the time the shard is listed, the cache was cleared, and the copy is void.
//! Checked results: no key twice; every key that was present all the time; no value that its key
//! did not have while the save ran.
//!
//! How to replay and soak: see `replay/mod.rs`.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_cache_core::address::Address;
use async_cache_core::cold::{ColdSet, Frozen, Rank};
use async_cache_core::entry::{Fetched, Meta, NewEntry};
use async_cache_core::flight::FlightId;
use async_cache_core::listing::Ticket;
use async_cache_core::order::Eviction;
use async_cache_core::removed::Removed;
use async_cache_core::shard::{Config, Restored, Shard};
use async_cache_core::time::{Deadline, Now, Stamp, Time};

use crate::ledger::{Hashing, Key, Ledger, Token};
use crate::replay::{Run, every_seed};

const MILLISECOND: u64 = 1_000_000;

#[derive(Clone, Copy, Debug)]
enum Op {
    Open,
    Read {
        name: u32,
    },
    Set {
        name: u32,
        ttl: Option<Duration>,
    },
    Delete {
        name: u32,
    },
    Lead {
        name: u32,
    },
    Land {
        nth: usize,
        ttl: Option<Duration>,
    },
    Restore {
        name: u32,
    },
    /// The front found a cold entry to be expired or damaged.
    Lose {
        rank: Rank,
    },
    Reclaim {
        shard: usize,
    },
    Clear,
    Close,
    Wait {
        nanos: u64,
    },
    Save,
}

/// A hot entry of the model.
#[derive(Clone, Copy, Debug)]
struct Resident {
    name: u32,
    value: u64,
    deadline: Deadline,
}

/// A running load of the model.
struct Flight {
    id: FlightId,
    name: u32,
    is_fenced: bool,
}

/// The counters of a shard before an operation.
struct Counted {
    expirations: u64,
    evictions: u64,
}

struct Pair {
    shards: Vec<Shard<Key, Token, ()>>,
    configs: Vec<Config>,
    hashing: Hashing,
    names: u32,
    records: u32,
    ledger: Rc<Ledger>,
    now: Time,
    opened: Option<Arc<ColdSet>>,
    // The model.
    cold: BTreeSet<Rank>,
    /// Ranks that were cold under the open snapshot, but are not cold any more.
    gone: BTreeSet<Rank>,
    hot: Vec<Vec<Resident>>,
    flights: Vec<Flight>,
    save: Option<Save>,
    saves: u64,
}

/// A save in progress.
struct Save {
    copied: Option<(Arc<ColdSet>, Frozen)>,
    /// The tickets of each listed shard.
    tickets: Vec<Vec<Ticket>>,
    /// Whether the copy has been written, after the last shard was listed.
    is_cold_written: bool,
    written: Vec<(u32, u64)>,
    // The model.
    /// The keys present without interruption since the beginning.
    all_the_time: HashSet<u32>,
    /// The values that a key had while the save ran.
    values: HashSet<(u32, u64)>,
}

#[test]
fn shards_over_a_cold_set_do_what_one_model_does() {
    let mut saves = 0;
    every_seed(500, |run| {
        let mut pair = Pair::make(run);
        for _ in 0..400 {
            let op = pair.choose(&mut run.dice);
            run.note(op);
            pair.apply(op, &mut run.dice);
            pair.check();
        }
        saves += pair.end();
    });
    assert!(saves > 0, "no save came to its end");
}

/// Ranks near the borders of words and chunks, where faults of a bit set are most likely.
fn random_rank(dice: &mut fastrand::Rng) -> Rank {
    let border = dice.choice([0, 64, 128, 32_768, 65_536, 98_304]).unwrap();
    (border + dice.u32(..6)).saturating_sub(3)
}

#[test]
fn a_cold_set_of_several_chunks_does_what_a_set_of_ranks_does() {
    every_seed(200, |run| {
        let records = random_rank(&mut run.dice);
        let room = run.dice.bool().then(|| run.dice.usize(..2 * records as usize + 2));
        run.set_up(&(records, room));
        let cold = ColdSet::new(records, room);
        let mut model: BTreeSet<Rank> = (0..records).rev().take(room.unwrap_or(usize::MAX)).collect();
        for _ in 0..300 {
            let rank = random_rank(&mut run.dice);
            let operation = run.dice.u32(..8);
            run.note((operation, rank));
            match operation {
                0..4 => assert_eq!(cold.take(rank), model.remove(&rank)),
                4..7 => assert_eq!(cold.take_coldest(), model.pop_first()),
                _ => {
                    let mut copy = cold.freeze();
                    copy.remove(rank);
                    assert!(!copy.contains(rank));
                    assert_eq!(copy.contains(rank + 1), model.contains(&(rank + 1)));
                    assert_eq!(cold.contains(rank), model.contains(&rank), "a copy is a copy");
                }
            }
            assert_eq!(cold.live(), model.len());
            let rank = random_rank(&mut run.dice);
            assert_eq!(cold.contains(rank), model.contains(&rank), "rank {rank}");
        }
        assert_eq!(cold.take_all(), model.len());
        assert_eq!((cold.live(), cold.take_coldest()), (0, None));
    });
}

/// The snapshot's value for a rank, as recorded in the model. Tokens count from 1 up.
fn value_in_file(rank: Rank) -> u64 {
    u64::MAX - u64::from(rank)
}

impl Pair {
    fn make(run: &mut Run<Op>) -> Self {
        let dice = &mut run.dice;
        let shards = dice.usize(2..4);
        let maxsize = dice.choice([Some(0), Some(3), Some(4), Some(8), Some(9), Some(30), None]).unwrap();
        let eviction = dice.choice([Eviction::Lru, Eviction::Adaptive]).unwrap();
        let hashing = dice.choice(Hashing::ALL).unwrap();
        let size = u32::try_from(maxsize.unwrap_or(20)).unwrap();
        let records = dice.u32(0..=2 * size + 2);
        let names = records + dice.u32(1..=size + 2);
        run.set_up(&(shards, maxsize, eviction, hashing, records, names));
        let config = |shard| Config {
            maxsize,
            share: maxsize.map(|max| max / shards + usize::from(shard < max % shards)),
            eviction,
        };
        let configs: Vec<Config> = (0..shards).map(config).collect();
        Self {
            shards: configs.iter().map(|&config| Shard::new(config)).collect(),
            hot: vec![Vec::new(); shards],
            configs,
            hashing,
            names,
            records,
            ledger: Rc::default(),
            now: Time::from_nanos(0),
            opened: None,
            cold: BTreeSet::new(),
            gone: BTreeSet::new(),
            flights: Vec::new(),
            save: None,
            saves: 0,
        }
    }

    fn choose(&self, dice: &mut fastrand::Rng) -> Op {
        let is_empty = self.hot.iter().all(Vec::is_empty) && self.flights.is_empty();
        if is_empty && self.opened.is_none() && self.save.is_none() && dice.u32(..4) > 0 {
            return Op::Open;
        }
        let name = dice.u32(..self.names);
        let ttl = match dice.u32(..8) {
            0 => Some(Duration::ZERO),
            1 => Some(Duration::from_nanos(dice.u64(..20 * MILLISECOND))),
            _ => None,
        };
        match dice.u32(..200) {
            0..50 => Op::Read { name },
            50..80 => Op::Set { name, ttl },
            80..92 => Op::Delete { name },
            92..108 => Op::Lead { name },
            108..120 => Op::Land { nth: dice.usize(..8), ttl },
            120..126 => Op::Restore { name },
            126..130 => Op::Lose { rank: name },
            130..136 => Op::Reclaim { shard: dice.usize(..self.shards.len()) },
            136 => Op::Clear,
            137 => Op::Close,
            138..148 => Op::Wait { nanos: dice.u64(..10 * MILLISECOND) },
            _ => Op::Save,
        }
    }

    fn apply(&mut self, op: Op, dice: &mut fastrand::Rng) {
        match op {
            Op::Open => self.open(),
            Op::Read { name } => self.read(name),
            Op::Set { name, ttl } => self.set(name, ttl),
            Op::Delete { name } => self.delete(name),
            Op::Lead { name } => self.lead(name),
            Op::Land { nth, ttl } => self.land(nth, ttl),
            Op::Restore { name } => self.restore(name),
            Op::Lose { rank } => self.lose(rank),
            Op::Reclaim { shard } => self.reclaim(shard),
            Op::Clear => self.clear(),
            Op::Close => self.close(),
            Op::Wait { nanos } => self.now = Time::from_nanos(self.now.as_nanos() + nanos),
            Op::Save => self.step_of_a_save(dice),
        }
    }

    // Operations

    fn open(&mut self) {
        let cold = Arc::new(ColdSet::new(self.records, self.configs[0].maxsize));
        for shard in &mut self.shards {
            assert!(shard.is_pristine());
            assert!(shard.cold().is_none());
            assert_eq!(shard.open(Arc::clone(&cold), &[]), []);
        }
        let room = self.configs[0].maxsize.unwrap_or(usize::MAX);
        self.cold = (0..self.records).rev().take(room).collect();
        self.gone.clear();
        self.opened = Some(cold);
    }

    fn read(&mut self, name: u32) {
        let (shard, address) = self.address(name);
        let at = self.position(shard, name);
        assert_eq!(address.slot().is_some(), at.is_some(), "presence of key {name}");
        if let Some((slot, at)) = address.slot().zip(at) {
            let resident = self.hot[shard][at];
            let value = self.shards[shard].hit_mut(slot, |deadline| deadline.has_passed(self.now));
            let is_live = !resident.deadline.has_passed(self.now);
            assert_eq!(value.map(|value| value.number), is_live.then_some(resident.value));
            if is_live {
                self.hot[shard].remove(at);
                self.hot[shard].push(resident);
            }
        }
        if let Some(rank) = self.rank(name) {
            self.promote(shard, rank, address);
        }
    }

    /// Tries to promote a rank, whether cold or not: a reader may be too late.
    fn promote(&mut self, shard: usize, rank: Rank, at: Address) {
        let new = self.new_entry(rank);
        let value = new.value.number;
        let counted = self.counted(shard);
        let now = self.now();
        let hits = self.shards[shard].stats().cold_hits;
        let promoted = self.ledger.nothing_is_dropped_in(|| self.shards[shard].promote(at, new, now));
        match promoted {
            Ok(removed) => {
                assert!(self.cold.remove(&rank), "rank {rank} was promoted, and had left before");
                self.gone.insert(rank);
                assert_eq!(self.shards[shard].stats().cold_hits, hits + 1);
                self.make_room(shard, removed, &[], &counted, true);
                self.hot[shard].push(Resident { name: rank, value, deadline: Deadline::NEVER });
            }
            Err(new) => {
                assert!(!self.cold.contains(&rank), "cold rank {rank} was refused");
                assert_eq!((new.key.name, new.value.number), (rank, value));
            }
        }
    }

    fn set(&mut self, name: u32, ttl: Option<Duration>) {
        let (shard, at) = self.address(name);
        self.fence(name);
        let deadline = ttl.map_or(Deadline::NEVER, |ttl| Deadline::after(self.now, ttl));
        let (key, token) = (Key::new(name, &self.ledger), Token::new(&self.ledger));
        let (value, now) = (token.number, self.now());
        let counted = self.counted(shard);
        let write = || self.shards[shard].set(at, key, token, deadline, now);
        let removed = self.ledger.nothing_is_dropped_in(write);
        self.put(shard, Resident { name, value, deadline }, removed, &counted);
    }

    fn delete(&mut self, name: u32) {
        let (shard, at) = self.address(name);
        self.fence(name);
        let counted = self.counted(shard);
        let now = self.now();
        let removed = self.ledger.nothing_is_dropped_in(|| self.shards[shard].delete(at, now));
        self.leave_the_cold(self.rank(name));
        let at = self.position(shard, name);
        let own: Vec<u64> = at.map(|at| self.hot[shard].remove(at).value).into_iter().collect();
        self.make_room(shard, removed, &own, &counted, false);
    }

    fn lead(&mut self, name: u32) {
        let (shard, at) = self.address(name);
        let open = at.flight();
        let known = self.flights.iter().find(|flight| flight.name == name && !flight.is_fenced);
        assert_eq!(open, known.map(|flight| flight.id), "the open flight of key {name}");
        if open.is_none() && self.flights.len() < 8 {
            let (key, now) = (Key::new(name, &self.ledger), self.now());
            let id = self.shards[shard].lead(at, key, (), now);
            self.flights.push(Flight { id, name, is_fenced: false });
        }
    }

    fn land(&mut self, nth: usize, ttl: Option<Duration>) {
        if nth >= self.flights.len() {
            return;
        }
        let Flight { id, name, is_fenced } = self.flights.swap_remove(nth);
        let (shard, _) = self.address(name);
        let at = self.shards[shard].address_of_flight(id, self.hashing.hash(name));
        let at = at.expect("a snapshot is opened when no load runs");
        let deadline = ttl.map_or(Deadline::NEVER, |ttl| Deadline::after(self.now, ttl));
        let value = Token::new(&self.ledger);
        let number = value.number;
        let (fetched, now) = (Fetched::loaded(value, deadline), self.now());
        let counted = self.counted(shard);
        let land = || self.shards[shard].land(id, at, fetched, Duration::ZERO, now);
        let finished = self.ledger.nothing_is_dropped_in(land);
        let removed = finished.expect("it runs").removed;
        if is_fenced {
            self.make_room(shard, removed, &[number], &counted, false);
        } else {
            self.put(shard, Resident { name, value: number, deadline }, removed, &counted);
        }
    }

    fn restore(&mut self, name: u32) {
        let (shard, at) = self.address(name);
        let rank = self.rank(name);
        let new = self.new_entry(name);
        let value = new.value.number;
        let is_known = at.slot().is_some() || rank.is_some_and(|rank| self.cold.contains(&rank));
        let fits = !is_known && !self.is_full(shard);
        let now = self.now();
        let restored = self.ledger.nothing_is_dropped_in(|| self.shards[shard].restore(at, new, now));
        assert_eq!(matches!(restored, Restored::Stored), fits);
        if fits {
            self.hot[shard].insert(0, Resident { name, value, deadline: Deadline::NEVER });
        }
    }

    fn lose(&mut self, rank: Rank) {
        if let Some(opened) = &self.opened {
            assert_eq!(opened.take(rank), self.cold.contains(&rank));
            self.leave_the_cold(Some(rank));
        }
    }

    fn reclaim(&mut self, shard: usize) {
        let counted = self.counted(shard);
        let mut removed = Removed::default();
        let now = self.now();
        self.ledger.nothing_is_dropped_in(|| self.shards[shard].reclaim_all(now, &mut removed));
        self.make_room(shard, removed, &[], &counted, false);
    }

    fn clear(&mut self) {
        for (shard, hot) in self.shards.iter_mut().zip(&mut self.hot) {
            let cleared = self.ledger.nothing_is_dropped_in(|| shard.clear());
            assert_eq!(cleared.store.len(), hot.len());
            assert_eq!(cleared.cold.is_some(), self.opened.is_some());
            assert!(shard.store().is_empty() && shard.cold().is_none());
            hot.clear();
        }
        for flight in &mut self.flights {
            flight.is_fenced = true;
        }
        if let Some(opened) = self.opened.take() {
            assert_eq!(opened.hot(), 0, "no shard counts for a snapshot that is not open");
        }
        self.cold.clear();
    }

    /// Only when no entry is cold, and not while a save reads the snapshot.
    fn close(&mut self) {
        if !self.cold.is_empty() || self.save.is_some() {
            return;
        }
        self.opened = None;
        for shard in 0..self.shards.len() {
            let before = self.counted(shard);
            let removed = self.ledger.nothing_is_dropped_in(|| self.shards[shard].close_snapshot());
            let surplus =
                self.configs[shard].share.map_or(0, |share| self.hot[shard].len().saturating_sub(share));
            let left: Vec<_> =
                removed.into_entries().map(|left| (left.key.unwrap().name, left.value.number)).collect();
            assert_eq!(left.len(), surplus);
            assert_eq!(self.counted(shard).evictions - before.evictions, surplus as u64);
            for victim in left {
                self.forget_victim(shard, victim);
            }
        }
    }

    // The parts of an operation

    /// The rank of a key in the open snapshot, whether cold or not.
    fn rank(&self, name: u32) -> Option<Rank> {
        (self.opened.is_some() && name < self.records).then_some(name)
    }

    /// The shard of a key, and where the key may be written.
    fn address(&self, name: u32) -> (usize, Address) {
        let hash = self.hashing.hash(name);
        let shard = ((hash >> 32) as usize * self.shards.len()) >> 32;
        let at = crate::addressing::at(&self.shards[shard], hash, self.rank(name), |key| key.name == name);
        (shard, at)
    }

    fn now(&self) -> Now {
        Now::without_wall(self.now)
    }

    fn position(&self, shard: usize, name: u32) -> Option<usize> {
        self.hot[shard].iter().position(|resident| resident.name == name)
    }

    fn new_entry(&self, name: u32) -> NewEntry<Key, Token> {
        let meta = Meta::written_at(Stamp::UNKNOWN, Deadline::NEVER);
        NewEntry { key: Key::new(name, &self.ledger), value: Token::new(&self.ledger), meta }
    }

    fn counted(&self, shard: usize) -> Counted {
        let stats = self.shards[shard].stats();
        Counted { expirations: stats.expirations, evictions: stats.evictions }
    }

    fn fence(&mut self, name: u32) {
        for flight in self.flights.iter_mut().filter(|flight| flight.name == name) {
            flight.is_fenced = true;
        }
    }

    fn leave_the_cold(&mut self, rank: Option<Rank>) {
        if let Some(rank) = rank
            && self.cold.remove(&rank)
        {
            self.gone.insert(rank);
        }
    }

    fn is_full(&self, shard: usize) -> bool {
        let Config { maxsize, share, .. } = self.configs[shard];
        if self.opened.is_none() {
            share.is_some_and(|share| self.hot[shard].len() >= share)
        } else {
            maxsize.is_some_and(|max| self.cold.len() + self.hot.iter().map(Vec::len).sum::<usize>() >= max)
        }
    }

    /// A set or a load writes a value under a key.
    fn put(&mut self, shard: usize, new: Resident, removed: Removed<Key, Token>, counted: &Counted) {
        self.leave_the_cold(self.rank(new.name));
        let is_refused = new.deadline.has_passed(self.now);
        match self.position(shard, new.name) {
            Some(at) => {
                let old = self.hot[shard].remove(at);
                if is_refused {
                    self.make_room(shard, removed, &[old.value, new.value], counted, false);
                } else {
                    // The entry keeps its place while others are reclaimed.
                    self.make_room(shard, removed, &[old.value], counted, false);
                    self.hot[shard].push(new);
                }
            }
            None if is_refused || self.configs[shard].maxsize == Some(0) => {
                self.make_room(shard, removed, &[new.value], counted, false);
            }
            None => {
                self.make_room(shard, removed, &[], counted, true);
                self.hot[shard].push(new);
            }
        }
    }

    /// Checks the entries that left a shard, and removes them from the model: the operation's `own`
    /// values, then expired entries, then, if a key was inserted, victims: the coldest of the cold
    /// entries if there are any, then the shard's own.
    fn make_room(
        &mut self,
        shard: usize,
        removed: Removed<Key, Token>,
        own: &[u64],
        before: &Counted,
        comes_in: bool,
    ) {
        let after = self.counted(shard);
        let reclaimed = usize::try_from(after.expirations - before.expirations).unwrap();
        let left = removed.into_entries().map(|left| (left.key.unwrap().name, left.value.number));
        let left: Vec<_> = left.collect();
        let (owned, others): (Vec<_>, Vec<_>) = left.iter().partition(|(_, value)| own.contains(value));
        assert_eq!(owned.iter().map(|(_, value)| *value).collect::<Vec<_>>(), own);

        let (expired, victims) = others.split_at(reclaimed);
        for &(name, value) in expired {
            let at = self.position(shard, name).expect("what is reclaimed was there");
            let resident = self.hot[shard].remove(at);
            assert_eq!(resident.value, value);
            assert!(resident.deadline.has_passed(self.now), "reclaimed before its time");
        }
        let (mut victims, mut evictions) = (victims.iter(), 0);
        while comes_in && self.is_full(shard) {
            if let Some(rank) = self.cold.pop_first() {
                self.gone.insert(rank);
            } else if self.hot[shard].is_empty() {
                break;
            } else {
                self.forget_victim(shard, *victims.next().expect("a victim"));
            }
            evictions += 1;
        }
        assert_eq!(victims.next(), None, "more left than had to");
        assert_eq!(after.evictions - before.evictions, evictions);
    }

    fn forget_victim(&mut self, shard: usize, (name, value): (u32, u64)) {
        let at = self.position(shard, name).expect("a victim of this shard");
        if self.configs[shard].eviction == Eviction::Lru {
            assert_eq!(at, 0, "the victim is not the least recently used");
        }
        assert_eq!(self.hot[shard].remove(at).value, value);
    }

    // A save

    fn step_of_a_save(&mut self, dice: &mut fastrand::Rng) {
        let Some(mut save) = self.save.take() else {
            let copied = self.opened.as_ref().map(|opened| (Arc::clone(opened), opened.freeze()));
            let all_the_time = self.present().map(|(name, _)| name).collect();
            self.save = Some(Save {
                copied,
                tickets: Vec::new(),
                is_cold_written: false,
                written: Vec::new(),
                all_the_time,
                values: HashSet::new(),
            });
            return;
        };
        if save.tickets.len() < self.shards.len() {
            save.list(&self.shards[save.tickets.len()]);
        } else if !save.is_cold_written {
            save.write_cold(self.records);
        } else if save.tickets.iter().any(|tickets| !tickets.is_empty()) {
            let shard = dice.usize(..self.shards.len());
            save.write_slice(shard, &self.shards[shard], 1 + dice.usize(..4));
        } else {
            save.check();
            self.saves += 1;
            return;
        }
        self.save = Some(save);
    }

    /// The present keys with their values, including expired ones.
    fn present(&self) -> impl Iterator<Item = (u32, u64)> {
        let hot = self.hot.iter().flatten().map(|resident| (resident.name, resident.value));
        hot.chain(self.cold.iter().map(|&rank| (rank, value_in_file(rank))))
    }

    // Properties after every operation

    fn check(&mut self) {
        for (shard, cache) in self.shards.iter().enumerate() {
            cache.validate();
            self.check_hot(shard, cache);
        }
        let hot: usize = self.hot.iter().map(Vec::len).sum();
        assert_eq!(self.ledger.alive(), 2 * hot + self.flights.len(), "keys and values alive");
        if let Some(max) = self.configs[0].maxsize
            && !self.cold.is_empty()
        {
            assert!(hot + self.cold.len() <= max, "{hot} hot and {} cold of {max}", self.cold.len());
        }
        if let Some(opened) = &self.opened {
            assert_eq!((opened.live(), opened.hot()), (self.cold.len(), hot), "cold and hot entries");
            for rank in 0..self.records + 2 {
                assert_eq!(opened.contains(rank), self.cold.contains(&rank), "rank {rank}");
            }
        }
        assert!(self.gone.is_disjoint(&self.cold), "a rank came back");
        if let Some(mut save) = self.save.take() {
            let present: HashMap<u32, u64> = self.present().collect();
            save.all_the_time.retain(|name| present.contains_key(name));
            save.values.extend(present);
            self.save = Some(save);
        }
    }

    fn check_hot(&self, shard: usize, cache: &Shard<Key, Token, ()>) {
        let read = |ticket| {
            let entry = cache.store().redeem(ticket).expect("a ticket of now");
            assert!(entry.meta.origin.is_none_or(|rank| rank == entry.key.name), "the rank of another key");
            assert!(!cache.is_cold(entry.key.name), "key {} is hot and cold", entry.key.name);
            (entry.key.name, entry.value.number, entry.meta.deadline)
        };
        let mut order: Vec<_> = cache.coldest_first().into_iter().map(read).collect();
        let hot = self.hot[shard].iter();
        let mut expected: Vec<_> = hot.map(|hot| (hot.name, hot.value, hot.deadline)).collect();
        if self.configs[shard].eviction == Eviction::Adaptive {
            order.sort_unstable();
            expected.sort_unstable();
        }
        assert_eq!(order, expected, "the hot entries of shard {shard}");
    }

    fn end(self) -> u64 {
        drop(self.shards);
        assert_eq!(self.ledger.alive(), 0, "something outlives the cache");
        self.saves
    }
}

impl Save {
    /// Lists the hot entries of the next shard; removes from the copy the ranks that have become
    /// hot.
    fn list(&mut self, shard: &Shard<Key, Token, ()>) {
        let tickets = shard.coldest_first();
        if let Some((set, _)) = &self.copied
            && !shard.cold().is_some_and(|cold| Arc::ptr_eq(cold, set))
        {
            self.copied = None;
        }
        if let Some((_, copy)) = &mut self.copied {
            let entries = tickets.iter().filter_map(|&ticket| shard.store().redeem(ticket));
            entries.filter_map(|entry| entry.meta.origin).for_each(|rank| copy.remove(rank));
        }
        self.tickets.push(tickets);
    }

    fn write_cold(&mut self, records: u32) {
        if let Some((_, copy)) = &self.copied {
            let cold = (0..records + 2).filter(|&rank| copy.contains(rank));
            self.written.extend(cold.map(|rank| (rank, value_in_file(rank))));
        }
        self.is_cold_written = true;
    }

    fn write_slice(&mut self, nth: usize, shard: &Shard<Key, Token, ()>, len: usize) {
        let len = len.min(self.tickets[nth].len());
        let slice = self.tickets[nth].drain(..len);
        let entries = slice.filter_map(|ticket| shard.store().redeem(ticket));
        self.written.extend(entries.map(|entry| (entry.key.name, entry.value.number)));
    }

    fn check(mut self) {
        let mut names: Vec<u32> = self.written.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "a key was saved twice: {names:?}");
        for name in names {
            self.all_the_time.remove(&name);
        }
        assert!(
            self.all_the_time.is_empty(),
            "not saved, though there all the time: {:?}",
            self.all_the_time
        );
        for written in self.written {
            assert!(self.values.contains(&written), "{written:?} was not there while the save ran");
        }
    }
}

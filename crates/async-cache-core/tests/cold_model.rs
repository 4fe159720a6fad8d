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
//! How to replay and soak: see `replay/mod.rs`.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_cache_core::address::Address;
use async_cache_core::cold::{ColdSet, Rank};
use async_cache_core::entry::Fetched;
use async_cache_core::flight::FlightId;
use async_cache_core::order::Eviction;
use async_cache_core::removed::Removed;
use async_cache_core::shard::{Config, Restored, Shard, Trust};
use async_cache_core::time::{Deadline, Time};

use crate::ledger::{Hashing, Key, Ledger, Token};
use crate::replay::{Run, every_seed};

mod model;
mod saves;

use saves::Save;

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
        let promoted =
            self.ledger.nothing_is_dropped_in(|| self.shards[shard].promote(at, new, Trust::Covered, now));
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
        let restored =
            self.ledger.nothing_is_dropped_in(|| self.shards[shard].restore(at, new, Trust::Covered, now));
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

    fn end(self) -> u64 {
        drop(self.shards);
        assert_eq!(self.ledger.alive(), 0, "something outlives the cache");
        self.saves
    }
}

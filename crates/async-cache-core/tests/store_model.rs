//! One shard against a naive model, operation by operation.
//!
//! The model is a vector of entries, coldest first. Checked after every operation: `validate()`;
//! the same keys are present with the same values and deadlines; the returned entries are those
//! that left the model, each once; nothing was lost or dropped inside; the counters agree. For LRU
//! the model also knows the exact order, and so every victim. Which expired entries are reclaimed,
//! and when, is left to the timer wheel: the model checks that they had expired, and that
//! `reclaim_all` leaves no entry that expired a tick ago. A suspect entry is served by the reads
//! that ask for suspect entries, and by no other, and is as the others for everything else.
//!
//! How to replay and soak: see `replay/mod.rs`.

mod from_outside;

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use async_cache_core::address::{Address, Candidate};
use async_cache_core::entry::{Meta, NewEntry};
use async_cache_core::listing::Ticket;
use async_cache_core::order::Eviction;
use async_cache_core::removed::{Cause, Departed, Removed};
use async_cache_core::shard::{Config, Restored, Shard, Trust};
use async_cache_core::stats::Stats;
use async_cache_core::store::SlotId;
use async_cache_core::time::{Deadline, Now, Stamp, Time};

use crate::ledger::{Hashing, Key, Ledger, Token};
use crate::replay::{Run, every_seed};

/// The granularity of reclaiming, in nanoseconds; see the head of `timer.rs`.
const TICK: u64 = 1 << 20;

#[derive(Clone, Copy, Debug)]
enum Op {
    Set { name: u32, ttl: Option<Duration> },
    Hit { name: u32 },
    HitInOrder { name: u32 },
    HitShared { name: u32 },
    Look { name: u32 },
    HitOrSuspect { name: u32 },
    LookOrSuspect { name: u32 },
    SuspectAll,
    TakeIn { name: u32, trust: Trust },
    ForgetHash { name: u32 },
    Delete { name: u32 },
    Restore { name: u32, ttl: Option<Duration>, trust: Trust },
    ReclaimAll,
    Clear,
    Wait { nanos: u64 },
}

/// An entry of the model.
#[derive(Clone, Copy, Debug)]
struct Resident {
    name: u32,
    value: u64,
    deadline: Deadline,
    /// Unchanged while the value is replaced, and new when the key is inserted again.
    stay: u64,
    is_suspect: bool,
}

struct Pair {
    cache: Shard<Key, Token, ()>,
    config: Config,
    hashing: Hashing,
    names: u32,
    ledger: Rc<Ledger>,
    now: Time,
    /// The model: coldest first, for LRU exactly.
    residents: Vec<Resident>,
    stays: u64,
    /// As counted by the model; the other counters are compared when they change.
    hits: u64,
    stats: Stats,
    /// Tickets taken at any time, with their stays.
    tickets: Vec<(Ticket, u64)>,
}

#[test]
fn the_store_does_what_the_model_does() {
    every_seed(250, |run| {
        let mut pair = Pair::make(run);
        for _ in 0..400 {
            let op = pair.choose(&mut run.dice);
            run.note(op);
            let (stays, version) = (pair.stays(), pair.cache.store().version());
            pair.apply(op, &mut run.dice);
            pair.check(&mut run.dice);
            if pair.stays() != stays {
                assert!(
                    pair.cache.store().version() > version,
                    "a key came or left, and the version is the same"
                );
            }
        }
        pair.end();
    });
}

impl Pair {
    fn make(run: &mut Run<Op>) -> Self {
        let dice = &mut run.dice;
        let maxsize = dice.choice([Some(0), Some(1), Some(2), Some(3), Some(8), Some(64), None]).unwrap();
        let eviction = dice.choice([Eviction::Lru, Eviction::Adaptive]).unwrap();
        let config = Config::single(maxsize, eviction);
        let hashing = dice.choice(Hashing::ALL).unwrap();
        let start = dice.choice([0, 1, TICK - 1, 1 << 50, u64::MAX - 3 * TICK, u64::MAX - 1]).unwrap();
        let now = Time::from_nanos(start);
        let size = u32::try_from(maxsize.unwrap_or(8)).unwrap();
        let names = dice.u32(1..3 * size.max(2));
        run.set_up(&(config, hashing, now));
        Self {
            cache: Shard::new(config),
            config,
            hashing,
            names,
            ledger: Rc::default(),
            now,
            residents: Vec::new(),
            stays: 0,
            hits: 0,
            stats: Stats::default(),
            tickets: Vec::new(),
        }
    }

    fn choose(&self, dice: &mut fastrand::Rng) -> Op {
        let name = dice.u32(..self.names);
        match dice.u32(..100) {
            0..40 => Op::Set { name, ttl: random_ttl(dice) },
            40..48 => Op::Hit { name },
            48..55 => Op::HitInOrder { name },
            55..65 => Op::HitShared { name },
            65..67 => Op::Look { name },
            67..69 => Op::HitOrSuspect { name },
            69 => Op::LookOrSuspect { name },
            70..76 => Op::Delete { name },
            76..80 => Op::Restore { name, ttl: random_ttl(dice), trust: random_trust(dice) },
            80..83 => Op::TakeIn { name, trust: random_trust(dice) },
            83 => Op::ForgetHash { name },
            84..86 => Op::ReclaimAll,
            86 => Op::Clear,
            87..90 => Op::SuspectAll,
            _ => Op::Wait { nanos: random_nanos(dice) },
        }
    }

    fn apply(&mut self, op: Op, dice: &mut fastrand::Rng) {
        match op {
            Op::Set { name, ttl } => self.set(name, ttl, dice),
            Op::Hit { name }
            | Op::HitInOrder { name }
            | Op::HitShared { name }
            | Op::Look { name }
            | Op::HitOrSuspect { name }
            | Op::LookOrSuspect { name } => {
                self.read(op, name);
            }
            Op::SuspectAll => self.suspect_all(),
            Op::TakeIn { name, trust } => self.take_in(name, trust),
            Op::ForgetHash { name } => self.forget_hash(name, dice),
            Op::Delete { name } => self.delete(name, dice),
            Op::Restore { name, ttl, trust } => self.restore(name, ttl, trust),
            Op::ReclaimAll => self.reclaim_all(),
            Op::Clear => self.clear(),
            Op::Wait { nanos } => self.now = Time::from_nanos(self.now.as_nanos().saturating_add(nanos)),
        }
    }

    // Operations

    fn set(&mut self, name: u32, ttl: Option<Duration>, dice: &mut fastrand::Rng) {
        let now = self.now_as_a_writer_knows_it(dice);
        let at = self.at(name);
        let deadline = ttl.map_or(Deadline::NEVER, |ttl| Deadline::after(now, ttl));
        let (key, token) = (Key::new(name, &self.ledger), Token::new(&self.ledger));
        let value = token.number;
        let write = || self.cache.set(at, key, token, deadline, Now::without_wall(now));
        let removed = self.ledger.nothing_is_dropped_in(write);

        let refused = deadline.has_passed(now);
        let at = self.residents.iter().position(|resident| resident.name == name);
        let mut expected = Vec::new();
        let mut comes_in = false;
        match at {
            Some(at) if refused => {
                let old = self.residents.remove(at);
                expected.extend([(name, old.value, Cause::Replaced), (name, value, Cause::Refused)]);
            }
            Some(at) => {
                let old = self.residents.remove(at);
                expected.push((name, old.value, Cause::Replaced));
                self.residents.push(Resident { value, deadline, is_suspect: false, ..old });
            }
            None if refused || self.config.maxsize == Some(0) => expected.push((name, value, Cause::Refused)),
            None => comes_in = true,
        }
        let evicted = self.account_for(removed, &expected, now);
        let full = |len| self.config.maxsize.is_some_and(|max| len >= max);
        let before = self.residents.len() + evicted;
        assert_eq!(evicted, usize::from(comes_in && full(before)), "evictions, with {before} before");
        if comes_in {
            self.stays += 1;
            self.residents.push(Resident { name, value, deadline, stay: self.stays, is_suspect: false });
        }
    }

    fn read(&mut self, how: Op, name: u32) {
        let slot = self.find(name);
        let expected = self.residents.iter().position(|resident| resident.name == name);
        let now = self.now;
        let Some((slot, at)) = slot.zip(expected) else {
            self.cache.miss();
            self.stats.misses += 1;
            return;
        };
        let resident = self.residents[at];
        let has_passed = |deadline: Deadline| {
            assert!(!deadline.is_never(), "the clock is not asked for an entry that never expires");
            deadline.has_passed(now)
        };
        let (hash, is_key) = (self.hashing.hash(name), |key: &Key| key.name == name);
        let number = |value: &Token| value.number;
        let value = match how {
            Op::Hit { .. } => self.cache.hit_mut(slot, has_passed).map(number),
            Op::HitInOrder { .. } => self.cache.hit_in_order(hash, is_key, has_passed, number),
            Op::HitShared { .. } => self.cache.hit(hash, is_key, has_passed, number),
            Op::HitOrSuspect { .. } => self.cache.hit_or_suspect(slot, has_passed).map(number),
            Op::LookOrSuspect { .. } => self.cache.live_or_suspect(slot, has_passed).map(number),
            _ => self.cache.live(slot, has_passed).map(number),
        };
        let serves_suspects = matches!(how, Op::HitOrSuspect { .. } | Op::LookOrSuspect { .. });
        let is_served = !resident.deadline.has_passed(now) && (serves_suspects || !resident.is_suspect);
        assert_eq!(value, is_served.then_some(resident.value));
        let entry = self.cache.store().entry(slot);
        assert_eq!((entry.key.name, entry.meta.deadline), (name, resident.deadline));
        if is_served && matches!(how, Op::Hit { .. } | Op::HitInOrder { .. } | Op::HitOrSuspect { .. }) {
            self.hits += 1;
            let resident = self.residents.remove(at);
            self.residents.push(resident);
        }
    }

    fn delete(&mut self, name: u32, dice: &mut fastrand::Rng) {
        let now = self.now_as_a_writer_knows_it(dice);
        let at = self.at(name);
        let removed = self.ledger.nothing_is_dropped_in(|| self.cache.delete(at, Now::without_wall(now)));
        let at = self.residents.iter().position(|resident| resident.name == name);
        let expected: Vec<_> =
            at.map(|at| (name, self.residents.remove(at).value, Cause::Deleted)).into_iter().collect();
        assert_eq!(self.account_for(removed, &expected, now), 0, "a deletion evicts nothing");
    }

    fn restore(&mut self, name: u32, ttl: Option<Duration>, trust: Trust) {
        let now = self.now;
        let at = self.at(name);
        let new = self.new_entry(name, ttl, now);
        let (value, deadline) = (new.value.number, new.meta.deadline);
        let restore = || self.cache.restore(at, new, trust, Now::without_wall(now));
        let restored = self.ledger.nothing_is_dropped_in(restore);
        let is_full = self.config.maxsize.is_some_and(|max| self.residents.len() >= max);
        let fits = at.slot().is_none() && !is_full && !deadline.has_passed(now);
        match restored {
            Restored::Stored => {
                assert!(fits, "an entry was restored that is known, expired or too much");
                self.stays += 1;
                let is_suspect = trust == Trust::Suspect;
                self.residents.insert(0, Resident { name, value, deadline, stay: self.stays, is_suspect });
            }
            Restored::Refused(entry) => {
                assert!(!fits, "an entry was refused that fits");
                assert_eq!((entry.key.name, entry.value.number), (name, value));
            }
        }
    }

    fn reclaim_all(&mut self) {
        let mut removed = Removed::default();
        let now = Now::without_wall(self.now);
        self.ledger.nothing_is_dropped_in(|| self.cache.reclaim_all(now, &mut removed));
        assert_eq!(self.account_for(removed, &[], self.now), 0, "reclaiming evicts nothing");
        let tick = Time::from_nanos(self.now.as_nanos() / TICK * TICK);
        for resident in &self.residents {
            assert!(!resident.deadline.has_passed(tick), "{resident:?} is left at {:?}", self.now);
        }
    }

    fn clear(&mut self) {
        let cleared = self.ledger.nothing_is_dropped_in(|| self.cache.clear());
        assert_eq!(cleared.store.len(), self.residents.len());
        assert!(cleared.cold.is_none());
        cleared.store.validate();
        self.residents.clear();
        self.hits = 0;
        self.stats = Stats::default();
    }

    fn end(self) {
        drop(self.cache);
        assert_eq!(self.ledger.alive(), 0, "something outlives the cache");
    }

    // The parts of an operation

    /// A front reads the clock before it takes the lock, so a writer's `now` may be slightly too
    /// early.
    fn now_as_a_writer_knows_it(&self, dice: &mut fastrand::Rng) -> Time {
        let late = if dice.u32(..8) == 0 { dice.u64(..3 * TICK) } else { 0 };
        Time::from_nanos(self.now.as_nanos().saturating_sub(late))
    }

    fn new_entry(&self, name: u32, ttl: Option<Duration>, now: Time) -> NewEntry<Key, Token> {
        let deadline = ttl.map_or(Deadline::NEVER, |ttl| Deadline::after(now, ttl));
        NewEntry {
            key: Key::new(name, &self.ledger),
            value: Token::new(&self.ledger),
            meta: Meta::written_at(Stamp::UNKNOWN, deadline),
        }
    }

    /// Where a key may be written. No snapshot is open.
    fn at(&self, name: u32) -> Address {
        assert!(self.find(name).is_some() == self.residents.iter().any(|resident| resident.name == name));
        crate::addressing::at(&self.cache, self.hashing.hash(name), None, |key| key.name == name)
    }

    /// Finds a key in all possible ways, which must agree.
    fn find(&self, name: u32) -> Option<SlotId> {
        let hash = self.hashing.hash(name);
        let found = self.cache.find(hash, |key| key.name == name);
        assert_eq!(self.cache.locate(hash, |key| key.name == name).slot(), found);
        let mut search = self.cache.search(hash, |_| false);
        let searched = loop {
            match self.cache.next_candidate(&mut search) {
                Candidate::Compare(key) if key.name == name => search.is_equal(),
                Candidate::Compare(_) => {}
                Candidate::Found(found) => break found,
                Candidate::Changed => unreachable!("nothing changes a shared shard"),
            }
        };
        assert_eq!(searched.slot(), found, "a search finds another entry");
        found
    }

    /// Checks that the right entries left, by their causes: `expected`, then expired entries, then
    /// victims, which are the coldest for LRU. Removes the expired entries and the victims from the
    /// model; returns the number of victims.
    fn account_for(
        &mut self,
        removed: Removed<Key, Token>,
        expected: &[(u32, u64, Cause)],
        now: Time,
    ) -> usize {
        let before = std::mem::replace(&mut self.stats, self.cache.stats());
        let reclaimed = usize::try_from(self.stats.expirations - before.expirations).unwrap();
        let evicted = usize::try_from(self.stats.evictions - before.evictions).unwrap();
        let len = expected.len() + reclaimed + evicted;
        assert_eq!((removed.len(), removed.is_empty()), (len, len == 0), "what left and what was counted");

        let left = removed.into_entries();
        let left: Vec<_> =
            left.map(|Departed { key, value, cause, .. }| (key.unwrap().name, value.number, cause)).collect();
        // The written key comes before entries reclaimed after it, and after entries that make room
        // for it.
        let is_unasked = |cause| matches!(cause, Cause::Expired | Cause::Evicted);
        let (others, own): (Vec<_>, Vec<_>) = left.iter().partition(|(_, _, cause)| is_unasked(*cause));
        assert_eq!(own, expected);
        for (nth, (name, value, cause)) in others.into_iter().enumerate() {
            assert_eq!(cause, if nth < reclaimed { Cause::Expired } else { Cause::Evicted });
            let at =
                self.residents.iter().position(|resident| (resident.name, resident.value) == (name, value));
            let at =
                at.unwrap_or_else(|| panic!("key {name} left with value {value}, which it did not have"));
            if nth < reclaimed {
                assert!(self.residents[at].deadline.has_passed(now), "reclaimed before its time");
            } else if self.config.eviction == Eviction::Lru {
                assert_eq!(at, 0, "the victim is not the least recently used");
            }
            self.residents.remove(at);
        }
        evicted
    }

    /// The present entries, regardless of order and values.
    fn stays(&self) -> Vec<u64> {
        let mut stays: Vec<u64> = self.residents.iter().map(|resident| resident.stay).collect();
        stays.sort_unstable();
        stays
    }

    fn check(&mut self, dice: &mut fastrand::Rng) {
        self.cache.validate();
        assert_eq!(self.cache.store().len(), self.residents.len());
        assert_eq!(self.cache.store().is_empty(), self.residents.is_empty());
        assert!(self.config.maxsize.is_none_or(|max| self.residents.len() <= max));
        assert_eq!(self.ledger.alive(), 2 * self.residents.len(), "keys and values alive");

        let stats = self.cache.stats();
        assert_eq!((stats.hits, stats.misses), (self.hits, self.stats.misses));
        assert_eq!(stats.size, self.residents.len());

        let suspects = self.residents.iter().filter(|resident| resident.is_suspect).count();
        assert_eq!(self.cache.store().suspects(), suspects);
        assert_eq!(self.cache.has_suspects(), suspects > 0);

        self.check_order();
        for name in 0..self.names {
            let expected = self.residents.iter().any(|resident| resident.name == name);
            assert_eq!(self.find(name).is_some(), expected, "presence of key {name}");
        }
        self.check_tickets(dice);
    }

    fn check_order(&self) {
        let read = |ticket| {
            let entry = self.cache.store().redeem(ticket).expect("a ticket of now");
            (entry.key.name, entry.value.number, entry.meta.deadline)
        };
        let mut order: Vec<_> = self.cache.coldest_first().into_iter().map(read).collect();
        let mut expected: Vec<_> = self
            .residents
            .iter()
            .map(|resident| (resident.name, resident.value, resident.deadline))
            .collect();
        if self.config.eviction == Eviction::Adaptive {
            order.sort_unstable();
            expected.sort_unstable();
        }
        assert_eq!(order, expected);
    }

    /// A ticket identifies its entry until the entry leaves, and then identifies nothing.
    fn check_tickets(&mut self, dice: &mut fastrand::Rng) {
        if dice.u32(..16) == 0 {
            let stay_of: HashMap<u32, u64> =
                self.residents.iter().map(|resident| (resident.name, resident.stay)).collect();
            for ticket in self.cache.coldest_first() {
                let name = self.cache.store().redeem(ticket).unwrap().key.name;
                self.tickets.push((ticket, stay_of[&name]));
            }
        }
        if let Some(&(ticket, stay)) = dice.choice(&self.tickets) {
            let found = self.cache.store().redeem(ticket).map(|entry| entry.value.number);
            let expected = self.residents.iter().find(|resident| resident.stay == stay);
            assert_eq!(found, expected.map(|resident| resident.value), "what {ticket:?} names");
        }
    }
}

fn random_nanos(dice: &mut fastrand::Rng) -> u64 {
    // All orders of magnitude are equally likely, including the last one.
    let bits = dice.u32(1..=64);
    dice.u64(..) >> (64 - bits)
}

fn random_trust(dice: &mut fastrand::Rng) -> Trust {
    if dice.bool() { Trust::Covered } else { Trust::Suspect }
}

fn random_ttl(dice: &mut fastrand::Rng) -> Option<Duration> {
    match dice.u32(..10) {
        0..4 => None,
        4 => Some(Duration::ZERO),
        5 => Some(Duration::MAX),
        6 => Some(Duration::from_nanos(dice.u64(..4 * TICK))),
        7 => Some(Duration::from_millis(dice.u64(..2_000))),
        _ => Some(Duration::from_nanos(random_nanos(dice))),
    }
}

//! The model's side of an operation: what the model holds, which entries have to leave it, and the
//! checks after every operation.

use std::collections::HashMap;

use async_cache_core::address::Address;
use async_cache_core::cold::Rank;
use async_cache_core::entry::{Meta, NewEntry};
use async_cache_core::order::Eviction;
use async_cache_core::removed::Removed;
use async_cache_core::shard::{Config, Shard};
use async_cache_core::time::{Deadline, Now, Stamp};

use super::{Counted, Pair, Resident, value_in_file};
use crate::ledger::{Key, Token};

impl Pair {
    /// The rank of a key in the open snapshot, whether cold or not.
    pub(super) fn rank(&self, name: u32) -> Option<Rank> {
        (self.opened.is_some() && name < self.records).then_some(name)
    }

    /// The shard of a key, and where the key may be written.
    pub(super) fn address(&self, name: u32) -> (usize, Address) {
        let hash = self.hashing.hash(name);
        let shard = ((hash >> 32) as usize * self.shards.len()) >> 32;
        let at = crate::addressing::at(&self.shards[shard], hash, self.rank(name), |key| key.name == name);
        (shard, at)
    }

    pub(super) fn now(&self) -> Now {
        Now::without_wall(self.now)
    }

    pub(super) fn position(&self, shard: usize, name: u32) -> Option<usize> {
        self.hot[shard].iter().position(|resident| resident.name == name)
    }

    pub(super) fn new_entry(&self, name: u32) -> NewEntry<Key, Token> {
        let meta = Meta::written_at(Stamp::UNKNOWN, Deadline::NEVER);
        NewEntry { key: Key::new(name, &self.ledger), value: Token::new(&self.ledger), meta }
    }

    pub(super) fn counted(&self, shard: usize) -> Counted {
        let stats = self.shards[shard].stats();
        Counted { expirations: stats.expirations, evictions: stats.evictions }
    }

    pub(super) fn fence(&mut self, name: u32) {
        for flight in self.flights.iter_mut().filter(|flight| flight.name == name) {
            flight.is_fenced = true;
        }
    }

    pub(super) fn leave_the_cold(&mut self, rank: Option<Rank>) {
        if let Some(rank) = rank
            && self.cold.remove(&rank)
        {
            self.gone.insert(rank);
        }
    }

    pub(super) fn is_full(&self, shard: usize) -> bool {
        let Config { maxsize, share, .. } = self.configs[shard];
        if self.opened.is_none() {
            share.is_some_and(|share| self.hot[shard].len() >= share)
        } else {
            maxsize.is_some_and(|max| self.cold.len() + self.hot.iter().map(Vec::len).sum::<usize>() >= max)
        }
    }

    /// A set or a load writes a value under a key.
    pub(super) fn put(
        &mut self,
        shard: usize,
        new: Resident,
        removed: Removed<Key, Token>,
        counted: &Counted,
    ) {
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
    pub(super) fn make_room(
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

    pub(super) fn forget_victim(&mut self, shard: usize, (name, value): (u32, u64)) {
        let at = self.position(shard, name).expect("a victim of this shard");
        if self.configs[shard].eviction == Eviction::Lru {
            assert_eq!(at, 0, "the victim is not the least recently used");
        }
        assert_eq!(self.hot[shard].remove(at).value, value);
    }

    /// The present keys with their values, including expired ones.
    pub(super) fn present(&self) -> impl Iterator<Item = (u32, u64)> {
        let hot = self.hot.iter().flatten().map(|resident| (resident.name, resident.value));
        hot.chain(self.cold.iter().map(|&rank| (rank, value_in_file(rank))))
    }

    // Properties after every operation

    pub(super) fn check(&mut self) {
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
}

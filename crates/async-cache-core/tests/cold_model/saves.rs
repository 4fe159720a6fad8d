//! Saves of the shards over a cold set.
//!
//! A save runs step by step between the operations, by the rules that the fronts follow:
//! 1. It copies the cold set.
//! 2. It lists the hot entries of one shard after another, and removes their origins from the copy.
//!    If the cold set is gone from a shard by the time the shard is listed, the cache was cleared,
//!    and the copy is void.
//! 3. It writes the ranks left in the copy.
//! 4. It redeems its tickets, and writes their entries.
//!
//! Checked results: no key twice; every key that was present all the time; no value that its key
//! did not have while the save ran.

use std::collections::HashSet;
use std::sync::Arc;

use async_cache_core::cold::{ColdSet, Frozen};
use async_cache_core::listing::Ticket;
use async_cache_core::shard::Shard;

use super::{Pair, value_in_file};
use crate::ledger::{Key, Token};

/// A save in progress.
pub(super) struct Save {
    copied: Option<(Arc<ColdSet>, Frozen)>,
    /// The tickets of each listed shard.
    tickets: Vec<Vec<Ticket>>,
    /// Whether the copy has been written, after the last shard was listed.
    is_cold_written: bool,
    written: Vec<(u32, u64)>,
    // The model.
    /// The keys present without interruption since the beginning.
    pub(super) all_the_time: HashSet<u32>,
    /// The values that a key had while the save ran.
    pub(super) values: HashSet<(u32, u64)>,
}

impl Pair {
    pub(super) fn step_of_a_save(&mut self, dice: &mut fastrand::Rng) {
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

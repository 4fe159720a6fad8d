//! The entries in memory, for a save: listed shard by shard, copied a few at a time.
//!
//! Rules:
//! 1. the least worth keeping come first. The shards take turns in proportion to their entries,
//!    because their orders cannot be compared;
//! 2. an entry that left after it was listed is passed over. A changed entry is copied in its
//!    present state.

use async_cache_core::listing::Ticket;

use crate::host::{Memory, Taken};

/// The most entries that are copied under a single lock.
const AT_ONCE: usize = 64;

/// The fewest turns of the shards, so that the last entries of a save are the most worth keeping of
/// all shards.
const FEWEST_ROUNDS: usize = 64;

/// The entries in memory when they were listed.
#[derive(Debug)]
pub struct HotEntries {
    /// For each shard, the least worth keeping first.
    pub(crate) shards: Vec<Vec<Ticket>>,
}

impl HotEntries {
    /// Lists the entries of all shards.
    pub fn list<M: Memory>(host: &M) -> Self {
        Self { shards: (0..host.shards()).map(|number| host.list(number)).collect() }
    }

    /// Passes each listed entry that has not left to `each`, in the order of rule 1. They are
    /// copied a few at a time.
    ///
    /// # Errors
    /// The first error of `each`.
    pub fn take<M: Memory, E>(
        &self,
        host: &M,
        each: impl FnMut(Taken<M::Key, M::Value>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.taken(host).try_for_each(each)
    }

    /// Every listed entry that has not left, in the order of rule 1. They are copied a few at a
    /// time.
    pub fn taken<M: Memory>(&self, host: &M) -> impl Iterator<Item = Taken<M::Key, M::Value>> {
        self.slices().flat_map(|(number, tickets)| {
            let mut taken = Vec::with_capacity(tickets.len());
            host.take(number, tickets, &mut taken); // Rule 2.
            taken
        })
    }

    pub(crate) fn slices(&self) -> impl Iterator<Item = (usize, &[Ticket])> {
        let longest = self.shards.iter().map(Vec::len).max().unwrap_or(0);
        let rounds = longest.div_ceil(AT_ONCE).max(longest.min(FEWEST_ROUNDS));
        let turns = (0..rounds).flat_map(|round| self.shards.iter().enumerate().map(move |it| (round, it)));
        turns.map(move |(round, (number, tickets))| {
            let part = |round: usize| tickets.len() * round / rounds;
            (number, &tickets[part(round)..part(round + 1)])
        })
    }
}

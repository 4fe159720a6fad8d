//! The parts of a shard for a cache with a journal: the places of records, which are the stamps of
//! its entries (see [`crate::ledger`]).

use std::ops::RangeInclusive;

use super::{Shard, Trust};
use crate::address::Address;
use crate::entry::NewEntry;
use crate::listing::Ticket;
use crate::removed::Removed;
use crate::time::{Now, Stamp};

impl<K, V, T> Shard<K, V, T> {
    /// Keeps the place of every entry from now on: the stamp that its write states.
    pub fn keep_places(&mut self) {
        self.store.ledger_mut().keep_places();
    }

    /// The stamp of the entry at an address, if there is an entry.
    pub fn stamp_at(&self, at: &Address) -> Option<Stamp> {
        at.slot().map(|slot| self.store.entry(slot).meta.stamp)
    }

    /// Takes in an entry that was read from the journal, and counts a hit.
    ///
    /// # Errors
    /// The entry is returned if its key is in memory by now, or its deadline has passed.
    pub fn take_in(
        &mut self,
        at: Address,
        new: NewEntry<K, V>,
        trust: Trust,
        now: Now,
    ) -> Result<Removed<K, V>, NewEntry<K, V>> {
        self.check(&at.found);
        if at.slot().is_some() || new.meta.deadline.has_passed(now.time) {
            return Err(new);
        }
        Ok(self.make_hot(at, new, trust, now))
    }

    /// Lists the entries whose places are in a range, in no order, with their places.
    pub fn placed_within(&self, range: RangeInclusive<Stamp>, into: &mut Vec<(Stamp, Ticket)>) {
        into.extend(self.store.stamped_within(range));
    }

    /// The record of an entry was copied to another place. Nothing happens if the entry has left,
    /// or was written since.
    pub fn move_place(&mut self, ticket: Ticket, from: Stamp, to: Stamp) {
        self.store.move_place(ticket, from, to);
    }
}

//! The parts of a shard for a tier beyond one host, where others write and delete the same keys:
//! entries that may be out of date, and the removal of entries of which only a hash is known.
//!
//! A message about a key names the key as the other tier does. The front keeps the hash for each
//! name, so a message decodes no key and runs no user code. Two keys with the same hash are both
//! removed: this costs a miss, and nothing else.

use super::Shard;
use crate::removed::{Cause, Removed};
use crate::store::SlotId;
use crate::time::{Deadline, Now};

/// Whether an entry that comes from a file may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Every change of its key by others since its write was heard.
    Covered,
    /// It may be out of date.
    Suspect,
}

/// The fate of the open flights of a key whose entry is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlightFate {
    /// They store nothing.
    Fenced,
    /// They go on.
    Kept,
}

impl<K, V, T> Shard<K, V, T> {
    /// Makes every entry in memory suspect: the entry stays, and no read serves it until it is
    /// written anew. Counts, listings and saves include suspect entries. Takes a short time for any
    /// number of entries; one call in 63 visits all of them.
    pub fn suspect_all(&mut self) {
        self.store.suspect_all();
    }

    /// Whether an entry is suspect.
    pub fn is_suspect(&self, slot: SlotId) -> bool {
        self.store.is_suspect(slot)
    }

    /// Whether an entry in memory is suspect. The count is exact:
    /// [`Store::suspects`](crate::store::Store::suspects).
    pub fn has_suspects(&self) -> bool {
        self.store.suspects() > 0
    }

    /// [`Shard::live`], also for a suspect entry: for the time in which the other tier cannot be
    /// asked.
    #[inline]
    pub fn live_or_suspect(&self, slot: SlotId, has_passed: impl FnOnce(Deadline) -> bool) -> Option<&V> {
        let deadline = self.store.deadline(slot);
        (deadline.is_never() || !has_passed(deadline)).then(|| self.store.value(slot))
    }

    /// [`Shard::hit_mut`], also for a suspect entry. The entry stays suspect.
    pub fn hit_or_suspect(&mut self, slot: SlotId, has_passed: impl FnOnce(Deadline) -> bool) -> Option<&V> {
        self.live_or_suspect(slot, has_passed)?;
        self.counters.rest.hits += 1;
        self.store.touch(slot);
        Some(self.store.value(slot))
    }

    /// Whether the key of an entry or of an open flight has this hash.
    pub fn has_hash(&self, hash: u64) -> bool {
        self.store.candidate(hash, 0).is_some() || self.flights.candidate(hash, 0).is_some()
    }

    /// Fences every open flight.
    pub fn fence_all(&mut self) {
        self.counters.rest.fenced += self.flights.fence_all() as u64; // Rule 1
    }

    /// Removes every entry whose key has this hash, as [`Shard::delete`] does. Keys are not
    /// compared. Cold entries of a snapshot stay, since they have no hash. The removed entries come
    /// first in the result, each with its key, and with its stamp in a shard that keeps places:
    /// delete their records. [`Shard::stamp_delete`] returns the facts needed by merging saves.
    pub fn forget_hash(&mut self, hash: u64, flights: FlightFate, now: Now) -> Removed<K, V> {
        if flights == FlightFate::Fenced {
            self.counters.rest.fenced += self.flights.fence_hash(hash) as u64; // Rule 1
        }
        let mut removed = Removed::default();
        while let Some(slot) = self.store.candidate(hash, 0) {
            self.changes += 1;
            let stamp = self.store.entry(slot).meta.stamp;
            let (key, value) = self.store.remove(slot);
            removed.push_stamped(Some(key), value, Cause::Deleted, stamp);
        }
        self.reclaim(now, &mut removed);
        self.report();
        removed
    }
}

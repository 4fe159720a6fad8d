//! The parts of a shard for saves that merge: times of writing, and writes that no save has seen.
//! The rules are in [`crate::ledger`].

use super::{Shard, Stamp};
use crate::ledger::{LostWrites, SaveEnd};
use crate::removed::Removed;
use crate::time::Now;

impl<K, V, T> Shard<K, V, T> {
    /// Keeps the time of every write from now on, and no places of records. Existing entries have
    /// [`Stamp::UNKNOWN`].
    pub fn keep_times(&mut self) {
        self.store.ledger_mut().keep_times();
    }

    /// Whether times of writing are kept.
    pub fn keeps_times(&self) -> bool {
        self.store.ledger().keeps_times()
    }

    /// The stamp of a write that happens now, later than every write before; [`Stamp::UNKNOWN`] if
    /// no times are kept.
    pub fn stamp(&mut self, now: Now) -> Stamp {
        self.store.ledger_mut().stamp(now)
    }

    /// The stamp of a delete or a clear that happens now, for the caller to record; `None` if no
    /// times are kept. Counts a change even if the key is not here, because another process may
    /// have the key.
    pub fn stamp_delete(&mut self, now: Now) -> Option<Stamp> {
        if !self.keeps_times() {
            return None;
        }
        self.changes += 1;
        Some(self.stamp(now))
    }

    /// Makes every write from now on later than `stamp`.
    pub fn not_before(&mut self, stamp: Stamp) {
        self.store.ledger_mut().not_before(stamp);
    }

    /// Starts a save of every entry now in the shard. Expired entries are reclaimed first, into
    /// `removed`. Returns the lost writes, which the caller must record in the file. List the
    /// entries after this call or under the same lock; record any listed entry that is then not
    /// written.
    pub fn begin_save(&mut self, now: Now, removed: &mut Removed<K, V>) -> LostWrites<K> {
        let losses = self.store.ledger().losses();
        self.reclaim_all(now, removed);
        // This save records them, so they are no reason for another save.
        self.store.ledger_mut().count_losses(losses);
        self.store.ledger_mut().begin_save()
    }

    /// Returns the lost writes, which the caller must record, without beginning a save: a file is
    /// about to be opened. To include the writes that have expired by now, call
    /// [`Shard::reclaim_all`] first.
    pub fn take_lost(&mut self) -> LostWrites<K> {
        self.store.ledger_mut().take_lost()
    }

    /// Ends the step begun by [`Shard::begin_save`] or [`Shard::take_lost`].
    pub fn settle(&mut self, outcome: SaveEnd<K>) {
        self.store.ledger_mut().settle(outcome);
    }
}

//! A snapshot in use: the file, which of its entries are still cold, and how its times map to ours.
//!
//! Owns the reading of single entries. Invariants:
//! - the rank of a key never changes, for the file never does, and an entry that a save has copied into a newer file
//!   keeps its rank (`Snapshot`, `Successor`): so a rank may be asked for without any lock, before it is used under one;
//! - the file that a save has replaced is closed after it, and what is cold is read from the new one: else a disk
//!   would need room for three files;
//! - what is found under a key is under an equal key: equal bytes are not enough, for serde writes some unequal
//!   keys alike (variants of an untagged enum). Such keys miss each other's entries;
//! - an entry that could not be read or decoded once leaves the cold set, so it is not tried again and not
//!   saved again;
//! - eager records, which another program wrote for itself, are never served, and the next save passes them on:
//!   also after every other entry has turned hot, but not after the cache was cleared.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_cache_core::cold::{ColdSet, Rank};
use async_cache_core::stats::Stats;
use async_cache_core::time::{Deadline, FileClock, Stamp, Time};
use async_cache_disk::{Deadlines, Snapshot};
use parking_lot::{Mutex, RwLock};

use super::codec::Codec;
use super::disk::with_scratch;
use crate::save::Saved;

/// Deadlines looked at by one write. Each write adds one entry at most, so a few keep up.
const DUE_PER_WRITE: usize = 8;

#[derive(Debug)]
pub(crate) struct Opened<K, V> {
    /// Replaced by a save, once it has succeeded.
    snapshot: RwLock<Snapshot>,
    pub(crate) cold: Arc<ColdSet>,
    pub(crate) clock: FileClock,
    pub(crate) codec: Codec<K, V>,
    counts: Arc<ColdCounts>,
    /// Whether the first entry that could not be served was reported.
    reported: AtomicBool,
    due: Mutex<Deadlines>,
}

/// What happened to cold entries that no call of a shard has seen, and what else outlives the snapshot they
/// were in.
#[derive(Debug, Default)]
pub(crate) struct ColdCounts {
    /// Damaged, or not of the value's type.
    undecodable: AtomicU64,
    /// Reclaimed because their time had passed.
    expirations: AtomicU64,
    /// Saves that succeeded.
    saves: AtomicU64,
    /// Saves that failed.
    save_errors: AtomicU64,
    /// Entries of others that saves dropped from the backup.
    dropped: AtomicU64,
    /// The snapshot that was loaded last, if it has eager records. Held until the cache is cleared.
    others: Mutex<Option<Snapshot>>,
}

impl ColdCounts {
    pub(crate) fn add_to(&self, stats: &mut Stats) {
        stats.undecodable += self.undecodable.load(Ordering::Relaxed);
        stats.expirations += self.expirations.load(Ordering::Relaxed);
        stats.saves += self.saves.load(Ordering::Relaxed);
        stats.save_errors += self.save_errors.load(Ordering::Relaxed);
        stats.dropped += self.dropped.load(Ordering::Relaxed);
    }

    /// Forgets it all; for when the cache is cleared.
    pub(crate) fn reset(&self) {
        *self.others.lock() = None;
        self.undecodable.store(0, Ordering::Relaxed);
        self.expirations.store(0, Ordering::Relaxed);
        self.saves.store(0, Ordering::Relaxed);
        self.save_errors.store(0, Ordering::Relaxed);
        self.dropped.store(0, Ordering::Relaxed);
    }

    /// Notes whose eager records the next save passes on.
    pub(crate) fn loaded(&self, snapshot: &Snapshot) {
        *self.others.lock() = snapshot.has_eager().then(|| snapshot.clone());
    }

    /// The eager records that a save passed on are in its file now, unless the cache was cleared meanwhile.
    pub(crate) fn passed_on(&self, from: Option<&Snapshot>, to: &Snapshot) {
        let mut others = self.others.lock();
        if others.as_ref().map(Snapshot::file_id) == from.map(Snapshot::file_id) && others.is_some() {
            *others = to.has_eager().then(|| to.clone());
        }
    }

    /// The snapshot whose eager records a save passes on.
    pub(crate) fn others(&self) -> Option<Snapshot> {
        self.others.lock().clone()
    }

    /// Counts a save by what came of it.
    pub(crate) fn saved<E>(&self, outcome: &Result<Saved, E>) {
        match outcome {
            Ok(saved) => {
                self.saves.fetch_add(1, Ordering::Relaxed);
                self.dropped.fetch_add(saved.dropped, Ordering::Relaxed);
            }
            Err(_) => drop(self.save_errors.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// What the file has under a key.
pub(crate) enum ColdEntry<V> {
    /// Nothing that could be served; the rank, if there is a record.
    Absent(Option<Rank>),
    /// A value, as long as its rank is still cold.
    Found { rank: Rank, value: V, deadline: Deadline, stamp: Stamp },
}

impl<K, V> Opened<K, V> {
    pub(crate) fn new(
        snapshot: Snapshot,
        clock: FileClock,
        codec: Codec<K, V>,
        room: Option<usize>,
        counts: Arc<ColdCounts>,
    ) -> Self {
        let cold = Arc::new(ColdSet::new(snapshot.len(), room));
        let due = Mutex::new(snapshot.deadlines());
        let snapshot = RwLock::new(snapshot);
        Self { snapshot, cold, clock, codec, counts, reported: AtomicBool::new(false), due }
    }

    /// Where the cold entries are now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.snapshot.read().clone()
    }

    /// A save has copied what is cold to a newer file. What it did not copy has left the cold set.
    pub(crate) fn move_to(&self, snapshot: Snapshot) {
        *self.due.lock() = snapshot.deadlines();
        *self.snapshot.write() = snapshot;
    }

    /// Whether a save will copy most of the file: then it keeps the file's dictionary, else it trains a new one.
    pub(crate) fn is_mostly_cold(&self) -> bool {
        self.cold.live() >= self.snapshot().len() as usize / 2
    }

    /// The rank of a key, cold or not; for those who are about to write the key.
    pub(crate) fn rank(&self, key: &K) -> Option<Rank>
    where
        K: Eq,
    {
        with_scratch(|scratch| {
            let bytes = self.encoded(key)?;
            let rank = self.snapshot().locate(&bytes, scratch);
            self.lose_all(scratch.lost());
            rank.filter(|_| self.is_under(key, &bytes))
        })
    }

    /// Reads and decodes the entry of a key, if it is still cold and has not expired.
    pub(crate) fn read(&self, key: &K, has_passed: impl FnOnce(Deadline) -> bool) -> ColdEntry<V>
    where
        K: Eq,
    {
        // Nothing of the look-up is borrowed while the user's `Deserialize` runs, but the bytes themselves.
        with_scratch(|scratch| {
            let Some(bytes) = self.encoded(key) else { return ColdEntry::Absent(None) };
            let found = self.snapshot().find(&bytes, scratch);
            let Some(found) = found else {
                self.lose_all(scratch.lost());
                return ColdEntry::Absent(None);
            };
            if !self.is_under(key, &bytes) {
                return ColdEntry::Absent(None);
            }
            let rank = found.rank;
            if !self.cold.contains(rank) {
                return ColdEntry::Absent(Some(rank));
            }
            let deadline = self.clock.deadline_from_file(found.deadline);
            if has_passed(deadline) {
                self.expire(rank);
                return ColdEntry::Absent(Some(rank));
            }
            let stamp = Stamp::from_file(found.written_at);
            match (self.codec.decode_value)(found.value) {
                Ok(value) => ColdEntry::Found { rank, value, deadline, stamp },
                Err(error) => {
                    self.lose(rank, &error);
                    ColdEntry::Absent(Some(rank))
                }
            }
        })
    }

    /// Whether the file has a live entry under a key. Does not decode the value.
    pub(crate) fn contains(&self, key: &K, has_passed: impl FnOnce(Deadline) -> bool) -> bool
    where
        K: Eq,
    {
        with_scratch(|scratch| {
            let Some(bytes) = self.encoded(key) else { return false };
            let found = self.snapshot().find(&bytes, scratch).map(|found| (found.rank, found.deadline));
            found.is_some_and(|(rank, deadline)| {
                self.is_under(key, &bytes)
                    && self.cold.contains(rank)
                    && !has_passed(self.clock.deadline_from_file(deadline))
            })
        })
    }

    /// Reclaims some cold entries whose time has passed.
    pub(crate) fn reclaim_some(&self, now: Time) {
        if let Some(mut due) = self.due.try_lock() {
            self.reclaim(&mut due, now, DUE_PER_WRITE);
        }
    }

    /// Reclaims all cold entries whose time has passed.
    pub(crate) fn reclaim_all(&self, now: Time) {
        self.reclaim(&mut self.due.lock(), now, usize::MAX);
    }

    fn reclaim(&self, due: &mut Deadlines, now: Time, limit: usize) {
        let Some(until) = self.clock.deadline_to_file(Deadline::at(now)) else { return };
        for _ in 0..limit {
            match due.next_due(until) {
                Some(due) => self.expire(due.rank),
                None => break,
            }
        }
    }

    /// Lets go of an entry that cannot be served. The first one is reported, the others are counted.
    pub(crate) fn lose(&self, rank: Rank, why: &dyn std::fmt::Display) {
        if self.cold.take(rank) {
            self.counts.undecodable.fetch_add(1, Ordering::Relaxed);
            if !self.reported.swap(true, Ordering::Relaxed) {
                let snapshot = self.snapshot();
                let path = snapshot.path().display();
                tracing::warn!(
                    "{path}: entry {rank} cannot be served and counts as a miss: {why}; \
                     further ones are counted in `stats().undecodable` only"
                );
            }
        }
    }

    fn lose_all(&self, ranks: &[Rank]) {
        for &rank in ranks {
            self.lose(rank, &"its record is damaged or cannot be read");
        }
    }

    pub(crate) fn expire(&self, rank: Rank) {
        if self.cold.take(rank) {
            self.counts.expirations.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether a record that was found under these bytes, which are `key` encoded, has an equal key.
    fn is_under(&self, key: &K, bytes: &[u8]) -> bool
    where
        K: Eq,
    {
        (self.codec.decode_key)(bytes).is_ok_and(|known| known == *key)
    }

    /// `None` if the key cannot be encoded: then it cannot be in the file either.
    fn encoded(&self, key: &K) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(64);
        (self.codec.encode_key)(key, &mut bytes).ok()?;
        Some(bytes)
    }
}

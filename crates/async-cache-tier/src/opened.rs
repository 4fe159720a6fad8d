//! A snapshot in use: the file, its cold entries, and the mapping of its times to memory.
//!
//! `read` has the reading of single entries. Rules:
//! 1. the rank of a key never changes: the file does not change, and an entry that a save copies
//!    into a newer file keeps its rank. So a rank may be read without a lock, before it is used
//!    under a lock;
//! 2. after a save, the cold entries are read from the new file, and the old file is closed: a disk
//!    with room for two files is enough;
//! 3. a record is served to a key only if the record's key equals it. Equal bytes are not enough
//!    for every front: serde writes some unequal keys alike (variants of an untagged enum);
//! 4. an entry that could not be read or decoded once leaves the cold set. It is neither tried nor
//!    saved again, and it is counted; the first such entry is reported;
//! 5. while the snapshot *settles*, no entry is served from it: some keys in memory have not been
//!    looked up in it yet, and their older values must not be served (`open`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_cache_core::cold::{ColdSet, Rank};
use async_cache_core::time::{Deadline, FileClock, Time};
use async_cache_disk::{Deadlines, Snapshot};
use parking_lot::{Mutex, RwLock};

use crate::counts::TierCounts;

/// The number of deadlines that a write looks at. A write adds at most one entry, so a few keep up.
const DUE_PER_WRITE: usize = 8;

/// A snapshot in use.
#[derive(Debug)]
pub struct Opened {
    /// Rule 2: replaced by a successful save.
    snapshot: RwLock<Snapshot>,
    cold: Arc<ColdSet>,
    pub(crate) clock: FileClock,
    due: Mutex<Deadlines>,
    pub(crate) counts: Arc<TierCounts>,
    /// Whether the first entry that could not be served was reported.
    pub(crate) is_reported: AtomicBool,
    is_settled: AtomicBool,
}

impl Opened {
    /// A snapshot that was opened at the time `clock`. At most `room` entries are cold, the most
    /// recently used. The snapshot settles until [`Opened::settle`].
    pub(crate) fn new(
        snapshot: Snapshot,
        clock: FileClock,
        room: Option<usize>,
        counts: Arc<TierCounts>,
    ) -> Self {
        Self {
            cold: Arc::new(ColdSet::new(snapshot.len(), room)),
            due: Mutex::new(snapshot.deadlines()),
            snapshot: RwLock::new(snapshot),
            clock,
            counts,
            is_reported: AtomicBool::new(false),
            is_settled: AtomicBool::new(false),
        }
    }

    /// Every key in memory was looked up: entries are served from now on.
    pub(crate) fn settle(&self) {
        self.is_settled.store(true, Ordering::Release);
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.is_settled.load(Ordering::Acquire)
    }

    /// The cold entries.
    pub fn cold(&self) -> &Arc<ColdSet> {
        &self.cold
    }

    /// The present file of the cold entries.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.read().clone()
    }

    /// Rule 2: called when a save has copied the cold entries into a newer file. Entries that it
    /// did not copy have left the cold set.
    pub(crate) fn move_to(&self, snapshot: Snapshot) {
        *self.due.lock() = snapshot.deadlines();
        *self.snapshot.write() = snapshot;
    }

    /// Whether a save copies most of the file: then the save keeps the file's dictionary, else it
    /// trains a new dictionary.
    pub(crate) fn is_mostly_cold(&self) -> bool {
        self.cold.live() >= self.snapshot().len() as usize / 2
    }

    /// Reclaims some cold entries whose time has passed.
    pub fn reclaim_some(&self, now: Time) {
        if let Some(mut due) = self.due.try_lock() {
            self.reclaim(&mut due, now, DUE_PER_WRITE);
        }
    }

    /// Reclaims all cold entries whose time has passed.
    pub fn reclaim_all(&self, now: Time) {
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

    pub(crate) fn expire(&self, rank: Rank) {
        if self.cold.take(rank) {
            self.counts.expirations.fetch_add(1, Ordering::Relaxed);
        }
    }
}

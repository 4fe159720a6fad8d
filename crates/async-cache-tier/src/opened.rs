//! A snapshot in use: the file, the entries of it that are still cold, and how its times map to memory.
//!
//! Owns the reading of single entries. Rules:
//! 1. the rank of a key never changes: the file does not, and an entry that a save copies into a newer file
//!    keeps its rank. So a rank may be asked for without a lock, before it is used under one;
//! 2. after a save the cold entries are read from the new file, and the old one is closed: a disk that has
//!    room for two files suffices;
//! 3. a record is served to a key only if the record's key equals it. Equal bytes are not enough for every
//!    front: serde writes some unequal keys alike (variants of an untagged enum);
//! 4. an entry that could not be read or decoded once leaves the cold set. It is neither tried nor saved
//!    again, and it is counted; the first one is reported;
//! 5. while the snapshot *settles*, no entry is served from it: some keys in memory have not been looked up
//!    in it yet, and their older values must not be served (`open`).

use std::cell::RefCell;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_cache_core::cold::{ColdSet, Rank};
use async_cache_core::time::{Deadline, FileClock, Stamp, Time};
use async_cache_disk::{Deadlines, Scratch, Snapshot};
use parking_lot::{Mutex, RwLock};

use crate::host::{Asked, Host, Refusal};
use crate::tier::Counts;

/// How many deadlines a write looks at. A write adds at most one entry, so a few keep up.
const DUE_PER_WRITE: usize = 8;

/// Why an entry is lost whose record did not come back from the file.
pub(crate) const DAMAGED: &str = "its record is damaged or cannot be read";

/// A snapshot in use.
#[derive(Debug)]
pub struct Opened {
    /// Replaced by a save that has succeeded (rule 2).
    snapshot: RwLock<Snapshot>,
    cold: Arc<ColdSet>,
    clock: FileClock,
    due: Mutex<Deadlines>,
    counts: Arc<Counts>,
    /// Whether the first entry that could not be served was reported.
    is_reported: AtomicBool,
    is_settled: AtomicBool,
}

/// The file's answer for a key.
pub(crate) enum ColdEntry<V> {
    /// Nothing that can be served; the rank, if there is a record.
    Absent(Option<Rank>),
    /// A value, as long as its rank is still cold.
    Found { rank: Rank, value: V, deadline: Deadline, stamp: Stamp },
}

impl Opened {
    /// A snapshot that was opened at the time `clock`. At most `room` entries are cold, the most recently
    /// used ones. It settles until [`Opened::settle`].
    pub(crate) fn new(
        snapshot: Snapshot,
        clock: FileClock,
        room: Option<usize>,
        counts: Arc<Counts>,
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

    /// The entries that are still cold.
    pub fn cold(&self) -> &Arc<ColdSet> {
        &self.cold
    }

    /// The file that the cold entries are in now.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.read().clone()
    }

    /// A save has copied the cold entries into a newer file (rule 2). Entries that it did not copy have left
    /// the cold set.
    pub(crate) fn move_to(&self, snapshot: Snapshot) {
        *self.due.lock() = snapshot.deadlines();
        *self.snapshot.write() = snapshot;
    }

    /// Whether a save copies most of the file: then it keeps the file's dictionary, else it trains another.
    pub(crate) fn is_mostly_cold(&self) -> bool {
        self.cold.live() >= self.snapshot().len() as usize / 2
    }

    /// The rank of a key, cold or not, for a caller that is about to write the key.
    pub(crate) fn rank<H: Host>(
        &self,
        host: &H,
        bytes: &[u8],
        is_key: impl FnOnce(&[u8]) -> bool,
    ) -> Option<Rank> {
        with_scratch(|scratch| {
            let rank = self.snapshot().locate(bytes, scratch);
            self.lose_all(host, scratch.lost());
            rank.filter(|_| is_key(bytes)) // Rule 3.
        })
    }

    /// Reads and decodes the entry of a key, if it is still cold and has not expired.
    ///
    /// # Errors
    /// An interrupt of the decoding: the entry stays cold.
    pub(crate) fn read<H: Host>(
        &self,
        host: &H,
        key: &impl Asked<H>,
        bytes: &[u8],
    ) -> Result<ColdEntry<H::Value>, H::Error> {
        // The look-up borrows nothing but the bytes while the user's code decodes.
        with_scratch(|scratch| {
            let Some(found) = self.snapshot().find(bytes, scratch) else {
                self.lose_all(host, scratch.lost());
                return Ok(ColdEntry::Absent(None));
            };
            if !key.is_key_of(host, bytes) {
                return Ok(ColdEntry::Absent(None)); // Rule 3.
            }
            let rank = found.rank;
            let is_settled = self.is_settled.load(Ordering::Acquire);
            if !is_settled || !self.cold.contains(rank) {
                return Ok(ColdEntry::Absent(Some(rank))); // Rule 5.
            }
            let deadline = self.clock.deadline_from_file(found.deadline);
            if host.has_passed(deadline) {
                self.expire(rank);
                return Ok(ColdEntry::Absent(Some(rank)));
            }
            let stamp = Stamp::from_file(found.written_at);
            match host.decode_value(found.value) {
                Ok(value) => Ok(ColdEntry::Found { rank, value, deadline, stamp }),
                Err(Refusal::End(error)) => Err(error),
                Err(Refusal::Entry(why)) => {
                    if self.cold.take(rank) {
                        self.report(host, &host.name_of(bytes, rank), &why);
                    }
                    Ok(ColdEntry::Absent(Some(rank)))
                }
            }
        })
    }

    /// Whether the file has a live entry under a key. The value is not decoded.
    pub(crate) fn contains<H: Host>(&self, host: &H, key: &impl Asked<H>, bytes: &[u8]) -> bool {
        with_scratch(|scratch| {
            let found = self.snapshot().find(bytes, scratch).map(|found| (found.rank, found.deadline));
            self.lose_all(host, scratch.lost());
            found.is_some_and(|(rank, deadline)| {
                key.is_key_of(host, bytes)
                    && self.is_settled.load(Ordering::Acquire)
                    && self.cold.contains(rank)
                    && !host.has_passed(self.clock.deadline_from_file(deadline))
            })
        })
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

    /// Takes an entry out of the cold set that cannot be served (rule 4).
    pub(crate) fn lose<H: Host>(&self, host: &H, rank: Rank, why: &str) {
        if self.cold.take(rank) {
            self.report(host, &format!("entry {rank}"), why);
        }
    }

    fn lose_all<H: Host>(&self, host: &H, ranks: &[Rank]) {
        for &rank in ranks {
            self.lose(host, rank, DAMAGED);
        }
    }

    /// Counts an entry that cannot be served. The first one is reported.
    pub(crate) fn report<H: Host>(&self, host: &H, entry: &dyn Display, why: &str) {
        self.counts.undecodable.fetch_add(1, Ordering::Relaxed);
        if !self.is_reported.swap(true, Ordering::Relaxed) {
            let snapshot = self.snapshot();
            host.warn(&format!(
                "{}: {entry} cannot be served and counts as a miss: {why}; further ones are counted in {} only",
                snapshot.path().display(),
                H::UNDECODABLE,
            ));
        }
    }
}

thread_local! {
    /// One per thread. Taken out while it is used: decoding runs user code, which may come back here.
    static SCRATCH: RefCell<Option<Scratch>> = const { RefCell::new(None) };
}

/// Runs `work` with this thread's buffers for look-ups. A thread that is ending may have dropped them: a
/// destructor of another thread-local that uses the cache gets buffers of its own.
pub(crate) fn with_scratch<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
    let mut scratch = SCRATCH.try_with(RefCell::take).ok().flatten().unwrap_or_default();
    let result = work(&mut scratch);
    let _ = SCRATCH.try_with(|place| place.replace(Some(scratch)));
    result
}

//! A snapshot in use: the file, which of its entries are still cold, and how its times map to ours.
//!
//! Owns the reading of single entries. Invariants:
//! - the rank of a key never changes, for the file never does, and an entry that a save has copied into a newer file
//!   keeps its rank (`Snapshot`, `Successor`);
//! - the file that a save has replaced is closed after it, and what is cold is read from the new one: else a disk would need
//!   room for three files;
//! - keys are canonical: two keys have the same bytes if and only if they are equal. So what is found under the
//!   bytes of a key is the key's;
//! - an entry that could not be read or decoded once leaves the cold set: it is not tried again, and not saved
//!   again.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use async_cache_core::cold::{ColdSet, Rank};
use async_cache_core::stats::Stats;
use async_cache_core::time::{Deadline, FileClock, Stamp, Time};
use async_cache_disk::{Deadlines, Scratch, Snapshot};
use pyo3::prelude::*;

use crate::clock;
use crate::codec::{self, Options};
use crate::errors;
use crate::raw::GilCell;

/// Deadlines looked at by one write. Each write adds one entry at most, so a few keep up.
const DUE_PER_WRITE: usize = 8;

pub(crate) struct Opened {
    /// Replaced by a save, once it has succeeded.
    snapshot: RwLock<Snapshot>,
    pub(crate) cold: Arc<ColdSet>,
    pub(crate) clock: FileClock,
    options: Options,
    undecodable: AtomicU64,
    expirations: AtomicU64,
    /// Whether the first entry that could not be served was reported.
    reported: AtomicBool,
    due: GilCell<Deadlines>,
}

/// What the file has under a key.
pub(crate) enum ColdEntry<'py> {
    /// Nothing that could be served; the rank, if there is a record.
    Absent(Option<Rank>),
    /// A value, as long as its rank is still cold.
    Found { rank: Rank, value: Bound<'py, PyAny>, deadline: Deadline, stamp: Stamp },
}

impl Opened {
    pub(crate) fn new(snapshot: Snapshot, clock: FileClock, room: Option<usize>, options: Options) -> Self {
        let cold = Arc::new(ColdSet::new(snapshot.len(), room));
        let due = GilCell::new(snapshot.deadlines());
        Self {
            snapshot: RwLock::new(snapshot),
            cold,
            clock,
            options,
            undecodable: AtomicU64::new(0),
            expirations: AtomicU64::new(0),
            reported: AtomicBool::new(false),
            due,
        }
    }

    /// Where the cold entries are now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A save has copied what is cold to a newer file. What it did not copy has left the cold set.
    pub(crate) fn move_to(&self, snapshot: Snapshot) {
        self.due.take_with(|due| *due = snapshot.deadlines());
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }

    pub(crate) fn add_to(&self, stats: &mut Stats) {
        stats.undecodable += self.undecodable.load(Ordering::Relaxed);
        stats.expirations += self.expirations.load(Ordering::Relaxed);
    }

    /// Whether a save will copy most of the file: then it keeps the file's dictionary, else it trains a new one.
    pub(crate) fn is_mostly_cold(&self) -> bool {
        self.cold.live() >= self.snapshot().len() as usize / 2
    }

    /// Whether the file has a live entry under a key. Does not decode the value.
    pub(crate) fn contains(&self, py: Python<'_>, bytes: &[u8]) -> bool {
        with_scratch(|scratch| {
            let found = self.snapshot().find(bytes, scratch).map(|found| (found.rank, found.deadline));
            self.lose_all(py, scratch.lost());
            found.is_some_and(|(rank, deadline)| {
                self.cold.contains(rank) && !clock::has_passed(self.clock.deadline_from_file(deadline))
            })
        })
    }

    /// The rank of a key, cold or not; for those who are about to write the key.
    pub(crate) fn rank(&self, py: Python<'_>, bytes: &[u8]) -> Option<Rank> {
        with_scratch(|scratch| {
            let rank = self.snapshot().locate(bytes, scratch);
            self.lose_all(py, scratch.lost());
            rank
        })
    }

    /// Reads and decodes the entry of a key, if it is still cold and has not expired.
    ///
    /// # Errors
    /// What came up while it was decoded and is not the entry's fault (an interrupt, say): it stays cold.
    pub(crate) fn read<'py>(&self, py: Python<'py>, bytes: &[u8]) -> PyResult<ColdEntry<'py>> {
        with_scratch(|scratch| {
            let Some(found) = self.snapshot().find(bytes, scratch) else {
                self.lose_all(py, scratch.lost());
                return Ok(ColdEntry::Absent(None));
            };
            let rank = found.rank;
            if !self.cold.contains(rank) {
                return Ok(ColdEntry::Absent(Some(rank)));
            }
            let deadline = self.clock.deadline_from_file(found.deadline);
            if clock::has_passed(deadline) {
                self.expire(rank);
                return Ok(ColdEntry::Absent(Some(rank)));
            }
            let stamp = Stamp::from_file(found.written_at);
            match codec::decode_value(py, found.value, self.options) {
                Ok(value) => Ok(ColdEntry::Found { rank, value, deadline, stamp }),
                Err(error) if errors::is_from_outside(py, &error) => Err(error),
                Err(error) => {
                    if self.cold.take(rank) {
                        self.report(py, &named(py, bytes, rank), &error.to_string());
                    }
                    Ok(ColdEntry::Absent(Some(rank)))
                }
            }
        })
    }

    /// Reclaims some cold entries whose time has passed.
    pub(crate) fn reclaim_some(&self, now: Time) {
        self.reclaim(now, DUE_PER_WRITE);
    }

    /// Reclaims all cold entries whose time has passed.
    pub(crate) fn reclaim_all(&self, now: Time) {
        self.reclaim(now, usize::MAX);
    }

    fn reclaim(&self, now: Time, limit: usize) {
        let Some(until) = self.clock.deadline_to_file(Deadline::at(now)) else { return };
        self.due.take_with(|due| {
            for _ in 0..limit {
                match due.next_due(until) {
                    Some(due) => self.expire(due.rank),
                    None => break,
                }
            }
        });
    }

    /// Lets go of an entry that cannot be served.
    pub(crate) fn lose(&self, py: Python<'_>, rank: Rank, why: &str) {
        if self.cold.take(rank) {
            self.report(py, &format!("entry {rank}"), why);
        }
    }

    /// Counts an entry that cannot be served. The first one is told to the log.
    pub(crate) fn report(&self, py: Python<'_>, entry: &str, why: &str) {
        self.undecodable.fetch_add(1, Ordering::Relaxed);
        if !self.reported.swap(true, Ordering::Relaxed) {
            let snapshot = self.snapshot();
            let path = snapshot.path().display();
            let message = format!(
                "{path}: {entry} cannot be served and counts as a miss: {why}; further ones are counted in \
                 stats()['undecodable'] only"
            );
            errors::log(py, &message);
        }
    }

    fn lose_all(&self, py: Python<'_>, ranks: &[Rank]) {
        for &rank in ranks {
            self.lose(py, rank, "its record is damaged or cannot be read");
        }
    }

    pub(crate) fn expire(&self, rank: Rank) {
        if self.cold.take(rank) {
            self.expirations.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What to call an entry in messages: by its key, if that can be said.
fn named(py: Python<'_>, key: &[u8], rank: Rank) -> String {
    match codec::decode_key(py, key) {
        Ok(key) => format!("the entry of key {}", errors::repr(&key)),
        Err(_) => format!("entry {rank}"),
    }
}

thread_local! {
    /// One per thread; taken out while it is used, since decoding may run code that comes back here.
    static SCRATCH: RefCell<Option<Scratch>> = const { RefCell::new(None) };
}

/// Runs `work` with this thread's buffers for look-ups. A thread that is ending may have dropped them: a destructor of
/// another thread-local that uses the cache gets buffers of its own.
fn with_scratch<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
    let mut scratch = SCRATCH.try_with(RefCell::take).ok().flatten().unwrap_or_default();
    let result = work(&mut scratch);
    let _ = SCRATCH.try_with(|place| place.replace(Some(scratch)));
    result
}

//! The facts about records that may be out of date. Knows no front. `suspects` has the rules.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_cache_core::number::NumberMap;
use async_cache_core::shard::Trust;
use parking_lot::Mutex;

/// Rule 4: 1 MiB at 16 bytes each.
pub(crate) const MOST_NOTED: usize = 1 << 16;

/// Which records on the disk are suspect.
#[derive(Debug, Default)]
pub(crate) struct SuspectRecords {
    /// Set at the first `suspect_all` or message. Until then, nothing is suspect.
    is_in_use: AtomicBool,
    /// Rule 1: records of the journal up to this time are suspect.
    until: AtomicU64,
    /// Rule 3: hashes, each with the time of the last message about it.
    noted: Mutex<NumberMap<u64, u64>>,
}

impl SuspectRecords {
    /// Whether a tier beyond the host is in use.
    pub(crate) fn is_in_use(&self) -> bool {
        self.is_in_use.load(Ordering::Relaxed)
    }

    /// Rule 2.
    pub(crate) fn trust_in_files(&self) -> Trust {
        if self.is_in_use() { Trust::Suspect } else { Trust::Covered }
    }

    /// Rule 1, without the messages since. May be called with nothing locked.
    pub(crate) fn is_of_old(&self, written_at: Option<u64>) -> bool {
        self.is_in_use() && written_at.unwrap_or(0) <= self.until.load(Ordering::Relaxed)
    }

    /// Whether a record of the journal may be served. `hash`: of its key. Under the lock of the
    /// shard (rule 5).
    pub(crate) fn trust(&self, written_at: Option<u64>, hash: u64) -> Trust {
        let is_noted = || {
            let changed_at = self.noted.lock().get(&hash).copied();
            changed_at.is_some_and(|changed_at| written_at.unwrap_or(0) <= changed_at)
        };
        let is_suspect = self.is_of_old(written_at) || self.is_in_use() && is_noted();
        if is_suspect { Trust::Suspect } else { Trust::Covered }
    }

    /// Whether a record is of before a message about its key: it is served in no case.
    pub(crate) fn is_outdated(&self, written_at: Option<u64>, hash: u64) -> bool {
        let changed_at = self.noted.lock().get(&hash).copied();
        changed_at.is_some_and(|changed_at| written_at.unwrap_or(0) <= changed_at)
    }

    /// Rule 2: a journal is about to be used, with records up to `latest`.
    pub(crate) fn journal_begins(&self, latest: u64) {
        if self.is_in_use() {
            self.suspect_until(latest);
        }
    }

    /// Rule 1: records of the journal up to `time` are suspect.
    pub(crate) fn suspect_until(&self, time: u64) {
        let mut noted = self.noted.lock();
        self.until.fetch_max(time, Ordering::Relaxed);
        noted.clear();
        self.is_in_use.store(true, Ordering::Relaxed);
    }

    /// Rule 3: a message said that a key with the hash has changed.
    pub(crate) fn note(&self, hash: u64, time: u64) {
        let is_full = {
            let mut noted = self.noted.lock();
            noted.insert(hash, time);
            self.is_in_use.store(true, Ordering::Relaxed);
            noted.len() > MOST_NOTED
        };
        if is_full {
            self.suspect_until(time); // Rule 4.
        }
    }
}

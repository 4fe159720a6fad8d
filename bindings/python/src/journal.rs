//! Operations on a cache with a journal: every write is on file when its call returns.
//!
//! `async-cache-tier` owns the journal. Rules:
//! 1. a write is encoded with nothing borrowed, because encoding may run Python code. The record is
//!    appended under the borrow under which memory changes. An exception of the encoding leaves
//!    memory and journal as they were;
//! 2. equal keys may have records of different kinds: one with canonical bytes, and one whose key
//!    only Python can compare. A write or delete also deletes the record of the equal key in
//!    memory, if its kind differs;
//! 3. the interpreter's lock is released while the disk works, except for the append of a single
//!    record, and for reading an entry that is in the system's page cache. On an event loop, other
//!    entries are read by a thread (see `reading`);
//! 4. a cache *leaves* its journal when the journal is closed, and in a forked child, to which the
//!    journal of its parent does not belong. From then on the cache is in memory only, and its
//!    saves merge, as without a journal. A forked child warns at its first write;
//! 5. a record has the deadline that the tier beyond this host allows. It is encoded before that
//!    tier is asked under the borrow; if the tier then allows less, nothing is kept.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_cache_core::address::FoundKey;
use async_cache_core::entry::{Fetched, Meta, ValueSource};
use async_cache_core::flight::FlightId;
use async_cache_core::time::{Deadline, Stamp, Time};
use async_cache_disk::DiskErrorKind;
use async_cache_disk::store::Folded;
use async_cache_tier::journal::{self, DiskWait, Journal, JournalClosed, JournalWrite, Served, Upkeep};
use async_cache_tier::suspects::Suspects;
use async_cache_tier::{FileKey, Turn};
use pyo3::prelude::*;

use crate::cache::{Beyond, Cache, CacheState, Landed};
use crate::errors;
use crate::host::{CacheHost, FileHost};
use crate::key::{Query, StoredKey};
use crate::raw::Ref;
use crate::snapshot::{AskedQuery, Put, file_key};
use crate::target::TargetFile;
use crate::ttl::Ttl;

/// The outcome of opening a journal.
pub(crate) enum JournalOpening {
    Open,
    /// There is none. `is_locked`: because the store is open already, in this process or another.
    Absent {
        why: String,
        is_locked: bool,
    },
}

/// Opens the journal of a cache, at most once in the life of the cache.
pub(crate) fn open(
    cache: &Cache,
    py: Python<'_>,
    target: TargetFile,
    turn: &mut Turn<'_>,
) -> PyResult<JournalOpening> {
    let absent = |why: &str| JournalOpening::Absent { why: why.to_owned(), is_locked: false };
    if cache.journal().is_some() {
        return Ok(JournalOpening::Open);
    }
    let Some(options) = target.options.journal else { return Ok(absent("the backend has no journal")) };
    if cache.tier.journal().is_some() {
        return Ok(absent("the cache has left its journal"));
    }
    let target = Arc::new(target);
    let before = cache.state.borrow(py).target.replace(Arc::clone(&target));
    drop(before);
    match journal::open(&CacheHost { py, cache, target }, turn, options)? {
        Ok(_) => Ok(JournalOpening::Open),
        Err(error) if *error.kind() == DiskErrorKind::NotAFile => Err(errors::backup(py, &error)),
        Err(error) => {
            let is_locked = *error.kind() == DiskErrorKind::Locked;
            Ok(JournalOpening::Absent { why: error.to_string(), is_locked })
        }
    }
}

/// The delete of a record of another kind (rule 2): the key in memory, and the delete.
type OtherDelete = Option<(Ref, Option<JournalWrite>)>;

impl Cache {
    /// The journal, unless the cache has left it (rule 4).
    #[inline]
    pub(crate) fn journal(&self) -> Option<&Journal> {
        self.tier.journal().filter(|_| !self.has_left_journal.load(Ordering::Relaxed))
    }

    /// [`Cache::set_key`] of a cache with a journal.
    pub(crate) fn set_in_journal(
        &self,
        py: Python<'_>,
        journal: &Journal,
        query: &impl Query,
        (key, value): (Ref, Ref),
        ttl: Ttl,
        beyond: &mut Option<Put>,
    ) -> PyResult<()> {
        let Some(host) = self.file_host(py) else { return Ok(()) };
        let (now, deadline) = {
            let state = self.state.borrow(py);
            let now = if beyond.is_some() { self.now() } else { state.now_for(ttl, &self.tier) };
            (now, ttl.deadline(state.default_ttl, || now.time))
        };
        let own = deadline;
        let expected = beyond.as_ref().map_or(Some(own), |put| put.expected(own, now.time));
        let deadline = expected.unwrap_or(own);
        let write = journal.encode(&host, &key, &value, deadline)?; // Rule 1.
        let mut other = None;
        loop {
            let (mut state, found) = self.locate(py, query)?;
            if let Some(key) = unseen(py, &state, &found, query, &other) {
                drop(state);
                other = Some(other_kind(&host, journal, query, key)?);
                continue;
            }
            let probed = state.tiered.shard.epoch().answered(None);
            let Ok(at) = state.tiered.shard.admit(found, probed) else { continue };
            let replaces = delete_other(journal, &other, state.tiered.shard.stamp_at(&at));
            if let Some(put) = beyond {
                // Rule 5.
                let allowed = put.deadline(query.hash(), own, now.time);
                if expected.is_none() || allowed.is_none_or(|allowed| allowed < deadline) {
                    drop(state);
                    return self.delete_in_journal(&host, journal, query);
                }
            }
            let meta = journal.append(&write, replaces, deadline);
            let removed = state.tiered.shard.set_stamped(at, key, value, meta, now);
            drop(state);
            journal.after_write(&host, &removed);
            return Ok(());
        }
    }

    /// [`Cache::delete_key`] of a cache with a journal.
    pub(crate) fn delete_in_journal(
        &self,
        host: &FileHost<'_, '_>,
        journal: &Journal,
        query: &impl Query,
    ) -> PyResult<()> {
        let py = host.py;
        let write = file_key(host, query)?.map(|key| journal.encode_delete(host, key));
        let mut other = None;
        loop {
            let (mut state, found) = self.locate(py, query)?;
            if let Some(key) = unseen(py, &state, &found, query, &other) {
                drop(state);
                other = Some(other_kind(host, journal, query, key)?);
                continue;
            }
            let probed = state.tiered.shard.epoch().answered(None);
            let Ok(at) = state.tiered.shard.admit(found, probed) else { continue };
            let replaces = delete_other(journal, &other, state.tiered.shard.stamp_at(&at));
            if let Some(write) = &write {
                journal.append(write, replaces, Deadline::NEVER);
            }
            let removed = state.tiered.shard.delete(at, self.now());
            drop(state);
            journal.after_write(host, &removed);
            return Ok(());
        }
    }

    /// [`Cache::land`] of a cache with a journal.
    pub(crate) fn land_in_journal(
        &self,
        py: Python<'_>,
        journal: &Journal,
        (flight, query): (FlightId, &impl Query),
        (value, ttl): (Ref, Ttl),
        beyond: &mut Beyond,
        (started, ended): (Time, Time),
    ) -> PyResult<Landed> {
        let Some(host) = self.file_host(py) else { return Ok(Landed::Stored(None)) };
        let key = Ref::new(query.to_key(py)?);
        let own = ttl.deadline(self.state.borrow(py).default_ttl, || ended);
        let expected = beyond.expected(own, ended);
        let write = journal.encode(&host, &key, &value, expected.unwrap_or(own))?; // Rule 1.
        let now = self.at(ended);
        let (mut state, found) = self.locate(py, query)?;
        let probed = state.tiered.shard.epoch().answered(None);
        let Ok(at) = state.tiered.shard.admit(found, probed) else { return Ok(Landed::Stored(None)) };
        // Rule 5.
        let (Some(deadline), Some(allowed)) = (expected, beyond.deadline(own, ended)) else {
            let finished = state.tiered.shard.finish_without_storing(flight, ended.since(started));
            return Ok(Landed::Unstored(finished));
        };
        if allowed < deadline {
            let finished = state.tiered.shard.finish_without_storing(flight, ended.since(started));
            return Ok(Landed::Unstored(finished));
        }
        let Meta { stamp, .. } =
            journal.append_load(write, &state.tiered.shard, (flight, &at), deadline, now);
        let fetched = Fetched { value, deadline, stamp, from: ValueSource::Tier };
        let finished = state.tiered.shard.land(flight, at, fetched, ended.since(started), now);
        drop(state);
        if let Some(finished) = &finished {
            journal.after_write(&host, &finished.removed);
        }
        Ok(Landed::Stored(finished))
    }

    /// Serves a key from the store, and keeps the entry in memory.
    pub(crate) fn cold_in_journal(
        &self,
        py: Python<'_>,
        journal: &Journal,
        query: &impl Query,
        wait: DiskWait,
        suspects: Suspects,
    ) -> PyResult<Served<Ref>> {
        let Some(host) = self.file_host(py) else { return Ok(Served::Absent) };
        let serve = |wait| journal::serve(&host, journal, &AskedQuery(query), wait, suspects);
        let served = serve(DiskWait::Refused)?;
        if wait == DiskWait::Refused || !matches!(served, Served::WouldWait) {
            return Ok(served);
        }
        // Rule 3: the disk is waited for here, and other threads run meanwhile.
        if let Some(bytes) = query.encode(py)? {
            py.detach(|| journal.read_ahead(&bytes));
        }
        serve(DiskWait::Allowed)
    }

    /// How many entries are in the journal and not in memory.
    pub(crate) fn cold_entries_in_journal(&self, py: Python<'_>) -> usize {
        // Rule 3.
        self.journal().map_or(0, |journal| py.detach(|| journal.cold()))
    }

    /// Whether writes go to a journal.
    pub(crate) fn is_journaled(&self) -> bool {
        self.journal().is_some_and(|journal| !journal.is_closed())
    }

    /// Rule 4. `warns`: the next write logs a warning.
    pub(crate) fn leave_journal(&self, py: Python<'_>, warns: bool) {
        if self.journal().is_none() {
            return;
        }
        let mut state = self.state.borrow(py);
        if state.target.as_ref().is_some_and(|target| target.options.merge.is_some()) {
            state.tiered.shard.keep_times();
            self.tier.keep_writes();
        }
        self.has_to_warn_of_fork.store(warns, Ordering::Relaxed);
        self.has_left_journal.store(true, Ordering::Relaxed);
    }

    /// Rule 4: the warning of a forked child.
    #[inline]
    pub(crate) fn warn_if_forked(&self, py: Python<'_>) {
        if self.tier.journal().is_some() {
            self.warn_of_fork(py);
        }
    }

    #[cold]
    fn warn_of_fork(&self, py: Python<'_>) {
        if self.has_to_warn_of_fork.swap(false, Ordering::Relaxed)
            && let Some(host) = self.file_host(py)
        {
            let path = host.target.file.path().display();
            errors::log(
                py,
                &format!(
                    "{path}: the journal belongs to the process that made the cache; this process was forked from it, \
                     keeps its writes in memory only, and its saves merge into the file; make the cache after the fork"
                ),
            );
        }
    }
}

/// Makes all writes that have returned survive a power loss.
pub(crate) fn flush(cache: &Cache, py: Python<'_>) -> PyResult<()> {
    match (cache.journal(), cache.file_host(py)) {
        (Some(journal), Some(host)) => journal::flush(&host, journal),
        _ => Ok(()),
    }
}

/// A save: a flush. It is counted.
pub(crate) fn save(cache: &Cache, py: Python<'_>) -> PyResult<()> {
    match (cache.journal(), cache.file_host(py)) {
        (Some(journal), Some(host)) => journal::save(&host, journal).map(drop),
        _ => Ok(()),
    }
}

/// Does a step of the upkeep. Returns when the next one is due; `None`: after the usual interval.
/// Failures are counted, and the first one is logged.
pub(crate) fn tend(cache: &Cache, py: Python<'_>, flush_every: Duration) -> Option<Duration> {
    let (journal, host) = (cache.journal()?, cache.file_host(py)?);
    match journal::tend(&host, journal, flush_every) {
        Ok(Upkeep::Done) => None,
        Ok(Upkeep::More(pause)) => Some(pause),
        Err(error) => {
            journal.report(&host, &error);
            None
        }
    }
}

/// Closes the journal, waiting for the lock of the file for `patience`. Returns whether there was a
/// journal.
pub(crate) fn close(cache: &Cache, py: Python<'_>, patience: Duration) -> PyResult<bool> {
    let Some(host) = cache.file_host(py).filter(|_| cache.is_journaled()) else { return Ok(false) };
    let closed = journal::close(&host, patience);
    cache.leave_journal(py, false);
    let JournalClosed::Closed(folded) = closed? else { return Ok(false) };
    if let Folded::Closed(error) = folded {
        errors::log(py, &format!("the journal stays beside the file, and nothing is lost: {error}"));
    }
    Ok(true)
}

/// The key of an equal entry in memory that has to be looked at for rule 2, and was not yet.
fn unseen(
    py: Python<'_>,
    state: &CacheState,
    found: &FoundKey,
    query: &impl Query,
    other: &OtherDelete,
) -> Option<Ref> {
    let known = state.tiered.shard.store().entry(found.slot()?).key;
    // Keys that are equal without Python's comparison have the same bytes.
    let is_seen =
        query.quick(py, known) == Some(true) || other.as_ref().is_some_and(|(key, _)| key.is(known.bind(py)));
    (!is_seen).then(|| known.copy(py))
}

/// Rule 2: the delete of the record of `known`, if its kind differs from the kind of `query`.
fn other_kind(
    host: &FileHost<'_, '_>,
    journal: &Journal,
    query: &impl Query,
    known: Ref,
) -> PyResult<(Ref, Option<JournalWrite>)> {
    let stored = StoredKey { key: known.bind(host.py), hash: 0 };
    let is_canonical = stored.encode(host.py)?.is_some();
    let delete = if is_canonical == query.encode(host.py)?.is_some() {
        None
    } else {
        file_key(host, &stored)?.map(|key: FileKey| journal.encode_delete(host, key))
    };
    Ok((known, delete))
}

/// Rule 2. Returns the stamp that the write itself replaces.
fn delete_other(journal: &Journal, other: &OtherDelete, replaces: Option<Stamp>) -> Option<Stamp> {
    match other {
        Some((_, Some(delete))) => {
            journal.append(delete, replaces, Deadline::NEVER);
            None
        }
        _ => replaces,
    }
}

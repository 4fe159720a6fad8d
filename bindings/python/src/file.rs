//! Opening a file, and the backend that works alone: all of a file read, replaced, or removed.
//!
//! A cache that is not pristine opens a snapshot by asking it for the rank of every key in memory: these leave
//! the cold set, since what is in memory is newer. If it has another snapshot open, it opens what both have between
//! them: see `union`. Entries whose keys have no canonical encoding (arbitrary
//! objects) are decoded at once, as no look-up would find them, and come in first.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_cache_core::cold::Rank;
use async_cache_core::entry::{Meta, NewEntry};
use async_cache_core::listing::Ticket;
use async_cache_core::shard::Restored;
use async_cache_core::time::{Deadline, FileClock, Stamp};
use async_cache_disk::{DiskErrorKind, EagerStep, Snapshot, Step, Times, Tombstones};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::cache::Cache;
use crate::codec;
use crate::errors;
use crate::key::{ObjectKey, Query, StoredKey};
use crate::opened::Opened;
use crate::options::FileOptions;
use crate::pace::{Slice, in_background, waiting};
use crate::save;
use crate::sharing::reclaim_and_take_lost;
use crate::target::Target;
use crate::union::union;
use crate::{clock, raw::Ref};

impl Cache {
    /// If saves merge, keeps from now on what they need. What is known by now, for [`State::share_opened`](crate::cache::State).
    pub(crate) fn begin_sharing(&self, py: Python<'_>, options: &FileOptions) -> Option<Tombstones> {
        options.merge?;
        let mut state = self.state.borrow(py);
        let (now, wall) = clock::both();
        let file = state.clock_at(now, wall, 0);
        state.file_clock = Some(file);
        state.core.keep_times();
        Some(state.share(options.codec))
    }

    /// Opens a snapshot; what is in memory stays. The number of its entries that came in, or `None` if there is
    /// no file.
    pub(crate) fn open_file(&self, py: Python<'_>, target: &Target) -> PyResult<Option<usize>> {
        let merges = target.options.merge.is_some();
        if merges {
            // What was lost before this is wanted again, if it is in the file.
            self.note_lost(py, reclaim_and_take_lost, Some(Slice::begin()))?;
        }
        let deleted_before = self.begin_sharing(py, &target.options);
        let opened = target.open(py);
        self.state.borrow(py).unread = opened
            .as_ref()
            .is_err_and(|error| matches!(error.kind(), DiskErrorKind::Io | DiskErrorKind::Trust));
        let Some(snapshot) = opened.map_err(|error| errors::backup(py, &error))? else { return Ok(None) };
        // Until it is adopted: an interrupt, say, must not make the next save replace what was not taken in. One that merges
        // joins it.
        self.state.borrow(py).unread = !merges;
        let (now, wall) = clock::both();
        let file = self.state.borrow(py).clock_at(now, wall, snapshot.saved_at());
        let (file_id, written_until) = (snapshot.file_id(), snapshot.written_until());
        let before = deleted_before.as_ref();
        let Eager { restored, refused, undecodable } =
            self.restore_eager(py, target, &snapshot, file, before)?;
        let entries = snapshot.len() as usize + restored + refused;
        let maxsize = self.state.borrow(py).core.maxsize();
        let no_room = maxsize.map_or(0, |maxsize| entries.saturating_sub(maxsize)) as u64;
        // What is cold in the snapshot that is open, and not in this one, stays.
        let older = self.state.borrow(py).opened.clone();
        let union = match &older {
            Some(older) if older.snapshot().file_id() != file_id => {
                union(py, target, older, &snapshot, file)?
            }
            _ => None,
        };
        let (snapshot, from_older) = match union {
            Some(union) => (union.snapshot, union.older),
            None => (snapshot, Vec::new()),
        };
        let mut known = HashMap::new();
        for attempt in 0..10 {
            // And what was lost since is not.
            self.note_lost(py, reclaim_and_take_lost, Some(Slice::begin()))?;
            // First in slices, in which others may write. Then what they wrote is asked for, and they have to wait.
            let is_first = attempt == 0;
            let tickets = if is_first { self.list(py) } else { self.state.borrow(py).core.coldest_first() };
            // Keys that are in memory, too, take no further room: the core drops what is too much when it adopts the rest.
            let opened = Arc::new(Opened::new(snapshot.clone(), file, maxsize, target.options.codec));
            let ranks = self.ranks(py, &opened, &tickets, &known, is_first.then(Slice::begin))?;
            // Others may have written in between. What has expired stays, for it is listed.
            self.note_lost(py, |core, _, _| core.take_lost(), None)?;
            let before = {
                let mut state = self.state.borrow(py);
                if !state.core.store().lost().is_empty() {
                    known.extend(ranks);
                    continue;
                }
                let same = match (&state.opened, &older) {
                    (Some(now), Some(then)) if Arc::ptr_eq(now, then) => Some(then),
                    _ => None,
                };
                for (rank, &older_rank) in (0..).zip(&from_older) {
                    if same.is_none_or(|older| !older.cold.contains(older_rank)) {
                        opened.cold.take(rank);
                    }
                }
                if state.core.open(Arc::clone(&opened.cold), &ranks).is_err() {
                    known.extend(ranks);
                    continue;
                }
                state.unread = false;
                state.file_clock = Some(file);
                state.no_room = no_room;
                if let Some(deleted_before) = &deleted_before {
                    state.core.not_before(Stamp::from_nanos(written_until));
                    // A save may replace the file unasked only if the cache has all that is in it.
                    let is_all = |maxsize| tickets.len() + snapshot.len() as usize <= maxsize;
                    let has_all = ranks.iter().all(|(_, rank)| rank.is_none())
                        && undecodable.is_empty()
                        && from_older.is_empty()
                        && refused == 0
                        && maxsize.is_none_or(is_all);
                    state.share_opened(&opened, deleted_before, has_all.then_some(file_id));
                }
                let before = state.opened.replace(Arc::clone(&opened));
                if let Some(before) = &before {
                    before.add_to(&mut state.spent);
                }
                before
            };
            drop(before);
            for why in undecodable {
                opened.report(py, "an entry whose key is an object", &why);
            }
            return Ok(Some(restored + opened.cold.live()));
        }
        Err(pyo3::exceptions::PyRuntimeError::new_err("the cache changed all the time while it was loaded"))
    }

    /// The ranks of the keys of those entries that are still there; they are asked for unless `known` has them. In slices,
    /// if there is one.
    fn ranks(
        &self,
        py: Python<'_>,
        opened: &Opened,
        tickets: &[Ticket],
        known: &HashMap<Ticket, Option<Rank>>,
        mut slice: Option<Slice>,
    ) -> PyResult<Vec<(Ticket, Option<Rank>)>> {
        let mut ranks = Vec::with_capacity(tickets.len());
        for &ticket in tickets {
            if let Some(&rank) = known.get(&ticket) {
                ranks.push((ticket, rank));
                continue;
            }
            let key = {
                let state = self.state.borrow(py);
                state.core.store().redeem(ticket).map(|entry| entry.key.bind(py).clone())
            };
            let Some(key) = key else { continue };
            let bytes = StoredKey { key: &key, hash: 0 }.encode(py)?;
            let rank = bytes.and_then(|bytes| opened.rank(py, &bytes));
            // Already here, in slices: what is left to do when the file is adopted is done in one piece.
            if let Some(rank) = rank {
                opened.cold.take(rank);
            }
            ranks.push((ticket, rank));
            if let Some(slice) = &mut slice {
                slice.end_if_over(py)?;
            }
        }
        Ok(ranks)
    }

    /// Takes in the entries that no look-up would find.
    fn restore_eager(
        &self,
        py: Python<'_>,
        target: &Target,
        snapshot: &Snapshot,
        file: FileClock,
        deleted_before: Option<&Tombstones>,
    ) -> PyResult<Eager> {
        let (mut decoded, mut undecodable) = (Vec::new(), Vec::new());
        let mut slice = Slice::begin();
        each_eager(snapshot, file, |key, value, times| {
            slice.end_if_over(py)?;
            let bytes = key.to_vec();
            let key = codec::decode_value(py, key, target.options.codec);
            let entry = key.and_then(|key| Ok((key, codec::decode_value(py, value, target.options.codec)?)));
            match entry {
                Ok((key, value)) => decoded.push((bytes, key, value, times)),
                Err(error) => undecodable.push(blamed(py, error)?),
            }
            Ok(())
        })?;
        let (mut restored, mut refused) = (0, 0);
        // The last ones are the most recently used, and each one comes in as the coldest.
        for (bytes, key, value, times) in decoded.into_iter().rev() {
            slice.end_if_over(py)?;
            let stamp = Stamp::from_file(times.written_at);
            // Decoding lets others write.
            if deleted_before.is_some() {
                self.note_lost(py, reclaim_and_take_lost, None)?;
            }
            let is_deleted =
                |before| self.state.borrow(py).is_deleted_since(before, &bytes, stamp.as_nanos());
            if deleted_before.is_some_and(is_deleted) {
                continue;
            }
            let deadline = file.deadline_from_file(times.deadline);
            let query = ObjectKey::new(self.seed, &key);
            match query.and_then(|query| restore(self, py, &query, value, deadline, Some(stamp))) {
                Ok(true) => restored += 1,
                Ok(false) => refused += 1,
                Err(error) => undecodable.push(blamed(py, error)?),
            }
        }
        Ok(Eager { restored, refused, undecodable })
    }
}

/// What became of the entries whose keys are objects.
struct Eager {
    restored: usize,
    /// There was no room, or the key was there.
    refused: usize,
    /// Why others could not be read.
    undecodable: Vec<String>,
}

/// What is wrong with an entry; `Err` if it is not the entry's fault.
fn blamed(py: Python<'_>, error: PyErr) -> PyResult<String> {
    if errors::is_from_outside(py, &error) { Err(error) } else { Ok(error.to_string()) }
}

/// Says `each` of the eager records whose time has not passed, by key, value and times. Those behind a damaged
/// one cannot be found.
fn each_eager(
    snapshot: &Snapshot,
    file: FileClock,
    mut each: impl FnMut(&[u8], &[u8], Times) -> PyResult<()>,
) -> PyResult<()> {
    let mut records = snapshot.eager();
    while let Some(EagerStep::Record(record)) = records.next_step() {
        if record.deadline.is_none_or(|deadline| deadline > file.file_now()) {
            let times = Times { deadline: record.deadline, written_at: record.written_at };
            each(record.key, record.value, times)?;
        }
    }
    Ok(())
}

/// Reads every entry of a file: a list of (key, value, seconds left or `None`). `None` if there is no file. What
/// does not decode is left out, as it is a miss for a cache, too; and so are the keys of decorated functions, which
/// are not objects.
pub(crate) fn read_all<'py>(py: Python<'py>, target: &Target) -> PyResult<Option<Bound<'py, PyList>>> {
    let opened = target.open(py).map_err(|error| errors::backup(py, &error))?;
    let Some(snapshot) = opened else { return Ok(None) };
    let file = FileClock::start(clock::now(), clock::wall(), snapshot.saved_at());
    let entries = PyList::empty(py);
    let left = |deadline: u64| Duration::from_nanos(deadline.saturating_sub(file.file_now())).as_secs_f64();
    let mut slice = Slice::begin();
    let mut records = snapshot.records();
    while let Some(step) = records.next_step() {
        slice.end_if_over(py)?;
        let Step::Record(record) = step else { continue };
        if record.deadline.is_some_and(|deadline| deadline <= file.file_now()) {
            continue;
        }
        let key = codec::decode_key(py, record.key);
        let entry =
            key.and_then(|key| Ok((key, codec::decode_value(py, record.value, target.options.codec)?)));
        match entry {
            Ok((key, value)) => entries.append((key, value, record.deadline.map(left)))?,
            Err(error) => drop(blamed(py, error)?),
        }
    }
    each_eager(&snapshot, file, |key, value, times| {
        slice.end_if_over(py)?;
        let key = codec::decode_value(py, key, target.options.codec);
        let entry = key.and_then(|key| Ok((key, codec::decode_value(py, value, target.options.codec)?)));
        match entry {
            Ok((key, value)) => entries.append((key, value, times.deadline.map(left))),
            Err(error) => blamed(py, error).map(drop),
        }
    })?;
    Ok(Some(entries))
}

/// Writes a file with these entries: (key, value, seconds left or `None`) each. It replaces what stands there; if the
/// backend's saves merge, under their lock.
pub(crate) fn write(py: Python<'_>, target: &Target, entries: &Bound<'_, PyAny>) -> PyResult<()> {
    let take = |limit| waiting(py, limit, |wait| target.file.lock(wait));
    let locked = target.options.merge.map(take).transpose()?;
    save::write_all(py, target, locked.as_ref(), entries)
}

/// Removes a file; if the backend's saves merge, under their lock.
pub(crate) fn remove(py: Python<'_>, target: &Target) -> PyResult<()> {
    let clear = |limit| target.file.clear(limit);
    match target.options.merge {
        Some(limit) => waiting(py, limit, |wait| clear(Some(wait))).map(drop),
        None => in_background(py, || clear(None)).map(drop),
    }
}

/// Takes in an entry from a backend, as the coldest. `stamp` is when it was written; `None` is now.
pub(crate) fn restore(
    cache: &Cache,
    py: Python<'_>,
    query: &impl Query,
    value: Bound<'_, PyAny>,
    deadline: Deadline,
    stamp: Option<Stamp>,
) -> PyResult<bool> {
    let key = query.to_key(py)?;
    let (mut state, at) = cache.address(py, query)?;
    let now = state.at(clock::now());
    let stamp = stamp.unwrap_or_else(|| state.core.stamp(now));
    let new =
        NewEntry { key: Ref::new(key), value: Ref::new(value), meta: Meta::written_at(stamp, deadline) };
    let restored = state.core.restore(at, new, now);
    drop(state);
    Ok(matches!(restored, Restored::Stored))
}

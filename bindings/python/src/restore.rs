//! Entries added to a cache from a backend, as the coldest.

use async_cache_core::entry::{Meta, NewEntry};
use async_cache_core::shard::Restored as InShard;
use async_cache_core::time::{Deadline, FileClock, Stamp};
use async_cache_disk::store::{EagerWrite, EntryPlace};
use async_cache_disk::{Item, Snapshot, Source, Times, Tombstones};
use async_cache_tier::eager::EagerOutcome;
use async_cache_tier::open::is_wanted;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::cache::Cache;
use crate::codec::{self, CodecOptions};
use crate::errors;
use crate::host::FileHost;
use crate::key::{ObjectKey, Query};
use crate::pace::LockSlice;
use crate::raw::Ref;

/// Adds an entry, as the coldest, unless its key is present, the entry has expired, or there is no
/// room.
pub(crate) fn entry(
    cache: &Cache,
    py: Python<'_>,
    query: &impl Query,
    value: Bound<'_, PyAny>,
    deadline: Deadline,
    stamp: Stamp,
) -> PyResult<bool> {
    let (key, value) = (Ref::new(query.to_key(py)?), Ref::new(value));
    loop {
        let probed = cache.probe(py, query)?;
        let (mut state, found) = cache.locate(py, query)?;
        let Ok(at) = state.tiered.shard.admit(found, probed) else { continue };
        let new = NewEntry { key, value, meta: Meta { deadline, stamp, origin: None } };
        let trust = cache.tier.trust_in_files();
        let restored = state.tiered.shard.restore(at, new, trust, cache.now());
        drop(state);
        return Ok(matches!(restored, InShard::Stored));
    }
}

/// Adds the entries of a file that no look-up would find, because their keys are objects.
pub(crate) fn eager(
    host: &FileHost<'_, '_>,
    snapshot: &Snapshot,
    file: FileClock,
    before: Option<&Tombstones>,
) -> PyResult<EagerOutcome> {
    let (py, options) = (host.py, host.target.options.codec);
    let (mut decoded, mut undecodable) = (Vec::new(), Vec::new());
    let mut slice = LockSlice::begin();
    each_eager(snapshot, file, |key, value, times| {
        slice.end_if_over(py)?;
        let bytes = key.to_vec();
        let key = codec::decode_value(py, key, options);
        let entry = key.and_then(|key| Ok((key, codec::decode_value(py, value, options)?)));
        match entry {
            Ok((key, value)) => decoded.push((bytes, key, value, times)),
            Err(error) => undecodable.push(blamed(py, error)?),
        }
        Ok(())
    })?;
    let (mut restored, mut refused) = (0, 0);
    // The last entries are the most recently used, and each entry is added as the coldest.
    for (bytes, key, value, times) in decoded.into_iter().rev() {
        slice.end_if_over(py)?;
        let stamp = Stamp::from_file(times.written_at);
        if !is_wanted(host, before, &bytes, stamp)? {
            continue;
        }
        let deadline = file.deadline_from_file(times.deadline);
        let query = ObjectKey::new(host.cache.seed, &key);
        match query.and_then(|query| entry(host.cache, py, &query, value, deadline, stamp)) {
            Ok(true) => restored += 1,
            Ok(false) => refused += 1,
            Err(error) => undecodable.push(blamed(py, error)?),
        }
    }
    Ok(EagerOutcome { restored, refused, undecodable })
}

/// Adds the entries that the eager writes of a journal leave. Returns their number.
pub(crate) fn replay(host: &FileHost<'_, '_>, writes: &[EagerWrite], file: FileClock) -> PyResult<usize> {
    let (py, options) = (host.py, host.target.options.codec);
    let mut undecodable = Vec::new();
    let latest = latest_eager(py, writes, options, &mut undecodable)?;
    let mut slice = LockSlice::begin();
    let mut restored = 0;
    // The last entries are the latest, and each entry is added as the coldest.
    for (key, left) in latest.into_iter().rev() {
        slice.end_if_over(py)?;
        let deadline = file.deadline_from_file(left.deadline);
        let stamp = Stamp::from_nanos(left.place.to_number());
        let came_in = codec::decode_value(py, left.value, options).and_then(|value| {
            let query = ObjectKey::new(host.cache.seed, &key)?;
            entry(host.cache, py, &query, value, deadline, stamp)
        });
        match came_in {
            Ok(came_in) => restored += usize::from(came_in),
            Err(error) => undecodable.push(blamed(py, error)?),
        }
    }
    if let Some(why) = undecodable.first() {
        let (path, count) = (host.target.file.path().display(), undecodable.len());
        let message =
            format!("{path}: {count} entries whose keys are objects cannot be read; the first: {why}");
        errors::log(py, &message);
    }
    Ok(restored)
}

/// An entry that is left after all eager writes.
pub(crate) struct LeftEntry<'w> {
    pub(crate) value: &'w [u8],
    pub(crate) deadline: Option<u64>,
    place: EntryPlace,
}

/// Applies the eager writes of a journal, in their order. Returns the keys and entries that are
/// left, in the order of writing.
pub(crate) fn latest_eager<'w, 'py>(
    py: Python<'py>,
    writes: &'w [EagerWrite],
    options: CodecOptions,
    undecodable: &mut Vec<String>,
) -> PyResult<Vec<(Bound<'py, PyAny>, LeftEntry<'w>)>> {
    // Key to the index of its latest entry.
    let latest = PyDict::new(py);
    let mut slice = LockSlice::begin();
    for (index, write) in writes.iter().enumerate() {
        slice.end_if_over(py)?;
        let (EagerWrite::Entry { key, .. } | EagerWrite::Delete { key }) = write;
        let applied = codec::decode_value(py, key, options).and_then(|key| {
            if latest.contains(&key)? {
                latest.del_item(&key)?;
            }
            if matches!(write, EagerWrite::Entry { .. }) { latest.set_item(key, index) } else { Ok(()) }
        });
        if let Err(error) = applied {
            undecodable.push(blamed(py, error)?);
        }
    }
    let mut left = Vec::with_capacity(latest.len());
    for (key, index) in latest.iter() {
        if let Some(EagerWrite::Entry { value, deadline, place, .. }) = writes.get(index.extract::<usize>()?)
        {
            left.push((key, LeftEntry { value, deadline: *deadline, place: *place }));
        }
    }
    Ok(left)
}

/// The message about an entry's fault; `Err` if the exception is independent of the entry.
pub(crate) fn blamed(py: Python<'_>, error: PyErr) -> PyResult<String> {
    if errors::is_from_outside(py, &error) { Err(error) } else { Ok(error.to_string()) }
}

/// Passes the eager records that have not expired to `each`: key, value and times. Records after a
/// damaged one cannot be found.
pub(crate) fn each_eager(
    snapshot: &Snapshot,
    file: FileClock,
    mut each: impl FnMut(&[u8], &[u8], Times) -> PyResult<()>,
) -> PyResult<()> {
    let mut records = snapshot.eager();
    while let Some(Item::Entry(record)) = records.next() {
        if record.deadline.is_none_or(|deadline| deadline > file.file_now()) {
            let times = Times { deadline: record.deadline, written_at: record.written_at };
            each(record.key, record.value, times)?;
        }
    }
    Ok(())
}

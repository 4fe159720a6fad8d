//! A file with a journal, without a cache: read, replaced or removed as a whole.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use async_cache_core::time::FileClock;
use async_cache_disk::store::{DiskStore, StoreItem, StoreOptions, StoreView, StoreWrite};
use async_cache_disk::{DiskError, KeyKind};
use async_cache_tier::{Host, Refusal, clock};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::cache::Cache;
use crate::codec;
use crate::errors;
use crate::host::CacheHost;
use crate::pace::{LockSlice, in_background};
use crate::raw::Ref;
use crate::restore::{blamed, latest_eager};
use crate::target::TargetFile;
use crate::ttl::Ttl;

/// An entry in the form of the store.
struct StoredBytes {
    kind: KeyKind,
    key: Vec<u8>,
    value: Vec<u8>,
    deadline: Option<u64>,
}

/// Reads the entries of a file and its journal, also while another process writes to the journal.
/// `None` if there is no journal.
pub(crate) fn read<'py>(py: Python<'py>, target: &TargetFile) -> PyResult<Option<Bound<'py, PyList>>> {
    let wall = clock::wall();
    let Some(view) = in_background(py, || target.file.store_view(wall))? else { return Ok(None) };
    let file = FileClock::start(clock::now(), wall, 0);
    let (stored, eager) = py.detach(|| (all_of(&view, file), view.eager()));
    let entries = PyList::empty(py);
    let options = target.options.codec;
    let left = |deadline: u64| Duration::from_nanos(deadline.saturating_sub(file.file_now())).as_secs_f64();
    let mut slice = LockSlice::begin();
    for StoredBytes { key, value, deadline, .. } in stored {
        slice.end_if_over(py)?;
        let key = codec::decode_key(py, &key);
        match key.and_then(|key| Ok((key, codec::decode_value(py, &value, options)?))) {
            Ok((key, value)) => entries.append((key, value, deadline.map(left)))?,
            Err(error) => drop(blamed(py, error)?),
        }
    }
    for (key, entry) in latest_eager(py, &eager, options, &mut Vec::new())? {
        slice.end_if_over(py)?;
        if entry.deadline.is_some_and(|deadline| deadline <= file.file_now()) {
            continue;
        }
        match codec::decode_value(py, entry.value, options) {
            Ok(value) => entries.append((key, value, entry.deadline.map(left)))?,
            Err(error) => drop(blamed(py, error)?),
        }
    }
    Ok(Some(entries))
}

/// The entries with canonical keys that have not expired.
fn all_of(view: &StoreView, file: FileClock) -> Vec<StoredBytes> {
    let mut all = Vec::new();
    // The walk ends by itself.
    let _ = view.each(|item| {
        if let StoreItem::Entry(entry) = item
            && entry.deadline.is_none_or(|deadline| deadline > file.file_now())
        {
            let (key, value) = (entry.key.to_vec(), entry.value.to_vec());
            all.push(StoredBytes { kind: KeyKind::Canonical, key, value, deadline: entry.deadline });
        }
        ControlFlow::Continue(())
    });
    all
}

/// Replaces a file and its journal by the given entries: (key, value, seconds left or `None`) each.
/// All of them are encoded before anything is replaced.
pub(crate) fn write(py: Python<'_>, target: TargetFile, entries: &Bound<'_, PyAny>) -> PyResult<()> {
    let wall = clock::wall();
    let target = Arc::new(target);
    // A separate cache: the file needs only the codec.
    let cache = Cache::unlimited();
    let host = CacheHost { py, cache: &cache, target: Arc::clone(&target) };
    let mut encoded = Vec::new();
    let mut slice = LockSlice::begin();
    for entry in entries.try_iter()? {
        slice.end_if_over(py)?;
        let Some((key, value, deadline)) = given_entry(&entry?, wall)? else { continue };
        let mut new = StoredBytes { kind: KeyKind::Canonical, key: vec![], value: vec![], deadline };
        let bytes = host.record_key(&Ref::new(key.clone()), &mut new.key).and_then(|kind| {
            new.kind = kind;
            host.record_value(&Ref::new(value), &mut new.value)
        });
        match bytes {
            Ok(()) => encoded.push(new),
            Err(Refusal::End(error)) => return Err(error),
            Err(Refusal::Entry(why)) => {
                return Err(errors::backup_message(py, &format!("{}: {why}", errors::repr(&key))));
            }
        }
    }
    in_background(py, || replace(&target, wall, &encoded))
}

fn replace(target: &TargetFile, wall: u64, entries: &[StoredBytes]) -> Result<(), DiskError> {
    let store = open(target, wall)?;
    store.clear(wall)?;
    let mut places = Vec::with_capacity(entries.len());
    for StoredBytes { kind, key, value, deadline } in entries {
        let write = StoreWrite { key, value, deadline: *deadline, replaces: None };
        let written = match kind {
            KeyKind::Canonical => store.put(&write, wall)?,
            KeyKind::Eager => store.put_eager(&write, wall)?,
        };
        places.push(written.place);
    }
    store.fold(&places, patience(target), wall).map(drop)
}

/// Removes a file and its journal.
pub(crate) fn remove(py: Python<'_>, target: &TargetFile) -> PyResult<()> {
    let wall = clock::wall();
    in_background(py, || {
        let store = open(target, wall)?;
        store.clear(wall)?;
        store.fold(&[], patience(target), wall)?;
        target.file.clear(target.options.merge).map(drop)
    })
}

fn open(target: &TargetFile, wall: u64) -> Result<DiskStore, DiskError> {
    target.file.store(StoreOptions::default(), wall)
}

fn patience(target: &TargetFile) -> Duration {
    target.options.merge.unwrap_or_default()
}

/// A key, a value, and the deadline by the wall clock.
type GivenEntry<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Option<u64>);

/// An entry as Python gives it: (key, value, seconds left or `None`). `None`: it has expired.
pub(crate) fn given_entry<'py>(entry: &Bound<'py, PyAny>, wall: u64) -> PyResult<Option<GivenEntry<'py>>> {
    let (key, value, ttl): (Bound<'_, PyAny>, Bound<'_, PyAny>, Option<Bound<'_, PyAny>>) =
        entry.extract()?;
    let deadline = match ttl.map_or(Ok(Ttl::Never), |ttl| Ttl::new(&ttl, "the time to live"))? {
        Ttl::For(ttl) if ttl.is_zero() => return Ok(None),
        Ttl::For(ttl) => Some(wall.saturating_add(clock::to_nanos(ttl))),
        Ttl::Default | Ttl::Never => None,
    };
    Ok(Some((key, value, deadline)))
}

//! The file of a cache, opened and saved; and a file alone, read, replaced or removed.
//!
//! `async-cache-tier` defines opening and saving. The Python package ensures that a cache runs one
//! save or load at a time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_cache_core::time::FileClock;
use async_cache_disk::{
    DiskErrorKind, Item, KeyKind, LockedFile, Pushed, Source, Times, WriteOptions, Writer,
};
use async_cache_tier::{Encoded, Refusal, Turn, clock, open as opening, save as saving};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::cache::Cache;
use crate::codec;
use crate::errors;
use crate::host::CacheHost;
use crate::journal::{self, JournalOpening};
use crate::journal_file::{self, given_entry};
use crate::pace::{LockSlice, in_background, waiting};
use crate::raw::Ref;
use crate::restore::{blamed, each_eager};
use crate::target::TargetFile;

/// Opens a file; entries in memory stay. Returns the number of added entries, or `None` if there is
/// no file.
pub(crate) fn open(cache: &Cache, py: Python<'_>, target: TargetFile) -> PyResult<Option<usize>> {
    let target = share(cache, py, target);
    let opened = opening::open(&CacheHost { py, cache, target }, turn(cache)?)?;
    Ok(opened.map(|opened| opened.entries))
}

/// Opens the journal beside a file, with its present entries.
pub(crate) fn open_journal(cache: &Cache, py: Python<'_>, target: TargetFile) -> PyResult<JournalOpening> {
    journal::open(cache, py, target, &mut turn(cache)?)
}

/// Assigns a file to the cache. If its saves merge, starts to record the data that they need.
pub(crate) fn share(cache: &Cache, py: Python<'_>, target: TargetFile) -> Arc<TargetFile> {
    let target = Arc::new(target);
    let mut state = cache.state.borrow(py);
    if target.options.merge.is_some() {
        state.tiered.shard.keep_times();
        cache.tier.keep_writes();
    }
    let before = state.target.replace(Arc::clone(&target));
    drop(state);
    drop(before);
    target
}

/// Saves all entries that have not expired. `set_aside`: the existing file belongs to another
/// function.
pub(crate) fn save<'py>(
    cache: &Cache,
    py: Python<'py>,
    target: TargetFile,
    set_aside: bool,
) -> PyResult<Bound<'py, PyDict>> {
    if set_aside {
        cache.tier.keep_unread();
    }
    let target = Arc::new(target);
    let saved = saving::save(&CacheHost { py, cache, target }, turn(cache)?)?;
    report(py, saved)
}

/// The turn to save or open. In Python, `_turn.Turn` lets one thread through at a time, so in a
/// forked child a turn that was taken before the fork belongs to a thread of the parent.
fn turn(cache: &Cache) -> PyResult<Turn<'_>> {
    let process = std::process::id();
    if cache.turn_taken_in.swap(process, Ordering::Relaxed) != process {
        cache.tier.end_turn();
    }
    let busy = || PyRuntimeError::new_err("another save or load of this very cache has not ended yet");
    cache.tier.try_turn().ok_or_else(busy)
}

/// The report from which Python makes warnings.
fn report(py: Python<'_>, saved: saving::SaveOutcome) -> PyResult<Bound<'_, PyDict>> {
    let why_left_out = match saved.left_out.first {
        Some((Some(name), why)) => Some(format!("{name}: {why}")),
        Some((None, why)) => Some(why),
        None if saved.unsure > 0 => Some(
            "one that another process may have deleted: it has deleted more keys than the file keeps".into(),
        ),
        None => None,
    };
    let report = PyDict::new(py);
    report.set_item("entries", saved.file.entries + saved.file.eager)?;
    report.set_item("bytes", saved.file.bytes)?;
    report.set_item("left_out", saved.left_out.count + saved.unsure)?;
    report.set_item("why_left_out", why_left_out)?;
    report.set_item("set_aside", saved.file.set_aside)?;
    report.set_item("without_locks", saved.file.without_locks)?;
    report.set_item("refused", saved.refused)?;
    report.set_item("dropped", saved.dropped)?;
    report.set_item("shrunk_to", saved.shrunk_to)?;
    report.set_item("unsure", saved.unsure_of_others)?;
    report.set_item("copied", saved.copied)?;
    Ok(report)
}

/// Reads every entry of a file: a list of (key, value, seconds left or `None`). `None` if there is
/// no file. Left out are entries that cannot be decoded (which are misses for a cache too) and the
/// keys of decorated functions, which are not objects.
pub(crate) fn read_all<'py>(py: Python<'py>, target: &TargetFile) -> PyResult<Option<Bound<'py, PyList>>> {
    if target.options.journal.is_some()
        && let Some(entries) = journal_file::read(py, target)?
    {
        return Ok(Some(entries));
    }
    let opened = target.open(py).map_err(|error| errors::backup(py, &error))?;
    let Some(snapshot) = opened else { return Ok(None) };
    let file = FileClock::start(clock::now(), clock::wall(), snapshot.saved_at());
    let entries = PyList::empty(py);
    let left = |deadline: u64| Duration::from_nanos(deadline.saturating_sub(file.file_now())).as_secs_f64();
    let mut slice = LockSlice::begin();
    let mut records = snapshot.records();
    while let Some(item) = records.next() {
        slice.end_if_over(py)?;
        let Item::Entry(record) = item else { continue };
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

/// Writes a file with the given entries: (key, value, seconds left or `None`) each. Replaces the
/// existing file; if the backend's saves merge, under their lock.
pub(crate) fn write(py: Python<'_>, target: TargetFile, entries: &Bound<'_, PyAny>) -> PyResult<()> {
    if target.options.journal.is_some() {
        return journal_file::write(py, target, entries);
    }
    let take = |limit| waiting(py, limit, |wait| target.file.lock(wait));
    let locked = target.options.merge.map(take).transpose()?;
    write_all(py, Arc::new(target), locked.as_ref(), entries)
}

fn write_all(
    py: Python<'_>,
    target: Arc<TargetFile>,
    locked: Option<&LockedFile>,
    entries: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let wall = clock::wall();
    let options = WriteOptions::new(wall);
    let mut writer = in_background(py, || match locked {
        Some(locked) => locked.write(options),
        None => target.file.write(options),
    })?;
    // A separate cache: the file needs only the codec.
    let cache = Cache::unlimited();
    let host = CacheHost { py, cache: &cache, target: Arc::clone(&target) };
    let (mut encoded, mut too_large) = (Encoded::default(), 0);
    let mut slice = LockSlice::begin();
    for entry in entries.try_iter()? {
        slice.end_if_over(py)?;
        let Some((key, value, deadline)) = given_entry(&entry?, wall)? else { continue };
        let name = || errors::repr(&key);
        match encoded.push(&host, &Ref::new(key.clone()), &Ref::new(value), Times::from(deadline)) {
            Ok(()) => {}
            Err(Refusal::End(error)) => return Err(error),
            Err(Refusal::Entry(why)) => {
                return Err(errors::backup_message(py, &format!("{}: {why}", name())));
            }
        }
        if encoded.is_full() {
            too_large += flush(py, &mut encoded, &mut writer)?;
        }
    }
    too_large += flush(py, &mut encoded, &mut writer)?;
    if too_large > 0 {
        let path = target.file.path().display();
        let message = format!("{path}: {too_large} entries are too large for a file");
        return Err(errors::backup_message(py, &message));
    }
    in_background(py, || writer.finish()).map(drop)
}

/// Writes encoded records. Returns the number of records too large for the format.
fn flush(py: Python<'_>, encoded: &mut Encoded, writer: &mut Writer) -> PyResult<u64> {
    let push = |kind, key: &[u8], value: &[u8], times| {
        let pushed = match kind {
            KeyKind::Eager => writer.push_eager(key, value, times),
            KeyKind::Canonical => writer.push(key, value, times).map(drop),
        };
        match pushed {
            Ok(()) => Ok(Pushed::Written),
            Err(error) if *error.kind() == DiskErrorKind::Limit => Ok(Pushed::TooLarge(error)),
            Err(error) => Err(error),
        }
    };
    in_background(py, || encoded.write(push)).map(|too_large| too_large.count)
}

/// Removes a file; if the backend's saves merge, under their lock.
pub(crate) fn remove(py: Python<'_>, target: &TargetFile) -> PyResult<()> {
    if target.options.journal.is_some() {
        return journal_file::remove(py, target);
    }
    let clear = |limit| target.file.clear(limit);
    match target.options.merge {
        Some(limit) => waiting(py, limit, |wait| clear(Some(wait))).map(drop),
        None => in_background(py, || clear(None)).map(drop),
    }
}

//! The Python interface of a cache, besides `get` and `set`: construction, deletion, sizes and
//! counters, files, settings, and the garbage collector's methods.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_cache_core::cold::ColdSet;
use async_cache_core::stats::Stats;
use async_cache_core::time::Stamp;
use async_cache_tier::journal::{self, Journal};
use async_cache_tier::writes::{self, CounterFate};
use async_cache_tier::{HotEntries, Tier, clock, cold};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyInt, PyList, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use crate::ask::ObjectCall;
use crate::cache::{Cache, CacheState};
use crate::call::CacheCall;
use crate::done::written;
use crate::errors;
use crate::file;
use crate::gathering::Batches;
use crate::host::CacheHost;
use crate::journal::{self as opened_journal, JournalOpening};
use crate::key::ObjectKey;
use crate::many::ManyCall;
use crate::once;
use crate::options::FileOptions;
use crate::pace::{LockSlice, drop_in_slices};

use crate::raw::{GilCell, Ref, visit};
use crate::reading;
use crate::remote::{RedisOptions, RemoteTier, TierSettings};
use crate::restore;
use crate::snapshot::AskedQuery;
use crate::target::TargetFile;
use crate::ttl::Ttl;
use crate::window::BatchWindow;

const MAX_BATCH_SIZE: NonZeroUsize = NonZeroUsize::new(100).expect("it is not zero");

#[pymethods]
impl Cache {
    /// An unlimited cache, with any arguments: they are for `__init__`, which subclasses may
    /// override.
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::unlimited()
    }

    /// Sets the limits of a new, unused cache.
    #[pyo3(signature = (maxsize, default_ttl, batch_window_ms, max_batch_size))]
    fn _configure(
        &self,
        py: Python<'_>,
        maxsize: Option<&Bound<'_, PyAny>>,
        default_ttl: Option<&Bound<'_, PyAny>>,
        batch_window_ms: &Bound<'_, PyAny>,
        max_batch_size: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let maxsize = maxsize.map(|maxsize| maxsize_of(maxsize)).transpose()?;
        let default_ttl = default_ttl.map_or(Ok(Ttl::Default), |ttl| Ttl::new(ttl, "default_ttl"))?;
        let batches = Batches::new(BatchWindow::new(batch_window_ms)?, batch_size(max_batch_size)?);
        let new = CacheState::new(maxsize, default_ttl, batches);
        let mut state = self.state.borrow(py);
        let has_file = state.tiered.opened().is_some() || self.tier.journal().is_some();
        if has_file || !state.tiered.shard.is_pristine() {
            return Err(PyRuntimeError::new_err("__init__ of a cache that is in use: make a new one"));
        }
        let old = std::mem::replace(&mut *state, new);
        drop(state);
        drop(old);
        Ok(())
    }

    /// Gives a new, unused cache its tier beyond one host.
    #[pyo3(name = "_attach_remote", signature = (options, namespace, backend))]
    fn attach_remote(
        slf: &Bound<'_, Self>,
        options: Option<&RedisOptions>,
        namespace: String,
        backend: Py<PyAny>,
    ) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let weakly = py.import("weakref")?.getattr("ref")?.call1((slf,))?;
        let settings = match options {
            Some(options) => options.tier(namespace)?,
            None => TierSettings::own(backend.bind(py).get_type().qualname()?.to_string(), namespace),
        };
        let tier = RemoteTier::new(settings, backend, weakly.unbind());
        let is_pristine = this.state.borrow(py).tiered.shard.is_pristine();
        if !is_pristine || this.remote.set(Box::new(tier)).is_err() {
            return Err(PyRuntimeError::new_err("a remote tier is given to a new cache, and once"));
        }
        // From now on every file is suspect.
        this.suspect_all(py);
        Ok(())
    }

    /// Closes the connection of the tier; the next call that needs it opens another.
    #[pyo3(name = "_close_remote")]
    fn close_remote(&self, py: Python<'_>) -> PyResult<()> {
        self.remote.get().map_or(Ok(()), |tier| self.close_connection(py, tier))
    }

    /// Called in a forked child, to which the connection does not belong.
    #[pyo3(name = "_leave_remote_after_fork")]
    fn leave_remote_after_fork(&self, py: Python<'_>) {
        if let Some(tier) = self.remote.get() {
            tier.forked(py);
            self.suspect_all(py);
        }
    }

    /// Looks up keys that differ from each other, beyond this host with one read. The result is a
    /// dict with the values, and a list of the keys to be looked up again: see `many`.
    #[pyo3(name = "_look_up_many")]
    fn look_up_many<'py>(slf: &Bound<'py, Self>, keys: Bound<'py, PyList>) -> PyResult<Bound<'py, PyAny>> {
        ManyCall::make(slf, keys)
    }

    /// Looks up a key. The result is the value, or `ABSENT`.
    #[pyo3(name = "_look_up")]
    fn look_up<'py>(slf: &Bound<'py, Self>, key: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        CacheCall::get(slf.py(), || ObjectCall {
            cache: Ref::new(slf.clone()),
            key: Ref::new(key),
            loader: None,
            batch_loader: None,
            ttl: Ttl::Default,
            marks_absent: true,
        })
    }

    /// Removes a key, at once. The returned object may be awaited, but need not be: awaiting it
    /// waits until a remote cache has acknowledged the removal, for its timeout at most.
    fn delete<'py>(slf: &Bound<'py, Self>, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let (py, cache) = (slf.py(), slf.get());
        let query = ObjectKey::new(cache.seed, key)?;
        cache.prepare_write(py)?;
        cache.delete_key(py, &query)?;
        cache.poke(py)?;
        written(slf)
    }

    /// Removes all entries, and sets the metrics to zero. The returned object may be awaited, as
    /// that of `delete`.
    fn clear<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.get().empty(slf.py(), CounterFate::Reset)?;
        written(slf)
    }

    /// Removes all entries and keeps the counters: for an invalidation.
    pub(crate) fn remove_all(&self, py: Python<'_>) -> PyResult<()> {
        self.empty(py, CounterFate::Kept)
    }

    /// Whether a key would be served. Does not count as a use.
    fn contains(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let query = ObjectKey::new(self.seed, key)?;
        let opened = {
            let (state, found) = self.locate(py, &query)?;
            let is_live = |slot| state.tiered.shard.live(slot, clock::has_passed).is_some();
            if found.slot().is_some_and(is_live) {
                return Ok(true);
            }
            state.tiered.opened().cloned()
        };
        let Some(host) = self.file_host(py) else { return Ok(false) };
        match (self.journal(), opened) {
            (Some(journal), _) => journal::contains(&host, journal, &AskedQuery(&query)),
            (None, Some(opened)) => cold::contains(&host, &AskedQuery(&query), &opened),
            (None, None) => Ok(false),
        }
    }

    /// The number of entries.
    fn size(&self, py: Python<'_>) -> usize {
        self.reclaim(py);
        let in_journal = self.cold_entries_in_journal(py);
        let state = self.state.borrow(py);
        in_journal + state.tiered.shard.store().len() + state.tiered.cold().map_or(0, ColdSet::live)
    }

    /// All counters.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = self.counted(py);
        let dict = PyDict::new(py);
        dict.set_item("hits", stats.hits)?;
        dict.set_item("misses", stats.misses)?;
        dict.set_item("size", stats.size)?;
        dict.set_item("hit_rate", stats.hit_rate())?;
        dict.set_item("loads", stats.loads)?;
        dict.set_item("load_errors", stats.load_errors)?;
        dict.set_item("load_time", stats.load_time.as_secs_f64())?;
        dict.set_item("joined", stats.joined)?;
        dict.set_item("batches", stats.batches)?;
        dict.set_item("batched_keys", stats.batched_keys)?;
        dict.set_item("evictions", stats.evictions)?;
        dict.set_item("expirations", stats.expirations)?;
        dict.set_item("fenced", stats.fenced)?;
        dict.set_item("cold", stats.cold)?;
        dict.set_item("cold_hits", stats.cold_hits)?;
        dict.set_item("undecodable", stats.undecodable)?;
        dict.set_item("saves", stats.saves)?;
        dict.set_item("save_errors", stats.save_errors)?;
        let (running, oldest) = self.running_loads(py);
        dict.set_item("running_loads", running)?;
        dict.set_item("oldest_load", oldest.map(|age| age.as_secs_f64()))?;
        dict.set_item("dropped", stats.dropped)?;
        dict.set_item("write_errors", stats.write_errors)?;
        dict.set_item("unjournaled", stats.unjournaled)?;
        if let Some(tier) = self.remote.get() {
            let remote = tier.remote(py);
            dict.set_item("remote_up", remote.is_up())?;
            dict.set_item("remote_pending", remote.pending())?;
            dict.set_item("remote_hits", stats.remote_hits)?;
            dict.set_item("remote_misses", tier.counts.misses.load(Ordering::Relaxed))?;
            dict.set_item("remote_undecodable", tier.counts.undecodable.load(Ordering::Relaxed))?;
            dict.set_item("remote_unshared", tier.counts.unshared.load(Ordering::Relaxed))?;
        }
        dict.set_item("disk_bytes", self.journal().map_or(0, Journal::bytes))?;
        Ok(dict)
    }

    /// Saves all entries to a file, and returns a report.
    #[pyo3(signature = (path, version, options, set_aside))]
    fn save_to_file<'py>(
        &self,
        py: Python<'py>,
        path: PathBuf,
        version: String,
        options: &FileOptions,
        set_aside: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        file::save(self, py, TargetFile::new(path, version, options), set_aside)
    }

    /// Opens a file; entries in memory stay. Returns the number of added entries, or `None` without
    /// a file.
    #[pyo3(signature = (path, version, options))]
    fn open_from_file(
        &self,
        py: Python<'_>,
        path: PathBuf,
        version: String,
        options: &FileOptions,
    ) -> PyResult<Option<usize>> {
        file::open(self, py, TargetFile::new(path, version, options))
    }

    /// Opens the journal beside a file. Returns `None`, or else the reason why there is no journal,
    /// and whether another cache or process has it.
    #[pyo3(signature = (path, version, options))]
    fn open_journal(
        &self,
        py: Python<'_>,
        path: PathBuf,
        version: String,
        options: &FileOptions,
    ) -> PyResult<Option<(String, bool)>> {
        reading::prepare(py)?;
        Ok(match file::open_journal(self, py, TargetFile::new(path, version, options))? {
            JournalOpening::Open => None,
            JournalOpening::Absent { why, is_locked } => Some((why, is_locked)),
        })
    }

    /// Whether writes go to a journal.
    #[pyo3(name = "is_journaled")]
    fn is_journaled_now(&self) -> bool {
        self.is_journaled()
    }

    /// Makes all writes that have returned survive a power loss.
    fn flush_journal(&self, py: Python<'_>) -> PyResult<()> {
        opened_journal::flush(self, py)
    }

    /// A save of a cache with a journal.
    fn save_journal(&self, py: Python<'_>) -> PyResult<()> {
        opened_journal::save(self, py)
    }

    /// Does a step of the upkeep. Returns in how many seconds the next step is due; `None`: after
    /// the usual interval. `flush_every`: how often a sync is due, in seconds.
    fn tend_journal(&self, py: Python<'_>, flush_every: f64) -> Option<f64> {
        let flush_every = Duration::try_from_secs_f64(flush_every).unwrap_or_default();
        opened_journal::tend(self, py, flush_every).map(|pause| pause.as_secs_f64())
    }

    /// Closes the journal: the file has all entries then, if they are few. Waits for the lock of
    /// the file for `patience` seconds. Returns whether there was a journal.
    fn close_journal(&self, py: Python<'_>, patience: f64) -> PyResult<bool> {
        opened_journal::close(self, py, Duration::try_from_secs_f64(patience).unwrap_or_default())
    }

    /// Called in a forked child, to which the journal does not belong.
    #[pyo3(name = "leave_journal")]
    fn leave_journal_after_fork(&self, py: Python<'_>) {
        self.leave_journal(py, true);
    }

    /// Records the data needed by merging saves, without opening the file: the next save sets the
    /// file aside.
    #[pyo3(signature = (path, version, options))]
    fn share_file(&self, py: Python<'_>, path: PathBuf, version: String, options: &FileOptions) {
        file::share(self, py, TargetFile::new(path, version, options));
    }

    /// The version tag of a file; `None` if there is no readable file.
    #[allow(clippy::unused_self)]
    fn tag_of_file(&self, py: Python<'_>, path: PathBuf, options: &FileOptions) -> Option<String> {
        TargetFile::new(path, String::new(), options).tag(py)
    }

    /// A count that increases with every change visible to a save.
    fn changes(&self, py: Python<'_>) -> u64 {
        self.state.borrow(py).tiered.shard.changes()
    }

    /// Counts a save to a user's own backend. Returns the number of dropped entries that did not
    /// fit into the cache.
    fn count_save(&self) -> u64 {
        self.tier.count_save();
        self.tier.replaced_backup()
    }

    /// Records the number of entries of a user's own backend that did not fit into the cache.
    fn count_no_room(&self, count: u64) {
        self.tier.did_not_fit(count);
    }

    /// Counts a failed save, to any backend.
    fn count_save_error(&self) {
        self.tier.count_save_error();
    }

    /// Adds an entry, as the least recently used one, unless its key is present.
    fn restore(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        value: Bound<'_, PyAny>,
        ttl: Option<Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let ttl = ttl.map_or(Ok(Ttl::Never), |ttl| Ttl::new(&ttl, "the time to live"))?;
        once::check(&value, "its value is")?;
        let deadline = ttl.deadline(Ttl::Never, clock::now);
        restore::entry(self, py, &ObjectKey::new(self.seed, key)?, value, deadline, Stamp::UNKNOWN)
    }

    /// All entries in memory, the least recently used first: (key, value, seconds left or `None`).
    fn entries<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let now = clock::now();
        let entries = PyList::empty(py);
        let mut slice = LockSlice::begin();
        let memory = CacheHost { py, cache: self, target: () };
        for taken in HotEntries::list(&memory).taken(&memory) {
            if let (Ok(key), Ok(value)) = (taken.key, taken.value)
                && !taken.deadline.has_passed(now)
            {
                let left = taken.deadline.remaining(now).map(|left| left.as_secs_f64());
                entries.append((key.into_bound(py), value.into_bound(py), left))?;
            }
            slice.end_if_over(py)?;
        }
        Ok(entries)
    }

    #[getter]
    fn hits(&self, py: Python<'_>) -> u64 {
        self.state.borrow(py).tiered.shard.stats().hits
    }

    #[getter]
    fn misses(&self, py: Python<'_>) -> u64 {
        self.state.borrow(py).tiered.shard.stats().misses
    }

    #[getter]
    fn maxsize(&self, py: Python<'_>) -> Option<usize> {
        self.state.borrow(py).tiered.shard.maxsize()
    }

    #[getter]
    fn default_ttl(&self, py: Python<'_>) -> Option<f64> {
        match self.state.borrow(py).default_ttl {
            Ttl::For(ttl) => Some(ttl.as_secs_f64()),
            Ttl::Default | Ttl::Never => None,
        }
    }

    #[setter]
    fn set_default_ttl(&self, py: Python<'_>, ttl: &Bound<'_, PyAny>) -> PyResult<()> {
        let ttl = Ttl::new(ttl, "default_ttl")?;
        self.state.borrow(py).default_ttl = ttl;
        Ok(())
    }

    #[getter]
    fn batch_window_ms(&self, py: Python<'_>) -> f64 {
        self.state.borrow(py).batches.window().milliseconds()
    }

    #[setter]
    fn set_batch_window_ms(&self, py: Python<'_>, window_ms: &Bound<'_, PyAny>) -> PyResult<()> {
        let window = BatchWindow::new(window_ms)?;
        self.state.borrow(py).batches.set_window(window);
        Ok(())
    }

    #[getter]
    fn max_batch_size(&self, py: Python<'_>) -> usize {
        self.state.borrow(py).batches.max_size().get()
    }

    #[setter]
    fn set_max_batch_size(&self, py: Python<'_>, size: &Bound<'_, PyAny>) -> PyResult<()> {
        let size = batch_size(size)?;
        self.state.borrow(py).batches.set_max_size(size);
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(tier) = self.remote.get() {
            visit::traverse(&**tier, visit)?;
        }
        visit::traverse(&self.state, visit)
    }

    fn __clear__(&self) {
        drop(self.state.take_with(|state| {
            (state.tiered.clear(), state.batches.clear(), std::mem::take(&mut state.reads))
        }));
        if let Some(tier) = self.remote.get() {
            drop(tier.state.take_with(|state| std::mem::take(&mut state.waits)));
        }
    }
}

impl Cache {
    /// A separate cache, without limits.
    pub(crate) fn unlimited() -> Self {
        let batches = Batches::new(BatchWindow::DEFAULT, MAX_BATCH_SIZE);
        let state = GilCell::new(CacheState::new(None, Ttl::Default, batches));
        Self {
            seed: seed(),
            state,
            tier: Tier::default(),
            remote: OnceLock::new(),
            turn_taken_in: AtomicU32::new(0),
            has_left_journal: AtomicBool::new(false),
            has_to_warn_of_fork: AtomicBool::new(false),
        }
    }

    /// Removes everything, here and beyond.
    fn empty(&self, py: Python<'_>, counters: CounterFate) -> PyResult<()> {
        self.prepare_write(py)?;
        if let Some(tier) = self.remote.get() {
            tier.remote(py).clear(clock::now());
        }
        self.empty_here(py, counters);
        self.poke(py)
    }

    fn empty_here(&self, py: Python<'_>, counters: CounterFate) {
        let memory = CacheHost { py, cache: self, target: () };
        for (cleared, opened) in writes::clear(&memory, counters) {
            drop(opened);
            drop_in_slices(py, cleared.store.into_entries());
        }
    }

    /// Removes everything from memory and from the file, because the tier beyond them was cleared.
    pub(crate) fn empty_memory(&self, py: Python<'_>) {
        self.empty_here(py, CounterFate::Kept);
    }

    /// The number of running loads, and the age of the oldest one.
    fn running_loads(&self, py: Python<'_>) -> (usize, Option<Duration>) {
        let now = clock::now();
        let state = self.state.borrow(py);
        let ages = state.tiered.shard.flights().iter().map(|(_, room)| now.since(room.bind(py).get().began));
        ages.fold((0, None), |(count, oldest), age| (count + 1, oldest.max(Some(age))))
    }

    fn counted(&self, py: Python<'_>) -> Stats {
        self.reclaim(py);
        let in_journal = self.cold_entries_in_journal(py);
        let state = self.state.borrow(py);
        let mut stats = state.tiered.shard.stats();
        stats.cold = in_journal + state.tiered.cold().map_or(0, ColdSet::live);
        stats.size += stats.cold;
        self.tier.add_to(&mut stats);
        stats
    }
}

/// A whole number within the permitted range; `what` names the expected value.
fn whole(number: &Bound<'_, PyAny>, what: &str) -> PyResult<i64> {
    let is_bool = number.is_instance_of::<PyBool>();
    if let (false, Ok(whole)) = (is_bool, number.extract::<i64>()) {
        return Ok(whole);
    }
    if number.is_instance_of::<PyInt>() && !is_bool {
        let number = errors::repr(number);
        return Err(PyValueError::new_err(format!("{what}, and at most {}, not {number}", i64::MAX)));
    }
    let class = number.get_type().qualname()?;
    Err(PyTypeError::new_err(format!("{what}, not {class}")))
}

fn maxsize_of(number: &Bound<'_, PyAny>) -> PyResult<usize> {
    let what = "maxsize is a number of entries, 0 or more, or None for no limit";
    let size = whole(number, what)?;
    usize::try_from(size).map_err(|_| PyValueError::new_err(format!("{what}, not {size}")))
}

fn batch_size(number: &Bound<'_, PyAny>) -> PyResult<NonZeroUsize> {
    let what = "max_batch_size is a number of keys, 1 or more";
    let size = whole(number, what)?;
    let positive = usize::try_from(size).ok().and_then(NonZeroUsize::new);
    positive.ok_or_else(|| PyValueError::new_err(format!("{what}, not {size}")))
}

fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

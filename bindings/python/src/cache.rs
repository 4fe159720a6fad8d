//! The cache as Python holds it: one shard of the core behind the interpreter's lock.
//!
//! Invariants:
//! 1. while the state is borrowed no Python code runs, nothing is allocated by Python and the lock is not
//!    released; what leaves the cache is dropped after the borrow;
//! 2. whoever acts on a key first finds it with [`Cache::address`], and acts under the very borrow that it
//!    returns; keys whose comparison runs Python code are compared with nothing borrowed, and the search
//!    begins again if the cache changed meanwhile;
//! 3. whoever writes a key first asks the opened snapshot for its rank, and checks under the borrow that the
//!    snapshot is still the same; so a key is never hot and cold at once.

use std::cell::RefMut;
use std::collections::HashMap;
use std::ffi::CStr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_cache_core::batch::Planner;
use async_cache_core::cache::{Cache as Core, Config, Finished, Loaded};
use async_cache_core::cold::Rank;
use async_cache_core::flight::{FlightId, Left};
use async_cache_core::order::Eviction;
use async_cache_core::stats::Stats;
use async_cache_core::store::{NewEntry, Removed, SlotId};
use async_cache_core::time::{FileClock, Time};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyList, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use crate::batch::{self, Gathered, Group};
use crate::call::{Call, ObjectCall};
use crate::clock;
use crate::done::done;
use crate::file::{self, Target};
use crate::key::{ObjectKey, Probe, is_plain};
use crate::load::{Item, Work, spawn};
use crate::opened::{ColdEntry, Opened};
use crate::options::FileOptions;
use crate::raw::method::{Arguments, Method};
use crate::raw::{GilCell, Ref};
use crate::room::{Answer, Room, running_loop};
use crate::sharing::Sharing;
use crate::ttl::Ttl;

/// How often a search begins again because the cache changed during a comparison.
const ATTEMPTS: usize = 100;

const MAX_BATCH_SIZE: NonZeroUsize = NonZeroUsize::new(100).expect("it is not zero");

/// The native part of `AsyncCache`.
#[pyclass(subclass, frozen, weakref, module = "cache._native")]
pub(crate) struct Cache {
    /// Makes hashes differ from process to process.
    pub(crate) seed: u64,
    pub(crate) state: GilCell<State>,
}

pub(crate) struct State {
    pub(crate) core: Core<Ref, Ref, Ref<Room>>,
    pub(crate) opened: Option<Arc<Opened>>,
    /// The clock of the file that was opened or saved last.
    pub(crate) file_clock: Option<FileClock>,
    /// Whether the file could not be read when it was opened last: then a save must not replace it.
    pub(crate) unread: bool,
    /// What is kept for saves that merge, if they do.
    pub(crate) sharing: Option<Sharing>,
    pub(crate) saves: u64,
    save_errors: u64,
    /// What was counted by snapshots that were let go.
    pub(crate) spent: Stats,
    pub(crate) default_ttl: Ttl,
    pub(crate) planner: Planner<Group, FlightId>,
    /// The flights that wait for their batch to leave.
    pub(crate) gathered: HashMap<FlightId, Gathered>,
    pub(crate) batch_window_ms: f64,
    max_batch_size: NonZeroUsize,
}

/// What a look at the memory shows.
pub(crate) enum Hit<'py> {
    Served(Bound<'py, PyAny>),
    /// It is not there, or its key has to be compared by Python.
    NotAtOnce,
}

/// What a call of a key that may not be there comes to.
pub(crate) enum Entered<'py> {
    Served(Bound<'py, PyAny>),
    /// A load runs; the answer comes to the room.
    Waits {
        flight: FlightId,
        room: Bound<'py, Room>,
        /// The caller's event loop.
        event_loop: Bound<'py, PyAny>,
        leads: bool,
    },
}

/// What is known of a key that is about to be written.
pub(crate) struct Probed {
    opened: Option<Arc<Opened>>,
    rank: Option<Rank>,
}

/// Where a key is, and the borrow under which it is there.
type Addressed<'a> = (RefMut<'a, State>, Option<SlotId>, Option<FlightId>);

#[pymethods]
impl Cache {
    /// An unlimited cache, whatever the arguments: they are for `__init__`, which subclasses may override.
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { seed: seed(), state: GilCell::new(State::new(None, Ttl::Default, 5.0, MAX_BATCH_SIZE)) }
    }

    /// Gives a cache that was not used yet its limits.
    #[pyo3(signature = (maxsize, default_ttl, batch_window_ms, max_batch_size))]
    fn _configure(
        &self,
        py: Python<'_>,
        maxsize: Option<&Bound<'_, PyAny>>,
        default_ttl: Option<&Bound<'_, PyAny>>,
        batch_window_ms: &Bound<'_, PyAny>,
        max_batch_size: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let maxsize = maxsize.map(|maxsize| count(maxsize, "maxsize")).transpose()?;
        let default_ttl = default_ttl.map_or(Ok(Ttl::Default), |ttl| Ttl::new(ttl, "default_ttl"))?;
        let batch_window_ms = window(batch_window_ms)?;
        let max_batch_size = batch_size(max_batch_size)?;
        let new = State::new(maxsize, default_ttl, batch_window_ms, max_batch_size);
        let mut state = self.state.borrow(py);
        if !state.core.is_pristine() || state.opened.is_some() {
            return Err(PyRuntimeError::new_err("__init__ of a cache that is in use: make a new one"));
        }
        let old = std::mem::replace(&mut *state, new);
        drop(state);
        drop(old);
        Ok(())
    }

    /// Removes a key, at once. What is returned may be awaited, and need not be.
    fn delete<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let probe = ObjectKey::new(self.seed, key)?;
        self.delete_key(py, &probe)?;
        done(py)
    }

    /// Removes everything, and sets the metrics to zero.
    fn clear<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let cleared = {
            let mut state = self.state.borrow(py);
            (state.saves, state.save_errors) = (0, 0);
            state.spent = Stats::default();
            state.bury_all(clock::now());
            (state.core.clear(), state.opened.take())
        };
        drop(cleared);
        done(py)
    }

    /// Removes everything, and what was counted stays: for an invalidation.
    fn remove_all(&self, py: Python<'_>) {
        let removed = {
            let mut state = self.state.borrow(py);
            let opened = state.opened.take();
            if let Some(opened) = &opened {
                opened.add_to(&mut state.spent);
            }
            state.bury_all(clock::now());
            (state.core.remove_all(), opened)
        };
        drop(removed);
    }

    /// Whether a key would be served. No use of it.
    fn contains(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let probe = ObjectKey::new(self.seed, key)?;
        let opened = {
            let (state, slot, _) = self.address(py, &probe)?;
            if slot.is_some_and(|slot| state.core.live(slot, clock::has_passed).is_some()) {
                return Ok(true);
            }
            state.opened.clone()
        };
        let Some(opened) = opened else { return Ok(false) };
        let Some(bytes) = probe.encode(py)? else { return Ok(false) };
        Ok(opened.contains(py, &bytes))
    }

    /// How many entries there are.
    fn size(&self, py: Python<'_>) -> usize {
        self.reclaim(py);
        let state = self.state.borrow(py);
        state.core.store().len() + state.opened.as_ref().map_or(0, |opened| opened.cold.live())
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
        Ok(dict)
    }

    /// Saves everything to a file, and says what came of it.
    #[pyo3(signature = (path, version, options, set_aside))]
    fn save_to_file<'py>(
        &self,
        py: Python<'py>,
        path: PathBuf,
        version: String,
        options: &FileOptions,
        set_aside: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        self.save_file(py, &Target::new(path, version, options), set_aside)
    }

    /// Opens a file; what is in memory stays. The number of entries that came in, or `None` without a file.
    #[pyo3(signature = (path, version, options))]
    fn open_from_file(
        &self,
        py: Python<'_>,
        path: PathBuf,
        version: String,
        options: &FileOptions,
    ) -> PyResult<Option<usize>> {
        self.open_file(py, &Target::new(path, version, options))
    }

    /// The version tag of a file; `None` if there is none that can be read.
    #[allow(clippy::unused_self)]
    fn tag_of_file(&self, py: Python<'_>, path: PathBuf, options: &FileOptions) -> Option<String> {
        Target::new(path, String::new(), options).tag(py)
    }

    /// Counts up with everything that a save would show.
    fn changes(&self, py: Python<'_>) -> u64 {
        self.state.borrow(py).core.changes()
    }

    /// Counts a save to a backend of the user's own.
    fn count_save(&self, py: Python<'_>) {
        self.state.borrow(py).saves += 1;
    }

    /// Counts a save that failed, to whatever backend.
    fn count_save_error(&self, py: Python<'_>) {
        self.state.borrow(py).save_errors += 1;
    }

    /// Takes in an entry, as the one that was not used for the longest time, unless its key is there.
    fn restore(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        value: Bound<'_, PyAny>,
        ttl: Option<Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let ttl = ttl.map_or(Ok(Ttl::Never), |ttl| Ttl::new(&ttl, "the time to live"))?;
        let deadline = ttl.deadline(Ttl::Never, clock::now);
        file::restore(self, py, &ObjectKey::new(self.seed, key)?, value, deadline, None)
    }

    /// All entries in memory, the one not used for the longest time first: (key, value, seconds left or `None`).
    fn entries<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let now = clock::now();
        let entries = self.take(py, &self.list(py)).into_iter();
        let live = entries.filter(|entry| !entry.deadline.has_passed(now));
        let timed = live.map(|entry| {
            (entry.key, entry.value, entry.deadline.remaining(now).map(|left| left.as_secs_f64()))
        });
        PyList::new(py, timed.collect::<Vec<_>>())
    }

    #[getter]
    fn hits(&self, py: Python<'_>) -> u64 {
        self.state.borrow(py).core.stats().hits
    }

    #[getter]
    fn misses(&self, py: Python<'_>) -> u64 {
        self.state.borrow(py).core.stats().misses
    }

    #[getter]
    fn maxsize(&self, py: Python<'_>) -> Option<usize> {
        self.state.borrow(py).core.maxsize()
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
        self.state.borrow(py).batch_window_ms
    }

    #[setter]
    fn set_batch_window_ms(&self, py: Python<'_>, window_ms: &Bound<'_, PyAny>) -> PyResult<()> {
        let window_ms = window(window_ms)?;
        let mut state = self.state.borrow(py);
        state.batch_window_ms = window_ms;
        state.planner.set_window(Duration::from_secs_f64(window_ms / 1000.0));
        Ok(())
    }

    #[getter]
    fn max_batch_size(&self, py: Python<'_>) -> usize {
        self.state.borrow(py).max_batch_size.get()
    }

    #[setter]
    fn set_max_batch_size(&self, py: Python<'_>, size: &Bound<'_, PyAny>) -> PyResult<()> {
        let size = batch_size(size)?;
        let mut state = self.state.borrow(py);
        state.max_batch_size = size;
        state.planner.set_max_size(size);
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let visited = self.state.visit(|state| {
            for entry in state.core.store().iter() {
                entry.key.visit(visit)?;
                entry.value.visit(visit)?;
            }
            for (key, _) in state.core.store().lost().keys() {
                key.visit(visit)?;
            }
            for (key, room) in state.core.flights().iter() {
                key.visit(visit)?;
                room.visit(visit)?;
            }
            for gathered in state.gathered.values() {
                gathered.item.key.visit(visit)?;
                gathered.item.room.visit(visit)?;
                gathered.loader.visit(visit)?;
                gathered.event_loop.visit(visit)?;
            }
            Ok(())
        });
        visited.unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        drop(self.state.take_with(|state| {
            (state.core.clear(), state.opened.take(), std::mem::take(&mut state.gathered))
        }));
    }
}

/// The value of a key; on a miss what the loader brings, or `None` without one.
pub(crate) struct Get;

impl Method<4> for Get {
    type Class = Cache;
    const NAME: &'static CStr = c"get";
    const DOC: &'static CStr = c"get($self, key, loader=None, batch_loader=None, ttl=None)\n--\n\n\
        The value of a key; on a miss what the loader brings, or None without one.\n\n\
        loader is an async function without arguments, batch_loader one that takes a list of keys and returns\n\
        a mapping or as many values; ttl in seconds, the cache's default if it is None.";
    const PARAMETERS: [&'static str; 4] = ["key", "loader", "batch_loader", "ttl"];

    #[inline]
    fn call_fast<'py>(
        cache: &Bound<'py, Cache>,
        &[key, loader, batch_loader, ttl]: &Arguments<'_, 'py, 4>,
    ) -> Option<Bound<'py, PyAny>> {
        if batch_loader.is_some() || ttl.is_some() || loader.is_some_and(|loader| !loader.is_callable()) {
            return None;
        }
        let key = key?;
        let call = || ObjectCall {
            cache: Ref::new(cache.clone()),
            key: Ref::new(key.to_owned()),
            loader: loader.map(|loader| Ref::new(loader.to_owned())),
            batch_loader: None,
            ttl: Ttl::Default,
        };
        Call::get(cache.py(), call).ok()
    }

    fn call<'py>(
        cache: &Bound<'py, Cache>,
        &[key, loader, batch_loader, ttl]: &Arguments<'_, 'py, 4>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let [loader, batch_loader, ttl] =
            [loader, batch_loader, ttl].map(|argument| argument.filter(|it| !it.is_none()));
        let ttl = ttl.map_or(Ok(Ttl::Default), |ttl| Ttl::new(&ttl, "ttl"))?;
        for (name, loader) in [("loader", &loader), ("batch_loader", &batch_loader)] {
            if let Some(loader) = loader
                && !loader.is_callable()
            {
                let class = loader.get_type().qualname()?;
                let message = format!("{name} is an async function (it is called on a miss), not {class}");
                return Err(PyTypeError::new_err(message));
            }
        }
        let key = key.expect("it is required");
        let call = || ObjectCall {
            cache: Ref::new(cache.clone()),
            key: Ref::new(key.to_owned()),
            loader: loader.map(|loader| Ref::new(loader.to_owned())),
            batch_loader: batch_loader.map(|loader| Ref::new(loader.to_owned())),
            ttl,
        };
        Call::get(cache.py(), call)
    }
}

/// Stores a value, at once. What is returned may be awaited, and need not be.
pub(crate) struct Set;

impl Method<3> for Set {
    type Class = Cache;
    const NAME: &'static CStr = c"set";
    const DOC: &'static CStr = c"set($self, key, value, ttl=...)\n--\n\n\
        Stores a value, at once. What is returned may be awaited, and need not be.\n\n\
        ttl in seconds, None for ever; the cache's default if it is left out.";
    const PARAMETERS: [&'static str; 3] = ["key", "value", "ttl"];

    #[inline]
    fn call_fast<'py>(
        cache: &Bound<'py, Cache>,
        &[key, value, ttl]: &Arguments<'_, 'py, 3>,
    ) -> Option<Bound<'py, PyAny>> {
        let (key, value) = (key?.to_owned(), value?.to_owned());
        if ttl.is_some() || !is_plain(&key) {
            return None;
        }
        let (py, cache) = (cache.py(), cache.get());
        let probe = ObjectKey::new(cache.seed, &key).ok()?;
        cache.set_at_once(py, &probe, value).then(|| done(py).ok())?
    }

    fn call<'py>(
        cache: &Bound<'py, Cache>,
        &[key, value, ttl]: &Arguments<'_, 'py, 3>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let Some(value) = value else {
            return Err(PyTypeError::new_err("set() missing 1 required positional argument: 'value'"));
        };
        let ttl = ttl.map_or(Ok(Ttl::Default), |ttl| Ttl::new(&ttl, "ttl"))?;
        let key = key.expect("it is required");
        let probe = ObjectKey::new(cache.get().seed, &key)?;
        cache.get().set_key(cache.py(), &probe, value.to_owned(), ttl)?;
        done(cache.py())
    }
}

impl Cache {
    /// Finds a key in memory and among the running loads, if that needs no Python code.
    #[inline]
    fn address_at_once<'a>(&'a self, py: Python<'_>, probe: &impl Probe) -> Option<Addressed<'a>> {
        let state = self.state.borrow(py);
        let mut ask = false;
        let mut same = |known: &Ref| {
            probe.quick(py, known).unwrap_or_else(|| {
                ask = true;
                false
            })
        };
        let slot = state.core.find(probe.hash(), &mut same);
        let flight = state.core.find_flight(probe.hash(), &mut same);
        (!ask).then_some((state, slot, flight))
    }

    /// Finds a key in memory and among the running loads.
    #[inline]
    pub(crate) fn address<'a>(&'a self, py: Python<'_>, probe: &impl Probe) -> PyResult<Addressed<'a>> {
        match self.address_at_once(py, probe) {
            Some(addressed) => Ok(addressed),
            None => self.address_by_asking(py, probe),
        }
    }

    fn address_by_asking<'a>(&'a self, py: Python<'_>, probe: &impl Probe) -> PyResult<Addressed<'a>> {
        'again: for _ in 0..ATTEMPTS {
            let state = self.state.borrow(py);
            let same = |known: &Ref| probe.quick(py, known).unwrap_or(false);
            let mut slot = state.core.find(probe.hash(), same);
            let mut flight = state.core.find_flight(probe.hash(), same);
            let versions = (state.core.store().version(), state.core.flights().version());
            drop(state);
            // Python compares, with nothing borrowed, whatever has the same hash and could not be told.
            let mut nth = 0;
            while slot.is_none() {
                let state = self.state.borrow(py);
                let Some(candidate) = state.core.store().candidate(probe.hash(), nth) else { break };
                let known = state.core.store().entry(candidate).key;
                let told = probe.quick(py, known);
                let known = known.bind(py).clone();
                drop(state);
                if told.is_none() && probe.ask(&known)? {
                    slot = Some(candidate);
                }
                drop(known);
                if self.versions(py) != versions {
                    continue 'again;
                }
                nth += 1;
            }
            let mut nth = 0;
            while flight.is_none() {
                let state = self.state.borrow(py);
                let Some((candidate, known)) = state.core.flights().candidate(probe.hash(), nth) else {
                    break;
                };
                let told = probe.quick(py, known);
                let known = known.bind(py).clone();
                drop(state);
                if told.is_none() && probe.ask(&known)? {
                    flight = Some(candidate);
                }
                drop(known);
                if self.versions(py) != versions {
                    continue 'again;
                }
                nth += 1;
            }
            let state = self.state.borrow(py);
            if (state.core.store().version(), state.core.flights().version()) == versions {
                return Ok((state, slot, flight));
            }
        }
        Err(PyRuntimeError::new_err(format!(
            "the cache changed during each of {ATTEMPTS} comparisons of a key: does its __eq__ write to the cache?"
        )))
    }

    fn versions(&self, py: Python<'_>) -> (u64, u64) {
        let state = self.state.borrow(py);
        (state.core.store().version(), state.core.flights().version())
    }

    /// Serves a key from memory, if that needs no Python code, and counts the hit.
    #[inline]
    pub(crate) fn hit<'py>(&self, py: Python<'py>, probe: &impl Probe) -> Hit<'py> {
        let mut state = self.state.borrow(py);
        let found = state.core.find(probe.hash(), |known| probe.quick(py, known).unwrap_or(false));
        match found.and_then(|slot| state.core.hit_mut(slot, clock::has_passed)) {
            Some(entry) => Hit::Served(entry.value.bind(py).clone()),
            None => Hit::NotAtOnce,
        }
    }

    /// Serves a key, or joins its load, or starts one. Without `work` a miss is `None`.
    pub(crate) fn enter<'py>(
        slf: &Bound<'py, Self>,
        probe: &impl Probe,
        work: Option<Work>,
        ttl: Ttl,
        mut is_counted: bool,
    ) -> PyResult<Entered<'py>> {
        let (py, this) = (slf.py(), slf.get());
        loop {
            let opened = {
                let (mut state, slot, flight) = this.address(py, probe)?;
                if let Some(slot) = slot
                    && let Some(entry) = state.core.hit_mut(slot, clock::has_passed)
                {
                    return Ok(Entered::Served(entry.value.bind(py).clone()));
                }
                if work.is_some()
                    && let Some(flight) = flight
                {
                    if !is_counted {
                        state.core.miss();
                        is_counted = true;
                    }
                    match this.join(py, state, flight)? {
                        Some((room, event_loop)) => {
                            return Ok(Entered::Waits { flight, room, event_loop, leads: false });
                        }
                        None => continue,
                    }
                }
                state.opened.clone()
            };
            let probed = match this.cold(py, probe, opened)? {
                Ok(value) => return Ok(Entered::Served(value)),
                Err(probed) => probed,
            };
            if !is_counted {
                this.state.borrow(py).core.miss();
                is_counted = true;
            }
            if work.is_none() {
                return Ok(Entered::Served(py.None().into_bound(py)));
            }
            let event_loop = running_loop(py)?;
            let room = Room::new(py, &event_loop)?;
            let key = probe.to_key(py)?;
            let flight = {
                let (mut state, slot, flight) = this.address(py, probe)?;
                let is_live = slot.is_some_and(|slot| state.core.live(slot, clock::has_passed).is_some());
                if is_live || flight.is_some() || !state.is_as_probed(&probed) {
                    continue;
                }
                let (key, room) = (Ref::new(key.clone()), Ref::new(room.clone()));
                state.core.lead(probe.hash(), key, room)
            };
            let work = work.expect("looked at above");
            let item =
                Item { flight, room: Ref::new(room.clone()), key: Ref::new(key), hash: probe.hash(), ttl };
            match work {
                Work::Batch(loader) => batch::gather(slf, item, loader, &event_loop)?,
                work => spawn(slf, vec![item], work, &event_loop)?,
            }
            return Ok(Entered::Waits { flight, room, event_loop, leads: true });
        }
    }

    /// Joins a load that runs. `None` if it cannot go on, because its loop has stopped: then it has ended.
    fn join<'py>(
        &self,
        py: Python<'py>,
        mut state: RefMut<'_, State>,
        flight: FlightId,
    ) -> PyResult<Option<(Bound<'py, Room>, Bound<'py, PyAny>)>> {
        let room = state.core.join(flight).map(|room| room.bind(py).clone());
        drop(state);
        let Some(room) = room else { return Ok(None) };
        let running = running_loop(py);
        match running.and_then(|running| Ok((room.get().is_alive(py, &running)?, running))) {
            Ok((true, running)) => Ok(Some((room, running))),
            Ok((false, running)) => {
                self.abandon(py, flight, &room, Some(&running));
                Ok(None)
            }
            Err(error) => {
                self.leave(py, flight, &room)?;
                Err(error)
            }
        }
    }

    /// Ends a flight whose load does not go on.
    pub(crate) fn abandon(
        &self,
        py: Python<'_>,
        flight: FlightId,
        room: &Bound<'_, Room>,
        running: Option<&Bound<'_, PyAny>>,
    ) {
        let ended = self.fail(py, flight, Duration::ZERO);
        room.get().tell(py, Answer::Abandoned, running);
        drop(ended);
    }

    /// A caller does not wait any more; the last one stops the load.
    pub(crate) fn leave(&self, py: Python<'_>, flight: FlightId, room: &Bound<'_, Room>) -> PyResult<()> {
        let left = self.state.borrow(py).core.leave(flight);
        if left == Left::Others {
            return Ok(());
        }
        // A batch that has left goes on without callers.
        let was_gathering = batch::drop_key(self, py, flight);
        if !was_gathering && room.get().in_batch(py) {
            return Ok(());
        }
        let stopped = if was_gathering { Ok(()) } else { room.get().stop(py) };
        // It ends now, and not when the loader is through with being cancelled, which may take long: who asks
        // from now on loads anew.
        self.abandon(py, flight, room, running_loop(py).ok().as_ref());
        stopped
    }

    /// Ends a flight without a value.
    pub(crate) fn fail(&self, py: Python<'_>, flight: FlightId, took: Duration) -> Option<(Ref, Ref<Room>)> {
        self.state.borrow(py).core.fail(flight, took)
    }

    /// Ends a flight with a value.
    pub(crate) fn land(
        &self,
        py: Python<'_>,
        flight: FlightId,
        probe: &impl Probe,
        now: Time,
        loaded: impl FnOnce(Ttl, Option<Rank>) -> Loaded<Ref>,
    ) -> PyResult<Option<Finished<Ref, Ref, Ref<Room>>>> {
        loop {
            let probed = self.probe(py, probe)?;
            let (mut state, slot, _) = self.address(py, probe)?;
            if !state.is_as_probed(&probed) {
                continue;
            }
            let loaded = loaded(state.default_ttl, probed.rank);
            return Ok(state.core.land(flight, slot, probe.hash(), loaded, now));
        }
    }

    pub(crate) fn set_key(
        &self,
        py: Python<'_>,
        probe: &impl Probe,
        value: Bound<'_, PyAny>,
        ttl: Ttl,
    ) -> PyResult<()> {
        let key = probe.to_key(py)?;
        loop {
            let probed = self.probe(py, probe)?;
            let (mut state, slot, flight) = self.address(py, probe)?;
            if !state.is_as_probed(&probed) {
                continue;
            }
            let new = (Ref::new(key), Ref::new(value), probed.rank);
            let removed = state.set((slot, flight), probe.hash(), new, ttl);
            drop(state);
            drop(removed);
            return Ok(());
        }
    }

    /// [`Cache::set_key`] with the default time to live, if that needs no Python code and no file is open.
    #[inline]
    fn set_at_once(&self, py: Python<'_>, probe: &ObjectKey<'_, '_>, value: Bound<'_, PyAny>) -> bool {
        let Some((mut state, slot, flight)) = self.address_at_once(py, probe) else { return false };
        if state.opened.is_some() {
            return false;
        }
        let new = (Ref::new(probe.object.clone()), Ref::new(value), None);
        let removed = state.set((slot, flight), probe.hash, new, Ttl::Default);
        drop(state);
        drop(removed);
        true
    }

    pub(crate) fn delete_key(&self, py: Python<'_>, probe: &impl Probe) -> PyResult<()> {
        let doomed = self.doomed(py, probe)?;
        loop {
            let probed = self.probe(py, probe)?;
            let (mut state, slot, flight) = self.address(py, probe)?;
            if !state.is_as_probed(&probed) {
                continue;
            }
            let now = clock::now();
            state.bury(&doomed, now);
            let removed = state.core.delete(slot, flight, probed.rank, now);
            drop(state);
            drop(removed);
            return Ok(());
        }
    }

    /// Asks the opened snapshot for what a write of this key has to know.
    fn probe(&self, py: Python<'_>, probe: &impl Probe) -> PyResult<Probed> {
        let opened = self.state.borrow(py).opened.clone();
        let Some(opened) = opened else { return Ok(Probed { opened: None, rank: None }) };
        opened.reclaim_some(clock::now());
        let rank = probe.encode(py)?.and_then(|bytes| opened.rank(py, &bytes));
        Ok(Probed { opened: Some(opened), rank })
    }

    /// Serves a key from the opened snapshot, counts the hit, and keeps the entry in memory from now on.
    fn cold<'py>(
        &self,
        py: Python<'py>,
        probe: &impl Probe,
        opened: Option<Arc<Opened>>,
    ) -> PyResult<Result<Bound<'py, PyAny>, Probed>> {
        let Some(opened) = opened else { return Ok(Err(Probed { opened: None, rank: None })) };
        let Some(bytes) = probe.encode(py)? else {
            return Ok(Err(Probed { opened: Some(opened), rank: None }));
        };
        let (rank, value, deadline, written_at) = match opened.read(py, &bytes)? {
            ColdEntry::Found { rank, value, deadline, written_at } => (rank, value, deadline, written_at),
            ColdEntry::Absent(rank) => return Ok(Err(Probed { opened: Some(opened), rank })),
        };
        let key = probe.to_key(py)?;
        let (mut state, slot, _) = self.address(py, probe)?;
        let (key, kept) = (Ref::new(key), Ref::new(value.clone()));
        let new = NewEntry { key, value: kept, deadline, origin: Some(rank), written_at: Some(written_at) };
        let same = state.opened.as_ref().is_some_and(|current| Arc::ptr_eq(current, &opened));
        let now = clock::now();
        let promoted = if same { state.core.promote(rank, slot, probe.hash(), new, now) } else { Err(new) };
        match promoted {
            Ok(removed) => {
                drop(state);
                drop(removed);
                opened.reclaim_some(now);
                self.let_go_if_spent(py);
                Ok(Ok(value))
            }
            // Decoding or comparing ran Python code that wrote the key, or cleared the cache.
            Err(new) => {
                let served = slot.and_then(|slot| state.core.hit_mut(slot, clock::has_passed));
                let served = served.map(|entry| entry.value.bind(py).clone());
                if same && slot.is_some() {
                    // An equal key was written that has no encoding. It is newer, though its time may have passed.
                    opened.cold.take(rank);
                }
                drop(state);
                drop(new);
                Ok(served.ok_or(Probed { opened: Some(opened), rank: Some(rank) }))
            }
        }
    }

    fn reclaim(&self, py: Python<'_>) {
        let now = clock::now();
        let mut removed = Removed::default();
        let mut state = self.state.borrow(py);
        state.core.reclaim_all(now, &mut removed);
        if let Some(opened) = &state.opened {
            opened.reclaim_all(now);
        }
        drop(state);
        drop(removed);
        self.let_go_if_spent(py);
    }

    /// Lets go of a snapshot of which nothing is cold any more, so that it costs a miss nothing.
    fn let_go_if_spent(&self, py: Python<'_>) {
        let mut state = self.state.borrow(py);
        let spent = state.opened.take_if(|opened| opened.cold.live() == 0);
        let Some(spent) = spent else { return };
        spent.add_to(&mut state.spent);
        let removed = state.core.let_go();
        drop(state);
        drop((spent, removed));
    }

    fn counted(&self, py: Python<'_>) -> Stats {
        self.reclaim(py);
        let state = self.state.borrow(py);
        let mut stats = state.core.stats();
        if let Some(opened) = &state.opened {
            stats.cold = opened.cold.live();
            stats.size += stats.cold;
            opened.add_to(&mut stats);
        }
        stats.undecodable += state.spent.undecodable;
        stats.expirations += state.spent.expirations;
        (stats.saves, stats.save_errors) = (state.saves, state.save_errors);
        stats
    }
}

impl State {
    fn new(
        maxsize: Option<usize>,
        default_ttl: Ttl,
        batch_window_ms: f64,
        max_batch_size: NonZeroUsize,
    ) -> Self {
        Self {
            core: Core::new(Config::single(maxsize, Eviction::Lru)),
            opened: None,
            file_clock: None,
            unread: false,
            sharing: None,
            saves: 0,
            save_errors: 0,
            spent: Stats::default(),
            default_ttl,
            planner: Planner::new(Duration::from_secs_f64(batch_window_ms / 1000.0), max_batch_size),
            gathered: HashMap::new(),
            batch_window_ms,
            max_batch_size,
        }
    }

    /// Stores key and value; `rank` is the key's in the opened snapshot.
    #[inline]
    fn set(
        &mut self,
        (slot, flight): (Option<SlotId>, Option<FlightId>),
        hash: u64,
        (key, value, rank): (Ref, Ref, Option<Rank>),
        ttl: Ttl,
    ) -> Removed<Ref, Ref> {
        let is_timed =
            !matches!((ttl, self.default_ttl), (Ttl::Never, _) | (Ttl::Default, Ttl::Default | Ttl::Never));
        // Which of several processes wrote last is told by the precise clock.
        let now = if is_timed || self.sharing.is_some() { clock::now() } else { clock::roughly_now() };
        let deadline = ttl.deadline(self.default_ttl, || now);
        let new = NewEntry { key, value, deadline, origin: rank, written_at: None };
        self.core.set(slot, flight, hash, new, now)
    }

    /// The file's clock as it is now: never behind what it showed before, nor behind `saved_at`.
    pub(crate) fn clock_at(&self, now: Time, wall: u64, saved_at: u64) -> FileClock {
        let not_before = self.file_clock.map_or(0, |then| then.adjusted(now, wall).file_now());
        FileClock::start(now, wall, saved_at.max(not_before))
    }

    /// Whether what was asked of the snapshot still counts.
    fn is_as_probed(&self, probed: &Probed) -> bool {
        match (&self.opened, &probed.opened) {
            (Some(now), Some(then)) => Arc::ptr_eq(now, then),
            // Ranks of a snapshot that was let go mean nothing any more, and do no harm.
            (None, _) => true,
            (Some(_), None) => false,
        }
    }
}

fn count(number: &Bound<'_, PyAny>, name: &str) -> PyResult<usize> {
    if number.is_instance_of::<PyBool>() {
        return Err(PyTypeError::new_err(format!("{name} is a number of entries or None, not a bool")));
    }
    let Ok(count) = number.extract::<i64>() else {
        let class = number.get_type().qualname()?;
        return Err(PyTypeError::new_err(format!(
            "{name} is a number of entries (int) or None, not {class}"
        )));
    };
    usize::try_from(count)
        .map_err(|_| PyValueError::new_err(format!("{name} is 0 or more (None: unlimited), not {count}")))
}

fn window(milliseconds: &Bound<'_, PyAny>) -> PyResult<f64> {
    let window: f64 = milliseconds.extract()?;
    if window.is_finite() && window >= 0.0 {
        return Ok(window);
    }
    Err(PyValueError::new_err(format!("batch_window_ms is 0 or more milliseconds, not {window}")))
}

fn batch_size(size: &Bound<'_, PyAny>) -> PyResult<NonZeroUsize> {
    let size = NonZeroUsize::new(count(size, "max_batch_size")?);
    size.ok_or_else(|| PyValueError::new_err("max_batch_size is 1 or more, not 0"))
}

fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

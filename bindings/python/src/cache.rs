//! The cache as Python holds it: one shard of the core behind the interpreter's lock.
//!
//! Invariants:
//! 1. while the state is borrowed no Python code runs, nothing is allocated by Python and the lock is not
//!    released; what leaves the cache is dropped after the borrow;
//! 2. an operation on a key first finds the key with [`Cache::locate`], and acts under the borrow that comes with
//!    the answer; keys whose comparison runs Python code are compared with nothing borrowed, and the search
//!    begins again if the cache changed meanwhile;
//! 3. an operation that writes a key first asks the opened snapshot for the key's rank. The core checks under the
//!    borrow that the same snapshot is open ([`async_cache_core::probe`]); so a key is never hot and cold at once.

mod flights;

use std::cell::RefMut;
use std::sync::Arc;

use async_cache_core::address::{Address, Candidate, Found};
use async_cache_core::entry::{Meta, NewEntry};
use async_cache_core::order::Eviction;
use async_cache_core::probe::{Epoch, Probed};
use async_cache_core::removed::Removed;
use async_cache_core::shard::{Config, Shard};
use async_cache_core::stats::Stats;
use async_cache_core::time::{FileClock, Now, Time};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::clock;
use crate::gathering::Batches;
use crate::key::{ObjectKey, Query};
use crate::opened::{ColdEntry, Opened};
use crate::raw::visit::{Stop, Visit, Visitor};
use crate::raw::{GilCell, Ref};
use crate::room::Room;
use crate::sharing::Sharing;
use crate::ttl::Ttl;

/// How often a search begins again because the cache changed during a comparison.
const ATTEMPTS: usize = 100;

/// The shard of the core, with the rooms of this front.
pub(crate) type Core = Shard<Ref, Ref, Ref<Room>>;

/// The native part of `AsyncCache`.
#[pyclass(subclass, frozen, weakref, module = "cache._native")]
pub(crate) struct Cache {
    /// Makes hashes differ from process to process.
    pub(crate) seed: u64,
    pub(crate) state: GilCell<State>,
}

pub(crate) struct State {
    pub(crate) core: Core,
    pub(crate) opened: Option<Arc<Opened>>,
    /// The clock of the file that was opened or saved last.
    pub(crate) file_clock: Option<FileClock>,
    /// Whether the file could not be read when it was opened last: then a save must not replace it.
    pub(crate) unread: bool,
    /// What is kept for saves that merge, if they do.
    pub(crate) sharing: Option<Sharing>,
    pub(crate) saves: u64,
    pub(crate) save_errors: u64,
    /// Entries of others that saves dropped from the backup.
    pub(crate) dropped: u64,
    /// How many entries of the file that was opened there was no room for, until a save has dropped them.
    pub(crate) no_room: u64,
    /// What was counted by snapshots that were let go.
    pub(crate) spent: Stats,
    pub(crate) default_ttl: Ttl,
    pub(crate) batches: Batches,
}

impl Visit for State {
    fn visit(&self, visitor: Visitor<'_>) -> Result<(), Stop> {
        for entry in self.core.store().iter() {
            entry.key.visit(visitor)?;
            entry.value.visit(visitor)?;
        }
        self.core.store().lost().overwritten().try_for_each(|(key, _)| key.visit(visitor))?;
        for (key, room) in self.core.flights().iter() {
            key.visit(visitor)?;
            room.visit(visitor)?;
        }
        self.batches.visit(visitor)
    }
}

/// What a look at the memory shows.
pub(crate) enum Hit<'py> {
    Served(Bound<'py, PyAny>),
    /// It is not there, or its key has to be compared by Python.
    NotAtOnce,
}

/// The snapshot under the cache at one moment: where a key is looked for that is not in memory.
pub(crate) struct Under {
    pub(crate) opened: Option<Arc<Opened>>,
    epoch: Epoch,
}

/// Where a key is, and the borrow under which it is there.
type Located<'a> = (RefMut<'a, State>, Found);

impl Cache {
    /// Finds a key in memory and among the running loads, if that needs no Python code.
    #[inline]
    fn locate_at_once<'a>(&'a self, py: Python<'_>, query: &impl Query) -> Option<Located<'a>> {
        let state = self.state.borrow(py);
        let mut ask = false;
        let found = state.core.locate(query.hash(), |known| {
            query.quick(py, known).unwrap_or_else(|| {
                ask = true;
                false
            })
        });
        (!ask).then_some((state, found))
    }

    /// Finds a key in memory and among the running loads.
    #[inline]
    pub(crate) fn locate<'a>(&'a self, py: Python<'_>, query: &impl Query) -> PyResult<Located<'a>> {
        match self.locate_at_once(py, query) {
            Some(located) => Ok(located),
            None => self.locate_by_asking(py, query),
        }
    }

    /// Finds where a key may be written, and asks the opened snapshot for its rank.
    pub(crate) fn address<'a>(
        &'a self,
        py: Python<'_>,
        query: &impl Query,
    ) -> PyResult<(RefMut<'a, State>, Address)> {
        loop {
            let probed = self.probe(py, query)?;
            let (state, found) = self.locate(py, query)?;
            // Another snapshot may have been opened by the Python code of a comparison.
            if let Ok(at) = state.core.admit(found, probed) {
                return Ok((state, at));
            }
        }
    }

    fn locate_by_asking<'a>(&'a self, py: Python<'_>, query: &impl Query) -> PyResult<Located<'a>> {
        'again: for _ in 0..ATTEMPTS {
            let same = |known: &Ref| query.quick(py, known).unwrap_or(false);
            let mut search = self.state.borrow(py).core.search(query.hash(), same);
            loop {
                let state = self.state.borrow(py);
                let known = match state.core.next_candidate(&mut search) {
                    Candidate::Compare(known) => known,
                    Candidate::Found(found) => return Ok((state, found)),
                    Candidate::Changed => continue 'again,
                };
                let told = query.quick(py, known);
                let known = known.bind(py).clone();
                drop(state);
                // Python compares, with nothing borrowed, keys of the same hash that could not be compared above.
                if told.is_none() && query.ask(&known)? {
                    search.is_equal();
                }
                drop(known);
            }
        }
        Err(PyRuntimeError::new_err(format!(
            "the cache changed during each of {ATTEMPTS} comparisons of a key: does its __eq__ write to the cache?"
        )))
    }

    /// Serves a key from memory, if that needs no Python code, and counts the hit.
    #[inline]
    pub(crate) fn hit<'py>(&self, py: Python<'py>, query: &impl Query) -> Hit<'py> {
        let mut state = self.state.borrow(py);
        let found = state.core.find(query.hash(), |known| query.quick(py, known).unwrap_or(false));
        match found.and_then(|slot| state.core.hit_mut(slot, clock::has_passed)) {
            Some(value) => Hit::Served(value.bind(py).clone()),
            None => Hit::NotAtOnce,
        }
    }

    pub(crate) fn set_key(
        &self,
        py: Python<'_>,
        query: &impl Query,
        value: Bound<'_, PyAny>,
        ttl: Ttl,
    ) -> PyResult<()> {
        let key = query.to_key(py)?;
        let (mut state, at) = self.address(py, query)?;
        let removed = state.set(at, Ref::new(key), Ref::new(value), ttl);
        drop(state);
        drop(removed);
        Ok(())
    }

    /// [`Cache::set_key`] with the default time to live, if that needs no Python code and no file is open.
    #[inline]
    pub(crate) fn set_at_once(
        &self,
        py: Python<'_>,
        query: &ObjectKey<'_, '_>,
        value: Bound<'_, PyAny>,
    ) -> bool {
        let Some((mut state, found)) = self.locate_at_once(py, query) else { return false };
        if state.opened.is_some() {
            return false;
        }
        let no_snapshot = state.core.epoch().answered(None);
        let Ok(at) = state.core.admit(found, no_snapshot) else { return false };
        let removed = state.set(at, Ref::new(query.object.clone()), Ref::new(value), Ttl::Default);
        drop(state);
        drop(removed);
        true
    }

    pub(crate) fn delete_key(&self, py: Python<'_>, query: &impl Query) -> PyResult<()> {
        let doomed = self.doomed(py, query)?;
        let (mut state, at) = self.address(py, query)?;
        let now = state.at(clock::now());
        state.bury(&doomed, now);
        let removed = state.core.delete(at, now);
        drop(state);
        drop(removed);
        Ok(())
    }

    /// Whether a key is in memory or loading; a key that Python has to compare is not looked for.
    pub(crate) fn has(&self, py: Python<'_>, query: &impl Query) -> bool {
        let located = self.locate_at_once(py, query);
        located.is_some_and(|(_, found)| found.slot().is_some() || found.flight().is_some())
    }

    /// Asks the opened snapshot for the rank of a key that is about to be written.
    fn probe(&self, py: Python<'_>, query: &impl Query) -> PyResult<Probed> {
        let Under { opened, epoch } = self.state.borrow(py).under();
        let Some(opened) = opened else { return Ok(epoch.answered(None)) };
        opened.reclaim_some(clock::now());
        let rank = query.encode(py)?.and_then(|bytes| opened.rank(py, &bytes));
        Ok(epoch.answered(rank))
    }

    /// Serves a key from the opened snapshot, counts the hit, and keeps the entry in memory from now on.
    pub(crate) fn cold<'py>(
        &self,
        py: Python<'py>,
        query: &impl Query,
        Under { opened, epoch }: Under,
    ) -> PyResult<Result<Bound<'py, PyAny>, Probed>> {
        let Some(opened) = opened else { return Ok(Err(epoch.answered(None))) };
        let Some(bytes) = query.encode(py)? else { return Ok(Err(epoch.answered(None))) };
        let (rank, value, deadline, stamp) = match opened.read(py, &bytes)? {
            ColdEntry::Found { rank, value, deadline, stamp } => (rank, value, deadline, stamp),
            ColdEntry::Absent(rank) => return Ok(Err(epoch.answered(rank))),
        };
        let key = query.to_key(py)?;
        let probed = epoch.answered(Some(rank));
        let (mut state, found) = self.locate(py, query)?;
        let (key, kept) = (Ref::new(key), Ref::new(value.clone()));
        let new = NewEntry { key, value: kept, meta: Meta::written_at(stamp, deadline) };
        let now = clock::now();
        let at = state.core.admit(found, probed);
        let promoted = match at {
            Ok(at) => state.core.promote(at, new, Now::without_wall(now)),
            Err(_) => Err(new),
        };
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
                let served = found.slot().and_then(|slot| state.core.hit_mut(slot, clock::has_passed));
                let served = served.map(|value| value.bind(py).clone());
                if found.slot().is_some() && at.is_ok_and(|at| at.rank() == Some(rank)) {
                    // An equal key was written that has no encoding. It is newer, though its time may have passed.
                    opened.cold.take(rank);
                }
                drop(state);
                drop(new);
                Ok(served.ok_or(probed))
            }
        }
    }

    pub(crate) fn reclaim(&self, py: Python<'_>) {
        let now = clock::now();
        let mut removed = Removed::default();
        let mut state = self.state.borrow(py);
        state.core.reclaim_all(Now::without_wall(now), &mut removed);
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
        let removed = state.core.close_snapshot();
        drop(state);
        drop((spent, removed));
    }
}

impl State {
    pub(crate) fn new(maxsize: Option<usize>, default_ttl: Ttl, batches: Batches) -> Self {
        Self {
            core: Core::new(Config::single(maxsize, Eviction::Lru)),
            opened: None,
            file_clock: None,
            unread: false,
            sharing: None,
            saves: 0,
            save_errors: 0,
            dropped: 0,
            no_room: 0,
            spent: Stats::default(),
            default_ttl,
            batches,
        }
    }

    /// Stores a value under a key.
    #[inline]
    fn set(&mut self, at: Address, key: Ref, value: Ref, ttl: Ttl) -> Removed<Ref, Ref> {
        let is_timed =
            !matches!((ttl, self.default_ttl), (Ttl::Never, _) | (Ttl::Default, Ttl::Default | Ttl::Never));
        let time = if is_timed { clock::now() } else { clock::roughly_now() };
        let deadline = ttl.deadline(self.default_ttl, || time);
        self.core.set(at, key, value, deadline, self.at(time))
    }

    /// The snapshot that is open now.
    pub(crate) fn under(&self) -> Under {
        Under { opened: self.opened.clone(), epoch: self.core.epoch() }
    }

    /// The file's clock as it is now: never behind what it showed before, nor behind `saved_at`.
    pub(crate) fn clock_at(&self, now: Time, wall: u64, saved_at: u64) -> FileClock {
        let not_before = self.file_clock.map_or(0, |then| then.adjusted(now, wall).file_now());
        FileClock::start(now, wall, saved_at.max(not_before))
    }
}

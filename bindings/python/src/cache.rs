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

mod flights;

use std::cell::RefMut;
use std::sync::Arc;

use async_cache_core::cache::{Cache as Core, Config};
use async_cache_core::cold::Rank;
use async_cache_core::flight::FlightId;
use async_cache_core::order::Eviction;
use async_cache_core::stats::Stats;
use async_cache_core::store::{NewEntry, Removed, SlotId};
use async_cache_core::time::{FileClock, Time};
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
        self.core.store().lost().keys().try_for_each(|(key, _)| key.visit(visitor))?;
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

/// What is known of a key that is about to be written.
pub(crate) struct Probed {
    opened: Option<Arc<Opened>>,
    rank: Option<Rank>,
}

/// Where a key is, and the borrow under which it is there.
type Addressed<'a> = (RefMut<'a, State>, Option<SlotId>, Option<FlightId>);

impl Cache {
    /// Finds a key in memory and among the running loads, if that needs no Python code.
    #[inline]
    fn address_at_once<'a>(&'a self, py: Python<'_>, query: &impl Query) -> Option<Addressed<'a>> {
        let state = self.state.borrow(py);
        let mut ask = false;
        let mut same = |known: &Ref| {
            query.quick(py, known).unwrap_or_else(|| {
                ask = true;
                false
            })
        };
        let slot = state.core.find(query.hash(), &mut same);
        let flight = state.core.find_flight(query.hash(), &mut same);
        (!ask).then_some((state, slot, flight))
    }

    /// Finds a key in memory and among the running loads.
    #[inline]
    pub(crate) fn address<'a>(&'a self, py: Python<'_>, query: &impl Query) -> PyResult<Addressed<'a>> {
        match self.address_at_once(py, query) {
            Some(addressed) => Ok(addressed),
            None => self.address_by_asking(py, query),
        }
    }

    fn address_by_asking<'a>(&'a self, py: Python<'_>, query: &impl Query) -> PyResult<Addressed<'a>> {
        'again: for _ in 0..ATTEMPTS {
            let state = self.state.borrow(py);
            let same = |known: &Ref| query.quick(py, known).unwrap_or(false);
            let mut slot = state.core.find(query.hash(), same);
            let mut flight = state.core.find_flight(query.hash(), same);
            let versions = (state.core.store().version(), state.core.flights().version());
            drop(state);
            // Python compares, with nothing borrowed, whatever has the same hash and could not be told.
            let mut nth = 0;
            while slot.is_none() {
                let state = self.state.borrow(py);
                let Some(candidate) = state.core.store().candidate(query.hash(), nth) else { break };
                let known = state.core.store().entry(candidate).key;
                let told = query.quick(py, known);
                let known = known.bind(py).clone();
                drop(state);
                if told.is_none() && query.ask(&known)? {
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
                let Some((candidate, known)) = state.core.flights().candidate(query.hash(), nth) else {
                    break;
                };
                let told = query.quick(py, known);
                let known = known.bind(py).clone();
                drop(state);
                if told.is_none() && query.ask(&known)? {
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
    pub(crate) fn hit<'py>(&self, py: Python<'py>, query: &impl Query) -> Hit<'py> {
        let mut state = self.state.borrow(py);
        let found = state.core.find(query.hash(), |known| query.quick(py, known).unwrap_or(false));
        match found.and_then(|slot| state.core.hit_mut(slot, clock::has_passed)) {
            Some(entry) => Hit::Served(entry.value.bind(py).clone()),
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
        loop {
            let probed = self.probe(py, query)?;
            let (mut state, slot, flight) = self.address(py, query)?;
            if !state.is_as_probed(&probed) {
                continue;
            }
            let new = (Ref::new(key), Ref::new(value), probed.rank);
            let removed = state.set((slot, flight), query.hash(), new, ttl);
            drop(state);
            drop(removed);
            return Ok(());
        }
    }

    /// [`Cache::set_key`] with the default time to live, if that needs no Python code and no file is open.
    #[inline]
    pub(crate) fn set_at_once(
        &self,
        py: Python<'_>,
        query: &ObjectKey<'_, '_>,
        value: Bound<'_, PyAny>,
    ) -> bool {
        let Some((mut state, slot, flight)) = self.address_at_once(py, query) else { return false };
        if state.opened.is_some() {
            return false;
        }
        let new = (Ref::new(query.object.clone()), Ref::new(value), None);
        let removed = state.set((slot, flight), query.hash, new, Ttl::Default);
        drop(state);
        drop(removed);
        true
    }

    pub(crate) fn delete_key(&self, py: Python<'_>, query: &impl Query) -> PyResult<()> {
        let doomed = self.doomed(py, query)?;
        loop {
            let probed = self.probe(py, query)?;
            let (mut state, slot, flight) = self.address(py, query)?;
            if !state.is_as_probed(&probed) {
                continue;
            }
            let now = clock::now();
            state.bury(&doomed);
            let removed = state.core.delete(slot, flight, probed.rank, now);
            drop(state);
            drop(removed);
            return Ok(());
        }
    }

    /// Whether a key is in memory or loading; a key that Python has to compare is not looked for.
    pub(crate) fn has(&self, py: Python<'_>, query: &impl Query) -> bool {
        let addressed = self.address_at_once(py, query);
        addressed.is_some_and(|(_, slot, flight)| slot.is_some() || flight.is_some())
    }

    /// Asks the opened snapshot for what a write of this key has to know.
    fn probe(&self, py: Python<'_>, query: &impl Query) -> PyResult<Probed> {
        let opened = self.state.borrow(py).opened.clone();
        let Some(opened) = opened else { return Ok(Probed { opened: None, rank: None }) };
        opened.reclaim_some(clock::now());
        let rank = query.encode(py)?.and_then(|bytes| opened.rank(py, &bytes));
        Ok(Probed { opened: Some(opened), rank })
    }

    /// Serves a key from the opened snapshot, counts the hit, and keeps the entry in memory from now on.
    pub(crate) fn cold<'py>(
        &self,
        py: Python<'py>,
        query: &impl Query,
        opened: Option<Arc<Opened>>,
    ) -> PyResult<Result<Bound<'py, PyAny>, Probed>> {
        let Some(opened) = opened else { return Ok(Err(Probed { opened: None, rank: None })) };
        let Some(bytes) = query.encode(py)? else {
            return Ok(Err(Probed { opened: Some(opened), rank: None }));
        };
        let (rank, value, deadline, written_at) = match opened.read(py, &bytes)? {
            ColdEntry::Found { rank, value, deadline, written_at } => (rank, value, deadline, written_at),
            ColdEntry::Absent(rank) => return Ok(Err(Probed { opened: Some(opened), rank })),
        };
        let key = query.to_key(py)?;
        let (mut state, slot, _) = self.address(py, query)?;
        let (key, kept) = (Ref::new(key), Ref::new(value.clone()));
        let new = NewEntry { key, value: kept, deadline, origin: Some(rank), written_at: Some(written_at) };
        let same = state.opened.as_ref().is_some_and(|current| Arc::ptr_eq(current, &opened));
        let now = clock::now();
        let promoted = if same { state.core.promote(rank, slot, query.hash(), new, now) } else { Err(new) };
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

    pub(crate) fn reclaim(&self, py: Python<'_>) {
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
        self.date();
        let now = if is_timed { clock::now() } else { clock::roughly_now() };
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
    pub(crate) fn is_as_probed(&self, probed: &Probed) -> bool {
        match (&self.opened, &probed.opened) {
            (Some(now), Some(then)) => Arc::ptr_eq(now, then),
            // Ranks of a snapshot that was let go mean nothing any more, and do no harm.
            (None, _) => true,
            (Some(_), None) => false,
        }
    }
}

//! The cache as a Python object: one shard of the core behind the interpreter's lock.
//!
//! Invariants:
//! 1. while the state is borrowed, no Python code runs, Python allocates nothing and the lock is
//!    not released; removed objects are dropped after the borrow;
//! 2. an operation on a key first finds the key with [`Cache::locate`], and acts under the borrow
//!    returned with the result; keys whose comparison runs Python code are compared with nothing
//!    borrowed, and the search begins again if the cache changed in the meantime;
//! 3. an operation that writes a key first asks the opened snapshot for the key's rank. The core
//!    checks under the borrow that the same snapshot is open ([`async_cache_core::probe`]); so a
//!    key is never hot and cold at once.

mod flights;

use std::cell::RefMut;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, OnceLock};

use async_cache_core::address::{Candidate, FoundKey};
use async_cache_core::order::Eviction;
use async_cache_core::probe::Probed;
use async_cache_core::removed::Removed;
use async_cache_core::shard::{Config, Shard};
use async_cache_core::time::{Now, Stamp, Time};
use async_cache_tier::{Tier, Tiered, clock};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::gathering::Batches;
use crate::key::{ObjectKey, Query};
use crate::raw::visit::{Visit, VisitStopped, Visitor};
use crate::raw::{GilCell, Ref};
use crate::remote::RemoteTier;
use crate::room::Room;
use crate::target::TargetFile;
use crate::ttl::Ttl;

pub(crate) use self::flights::{Beyond, Landed};

/// How often a search begins again after the cache changed during a comparison.
const ATTEMPTS: usize = 100;

/// The native part of `AsyncCache`.
#[pyclass(subclass, frozen, weakref, module = "cache._native")]
pub(crate) struct Cache {
    /// Makes hashes differ between processes.
    pub(crate) seed: u64,
    pub(crate) state: GilCell<CacheState>,
    /// The data kept for the file, and the turn to save or load.
    pub(crate) tier: Tier,
    /// The tier beyond one host, if there is one. Set before the first use, and read by misses and
    /// writes only.
    pub(crate) remote: OnceLock<Box<RemoteTier>>,
    /// The process in which the turn was taken last.
    pub(crate) turn_taken_in: AtomicU32,
    /// Rule 4 of [`crate::journal`].
    pub(crate) has_left_journal: AtomicBool,
    pub(crate) has_to_warn_of_fork: AtomicBool,
}

pub(crate) struct CacheState {
    pub(crate) tiered: Tiered<Ref, Ref, Ref<Room>>,
    /// The file opened last, or with which saves merge. Present if a snapshot is open.
    pub(crate) target: Option<Arc<TargetFile>>,
    pub(crate) default_ttl: Ttl,
    pub(crate) batches: Batches,
    /// The running reads of cold entries (see [`crate::reading`]), by the canonical bytes of the
    /// keys, with the callers of each.
    pub(crate) reads: BTreeMap<Vec<u8>, Ref<Room>>,
}

impl Visit for CacheState {
    fn visit(&self, visitor: Visitor<'_>) -> Result<(), VisitStopped> {
        for entry in self.tiered.shard.store().iter() {
            entry.key.visit(visitor)?;
            entry.value.visit(visitor)?;
        }
        self.tiered.shard.store().lost().overwritten().try_for_each(|(key, _)| key.visit(visitor))?;
        for (key, room) in self.tiered.shard.flights().iter() {
            key.visit(visitor)?;
            room.visit(visitor)?;
        }
        self.reads.visit(visitor)?;
        self.batches.visit(visitor)
    }
}

/// The result of a look-up in memory.
pub(crate) enum MemoryLookup<'py> {
    Served(Bound<'py, PyAny>),
    /// The key is absent, or Python must compare it.
    NotAtOnce,
}

/// The place of a key, and the borrow under which the place is valid.
type Located<'a> = (RefMut<'a, CacheState>, FoundKey);

impl Cache {
    /// Finds a key in memory and among the running loads, if no Python code is needed.
    #[inline]
    fn locate_at_once<'a>(&'a self, py: Python<'_>, query: &impl Query) -> Option<Located<'a>> {
        let state = self.state.borrow(py);
        let mut ask = false;
        let same = |known: &Ref| {
            query.quick(py, known).unwrap_or_else(|| {
                ask = true;
                false
            })
        };
        let found = state.tiered.shard.locate(query.hash(), same);
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

    fn locate_by_asking<'a>(&'a self, py: Python<'_>, query: &impl Query) -> PyResult<Located<'a>> {
        for _ in 0..ATTEMPTS {
            let same = |known: &Ref| query.quick(py, known).unwrap_or(false);
            let mut search = self.state.borrow(py).tiered.shard.search(query.hash(), same);
            loop {
                let state = self.state.borrow(py);
                let known = match state.tiered.shard.next_candidate(&mut search) {
                    // Python compares, with nothing borrowed, keys of the same hash that could not
                    // be compared otherwise.
                    Candidate::Compare(known) if query.quick(py, known).is_none() => known.bind(py).clone(),
                    Candidate::Compare(_) => continue,
                    Candidate::Found(found) => return Ok((state, found)),
                    Candidate::Changed => break,
                };
                drop(state);
                if query.ask(&known)? {
                    search.is_equal();
                }
            }
        }
        Err(PyRuntimeError::new_err(format!(
            "the cache changed during each of {ATTEMPTS} comparisons of a key: does its __eq__ write to the cache?"
        )))
    }

    /// Serves a key from memory, if no Python code is needed, and counts the hit.
    #[inline(always)]
    #[allow(clippy::inline_always)] // a call of its own is a fiftieth of a hit
    pub(crate) fn hit<'py>(&self, py: Python<'py>, query: &impl Query) -> MemoryLookup<'py> {
        let mut state = self.state.borrow(py);
        let shard = &mut state.tiered.shard;
        let found = shard.find(query.hash(), |known| query.quick(py, known).unwrap_or(false));
        match found.and_then(|slot| shard.hit_mut(slot, clock::has_passed)) {
            Some(value) => MemoryLookup::Served(value.bind(py).clone()),
            None => MemoryLookup::NotAtOnce,
        }
    }

    /// [`Cache::set_key`] of a cache without a journal, with the default time to live, if no Python
    /// code is needed and no file is open.
    #[inline]
    pub(crate) fn set_at_once(
        &self,
        py: Python<'_>,
        query: &ObjectKey<'_, '_>,
        value: Bound<'_, PyAny>,
    ) -> bool {
        let Some((mut state, found)) = self.locate_at_once(py, query) else { return false };
        if state.tiered.opened().is_some() {
            return false;
        }
        let probed = state.tiered.shard.epoch().answered(None);
        let now = state.now_for(Ttl::Default, &self.tier);
        let new = (Ref::new(query.object.clone()), Ref::new(value));
        let removed = state.set(found, probed, new, Ttl::Default, now);
        drop(state);
        drop(removed);
        true
    }

    /// Whether a key is in memory or loading; a key that Python must compare is treated as absent.
    pub(crate) fn has(&self, py: Python<'_>, query: &impl Query) -> bool {
        let located = self.locate_at_once(py, query);
        located.is_some_and(|(_, found)| found.slot().is_some() || found.flight().is_some())
    }

    /// The time of a write. The wall clock is read only if the times of writing are kept.
    pub(crate) fn now(&self) -> Now {
        self.at(clock::now())
    }

    /// [`Cache::now`], if the monotonic clock was read already.
    pub(crate) fn at(&self, time: Time) -> Now {
        now(time, &self.tier)
    }
}

fn now(time: Time, tier: &Tier) -> Now {
    if tier.keeps_writes() {
        Now::new(time, Stamp::from_nanos(clock::wall()))
    } else {
        Now::without_wall(time)
    }
}

impl CacheState {
    pub(crate) fn new(maxsize: Option<usize>, default_ttl: Ttl, batches: Batches) -> Self {
        let shard = Shard::new(Config::single(maxsize, Eviction::Lru));
        Self { tiered: Tiered::new(shard), target: None, default_ttl, batches, reads: BTreeMap::new() }
    }

    /// The time of a `set`: exact only if the entry expires.
    #[inline]
    pub(crate) fn now_for(&self, ttl: Ttl, tier: &Tier) -> Now {
        let is_timed =
            !matches!((ttl, self.default_ttl), (Ttl::Never, _) | (Ttl::Default, Ttl::Default | Ttl::Never));
        now(if is_timed { clock::now() } else { clock::roughly_now() }, tier)
    }

    /// Stores key and value. The probe was found to be current under this borrow.
    #[inline]
    pub(crate) fn set(
        &mut self,
        found: FoundKey,
        probed: Probed,
        (key, value): (Ref, Ref),
        ttl: Ttl,
        now: Now,
    ) -> Option<Removed<Ref, Ref>> {
        let deadline = ttl.deadline(self.default_ttl, || now.time);
        let at = self.tiered.shard.admit(found, probed).ok()?;
        Some(self.tiered.shard.set(at, key, value, deadline, now))
    }
}

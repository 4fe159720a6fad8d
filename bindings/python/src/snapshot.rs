//! Operations on one key of a cache that may have a snapshot open.
//!
//! `async-cache-tier` decides how they meet the snapshot. Invariants 2 and 3 of [`crate::cache`]
//! hold here.

use async_cache_core::address::Address;
use async_cache_core::probe::{Probed, Stale};
use async_cache_core::removed::Removed;
use async_cache_core::time::Now;
use async_cache_disk::KeyKind;
use async_cache_tier::cold::{self, ColdAnswer};
use async_cache_tier::journal::{DiskWait, Served};
use async_cache_tier::suspects::Suspects;
use async_cache_tier::{FileKey, Memory, NamedKey, Under, UnderShard, clock};
use pyo3::prelude::*;

use crate::cache::Cache;
use crate::call_key::CallKey;
use crate::codec;
use crate::errors;
use crate::host::{CacheHost, FileHost};
use crate::key::Query;
use crate::raw::Ref;
use crate::ttl::Ttl;

impl Cache {
    pub(crate) fn set_key(
        &self,
        py: Python<'_>,
        query: &impl Query,
        value: Bound<'_, PyAny>,
        ttl: Ttl,
    ) -> PyResult<()> {
        let (key, value) = (Ref::new(query.to_key(py)?), Ref::new(value));
        if let Some(journal) = self.journal() {
            return self.set_in_journal(py, journal, query, (key, value), ttl);
        }
        self.warn_if_forked(py);
        loop {
            let probed = self.probe(py, query)?; // Invariant 3.
            let (mut state, found) = self.locate(py, query)?;
            if state.tiered.shard.admit(found, probed).is_err() {
                continue;
            }
            let now = state.now_for(ttl, &self.tier);
            let removed = state.set(found, probed, (key, value), ttl, now);
            drop(state);
            drop(removed);
            return Ok(());
        }
    }

    pub(crate) fn delete_key(&self, py: Python<'_>, query: &impl Query) -> PyResult<()> {
        if let Some(host) = self.file_host(py) {
            if let Some(journal) = self.journal() {
                return self.delete_in_journal(&host, journal, query);
            }
            self.warn_if_forked(py);
            return cold::delete(&host, &AskedQuery(query));
        }
        let now = Now::without_wall(clock::now());
        let (mut state, found) = self.locate(py, query)?;
        let probed = state.tiered.shard.epoch().answered(None);
        let removed = state.tiered.shard.admit(found, probed).map(|at| state.tiered.shard.delete(at, now));
        drop(state);
        drop(removed);
        Ok(())
    }

    /// Asks the opened snapshot for the rank of a key to be written.
    pub(crate) fn probe(&self, py: Python<'_>, query: &impl Query) -> PyResult<Probed> {
        let under = self.state.borrow(py).tiered.under();
        match self.file_host(py).filter(|_| under.opened.is_some()) {
            Some(host) => cold::probe(&host, &AskedQuery(query)),
            None => Ok(under.epoch.answered(None)),
        }
    }

    /// Serves a key from the opened snapshot or the journal, counts the hit, and keeps the entry in
    /// memory. `wait`: whether a journal may be waited for.
    pub(crate) fn cold<'py>(
        &self,
        py: Python<'py>,
        query: &impl Query,
        under: UnderShard,
        wait: DiskWait,
    ) -> PyResult<ColdLookup<'py>> {
        let absent = || ColdLookup::Absent(under.epoch.answered(None));
        if let Some(journal) = self.journal() {
            return Ok(match self.cold_in_journal(py, journal, query, wait)? {
                Served::Hit(value) => ColdLookup::Served(value.into_bound(py)),
                Served::Suspect | Served::Absent => absent(),
                Served::WouldWait => ColdLookup::WouldWait,
            });
        }
        let Some(host) = self.file_host(py).filter(|_| under.opened.is_some()) else { return Ok(absent()) };
        Ok(match cold::serve(&host, &AskedQuery(query), under, Suspects::Withheld)? {
            ColdAnswer::Served(value) => ColdLookup::Served(value.into_bound(py)),
            ColdAnswer::Suspect(probed) | ColdAnswer::Absent(probed) => ColdLookup::Absent(probed),
        })
    }

    pub(crate) fn reclaim(&self, py: Python<'_>) {
        let now = self.now();
        let mut removed = Removed::default();
        let mut state = self.state.borrow(py);
        state.tiered.shard.reclaim_all(now, &mut removed);
        let opened = state.tiered.opened().cloned();
        drop(state);
        drop(removed);
        if let Some(opened) = opened {
            opened.reclaim_all(now.time);
            cold::close_if_spent(&CacheHost { py, cache: self, target: () }, &opened);
        }
    }
}

/// A key in the form for a file, if the file needs a tombstone for the key.
pub(crate) fn file_key(host: &FileHost<'_, '_>, query: &impl Query) -> PyResult<Option<FileKey>> {
    let py = host.py;
    if let Some(bytes) = query.encode(py)? {
        return Ok(Some(FileKey { kind: KeyKind::Canonical, bytes }));
    }
    let key = query.to_key(py)?;
    if key.is_exact_instance_of::<CallKey>() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    match codec::encode_value(&key, &mut bytes, host.target.options.codec) {
        Ok(()) => Ok(Some(FileKey { kind: KeyKind::Eager, bytes })),
        Err(error) if errors::is_fatal(py, &error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// The outcome of looking for a key that is not in memory.
pub(crate) enum ColdLookup<'py> {
    /// The hit is counted, and the entry is in memory.
    Served(Bound<'py, PyAny>),
    Absent(Probed),
    /// The disk has to be waited for.
    WouldWait,
}

/// A key requested by a caller.
pub(crate) struct AskedQuery<'q, Q>(pub(crate) &'q Q);

impl<Q: Query> NamedKey<FileHost<'_, '_>> for AskedQuery<'_, Q> {
    fn encode(&self, host: &FileHost<'_, '_>) -> PyResult<Option<Vec<u8>>> {
        self.0.encode(host.py)
    }

    fn is_key_of(&self, _: &FileHost<'_, '_>, _: &[u8]) -> bool {
        true
    }

    fn file_key(&self, host: &FileHost<'_, '_>) -> PyResult<Option<FileKey>> {
        file_key(host, self.0)
    }

    fn to_key(&self, host: &FileHost<'_, '_>) -> PyResult<Ref> {
        Ok(Ref::new(self.0.to_key(host.py)?))
    }

    fn read<R>(&self, host: &FileHost<'_, '_>, work: impl FnOnce(&Under<FileHost<'_, '_>>) -> R) -> R {
        Memory::read(host, 0, work)
    }

    fn address<R>(
        &self,
        host: &FileHost<'_, '_>,
        probed: Probed,
        work: impl FnOnce(&mut Under<FileHost<'_, '_>>, Address) -> R,
    ) -> PyResult<Result<R, Stale>> {
        let (mut state, found) = host.cache.locate(host.py, self.0)?;
        match state.tiered.shard.admit(found, probed) {
            Ok(at) => Ok(Ok(work(&mut state.tiered, at))),
            Err(stale) => {
                // Dropped before `work` and the objects in `work`.
                drop(state);
                Ok(Err(stale))
            }
        }
    }

    fn serve_hot(&self, host: &FileHost<'_, '_>) -> PyResult<Option<Ref>> {
        let (mut state, found) = host.cache.locate(host.py, self.0)?;
        let value = found.slot().and_then(|slot| state.tiered.shard.hit_mut(slot, clock::has_passed));
        Ok(value.map(|value| value.copy(host.py)))
    }
}

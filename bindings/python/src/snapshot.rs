//! Operations on one key of a cache that may have a snapshot open.
//!
//! `async-cache-tier` decides how they meet the snapshot. Invariants 2 and 3 of [`crate::cache`]
//! hold here.

use std::sync::Arc;

use async_cache_core::address::Address;
use async_cache_core::probe::{Probed, Stale};
use async_cache_core::remote::port::{Content, Name};
use async_cache_core::removed::Removed;
use async_cache_core::time::{Deadline, Now, Time};
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
use crate::remote::{SharedRemote, deadline_under, name_of};
use crate::ttl::Ttl;

impl Cache {
    pub(crate) fn set_key(
        &self,
        py: Python<'_>,
        query: &impl Query,
        value: Bound<'_, PyAny>,
        ttl: Ttl,
        writes: Writes,
    ) -> PyResult<()> {
        let mut beyond = self.put_beyond(py, query, &value, writes)?;
        let (key, value) = (Ref::new(query.to_key(py)?), Ref::new(value));
        if let Some(journal) = self.journal() {
            return self.set_in_journal(py, journal, query, (key, value), ttl, &mut beyond);
        }
        self.warn_if_forked(py);
        loop {
            let probed = self.probe(py, query)?; // Invariant 3.
            let (mut state, found) = self.locate(py, query)?;
            if state.tiered.shard.admit(found, probed).is_err() {
                continue;
            }
            let Some(put) = &mut beyond else {
                let now = state.now_for(ttl, &self.tier);
                let removed = state.set(found, probed, (key, value), ttl, now);
                drop(state);
                drop(removed);
                return Ok(());
            };
            let Ok(at) = state.tiered.shard.admit(found, probed) else { continue };
            let now = self.now();
            let deadline = ttl.deadline(state.default_ttl, || now.time);
            let removed = match put.deadline(query.hash(), deadline, now.time) {
                Some(deadline) => state.tiered.shard.set(at, key, value, deadline, now),
                None => state.tiered.shard.delete(at, now),
            };
            drop(state);
            drop(removed);
            return Ok(());
        }
    }

    /// A `set`, in the form for the tier beyond this host; `None` if there is none.
    fn put_beyond(
        &self,
        py: Python<'_>,
        query: &impl Query,
        value: &Bound<'_, PyAny>,
        writes: Writes,
    ) -> PyResult<Option<Put>> {
        let Some(tier) = self.remote.get() else { return Ok(None) };
        let Some((name, canonical)) = name_of(py, query)? else { return Ok(None) };
        let content = match writes {
            Writes::Through => Some(tier.content(py, (&name, &canonical), value)?),
            Writes::MemoryOnly => None,
        };
        Ok(Some(Put { remote: tier.remote(py), name, content }))
    }

    pub(crate) fn delete_key(&self, py: Python<'_>, query: &impl Query) -> PyResult<()> {
        if let Some(tier) = self.remote.get()
            && let Some((name, _)) = name_of(py, query)?
        {
            tier.remote(py).invalidate(&[name], clock::now());
        }
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
        (wait, suspects): (DiskWait, Suspects),
    ) -> PyResult<ColdLookup<'py>> {
        let absent = || ColdLookup::Absent(under.epoch.answered(None));
        if let Some(journal) = self.journal() {
            return Ok(match self.cold_in_journal(py, journal, query, wait, suspects)? {
                Served::Hit(value) => ColdLookup::Served(value.into_bound(py)),
                Served::Suspect | Served::Absent => absent(),
                Served::WouldWait => ColdLookup::WouldWait,
            });
        }
        let Some(host) = self.file_host(py).filter(|_| under.opened.is_some()) else { return Ok(absent()) };
        Ok(match cold::serve(&host, &AskedQuery(query), under, suspects)? {
            ColdAnswer::Served(value) => ColdLookup::Served(value.into_bound(py)),
            ColdAnswer::Suspect(probed) | ColdAnswer::Absent(probed) => ColdLookup::Absent(probed),
        })
    }

    /// Serves an entry that may be out of date, from memory or from the file: for the time in which
    /// the tier beyond this host cannot be asked.
    pub(crate) fn serve_suspect<'py>(
        &self,
        py: Python<'py>,
        query: &impl Query,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let under = {
            let (mut state, found) = self.locate(py, query)?;
            if let Some(slot) = found.slot()
                && let Some(value) = state.tiered.shard.hit_or_suspect(slot, clock::has_passed)
            {
                return Ok(Some(value.bind(py).clone()));
            }
            state.tiered.under()
        };
        Ok(match self.cold(py, query, under, (DiskWait::Allowed, Suspects::Served))? {
            ColdLookup::Served(value) => Some(value),
            ColdLookup::Absent(_) | ColdLookup::WouldWait => None,
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

/// How far a `set` goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writes {
    /// To the tier beyond this host, if there is one.
    Through,
    /// To memory and the file.
    MemoryOnly,
}

/// A `set` for the tier beyond this host.
pub(crate) struct Put {
    remote: Arc<SharedRemote>,
    name: Name,
    /// `None`: only noted, so that changes of the key by others remove the entry.
    content: Option<Content>,
}

impl Put {
    /// Writes to the tier. Returns until when memory keeps the value; `None`: not at all. Under the
    /// borrow that writes memory, and once.
    pub(crate) fn deadline(&mut self, hash: u64, deadline: Deadline, now: Time) -> Option<Deadline> {
        let Some(content) = self.content.take() else {
            self.remote.names().insert(&self.name, hash);
            return Some(deadline);
        };
        let landing = self.remote.put(&self.name, hash, content, deadline.remaining(now), now);
        deadline_under(landing, deadline, now)
    }

    /// The present answer of [`Put::deadline`].
    pub(crate) fn expected(&self, deadline: Deadline, now: Time) -> Option<Deadline> {
        match self.content {
            Some(_) => deadline_under(self.remote.expects_of_put(), deadline, now),
            None => Some(deadline),
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

//! The cache as `async-cache-tier` sees it: one shard behind the interpreter's lock, and for a cache with a
//! backup a file of Python objects.
//!
//! Rules:
//! 1. the interpreter's lock is released while the file is read or written ([`Host::blocking`]), and for a
//!    moment every half a millisecond of other work ([`crate::pace`]);
//! 2. an exception that says nothing about the entry at which it came up (an interrupt, no memory) ends the
//!    operation and reaches its caller. Every other one is a fault of the entry;
//! 3. a key with no canonical bytes is pickled, and only if the object that comes back equals it.

use std::sync::Arc;

use async_cache_core::address::Address;
use async_cache_core::listing::{Listing, Ticket, keep_last};
use async_cache_core::probe::{Probed, Stale};
use async_cache_core::time::{Deadline, FileClock, Time};
use async_cache_disk::{CacheFile, DiskError, KeyKind, Save, Snapshot, Tombstones};
use async_cache_tier::eager::Restored;
use async_cache_tier::{Asked, FileKey, Host, Memory, Refusal, Taken, Tier, Under, clock};
use pyo3::prelude::*;

use crate::cache::Cache;
use crate::call_key::CallKey;
use crate::codec;
use crate::eager::EagerMerge;
use crate::errors;
use crate::key::{Query, StoredKey};
use crate::pace::{self, Slice};
use crate::raw::Ref;
use crate::restore;
use crate::room::Room;
use crate::target::Target;

/// How many entries are listed under one borrow; it takes about as long as a slice.
const LISTED: usize = 4096;

/// A cache in memory; with a [`Target`], the whole of it.
pub(crate) struct CacheHost<'c, 'py, F> {
    pub(crate) py: Python<'py>,
    pub(crate) cache: &'c Cache,
    pub(crate) target: F,
}

/// A cache with a file.
pub(crate) type FileHost<'c, 'py> = CacheHost<'c, 'py, Arc<Target>>;

impl<F> Memory for CacheHost<'_, '_, F> {
    type Key = Ref;
    type Value = Ref;
    type Room = Ref<Room>;

    fn tier(&self) -> &Tier {
        &self.cache.tier
    }

    fn maxsize(&self) -> Option<usize> {
        self.cache.state.borrow(self.py).tiered.shard.maxsize()
    }

    fn shards(&self) -> usize {
        1
    }

    fn shard<R>(&self, _: usize, work: impl FnOnce(&mut Under<Self>) -> R) -> R {
        work(&mut self.cache.state.borrow(self.py).tiered)
    }

    fn read<R>(&self, _: usize, work: impl FnOnce(&Under<Self>) -> R) -> R {
        work(&self.cache.state.borrow(self.py).tiered)
    }

    fn all_shards<R>(&self, work: impl FnOnce(&mut [&mut Under<Self>]) -> R) -> R {
        work(&mut [&mut self.cache.state.borrow(self.py).tiered])
    }

    fn list(&self, _: usize) -> Vec<Ticket> {
        let len = self.shard(0, |tiered| {
            tiered.shard.begin_listing();
            tiered.shard.store().len()
        });
        // Room for entries that are used, and so listed again, meanwhile.
        let mut tickets = Vec::with_capacity(len + len / 8 + LISTED);
        let mut slice = Slice::begin();
        while self.shard(0, |tiered| tiered.shard.list_some(LISTED, &mut tickets)) != Listing::Done {
            slice.rest_if_over(self.py);
        }
        self.py.detach(|| keep_last(tickets))
    }

    fn take(&self, _: usize, tickets: &[Ticket], into: &mut Vec<Taken<Ref, Ref>>) {
        into.reserve(tickets.len());
        let state = self.cache.state.borrow(self.py);
        into.extend(tickets.iter().filter_map(|&ticket| {
            let entry = state.tiered.shard.store().redeem(ticket)?;
            Some(Taken {
                key: Ok(entry.key.copy(self.py)),
                value: Ok(entry.value.copy(self.py)),
                deadline: entry.meta.deadline,
                stamp: entry.meta.stamp,
            })
        }));
    }

    fn copy_key(&self, key: &Ref) -> Option<Ref> {
        Some(key.copy(self.py))
    }

    fn copy_value(&self, value: &Ref) -> Ref {
        value.copy(self.py)
    }

    fn time(&self) -> Time {
        clock::now()
    }

    fn has_passed(&self, deadline: Deadline) -> bool {
        clock::has_passed(deadline)
    }

    fn wall(&self) -> u64 {
        clock::wall()
    }
}

/// A slice of work on the running thread.
pub(crate) struct PySlice<'py>(Python<'py>, Slice);

impl async_cache_tier::Slice<PyErr> for PySlice<'_> {
    fn is_over(&self) -> bool {
        self.1.is_over()
    }

    fn end(&mut self) -> PyResult<()> {
        self.1.end(self.0)
    }

    fn rest_if_over(&mut self) {
        self.1.rest_if_over(self.0);
    }
}

impl<'py> Host for FileHost<'_, 'py> {
    type Error = PyErr;
    type Slice = PySlice<'py>;
    type Eager = EagerMerge<'py>;
    const UNDECODABLE: &'static str = "stats()['undecodable']";

    fn begin_slice(&self) -> PySlice<'py> {
        PySlice(self.py, Slice::begin())
    }

    fn blocking<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.py.detach(work) // Rule 1.
    }

    fn file(&self) -> &CacheFile {
        &self.target.file
    }

    fn begin_save(&self) -> PyResult<Save> {
        let file = &self.target.file;
        match self.target.options.merge {
            Some(limit) => pace::waiting(self.py, limit, |wait| file.begin(Some(wait))),
            None => pace::in_background(self.py, || file.begin(None)),
        }
    }

    fn allows(&self) -> fn(&[u8]) -> bool {
        if self.target.options.codec.pickle { |_| true } else { |value| !codec::is_pickled(value) }
    }

    fn canonical_key(&self, key: &Ref, out: &mut Vec<u8>) -> PyResult<bool> {
        let bytes = StoredKey { key: key.bind(self.py), hash: 0 }.encode(self.py)?;
        Ok(bytes.map(|bytes| out.extend_from_slice(&bytes)).is_some())
    }

    /// Keys are canonical: two keys have the same bytes if and only if they are equal.
    fn is_key_of(&self, _: &Ref, _: &[u8]) -> bool {
        true
    }

    fn file_key(&self, key: &Ref) -> PyResult<Option<FileKey>> {
        file_key(self, &StoredKey { key: key.bind(self.py), hash: 0 })
    }

    fn record_key(&self, key: &Ref, out: &mut Vec<u8>) -> Result<KeyKind, Refusal<PyErr>> {
        self.encode_key(key.bind(self.py), out)
    }

    fn record_value(&self, value: &Ref, out: &mut Vec<u8>) -> Result<(), Refusal<PyErr>> {
        let value = value.bind(self.py);
        codec::encode_value(value, out, self.target.options.codec).map_err(|error| self.refusal(error))
    }

    fn decode_value(&self, bytes: &[u8]) -> Result<Ref, Refusal<PyErr>> {
        match codec::decode_value(self.py, bytes, self.target.options.codec) {
            Ok(value) => Ok(Ref::new(value)),
            Err(error) if errors::is_from_outside(self.py, &error) => Err(Refusal::End(error)), // Rule 2.
            Err(error) => Err(Refusal::Entry(error.to_string())),
        }
    }

    fn restore_eager(
        &self,
        snapshot: &Snapshot,
        file: FileClock,
        before: Option<&Tombstones>,
    ) -> PyResult<Restored> {
        restore::eager(self, snapshot, file, before)
    }

    fn error(&self, error: DiskError) -> PyErr {
        errors::backup(self.py, &error)
    }

    fn warn(&self, message: &str) {
        errors::log(self.py, message);
    }

    fn name_of(&self, key: &[u8], rank: u32) -> String {
        match codec::decode_key(self.py, key) {
            Ok(key) => format!("the entry of key {}", errors::repr(&key)),
            Err(_) => format!("entry {rank}"),
        }
    }

    fn name_of_key(&self, key: &Ref) -> Option<String> {
        Some(errors::repr(key.bind(self.py)))
    }
}

impl<'py> FileHost<'_, 'py> {
    /// Rule 2. A value that nests too deep for pickle is left out like others that cannot be pickled.
    fn refusal(&self, error: PyErr) -> Refusal<PyErr> {
        if errors::is_fatal(self.py, &error) {
            Refusal::End(error)
        } else {
            Refusal::Entry(error.to_string())
        }
    }

    fn encode_key(&self, key: &Bound<'py, PyAny>, out: &mut Vec<u8>) -> Result<KeyKind, Refusal<PyErr>> {
        let refused = |error| self.refusal(error);
        if let Some(bytes) = (StoredKey { key, hash: 0 }).encode(self.py).map_err(refused)? {
            out.extend_from_slice(&bytes);
            return Ok(KeyKind::Canonical);
        }
        if key.is_exact_instance_of::<CallKey>() {
            return Err(Refusal::Entry(why_not_saved(key).map_err(refused)?));
        }
        let start = out.len();
        let options = self.target.options.codec;
        codec::encode_value(key, out, options).map_err(refused)?;
        // Rule 3: nobody could ask for a key that is compared by identity, for one.
        let read = codec::decode_value(self.py, &out[start..], options).map_err(refused)?;
        if read.eq(key).map_err(refused)? {
            return Ok(KeyKind::Eager);
        }
        Err(Refusal::Entry(
            "its key, written and read again, does not equal itself, so nobody could ask for it".to_owned(),
        ))
    }
}

/// Why no other process could use the key of a call.
fn why_not_saved(key: &Bound<'_, PyAny>) -> PyResult<String> {
    // The classes and objects that its arguments name are what it refers to.
    let gc = key.py().import("gc")?;
    let named: Vec<_> = gc.call_method1("get_referents", (key,))?.extract()?;
    Ok(codec::why_not_saved(&named))
}

/// A key as a file would have it, if it needs a tombstone there.
fn file_key(host: &FileHost<'_, '_>, query: &impl Query) -> PyResult<Option<FileKey>> {
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

/// A key that a caller asks for.
pub(crate) struct AskedQuery<'q, Q>(pub(crate) &'q Q);

impl<Q: Query> Asked<FileHost<'_, '_>> for AskedQuery<'_, Q> {
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
                // Before `work` is dropped, and the objects in it.
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

//! The cache with its file of Python objects, in the form for `async-cache-tier`.
//!
//! Rules:
//! 1. the interpreter's lock is released while the file is read or written ([`Host::blocking`]),
//!    and for a moment every half millisecond of other work ([`crate::pace`]);
//! 2. an exception independent of the entry at which it occurred (an interrupt, a lack of memory)
//!    ends the operation and is passed to the caller. Every other exception is a fault of the
//!    entry;
//! 3. a key without canonical bytes is pickled, but only if the restored object equals the key.

use async_cache_disk::{CacheFile, DiskError, KeyKind, Save};
use async_cache_tier::{FileKey, Host, Refusal};
use pyo3::prelude::*;

use crate::call_key::CallKey;
use crate::codec;
use crate::eager::EagerMerge;
use crate::errors;
use crate::host::FileHost;
use crate::key::{ObjectKey, StoredKey, append_encoded};
use crate::pace::{self, LockSlice};
use crate::raw::Ref;
use crate::snapshot::file_key;

/// A slice of work on the running thread.
pub(crate) struct PySlice<'py>(Python<'py>, LockSlice);

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
        PySlice(self.py, LockSlice::begin())
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
        append_encoded(key.bind(self.py), out)
    }

    /// Keys are canonical: two keys have the same bytes if and only if they are equal.
    fn is_key_of(&self, _: &Ref, _: &[u8]) -> bool {
        true
    }

    fn file_key(&self, key: &Ref) -> PyResult<Option<FileKey>> {
        file_key(self, &StoredKey { key: key.bind(self.py), hash: 0 })
    }

    fn while_absent(&self, key: &Ref, work: impl FnOnce()) {
        let key = key.bind(self.py);
        let query = ObjectKey::new(self.cache.seed, key);
        let located = query.and_then(|query| self.cache.locate(self.py, &query));
        if let Ok((state, found)) = located
            && found.slot().is_none()
        {
            work();
            drop(state);
        }
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
            // Rule 2.
            Err(error) if errors::is_from_outside(self.py, &error) => Err(Refusal::End(error)),
            Err(error) => Err(Refusal::Entry(error.to_string())),
        }
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
    /// Rule 2. A value that nests too deep for pickle is left out like others that cannot be
    /// pickled.
    fn refusal(&self, error: PyErr) -> Refusal<PyErr> {
        if errors::is_fatal(self.py, &error) {
            Refusal::End(error)
        } else {
            Refusal::Entry(error.to_string())
        }
    }

    fn encode_key(&self, key: &Bound<'py, PyAny>, out: &mut Vec<u8>) -> Result<KeyKind, Refusal<PyErr>> {
        let refused = |error| self.refusal(error);
        if append_encoded(key, out).map_err(refused)? {
            return Ok(KeyKind::Canonical);
        }
        if key.is_exact_instance_of::<CallKey>() {
            return Err(Refusal::Entry(why_not_saved(key).map_err(refused)?));
        }
        let start = out.len();
        let options = self.target.options.codec;
        codec::encode_value(key, out, options).map_err(refused)?;
        // Rule 3: for example, no process could ask for a key compared by identity.
        let read = codec::decode_value(self.py, &out[start..], options).map_err(refused)?;
        if read.eq(key).map_err(refused)? {
            return Ok(KeyKind::Eager);
        }
        Err(Refusal::Entry(
            "its key, written and read again, does not equal itself, so nobody could ask for it".to_owned(),
        ))
    }
}

/// The reason why no other process could use the key of a call.
fn why_not_saved(key: &Bound<'_, PyAny>) -> PyResult<String> {
    // The referents of the key are the classes and objects named by its arguments.
    let gc = key.py().import("gc")?;
    let named: Vec<_> = gc.call_method1("get_referents", (key,))?.extract()?;
    Ok(codec::why_not_saved(&named))
}

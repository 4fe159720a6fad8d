//! Values on their way to the tier and back, and the names of keys there.
//!
//! A value is encoded as in files. A value that cannot be shared goes as a stub: changes of its key
//! are heard, and nobody else gets it. Bytes that cannot be decoded are no value, and are counted.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_cache_core::remote::port::{Content, Name};
use async_cache_redis::Layout;
use async_cache_redis::body::{Body, Holds};
use pyo3::prelude::*;

use super::{RemoteCounts, RemoteTier};
use crate::codec;
use crate::errors;
use crate::key::Query;
use crate::raw::Ref;

/// The name of a key, and its canonical bytes. `None`: no other process could ask for the key.
pub(crate) fn name_of(py: Python<'_>, query: &impl Query) -> PyResult<Option<(Name, Vec<u8>)>> {
    Ok(query.encode(py)?.map(|canonical| (Layout::name(&canonical), canonical)))
}

impl RemoteTier {
    /// A value in the form for the tier.
    ///
    /// # Errors
    /// An interrupt or a lack of memory.
    pub(crate) fn content(
        &self,
        py: Python<'_>,
        (name, canonical): (&Name, &[u8]),
        value: &Bound<'_, PyAny>,
    ) -> PyResult<Content> {
        if self.settings.own.is_some() {
            return Ok(self.keep(py, value.clone()).map_or(Content::Stub, Content::Value));
        }
        let mut bytes = Vec::with_capacity(64);
        Body::begin(&mut bytes, name, canonical, Holds::Data);
        let start = bytes.len();
        if let Err(error) = codec::encode_value(value, &mut bytes, self.settings.codec) {
            if errors::is_fatal(py, &error) {
                return Err(error);
            }
            return Ok(self.stub(py, &format!("it cannot be encoded ({error})")));
        }
        if bytes.len() > self.settings.config.max_value {
            let most = self.settings.config.max_value;
            return Ok(self.stub(py, &format!("it has {} bytes, and max_value is {most}", bytes.len())));
        }
        if self.settings.codec.pickle && codec::is_pickled(&bytes[start..]) {
            let payload = bytes.split_off(start);
            bytes.clear();
            Body::begin(&mut bytes, name, canonical, Holds::Pickles);
            bytes.extend_from_slice(&payload);
        }
        Ok(Content::Value(bytes.into()))
    }

    /// Keeps an object of a user's own backend. `None`: it stands for no value.
    pub(crate) fn keep(&self, py: Python<'_>, value: Bound<'_, PyAny>) -> Option<Arc<[u8]>> {
        if value.is_none() {
            return None;
        }
        let object = Ref::new(value);
        let (handle, gone) = self.state.borrow(py).objects.keep(object);
        drop(gone);
        Some(handle)
    }

    fn stub(&self, py: Python<'_>, why: &str) -> Content {
        RemoteCounts::count(&self.counts.unshared);
        if !self.has_said_unshared.swap(true, Ordering::Relaxed) {
            let remedy = if self.settings.codec.pickle {
                ""
            } else {
                "; values that need pickle are shared by a RedisBackend with a secret"
            };
            say(
                py,
                WARNING,
                &format!(
                    "a value is kept in this process only, for {why}{remedy} (said once; stats() counts \
                     them in `remote_unshared`)"
                ),
            );
        }
        Content::Stub
    }

    /// The value in the bytes of the tier. `None`: there is none in them.
    ///
    /// # Errors
    /// An interrupt or a lack of memory.
    pub(crate) fn value<'py>(
        &self,
        py: Python<'py>,
        bytes: &[u8],
        canonical: &[u8],
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        if self.settings.own.is_some() {
            let object = self.state.borrow(py).objects.find(py, bytes);
            return Ok(object.map(|object| object.into_bound(py)));
        }
        let body = Body::parse(bytes).filter(|body| body.key.is_none_or(|key| key == canonical));
        let body = body.filter(|body| body.holds == Holds::Data || self.settings.codec.pickle);
        let decoded = body.map(|body| codec::decode_value(py, body.payload, self.settings.codec));
        match decoded {
            Some(Ok(value)) => return Ok(Some(value)),
            Some(Err(error)) if errors::is_from_outside(py, &error) => return Err(error),
            _ => {}
        }
        RemoteCounts::count(&self.counts.undecodable);
        Ok(None)
    }
}

/// The levels of Python's `logging`.
pub(crate) const WARNING: u8 = 30;
pub(crate) const INFO: u8 = 20;

/// Writes to the log of the tier. An error there is reported as unraisable.
pub(crate) fn say(py: Python<'_>, level: u8, message: &str) {
    let said = py
        .import("cache._connection")
        .and_then(|module| module.getattr("say"))
        .and_then(|say| crate::raw::calls::Invoke::invoke_with(&say, (level, message)));
    if let Err(error) = said {
        error.write_unraisable(py, None);
    }
}

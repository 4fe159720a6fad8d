//! `get` and `set`: called without pyo3's argument parsing, because they are the hit path for
//! caches used by hand.

use std::ffi::CStr;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyBool;

use crate::ask::ObjectCall;
use crate::cache::Cache;
use crate::call::CacheCall;
use crate::done::{done, written};
use crate::key::ObjectKey;
use crate::once;
use crate::raw::Ref;
use crate::raw::calls::Invoke;
use crate::raw::method::{Arguments, Method};
use crate::snapshot::Writes;
use crate::ttl::Ttl;

/// The value of a key; on a miss the loader's result, or `None` without a loader.
pub(crate) struct GetMethod;

impl Method<4> for GetMethod {
    type Class = Cache;
    const NAME: &'static CStr = c"get";
    const DOC: &'static CStr = c"get($self, key, loader=None, batch_loader=None, ttl=None)\n--\n\n\
        The value of a key; on a miss the loader's result, or None without a loader.\n\n\
        loader is an async function without arguments; batch_loader takes a list of keys and returns a mapping,\n\
        or a list of as many values. ttl in seconds; None means the cache's default.";
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
        let Some(loader) = loader else { return CacheCall::get_key(cache, key).ok() };
        let call = || ObjectCall {
            cache: Ref::new(cache.clone()),
            key: Ref::new(key.to_owned()),
            loader: Some(Ref::new(loader.to_owned())),
            batch_loader: None,
            ttl: Ttl::Default,
            marks_absent: false,
        };
        CacheCall::get(cache.py(), call).ok()
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
            marks_absent: false,
        };
        CacheCall::get(cache.py(), call)
    }
}

/// Stores a value, at once. The returned object may be awaited, but need not be.
pub(crate) struct SetMethod;

impl Method<5> for SetMethod {
    type Class = Cache;
    const NAME: &'static CStr = c"set";
    const DOC: &'static CStr = c"set($self, key, value, ttl=..., durable=False, write_remote=True)\n--\n\n\
        Stores a value, at once. The returned object may be awaited, but need not be: awaiting it waits until\n\
        a remote cache has acknowledged the value, for its timeout at most.\n\n\
        ttl in seconds, None for ever; if left out, the cache's default. With durable=True the returned object\n\
        must be awaited: it is done when the write survives a power loss. That needs a journal.\n\
        With write_remote=False the value is not written to the remote cache.";
    const PARAMETERS: [&'static str; 5] = ["key", "value", "ttl", "durable", "write_remote"];

    #[inline]
    fn call_fast<'py>(
        cache: &Bound<'py, Cache>,
        &[key, value, ttl, durable, write_remote]: &Arguments<'_, 'py, 5>,
    ) -> Option<Bound<'py, PyAny>> {
        let (py, cache) = (cache.py(), cache.get());
        let has_options = ttl.is_some() || durable.is_some() || write_remote.is_some();
        if has_options || cache.tier.journal().is_some() || cache.remote.get().is_some() {
            return None;
        }
        let (key, value) = (key?.to_owned(), value?.to_owned());
        if !once::is_kept_at_sight(&value) {
            return None;
        }
        let query = ObjectKey::of_plain(cache.seed, &key)?;
        cache.set_at_once(py, &query, value).then(|| done(py).ok())?
    }

    fn call<'py>(
        cache: &Bound<'py, Cache>,
        &[key, value, ttl, durable, write_remote]: &Arguments<'_, 'py, 5>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let Some(value) = value else {
            return Err(PyTypeError::new_err("set() missing 1 required positional argument: 'value'"));
        };
        let ttl = ttl.map_or(Ok(Ttl::Default), |ttl| Ttl::new(&ttl, "ttl"))?;
        once::check(&value, "set() was given")?;
        let key = key.expect("it is required");
        let query = ObjectKey::new(cache.get().seed, &key)?;
        let flush = match durable {
            Some(durable) if is_true(&durable, "durable")? => {
                // Raises if the write could not be made durable; then nothing is stored.
                Some(cache.invoke_method0(pyo3::intern!(cache.py(), "_flush_of_journal"))?)
            }
            _ => None,
        };
        let writes_remote = write_remote.map_or(Ok(true), |it| is_true(&it, "write_remote"))?;
        let writes = if writes_remote { Writes::Through } else { Writes::MemoryOnly };
        cache.get().prepare_write(cache.py())?;
        cache.get().set_key(cache.py(), &query, value.to_owned(), ttl, writes)?;
        cache.get().poke(cache.py())?;
        match (flush, writes_remote) {
            (Some(flush), _) => flush.invoke0(),
            (None, true) => written(cache),
            (None, false) => done(cache.py()),
        }
    }
}

/// Whether the argument with this name is `True`.
fn is_true(argument: &Bound<'_, PyAny>, name: &str) -> PyResult<bool> {
    argument.cast::<PyBool>().map(PyBoolMethods::is_true).map_err(|_| {
        let class = argument.get_type().qualname().map(|name| name.to_string()).unwrap_or_default();
        PyTypeError::new_err(format!("{name} is True or False, not {class}"))
    })
}

//! The native module of the Python package: `cache._native`.
//!
//! # Layout
//!
//! - `cache`: the cache, one shard of the core behind the interpreter's lock; `key`: how keys are compared
//! - `call`: what `get` and decorated functions return; `load`: the driver of one load; `room`: where callers
//!   wait; `nesting`: loads that wait for loads
//! - `agent`: tools of agents, called within sessions and watched for loops
//! - `opened`, `file`, `union`, `save`, `options`: the snapshot, opened and written; `codec`: Python objects as
//!   `MessagePack`
//! - `tool`: the console script `async-cache`
//! - `raw`: the only `unsafe`
//! - `ttl`, `clock`, `errors`, `done`: small things with one owner each

mod agent;
mod batch;
mod cache;
mod call;
mod clock;
mod codec;
mod done;
mod eager;
mod errors;
mod file;
mod key;
mod load;
mod nesting;
mod opened;
mod options;
mod raw;
mod room;
mod save;
mod sharing;
mod tool;
mod ttl;
mod union;

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use crate::agent::ToolCall;
use crate::call::{Args, Call, Function};
use crate::file::Target;
use crate::load::Load;
use crate::raw::{Ref, coroutine, function, method};

/// Makes a decorated function over a cache.
#[pyfunction]
#[allow(clippy::too_many_arguments)] // as many as a decorated function is made of
fn decorate<'py>(
    wrapped: Bound<'py, PyAny>,
    cache: Bound<'py, cache::Cache>,
    number: u32,
    typed: bool,
    skip: usize,
    make_key: Option<Bound<'py, PyAny>>,
    passes_for: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = wrapped.py();
    let function = Function {
        wrapped: Ref::new(wrapped),
        passes_for: passes_for.map(Ref::new),
        cache: Ref::new(cache),
        number,
        typed,
        skip,
        make_key: make_key.map(Ref::new),
        tool: None,
    };
    function::new::<call::Cached>(py, function)
}

/// Removes what a call of a decorated function with these arguments has cached.
#[pyfunction]
fn invalidate(
    function: &Bound<'_, PyAny>,
    args: &Bound<'_, PyTuple>,
    names: &Bound<'_, PyTuple>,
) -> PyResult<()> {
    let py = function.py();
    let Some(function) = function::function(function) else {
        let message = "only functions that were decorated with AsyncLRU or AsyncTTL have cached calls";
        return Err(pyo3::exceptions::PyTypeError::new_err(message));
    };
    let args = Args::collect(args.len(), |index| {
        Ref::new(args.get_borrowed_item(index).expect("within the length").to_owned())
    });
    let names = key::exact_names(names)?;
    let names = (!names.is_empty()).then_some(&names);
    let probe = function.probe(py, &args, names)?;
    function.cache.bind(py).get().delete_key(py, &probe)
}

/// All entries of a file; `None` if there is no file.
#[pyfunction]
fn read_file<'py>(
    py: Python<'py>,
    path: PathBuf,
    version: String,
    options: &options::FileOptions,
) -> PyResult<Option<Bound<'py, PyList>>> {
    file::read_all(py, &Target::new(path, version, options))
}

/// Writes a file with these entries.
#[pyfunction]
fn write_file(
    py: Python<'_>,
    path: PathBuf,
    version: String,
    options: &options::FileOptions,
    entries: &Bound<'_, PyAny>,
) -> PyResult<()> {
    file::write(py, &Target::new(path, version, options), entries)
}

/// Removes a file.
#[pyfunction]
fn remove_file(py: Python<'_>, path: PathBuf, options: &options::FileOptions) -> PyResult<()> {
    file::remove(py, &Target::new(path, String::new(), options))
}

#[pymodule(gil_used = true)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    let py = module.py();
    module.add_class::<cache::Cache>()?;
    method::add::<cache::Get, 4>(py)?;
    method::add::<cache::Set, 3>(py)?;
    module.add_class::<done::Done>()?;
    module.add_class::<options::FileOptions>()?;
    module.add("CachedFunction", function::class(py)?)?;
    module.add("Call", coroutine::class::<Call>(py)?)?;
    module.add("ToolCall", coroutine::class::<ToolCall>(py)?)?;
    module.add("Load", coroutine::class::<Load>(py)?)?;
    module.add_function(wrap_pyfunction!(decorate, module)?)?;
    module.add_function(wrap_pyfunction!(invalidate, module)?)?;
    module.add_function(wrap_pyfunction!(read_file, module)?)?;
    module.add_function(wrap_pyfunction!(write_file, module)?)?;
    module.add_function(wrap_pyfunction!(remove_file, module)?)?;
    module.add_function(wrap_pyfunction!(tool::run_tool, module)?)?;
    module.add_function(wrap_pyfunction!(nesting::forked, module)?)?;
    module.add_function(wrap_pyfunction!(raw::pending::call_in_main_thread, module)?)?;
    agent::register(module)?;
    codec::register(module)?;
    Ok(())
}

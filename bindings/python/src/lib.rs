//! The native module of the Python package: `cache._native`.
//!
//! # Layout
//!
//! - `cache`: the cache, one shard of the core behind the interpreter's lock; `key`: how keys are
//!   compared; `part`: the arguments that make a key; `instances`: objects that are arguments by
//!   identity
//! - `call`: the coroutine of `get` and of decorated functions; `load`: the driver of one load;
//!   `inline`: whether a load begins on its caller's stack; `batch`: keys that are loaded together;
//!   `room`: where callers wait; `once`: results that are read once; `nesting`: loads that wait for
//!   loads
//! - `agent`: tools of agents, called within sessions and watched for loops
//! - `opened`, `file`, `union`, `save`, `carry`, `options`: the snapshot, opened and written;
//!   `eager`: merging entries whose keys are objects; `sharing`: writes since the last save; `codec`:
//!   Python objects as `MessagePack`
//! - `pace`: how long saves and loads hold the interpreter's lock
//! - `tool`: the console script `async-cache`
//! - `raw`: the only `unsafe`
//! - `interpreter`: which interpreters may import the module; `library`: the parts of Python's
//!   library that it needs
//! - `ttl`, `window`, `clock`, `errors`, `done`: small modules with one task each

mod agent;
mod batch;
mod cache;
mod call;
mod carry;
mod clock;
mod codec;
mod done;
mod eager;
mod errors;
mod file;
mod inline;
mod instances;
mod interpreter;
mod key;
mod library;
mod load;
mod nesting;
mod once;
mod opened;
mod options;
mod pace;
mod part;
mod raw;
mod room;
mod save;
mod sharing;
mod tool;
mod ttl;
mod union;
mod window;

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};

use crate::agent::ToolCall;
use crate::call::{Call, Function};
use crate::file::Target;
use crate::instances::Instances;
use crate::load::Load;
use crate::part::Part;
use crate::raw::method::Method;
use crate::raw::{Ref, async_method, bound, coroutine, function, method};

/// Makes a decorated function over a cache. `excluded` are the positions and names that are no part of the key,
/// `instance` is the name of the parameter that is known by identity, empty if it is given by position only.
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
    excluded: (Vec<usize>, Vec<Bound<'py, PyString>>),
    instance: Option<Bound<'py, PyString>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = wrapped.py();
    // Of a function that is decorated twice, what the inner one passes for: a chain of them takes no stack.
    let passes_for = passes_for.map(|passes_for| match function::function(&passes_for) {
        Some(Function { passes_for: Some(inner), .. }) => inner.bind(py).clone(),
        _ => passes_for,
    });
    let instances = instance.map(|name| Instances::new(&cache, name));
    let part = Part::new(skip, &excluded.0, excluded.1, instances);
    let function = Function {
        wrapped: Ref::new(wrapped),
        passes_for: passes_for.map(Ref::new),
        cache: Ref::new(cache),
        number,
        typed,
        skip,
        is_direct: Function::is_direct(make_key.as_ref(), part.as_deref()),
        make_key: make_key.map(Ref::new),
        part,
        tool: None,
    };
    function::new::<call::Cached>(py, function)
}

/// Removes what calls of a decorated function have cached: each a tuple of arguments and one of the names of the last
/// of them, without those that are no part of the key. `None`: removes all.
#[pyfunction]
fn invalidate(function: &Bound<'_, PyAny>, calls: Option<&Bound<'_, PyList>>) -> PyResult<()> {
    let py = function.py();
    let Some(function) = function::function(function) else {
        let message = "only functions that were decorated with AsyncLRU or AsyncTTL have cached calls";
        return Err(pyo3::exceptions::PyTypeError::new_err(message));
    };
    if let Some(calls) = calls {
        return function.invalidate(py, calls);
    }
    function.cache.bind(py).get().remove_all(py);
    Ok(())
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
    interpreter::check(py)?;
    library::prepare(py)?;
    nesting::prepare(py)?;
    codec::prepare(py)?;
    module.add_class::<cache::Cache>()?;
    let code = c"async def get(self, key, loader=None, batch_loader=None, ttl=None): ...";
    let stand_in = PyModule::from_code(py, code, c"cache/_native", c"cache._native")?.getattr("get")?;
    stand_in.setattr("__qualname__", "Cache.get")?;
    stand_in
        .setattr("__doc__", cache::Get::DOC.to_string_lossy().split_once("--\n\n").map(|(_, doc)| doc))?;
    async_method::add::<cache::Get, 4>(py, stand_in)?;
    method::add::<cache::Set, 3>(py)?;
    module.add_class::<done::Done>()?;
    module.add_class::<options::FileOptions>()?;
    module.add("CachedFunction", function::class(py)?)?;
    module.add("CachedMethod", bound::class(py)?)?;
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

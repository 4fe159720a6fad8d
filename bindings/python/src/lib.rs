//! The native module of the Python package: `cache._native`.
//!
//! # Layout
//!
//! From the bottom to the top. A module imports modules below it only; `scripts/check_arrows.py`
//! has the table.
//!
//! - `raw`: the only `unsafe`; `errors`; `library`: the parts of Python's library used by the
//!   module; `pace`: how long saves and loads hold the interpreter's lock; `interpreter`: the
//!   interpreters that may import the module
//! - `ttl`, `window`, `done`: small modules with one task each; `once`: results that can be read
//!   only once; `inline`: whether a load begins on its caller's stack; `nesting`: loads that wait
//!   for loads
//! - `plain`: objects compared without running Python code; `args`: the arguments of a call;
//!   `codec`: Python objects as `MessagePack`; `call_key`, `key`: the keys in the store;
//!   `call_query`: look-ups of calls
//! - `remote`: the tier beyond one host, beside the memory of a cache
//! - `options`, `target`: the file of a cache
//! - `room`: the waiting callers of a load; `item`: one flight of a load; `gathering`: keys waiting
//!   for a batch
//! - `cache`: the cache, one shard of the core behind the interpreter's lock; `watch`: loads on
//!   event loops that stop
//! - `instances`: objects as arguments by identity; `part`: the arguments that make a key;
//!   `function`: decorated functions
//! - `driver`: carries the bytes of the tier beyond one host on an event loop
//! - `work`, `awaitable`, `returned`: a loader and its result; `load`: the driver of one load;
//!   `batch`: keys loaded together; `reading`: reads that wait for the disk, on a thread; `enter`:
//!   how a call joins or starts a load
//! - `host`: the cache in memory, in the form for `async-cache-tier`; `snapshot`: operations on a
//!   key in the opened snapshot; `restore`: entries added from a backend; `eager`: merging entries
//!   whose keys are objects; `file_host`: the cache with its file, in the form for
//!   `async-cache-tier`; `journal`: operations on a cache with a journal; `journal_file`: a file
//!   with a journal, without a cache; `file`: the file, opened and saved
//! - `ask`: the target of a call; `waiting`: a call's wait for a load; `call`: the coroutine of
//!   `get` and of decorated functions; `many`: the coroutine of `get_many`; `decorate`: makes
//!   decorated functions
//! - `agent`: tools of agents, called within sessions, with loop detection
//! - `methods`, `surface`: the Python interface of the cache; `console`: the console script
//!   `async-cache`

mod agent;
mod args;
mod ask;
mod awaitable;
mod batch;
mod cache;
mod call;
mod call_key;
mod call_query;
mod codec;
mod console;
mod decorate;
mod done;
mod driver;
mod eager;
mod enter;
mod errors;
mod file;
mod file_host;
mod function;
mod gathering;
mod host;
mod inline;
mod instances;
mod interpreter;
mod item;
mod journal;
mod journal_file;
mod key;
mod library;
mod load;
mod many;
mod methods;
mod nesting;
mod once;
mod options;
mod pace;
mod part;
mod plain;
mod raw;
mod reading;
mod remote;
mod restore;
mod returned;
mod room;
mod snapshot;
mod surface;
mod target;
mod ttl;
mod waiting;
mod watch;
mod window;
mod work;

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::agent::ToolCall;
use crate::call::CacheCall;
use crate::function::Function;
use crate::load::LoadDriver;
use crate::raw::method::Method;
use crate::raw::{async_method, bound, coroutine, method};
use crate::target::TargetFile;

/// All entries of a file; `None` if there is no file.
#[pyfunction]
fn read_file<'py>(
    py: Python<'py>,
    path: PathBuf,
    version: String,
    options: &options::FileOptions,
) -> PyResult<Option<Bound<'py, PyList>>> {
    file::read_all(py, &TargetFile::new(path, version, options))
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
    file::write(py, TargetFile::new(path, version, options), entries)
}

/// Removes a file.
#[pyfunction]
fn remove_file(
    py: Python<'_>,
    path: PathBuf,
    version: String,
    options: &options::FileOptions,
) -> PyResult<()> {
    file::remove(py, &TargetFile::new(path, version, options))
}

/// Called in the child of a fork, before any other code of the package runs there.
#[pyfunction]
fn after_fork_in_child(py: Python<'_>) {
    nesting::forked(py);
    instances::forked(py);
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
    stand_in.setattr(
        "__doc__",
        methods::GetMethod::DOC.to_string_lossy().split_once("--\n\n").map(|(_, doc)| doc),
    )?;
    async_method::add::<methods::GetMethod, 4>(py, stand_in)?;
    method::add::<methods::SetMethod, 5>(py)?;
    module.add("ABSENT", enter::absent(py)?.clone_ref(py))?;
    module.add_class::<done::Done>()?;
    module.add_class::<options::FileOptions>()?;
    module.add_class::<remote::RedisOptions>()?;
    module.add_class::<driver::Attempt>()?;
    module.add_class::<driver::Connection>()?;
    module.add_class::<reading::ColdRead>()?;
    module.add("CachedFunction", raw::function::class::<Function>(py)?)?;
    module.add("CachedMethod", bound::class::<Function>(py)?)?;
    module.add("Call", coroutine::class::<CacheCall>(py)?)?;
    module.add("ToolCall", coroutine::class::<ToolCall>(py)?)?;
    module.add("Load", coroutine::class::<LoadDriver>(py)?)?;
    module.add_function(wrap_pyfunction!(decorate::decorate, module)?)?;
    module.add_function(wrap_pyfunction!(decorate::invalidate, module)?)?;
    module.add_function(wrap_pyfunction!(ttl::check_ttl, module)?)?;
    module.add_function(wrap_pyfunction!(read_file, module)?)?;
    module.add_function(wrap_pyfunction!(write_file, module)?)?;
    module.add_function(wrap_pyfunction!(remove_file, module)?)?;
    module.add_function(wrap_pyfunction!(console::run_tool, module)?)?;
    module.add_function(wrap_pyfunction!(after_fork_in_child, module)?)?;
    module.add_function(wrap_pyfunction!(raw::pending::call_in_main_thread, module)?)?;
    agent::register(module)?;
    codec::register(module)?;
    Ok(())
}

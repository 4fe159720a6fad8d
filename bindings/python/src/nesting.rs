//! Loads that wait for loads: refuses a wait that would never end.
//!
//! Owns the graph of waits of the whole process, because a circle may lead through several caches,
//! and the context variable that holds the load of the running code. Tasks started by a loader
//! inherit the variable, so a circle through `asyncio.gather` in a loader is detected. If a loader
//! starts code without waiting for it, the code is also refused its loader's key, as long as the
//! load runs.
//!
//! A forked process has a copy of the parent's loads, and of the context in which the fork was
//! made. Rules for the names of loads:
//! 1. names count up, so the loads inherited by a child are those up to the last name at the fork;
//! 2. an inherited load is not part of the graph: code in its context counts as code outside any
//!    load.

use async_cache_core::waits::WaitGraph;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::raw::GilCell;
use crate::raw::context::ContextVar;

static GRAPH: PyOnceLock<GilCell<LoadGraph>> = PyOnceLock::new();
static CURRENT: PyOnceLock<ContextVar> = PyOnceLock::new();

#[derive(Default)]
struct LoadGraph {
    waits: WaitGraph<u64>,
    /// The names of loads count up from 1.
    names: u64,
    /// The last name at the fork that made this process; 0 without a fork. Written by [`forked`]
    /// only.
    inherited: u64,
}

fn graph(py: Python<'_>) -> &GilCell<LoadGraph> {
    GRAPH.get_or_init(py, || GilCell::new(LoadGraph::default()))
}

fn variable(py: Python<'_>) -> PyResult<&ContextVar> {
    CURRENT.get_or_try_init(py, || ContextVar::new(py, "cache._native.load"))
}

/// Makes the context variable in advance, because a load needs it at its beginning.
pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
    variable(py).map(drop)
}

/// A name for a load.
pub(crate) fn name(py: Python<'_>) -> u64 {
    let mut graph = graph(py).borrow(py);
    graph.names += 1;
    graph.names
}

/// Marks the running context as the load's.
pub(crate) fn enter(py: Python<'_>, name: u64) -> PyResult<()> {
    variable(py)?.set(name.into_pyobject(py)?.as_any())
}

/// The load to which the running code belongs.
pub(crate) fn current(py: Python<'_>) -> PyResult<Option<u64>> {
    let name: Option<u64> = variable(py)?.get(py)?.map(|name| name.extract()).transpose()?;
    // Rule 2.
    Ok(name.filter(|&name| !is_inherited(py, name)))
}

/// Whether a load began before the fork that made this process: its task is the parent's.
pub(crate) fn is_inherited(py: Python<'_>, name: u64) -> bool {
    name <= graph(py).borrow(py).inherited
}

/// Called in the child of a fork, before any other code of the package runs there.
pub(crate) fn forked(py: Python<'_>) {
    let waits = {
        let mut graph = graph(py).borrow(py);
        // Rule 1.
        graph.inherited = graph.names;
        std::mem::take(&mut graph.waits)
    };
    drop(waits);
}

/// Records that a load waits for another; `false` if the wait would never end.
pub(crate) fn wait(py: Python<'_>, waiter: u64, target: u64) -> bool {
    graph(py).borrow(py).waits.wait(waiter, target).is_ok()
}

/// Removes one [`wait`].
pub(crate) fn done(py: Python<'_>, waiter: Option<u64>, target: u64) {
    if let Some(waiter) = waiter {
        graph(py).borrow(py).waits.done(waiter, target);
    }
}

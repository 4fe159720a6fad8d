//! Loads that wait for loads: refuses the wait that would never end.
//!
//! Owns the graph of waits of the whole process, for a circle may lead through several caches, and the context
//! variable that says in which load a piece of code runs. Tasks that a loader starts inherit it, so a circle
//! through `asyncio.gather` in a loader is found. What a loader starts and does not wait for is refused its
//! loader's key, too, as long as that load runs.

use async_cache_core::waits::WaitGraph;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::raw::GilCell;
use crate::raw::context::ContextVar;

static GRAPH: PyOnceLock<GilCell<Graph>> = PyOnceLock::new();
static CURRENT: PyOnceLock<ContextVar> = PyOnceLock::new();

#[derive(Default)]
struct Graph {
    waits: WaitGraph<u64>,
    /// The names of loads count up from 1.
    names: u64,
}

fn graph(py: Python<'_>) -> &GilCell<Graph> {
    GRAPH.get_or_init(py, || GilCell::new(Graph::default()))
}

fn variable(py: Python<'_>) -> PyResult<&ContextVar> {
    CURRENT.get_or_try_init(py, || ContextVar::new(py, "cache._native.load"))
}

/// Makes the context variable, so that it is there when a load begins.
pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
    variable(py).map(drop)
}

/// A name for a load.
pub(crate) fn name(py: Python<'_>) -> u64 {
    let mut graph = graph(py).borrow(py);
    graph.names += 1;
    graph.names
}

/// Marks the running context as that of a load.
pub(crate) fn enter(py: Python<'_>, name: u64) -> PyResult<()> {
    variable(py)?.set(name.into_pyobject(py)?.as_any())
}

/// The load that the running code is part of.
pub(crate) fn current(py: Python<'_>) -> PyResult<Option<u64>> {
    variable(py)?.get(py)?.map(|name| name.extract()).transpose()
}

/// Notes that a load waits for another; `false` if that would never end.
pub(crate) fn wait(py: Python<'_>, waiter: u64, target: u64) -> bool {
    graph(py).borrow(py).waits.wait(waiter, target).is_ok()
}

/// Takes back one [`wait`].
pub(crate) fn done(py: Python<'_>, waiter: Option<u64>, target: u64) {
    if let Some(waiter) = waiter {
        graph(py).borrow(py).waits.done(waiter, target);
    }
}

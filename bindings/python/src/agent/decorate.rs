//! Makes tools, and counts events outside of calls: the functions called by `agent_cache`.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::call::Watched;
use super::tool::{TOTAL, Tool, ToolCounts, ToolScope};
use crate::cache::Cache;
use crate::function::{self, Function};
use crate::instances::Instances;
use crate::part::KeyPart;
use crate::raw::{self, GilCell, Ref};

/// Makes a tool. `make` is called with a session and returns the function that keeps the session's
/// results; without `make`, `cache` keeps the results.
#[pyfunction]
#[allow(clippy::too_many_arguments)] // all the parts of a tool
pub(super) fn decorate_tool<'py>(
    wrapped: Bound<'py, PyAny>,
    cache: Bound<'py, Cache>,
    skip: usize,
    make_key: Option<Bound<'py, PyAny>>,
    number: u32,
    make: Option<Bound<'py, PyAny>>,
    excluded: (Vec<usize>, Vec<Bound<'py, PyString>>),
    instance: Option<Bound<'py, PyString>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = wrapped.py();
    let scope = make.map_or(ToolScope::Global, |make| ToolScope::Session(Ref::new(make)));
    let instances = instance.map(|name| Instances::new(&cache, name));
    let part = KeyPart::new(skip, &excluded.0, excluded.1, instances);
    let is_direct = Function::is_direct(make_key.as_ref(), part.as_deref());
    let function = Function {
        passes_for: Some(Ref::new(wrapped.clone())),
        wrapped: Ref::new(wrapped),
        cache: Ref::new(cache),
        number: 0,
        typed: false,
        skip,
        is_direct,
        is_keyed_by_one: Function::is_keyed_by_one(is_direct, 0, false, skip),
        make_key: make_key.map(Ref::new),
        part,
        tool: Some(Tool { number, scope, counts: GilCell::new(ToolCounts::NONE) }),
    };
    raw::function::new::<_, Watched>(py, function)
}

fn tool<'a>(object: &'a Bound<'_, PyAny>) -> PyResult<&'a Tool> {
    function::function(object)
        .and_then(|function| function.tool.as_ref())
        .ok_or_else(|| PyTypeError::new_err("only functions that were decorated with AgentCache are tools"))
}

/// The counters of a tool.
#[pyfunction]
pub(super) fn tool_counts<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    let counts = *tool(object)?.counts.borrow(object.py());
    counts.to_dict(object.py())
}

/// Counts an invalidation of a tool's results.
#[pyfunction]
pub(super) fn count_tool_invalidation(object: &Bound<'_, PyAny>) -> PyResult<()> {
    tool(object)?.counts.borrow(object.py()).invalidations += 1;
    Ok(())
}

/// Sets a tool's counts to zero.
#[pyfunction]
pub(super) fn reset_tool_counts(object: &Bound<'_, PyAny>) -> PyResult<()> {
    *tool(object)?.counts.borrow(object.py()) = ToolCounts::NONE;
    Ok(())
}

/// The counters over all tools and sessions.
#[pyfunction]
pub(super) fn total_counts(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let counts = *TOTAL.borrow(py);
    counts.to_dict(py)
}

/// Counts an invalidation.
#[pyfunction]
pub(super) fn count_invalidation(py: Python<'_>) {
    TOTAL.borrow(py).invalidations += 1;
}

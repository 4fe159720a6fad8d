//! Makes decorated functions, and invalidates their results: what the Python package calls.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};

use crate::cache::Cache;
use crate::call::Cached;
use crate::function::{self, Function};
use crate::instances::Instances;
use crate::part::Part;
use crate::raw::{self, Ref};

/// Makes a decorated function over a cache. `excluded` are the positions and names that are no part of the key,
/// `instance` is the name of the parameter that is known by identity, empty if it is given by position only.
#[pyfunction]
#[allow(clippy::too_many_arguments)] // as many as a decorated function is made of
pub(crate) fn decorate<'py>(
    wrapped: Bound<'py, PyAny>,
    cache: Bound<'py, Cache>,
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
    raw::function::new::<_, Cached>(py, function)
}

/// Removes what calls of a decorated function have cached: each a tuple of arguments and one of the names of the last
/// of them, without those that are no part of the key. `None`: removes all.
#[pyfunction]
pub(crate) fn invalidate(function: &Bound<'_, PyAny>, calls: Option<&Bound<'_, PyList>>) -> PyResult<()> {
    let py = function.py();
    let Some(function) = function::function(function) else {
        let message = "only functions that were decorated with AsyncLRU or AsyncTTL have cached calls";
        return Err(PyTypeError::new_err(message));
    };
    if let Some(calls) = calls {
        return function.invalidate(py, calls);
    }
    function.cache.bind(py).get().remove_all(py);
    Ok(())
}

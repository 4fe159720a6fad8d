//! Makes decorated functions, and invalidates their results: the functions called by the Python
//! package.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};

use crate::cache::Cache;
use crate::call::Cached;
use crate::function::{self, Function};
use crate::instances::Instances;
use crate::part::KeyPart;
use crate::raw::{self, Ref};

/// Makes a decorated function over a cache. `excluded`: the positions and names that are not part
/// of the key. `instance`: the name of the parameter represented by identity, empty if the
/// parameter is positional-only.
#[pyfunction]
#[allow(clippy::too_many_arguments)] // all the parts of a decorated function
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
    // If a function is decorated twice, use the inner one's stand-in: a chain of decorations takes
    // no stack.
    let passes_for = passes_for.map(|passes_for| match function::function(&passes_for) {
        Some(Function { passes_for: Some(inner), .. }) => inner.bind(py).clone(),
        _ => passes_for,
    });
    let instances = instance.map(|name| Instances::new(&cache, name));
    let part = KeyPart::new(skip, &excluded.0, excluded.1, instances);
    let is_direct = Function::is_direct(make_key.as_ref(), part.as_deref());
    let function = Function {
        wrapped: Ref::new(wrapped),
        passes_for: passes_for.map(Ref::new),
        cache: Ref::new(cache),
        number,
        typed,
        skip,
        is_direct,
        is_keyed_by_one: Function::is_keyed_by_one(is_direct, number, typed, skip),
        make_key: make_key.map(Ref::new),
        part,
        tool: None,
    };
    raw::function::new::<_, Cached>(py, function)
}

/// Removes the cached results of calls of a decorated function. Each call is a tuple of arguments
/// and a tuple of names for the last of them, without arguments outside the key. `None`: removes
/// all results.
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
    function.cache.bind(py).get().remove_all(py)?;
    Ok(())
}

//! Awaitables, driven in the same way as by `await`.

use pyo3::exceptions::{PyStopIteration, PyTypeError};
use pyo3::prelude::*;

use crate::errors;
use crate::library;
use crate::raw::Sent;
use crate::raw::calls::Invoke;

/// The iterator used by `await`.
pub(crate) fn iterator<'py>(
    awaitable: &Bound<'py, PyAny>,
    loader: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = awaitable.py();
    if awaitable.get_type().is(library::coroutine(py)?) {
        return Ok(awaitable.clone());
    }
    let Ok(method) = awaitable.getattr(pyo3::intern!(py, "__await__")) else {
        // Generators of `types.coroutine` are awaited directly.
        if library::is_awaitable(py)?.call1((awaitable,))?.is_truthy()? {
            return Ok(awaitable.clone());
        }
        let class = awaitable.get_type();
        let message = if class.hasattr("__anext__")? {
            format!(
                "the loader {} is an async generator function, whose items are read once: have it return a list",
                errors::repr(loader)
            )
        } else {
            format!(
                "the loader {} returned {}, which cannot be awaited; a loader is an async function, \
                 or a function that returns something awaitable",
                errors::repr(loader),
                class.qualname()?
            )
        };
        return Err(PyTypeError::new_err(message));
    };
    method.invoke0()
}

/// Raises an exception at the point at which an iterator waits.
pub(crate) fn throw<'py>(iterator: &Bound<'py, PyAny>, error: PyErr) -> PyResult<Sent<'py>> {
    let py = iterator.py();
    let Some(method) = iterator.getattr_opt(pyo3::intern!(py, "throw"))? else { return Err(error) };
    match method.invoke1(error.into_value(py).bind(py).as_any()) {
        Ok(value) => Ok(Sent::Yield(value)),
        Err(stop) if stop.is_instance_of::<PyStopIteration>(py) => {
            Ok(Sent::Return(stop.value(py).getattr(pyo3::intern!(py, "value"))?))
        }
        Err(error) => Err(error),
    }
}

//! The result of `set`, `delete` and `clear`: the work is already done, and awaiting the result is
//! optional.

use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// A single object for the whole process, because it has no content. May be awaited any number of
/// times.
#[pyclass(frozen, module = "cache._native")]
pub(crate) struct Done;

#[pymethods]
impl Done {
    #[allow(clippy::unused_self)]
    fn __repr__(&self) -> &'static str {
        "<done; it may be awaited>"
    }

    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[allow(clippy::unused_self)] // Python calls these methods on an object
    fn __next__(&self) -> Option<()> {
        None
    }

    #[pyo3(signature = (value, /))]
    #[allow(clippy::unused_self)]
    fn send(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let _ = value;
        Err(PyStopIteration::new_err(()))
    }

    #[pyo3(signature = (error, value=None, traceback=None, /))]
    #[allow(clippy::unused_self)]
    fn throw(
        &self,
        error: Bound<'_, PyAny>,
        value: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyAny>>,
    ) -> PyErr {
        let _ = traceback;
        PyErr::from_value(value.unwrap_or(error))
    }

    #[allow(clippy::unused_self)]
    fn close(&self) {}
}

static DONE: PyOnceLock<Py<Done>> = PyOnceLock::new();

/// The single object.
#[inline]
pub(crate) fn done(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let done = DONE.get_or_try_init(py, || Py::new(py, Done))?;
    Ok(done.bind(py).clone().into_any())
}

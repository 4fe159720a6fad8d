//! The result of `set`, `delete` and `clear`: the work is already done, and awaiting the result is
//! optional.
//!
//! With a tier beyond one host, whoever awaits the result waits until the tier has acknowledged the
//! write, for the timeout at most.

use async_cache_core::remote::WriteMark;
use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::{PyTraverseError, PyVisit};

use crate::cache::Cache;
use crate::raw::calls::Invoke;
use crate::raw::visit::{self, visits};
use crate::raw::{GilCell, Ref};

/// May be awaited any number of times. Without a tier beyond one host, a single object for the
/// whole process.
#[pyclass(frozen, module = "cache._native")]
pub(crate) struct Done {
    written: Option<Written>,
    /// The coroutine that waits, if the object itself is run as one.
    runs: GilCell<Option<Ref>>,
}

/// A write that a tier has yet to acknowledge.
struct Written {
    cache: Py<Cache>,
    mark: WriteMark,
}

visits!(struct Written { cache });
visits!(struct Done { written, runs });

impl Done {
    /// A new coroutine that waits for the acknowledgement.
    fn wait<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        static ACKNOWLEDGED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = slf.py();
        let Some(written) = &slf.get().written else { return Ok(None) };
        let Some(tier) = written.cache.get().remote.get() else { return Ok(None) };
        let patience = tier.settings.machine.timeout.as_secs_f64();
        let wait = ACKNOWLEDGED.import(py, "cache._connection", "acknowledged")?;
        wait.invoke_with((slf, patience)).map(Some)
    }

    fn take(&self, py: Python<'_>) -> Option<Ref> {
        self.runs.borrow(py).take()
    }

    /// Runs the coroutine on, and keeps it if it has not ended.
    fn run<'py>(
        &self,
        py: Python<'py>,
        runs: Bound<'py, PyAny>,
        step: impl FnOnce(&Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let stepped = step(&runs)?;
        let before = self.runs.borrow(py).replace(Ref::new(runs));
        drop(before);
        Ok(stepped)
    }
}

#[pymethods]
impl Done {
    fn __repr__(&self) -> &'static str {
        if self.written.is_some() {
            "<done here; awaiting it waits for the remote cache>"
        } else {
            "<done; it may be awaited>"
        }
    }

    fn __await__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        match Self::wait(slf)? {
            Some(wait) => wait.invoke_method0(pyo3::intern!(slf.py(), "__await__")),
            None => Ok(slf.clone().into_any()),
        }
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// As `send(None)`: tasks run a coroutine by this method.
    fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = slf.py();
        match Self::send(slf, py.None().bind(py)) {
            Ok(awaited) => Ok(Some(awaited)),
            Err(error) if error.is_instance_of::<PyStopIteration>(py) => Ok(None),
            Err(error) => Err(error),
        }
    }

    #[pyo3(signature = (value, /))]
    fn send<'py>(slf: &Bound<'py, Self>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let runs = match slf.get().take(py) {
            Some(runs) => Some(runs.into_bound(py)),
            None => Self::wait(slf)?,
        };
        let Some(runs) = runs else { return Err(PyStopIteration::new_err(())) };
        slf.get().run(py, runs, |runs| runs.invoke_method1(pyo3::intern!(py, "send"), value))
    }

    #[pyo3(signature = (error, value=None, traceback=None, /))]
    fn throw<'py>(
        &self,
        py: Python<'py>,
        error: Bound<'py, PyAny>,
        value: Option<Bound<'py, PyAny>>,
        traceback: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let _ = traceback;
        let error = value.unwrap_or(error);
        let Some(runs) = self.take(py) else { return Err(PyErr::from_value(error)) };
        self.run(py, runs.into_bound(py), |runs| runs.invoke_method1(pyo3::intern!(py, "throw"), &error))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        match self.take(py) {
            Some(runs) => runs.bind(py).invoke_method0(pyo3::intern!(py, "close")).map(drop),
            None => Ok(()),
        }
    }

    /// Begins to wait, on the running loop: the future is finished once there is a word from the
    /// tier. False: none is expected.
    fn _begin_wait(&self, py: Python<'_>, future: &Bound<'_, PyAny>) -> PyResult<bool> {
        match &self.written {
            Some(written) => written.cache.get().await_writes(py, written.mark, future),
            None => Ok(false),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit::traverse(self, visit)
    }
}

static DONE: PyOnceLock<Py<Done>> = PyOnceLock::new();

/// The single object.
#[inline]
pub(crate) fn done(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let new = || Py::new(py, Done { written: None, runs: GilCell::new(None) });
    let done = DONE.get_or_try_init(py, new)?;
    Ok(done.bind(py).clone().into_any())
}

/// The result of a write in a cache.
pub(crate) fn written<'py>(cache: &Bound<'py, Cache>) -> PyResult<Bound<'py, PyAny>> {
    let py = cache.py();
    let mark = cache.get().remote.get().and_then(|tier| tier.remote(py).mark());
    let Some(mark) = mark else { return done(py) };
    let written = Some(Written { cache: cache.clone().unbind(), mark });
    Bound::new(py, Done { written, runs: GilCell::new(None) }).map(Bound::into_any)
}

//! Context variables, through the interpreter's own functions: a load sets one, and every call that
//! has to wait reads one.

use pyo3::ffi;
use pyo3::prelude::*;

/// A context variable.
pub(crate) struct ContextVar(Py<PyAny>);

impl ContextVar {
    /// Makes one that has no value anywhere yet.
    pub(crate) fn new(py: Python<'_>, name: &str) -> PyResult<Self> {
        let class = py.import("contextvars")?.getattr("ContextVar")?;
        class.call1((name,)).map(|variable| Self(variable.unbind()))
    }

    /// Its value in the running context.
    pub(crate) fn get<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let mut value = std::ptr::null_mut();
        // SAFETY: attached; the object is a context variable, for nobody else makes a `ContextVar`;
        // `value` is written to, a new reference or null.
        let value = unsafe {
            if ffi::PyContextVar_Get(self.0.as_ptr(), std::ptr::null_mut(), &raw mut value) < 0 {
                return Err(PyErr::fetch(py));
            }
            Bound::from_owned_ptr_or_opt(py, value)
        };
        Ok(value)
    }

    /// Sets it in the running context.
    pub(crate) fn set(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        // SAFETY: attached; both are alive, and `self` is a context variable; the token is a new
        // reference.
        let token = unsafe {
            Bound::from_owned_ptr_or_err(value.py(), ffi::PyContextVar_Set(self.0.as_ptr(), value.as_ptr()))
        };
        token.map(drop)
    }
}

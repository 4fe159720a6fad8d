//! Calls that the main thread makes for other threads: only the main thread may install handlers of
//! signals.

use std::ffi::{c_int, c_void};

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;

use super::attached;
use super::calls::Invoke;

/// Lets the main thread call a function, between two of its lines. While the main thread waits in C
/// code, the call waits too. Exceptions of the call are reported as unraisable.
///
/// # Errors
/// `RuntimeError` if too many calls are waiting already.
#[pyfunction]
pub(crate) fn call_in_main_thread(callable: Bound<'_, PyAny>) -> PyResult<()> {
    let callable = callable.into_ptr();
    // SAFETY: attached. The reference is passed to `call`, which is called once, or is taken back
    // below.
    unsafe {
        if ffi::Py_AddPendingCall(Some(call), callable.cast::<c_void>()) == 0 {
            return Ok(());
        }
        ffi::Py_DECREF(callable);
    }
    Err(PyRuntimeError::new_err("too many calls wait for the main thread"))
}

extern "C" fn call(callable: *mut c_void) -> c_int {
    attached(|py| {
        // SAFETY: the owned reference passed on by `call_in_main_thread`.
        let callable = unsafe { Bound::from_owned_ptr(py, callable.cast::<ffi::PyObject>()) };
        if let Err(error) = callable.invoke0() {
            error.write_unraisable(py, Some(&callable));
        }
    });
    0
}

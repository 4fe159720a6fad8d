//! The interpreters that may import the module.
//!
//! All data shared by the caches of a process is guarded by the lock of a single interpreter: the
//! caches of `pyo3`'s types, the free lists of awaitables, the graph of loads that wait for loads.
//! Rules:
//!
//! 1. Only the first interpreter of a process may import the module. A subinterpreter that shares
//!    the first interpreter's lock would get objects of the first interpreter, and hang. (Python
//!    refuses a subinterpreter with a lock of its own.)
//! 2. The interpreter must have a lock. A free-threaded build of Python turns the lock on when the
//!    module is imported, unless configured otherwise; then the import fails.

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;

use crate::raw;

/// `ImportError` if the module would not be sound in this interpreter.
pub(crate) fn check(py: Python<'_>) -> PyResult<()> {
    // Rule 1.
    if !raw::interpreter::is_main(py) {
        return Err(PyImportError::new_err(
            "the package async-cache works in the first interpreter of a process only, and this is a subinterpreter; \
             under mod_wsgi, set WSGIApplicationGroup %{GLOBAL}, elsewhere use a process instead",
        ));
    }
    // Rule 2. Python before 3.13 has neither the function nor the option.
    let is_locked = py.import("sys")?.getattr_opt("_is_gil_enabled")?.map(|ask| ask.call0()?.is_truthy());
    if is_locked.transpose()? == Some(false) {
        return Err(PyImportError::new_err(
            "the package async-cache needs Python's global interpreter lock, which is turned off; \
             start Python without -X gil=0 and without PYTHON_GIL=0",
        ));
    }
    Ok(())
}

//! The parts of Python's library needed by loads, looked up when the module is imported.
//!
//! An import runs Python code, so it may be interrupted, or fail for lack of memory. At the end of
//! a load there must be no such error: the callers would wait for ever. If one of the imports
//! fails, the import of the module fails, and can be retried.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

macro_rules! library {
    ($($name:ident = $module:literal, $attribute:literal;)*) => {
        $(
            pub(crate) fn $name(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
                static FOUND: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
                FOUND.import(py, $module, $attribute)
            }
        )*

        /// Looks up all of the parts.
        pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
            $($name(py)?;)*
            Ok(())
        }
    };
}

library! {
    cancelled_error = "asyncio", "CancelledError";
    task = "asyncio", "Task";
    future = "asyncio", "Future";
    get_running_loop = "asyncio", "get_running_loop";
    mapping = "collections.abc", "Mapping";
    is_awaitable = "inspect", "isawaitable";
    copy_context = "contextvars", "copy_context";
    coroutine = "types", "CoroutineType";
    method = "types", "MethodType";
}

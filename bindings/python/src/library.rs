//! What loads need of Python's library, looked up when the module is imported.
//!
//! An import runs Python code, so it may be interrupted, and want of memory may end it. Where a
//! load ends there must be no such error: its callers would wait for ever. If an import fails, the
//! import of the module fails, and can be tried again.

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

        /// Looks all of it up.
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
    coroutine = "types", "CoroutineType";
    method = "types", "MethodType";
}

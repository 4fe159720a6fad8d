//! What a class can do, by its slots: known without running Python code.

use pyo3::ffi;
use pyo3::prelude::*;

/// Whether an object is an iterator, an async iterator or awaitable, as far as its class says.
#[inline]
pub(crate) fn has_a_next(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: attached. The object keeps its class alive, and a class keeps its table of slots, if it has one.
    unsafe {
        let class = ffi::Py_TYPE(object.as_ptr());
        let asynchronous = (*class).tp_as_async;
        (*class).tp_iternext.is_some()
            || (!asynchronous.is_null()
                && ((*asynchronous).am_anext.is_some() || (*asynchronous).am_await.is_some()))
    }
}

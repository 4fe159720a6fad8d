//! The interpreter of the process that runs here.

use pyo3::ffi;
use pyo3::prelude::*;

/// Whether it is the first interpreter of the process.
pub(crate) fn is_main(_: Python<'_>) -> bool {
    // SAFETY: attached, so there is a current interpreter. Both functions return pointers, which
    // are only compared.
    unsafe { ffi::PyInterpreterState_Get() == ffi::PyInterpreterState_Main() }
}

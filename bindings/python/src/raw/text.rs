//! What a `str` says of itself.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// Whether it is ASCII, so that its UTF-8 form is its memory.
#[inline]
pub(crate) fn is_ascii(text: &Bound<'_, PyString>) -> bool {
    // SAFETY: attached, and `text` is a live `str`, or of a class that inherits from it.
    unsafe { ffi::PyUnicode_IS_COMPACT_ASCII(text.as_ptr()) != 0 }
}

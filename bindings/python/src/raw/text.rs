//! What a `str` says of itself.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// How many characters it has.
#[inline]
pub(crate) fn length(text: &Bound<'_, PyString>) -> usize {
    // SAFETY: attached, and `text` is a live `str`, or of a class that inherits from it. The length is never negative.
    unsafe { ffi::PyUnicode_GET_LENGTH(text.as_ptr()) }.cast_unsigned()
}

/// Whether it is ASCII, so that its UTF-8 form is its memory.
#[inline]
pub(crate) fn is_ascii(text: &Bound<'_, PyString>) -> bool {
    // SAFETY: attached, and `text` is a live `str`, or of a class that inherits from it.
    unsafe { ffi::PyUnicode_IS_COMPACT_ASCII(text.as_ptr()) != 0 }
}

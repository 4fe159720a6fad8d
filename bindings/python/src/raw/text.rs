//! What a `str` says of itself, and the hash of what is plain.

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

/// Python's hash of an object that is exactly a `str`, `bytes`, number, `bool` or `None`: straight from its
/// type, without the way through the interpreter, and for a `str` from where it was kept. `None`: no memory.
#[inline]
pub(crate) fn hash_of_plain(object: &Bound<'_, PyAny>) -> Option<isize> {
    let pointer = object.as_ptr();
    // SAFETY: attached, and the object is alive. All these types are static ones with a hash of their own that runs
    // no Python code; an object that is exactly a `str` begins with a `PyASCIIObject`.
    unsafe {
        let class = ffi::Py_TYPE(pointer);
        if class == &raw mut ffi::PyUnicode_Type {
            let kept = (*pointer.cast::<ffi::PyASCIIObject>()).hash;
            if kept != -1 {
                return Some(kept);
            }
        }
        let hash = (*class).tp_hash?(pointer);
        if hash == -1 {
            ffi::PyErr_Clear();
            return None;
        }
        Some(hash)
    }
}

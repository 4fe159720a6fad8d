//! Properties of a `str`, and the hash of plain objects.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// The number of characters.
#[inline]
pub(crate) fn length(text: &Bound<'_, PyString>) -> usize {
    // SAFETY: attached, and `text` is a live `str`, or an object of a subclass. The length is never
    // negative.
    unsafe { ffi::PyUnicode_GET_LENGTH(text.as_ptr()) }.cast_unsigned()
}

/// Whether the text is ASCII, so that its UTF-8 form is its memory.
#[inline]
pub(crate) fn is_ascii(text: &Bound<'_, PyString>) -> bool {
    // SAFETY: attached, and `text` is a live `str`, or an object of a subclass.
    unsafe { ffi::PyUnicode_IS_COMPACT_ASCII(text.as_ptr()) != 0 }
}

/// Python's hash of an object that is exactly a `str`, `bytes`, number, `bool` or `None`: directly
/// from its type, without going through the interpreter, and for a `str` from its cached hash.
/// `None`: no memory.
#[inline]
pub(crate) fn hash_of_plain(object: &Bound<'_, PyAny>) -> Option<isize> {
    let pointer = object.as_ptr();
    // SAFETY: attached, and the object is alive. All these types are static types with a hash
    // function of their own that runs no Python code; an object that is exactly a `str` begins with
    // a `PyASCIIObject`.
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

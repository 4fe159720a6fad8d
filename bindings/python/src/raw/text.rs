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

/// The text, if it is ASCII: its memory is its UTF-8 form. Without a call of the interpreter.
#[inline]
pub(crate) fn ascii<'a>(text: &'a Bound<'_, PyString>) -> Option<&'a str> {
    let object = text.as_ptr();
    // SAFETY: attached, and `text` is a live `str`, or an object of a subclass. The characters of a
    // compact ASCII text follow its head, one byte each, and neither move nor change while the
    // object lives.
    unsafe {
        if ffi::PyUnicode_IS_COMPACT_ASCII(object) == 0 {
            return None;
        }
        let characters = object.cast::<ffi::PyASCIIObject>().add(1).cast::<u8>();
        Some(str::from_utf8_unchecked(std::slice::from_raw_parts(characters, length(text))))
    }
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

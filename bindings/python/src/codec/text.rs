//! Strings, in values and keys: a `str` that UTF-8 cannot represent has a form of its own.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use super::{ext, write};
use crate::raw::text;

/// Appends a `str`.
#[inline]
pub(super) fn write_text(value: &Bound<'_, PyString>, out: &mut Vec<u8>) -> PyResult<()> {
    if let Some(text) = text::ascii(value) {
        return write::text(out, text);
    }
    // `to_str` would store its result in the object, for the object's lifetime.
    match value.encode_utf8() {
        Ok(bytes) => write::text_bytes(out, bytes.as_bytes()),
        Err(_) => write_surrogates(value, out),
    }
}

/// Appends a `str` without a UTF-8 form.
pub(super) fn write_surrogates(value: &Bound<'_, PyString>, out: &mut Vec<u8>) -> PyResult<()> {
    let bytes =
        value.py().get_type::<PyString>().call_method1("encode", (value, "utf-8", "surrogatepass"))?;
    write::ext(out, ext::SURROGATES, bytes.cast::<PyBytes>()?.as_bytes())
}

//! The fallback for every value without a form of its own: pickle, protocol 5.
//!
//! Body of the extension type, to its end: the pickle as bin, then every out-of-band buffer as a
//! bool (true: read-only) and bin. Big buffers, for example of arrays, are copied once in each
//! direction.

use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyTuple};

use super::pickler::{self, Pickled};
use super::{ext, types, write};
use crate::raw::calls::Invoke;

pub(super) fn encode(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    let py = value.py();
    let Pickled { pickle, buffers } = pickler::pickle(value)?;
    let sizes = buffers.iter().map(|buffer| 1 + write::binary_size(buffer.len_bytes()));
    let len = write::binary_size(pickle.len()) + sizes.sum::<usize>();
    // Header and space first, so that a big buffer is not moved after it was written.
    write::ext_header(out, ext::PICKLE, len)?;
    out.reserve(len);
    write::binary(out, &pickle)?;
    for buffer in &buffers {
        write::bool(out, buffer.readonly());
        write::binary_length(out, buffer.len_bytes())?;
        let start = out.len();
        out.resize(start + buffer.len_bytes(), 0);
        buffer.copy_to_slice(py, &mut out[start..])?;
    }
    Ok(())
}

/// A buffer in its state at the time of pickling.
pub(super) struct Buffer<'a> {
    pub(super) is_read_only: bool,
    pub(super) bytes: &'a [u8],
}

/// Runs arbitrary code named in the pickle.
pub(super) fn decode<'py>(
    py: Python<'py>,
    pickle: &[u8],
    buffers: &[Buffer<'_>],
) -> PyResult<Bound<'py, PyAny>> {
    let loads = types::pickle_loads(py)?;
    let pickle = PyBytes::new(py, pickle);
    if buffers.is_empty() {
        return loads.invoke1(pickle.as_any());
    }
    let list = PyList::empty(py);
    for buffer in buffers {
        // The new owner of the buffer must be able to write to it, if the old owner was.
        if buffer.is_read_only {
            list.append(PyBytes::new(py, buffer.bytes))?;
        } else {
            list.append(PyByteArray::new(py, buffer.bytes))?;
        }
    }
    let options = PyDict::new(py);
    options.set_item("buffers", list)?;
    loads.invoke(&PyTuple::new(py, [pickle])?, Some(&options))
}

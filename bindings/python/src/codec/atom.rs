//! Values without parts: complex numbers, decimals, UUIDs.

use pyo3::prelude::*;
use pyo3::types::{PyComplex, PyComplexMethods, PyDict, PyInt};

use super::{ext, types, write};
use crate::raw::calls::Invoke;

/// Appends a complex number, decimal or UUID; returns whether the object is one of them.
pub(super) fn write(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<bool> {
    let py = value.py();
    if let Ok(value) = value.cast_exact::<PyComplex>() {
        write_complex(value.real(), value.imag(), out)?;
        Ok(true)
    } else if types::is_exactly(value, types::decimal(py)?) {
        write::ext(out, ext::DECIMAL, value.invoke_str()?.to_str()?.as_bytes())?;
        Ok(true)
    } else {
        write_uuid(value, out)
    }
}

pub(super) fn write_complex(real: f64, imag: f64, out: &mut Vec<u8>) -> PyResult<()> {
    let mut body = [0; 16];
    body[..8].copy_from_slice(&real.to_be_bytes());
    body[8..].copy_from_slice(&imag.to_be_bytes());
    write::ext(out, ext::COMPLEX, &body)
}

pub(super) fn write_uuid(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<bool> {
    if !types::is_exactly(value, types::uuid(value.py())?) {
        return Ok(false);
    }
    let number: u128 = value.getattr("int")?.cast::<PyInt>()?.extract()?;
    write::ext(out, ext::UUID, &number.to_be_bytes())?;
    Ok(true)
}

/// The object encoded in `body`.
pub(super) fn read<'py>(py: Python<'py>, kind: i8, body: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    match kind {
        ext::COMPLEX => {
            let (real, imag) = body.split_at_checked(8).unwrap_or_default();
            let (real, imag) = (f64::from_be_bytes(real.try_into()?), f64::from_be_bytes(imag.try_into()?));
            Ok(PyComplex::from_doubles(py, real, imag).into_any())
        }
        ext::DECIMAL => types::decimal(py)?.invoke_with((String::from_utf8(body.to_vec())?,)),
        _ => {
            let options = PyDict::new(py);
            options.set_item("int", u128::from_be_bytes(body.try_into()?))?;
            types::uuid(py)?.invoke(&pyo3::types::PyTuple::empty(py), Some(&options))
        }
    }
}

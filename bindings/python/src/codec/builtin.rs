//! Objects of built-in types, and of classes that inherit from a built-in type, by value.

use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyComplex, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString,
    PyTuple, PyType,
};

use super::plan::Plan;
use super::text::write_text;
use super::{atom, ext, number, write};

/// Appends an object of exactly a built-in type without parts; false for others.
#[inline]
pub(super) fn write_plain(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<bool> {
    let is_plain = value.is_exact_instance_of::<PyString>()
        || value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_exact_instance_of::<PyBytes>();
    if is_plain {
        return write_plain_base(value, out);
    }
    if value.is_none() {
        write::nil(out);
    } else if let Ok(value) = value.cast_exact::<PyBool>() {
        write::unsigned(out, u64::from(value.is_true()));
    } else if value.is_exact_instance_of::<PyByteArray>() || value.is_exact_instance_of::<PyComplex>() {
        return write_plain_base(value, out);
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// The parts of an object of exactly a built-in container type. Collected, because examining them
/// may run code that changes the container.
#[inline]
pub(super) fn look_at_container<'py>(value: &Bound<'py, PyAny>) -> Option<Plan<'py>> {
    let is_container = value.is_exact_instance_of::<PyDict>()
        || value.is_exact_instance_of::<PyList>()
        || value.is_exact_instance_of::<PyTuple>()
        || value.is_exact_instance_of::<PySet>()
        || value.is_exact_instance_of::<PyFrozenSet>();
    if is_container { container_base(value) } else { None }
}

/// The type with a form of its own that a class is, or from which it inherits.
pub(super) fn base_of<'py>(class: &Bound<'py, PyType>) -> Option<Bound<'py, PyType>> {
    macro_rules! first {
        ($($base:ty),*) => {
            $(if class.is_subclass_of::<$base>().unwrap_or(false) {
                return Some(class.py().get_type::<$base>());
            })*
        };
    }
    first!(
        PyString,
        PyInt,
        PyFloat,
        PyList,
        PyTuple,
        PyDict,
        PyBytes,
        PyByteArray,
        PySet,
        PyFrozenSet,
        PyComplex
    );
    None
}

/// The content of the built-in base of an object; nil if there is no base.
pub(super) fn base_plan<'py>(value: &Bound<'py, PyAny>) -> PyResult<Plan<'py>> {
    if let Some(plan) = container_base(value) {
        return Ok(plan);
    }
    let mut bytes = Vec::new();
    if !write_plain_base(value, &mut bytes)? {
        return Ok(Plan::nil());
    }
    Ok(Plan::Bytes(bytes))
}

fn container_base<'py>(value: &Bound<'py, PyAny>) -> Option<Plan<'py>> {
    Some(if let Ok(dict) = value.cast::<PyDict>() {
        Plan::Pairs(dict.iter().collect())
    } else if let Ok(list) = value.cast::<PyList>() {
        Plan::Items(list.iter().collect())
    } else if let Ok(tuple) = value.cast::<PyTuple>() {
        Plan::Items(tuple.iter().collect())
    } else if let Ok(set) = value.cast::<PySet>() {
        Plan::Set(set.iter().collect())
    } else if let Ok(set) = value.cast::<PyFrozenSet>() {
        Plan::Set(set.iter().collect())
    } else {
        return None;
    })
}

/// Appends the content of a built-in type without parts, or of a subclass; false for others.
fn write_plain_base(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<bool> {
    if let Ok(value) = value.cast::<PyString>() {
        write_text(value, out)?;
    } else if value.is_instance_of::<PyInt>() {
        number::write_int(value, out, usize::MAX)?;
    } else if let Ok(value) = value.cast::<PyFloat>() {
        if !number::write_float_key(value.py(), value.value(), out)? {
            write::float(out, f64::NAN);
        }
    } else if let Ok(bytes) = value.cast::<PyBytes>() {
        write::binary(out, bytes.as_bytes())?;
    } else if let Ok(bytes) = value.cast::<PyByteArray>() {
        write::ext(out, ext::BYTEARRAY, &bytes.to_vec())?;
    } else if let Ok(complex) = value.cast::<PyComplex>() {
        write_complex(complex, out)?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

fn write_complex(value: &Bound<'_, PyComplex>, out: &mut Vec<u8>) -> PyResult<()> {
    use pyo3::types::PyComplexMethods;
    if number::write_complex_key(value, out)? {
        return Ok(());
    }
    let part = |part: f64| if part.is_nan() { f64::NAN } else { part + 0.0 };
    atom::write_complex(part(value.real()), part(value.imag()), out)
}

//! One object, by value, as a plan of its encoding: the bytes known so far, and the parts to be
//! examined first.
//!
//! [`look`] is the only place that decides how an object is encoded. It looks at a single object
//! and at none of its parts, so that `flat` and `graph` can go through the parts in their own ways:
//! `flat` directly, `graph` for deep or big objects and objects that lead back to themselves.
//!
//! Rules:
//! 1. Numbers, strings and all other possible keys are encoded as in keys, but a class that
//!    inherits from one of their types is distinct from its base. Lists are encoded as tuples,
//!    frozensets as sets; dicts and sets are in the order of bytes.
//! 2. Any other object is encoded as its class's name with its whole content: see `object`.
//! 3. An object that shows no content (a lambda, an `object()`) is itself: see `found`.

use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyComplex, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString,
    PyTuple, PyType,
};

use super::found::{Found, Place};
use super::key::write_text;
use super::object::look_at_object;
use super::{atom, ext, number, write};

/// The parts of an encoding.
pub(super) enum Plan<'py> {
    /// An encoded part.
    Bytes(Vec<u8>),
    /// A part to be examined.
    Value(Bound<'py, PyAny>),
    /// An array.
    Array(Vec<Plan<'py>>),
    Items(Vec<Bound<'py, PyAny>>),
    /// Kind 3, in the order of bytes.
    Set(Vec<Bound<'py, PyAny>>),
    /// A map in the order of bytes.
    Pairs(Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>),
    /// Kind 20.
    Object(Box<ObjectPlan<'py>>),
}

/// The name of the class, content and state of an object.
pub(super) struct ObjectPlan<'py> {
    pub(super) class: Place,
    pub(super) content: Plan<'py>,
    pub(super) state: Plan<'py>,
}

impl Plan<'_> {
    pub(super) fn nil() -> Self {
        Self::Bytes(vec![0xc0])
    }
}

/// Appends an object without parts, or returns the plan of an object with parts.
#[inline]
pub(super) fn look<'py>(
    value: &Bound<'py, PyAny>,
    out: &mut Vec<u8>,
    found: &mut Found,
) -> PyResult<Option<Plan<'py>>> {
    if write_plain(value, out)? {
        return Ok(None);
    }
    look_at_parts(value, out, found)
}

/// [`look`], for objects that [`write_plain`] does not write.
#[inline]
pub(super) fn look_at_parts<'py>(
    value: &Bound<'py, PyAny>,
    out: &mut Vec<u8>,
    found: &mut Found,
) -> PyResult<Option<Plan<'py>>> {
    if let Some(plan) = look_at_container(value) {
        return Ok(Some(plan));
    }
    look_at_object(value, out, found)
}

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
fn look_at_container<'py>(value: &Bound<'py, PyAny>) -> Option<Plan<'py>> {
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

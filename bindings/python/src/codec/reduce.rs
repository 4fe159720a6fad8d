//! Content of objects that Python code cannot see as attributes: whether there is any, and the part
//! that `pickle` would keep.
//!
//! A class written in C keeps its content in memory of its own, to which neither `vars` nor
//! `__slots__` lead: a `Decimal` its digits, a connection its socket, a `deque` its items. The same
//! is true of a Python class that inherits from one. [`hides`] determines which classes may do so;
//! their hidden content is requested by `__reduce_ex__`. Python classes that define `__reduce_ex__`
//! themselves are asked too (see `facts`).

use pyo3::exceptions::PyRecursionError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyByteArray, PyBytes, PyComplex, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString, PyTuple,
    PyType,
};

use super::types;
use crate::errors;
use crate::raw::calls::Invoke;

/// `Py_TPFLAGS_HEAPTYPE`: a class without the flag was certainly written in C.
const HEAP: u64 = 1 << 9;
/// `Py_TPFLAGS_MANAGED_DICT` and `Py_TPFLAGS_MANAGED_WEAKREF`: kept outside of the instance.
const MANAGED_DICT: u64 = 1 << 4;
const MANAGED_WEAKREF: u64 = 1 << 3;

/// Whether instances of a class may hold content besides attributes and the content of `base`.
///
/// In doubt the answer is true. It is false only if no class among the ancestors is written in C,
/// except `object` and the built-in types, and an instance has no more memory than its attributes
/// and `base` need.
pub(super) fn hides<'py>(class: &Bound<'py, PyType>, base: Option<&Bound<'py, PyType>>) -> PyResult<bool> {
    let py = class.py();
    let object = py.get_type::<PyAny>();
    if own_bytes(class)? > own_bytes(base.unwrap_or(&object))? {
        return Ok(true);
    }
    if is_plain(class)? {
        return Ok(false);
    }
    for ancestor in class.mro().iter() {
        let flags: u64 = ancestor.getattr(intern!(py, "__flags__"))?.extract()?;
        if flags & HEAP == 0 && !is_known(&ancestor) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether instances may have their own dict.
pub(super) fn has_dict(class: &Bound<'_, PyType>) -> PyResult<bool> {
    let py = class.py();
    let flags: u64 = class.getattr(intern!(py, "__flags__"))?.extract()?;
    Ok(flags & MANAGED_DICT != 0 || class.getattr(intern!(py, "__dictoffset__"))?.is_truthy()?)
}

/// Bytes of an instance that are not for attributes.
fn own_bytes(class: &Bound<'_, PyType>) -> PyResult<usize> {
    let py = class.py();
    let flags: u64 = class.getattr(intern!(py, "__flags__"))?.extract()?;
    let has = |offset: &Bound<'_, PyString>, managed: u64| -> PyResult<usize> {
        Ok(usize::from(flags & managed == 0 && class.getattr(offset)?.is_truthy()?))
    };
    let mut words = has(intern!(py, "__dictoffset__"), MANAGED_DICT)?;
    words += has(intern!(py, "__weakrefoffset__"), MANAGED_WEAKREF)?;
    words += types::slot_names(py)?.invoke1(class)?.len()?;
    let bytes: usize = class.getattr(intern!(py, "__basicsize__"))?.extract()?;
    Ok(bytes.saturating_sub(words * size_of::<usize>()))
}

fn is_known(class: &Bound<'_, PyAny>) -> bool {
    let py = class.py();
    [
        py.get_type::<PyAny>(),
        py.get_type::<PyString>(),
        py.get_type::<PyInt>(),
        py.get_type::<PyFloat>(),
        py.get_type::<PyList>(),
        py.get_type::<PyTuple>(),
        py.get_type::<PyDict>(),
        py.get_type::<PyBytes>(),
        py.get_type::<PyByteArray>(),
        py.get_type::<PySet>(),
        py.get_type::<PyFrozenSet>(),
        py.get_type::<PyComplex>(),
    ]
    .iter()
    .any(|known| known.is(class))
}

/// Whether a class leaves the description of its instances to `object`.
fn is_plain(class: &Bound<'_, PyType>) -> PyResult<bool> {
    let py = class.py();
    let object = py.get_type::<PyAny>();
    for name in [intern!(py, "__reduce_ex__"), intern!(py, "__reduce__")] {
        if !class.getattr(name)?.is(&object.getattr(name)?) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// An object's own description of its content.
pub(super) enum Reduced<'py> {
    /// Two to six parts, as `__reduce__` returns them.
    Parts(Bound<'py, PyTuple>),
    /// The object is found under this name in its module.
    Global(Bound<'py, PyString>),
    /// No description.
    Refused,
}

/// Asks an object that [`hides`] content, or whose class describes its instances, in the same way
/// as `pickle` and `copy`.
pub(super) fn reduce<'py>(value: &Bound<'py, PyAny>) -> PyResult<Reduced<'py>> {
    let py = value.py();
    let class = value.get_type();
    let registered = types::dispatch_table(py)?.cast::<PyDict>()?.get_item(&class)?;
    let said = match registered {
        Some(reduce) => reduce.invoke1(value),
        // For lists and dicts the description by `object` ignores the additions of their class.
        None if is_plain(&class)?
            && (value.is_instance_of::<PyList>() || value.is_instance_of::<PyDict>()) =>
        {
            return Ok(Reduced::Refused);
        }
        // Of the class: the object may have an attribute with the same name.
        None => class
            .getattr(intern!(py, "__reduce_ex__"))
            .and_then(|reduce| reduce.invoke2(value, 4_i32.into_pyobject(py)?.as_any())),
    };
    match said {
        Ok(said) => Ok(match said.cast_into::<PyTuple>() {
            Ok(parts) if (2..=6).contains(&parts.len()) && parts.get_item(1)?.is_instance_of::<PyTuple>() => {
                Reduced::Parts(parts)
            }
            Ok(_) => Reduced::Refused,
            Err(error) => error.into_inner().cast_into().map_or(Reduced::Refused, Reduced::Global),
        }),
        // Any exception of a class means that it has no description.
        Err(error) => not_there(py, error).map(|()| Reduced::Refused),
    }
}

/// Whether a class is registered with `copyreg`.
pub(super) fn is_registered(class: &Bound<'_, PyType>) -> PyResult<bool> {
    types::dispatch_table(class.py())?.cast::<PyDict>()?.contains(class)
}

/// An exception during the inspection of an object means that the requested part is missing, unless
/// the exception is an interrupt or a lack of memory.
pub(super) fn not_there(py: Python<'_>, error: PyErr) -> PyResult<()> {
    if errors::is_from_outside(py, &error) && !error.is_instance_of::<PyRecursionError>(py) {
        return Err(error);
    }
    Ok(())
}

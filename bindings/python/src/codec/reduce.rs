//! What an object holds that Python code cannot see as attributes: whether there is anything, and what `pickle`
//! would keep of it.
//!
//! A class that is written in C keeps its content in memory of its own, where neither `vars` nor `__slots__`
//! lead: a `Decimal` its digits, a connection its socket, a `deque` its items. So does a Python class that
//! inherits from one. [`hides`] says which classes may do so; what they hide is asked of `__reduce_ex__`. Python classes that
//! define that themselves are asked, too (see `facts`).

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

/// `Py_TPFLAGS_HEAPTYPE`: without it a class was certainly written in C.
const HEAP: u64 = 1 << 9;
/// `Py_TPFLAGS_MANAGED_DICT` and `Py_TPFLAGS_MANAGED_WEAKREF`: kept outside of the instance.
const MANAGED_DICT: u64 = 1 << 4;
const MANAGED_WEAKREF: u64 = 1 << 3;

/// Whether instances of a class may hold something besides attributes and what `base` holds.
///
/// Errs on the side of true. It is false only if no class among the ancestors is from C, but for `object` and
/// the built-in types, and an instance has no more memory than its attributes and `base` need.
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

/// Whether instances may have a dict of their own.
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

/// Whether a class leaves it to `object` to say what its instances are made of.
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

/// What an object says that it is made of.
pub(super) enum Reduced<'py> {
    /// Two to six parts, as `__reduce__` returns them.
    Parts(Bound<'py, PyTuple>),
    /// It is what is found under this name in its module.
    Global(Bound<'py, PyString>),
    /// It does not say.
    Refused,
}

/// Asks an object that [`hides`] something, or whose class says what it is made of, as `pickle` and `copy` do.
pub(super) fn reduce<'py>(value: &Bound<'py, PyAny>) -> PyResult<Reduced<'py>> {
    let py = value.py();
    let class = value.get_type();
    let registered = types::dispatch_table(py)?.cast::<PyDict>()?.get_item(&class)?;
    let said = match registered {
        Some(reduce) => reduce.invoke1(value),
        // What `object` makes of lists and dicts does not look at what their class adds.
        None if is_plain(&class)?
            && (value.is_instance_of::<PyList>() || value.is_instance_of::<PyDict>()) =>
        {
            return Ok(Reduced::Refused);
        }
        // Of the class: an attribute of the object's own may have the name, too.
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
        // A class says with any exception that it cannot.
        Err(error) => not_there(py, error).map(|()| Reduced::Refused),
    }
}

/// Whether a class is registered with `copyreg`.
pub(super) fn is_registered(class: &Bound<'_, PyType>) -> PyResult<bool> {
    types::dispatch_table(class.py())?.cast::<PyDict>()?.contains(class)
}

/// An exception while an object is looked at says that what was looked for is not there, unless it is an interrupt or the
/// want of memory.
pub(super) fn not_there(py: Python<'_>, error: PyErr) -> PyResult<()> {
    if errors::is_from_outside(py, &error) && !error.is_instance_of::<PyRecursionError>(py) {
        return Err(error);
    }
    Ok(())
}

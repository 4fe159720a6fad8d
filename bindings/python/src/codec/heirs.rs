//! Keys of one class that equal keys of another: objects that inherit the equality of a class with
//! an encoding, and numpy's scalars. Each is converted to an object of the class to which it is
//! equal.
//!
//! Otherwise `delete(numpy.int64(5))` would remove 5 from memory, but leave it in the file.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyBytes, PyComplex, PyDate, PyDateAccess, PyDateTime, PyDelta, PyDeltaAccess, PyDict, PyFloat,
    PyInt, PyString, PyTime, PyTimeAccess, PyType, PyTzInfoAccess,
};

use super::types;
use crate::raw::calls::Invoke;

/// Whether the class of an object inherits equality and hash from `base`.
pub(super) fn equals_as<'py>(object: &Bound<'py, PyAny>, base: &Bound<'py, PyType>) -> PyResult<bool> {
    let py = object.py();
    let class = object.get_type();
    for name in [intern!(py, "__eq__"), intern!(py, "__hash__")] {
        if !class.getattr(name)?.is(&base.getattr(name)?) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// For an object that inherits from a class of the standard library: the equal object of that
/// class.
pub(super) fn as_base<'py>(key: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = key.py();
    let base = if let Ok(time) = key.cast::<PyDateTime>() {
        if !equals_as(key, &py.get_type::<PyDateTime>())? {
            return Ok(None);
        }
        PyDateTime::new_with_fold(
            py,
            time.get_year(),
            time.get_month(),
            time.get_day(),
            time.get_hour(),
            time.get_minute(),
            time.get_second(),
            time.get_microsecond(),
            time.get_tzinfo().as_ref(),
            time.get_fold(),
        )?
        .into_any()
    } else if let Ok(date) = key.cast::<PyDate>() {
        if !equals_as(key, &py.get_type::<PyDate>())? {
            return Ok(None);
        }
        PyDate::new(py, date.get_year(), date.get_month(), date.get_day())?.into_any()
    } else if let Ok(time) = key.cast::<PyTime>() {
        if !equals_as(key, &py.get_type::<PyTime>())? {
            return Ok(None);
        }
        let (hour, minute, second) = (time.get_hour(), time.get_minute(), time.get_second());
        PyTime::new(py, hour, minute, second, time.get_microsecond(), time.get_tzinfo().as_ref())?.into_any()
    } else if let Ok(delta) = key.cast::<PyDelta>() {
        if !equals_as(key, &py.get_type::<PyDelta>())? {
            return Ok(None);
        }
        PyDelta::new(py, delta.get_days(), delta.get_seconds(), delta.get_microseconds(), false)?.into_any()
    } else {
        return as_library(key);
    };
    Ok(Some(base))
}

fn as_library<'py>(key: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = key.py();
    for class in [types::decimal(py)?, types::fraction(py)?] {
        if key.is_instance(class)? {
            return if equals_as(key, class)? { class.invoke1(key).map(Some) } else { Ok(None) };
        }
    }
    if key.is_instance(types::uuid(py)?)? {
        if !equals_as(key, types::uuid(py)?)? {
            return Ok(None);
        }
        let options = PyDict::new(py);
        options.set_item("int", key.getattr(intern!(py, "int"))?)?;
        return types::uuid(py)?.invoke(&pyo3::types::PyTuple::empty(py), Some(&options)).map(Some);
    }
    if key.is_instance(types::pure_path(py)?)? && equals_as(key, types::pure_path(py)?)? {
        let class = if key.is_instance(types::pure_posix_path(py)?)? {
            types::pure_posix_path(py)?
        } else if cfg!(windows) || key.is_instance(types::pure_windows_path(py)?)? {
            types::pure_windows_path(py)?
        } else {
            // A direct subclass of `Path`, permitted since Python 3.12: has the flavour of this
            // system.
            types::pure_posix_path(py)?
        };
        return class.invoke1(key.invoke_str()?.as_any()).map(Some);
    }
    Ok(None)
}

/// The plain object equal to a numpy scalar.
pub(super) fn as_item<'py>(key: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = key.py();
    let Ok(numpy) = types::modules(py)?.get_item("numpy") else { return Ok(None) };
    let Ok(generic) = numpy.getattr(intern!(py, "generic")) else { return Ok(None) };
    if !key.is_instance(&generic)? {
        return Ok(None);
    }
    // Points in time equal others of a different unit or class, and also numbers.
    let kind = key.getattr(intern!(py, "dtype"))?.getattr(intern!(py, "kind"))?;
    if !"biufcSU".contains(kind.cast::<PyString>()?.to_str()?) {
        return Ok(None);
    }
    let item = key.invoke_method0(intern!(py, "item"))?;
    let is_plain = item.is_exact_instance_of::<PyInt>()
        || item.is_exact_instance_of::<PyFloat>()
        || item.is_exact_instance_of::<PyString>()
        || item.is_exact_instance_of::<PyBool>()
        || item.is_exact_instance_of::<PyBytes>()
        || item.is_exact_instance_of::<PyComplex>();
    Ok((is_plain && key.invoke_eq(&item)? && key.invoke_hash()? == item.invoke_hash()?).then_some(item))
}

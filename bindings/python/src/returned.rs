//! The result of a batch loader: one value for each of its keys.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyFrozenSet, PySet, PyString};

use crate::item::{LoadFlight, distinct};
use crate::library;
use crate::raw::Sent;
use crate::raw::calls::{Invoke, send};

/// The values in a batch loader's result, one for each key.
pub(crate) fn values<'py>(
    items: &[LoadFlight],
    result: &Bound<'py, PyAny>,
) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let py = result.py();
    if is_mapping(result)? {
        let get = |item: &LoadFlight| result.invoke_method1(pyo3::intern!(py, "get"), item.key.bind(py));
        return items.iter().map(get).collect();
    }
    let is_no_sequence = result.is_instance_of::<PyString>()
        || result.is_instance_of::<PyBytes>()
        || result.is_instance_of::<PySet>()
        || result.is_instance_of::<PyFrozenSet>();
    let Some(len) = result.invoke_len().ok().filter(|_| !is_no_sequence) else {
        return Err(PyTypeError::new_err(format!(
            "a batch loader returns a mapping from keys to values, or a sequence as long as its keys, not {}",
            result.get_type().qualname()?
        )));
    };
    let first = distinct(py, items);
    let asked = first.iter().enumerate().filter(|(index, at)| index == *at).count();
    if len != asked {
        return Err(PyValueError::new_err(format!(
            "a batch loader was asked for {asked} keys and returned {len} values; return one value for each \
             key, in their order, or a mapping, which may lack keys"
        )));
    }
    let given = result.invoke_iter()?;
    let none = py.None().into_bound(py);
    let mut values: Vec<Bound<'py, PyAny>> = Vec::with_capacity(first.len());
    for (index, at) in first.into_iter().enumerate() {
        let value = if at == index {
            match send(&given, &none)? {
                Sent::Yield(value) => value,
                Sent::Return(_) => return Err(PyValueError::new_err("the values ran out")),
            }
        } else {
            values[at].clone()
        };
        values.push(value);
    }
    Ok(values)
}

/// Like `isinstance(object, collections.abc.Mapping)`, whose import or check may be interrupted.
fn is_mapping(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = object.py();
    Ok(object.is_instance_of::<PyDict>() || object.is_instance(library::mapping(py)?)?)
}

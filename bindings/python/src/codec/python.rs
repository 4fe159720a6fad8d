//! The codec as functions of the module: for its tests, and for keys by value that are made in
//! Python. Not part of the package's interface.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};

use super::{CodecOptions, References};

/// Adds the functions to the native module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(encode_value, module)?)?;
    module.add_function(wrap_pyfunction!(decode_value, module)?)?;
    module.add_function(wrap_pyfunction!(encode_key, module)?)?;
    module.add_function(wrap_pyfunction!(decode_key, module)?)?;
    module.add_function(wrap_pyfunction!(encode_by_value, module)?)?;
    module.add_function(wrap_pyfunction!(class_of_one_call, module)?)?;
    module.add_function(wrap_pyfunction!(why_not_saved, module)?)?;
    module.add_function(wrap_pyfunction!(count_twins, module)?)?;
    module.add_function(wrap_pyfunction!(forget_classes, module)?)
}

/// Discards the known facts about classes, after a function was registered for one.
#[pyfunction]
#[pyo3(name = "_forget_classes")]
fn forget_classes(py: Python<'_>) {
    super::facts::forget(py);
}

#[pyfunction]
#[pyo3(name = "_encode_value", signature = (value, pickle = true))]
fn encode_value<'py>(value: &Bound<'py, PyAny>, pickle: bool) -> PyResult<Bound<'py, PyBytes>> {
    let mut out = Vec::new();
    super::encode_value(value, &mut out, CodecOptions { pickle })?;
    Ok(PyBytes::new(value.py(), &out))
}

#[pyfunction]
#[pyo3(name = "_decode_value", signature = (bytes, pickle = true))]
fn decode_value<'py>(bytes: &Bound<'py, PyBytes>, pickle: bool) -> PyResult<Bound<'py, PyAny>> {
    super::decode_value(bytes.py(), bytes.as_bytes(), CodecOptions { pickle })
}

#[pyfunction]
#[pyo3(name = "_encode_key")]
fn encode_key<'py>(key: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let mut out = Vec::new();
    Ok(super::encode_key(key, &mut out)?.then(|| PyBytes::new(key.py(), &out)))
}

#[pyfunction]
#[pyo3(name = "_decode_key")]
fn decode_key<'py>(bytes: &Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyAny>> {
    super::decode_key(bytes.py(), bytes.as_bytes())
}

/// The reason why keys that name these objects are not saved.
#[pyfunction]
#[pyo3(name = "_why_not_saved")]
fn why_not_saved(named: Vec<Bound<'_, PyAny>>) -> String {
    super::why_not_saved(&named)
}

/// The number of objects that represent others, equal by their class.
#[pyfunction]
#[pyo3(name = "_count_twins")]
fn count_twins(py: Python<'_>) -> usize {
    super::twins::count(py)
}

type ByValue<'py> = (Bound<'py, PyBytes>, Vec<Py<PyAny>>, bool);

/// `by_content`: ignores the equality defined by classes.
#[pyfunction]
#[pyo3(name = "_encode_by_value", signature = (argument, by_content = false))]
fn encode_by_value<'py>(argument: &Bound<'py, PyAny>, by_content: bool) -> PyResult<ByValue<'py>> {
    let mut out = Vec::new();
    let mut references = if by_content { References::by_content() } else { super::new_references() };
    super::encode_by_value(argument, &mut out, &mut references)?;
    let is_stable = references.is_stable();
    Ok((PyBytes::new(argument.py(), &out), references.into_types(), is_stable))
}

/// The class of the first object in an argument that exists in one call only; `None` if there is
/// none.
#[pyfunction]
#[pyo3(name = "_class_of_one_call")]
fn class_of_one_call(argument: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyType>>> {
    let mut references = super::new_references();
    super::encode_by_value(argument, &mut Vec::new(), &mut references)?;
    Ok(references.of_one_call())
}

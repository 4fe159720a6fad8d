//! Keys of calls with more than one plain argument.
//!
//! Calls are compared by value. If all arguments are plain, the arguments are compared directly.
//! Otherwise their canonical encodings are compared, which files contain too, and the types named
//! in the encodings.

use pyo3::prelude::*;
use pyo3::types::{PyInt, PyString, PyType};
use pyo3::{PyTraverseError, PyVisit};

use crate::codec;
use crate::plain::quick;
use crate::raw::calls::Invoke;
use crate::raw::equal;
use crate::raw::visit::{self, visits};

/// The key of a call with more than one plain argument.
#[pyclass(frozen, module = "cache._native")]
pub(crate) struct CallKey {
    /// The number of the function among those that share the cache.
    pub(crate) number: u32,
    pub(crate) typed: bool,
    pub(crate) form: Form,
}

pub(crate) enum Form {
    /// The positional arguments, then the arguments given by name, by ascending name.
    Plain { values: Box<[Py<PyAny>]>, names: Box<[Py<PyString>]> },
    /// The canonical encoding of the arguments, and the types named in it. `is_stable`: another
    /// process will find the same types under these names. `of_one_call`: the class of an argument
    /// that occurs in a single call only.
    ByValue { bytes: Box<[u8]>, types: Box<[Py<PyAny>]>, is_stable: bool, of_one_call: Option<Py<PyType>> },
}

// Plain objects hold no references.
visits!(enum Form { ByValue { types, of_one_call } });

#[pymethods]
impl CallKey {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit::traverse(&self.form, visit)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let Form::Plain { values, names } = &self.form else { return Ok("(arguments by value)".to_owned()) };
        let positional = values.len() - names.len();
        let mut parts = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let value = value.bind(py).invoke_repr()?;
            parts.push(match index.checked_sub(positional) {
                None => value.to_string(),
                Some(at) => format!("{}={value}", names[at].bind(py)),
            });
        }
        Ok(format!("({})", parts.join(", ")))
    }
}

impl CallKey {
    /// Whether the key was made of arguments that may have changed since.
    pub(crate) fn may_change(&self) -> bool {
        matches!(self.form, Form::ByValue { .. })
    }

    /// The class of an argument that belongs to one call only; storing the call's result is
    /// useless.
    pub(crate) fn of_one_call(&self) -> Option<&Py<PyType>> {
        match &self.form {
            Form::Plain { .. } => None,
            Form::ByValue { of_one_call, .. } => of_one_call.as_ref(),
        }
    }

    /// Whether an argument is the number of an object. If this is not visible: whether it could be.
    pub(crate) fn may_have(&self, py: Python<'_>, number: u64) -> bool {
        match &self.form {
            Form::Plain { values, .. } => values.iter().any(|value| is_number(value.bind(py), number)),
            Form::ByValue { .. } => true,
        }
    }

    pub(crate) fn same(&self, py: Python<'_>, other: &Self) -> bool {
        if self.number != other.number {
            return false;
        }
        match (&self.form, &other.form) {
            (Form::Plain { values: a, names: a_names }, Form::Plain { values: b, names: b_names }) => {
                a.len() == b.len()
                    && a_names.len() == b_names.len()
                    && a_names.iter().zip(b_names).all(|(a, b)| same_name(a.bind(py), b.bind(py)))
                    && a.iter().zip(b).all(|(a, b)| same_value(a.bind(py), b.bind(py), self.typed))
            }
            (
                Form::ByValue { bytes: a, types: a_types, .. },
                Form::ByValue { bytes: b, types: b_types, .. },
            ) => {
                a == b && a_types.len() == b_types.len() && a_types.iter().zip(b_types).all(|(a, b)| a.is(b))
            }
            _ => false,
        }
    }

    pub(crate) fn encode(&self, py: Python<'_>) -> PyResult<Option<Vec<u8>>> {
        match &self.form {
            // Since the key was made, a class may have been replaced by another class of the same
            // name.
            Form::ByValue { bytes, types, is_stable, .. } => {
                let is_stable = *is_stable && types.iter().all(|class| codec::is_found(class.bind(py)));
                Ok(is_stable.then(|| bytes.to_vec()))
            }
            Form::Plain { values, names } => {
                let values: Vec<_> = values.iter().map(|value| value.bind(py).clone()).collect();
                let names: Vec<_> = names.iter().map(|name| name.bind(py).clone()).collect();
                let mut found = codec::new_references();
                let bytes = encode_call(&values, &names, self.typed, &mut found)?;
                Ok(found.is_stable().then_some(bytes))
            }
        }
    }
}

fn same_name(a: &Bound<'_, PyString>, b: &Bound<'_, PyString>) -> bool {
    a.is(b) || equal(a.as_any(), b.as_any())
}

pub(crate) fn same_value(a: &Bound<'_, PyAny>, b: &Bound<'_, PyAny>, typed: bool) -> bool {
    (!typed || a.get_type().is(b.get_type())) && quick(a, b, 0) == Some(true)
}

pub(crate) fn is_number(value: &Bound<'_, PyAny>, number: u64) -> bool {
    value.is_exact_instance_of::<PyInt>() && value.extract::<u64>().is_ok_and(|value| value == number)
}

/// A call in the form for files: a single positional argument is encoded directly, all other calls
/// are distinguished by an extension type.
pub(crate) fn encode_call(
    values: &[Bound<'_, PyAny>],
    names: &[Bound<'_, PyString>],
    typed: bool,
    found: &mut codec::References,
) -> PyResult<Vec<u8>> {
    let mut bytes = Vec::with_capacity(64);
    if let ([value], []) = (values, names)
        && !typed
    {
        codec::encode_by_value(value, &mut bytes, found)?;
        return Ok(bytes);
    }
    let mut body = Vec::with_capacity(64);
    let positional = values.len() - names.len();
    write_count(&mut body, positional)?;
    for (index, value) in values.iter().enumerate() {
        if let Some(at) = index.checked_sub(positional) {
            codec::encode_by_value(names[at].as_any(), &mut body, found)?;
        }
        if typed {
            codec::encode_by_value(value.get_type().as_any(), &mut body, found)?;
        }
        codec::encode_by_value(value, &mut body, found)?;
    }
    let kind = if typed { codec::TYPED_CALL } else { codec::CALL };
    let len = u32::try_from(body.len())
        .map_err(|_| pyo3::exceptions::PyValueError::new_err("the arguments take more than 4 GiB"))?;
    rmp::encode::write_ext_meta(&mut bytes, len, kind).map_err(codec::out_of_memory)?;
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

fn write_count(out: &mut Vec<u8>, count: usize) -> PyResult<()> {
    rmp::encode::write_uint(out, count as u64).map(drop).map_err(codec::out_of_memory)
}

//! How a class defines the equality of its objects, by its own `__eq__` and `__hash__`.
//!
//! `cache._equality` determines the definition once for each class. `compare` applies it.

use pyo3::prelude::*;
use pyo3::types::{PyString, PyType};

use super::reduce::not_there;
use super::types;
use crate::raw::calls::Invoke;

/// A class's definition of the equality of its objects.
pub(super) struct Equality {
    /// The compared attributes, if nothing else is compared. None: unknown, ask the class.
    pub(super) fields: Option<Vec<Py<PyString>>>,
    /// The attributes known to the comparing class. None: it is the object's own class.
    pub(super) known: Option<Vec<Py<PyString>>>,
}

impl Equality {
    pub(super) fn of_class(class: &Bound<'_, PyType>) -> PyResult<Option<Self>> {
        let py = class.py();
        let said = match types::equality_of(py)?.invoke1(class) {
            Ok(said) => said,
            Err(error) => return not_there(py, error).map(|()| None),
        };
        if said.is_none() {
            return Ok(None);
        }
        let (fields, known) = said.extract()?;
        Ok(Some(Self { fields, known }))
    }
}

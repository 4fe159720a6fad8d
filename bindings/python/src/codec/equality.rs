//! Objects whose class defines their equality, by its own `__eq__` and `__hash__`.
//!
//! `cache._equality` determines the definition once for each class. Rules:
//! 1. If `__eq__` is proven to compare certain attributes and nothing else, these attributes are
//!    the value: they are written like other attributes, and no code of the class runs.
//! 2. Otherwise the class is asked: see `twins`.
//! 3. An object of a subclass of the comparing class is examined further: an attribute unknown to
//!    the comparing class may be state that it does not compare. In that case, if an attribute is
//!    missing, or if asking raises, the object's whole content is its value.

use pyo3::prelude::*;
use pyo3::types::{PyString, PyType};

use super::facts::Facts;
use super::object::{Attributes, all_attributes};
use super::reduce::{is_registered, not_there};
use super::twins::{self, Twin};
use super::types;
use crate::raw::attribute;
use crate::raw::calls::Invoke;

/// A class's definition of the equality of its objects.
pub(super) struct Equality {
    /// Rule 1. None: rule 2.
    fields: Option<Vec<Py<PyString>>>,
    /// Rule 3: the names known to the comparing class. None: it is the object's own class.
    known: Option<Vec<Py<PyString>>>,
}

/// The basis of an object's comparison.
pub(super) enum Compared<'py> {
    Attributes(Attributes<'py>),
    Twin(Bound<'py, Twin>),
    /// The whole content of the object.
    Unknown,
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

    pub(super) fn look<'py>(&self, value: &Bound<'py, PyAny>, facts: &Facts) -> PyResult<Compared<'py>> {
        let py = value.py();
        if is_registered(&value.get_type())? || !self.knows_all(value, facts) {
            return Ok(Compared::Unknown);
        }
        let Some(fields) = &self.fields else {
            return match twins::find(value, facts) {
                Ok(twin) => Ok(twin.map_or(Compared::Unknown, Compared::Twin)),
                Err(error) => not_there(py, error).map(|()| Compared::Unknown),
            };
        };
        let attributes = fields.iter().map(|name| {
            let name = name.bind(py);
            // In the object's dict, in a slot, or plain data in the class.
            attribute::slot(value, name).map(|content| (name.clone().into_any(), content))
        });
        Ok(attributes.collect::<Option<_>>().map_or(Compared::Unknown, Compared::Attributes))
    }

    /// Rule 3.
    fn knows_all(&self, value: &Bound<'_, PyAny>, facts: &Facts) -> bool {
        let Some(known) = &self.known else { return true };
        let py = value.py();
        all_attributes(value, facts, py).iter().all(|(name, _)| {
            name.cast_exact::<PyString>().is_ok_and(|name| {
                known.iter().any(|known| known.is(name) || crate::raw::equal(known.bind(py).as_any(), name))
            })
        })
    }
}

//! Objects whose class defines their equality, by its own `__eq__` and `__hash__`: the basis of
//! their comparison.
//!
//! Rules:
//! 1. If `__eq__` is proven to compare certain attributes and nothing else, these attributes are
//!    the value: they are written like other attributes, and no code of the class runs.
//! 2. Otherwise the class is asked: see `twins`.
//! 3. An object of a subclass of the comparing class is examined further: an attribute unknown to
//!    the comparing class may be state that it does not compare. In that case, if an attribute is
//!    missing, or if asking raises, the object's whole content is its value.

use pyo3::prelude::*;
use pyo3::types::PyString;

use super::attributes::{Attributes, all_attributes};
use super::equality::Equality;
use super::facts::Facts;
use super::reduce::{is_registered, not_there};
use super::references::EncodeParts;
use super::twins::{self, Twin};
use crate::raw::attribute;

/// The basis of an object's comparison.
pub(super) enum Compared<'py> {
    Attributes(Attributes<'py>),
    Twin(Bound<'py, Twin>),
    /// The whole content of the object.
    Unknown,
}

/// Determines the basis of an object's comparison. `encode` is needed by rule 2.
pub(super) fn compare<'py>(
    value: &Bound<'py, PyAny>,
    facts: &Facts,
    equality: &Equality,
    encode: EncodeParts,
) -> PyResult<Compared<'py>> {
    let py = value.py();
    // Rule 3.
    if is_registered(&value.get_type())? || !knows_all(equality, value, facts) {
        return Ok(Compared::Unknown);
    }
    let Some(fields) = &equality.fields else {
        // Rule 2.
        return match twins::find(value, facts, encode) {
            Ok(twin) => Ok(twin.map_or(Compared::Unknown, Compared::Twin)),
            Err(error) => not_there(py, error).map(|()| Compared::Unknown),
        };
    };
    // Rule 1.
    let attributes = fields.iter().map(|name| {
        let name = name.bind(py);
        // In the object's dict, in a slot, or plain data in the class.
        attribute::slot(value, name).map(|content| (name.clone().into_any(), content))
    });
    Ok(attributes.collect::<Option<_>>().map_or(Compared::Unknown, Compared::Attributes))
}

/// Rule 3.
fn knows_all(equality: &Equality, value: &Bound<'_, PyAny>, facts: &Facts) -> bool {
    let Some(known) = &equality.known else { return true };
    let py = value.py();
    all_attributes(value, facts, py).iter().all(|(name, _)| {
        name.cast_exact::<PyString>().is_ok_and(|name| {
            known.iter().any(|known| known.is(name) || crate::raw::equal(known.bind(py).as_any(), name))
        })
    })
}

//! The attributes of an object, read without running its `__getattr__`.

use pyo3::prelude::*;

use super::facts::{Facts, InstanceKind};
use crate::raw::attribute;

/// Names and contents.
pub(super) type Attributes<'py> = Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>;

/// The contents of the object's dict and slots, except attributes that its class leaves out.
pub(super) fn compared<'py>(value: &Bound<'py, PyAny>, facts: &Facts) -> Attributes<'py> {
    let py = value.py();
    // For a method the attributes are those of its function.
    if matches!(facts.kind, InstanceKind::Method) {
        return Vec::new();
    }
    let mut attributes = all_attributes(value, facts, py);
    attributes.retain(|(name, _)| !facts.leaves_out(name));
    attributes
}

/// The contents of the object's dict and slots.
pub(super) fn all_attributes<'py>(
    value: &Bound<'py, PyAny>,
    facts: &Facts,
    py: Python<'py>,
) -> Attributes<'py> {
    let own = if facts.has_dict { attribute::own_dict(value) } else { None };
    let mut attributes: Attributes<'_> = own.map_or_else(Vec::new, |own| own.iter().collect());
    for slot in &facts.slots {
        let slot = slot.bind(py);
        if let Some(content) = attribute::slot(value, slot) {
            // The name leads to the slot.
            attributes.retain(|(name, _)| !name.is(slot));
            attributes.push((slot.clone().into_any(), content));
        }
    }
    attributes
}

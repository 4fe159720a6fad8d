//! The examination of one object, by value.
//!
//! [`look`] is the only place that decides how an object is encoded. It looks at a single object
//! and at none of its parts, so that `flat` and `graph` can go through the parts in their own ways:
//! `flat` directly, `graph` for deep or big objects and objects that lead back to themselves.
//!
//! Rules:
//! 1. Numbers, strings and all other possible keys are encoded as in keys, but a class that
//!    inherits from one of their types is distinct from its base. Lists are encoded as tuples,
//!    frozensets as sets; dicts and sets are in the order of bytes.
//! 2. Any other object is encoded as its class's name with its whole content: see `object`.
//! 3. An object that shows no content (a lambda, an `object()`) is itself: see `references`.

use pyo3::prelude::*;

use super::builtin::{look_at_container, write_plain};
use super::object::look_at_object;
use super::plan::Plan;
use super::references::References;

/// Appends an object without parts, or returns the plan of an object with parts.
#[inline]
pub(super) fn look<'py>(
    value: &Bound<'py, PyAny>,
    out: &mut Vec<u8>,
    references: &mut References,
) -> PyResult<Option<Plan<'py>>> {
    if write_plain(value, out)? {
        return Ok(None);
    }
    look_at_parts(value, out, references)
}

/// [`look`], for objects that [`write_plain`] does not write.
#[inline]
pub(super) fn look_at_parts<'py>(
    value: &Bound<'py, PyAny>,
    out: &mut Vec<u8>,
    references: &mut References,
) -> PyResult<Option<Plan<'py>>> {
    if let Some(plan) = look_at_container(value) {
        return Ok(Some(plan));
    }
    look_at_object(value, out, references)
}

//! The plan of an object's encoding, by value: the bytes known so far, and the parts to be examined
//! first.
//!
//! A plan is made by `look`, for one object at a time, and filled in by `flat` or `graph`.

use pyo3::prelude::*;

use super::references::Reference;

/// The parts of an encoding.
pub(super) enum Plan<'py> {
    /// An encoded part.
    Bytes(Vec<u8>),
    /// A part to be examined.
    Value(Bound<'py, PyAny>),
    /// An array.
    Array(Vec<Plan<'py>>),
    Items(Vec<Bound<'py, PyAny>>),
    /// Kind 3, in the order of bytes.
    Set(Vec<Bound<'py, PyAny>>),
    /// A map in the order of bytes.
    Pairs(Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>),
    /// Kind 20.
    Object(Box<ObjectPlan<'py>>),
}

/// The name of the class, content and state of an object.
pub(super) struct ObjectPlan<'py> {
    pub(super) class: Reference,
    pub(super) content: Plan<'py>,
    pub(super) state: Plan<'py>,
}

impl Plan<'_> {
    pub(super) fn nil() -> Self {
        Self::Bytes(vec![0xc0])
    }
}

//! Whether two results of one call are the same, which decides between progress and a loop.
//!
//! Rules:
//! 1. An object is the same as itself, so a hit costs a comparison of pointers.
//! 2. Different objects are compared by value, like arguments: by their canonical encoding and the
//!    types named in it. The encoding may run Python code (`__repr__`, attributes), so it is made
//!    with nothing borrowed, and only if the same call was made shortly before.
//! 3. An object without an encoding is the same as itself only: any other result counts as
//!    progress.
//! 4. Two failures are the same if their exceptions have the same class. A cancellation is not an
//!    outcome.

use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use crate::codec;
use crate::raw::Ref;
use crate::raw::visit::visits;

/// The outcome of a call.
pub(super) enum CallOutcome {
    Value(Ref),
    /// The class of the exception.
    Failed(Ref),
}

visits!(
    enum CallOutcome {
        Value(value),
        Failed(class),
    }
);

impl CallOutcome {
    fn object(&self) -> &Ref {
        match self {
            Self::Value(object) | Self::Failed(object) => object,
        }
    }

    /// Whether both are the same object.
    #[inline]
    pub(super) fn is(&self, py: Python<'_>, other: &Self) -> bool {
        matches!(self, Self::Value(_)) == matches!(other, Self::Value(_))
            && self.object().is(other.object().bind(py))
    }

    /// Whether the outcome is the given value object.
    #[inline]
    pub(super) fn is_value(&self, value: &Bound<'_, PyAny>) -> bool {
        matches!(self, Self::Value(known) if known.is(value))
    }

    pub(super) fn clone_ref(&self, py: Python<'_>) -> Self {
        let object = Ref::new(self.object().bind(py).clone());
        match self {
            Self::Value(_) => Self::Value(object),
            Self::Failed(_) => Self::Failed(object),
        }
    }

    /// The outcomes among `others` that differ from this outcome. Runs Python code.
    pub(super) fn unlike(&self, py: Python<'_>, others: Vec<Self>) -> PyResult<Vec<Self>> {
        let mut others: Vec<_> = others.into_iter().filter(|other| !self.is(py, other)).collect();
        let Self::Value(value) = self else { return Ok(others) };
        if others.iter().all(|other| matches!(other, Self::Failed(_))) {
            return Ok(others);
        }
        let Some(shown) = Shown::of(value.bind(py))? else { return Ok(others) };
        let mut kept = Vec::with_capacity(others.len());
        for other in others.drain(..) {
            let is_same = match &other {
                Self::Value(other) => Shown::of(other.bind(py))?.is_some_and(|other| other.is(&shown)),
                Self::Failed(_) => false,
            };
            if !is_same {
                kept.push(other);
            }
        }
        Ok(kept)
    }
}

/// A value in the form for comparisons.
struct Shown {
    bytes: Vec<u8>,
    types: Vec<Py<PyAny>>,
}

impl Shown {
    /// `None` if the value cannot be compared.
    fn of(value: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        let (mut bytes, mut found) = (Vec::new(), codec::new_references());
        match codec::encode_by_value(value, &mut bytes, &mut found) {
            Ok(()) => Ok(Some(Self { bytes, types: found.into_types() })),
            Err(error) if error.is_instance_of::<PyException>(value.py()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn is(&self, other: &Self) -> bool {
        self.bytes == other.bytes
            && self.types.len() == other.types.len()
            && self.types.iter().zip(&other.types).all(|(a, b)| a.is(b))
    }
}

//! Arguments of decorated functions, by value: two calls share a result if their arguments have the
//! same bytes and, in memory, name the same types.
//!
//! Rules:
//! 1. `look` decides how an object is encoded. Nearly all arguments are written directly by `flat`;
//!    deep, big and circular arguments are taken apart by `graph`.
//! 2. A shared object equals a copy: `[a, a]` is `[a, copy(a)]`.
//! 3. The walk may run Python code (`__reduce_ex__`, `__getstate__`, `__repr__`, registered
//!    functions), but not `__getattr__`.
//! 4. An encoding longer than [`digest::LONG_ARGUMENT`] is replaced by its length and digest.

use pyo3::prelude::*;

use super::digest;
use super::flat::{NotFlat, write_flat};
use super::graph::write_graph;
use super::references::References;

/// No references so far, for the arguments of a call. Classes with their own equality are asked.
#[inline]
pub(crate) fn new_references() -> References {
    References::by_equality(encode_by_value)
}

/// Appends an argument.
pub(crate) fn encode_by_value(
    argument: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    references: &mut References,
) -> PyResult<()> {
    let start = out.len();
    let written = match write_flat(argument, out, references) {
        Ok(()) => Ok(()),
        Err(NotFlat::Raised(error)) => Err(error),
        Err(NotFlat::TooMuch) => {
            out.truncate(start);
            // Rule 1.
            write_graph(argument, out, references)
        }
    };
    if let Err(error) = written {
        out.truncate(start);
        return Err(error);
    }
    // Rule 4.
    if out.len() - start > digest::LONG_ARGUMENT { digest::replace(out, start) } else { Ok(()) }
}

//! Arguments of decorated functions, by value: two calls share a result if their arguments have the
//! same bytes and, in memory, name the same types.
//!
//! Rules:
//! 1. `plan` decides how an object is encoded. Nearly all arguments are written directly by `flat`;
//!    deep, big and circular arguments are taken apart by `graph`.
//! 2. A shared object equals a copy: `[a, a]` is `[a, copy(a)]`.
//! 3. The walk may run Python code (`__reduce_ex__`, `__getstate__`, `__repr__`, registered
//!    functions), but not `__getattr__`.
//! 4. An encoding longer than [`digest::LONG_ARGUMENT`] is replaced by its length and digest.

use pyo3::prelude::*;

use super::digest;
use super::flat::{Stop, write_flat};
use super::found::Found;
use super::graph::write_graph;

/// Appends an argument.
pub(crate) fn encode_by_value(
    argument: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    found: &mut Found,
) -> PyResult<()> {
    let start = out.len();
    let written = match write_flat(argument, out, found) {
        Ok(()) => Ok(()),
        Err(Stop::Raised(error)) => Err(error),
        Err(Stop::TooMuch) => {
            out.truncate(start);
            // Rule 1.
            write_graph(argument, out, found)
        }
    };
    if let Err(error) = written {
        out.truncate(start);
        return Err(error);
    }
    // Rule 4.
    if out.len() - start > digest::LONG_ARGUMENT { digest::replace(out, start) } else { Ok(()) }
}

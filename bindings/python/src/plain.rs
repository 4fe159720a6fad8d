//! Plain objects: hashed and compared without running Python code.
//!
//! A *plain* object is exactly a `str`, `int`, `float` except NaN, `bool`, `bytes` or `None`. A
//! comparison of two plain objects runs no Python code and cannot fail, so it is permitted while
//! the store is borrowed. Names of arguments are plain too: see
//! [`exact_names`](crate::args::exact_names).

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyString, PyTuple};

use crate::raw::calls::Invoke;
use crate::raw::{equal, text};

/// A longer text or `bytes` as an argument is represented by its digest: the cache would keep the
/// whole object alive.
const MAX_PLAIN_LENGTH: usize = 1 << 16;

/// How deep tuples are compared here before Python is asked.
pub(crate) const DEPTH: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Plain {
    Str,
    Number,
    Bytes,
    None,
}

/// Whether an object is compared without running Python code.
#[inline]
pub(crate) fn is_plain(object: &Bound<'_, PyAny>) -> bool {
    plain(object).is_some()
}

/// Whether an argument is compared directly: plain, and not so long that its digest replaces
/// it.
#[inline(always)]
#[allow(clippy::inline_always)] // a call of its own is a fiftieth of a hit
pub(crate) fn is_plain_argument(object: &Bound<'_, PyAny>) -> bool {
    match plain(object) {
        None => false,
        Some(Plain::Str) => {
            object.cast::<PyString>().is_ok_and(|text| text::length(text) <= MAX_PLAIN_LENGTH)
        }
        Some(Plain::Bytes) => {
            object.cast::<PyBytes>().is_ok_and(|bytes| bytes.as_bytes().len() <= MAX_PLAIN_LENGTH)
        }
        Some(Plain::Number | Plain::None) => true,
    }
}

#[inline(always)]
#[allow(clippy::inline_always)] // as above
fn plain(object: &Bound<'_, PyAny>) -> Option<Plain> {
    if object.is_exact_instance_of::<PyString>() {
        Some(Plain::Str)
    } else if object.is_exact_instance_of::<PyInt>() || object.is_exact_instance_of::<PyBool>() {
        Some(Plain::Number)
    } else if let Ok(float) = object.cast_exact::<PyFloat>() {
        // NaN equals nothing, but as an argument it is a value like others.
        (!float.value().is_nan()).then_some(Plain::Number)
    } else if object.is_exact_instance_of::<PyBytes>() {
        Some(Plain::Bytes)
    } else if object.is_none() {
        Some(Plain::None)
    } else {
        None
    }
}

/// Whether two objects are equal, if this can be decided without running Python code. Objects of
/// different kinds are not compared, because `str == bytes` may warn, and a warning is Python code.
pub(crate) fn quick(a: &Bound<'_, PyAny>, b: &Bound<'_, PyAny>, depth: usize) -> Option<bool> {
    if a.is(b) {
        return Some(true);
    }
    if let (Some(a_kind), Some(b_kind)) = (plain(a), plain(b)) {
        Some(a_kind == b_kind && equal(a, b))
    } else {
        let (a, b) = (a.cast_exact::<PyTuple>().ok()?, b.cast_exact::<PyTuple>().ok()?);
        if a.len() != b.len() {
            return Some(false);
        }
        if depth == 0 {
            return None;
        }
        for (a, b) in a.iter_borrowed().zip(b.iter_borrowed()) {
            if !quick(&a, &b, depth - 1)? {
                return Some(false);
            }
        }
        Some(true)
    }
}

/// Python's hash of an object.
#[inline]
pub(crate) fn hash_of(object: &Bound<'_, PyAny>) -> PyResult<u64> {
    Ok(object.invoke_hash()?.cast_unsigned() as u64)
}

/// Python's hash of an argument that is compared directly; `None` for other arguments, or
/// without memory.
#[inline(always)]
#[allow(clippy::inline_always)] // as above
pub(crate) fn plain_hash(argument: &Bound<'_, PyAny>) -> Option<u64> {
    if is_plain_argument(argument) { hash_of_plain(argument) } else { None }
}

/// [`hash_of`] a plain object; `None` if there is no memory.
#[inline(always)]
#[allow(clippy::inline_always)] // as above
pub(crate) fn hash_of_plain(object: &Bound<'_, PyAny>) -> Option<u64> {
    Some(text::hash_of_plain(object)?.cast_unsigned() as u64)
}

/// The hash for the store, from Python's, which is not well mixed (an `int` is its own hash).
#[inline]
pub(crate) fn mix(seed: u64, hash: u64) -> u64 {
    let product = u128::from(hash ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    #[allow(clippy::cast_possible_truncation)] // the two halves are folded
    let folded = (product as u64) ^ ((product >> 64) as u64);
    folded.wrapping_mul(0xD6E8_FEB8_6659_FD93) ^ (folded >> 32)
}

//! Detects objects that occur twice inside one value, without looking at most objects twice.
//!
//! Rules:
//! 1. A list, dict, set or bytearray that occurs twice is *shared*: only pickle restores one object
//!    for it. A cycle is a special case.
//! 2. Immutable objects need not keep their identity, but they can multiply: `t = (t, t)` a hundred
//!    times over is small in memory and endless when written out. So a tuple or frozenset that
//!    occurs twice is shared, unless it is short and contains nothing that could multiply; long
//!    strings count too.
//! 3. An object whose only references are from the container through which we reached it, and from
//!    our own walk, cannot occur twice. Nearly every container is of this kind, and the test costs
//!    one comparison. An object with more references is remembered by its address; the object stays
//!    alive, and the address unique, as long as the value.

use std::collections::HashSet;

use pyo3::prelude::*;
use pyo3::types::{PyFrozenSet, PyTuple};

/// References of an object reached through an iterator that returns owned references: the
/// container's, and ours.
pub(super) const OWNED: isize = 2;
/// References of an object reached through a borrow: the container's.
pub(super) const BORROWED: isize = 1;

/// Strings and bytes from this length on are treated as objects of which only one should be kept.
pub(super) const LONG: usize = 4096;

/// Immutable containers up to this length may be written out again.
const SHORT: usize = 16;

/// Addresses that a linear search still finds faster than a hash.
const FEW: usize = 8;

/// The objects of a value with several references that have occurred so far.
pub(super) struct SeenObjects {
    root: usize,
    few: [usize; FEW],
    count: usize,
    many: HashSet<usize>,
}

/// Whether an object has only the references that are accounted for.
#[inline]
#[allow(deprecated)] // the replacement is `unsafe`
pub(super) fn is_held_by(object: &Bound<'_, PyAny>, known: isize) -> bool {
    object.get_refcnt() <= known
}

fn address(object: &Bound<'_, PyAny>) -> usize {
    object.as_ptr().addr()
}

impl SeenObjects {
    /// `root` is the outermost object. Code outside may hold references to it too, but inside the
    /// value it occurs only in a cycle.
    pub(super) fn new(root: &Bound<'_, PyAny>) -> Self {
        Self { root: address(root), few: [0; FEW], count: 0, many: HashSet::new() }
    }

    /// Whether the object, which is not the root, has occurred before. `known`: how many references
    /// are accounted for.
    #[inline]
    pub(super) fn again(&mut self, object: &Bound<'_, PyAny>, known: isize) -> bool {
        !is_held_by(object, known) && self.note(address(object))
    }

    #[cold]
    fn note(&mut self, address: usize) -> bool {
        if address == self.root || self.few[..self.count].contains(&address) {
            return true;
        }
        if let Some(free) = self.few.get_mut(self.count) {
            *free = address;
            self.count += 1;
            return false;
        }
        !self.many.insert(address)
    }
}

/// Whether an immutable container may be written twice (rule 2).
pub(super) fn may_repeat(object: &Bound<'_, PyAny>) -> bool {
    if let Ok(tuple) = object.cast_exact::<PyTuple>() {
        tuple.len() <= SHORT && tuple.iter_borrowed().all(|item| is_small_atom(&item))
    } else if let Ok(set) = object.cast_exact::<PyFrozenSet>() {
        set.len() <= SHORT && set.iter().all(|item| is_small_atom(&item))
    } else {
        false
    }
}

fn is_small_atom(object: &Bound<'_, PyAny>) -> bool {
    use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyString};
    object.is_none()
        || object.is_exact_instance_of::<PyInt>()
        || object.is_exact_instance_of::<PyFloat>()
        || object.is_exact_instance_of::<PyBool>()
        || object.cast_exact::<PyString>().is_ok_and(|text| text.len().is_ok_and(|len| len < LONG))
        || object.cast_exact::<PyBytes>().is_ok_and(|bytes| bytes.as_bytes().len() < LONG)
}

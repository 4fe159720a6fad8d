//! Objects that are asked for their equality: each is represented by its *twin*, in memory only.
//!
//! A twin represents all objects of exactly one class that are equal by the class. The encoding
//! contains the twin like an object represented by its identity, as an address, and the key keeps
//! the twin alive.
//!
//! Rules:
//! 1. The table holds twins weakly: when no key uses a twin any more, the twin is dropped, and its
//!    row with it. A row contains the address of the class, which lives as long as any of its
//!    objects, and the hash returned by the class when the twin was made.
//! 2. A twin holds a *snapshot*, not the object: an object of the same class with the same
//!    attributes, made without code of the class. So an object changed after the call is compared
//!    with its former state.
//! 3. A snapshot is shallow: it shares the objects in the attributes. All of them except plain
//!    values are encoded by content when the twin is made, and again before the twin is used. If
//!    the encoding has changed, the twin is *retired*: it leaves the table, so it is not found any
//!    more, and its keys are misses.
//! 4. An object belongs to a twin if the class returns the same hash, the snapshot equals the
//!    object, and the object equals the snapshot: with an `__eq__` that examines one side only, an
//!    object could otherwise speak for others. An object is compared even with its own snapshot: if
//!    it does not equal the snapshot, it is compared by identity, or equals nothing, and has no
//!    twin.
//! 5. No code of a class runs while the table is borrowed. The code may have added twins, or let
//!    other threads do so: twins not compared yet are compared before another twin is added.
//! 6. The parts are encoded as arguments are. The encoding of an argument looks for twins in turn,
//!    so it is passed as a function ([`EncodeParts`]); an encoding by content looks for none.

use std::collections::HashMap;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyWeakrefMethods, PyWeakrefReference};

use super::attributes::all_attributes;
use super::facts::Facts;
use super::references::{EncodeParts, References};
use super::types;
use crate::plain::is_plain;
use crate::raw::calls::Invoke;
use crate::raw::visit::{self, Visit, VisitStopped, Visitor, visits};
use crate::raw::{GilCell, attribute};

/// Stands for equal objects.
#[pyclass(frozen, weakref, module = "cache._native", name = "_Twin")]
pub(crate) struct Twin {
    /// Rule 2.
    snapshot: Py<PyAny>,
    shared: SharedParts,
}

visits!(struct Twin { snapshot, shared });

impl Visit for SharedParts {
    fn visit(&self, visitor: Visitor<'_>) -> Result<(), VisitStopped> {
        let (_, types) = &self.encoded;
        self.parts.visit(visitor)?;
        types.visit(visitor)
    }
}

#[pymethods]
impl Twin {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit::traverse(self, visit)
    }
}

/// The objects that a snapshot shares with its object (rule 3).
struct SharedParts {
    parts: Box<[Py<PyAny>]>,
    encoded: EncodedParts,
}

/// An encoding, and the objects named in it.
type EncodedParts = (Vec<u8>, Vec<Py<PyAny>>);

/// The address of a class, and a hash.
type TwinRow = (usize, isize);

/// Rule 1.
static TWINS: GilCell<Option<HashMap<TwinRow, Vec<Py<PyWeakrefReference>>>>> = GilCell::new(None);

/// The twin of an object; made if there is none. None: the object has no twin, by rule 4.
pub(super) fn find<'py>(
    value: &Bound<'py, PyAny>,
    facts: &Facts,
    encode: EncodeParts,
) -> PyResult<Option<Bound<'py, Twin>>> {
    let py = value.py();
    let row = (value.get_type_ptr().addr(), value.invoke_hash()?);
    let mut seen: Vec<Bound<'py, Twin>> = Vec::new();
    let mut made: Option<(Bound<'py, Twin>, Bound<'py, PyWeakrefReference>)> = None;
    loop {
        // Rule 5.
        let unseen: Vec<_> =
            in_row(py, row).into_iter().filter(|twin| !seen.iter().any(|seen| seen.is(twin))).collect();
        if unseen.is_empty() {
            if let Some((twin, reference)) = made {
                // No code has run since the row was examined.
                let mut twins = TWINS.borrow(py);
                twins.get_or_insert_default().entry(row).or_default().push(reference.unbind());
                return Ok(Some(twin));
            }
            let Some(twin) = Twin::of(value, facts, encode)? else { return Ok(None) };
            let twin = Bound::new(py, twin)?;
            let departure = Bound::new(py, TwinDeparture { row })?;
            let reference = PyWeakrefReference::new_with(&twin, departure)?;
            made = Some((twin, reference));
            continue;
        }
        for twin in unseen {
            if !twin.get().is_as_it_was(py, encode)? {
                retire(&twin, row); // Rule 3
            } else if are_equal(twin.get().snapshot.bind(py), value)? {
                return Ok(Some(twin)); // Rule 4
            }
            seen.push(twin);
        }
    }
}

/// The live twins of a row.
fn in_row(py: Python<'_>, row: TwinRow) -> Vec<Bound<'_, Twin>> {
    let twins = TWINS.borrow(py);
    let Some(references) = twins.as_ref().and_then(|twins| twins.get(&row)) else { return Vec::new() };
    let alive = references.iter().filter_map(|reference| reference.bind(py).upgrade());
    alive.filter_map(|twin| twin.cast_into::<Twin>().ok()).collect()
}

fn retire(twin: &Bound<'_, Twin>, row: TwinRow) {
    let is_its =
        |reference: &Bound<'_, PyWeakrefReference>| reference.upgrade().is_some_and(|alive| alive.is(twin));
    remove(twin.py(), row, is_its);
}

fn remove(py: Python<'_>, row: TwinRow, is_it: impl Fn(&Bound<'_, PyWeakrefReference>) -> bool) {
    let mut twins = TWINS.borrow(py);
    let Some(table) = twins.as_mut() else { return };
    let Some(references) = table.get_mut(&row) else { return };
    let at = references.iter().position(|reference| is_it(reference.bind(py)));
    let removed = at.map(|at| references.swap_remove(at));
    if references.is_empty() {
        table.remove(&row);
    }
    // Rule 5: the callback is dropped with the reference.
    drop(twins);
    drop(removed);
}

/// The callback of a weak reference to a twin.
#[pyclass(frozen, module = "cache._native")]
struct TwinDeparture {
    row: TwinRow,
}

#[pymethods]
impl TwinDeparture {
    fn __call__(&self, reference: &Bound<'_, PyAny>) {
        remove(reference.py(), self.row, |kept| kept.is(reference));
    }
}

impl Twin {
    /// None: the object does not equal its own snapshot, or a snapshot cannot be made.
    fn of(value: &Bound<'_, PyAny>, facts: &Facts, encode: EncodeParts) -> PyResult<Option<Self>> {
        let py = value.py();
        let attributes = all_attributes(value, facts, py);
        let snapshot = types::new_blank(py)?.call1((value.get_type(),))?;
        let own = if facts.has_dict { attribute::own_dict(&snapshot) } else { None };
        for (name, content) in &attributes {
            if facts.slots.iter().any(|slot| slot.is(name)) {
                types::set_attribute(py)?.call1((&snapshot, name, content))?;
            } else if let Some(own) = &own {
                own.set_item(name, content)?;
            } else {
                return Ok(None);
            }
        }
        // Rule 4.
        if !are_equal(&snapshot, value)? {
            return Ok(None);
        }
        let shared = attributes.into_iter().map(|(_, content)| content).filter(|content| !is_plain(content));
        let parts: Box<[_]> = shared.map(Bound::unbind).collect();
        let encoded = encode_parts(py, &parts, encode)?;
        Ok(Some(Self { snapshot: snapshot.unbind(), shared: SharedParts { parts, encoded } }))
    }

    /// Rule 3.
    fn is_as_it_was(&self, py: Python<'_>, encode: EncodeParts) -> PyResult<bool> {
        let SharedParts { parts, encoded: (bytes, named) } = &self.shared;
        if parts.is_empty() {
            return Ok(true);
        }
        let (bytes_now, named_now) = encode_parts(py, parts, encode)?;
        let are_same = |(one, other): (&Py<PyAny>, &Py<PyAny>)| one.is(other);
        Ok(bytes_now == *bytes && named_now.len() == named.len() && named_now.iter().zip(named).all(are_same))
    }
}

/// Rule 4.
fn are_equal(snapshot: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(snapshot.invoke_eq(value)? && value.invoke_eq(snapshot)?)
}

/// Rules 3 and 6.
fn encode_parts(py: Python<'_>, parts: &[Py<PyAny>], encode: EncodeParts) -> PyResult<EncodedParts> {
    let mut bytes = Vec::new();
    if parts.is_empty() {
        return Ok((bytes, Vec::new()));
    }
    let mut references = References::by_content();
    encode(PyTuple::new(py, parts)?.as_any(), &mut bytes, &mut references)?;
    Ok((bytes, references.into_types()))
}

/// The reason why an encoding that names these objects has no form that another process would find.
pub(crate) fn why_not_saved(named: &[Bound<'_, PyAny>]) -> String {
    let twin = named.iter().find_map(|named| named.cast_exact::<Twin>().ok());
    let Some(twin) = twin else {
        return "an argument is of a class, or is one, that no other process would find by its name"
            .to_owned();
    };
    let class = twin.get().snapshot.bind(twin.py()).get_type();
    let name = class.qualname().map_or_else(|_| "class".to_owned(), |name| name.to_string());
    format!(
        "an argument is a {name}, whose own __eq__ says which objects are equal, and that has no form in a file. It is \
         saved if cache.key.register({name}, function) says what stands for such an object: all of it that results \
         depend on, such as the tenant beside the number"
    )
}

/// The number of twins.
pub(super) fn count(py: Python<'_>) -> usize {
    TWINS.borrow(py).as_ref().map_or(0, |twins| twins.values().map(Vec::len).sum())
}

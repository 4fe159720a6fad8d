//! The objects that the methods of `per_instance=True` are called on: known by identity, held weakly.
//!
//! In the key of a call stands a number instead of the object. States of an object: unknown; known (it has a row: a weak
//! reference and its number); dead (the weak reference has been cleared). Rules:
//!
//! 1. A number is given to one object, and never again in the process. A row is found by the address of the object, and
//!    counts only if its weak reference still refers to this very object: another object at a reused address gets a
//!    number of its own.
//! 2. When an object dies, its row and its entries go, and loads of it that run store nothing. What is missed here is
//!    never served, by rule 1.
//! 3. No Python code runs while the rows are borrowed. The callback of a weak reference runs at any moment that is not
//!    within a borrow, also in the collector; it never fails.
//! 4. The hashes that a row has are those of its entries and loads, and of at most as many that are gone (but
//!    [`FEW`]): looked through when they have doubled.
//! 5. Entries whose values held the last reference to another such object are removed one object after the other,
//!    not inside of each other: a long chain of them does not take the stack.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use async_cache_core::number::NumberMap;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple, PyWeakrefMethods, PyWeakrefReference};

use crate::args::Args;
use crate::cache::Cache;
use crate::key::OfInstance;
use crate::raw::visit::{Stop, Visit, Visitor, visits};
use crate::raw::{GilCell, Ref, equal};

/// So many hashes are not looked through.
const FEW: usize = 64;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// Rule 5: what is to be removed, and whether it is being removed.
static LEAVING: GilCell<(Vec<Left>, bool)> = GilCell::new((Vec::new(), false));

/// The objects that one decorated function is called on.
pub(crate) struct Instances {
    /// The name of the parameter; empty if it is given by position only.
    name: Ref<PyString>,
    rows: Arc<GilCell<Rows>>,
}

struct Rows {
    cache: Ref<Cache>,
    by_address: NumberMap<usize, Row>,
}

struct Row {
    object: Ref<PyWeakrefReference>,
    number: u64,
    /// The number as an argument.
    token: Ref,
    /// Rule 4.
    hashes: HashSet<u64>,
    /// How many hashes there are when they are looked through.
    most: usize,
}

/// What a dead object leaves behind.
struct Left {
    cache: Ref<Cache>,
    number: u64,
    hashes: HashSet<u64>,
}

/// Whether an object for which there is no number yet gets one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// It does: runs Python code, for the weak reference is an object that the collector may run for.
    Add,
    /// It does not.
    Leave,
}

impl Visit for Instances {
    fn visit(&self, visitor: Visitor<'_>) -> Result<(), Stop> {
        self.name.visit(visitor)?;
        self.rows.visit(visitor)
    }
}

visits!(struct Rows { cache });

impl Instances {
    pub(crate) fn new(cache: &Bound<'_, Cache>, name: Bound<'_, PyString>) -> Self {
        let rows = Rows { cache: Ref::new(cache.clone()), by_address: NumberMap::default() };
        Self { name: Ref::new(name), rows: Arc::new(GilCell::new(rows)) }
    }

    /// Which of the arguments is the object.
    pub(crate) fn position(
        &self,
        py: Python<'_>,
        args: &Args,
        names: Option<&Bound<'_, PyTuple>>,
    ) -> PyResult<usize> {
        let positional = args.as_slice().len() - names.map_or(0, PyTupleMethods::len);
        if positional > 0 {
            return Ok(0);
        }
        let own = self.name.bind(py);
        let is_own = |name: &Bound<'_, PyAny>| own.is(name) || equal(own.as_any(), name);
        let at = names.and_then(|names| names.iter_borrowed().position(|name| is_own(&name)));
        at.ok_or_else(|| {
            let name = own.to_string_lossy();
            let name = if name.is_empty() { "object".into() } else { name };
            PyTypeError::new_err(format!(
                "the call lacks the argument '{name}', whose results are kept for each object (per_instance)"
            ))
        })
    }

    /// The number of an object as an argument; `None` if it has none and gets none.
    pub(crate) fn token(
        &self,
        object: &Bound<'_, PyAny>,
        unknown: Unknown,
        name: impl FnOnce() -> String,
    ) -> PyResult<Option<Ref>> {
        let known = self.known(object, |row| Ref::new(row.token.bind(object.py()).clone()));
        if known.is_some() || unknown == Unknown::Leave {
            return Ok(known);
        }
        self.add(object).map(Some).map_err(|error| refused(object, error, name))
    }

    /// `TypeError` if an object cannot have a number.
    pub(crate) fn check(object: &Bound<'_, PyAny>, name: impl FnOnce() -> String) -> PyResult<()> {
        PyWeakrefReference::new(object).map(drop).map_err(|error| refused(object, error, name))
    }

    /// Looks at the row of an object, if it has one. Runs no Python code.
    #[inline]
    fn known<R>(&self, object: &Bound<'_, PyAny>, look: impl FnOnce(&mut Row) -> R) -> Option<R> {
        let py = object.py();
        let mut rows = self.rows.borrow(py);
        let row = rows.by_address.get_mut(&(object.as_ptr() as usize))?;
        // Rule 1. The reference that comes back is not the last one: the caller has another.
        row.object.bind(py).upgrade().is_some_and(|known| known.is(object)).then(|| look(row))
    }

    fn add(&self, object: &Bound<'_, PyAny>) -> PyResult<Ref> {
        let py = object.py();
        let address = object.as_ptr() as usize;
        let departure = Bound::new(py, Departure { address, rows: Arc::downgrade(&self.rows) })?;
        let reference = Ref::new(PyWeakrefReference::new_with(object, departure)?);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let token = number.into_pyobject(py)?.into_any();
        // Making these may have run code that called the method, on this thread or another.
        if let Some(known) = self.known(object, |row| Ref::new(row.token.bind(py).clone())) {
            return Ok(known);
        }
        let own = Ref::new(token.clone());
        let row = Row { object: reference, number, token: own, hashes: HashSet::new(), most: FEW };
        let mut rows = self.rows.borrow(py);
        let before = rows.by_address.insert(address, row);
        let left = before.map(|row| row.into_left(&rows, py));
        drop(rows);
        if let Some((left, reference)) = left {
            drop(reference);
            remove(py, left); // Rule 2
        }
        Ok(Ref::new(token))
    }

    /// Notes that there is going to be an entry or a load of an object's.
    pub(crate) fn note(&self, object: &Bound<'_, PyAny>, hash: u64) {
        let py = object.py();
        let full = self.known(object, |row| {
            row.hashes.insert(hash);
            (row.hashes.len() > row.most).then(|| (row.number, row.hashes.clone()))
        });
        let Some(Some((number, mut hashes))) = full else { return };
        // Rule 4. Nothing here runs Python code, so the row is as it was.
        let cache = self.rows.borrow(py).cache.bind(py).clone();
        hashes.retain(|&kept| kept == hash || cache.get().has(py, &OfInstance { number, hash: kept }));
        self.known(object, |row| {
            row.most = FEW.max(2 * hashes.len());
            row.hashes = hashes;
        });
    }
}

/// Why an object cannot have a number, with what to do.
fn refused(object: &Bound<'_, PyAny>, error: PyErr, name: impl FnOnce() -> String) -> PyErr {
    let py = object.py();
    if !error.is_instance_of::<PyTypeError>(py) {
        return error;
    }
    let kind = object.get_type().qualname();
    let kind = kind.map_or_else(|_| "object".to_owned(), |kind| kind.to_string());
    let refused = PyTypeError::new_err(format!(
        "{} is cached for each object (per_instance), and a {kind} cannot be referenced weakly: add \"__weakref__\" to \
         the __slots__ of its class, or leave the argument out of the key with exclude= instead if no result depends \
         on it",
        name()
    ));
    refused.set_cause(py, Some(error));
    refused
}

impl Row {
    fn into_left(self, rows: &Rows, py: Python<'_>) -> (Left, Ref<PyWeakrefReference>) {
        let cache = Ref::new(rows.cache.bind(py).clone());
        (Left { cache, number: self.number, hashes: self.hashes }, self.object)
    }
}

/// The callback of a weak reference.
#[pyclass(frozen, module = "cache._native")]
pub(crate) struct Departure {
    address: usize,
    rows: Weak<GilCell<Rows>>,
}

#[pymethods]
impl Departure {
    fn __call__(&self, reference: &Bound<'_, PyAny>) {
        let py = reference.py();
        let Some(shared) = self.rows.upgrade() else { return };
        let mut rows = shared.borrow(py);
        // The address may have been given to another object meanwhile.
        if !rows.by_address.get(&self.address).is_some_and(|row| row.object.is(reference)) {
            return;
        }
        let left = rows.by_address.remove(&self.address).map(|row| row.into_left(&rows, py));
        drop(rows);
        if let Some((left, reference)) = left {
            drop(reference);
            remove(py, left); // Rule 2
        }
    }
}

/// In the child of a fork: the thread that was removing entries is the parent's (rule 5).
pub(crate) fn forked(py: Python<'_>) {
    LEAVING.borrow(py).1 = false;
}

/// Removes the entries of dead objects, and fences their loads.
fn remove(py: Python<'_>, left: Left) {
    let mut leaving = LEAVING.borrow(py);
    leaving.0.push(left);
    // Rule 5
    if std::mem::replace(&mut leaving.1, true) {
        return;
    }
    drop(leaving);
    let _ended = Ended(py);
    loop {
        let Some(left) = LEAVING.borrow(py).0.pop() else { return };
        for &hash in &left.hashes {
            let query = OfInstance { number: left.number, hash };
            let cache = left.cache.bind(py).get();
            // Several keys may have one hash: those of 1 and 1.0 where types count.
            while cache.has(py, &query) {
                if let Err(error) = cache.delete_key(py, &query) {
                    error.write_unraisable(py, None);
                    break;
                }
            }
        }
    }
}

/// Says that nothing is being removed any more, also after a panic.
struct Ended<'py>(Python<'py>);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        LEAVING.borrow(self.0).1 = false;
    }
}

/// The arguments with another one at a position.
pub(crate) fn with(py: Python<'_>, args: &Args, position: usize, token: Ref) -> Args {
    let mut token = Some(token);
    let all = args.as_slice();
    Args::collect(all.len(), |index| match (index == position).then(|| token.take()).flatten() {
        Some(token) => token,
        None => Ref::new(all[index].bind(py).clone()),
    })
}

//! The objects on which methods with `per_instance=True` are called: identified by identity, held
//! weakly.
//!
//! The key of a call contains a number instead of the object. States of an object: unknown; known
//! (it has a row: a weak reference and its number); dead (the weak reference has been cleared).
//! Rules:
//!
//! 1. A number is given to one object, and never again in the process. A row is found by the
//!    address of the object, and is valid only if its weak reference still refers to exactly this
//!    object: another object at a reused address gets a number of its own.
//! 2. When an object dies, its row and its entries are removed, and its running loads store
//!    nothing. By rule 1, an entry missed by the removal is never served.
//! 3. No Python code runs while the rows are borrowed. The callback of a weak reference runs at any
//!    moment outside a borrow, even in the collector; it never fails.
//! 4. The hashes in a row are those of its entries and loads, and of at most as many removed ones
//!    (plus [`FEW`]): they are checked when their number has doubled.
//! 5. Entries whose values held the last reference to another object with a row are removed one
//!    object after another, not inside each other: a long chain of them does not use up the stack.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use async_cache_core::number::NumberMap;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple, PyWeakrefMethods, PyWeakrefReference};

use crate::args::CallArgs;
use crate::cache::Cache;
use crate::key::OfInstance;
use crate::raw::visit::{Visit, VisitStopped, Visitor, visits};
use crate::raw::{GilCell, Ref, equal};

/// Up to this number, hashes are not checked.
const FEW: usize = 64;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// Rule 5: the entries to remove, and whether a removal is running.
static LEAVING: GilCell<(Vec<Remains>, bool)> = GilCell::new((Vec::new(), false));

/// The objects on which one decorated function is called.
pub(crate) struct Instances {
    /// The name of the parameter; empty if the parameter is positional-only.
    name: Ref<PyString>,
    rows: Arc<GilCell<Rows>>,
}

struct Rows {
    cache: Ref<Cache>,
    by_address: NumberMap<usize, InstanceRow>,
}

struct InstanceRow {
    object: Ref<PyWeakrefReference>,
    number: u64,
    /// The number as an argument.
    token: Ref,
    /// Rule 4.
    hashes: HashSet<u64>,
    /// The number of hashes at which they are checked.
    most: usize,
}

/// The remains of a dead object.
struct Remains {
    cache: Ref<Cache>,
    number: u64,
    hashes: HashSet<u64>,
}

/// Whether an object without a number gets one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// The object gets a number: runs Python code, because a weak reference is an object and the
    /// collector may run.
    Add,
    /// The object gets no number.
    Leave,
}

impl Visit for Instances {
    fn visit(&self, visitor: Visitor<'_>) -> Result<(), VisitStopped> {
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

    /// The position of the object among the arguments.
    pub(crate) fn position(
        &self,
        py: Python<'_>,
        args: &CallArgs,
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

    /// The number of an object as an argument; `None` if the object has no number and gets none.
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

    /// Reads the row of an object, if there is a row. Runs no Python code.
    #[inline]
    fn known<R>(&self, object: &Bound<'_, PyAny>, look: impl FnOnce(&mut InstanceRow) -> R) -> Option<R> {
        let py = object.py();
        let mut rows = self.rows.borrow(py);
        let row = rows.by_address.get_mut(&(object.as_ptr() as usize))?;
        // Rule 1. The returned reference is not the last one: the caller has another.
        row.object.bind(py).upgrade().is_some_and(|known| known.is(object)).then(|| look(row))
    }

    fn add(&self, object: &Bound<'_, PyAny>) -> PyResult<Ref> {
        let py = object.py();
        let address = object.as_ptr() as usize;
        let departure = Bound::new(py, InstanceDeparture { address, rows: Arc::downgrade(&self.rows) })?;
        let reference = Ref::new(PyWeakrefReference::new_with(object, departure)?);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let token = number.into_pyobject(py)?.into_any();
        // Making these may have run code that called the method, on this thread or another.
        if let Some(known) = self.known(object, |row| Ref::new(row.token.bind(py).clone())) {
            return Ok(known);
        }
        let own = Ref::new(token.clone());
        let row = InstanceRow { object: reference, number, token: own, hashes: HashSet::new(), most: FEW };
        let mut rows = self.rows.borrow(py);
        let before = rows.by_address.insert(address, row);
        let left = before.map(|row| row.into_remains(&rows, py));
        drop(rows);
        if let Some((left, reference)) = left {
            drop(reference);
            remove(py, left); // Rule 2
        }
        Ok(Ref::new(token))
    }

    /// Records that there will be an entry or a load for an object.
    pub(crate) fn note(&self, object: &Bound<'_, PyAny>, hash: u64) {
        let py = object.py();
        let full = self.known(object, |row| {
            row.hashes.insert(hash);
            (row.hashes.len() > row.most).then(|| (row.number, row.hashes.clone()))
        });
        let Some(Some((number, mut hashes))) = full else { return };
        // Rule 4. Nothing here runs Python code, so the row is unchanged.
        let cache = self.rows.borrow(py).cache.bind(py).clone();
        hashes.retain(|&kept| kept == hash || cache.get().has(py, &OfInstance { number, hash: kept }));
        self.known(object, |row| {
            row.most = FEW.max(2 * hashes.len());
            row.hashes = hashes;
        });
    }
}

/// The reason why an object cannot have a number, and the remedy.
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

impl InstanceRow {
    fn into_remains(self, rows: &Rows, py: Python<'_>) -> (Remains, Ref<PyWeakrefReference>) {
        let cache = Ref::new(rows.cache.bind(py).clone());
        (Remains { cache, number: self.number, hashes: self.hashes }, self.object)
    }
}

/// The callback of a weak reference.
#[pyclass(frozen, module = "cache._native", name = "Departure")]
pub(crate) struct InstanceDeparture {
    address: usize,
    rows: Weak<GilCell<Rows>>,
}

#[pymethods]
impl InstanceDeparture {
    fn __call__(&self, reference: &Bound<'_, PyAny>) {
        let py = reference.py();
        let Some(shared) = self.rows.upgrade() else { return };
        let mut rows = shared.borrow(py);
        // In the meantime the address may have been given to another object.
        if !rows.by_address.get(&self.address).is_some_and(|row| row.object.is(reference)) {
            return;
        }
        let left = rows.by_address.remove(&self.address).map(|row| row.into_remains(&rows, py));
        drop(rows);
        if let Some((left, reference)) = left {
            drop(reference);
            remove(py, left); // Rule 2
        }
    }
}

/// In the child of a fork: the thread that removed entries belongs to the parent (rule 5).
pub(crate) fn forked(py: Python<'_>) {
    LEAVING.borrow(py).1 = false;
}

/// Removes the entries of dead objects, and fences their loads.
fn remove(py: Python<'_>, left: Remains) {
    let mut leaving = LEAVING.borrow(py);
    leaving.0.push(left);
    // Rule 5
    if std::mem::replace(&mut leaving.1, true) {
        return;
    }
    drop(leaving);
    let _ended = RemovalEnd(py);
    loop {
        let Some(left) = LEAVING.borrow(py).0.pop() else { return };
        for &hash in &left.hashes {
            let query = OfInstance { number: left.number, hash };
            let cache = left.cache.bind(py).get();
            // Several keys may have one hash: for example the keys of 1 and 1.0 with `typed=True`.
            while cache.has(py, &query) {
                if let Err(error) = cache.delete_key(py, &query) {
                    error.write_unraisable(py, None);
                    break;
                }
            }
        }
    }
}

/// Marks the end of the removal, also after a panic.
struct RemovalEnd<'py>(Python<'py>);

impl Drop for RemovalEnd<'_> {
    fn drop(&mut self) {
        LEAVING.borrow(self.0).1 = false;
    }
}

/// The arguments with the argument at a position replaced.
pub(crate) fn with(py: Python<'_>, args: &CallArgs, position: usize, token: Ref) -> CallArgs {
    let mut token = Some(token);
    let all = args.as_slice();
    CallArgs::collect(all.len(), |index| match (index == position).then(|| token.take()).flatten() {
        Some(token) => token,
        None => Ref::new(all[index].bind(py).clone()),
    })
}

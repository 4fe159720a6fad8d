//! Results that can be read only once: if cached, the second caller would get an exhausted result.
//!
//! Results are checked when a load ends and when a value is set, never on a hit. Rules:
//!
//! 1. The following are refused, with a `TypeError` that names an alternative: a coroutine; an
//!    iterator that is its own iterator (`iter(x) is x`: generators, `map`, open files, cursors;
//!    all code that iterates over it shares its position, even if it can be restarted); the same
//!    kind of async iterator; a file behind a wrapper; a context manager made from a generator,
//!    which can be entered only once; and a tuple, list or dict with one of these among its first
//!    [`LOOKED_AT`] items.
//! 2. A result over which another library will iterate itself (a streaming response of a web
//!    framework) is returned to the call that loaded it, is not stored, and other callers load
//!    anew: an error would be an outage of a route that only gains nothing from its decorator. The
//!    other callers load concurrently (`enter::Joinable`). A warning is issued.
//! 3. An awaitable that is not a coroutine (a future, a connection pool) is a value, and so is an
//!    object whose examination fails.
//! 4. A value passed to `set` or loaded by a backend is refused for the same reasons with the same
//!    messages. This includes the response of rule 2, because there is no call to answer. A
//!    caller's coroutine is left open.
//! 5. A class without any mark checked by the other rules is remembered: its instances are stored
//!    without a check.

use async_cache_core::number::NumberMap;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyWeakrefMethods, PyWeakrefReference,
};

use crate::raw::GilCell;
use crate::raw::calls::Invoke;
use crate::{errors, library, raw};

/// How many items of a container are checked.
const LOOKED_AT: usize = 16;

/// The treatment of a result.
pub(crate) enum Treatment {
    /// The result is stored, and returned to all callers.
    Stored,
    /// The result is returned to no caller: the error to raise.
    Refused(PyErr),
    /// The result is returned only to the call that loaded it.
    Alone,
}

/// Decides about the result of a load. `Err`: interrupted.
pub(crate) fn judge(value: &Bound<'_, PyAny>, name: impl FnOnce() -> String) -> PyResult<Treatment> {
    if is_kept_at_sight(value) {
        return Ok(Treatment::Stored);
    }
    if let Some((what, instead)) = among(value, ValueOwner::Load)? {
        let message = format!("{} returned {what}, so its result cannot be cached: {instead}", name());
        return Ok(Treatment::Refused(PyTypeError::new_err(message)));
    }
    if !is_container(value) && has_stream(value)? {
        let kind = value.get_type().qualname()?;
        let message = format!(
            "the result of {} is not cached: a {kind} is read once, so every call runs the function; return a response \
             that has its whole body, or leave the function undecorated",
            name()
        );
        value
            .py()
            .import("cache._warn")?
            .getattr("warn")?
            .invoke1(message.into_pyobject(value.py())?.as_any())?;
        return Ok(Treatment::Alone);
    }
    remember_class(value);
    Ok(Treatment::Stored)
}

/// Checks a value to be stored. `source`: the origin of the value, used at the start of the
/// message. `Err`: refused, or interrupted.
pub(crate) fn check(value: &Bound<'_, PyAny>, source: &str) -> PyResult<()> {
    if is_kept_at_sight(value) {
        return Ok(());
    }
    // Rule 4
    let (what, instead) = match among(value, ValueOwner::Caller)? {
        Some((what, instead)) => (what, instead.replacen("return", "give", 1)),
        None if !is_container(value) && value.is_callable() && has_stream(value)? => {
            let kind = value.get_type().qualname()?;
            (
                format!("a {kind}, which can be read once"),
                "give a response that has its whole body".to_owned(),
            )
        }
        None => {
            remember_class(value);
            return Ok(());
        }
    };
    Err(PyTypeError::new_err(format!("{source} {what}, so it cannot be cached: {instead}")))
}

/// Whether a value can be stored, as far as this is known without running Python code.
#[inline]
pub(crate) fn is_kept_at_sight(value: &Bound<'_, PyAny>) -> bool {
    is_plain(value) || is_kept_by_its_class(value)
}

fn is_kept_by_its_class(value: &Bound<'_, PyAny>) -> bool {
    let is_known = |item: &Bound<'_, PyAny>| is_plain(item) || is_container(item) || has_known_class(item);
    if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        tuple.iter_borrowed().take(LOOKED_AT).all(|item| is_known(&item))
    } else if let Ok(list) = value.cast_exact::<PyList>() {
        list.iter().take(LOOKED_AT).all(|item| is_known(&item))
    } else if let Ok(dict) = value.cast_exact::<PyDict>() {
        dict.iter().take(LOOKED_AT).all(|(_, item)| is_known(&item))
    } else {
        has_known_class(value)
    }
}

/// The classes of rule 5, by address; the weak reference shows whether the class is still the same.
static KEPT: GilCell<Option<NumberMap<usize, Py<PyWeakrefReference>>>> = GilCell::new(None);
const MOST_CLASSES: usize = 1024;

/// Whether the value's class is remembered.
fn has_known_class(value: &Bound<'_, PyAny>) -> bool {
    let py = value.py();
    let class = value.get_type();
    let known = |known: &NumberMap<_, Py<PyWeakrefReference>>| {
        known.get(&class.as_ptr().addr()).map(|reference| reference.clone_ref(py))
    };
    let reference = KEPT.borrow(py).as_ref().and_then(known);
    reference.and_then(|reference| reference.bind(py).upgrade()).is_some_and(|alive| alive.is(&class))
}

/// Rule 5, for the class of a stored value.
fn remember_class(value: &Bound<'_, PyAny>) {
    let py = value.py();
    let class = value.get_type();
    let marks = ["__await__", "__next__", "__anext__", "read", "_recreate_cm", "body_iterator"];
    if is_container(value)
        || value.is_callable()
        || marks.into_iter().any(|mark| class.hasattr(mark).unwrap_or(true))
    {
        return;
    }
    let Ok(reference) = PyWeakrefReference::new(&class) else { return };
    let (at, reference) = (class.as_ptr().addr(), reference.unbind());
    let replaced = {
        let mut known = KEPT.borrow(py);
        match known.as_mut() {
            Some(known) if known.len() < MOST_CLASSES => (known.insert(at, reference), None),
            _ => (None, known.replace(NumberMap::from_iter([(at, reference)]))),
        }
    };
    drop(replaced);
}

/// The owner of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ValueOwner {
    /// A load returned the value, and no other code has it.
    Load,
    /// A caller passed the value, and may use it further.
    Caller,
}

fn is_plain(value: &Bound<'_, PyAny>) -> bool {
    value.is_none()
        || value.is_exact_instance_of::<PyString>()
        || value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyBytes>()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_exact_instance_of::<PyBool>()
}

fn is_container(value: &Bound<'_, PyAny>) -> bool {
    value.is_exact_instance_of::<PyTuple>()
        || value.is_exact_instance_of::<PyList>()
        || value.is_exact_instance_of::<PyDict>()
}

/// The kind of read-once object that a value is, or has among its first items, and the alternative
/// to return.
fn among(value: &Bound<'_, PyAny>, owner: ValueOwner) -> PyResult<Option<(String, &'static str)>> {
    let items: Vec<_> = if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        tuple.iter().take(LOOKED_AT).collect()
    } else if let Ok(list) = value.cast_exact::<PyList>() {
        list.iter().take(LOOKED_AT).collect()
    } else if let Ok(dict) = value.cast_exact::<PyDict>() {
        // Listed first: checking the items may run Python code, which may change the dict.
        dict.iter().take(LOOKED_AT).map(|(_, item)| item).collect()
    } else {
        return Ok(read_once(value, owner)?.map(|(what, instead)| (what.to_owned(), instead)));
    };
    let kind = value.get_type().name()?;
    for item in items {
        if !is_plain(&item) && !is_container(&item) {
            if let Some((what, instead)) = read_once(&item, owner)? {
                return Ok(Some((format!("a {kind} with {what}"), instead)));
            }
            remember_class(&item);
        }
    }
    Ok(None)
}

/// Rule 1.
fn read_once(value: &Bound<'_, PyAny>, owner: ValueOwner) -> PyResult<Option<(&'static str, &'static str)>> {
    let py = value.py();
    let class = value.get_type();
    let has = |name: &str| class.hasattr(name).unwrap_or(false);
    if class.is(library::coroutine(py)?) || (has("__await__") && has("send") && has("close")) {
        if owner == ValueOwner::Load {
            // Otherwise the coroutine would warn that it was never awaited, which is not useful in
            // addition.
            outside_only(py, value.invoke_method0(pyo3::intern!(py, "close")))?;
        }
        return Ok(Some(("a coroutine, which can be awaited once", "await it, and return what it returns")));
    }
    if raw::attribute::is_iterator(value) && is_its_own(value, value.invoke_iter())? {
        return Ok(Some(if has("gi_frame") {
            ("a generator, which can be read once", "return a list(...) of what it yields")
        } else if has("fileno") || has("readline") {
            ("an open file, which can be read once", "return its content")
        } else {
            ("an iterator, which can be read once", "return a list(...) of its items")
        }));
    }
    if has("__anext__") && is_its_own(value, value.invoke_method0(pyo3::intern!(py, "__aiter__")))? {
        let what = if has("ag_frame") {
            "an async generator, which can be read once"
        } else {
            "an async iterator, which can be read once"
        };
        return Ok(Some((what, "return a list of its items: [item async for item in ...]")));
    }
    // Files that are not iterators themselves: those of `urllib`, `tempfile` and `aiofiles`. An
    // object that can be read as memory (`mmap`) has no position shared by its readers.
    let is_file = class.getattr(pyo3::intern!(py, "__mro__"))?.cast::<PyTuple>()?.iter().any(|base| {
        let name = base.getattr(pyo3::intern!(py, "__name__"));
        name.is_ok_and(|name| name.eq(pyo3::intern!(py, "_TemporaryFileWrapper")).unwrap_or(false))
    });
    let is_file = is_file || ["read", "readline", "close"].into_iter().all(has);
    if is_file && !raw::attribute::has_buffer(value) {
        return Ok(Some(("an open file, which can be read once", "return its content")));
    }
    // Of `contextlib.contextmanager` and `contextlib.asynccontextmanager`.
    if has("_recreate_cm") && own_attribute(value, "gen")?.is_some_and(|inside| is_generator(&inside)) {
        let what = "a context manager, which can be entered once";
        return Ok(Some((what, "enter it, and return what it gives, or return the function that makes it")));
    }
    Ok(None)
}

fn is_generator(object: &Bound<'_, PyAny>) -> bool {
    let class = object.get_type();
    ["gi_frame", "ag_frame"].into_iter().any(|name| class.hasattr(name).unwrap_or(false))
}

/// An attribute as `object.__getattribute__` finds it: not `getattr`, which may run a `__getattr__`
/// that accepts every name.
fn own_attribute<'py>(value: &Bound<'py, PyAny>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = value.py();
    let (get, name) = (pyo3::intern!(py, "__getattribute__"), PyString::new(py, name));
    outside_only(py, py.get_type::<PyAny>().invoke_method2(get, value, name.as_any()))
}

/// Rule 2: whether the object has an iterator under the name used by Starlette's streaming
/// responses.
fn has_stream(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    match own_attribute(value, "body_iterator")? {
        Some(body) => Ok(read_once(&body, ValueOwner::Caller)?.is_some()),
        None => Ok(false),
    }
}

fn is_its_own(value: &Bound<'_, PyAny>, iterator: PyResult<Bound<'_, PyAny>>) -> PyResult<bool> {
    Ok(outside_only(value.py(), iterator)?.is_some_and(|iterator| iterator.is(value)))
}

/// Rule 3: an error during the check means no; an interrupt is passed on.
fn outside_only<T>(py: Python<'_>, looked: PyResult<T>) -> PyResult<Option<T>> {
    match looked {
        Ok(found) => Ok(Some(found)),
        Err(error) if !errors::is_from_outside(py, &error) => Ok(None),
        Err(error) => Err(error),
    }
}

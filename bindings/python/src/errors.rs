//! The exceptions that the native part raises. Their classes are Python's, in `cache.errors`.

use pyo3::exceptions::{PyException, PyMemoryError, PyRecursionError};
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::prelude::*;

use crate::library;
use crate::raw::calls::Invoke;

/// The `repr` of an object, for messages; never fails.
pub(crate) fn repr(object: &Bound<'_, PyAny>) -> String {
    let shown = object
        .invoke_repr()
        .map_or_else(|_| "<an object whose repr fails>".to_owned(), |repr| repr.to_string());
    match shown.char_indices().nth(200) {
        None => shown,
        Some((end, _)) => format!("{}…", &shown[..end]),
    }
}

/// A function's name, for messages.
pub(crate) fn name_of(function: &Bound<'_, PyAny>) -> String {
    let name = function.getattr(pyo3::intern!(function.py(), "__qualname__"));
    name.map_or_else(|_| "the function".to_owned(), |name| name.to_string())
}

/// Whether the exception is an `asyncio.CancelledError`.
pub(crate) fn is_cancelled(py: Python<'_>, error: &PyErr) -> bool {
    library::cancelled_error(py).is_ok_and(|class| error.is_instance(py, class))
}

/// The loader asked for its own key.
pub(crate) fn recursive(py: Python<'_>, key: &str) -> PyErr {
    let message = format!(
        "the loader of {key} asked the cache, directly or through other loaders, for {key}; \
         its load would wait for itself for ever"
    );
    make(py, "RecursiveLoadError", message)
}

/// A load was cancelled, though its callers still wait for it.
pub(crate) fn load_cancelled(py: Python<'_>, key: &str, cause: Option<PyErr>) -> PyErr {
    let message = format!("the load of {key} was cancelled before it had a value; the next call loads anew");
    let error = make(py, "LoadCancelledError", message);
    if cause.is_some() {
        error.set_cause(py, cause);
    }
    error
}

/// As the interpreter does for coroutines: a `StopIteration` raised by a coroutine would be
/// mistaken for its return.
pub(crate) fn out_of_coroutine(py: Python<'_>, error: PyErr) -> PyErr {
    if !error.is_instance_of::<PyStopIteration>(py) {
        return error;
    }
    let raised = PyRuntimeError::new_err("coroutine raised StopIteration");
    let value = raised.value(py);
    drop(value.setattr(pyo3::intern!(py, "__context__"), error.value(py)));
    raised.set_cause(py, Some(error));
    raised
}

/// An exception that several callers get. Each raise adds its frames to the traceback, so for every
/// caller the traceback is reset to the loader's.
pub(crate) fn raise_again(error: Bound<'_, PyAny>, traceback: Option<Bound<'_, PyAny>>) -> PyErr {
    let traceback = traceback.unwrap_or_else(|| error.py().None().into_bound(error.py()));
    // Fails for an exception whose class overrides the method; then the traceback grows.
    drop(error.invoke_method1(pyo3::intern!(error.py(), "with_traceback"), &traceback));
    PyErr::from_value(error)
}

/// Whether an exception is independent of the entry at which it occurred: an interrupt, an exit, a
/// lack of memory or stack. Then the entry is not at fault, and the caller must get the exception.
pub(crate) fn is_from_outside(py: Python<'_>, error: &PyErr) -> bool {
    !error.is_instance_of::<PyException>(py)
        || error.is_instance_of::<PyMemoryError>(py)
        || error.is_instance_of::<PyRecursionError>(py)
}

/// Whether a save ends with this exception. A value nested too deeply for pickle is left out, like
/// other values that cannot be pickled.
pub(crate) fn is_fatal(py: Python<'_>, error: &PyErr) -> bool {
    is_from_outside(py, error) && !error.is_instance_of::<PyRecursionError>(py)
}

/// Whether an exception is independent of all objects: an interrupt, an exit, a lack of memory.
pub(crate) fn is_interrupt(py: Python<'_>, error: &PyErr) -> bool {
    !error.is_instance_of::<PyException>(py) || error.is_instance_of::<PyMemoryError>(py)
}

/// A backup could not be read or written.
pub(crate) fn backup(py: Python<'_>, error: &async_cache_disk::DiskError) -> PyErr {
    let message = error.to_string();
    let async_cache_disk::DiskErrorKind::OtherVersion { found, wanted } = error.kind() else {
        return backup_message(py, &message);
    };
    // For a function's file, the tag contains the name of the function after the version.
    let version = |tag: &str| match tag.split_once('\u{1f}') {
        Some((version, function)) => format!("version {version:?} of the function {function}"),
        None => format!("version {tag:?}"),
    };
    let path = error.path().display();
    let (found, wanted) = (version(found), version(wanted));
    let what = format!("{path}: it holds data of {found}, and {wanted} is wanted");
    backup_message(py, &format!("{what}; the cache starts empty; the next save replaces the file"))
}

/// A backup could not be read or written.
pub(crate) fn backup_message(py: Python<'_>, message: &str) -> PyErr {
    make(py, "BackupError", message.to_owned())
}

/// Logs a problem that no caller gets as an exception.
pub(crate) fn log(py: Python<'_>, message: &str) {
    let logger =
        py.import("logging").and_then(|logging| logging.invoke_method("getLogger", ("cache",), None));
    if let Err(error) = logger.and_then(|logger| logger.invoke_method("warning", ("%s", message), None)) {
        error.write_unraisable(py, None);
    }
}

fn make(py: Python<'_>, class: &str, message: String) -> PyErr {
    let made = py
        .import("cache.errors")
        .and_then(|module| module.getattr(class))
        .and_then(|class| class.invoke_with((message,)));
    made.map_or_else(|error| error, PyErr::from_value)
}

//! The work of a load: a loader, a decorated function, or a batch loader, with the loader's
//! arguments.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyTuple, PyType};

use crate::args::{CallArgs, apply, split};
use crate::call_key::CallKey;
use crate::function::{self, Function};
use crate::item::{LoadFlight, distinct};
use crate::key::Query;
use crate::raw::Ref;
use crate::raw::calls::Invoke;
use crate::raw::visit::visits;

/// The work of a load.
pub(crate) enum Work {
    /// A loader without arguments.
    Loader(Ref),
    /// A decorated function and the arguments of the call.
    Function { function: Ref, args: CallArgs, names: Option<Ref<PyTuple>> },
    /// A loader of many keys at once.
    Batch(Ref),
    /// None: the tier beyond this host is asked, and nothing is loaded.
    Look,
}

visits!(enum Work { Loader(loader), Function { function, args, names }, Batch(loader) });

impl Work {
    pub(crate) fn begin<'py>(&self, py: Python<'py>, items: &[LoadFlight]) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::Loader(loader) => loader.bind(py).invoke0(),
            Self::Function { function, args, names } => {
                let wrapped = decorated(function.bind(py)).wrapped.bind(py);
                apply(wrapped, args, names.as_ref().map(|names| names.bind(py)))
            }
            Self::Batch(loader) => {
                let asked = distinct(py, items);
                let keys = items.iter().zip(&asked).enumerate().filter(|(index, (_, at))| index == *at);
                let keys: Vec<_> = keys.map(|(_, (item, _))| item.key.bind(py)).collect();
                loader.bind(py).invoke1(PyList::new(py, keys)?.as_any())
            }
            Self::Look => unreachable!("nothing is loaded"),
        }
    }

    pub(crate) fn loader(&self) -> Option<&Ref> {
        match self {
            Self::Loader(loader) | Self::Batch(loader) => Some(loader),
            Self::Function { function, .. } => Some(function),
            Self::Look => None,
        }
    }

    /// Whether an argument was changed since the call, so that the key is a different one.
    pub(crate) fn is_outdated(&self, py: Python<'_>, items: &[LoadFlight]) -> PyResult<bool> {
        let (Self::Function { function, args, names }, [item]) = (self, items) else { return Ok(false) };
        let key = item.key.bind(py);
        if !key.cast_exact::<CallKey>().is_ok_and(|key| key.get().may_change()) {
            return Ok(false);
        }
        let names = names.as_ref().map(|names| names.bind(py));
        let function = decorated(function.bind(py));
        let kept = function.kept(py, args, names)?;
        let is_key_of = |key: &Ref| Ok(function.query(py, &kept)?.quick(py, key) == Some(true));
        if is_key_of(&item.key)? {
            return Ok(false);
        }
        // An argument that differs at each examination (for example in its description for pickle)
        // has not changed: asking again would never end.
        let now = Ref::new(function.query(py, &kept)?.to_key(py)?);
        is_key_of(&now)
    }

    /// Warns of a call that cannot be cached, since one of its arguments occurs in no other call.
    pub(crate) fn warn_of_one_call(&self, py: Python<'_>, items: &[LoadFlight]) -> PyResult<()> {
        static WARN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let (Self::Function { function, args, names }, [item]) = (self, items) else { return Ok(()) };
        let Some(class) = of_one_call(item.key.bind(py)) else { return Ok(()) };
        let names = names.as_ref().map(|names| names.bind(py));
        let (args, named) = split(py, args.as_slice(), names)?;
        let wrapped = decorated(function.bind(py)).wrapped.bind(py);
        let warn = WARN.import(py, "cache._stand_ins", "warn_of_one_call")?;
        warn.call1((wrapped, class, args, named.unwrap_or_else(|| PyDict::new(py)))).map(drop)
    }
}

/// The class of an argument that belongs to one call only, if the key has one.
pub(crate) fn of_one_call<'py>(key: &Bound<'py, PyAny>) -> Option<Bound<'py, PyType>> {
    static MADE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let py = key.py();
    if let Ok(key) = key.cast_exact::<CallKey>() {
        return Some(key.get().of_one_call()?.bind(py).clone());
    }
    // A key made by Python code, for a user's own backend.
    if key.is_exact_instance_of::<PyTuple>() || !key.is_instance_of::<PyTuple>() {
        return None;
    }
    let made = MADE.import(py, "cache.key", "KeyOfOneCall").ok()?;
    if !key.get_type().is(made) {
        return None;
    }
    key.getattr(pyo3::intern!(py, "of_one_call")).ok()?.cast_into().ok()
}

fn decorated<'a>(function: &'a Bound<'_, PyAny>) -> &'a Function {
    function::function(function).expect("only decorated functions make such work")
}

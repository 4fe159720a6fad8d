//! The target of a call: a key of an `AsyncCache`, or the result of a decorated function.

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::args::{CallArgs, exact_names};
use crate::cache::Cache;
use crate::enter::{Asking, Entered};
use crate::errors;
use crate::function::{Function, of_call};
use crate::key::{ObjectKey, Query};
use crate::raw::calls::Invoke;
use crate::raw::function::Given;
use crate::raw::visit::visits;
use crate::raw::{Ref, equal};
use crate::ttl::Ttl;
use crate::work::Work;

/// The target of a call.
pub(crate) enum Ask {
    Object(ObjectCall),
    Function(FunctionCall),
}

pub(crate) struct ObjectCall {
    pub(crate) cache: Ref<Cache>,
    pub(crate) key: Ref,
    pub(crate) loader: Option<Ref>,
    pub(crate) batch_loader: Option<Ref>,
    pub(crate) ttl: Ttl,
    /// Whether an absent key is told apart from the value `None`.
    pub(crate) marks_absent: bool,
}

pub(crate) struct FunctionCall {
    pub(crate) function: Ref,
    pub(crate) args: CallArgs,
    /// The names of the last arguments.
    pub(crate) names: Option<Ref<PyTuple>>,
    /// Whether to load anew, ignoring a cached value.
    pub(crate) refresh: bool,
}

visits!(
    enum Ask {
        Object(call),
        Function(call),
    }
);
visits!(struct ObjectCall { cache, key, loader, batch_loader });
visits!(struct FunctionCall { function, names, args });

impl Ask {
    pub(crate) fn cache<'py>(&self, py: Python<'py>) -> Bound<'py, Cache> {
        match self {
            Self::Object(call) => call.cache.bind(py).clone(),
            Self::Function(call) => call.function(py).cache.bind(py).clone(),
        }
    }

    /// Looks up the key, and on a miss joins or starts a load.
    pub(crate) fn enter<'py>(&self, py: Python<'py>, asking: &mut Asking) -> PyResult<Entered<'py>> {
        match self {
            Self::Object(call) => {
                let cache = call.cache.bind(py);
                let query = ObjectKey::new(cache.get().seed, call.key.bind(py))?;
                let work = match (&call.loader, &call.batch_loader) {
                    (Some(loader), _) => Some(Work::Loader(Ref::new(loader.bind(py).clone()))),
                    (None, Some(loader)) => Some(Work::Batch(Ref::new(loader.bind(py).clone()))),
                    (None, None) => None,
                };
                (asking.is_look, asking.marks_absent) = (work.is_none(), call.marks_absent);
                Cache::enter(cache, &query, work, call.ttl, asking)
            }
            Self::Function(call) => {
                let function = call.function(py);
                let cache = function.cache.bind(py);
                let names = call.names.as_ref().map(|names| names.bind(py));
                let kept = function.kept(py, &call.args, names)?;
                let query = function.query(py, &kept)?;
                if call.refresh && asking.is_first() {
                    cache.get().prepare_write(py)?;
                    cache.get().delete_key(py, &query)?;
                }
                asking.is_look = false;
                let work = Work::Function {
                    function: Ref::new(call.function.bind(py).clone()),
                    args: call.args.copy(py),
                    names: names.map(|names| Ref::new(names.clone())),
                };
                function.note(py, (&call.args, names), &query)?;
                Cache::enter(cache, &query, Some(work), Ttl::Default, asking)
            }
        }
    }

    /// The name of the called function.
    pub(crate) fn name(&self, py: Python<'_>) -> String {
        match self {
            Self::Function(call) => name_of_function(call.function.bind(py)),
            Self::Object(_) => NAME_OF_GET.to_owned(),
        }
    }

    /// The key, for messages.
    pub(crate) fn describe(&self, py: Python<'_>) -> String {
        match self {
            Self::Object(call) => errors::repr(call.key.bind(py)),
            Self::Function(call) => {
                let function = call.function(py);
                let name = function.wrapped.bind(py).getattr("__qualname__").map(|name| name.to_string());
                let names = call.names.as_ref().map(|names| names.bind(py));
                let kept = function.kept(py, &call.args, names);
                let key = kept.and_then(|kept| function.query(py, &kept)?.to_key(py));
                let key = key.map(|key| errors::repr(&key)).unwrap_or_default();
                format!("{}{key}", name.unwrap_or_default())
            }
        }
    }
}

impl FunctionCall {
    pub(crate) fn new<'py>(function: Bound<'py, PyAny>, given: Given<'_, 'py>) -> PyResult<Self> {
        let py = function.py();
        match given.names() {
            None => Ok(Self::without_names(function, given)),
            Some(names) => with_names(py, Ref::new(function), CallArgs::of(given), &names),
        }
    }

    /// A call whose arguments are all positional.
    #[inline]
    pub(crate) fn without_names(function: Bound<'_, PyAny>, given: Given<'_, '_>) -> Self {
        Self { function: Ref::new(function), args: CallArgs::of(given), names: None, refresh: false }
    }

    pub(crate) fn function<'a>(&'a self, py: Python<'a>) -> &'a Function {
        of_call(self.function.bind(py))
    }
}

/// The name of a call of `cache.get`.
pub(crate) const NAME_OF_GET: &str = "AsyncCache.get";

/// The name of a call of a decorated function.
pub(crate) fn name_of_function(function: &Bound<'_, PyAny>) -> String {
    let name = function.getattr("__qualname__");
    name.map_or_else(|_| "cached function".to_owned(), |name| name.to_string())
}

/// `use_cache` is the decorator's own argument.
fn with_names(
    py: Python<'_>,
    function: Ref,
    args: CallArgs,
    names: &Bound<'_, PyTuple>,
) -> PyResult<FunctionCall> {
    let names = Ref::new(exact_names(names)?);
    let own = pyo3::intern!(py, "use_cache");
    let at = names.bind(py).iter_borrowed().position(|name| name.is(own) || equal(&name, own.as_any()));
    let Some(at) = at else { return Ok(FunctionCall { function, args, names: Some(names), refresh: false }) };
    let all = args.as_slice();
    let at_all = all.len() - names.bind(py).len() + at;
    let refresh = !all[at_all].bind(py).invoke_is_true()?;
    let kept: Vec<_> = (0..all.len()).filter(|&index| index != at_all).collect();
    let args = CallArgs::collect(kept.len(), |index| Ref::new(all[kept[index]].bind(py).clone()));
    let others = names.bind(py).iter().enumerate().filter(|&(index, _)| index != at).map(|(_, name)| name);
    let others = PyTuple::new(py, others.collect::<Vec<_>>())?;
    let names = (!others.is_empty()).then(|| Ref::new(others));
    Ok(FunctionCall { function, args, names, refresh })
}

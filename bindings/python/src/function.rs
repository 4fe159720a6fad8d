//! Decorated functions: how the key of a call is made, and the entries that an invalidation
//! removes.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use crate::agent::Tool;
use crate::args::{CallArgs, exact_names};
use crate::cache::Cache;
use crate::call_query::CallQuery;
use crate::errors::{self, name_of};
use crate::instances::{Instances, Unknown, with};
use crate::key::Query;
use crate::part::{KeyArgs, KeyPart};
use crate::raw::Ref;
use crate::raw::function::{FunctionClasses, Payload, payload};
use crate::raw::visit::visits;

/// A decorated function.
pub(crate) struct Function {
    pub(crate) wrapped: Ref,
    /// The Python function for which it stands: `wrapped`, or the function inside it if `wrapped`
    /// is a bound method, a `functools.partial` or a callable object.
    pub(crate) passes_for: Option<Ref>,
    pub(crate) cache: Ref<Cache>,
    /// The number of the function among those that share the cache.
    pub(crate) number: u32,
    /// Whether `1` and `1.0` are different arguments.
    pub(crate) typed: bool,
    /// How many of the first arguments are not part of the key.
    pub(crate) skip: usize,
    /// Makes the keys for a user's own backend: called with arguments and keywords.
    pub(crate) make_key: Option<Ref>,
    /// The arguments from which keys are made, if not all.
    pub(crate) part: Option<Box<KeyPart>>,
    /// Whether the native module makes the key directly from the call. With a part, true only for
    /// calls without names.
    pub(crate) is_direct: bool,
    /// Whether the only argument of a call with one positional argument is the call's key.
    pub(crate) is_keyed_by_one: bool,
    /// The data of an agent's tool, if the function is one.
    pub(crate) tool: Option<Tool>,
}

visits!(struct Function { wrapped, passes_for, cache, make_key, part, tool });

impl Payload for Function {
    fn wrapped(&self) -> &Ref {
        &self.wrapped
    }

    fn passes_for(&self) -> Option<&Ref> {
        self.passes_for.as_ref()
    }

    fn classes() -> &'static FunctionClasses<Self> {
        static CLASSES: FunctionClasses<Function> = FunctionClasses::new();
        &CLASSES
    }
}

/// The data of a decorated function; `None` for any other object.
#[inline]
pub(crate) fn function<'a>(object: &'a Bound<'_, PyAny>) -> Option<&'a Function> {
    payload(object)
}

/// The data of the decorated function of a call.
#[inline]
pub(crate) fn of_call<'a>(called: &'a Bound<'_, PyAny>) -> &'a Function {
    function(called).expect("only decorated functions make calls")
}

impl Function {
    /// The value of [`Function::is_direct`] for a function.
    pub(crate) fn is_direct(make_key: Option<&Bound<'_, PyAny>>, part: Option<&KeyPart>) -> bool {
        make_key.is_none() && part.is_none_or(KeyPart::is_about_names_only)
    }

    /// The value of [`Function::is_keyed_by_one`] for a function.
    pub(crate) fn is_keyed_by_one(is_direct: bool, number: u32, typed: bool, skip: usize) -> bool {
        is_direct && number == 0 && !typed && skip == 0
    }

    /// The arguments that make the key.
    #[inline]
    pub(crate) fn kept<'a, 'py>(
        &self,
        py: Python<'py>,
        args: &'a CallArgs,
        names: Option<&'a Bound<'py, PyTuple>>,
    ) -> PyResult<KeyArgs<'a, 'py>> {
        match &self.part {
            None => Ok(KeyArgs::All(args, names)),
            Some(part) => {
                let kept = part.of(args, names, Unknown::Add, self.wrapped.bind(py))?;
                Ok(kept.expect("unknown objects are added"))
            }
        }
    }

    /// [`Function::kept`], if no Python code and no error is involved.
    #[inline]
    pub(crate) fn kept_at_once<'a, 'py>(
        &self,
        py: Python<'py>,
        args: &'a CallArgs,
        names: Option<&'a Bound<'py, PyTuple>>,
    ) -> Option<KeyArgs<'a, 'py>> {
        match &self.part {
            None => Some(KeyArgs::All(args, names)),
            Some(part) => part.of(args, names, Unknown::Leave, self.wrapped.bind(py)).ok()?,
        }
    }

    /// The objects on which the function is called, if results are kept for each object.
    fn instances(&self) -> Option<&Instances> {
        self.part.as_ref().and_then(|part| part.instances.as_ref())
    }

    /// Records that a call will have an entry or a load, if results are kept for each object.
    pub(crate) fn note(
        &self,
        py: Python<'_>,
        (args, names): (&CallArgs, Option<&Bound<'_, PyTuple>>),
        query: &CallQuery<'_, '_>,
    ) -> PyResult<()> {
        let Some(part) = self.part.as_ref() else { return Ok(()) };
        let Some(instances) = &part.instances else { return Ok(()) };
        // The object is the first parameter, so neither the object nor an argument before it is
        // excluded.
        let object = instances.position(py, args, names)?;
        instances.note(args.as_slice()[object].bind(py), query.hash());
        Ok(())
    }

    /// How keys are made from the kept arguments.
    #[inline]
    fn shape(&self) -> (u32, bool, usize) {
        // A part may have left out the first arguments already.
        (self.number, self.typed, self.part.as_ref().map_or(self.skip, |part| part.skip()))
    }

    /// The key of a call with these arguments, if making it runs no Python code.
    #[inline]
    pub(crate) fn query_at_once<'a, 'py>(
        &self,
        py: Python<'py>,
        kept: &'a KeyArgs<'_, 'py>,
    ) -> Option<CallQuery<'a, 'py>> {
        if self.make_key.is_some() {
            return None;
        }
        let seed = self.cache.bind(py).get().seed;
        CallQuery::at_once(py, seed, self.shape(), kept.args(), kept.names())
    }

    /// [`Function::query_at_once`] of a function that [is direct](Function::is_direct).
    #[inline]
    pub(crate) fn query_direct<'a, 'py>(
        &self,
        py: Python<'py>,
        args: &'a CallArgs,
        names: Option<&'a Bound<'py, PyTuple>>,
    ) -> Option<CallQuery<'a, 'py>> {
        let seed = self.cache.bind(py).get().seed;
        CallQuery::at_once(py, seed, (self.number, self.typed, self.skip), args, names)
    }

    /// The key of a call with these arguments.
    #[inline]
    pub(crate) fn query<'a, 'py>(
        &self,
        py: Python<'py>,
        kept: &'a KeyArgs<'_, 'py>,
    ) -> PyResult<CallQuery<'a, 'py>> {
        self.query_of(py, self.shape(), kept.args(), kept.names())
    }

    /// The key made from all of these arguments.
    pub(crate) fn query_written<'a, 'py>(
        &self,
        py: Python<'py>,
        args: &'a CallArgs,
        names: Option<&'a Bound<'py, PyTuple>>,
    ) -> PyResult<CallQuery<'a, 'py>> {
        self.query_of(py, (self.number, self.typed, 0), args, names)
    }

    #[inline]
    fn query_of<'a, 'py>(
        &self,
        py: Python<'py>,
        (number, typed, skip): (u32, bool, usize),
        args: &'a CallArgs,
        names: Option<&'a Bound<'py, PyTuple>>,
    ) -> PyResult<CallQuery<'a, 'py>> {
        let seed = self.cache.bind(py).get().seed;
        if let Some(make) = &self.make_key {
            return CallQuery::made_by(make.bind(py), seed, skip, args, names);
        }
        CallQuery::new(py, seed, (number, typed, skip), args, names)
    }

    /// Removes the cached results of calls written in these ways.
    ///
    /// If a way of writing a call has no key, the call would raise, and so has no cached result. If
    /// no way has a key, the argument itself causes an error.
    pub(crate) fn invalidate(&self, py: Python<'_>, calls: &Bound<'_, PyList>) -> PyResult<()> {
        self.cache.bind(py).get().prepare_write(py)?;
        let mut refused = None;
        let mut is_any_done = false;
        for call in calls.iter() {
            let (args, names): (Bound<'_, PyTuple>, Bound<'_, PyTuple>) = call.extract()?;
            if names.len() > args.len() {
                let message = format!("{} names for {} arguments", names.len(), args.len());
                return Err(PyTypeError::new_err(message));
            }
            let given = args.iter().collect::<Vec<_>>();
            let args = CallArgs::collect(given.len(), |index| Ref::new(given[index].clone()));
            let names = exact_names(&names)?;
            let names = (!names.is_empty()).then_some(&names);
            let args = match self.numbered(py, args, names) {
                Ok(Some(args)) => args,
                Ok(None) => {
                    is_any_done = true;
                    continue;
                }
                Err(error) => {
                    refused = refused.or(Some(error));
                    continue;
                }
            };
            match self.query_written(py, &args, names) {
                Ok(query) => {
                    self.cache.bind(py).get().delete_key(py, &query)?;
                    is_any_done = true;
                }
                Err(error) if !errors::is_from_outside(py, &error) => {
                    // A `TypeError` may concern only this way, for example one raised by a function
                    // that makes keys.
                    if refused.as_ref().is_none_or(|first: &PyErr| first.is_instance_of::<PyTypeError>(py)) {
                        refused = Some(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        self.cache.bind(py).get().poke(py)?;
        match refused {
            Some(error) if !is_any_done => Err(error),
            _ => Ok(()),
        }
    }
}

impl Function {
    /// The kept arguments of a call with the object replaced by its number. `None`: nothing is
    /// cached for the object.
    fn numbered(
        &self,
        py: Python<'_>,
        args: CallArgs,
        names: Option<&Bound<'_, PyTuple>>,
    ) -> PyResult<Option<CallArgs>> {
        let Some(instances) = self.instances() else { return Ok(Some(args)) };
        let position = instances.position(py, &args, names)?;
        let object = args.as_slice()[position].bind(py);
        let token = instances.token(object, Unknown::Leave, String::new)?;
        if token.is_none() {
            Instances::check(object, || name_of(self.wrapped.bind(py)))?;
        }
        Ok(token.map(|token| with(py, &args, position, token)))
    }
}

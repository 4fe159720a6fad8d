//! The arguments of a call, as given: positional ones, then the ones given by name.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::raw::Ref;
use crate::raw::calls::Invoke;
use crate::raw::function::Given;
use crate::raw::visit::{Visit, VisitStopped, Visitor};

/// The arguments of a call.
pub(crate) enum CallArgs {
    None,
    One([Ref; 1]),
    Two([Ref; 2]),
    Three([Ref; 3]),
    Many(Box<[Ref]>),
}

impl CallArgs {
    #[inline]
    pub(crate) fn collect(count: usize, mut arg: impl FnMut(usize) -> Ref) -> Self {
        match count {
            0 => Self::None,
            1 => Self::One([arg(0)]),
            2 => Self::Two([arg(0), arg(1)]),
            3 => Self::Three([arg(0), arg(1), arg(2)]),
            _ => Self::Many((0..count).map(arg).collect()),
        }
    }

    /// The arguments of a call made by the interpreter.
    #[inline]
    pub(crate) fn of(given: Given<'_, '_>) -> Self {
        Self::collect(given.len(), |index| given.get(index))
    }

    /// The same arguments.
    pub(crate) fn copy(&self, py: Python<'_>) -> Self {
        let args = self.as_slice();
        Self::collect(args.len(), |index| Ref::new(args[index].bind(py).clone()))
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[Ref] {
        match self {
            Self::None => &[],
            Self::One(args) => args,
            Self::Two(args) => args,
            Self::Three(args) => args,
            Self::Many(args) => args,
        }
    }
}

impl Visit for CallArgs {
    fn visit(&self, visitor: Visitor<'_>) -> Result<(), VisitStopped> {
        self.as_slice().visit(visitor)
    }
}

/// Calls a function with the kept arguments of a call.
pub(crate) fn apply<'py>(
    function: &Bound<'py, PyAny>,
    args: &CallArgs,
    names: Option<&Bound<'py, PyTuple>>,
) -> PyResult<Bound<'py, PyAny>> {
    let (args, named) = split(function.py(), args.as_slice(), names)?;
    function.invoke(&args, named.as_ref())
}

/// Arguments as a tuple and a dict.
pub(crate) fn split<'py>(
    py: Python<'py>,
    all: &[Ref],
    names: Option<&Bound<'py, PyTuple>>,
) -> PyResult<(Bound<'py, PyTuple>, Option<Bound<'py, PyDict>>)> {
    let positional = all.len() - names.map_or(0, PyTupleMethods::len);
    let args = PyTuple::new(py, all[..positional].iter().map(|arg| arg.bind(py)))?;
    let Some(names) = names else { return Ok((args, None)) };
    let named = PyDict::new(py);
    for (name, value) in names.iter_borrowed().zip(&all[positional..]) {
        named.set_item(name.cast::<PyString>()?, value.bind(py))?;
    }
    Ok((args, Some(named)))
}

/// Names of arguments as exact strings: in `f(**{name: value})` a name may be of a subclass, whose
/// comparison is Python code.
pub(crate) fn exact_names<'py>(names: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyTuple>> {
    if names.iter_borrowed().all(|name| name.is_exact_instance_of::<PyString>()) {
        return Ok(names.clone());
    }
    let copy = names.py().get_type::<PyString>().getattr("__str__")?;
    let exact = names.iter_borrowed().map(|name| copy.invoke1(&name));
    PyTuple::new(names.py(), exact.collect::<PyResult<Vec<_>>>()?)
}

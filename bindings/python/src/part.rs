//! Which part of a call is its key.
//!
//! Most functions are keyed by all of their arguments, and have no [`Part`]: their calls pass here without being
//! copied. Rules for those that have one:
//!
//! 1. An excluded argument is no part of the key, given by position or by name. Positions are those of the signature,
//!    so what follows an excluded argument keeps its own place among the others: no two calls become one key but those
//!    that differ in excluded arguments only.
//! 2. `skip` leaves out the first arguments, given by position only.

use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

use crate::call::Args;
use crate::raw::{Ref, equal};

/// What is left out of the keys of a function.
pub(crate) struct Part {
    /// The positions that are no part of the key.
    positions: Box<[usize]>,
    /// The names that are not, exactly `str`.
    names: Box<[Ref<PyString>]>,
}

/// The arguments that make the key of a call.
pub(crate) enum Kept<'a, 'py> {
    /// All of them.
    All(&'a Args, Option<&'a Bound<'py, PyTuple>>),
    /// Some of them.
    Some(Args, Option<Bound<'py, PyTuple>>),
}

impl<'py> Kept<'_, 'py> {
    #[inline]
    pub(crate) fn args(&self) -> &Args {
        match self {
            Self::All(args, _) => args,
            Self::Some(args, _) => args,
        }
    }

    #[inline]
    pub(crate) fn names(&self) -> Option<&Bound<'py, PyTuple>> {
        match self {
            Self::All(_, names) => *names,
            Self::Some(_, names) => names.as_ref(),
        }
    }
}

impl Part {
    /// `None`: all arguments are part of the key.
    pub(crate) fn new(
        skip: usize,
        positions: &[usize],
        names: Vec<Bound<'_, PyString>>,
    ) -> Option<Box<Self>> {
        if positions.is_empty() && names.is_empty() {
            return None;
        }
        // Rule 2
        let positions = (0..skip).chain(positions.iter().copied().filter(|&position| position >= skip));
        let names = names.into_iter().map(Ref::new);
        Some(Box::new(Self { positions: positions.collect(), names: names.collect() }))
    }

    /// What makes the key. Runs no Python code.
    pub(crate) fn of<'a, 'py>(
        &self,
        py: Python<'py>,
        args: &Args,
        names: Option<&Bound<'py, PyTuple>>,
    ) -> PyResult<Kept<'a, 'py>> {
        let all = args.as_slice();
        let positional = all.len() - names.map_or(0, PyTupleMethods::len);
        // Rule 1
        let mut kept: Vec<usize> = (0..positional).filter(|index| !self.positions.contains(index)).collect();
        let mut kept_names = names.cloned();
        if let Some(names) = names {
            let is_kept = |name: &Bound<'_, PyAny>| {
                !self.names.iter().any(|known| known.is(name) || equal(known.bind(py).as_any(), name))
            };
            let before = kept.len();
            let by_name = names.iter_borrowed().enumerate().filter(|(_, name)| is_kept(name));
            kept.extend(by_name.map(|(index, _)| positional + index));
            if kept.len() - before < names.len() {
                let left = kept[before..].iter().map(|index| names.get_item(index - positional));
                let left = left.collect::<PyResult<Vec<_>>>()?;
                kept_names = if left.is_empty() { None } else { Some(PyTuple::new(py, left)?) };
            }
        }
        let args = Args::collect(kept.len(), |index| Ref::new(all[kept[index]].bind(py).clone()));
        Ok(Kept::Some(args, kept_names))
    }
}

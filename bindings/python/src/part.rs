//! Which part of a call is its key.
//!
//! Most functions are keyed by all of their arguments, and have no [`Part`]: their calls pass here without being
//! copied. Rules for those that have one:
//!
//! 1. An excluded argument is no part of the key, given by position or by name. Positions are those of the signature,
//!    so what follows an excluded argument keeps its own place among the others: no two calls become one key but those
//!    that differ in excluded arguments only.
//! 2. `skip` leaves out the first arguments. Of those that are given by name, the names are among those that are left
//!    out. Those that are given by position are left to the maker of the key ([`Part::skip`]) if no other position is
//!    left out: then a call without names is its key as it stands.
//! 3. Of a function that is cached for each object, the object is replaced by its number, after the above: see
//!    [`Instances`].

use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

use crate::args::Args;
use crate::errors::name_of;
use crate::instances::{Instances, Unknown, with};
use crate::raw::visit::visits;
use crate::raw::{Ref, equal};

/// What is left out of the keys of a function.
pub(crate) struct Part {
    /// The positions that are no part of the key.
    positions: Box<[usize]>,
    /// How many of the first arguments the maker of the key is still to leave out.
    skip: usize,
    /// The names that are not, exactly `str`.
    names: Box<[Ref<PyString>]>,
    /// The objects, if the results are kept for each.
    pub(crate) instances: Option<Instances>,
}

visits!(struct Part { instances });

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
        instances: Option<Instances>,
    ) -> Option<Box<Self>> {
        if positions.is_empty() && names.is_empty() && instances.is_none() {
            return None;
        }
        // Rule 2
        let (skip, skipped) = if positions.is_empty() { (skip, 0) } else { (0, skip) };
        let positions = (0..skipped).chain(positions.iter().copied().filter(|&position| position >= skipped));
        let names = names.into_iter().map(Ref::new);
        Some(Box::new(Self { positions: positions.collect(), skip, names: names.collect(), instances }))
    }

    /// How many of the first arguments the maker of the key is still to leave out.
    #[inline]
    pub(crate) fn skip(&self) -> usize {
        self.skip
    }

    /// Whether the key of a call without names is made of the call as it stands.
    pub(crate) fn is_about_names_only(&self) -> bool {
        self.positions.is_empty() && self.instances.is_none()
    }

    /// What makes the key. Runs Python code for an object that has no number yet only; if it is to be left so, `None`
    /// comes back.
    pub(crate) fn of<'a, 'py>(
        &self,
        args: &'a Args,
        names: Option<&'a Bound<'py, PyTuple>>,
        unknown: Unknown,
        function: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Kept<'a, 'py>>> {
        let py = function.py();
        let is_whole = self.positions.is_empty() && names.is_none_or(|names| !self.leaves_out_any(names));
        let kept = if is_whole { Kept::All(args, names) } else { self.without_excluded(py, args, names)? };
        let Some(instances) = &self.instances else { return Ok(Some(kept)) };
        // Rule 3
        let position = instances.position(py, kept.args(), kept.names())?;
        let object = kept.args().as_slice()[position].bind(py);
        let Some(token) = instances.token(object, unknown, || name_of(function))? else { return Ok(None) };
        let args = with(py, kept.args(), position, token);
        Ok(Some(Kept::Some(args, kept.names().cloned())))
    }

    fn leaves_out(&self, name: &Bound<'_, PyAny>) -> bool {
        self.names.iter().any(|known| known.is(name) || equal(known.bind(name.py()).as_any(), name))
    }

    fn leaves_out_any(&self, names: &Bound<'_, PyTuple>) -> bool {
        names.iter_borrowed().any(|name| self.leaves_out(&name))
    }

    fn without_excluded<'a, 'py>(
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
            let before = kept.len();
            let by_name = names.iter_borrowed().enumerate().filter(|(_, name)| !self.leaves_out(name));
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

//! The part of a call from which its key is made.
//!
//! Most functions use all of their arguments as the key, and have no [`KeyPart`]: their calls pass
//! through here without a copy. Rules for functions with a part:
//!
//! 1. An excluded argument is not part of the key, whether given by position or by name. Positions
//!    are those of the signature, so an argument after an excluded one keeps its own place among
//!    the others: only calls that differ in nothing but excluded arguments share a key.
//! 2. `skip` leaves out the first arguments. If they are given by name, their names are among the
//!    left-out names. If they are given by position, they are left to the maker of the key
//!    ([`KeyPart::skip`]) unless another position is left out: then a call without names is its
//!    key directly.
//! 3. If a function is cached for each object, the object is then replaced by its number: see
//!    [`Instances`].

use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

use crate::args::CallArgs;
use crate::errors::name_of;
use crate::instances::{Instances, Unknown, with};
use crate::raw::visit::visits;
use crate::raw::{Ref, equal};

/// The arguments left out of the keys of a function.
pub(crate) struct KeyPart {
    /// The positions that are not part of the key.
    positions: Box<[usize]>,
    /// How many of the first arguments remain for the maker of the key to leave out.
    skip: usize,
    /// The names that are not part of the key, exactly `str`.
    names: Box<[Ref<PyString>]>,
    /// The objects, if the results are kept for each.
    pub(crate) instances: Option<Instances>,
}

visits!(struct KeyPart { instances });

/// The arguments that make the key of a call.
pub(crate) enum KeyArgs<'a, 'py> {
    /// All of them.
    All(&'a CallArgs, Option<&'a Bound<'py, PyTuple>>),
    /// Some of them.
    Some(CallArgs, Option<Bound<'py, PyTuple>>),
}

impl<'py> KeyArgs<'_, 'py> {
    #[inline]
    pub(crate) fn args(&self) -> &CallArgs {
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

impl KeyPart {
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

    /// How many of the first arguments remain for the maker of the key to leave out.
    #[inline]
    pub(crate) fn skip(&self) -> usize {
        self.skip
    }

    /// Whether the key of a call without names is made directly from the call.
    pub(crate) fn is_about_names_only(&self) -> bool {
        self.positions.is_empty() && self.instances.is_none()
    }

    /// The arguments that make the key. Runs Python code only for an object without a number; if
    /// such an object is to get no number, the result is `None`.
    pub(crate) fn of<'a, 'py>(
        &self,
        args: &'a CallArgs,
        names: Option<&'a Bound<'py, PyTuple>>,
        unknown: Unknown,
        function: &Bound<'py, PyAny>,
    ) -> PyResult<Option<KeyArgs<'a, 'py>>> {
        let py = function.py();
        let is_whole = self.positions.is_empty() && names.is_none_or(|names| !self.leaves_out_any(names));
        let kept = if is_whole { KeyArgs::All(args, names) } else { self.without_excluded(py, args, names)? };
        let Some(instances) = &self.instances else { return Ok(Some(kept)) };
        // Rule 3
        let position = instances.position(py, kept.args(), kept.names())?;
        let object = kept.args().as_slice()[position].bind(py);
        let Some(token) = instances.token(object, unknown, || name_of(function))? else { return Ok(None) };
        let args = with(py, kept.args(), position, token);
        Ok(Some(KeyArgs::Some(args, kept.names().cloned())))
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
        args: &CallArgs,
        names: Option<&Bound<'py, PyTuple>>,
    ) -> PyResult<KeyArgs<'a, 'py>> {
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
        let args = CallArgs::collect(kept.len(), |index| Ref::new(all[kept[index]].bind(py).clone()));
        Ok(KeyArgs::Some(args, kept_names))
    }
}

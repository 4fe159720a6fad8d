//! Look-ups of calls: determines the key of a call, if possible without making the key.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::args::{CallArgs, split};
use crate::call_key::{CallKey, Form, encode_call, same_value};
use crate::codec;
use crate::key::{ObjectKey, Query, encode_object};
use crate::plain::{hash_of_plain, mix, plain_hash};
use crate::raw::calls::Invoke;
use crate::raw::{Ref, equal};

/// A call to look up.
pub(crate) enum CallQuery<'a, 'py> {
    /// One plain positional argument of the only function of its cache.
    One(ObjectKey<'a, 'py>),
    /// Plain arguments.
    Plain(PlainCall<'a, 'py>),
    /// Any other call: its key is made at once.
    Made(Bound<'py, CallKey>, u64),
    /// A key made, and compared, by Python.
    ByPython(Bound<'py, PyAny>, u64),
}

pub(crate) struct PlainCall<'a, 'py> {
    args: &'a CallArgs,
    names: Option<&'a Bound<'py, PyTuple>>,
    skip: usize,
    number: u32,
    typed: bool,
    hash: u64,
}

impl<'a, 'py> CallQuery<'a, 'py> {
    /// The key of a call with these arguments, if all of them are plain.
    #[inline]
    pub(crate) fn at_once(
        py: Python<'py>,
        seed: u64,
        (number, typed, skip): (u32, bool, usize),
        args: &'a CallArgs,
        names: Option<&'a Bound<'py, PyTuple>>,
    ) -> Option<Self> {
        let all = args.as_slice();
        let skip = skip.min(all.len() - names.map_or(0, PyTupleMethods::len));
        let all = &all[skip..];
        let positional = all.len() - names.map_or(0, PyTupleMethods::len);
        if let ([arg], 1, 0, false) = (all, positional, number, typed) {
            return ObjectKey::of_plain_argument(seed, arg.bind(py)).map(Self::One);
        }
        let mut hash = mix(seed, u64::from(number) << 32 | positional as u64);
        for arg in &all[..positional] {
            hash = mix(hash, plain_hash(arg.bind(py))?);
        }
        // In any order: a sum over all names and values.
        let mut named = 0_u64;
        if let Some(names) = names {
            for (name, arg) in names.iter_borrowed().zip(&all[positional..]) {
                named = named.wrapping_add(mix(hash_of_plain(&name)?, plain_hash(arg.bind(py))?));
            }
            hash = mix(hash, named);
        }
        Some(Self::Plain(PlainCall { args, names, skip, number, typed, hash }))
    }

    /// The key of a call with these arguments, the last ones given by `names`.
    #[inline]
    pub(crate) fn new(
        py: Python<'py>,
        seed: u64,
        (number, typed, skip): (u32, bool, usize),
        args: &'a CallArgs,
        names: Option<&'a Bound<'py, PyTuple>>,
    ) -> PyResult<Self> {
        if let Some(query) = Self::at_once(py, seed, (number, typed, skip), args, names) {
            return Ok(query);
        }
        let all = args.as_slice();
        let skip = skip.min(all.len() - names.map_or(0, PyTupleMethods::len));
        let all = &all[skip..];
        let (values, names) = in_order(py, all, names)?;
        let mut found = codec::new_references();
        let bytes = encode_call(&values, &names, typed, &mut found)?;
        let mut hash = mix(seed, u64::from(number) << 32 | u64::MAX >> 33);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = mix(hash, u64::from_le_bytes(word));
        }
        let (is_stable, of_one_call) = (found.is_stable(), found.of_one_call());
        let form =
            Form::ByValue { bytes: bytes.into(), types: found.into_types().into(), is_stable, of_one_call };
        Ok(Self::Made(Bound::new(py, CallKey { number, typed, form })?, hash))
    }
}

impl<'py> CallQuery<'_, 'py> {
    /// The key made from the arguments by a Python function.
    pub(crate) fn made_by(
        make: &Bound<'py, PyAny>,
        seed: u64,
        skip: usize,
        args: &CallArgs,
        names: Option<&Bound<'py, PyTuple>>,
    ) -> PyResult<Self> {
        let py = make.py();
        let all = args.as_slice();
        let skip = skip.min(all.len() - names.map_or(0, PyTupleMethods::len));
        let (args, named) = split(py, &all[skip..], names)?;
        let key = make.invoke2(args.as_any(), named.unwrap_or_else(|| PyDict::new(py)).as_any())?;
        let hash = ObjectKey::new(seed, &key)?.hash;
        Ok(Self::ByPython(key, hash))
    }
}

type OrderedArgs<'py> = (Vec<Bound<'py, PyAny>>, Vec<Bound<'py, PyString>>);

/// The arguments, with arguments given by name at the end, by ascending name.
fn in_order<'py>(
    py: Python<'py>,
    args: &[Ref],
    names: Option<&Bound<'py, PyTuple>>,
) -> PyResult<OrderedArgs<'py>> {
    let args: Vec<_> = args.iter().map(|arg| arg.bind(py).clone()).collect();
    let Some(names) = names else { return Ok((args, Vec::new())) };
    let positional = args.len() - names.len();
    let mut named = Vec::with_capacity(names.len());
    for (name, value) in names.iter().zip(&args[positional..]) {
        let name = name.cast_into::<PyString>()?;
        named.push((name.to_cow()?.into_owned(), name, value.clone()));
    }
    named.sort_by(|a, b| a.0.cmp(&b.0));
    let mut values = args[..positional].to_vec();
    let mut sorted = Vec::with_capacity(named.len());
    for (_, name, value) in named {
        values.push(value);
        sorted.push(name);
    }
    Ok((values, sorted))
}

impl PlainCall<'_, '_> {
    fn is(&self, py: Python<'_>, known: &CallKey) -> bool {
        let Form::Plain { values, names } = &known.form else { return false };
        let given = &self.args.as_slice()[self.skip..];
        let given_names = self.names.map_or(0, PyTupleMethods::len);
        if known.number != self.number || values.len() != given.len() || names.len() != given_names {
            return false;
        }
        let same = |known: &Py<PyAny>, given: &Ref| same_value(known.bind(py), given.bind(py), self.typed);
        let positional = given.len() - given_names;
        if !values[..positional].iter().zip(given).all(|(known, given)| same(known, given)) {
            return false;
        }
        names.iter().zip(&values[positional..]).all(|(name, value)| {
            let given_names = self.names.into_iter().flat_map(|names| names.iter_borrowed());
            let mut pairs = given_names.zip(&given[positional..]);
            pairs.any(|(given_name, given)| {
                (given_name.is(name) || equal(&given_name, name.bind(py).as_any())) && same(value, given)
            })
        })
    }
}

impl Query for CallQuery<'_, '_> {
    fn hash(&self) -> u64 {
        match self {
            Self::One(key) => key.hash,
            Self::Plain(call) => call.hash,
            Self::Made(_, hash) | Self::ByPython(_, hash) => *hash,
        }
    }

    #[inline]
    fn quick(&self, py: Python<'_>, known: &Ref) -> Option<bool> {
        Some(match self {
            Self::ByPython(key, hash) => return ObjectKey { object: key, hash: *hash }.quick(py, known),
            // A `CallKey` is not plain, so it equals only itself.
            Self::One(key) => key.quick(py, known).unwrap_or(false),
            Self::Plain(call) => {
                known.bind(py).cast_exact::<CallKey>().is_ok_and(|known| call.is(py, known.get()))
            }
            Self::Made(key, _) => {
                known.bind(py).cast_exact::<CallKey>().is_ok_and(|known| known.get().same(py, key.get()))
            }
        })
    }

    fn ask(&self, known: &Bound<'_, PyAny>) -> PyResult<bool> {
        match self {
            Self::ByPython(key, _) => known.invoke_eq(key),
            _ => Ok(false),
        }
    }

    fn to_key<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::One(key) => key.to_key(py),
            Self::Made(key, _) => Ok(key.clone().unbind().into_bound(py).into_any()),
            Self::ByPython(key, _) => Ok(key.clone().unbind().into_bound(py)),
            Self::Plain(call) => {
                let names = call.names.map(|names| names.clone().unbind().into_bound(py));
                let (values, names) = in_order(py, &call.args.as_slice()[call.skip..], names.as_ref())?;
                let form = Form::Plain {
                    values: values.into_iter().map(Bound::unbind).collect(),
                    names: names.into_iter().map(Bound::unbind).collect(),
                };
                let key = CallKey { number: call.number, typed: call.typed, form };
                Ok(Bound::new(py, key)?.into_any())
            }
        }
    }

    fn encode(&self, py: Python<'_>) -> PyResult<Option<Vec<u8>>> {
        match self {
            Self::One(key) => {
                let mut bytes = Vec::with_capacity(32);
                codec::encode_by_value(key.object, &mut bytes, &mut codec::new_references())?;
                Ok(Some(bytes))
            }
            Self::Made(key, _) => key.get().encode(py),
            Self::ByPython(key, _) => encode_object(key),
            Self::Plain(_) => encode_object(&self.to_key(py)?),
        }
    }
}

//! Keys: how they are hashed and compared without running Python code, and when that cannot be avoided.
//!
//! What the store holds as a key is one Python object: what the user gave to `AsyncCache`, or for a decorated
//! function the argument itself if the call has a single plain one, else a [`CallKey`].
//!
//! - A *plain* object is exactly a `str`, `int`, `float` but NaN, `bool`, `bytes` or `None`. Comparing two of them runs
//!   no Python code and cannot fail, so it may be done while the store is borrowed. Names of arguments are plain,
//!   too: see [`exact_names`].
//! - Everything else is compared by Python with nothing borrowed: see `Cache::address`.
//! - Calls are compared by value. If all arguments are plain, as they are; if not, by their canonical encoding,
//!   which is also what the file has, and by the types that it names.

use pyo3::PyTraverseError;
use pyo3::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyString, PyTuple, PyType};

use crate::call::{Args, split};
use crate::codec;
use crate::raw::calls::Invoke;
use crate::raw::{Ref, equal, text};

/// A longer text or `bytes` as an argument is known by its digest: the cache would keep all of it alive.
const MAX_PLAIN_LENGTH: usize = 1 << 16;

/// How deep tuples are looked into before Python is asked.
const DEPTH: usize = 8;

/// A key that is looked for.
pub(crate) trait Probe {
    /// Mixed in all its bits.
    fn hash(&self) -> u64;
    /// Whether a stored key is equal, if that can be said without running Python code.
    fn quick(&self, py: Python<'_>, known: &Ref) -> Option<bool>;
    /// Whether a stored key is equal, says Python.
    fn ask(&self, known: &Bound<'_, PyAny>) -> PyResult<bool>;
    /// The object to be stored.
    fn to_key<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>>;
    /// The key as a file has it; `None` if it has no form that another process would find it under.
    fn encode(&self, py: Python<'_>) -> PyResult<Option<Vec<u8>>>;
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Plain {
    Str,
    Number,
    Bytes,
    None,
}

/// Whether an object is compared without running Python code.
#[inline]
pub(crate) fn is_plain(object: &Bound<'_, PyAny>) -> bool {
    plain(object).is_some()
}

/// Whether an argument is compared as it is: plain, and not so long that its digest is kept instead of it.
#[inline(always)]
#[allow(clippy::inline_always)] // a call of its own is a fiftieth of a hit
pub(crate) fn is_plain_argument(object: &Bound<'_, PyAny>) -> bool {
    match plain(object) {
        None => false,
        Some(Plain::Str) => {
            object.cast::<PyString>().is_ok_and(|text| text::length(text) <= MAX_PLAIN_LENGTH)
        }
        Some(Plain::Bytes) => {
            object.cast::<PyBytes>().is_ok_and(|bytes| bytes.as_bytes().len() <= MAX_PLAIN_LENGTH)
        }
        Some(Plain::Number | Plain::None) => true,
    }
}

#[inline(always)]
#[allow(clippy::inline_always)] // as above
fn plain(object: &Bound<'_, PyAny>) -> Option<Plain> {
    if object.is_exact_instance_of::<PyString>() {
        Some(Plain::Str)
    } else if object.is_exact_instance_of::<PyInt>() || object.is_exact_instance_of::<PyBool>() {
        Some(Plain::Number)
    } else if let Ok(float) = object.cast_exact::<PyFloat>() {
        // NaN is equal to nothing, but as an argument it is a value like others.
        (!float.value().is_nan()).then_some(Plain::Number)
    } else if object.is_exact_instance_of::<PyBytes>() {
        Some(Plain::Bytes)
    } else if object.is_none() {
        Some(Plain::None)
    } else {
        None
    }
}

/// Whether two objects are equal, if that can be said without running Python code. Objects of unlike kinds
/// are not compared, for `str == bytes` may warn, and a warning is Python code.
fn quick(a: &Bound<'_, PyAny>, b: &Bound<'_, PyAny>, depth: usize) -> Option<bool> {
    if a.is(b) {
        return Some(true);
    }
    if let (Some(a_kind), Some(b_kind)) = (plain(a), plain(b)) {
        Some(a_kind == b_kind && equal(a, b))
    } else {
        let (a, b) = (a.cast_exact::<PyTuple>().ok()?, b.cast_exact::<PyTuple>().ok()?);
        if a.len() != b.len() {
            return Some(false);
        }
        if depth == 0 {
            return None;
        }
        for (a, b) in a.iter_borrowed().zip(b.iter_borrowed()) {
            if !quick(&a, &b, depth - 1)? {
                return Some(false);
            }
        }
        Some(true)
    }
}

/// Python's hash of an object.
#[inline]
fn hash_of(object: &Bound<'_, PyAny>) -> PyResult<u64> {
    Ok(object.invoke_hash()?.cast_unsigned() as u64)
}

/// Python's hash of an argument that is compared as it is; `None` if it is not, or there is no memory.
#[inline(always)]
#[allow(clippy::inline_always)] // as above
fn plain_hash(argument: &Bound<'_, PyAny>) -> Option<u64> {
    if is_plain_argument(argument) { hash_of_plain(argument) } else { None }
}

/// [`hash_of`] a plain object; `None` if there is no memory.
#[inline(always)]
#[allow(clippy::inline_always)] // as above
fn hash_of_plain(object: &Bound<'_, PyAny>) -> Option<u64> {
    Some(text::hash_of_plain(object)?.cast_unsigned() as u64)
}

/// The hash of the store from Python's, which is not mixed well (that of an `int` is the number itself).
#[inline]
pub(crate) fn mix(seed: u64, hash: u64) -> u64 {
    let product = u128::from(hash ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    #[allow(clippy::cast_possible_truncation)] // the two halves are folded
    let folded = (product as u64) ^ ((product >> 64) as u64);
    folded.wrapping_mul(0xD6E8_FEB8_6659_FD93) ^ (folded >> 32)
}

/// The key of an `AsyncCache`, or of a call with one plain argument: compared as Python compares.
pub(crate) struct ObjectKey<'a, 'py> {
    pub(crate) object: &'a Bound<'py, PyAny>,
    pub(crate) hash: u64,
}

impl<'a, 'py> ObjectKey<'a, 'py> {
    #[inline]
    pub(crate) fn new(seed: u64, object: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        let hash = mix(seed, hash_of(object)?);
        Ok(Self { object, hash })
    }

    /// [`ObjectKey::new`] of an argument that is compared as it is; `None` if it is not.
    #[inline]
    pub(crate) fn of_plain_argument(seed: u64, object: &'a Bound<'py, PyAny>) -> Option<Self> {
        Some(Self { object, hash: mix(seed, plain_hash(object)?) })
    }

    /// [`ObjectKey::new`] of a plain object; `None` if it is not plain.
    #[inline]
    pub(crate) fn of_plain(seed: u64, object: &'a Bound<'py, PyAny>) -> Option<Self> {
        if is_plain(object) { Some(Self { object, hash: mix(seed, hash_of_plain(object)?) }) } else { None }
    }
}

impl Probe for ObjectKey<'_, '_> {
    fn hash(&self) -> u64 {
        self.hash
    }

    #[inline]
    fn quick(&self, py: Python<'_>, known: &Ref) -> Option<bool> {
        known.is(self.object).then_some(true).or_else(|| quick(known.bind(py), self.object, DEPTH))
    }

    fn ask(&self, known: &Bound<'_, PyAny>) -> PyResult<bool> {
        known.invoke_eq(self.object)
    }

    fn to_key<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.object.clone().unbind().into_bound(py))
    }

    fn encode(&self, _: Python<'_>) -> PyResult<Option<Vec<u8>>> {
        encode_object(self.object)
    }
}

fn encode_object(object: &Bound<'_, PyAny>) -> PyResult<Option<Vec<u8>>> {
    if let Ok(call) = object.cast_exact::<CallKey>() {
        return call.get().encode(object.py());
    }
    let mut bytes = Vec::with_capacity(64);
    Ok(codec::encode_key(object, &mut bytes)?.then_some(bytes))
}

/// A key that is in the store or in a flight already, looked for again.
pub(crate) struct StoredKey<'a, 'py> {
    pub(crate) key: &'a Bound<'py, PyAny>,
    pub(crate) hash: u64,
}

impl Probe for StoredKey<'_, '_> {
    fn hash(&self) -> u64 {
        self.hash
    }

    fn quick(&self, py: Python<'_>, known: &Ref) -> Option<bool> {
        if known.is(self.key) {
            return Some(true);
        }
        match (known.bind(py).cast_exact::<CallKey>(), self.key.cast_exact::<CallKey>()) {
            (Ok(known), Ok(key)) => Some(known.get().same(py, key.get())),
            (Err(_), Err(_)) => quick(known.bind(py), self.key, DEPTH),
            _ => Some(false),
        }
    }

    fn ask(&self, known: &Bound<'_, PyAny>) -> PyResult<bool> {
        known.invoke_eq(self.key)
    }

    fn to_key<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.key.clone().unbind().into_bound(py))
    }

    fn encode(&self, _: Python<'_>) -> PyResult<Option<Vec<u8>>> {
        encode_object(self.key)
    }
}

/// The key of a call that is more than one plain argument.
#[pyclass(frozen, module = "cache._native")]
pub(crate) struct CallKey {
    /// Which of the functions that share the cache.
    number: u32,
    typed: bool,
    form: Form,
}

enum Form {
    /// The positional arguments, then those given by name, by ascending name.
    Plain { values: Box<[Py<PyAny>]>, names: Box<[Py<PyString>]> },
    /// The canonical encoding of the arguments, and the types it names. `is_stable`: another process will
    /// find the same types under these names.
    /// `of_one_call`: the class of an argument that is part of no other call.
    ByValue { bytes: Box<[u8]>, types: Box<[Py<PyAny>]>, is_stable: bool, of_one_call: Option<Py<PyType>> },
}

#[pymethods]
impl CallKey {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match &self.form {
            // Plain objects refer to nothing.
            Form::Plain { .. } => Ok(()),
            Form::ByValue { types, of_one_call, .. } => {
                types.iter().try_for_each(|class| visit.call(class))?;
                visit.call(of_one_call)
            }
        }
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let Form::Plain { values, names } = &self.form else { return Ok("(arguments by value)".to_owned()) };
        let positional = values.len() - names.len();
        let mut parts = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let value = value.bind(py).invoke_repr()?;
            parts.push(match index.checked_sub(positional) {
                None => value.to_string(),
                Some(at) => format!("{}={value}", names[at].bind(py)),
            });
        }
        Ok(format!("({})", parts.join(", ")))
    }
}

impl CallKey {
    /// Whether it was made of arguments that may have changed since.
    pub(crate) fn may_change(&self) -> bool {
        matches!(self.form, Form::ByValue { .. })
    }

    /// The class of an argument that belongs to one call, so that there is no use in storing its result.
    pub(crate) fn of_one_call(&self) -> Option<&Py<PyType>> {
        match &self.form {
            Form::Plain { .. } => None,
            Form::ByValue { of_one_call, .. } => of_one_call.as_ref(),
        }
    }

    /// Whether an argument is the number of an object. If that is not to be seen: whether it could be.
    fn may_have(&self, py: Python<'_>, number: u64) -> bool {
        match &self.form {
            Form::Plain { values, .. } => values.iter().any(|value| is_number(value.bind(py), number)),
            Form::ByValue { .. } => true,
        }
    }

    fn same(&self, py: Python<'_>, other: &Self) -> bool {
        if self.number != other.number {
            return false;
        }
        match (&self.form, &other.form) {
            (Form::Plain { values: a, names: a_names }, Form::Plain { values: b, names: b_names }) => {
                a.len() == b.len()
                    && a_names.len() == b_names.len()
                    && a_names.iter().zip(b_names).all(|(a, b)| same_name(a.bind(py), b.bind(py)))
                    && a.iter().zip(b).all(|(a, b)| same_value(a.bind(py), b.bind(py), self.typed))
            }
            (
                Form::ByValue { bytes: a, types: a_types, .. },
                Form::ByValue { bytes: b, types: b_types, .. },
            ) => {
                a == b && a_types.len() == b_types.len() && a_types.iter().zip(b_types).all(|(a, b)| a.is(b))
            }
            _ => false,
        }
    }

    fn encode(&self, py: Python<'_>) -> PyResult<Option<Vec<u8>>> {
        match &self.form {
            // A class may have been replaced by another of its name since the key was made.
            Form::ByValue { bytes, types, is_stable, .. } => {
                let is_stable = *is_stable && types.iter().all(|class| codec::is_found(class.bind(py)));
                Ok(is_stable.then(|| bytes.to_vec()))
            }
            Form::Plain { values, names } => {
                let values: Vec<_> = values.iter().map(|value| value.bind(py).clone()).collect();
                let names: Vec<_> = names.iter().map(|name| name.bind(py).clone()).collect();
                let mut found = codec::Found::default();
                let bytes = encode_call(&values, &names, self.typed, &mut found)?;
                Ok(found.is_stable().then_some(bytes))
            }
        }
    }
}

fn same_name(a: &Bound<'_, PyString>, b: &Bound<'_, PyString>) -> bool {
    a.is(b) || equal(a.as_any(), b.as_any())
}

fn same_value(a: &Bound<'_, PyAny>, b: &Bound<'_, PyAny>, typed: bool) -> bool {
    (!typed || a.get_type().is(b.get_type())) && quick(a, b, 0) == Some(true)
}

fn is_number(value: &Bound<'_, PyAny>, number: u64) -> bool {
    value.is_exact_instance_of::<PyInt>() && value.extract::<u64>().is_ok_and(|value| value == number)
}

/// An entry or a load of the object that has a number, known by its hash: see `instances`. Of a key by value
/// nothing but the hash is looked at: one in billions is another object's, which is a miss there.
pub(crate) struct OfInstance {
    pub(crate) number: u64,
    pub(crate) hash: u64,
}

impl Probe for OfInstance {
    fn hash(&self) -> u64 {
        self.hash
    }

    fn quick(&self, py: Python<'_>, known: &Ref) -> Option<bool> {
        let known = known.bind(py);
        Some(match known.cast_exact::<CallKey>() {
            Ok(call) => call.get().may_have(py, self.number),
            Err(_) => is_number(known, self.number),
        })
    }

    fn ask(&self, _: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(false)
    }

    fn to_key<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.number.into_pyobject(py)?.into_any())
    }

    fn encode(&self, _: Python<'_>) -> PyResult<Option<Vec<u8>>> {
        Ok(None)
    }
}

/// A call as a file has it: one positional argument is itself, anything else is told from that by an extension
/// type.
fn encode_call(
    values: &[Bound<'_, PyAny>],
    names: &[Bound<'_, PyString>],
    typed: bool,
    found: &mut codec::Found,
) -> PyResult<Vec<u8>> {
    let mut bytes = Vec::with_capacity(64);
    if let ([value], []) = (values, names)
        && !typed
    {
        codec::encode_by_value(value, &mut bytes, found)?;
        return Ok(bytes);
    }
    let mut body = Vec::with_capacity(64);
    let positional = values.len() - names.len();
    write_count(&mut body, positional)?;
    for (index, value) in values.iter().enumerate() {
        if let Some(at) = index.checked_sub(positional) {
            codec::encode_by_value(names[at].as_any(), &mut body, found)?;
        }
        if typed {
            codec::encode_by_value(value.get_type().as_any(), &mut body, found)?;
        }
        codec::encode_by_value(value, &mut body, found)?;
    }
    let kind = if typed { codec::TYPED_CALL } else { codec::CALL };
    let len = u32::try_from(body.len())
        .map_err(|_| pyo3::exceptions::PyValueError::new_err("the arguments take more than 4 GiB"))?;
    rmp::encode::write_ext_meta(&mut bytes, len, kind).map_err(codec::out_of_memory)?;
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

fn write_count(out: &mut Vec<u8>, count: usize) -> PyResult<()> {
    rmp::encode::write_uint(out, count as u64).map(drop).map_err(codec::out_of_memory)
}

/// A call that is looked for.
pub(crate) enum CallProbe<'a, 'py> {
    /// One plain positional argument of the only function of its cache.
    One(ObjectKey<'a, 'py>),
    /// Plain arguments.
    Plain(PlainCall<'a, 'py>),
    /// Anything else: its key is made at once.
    Made(Bound<'py, CallKey>, u64),
    /// A key that Python made, and compares.
    ByPython(Bound<'py, PyAny>, u64),
}

pub(crate) struct PlainCall<'a, 'py> {
    args: &'a Args,
    names: Option<&'a Bound<'py, PyTuple>>,
    skip: usize,
    number: u32,
    typed: bool,
    hash: u64,
}

impl<'a, 'py> CallProbe<'a, 'py> {
    /// The key of a call with these arguments, if all of them are plain.
    #[inline]
    pub(crate) fn at_once(
        py: Python<'py>,
        seed: u64,
        (number, typed, skip): (u32, bool, usize),
        args: &'a Args,
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
        // In any order: the sum of what each name and value come to.
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
        args: &'a Args,
        names: Option<&'a Bound<'py, PyTuple>>,
    ) -> PyResult<Self> {
        if let Some(probe) = Self::at_once(py, seed, (number, typed, skip), args, names) {
            return Ok(probe);
        }
        let all = args.as_slice();
        let skip = skip.min(all.len() - names.map_or(0, PyTupleMethods::len));
        let all = &all[skip..];
        let (values, names) = in_order(py, all, names)?;
        let mut found = codec::Found::default();
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

impl<'py> CallProbe<'_, 'py> {
    /// The key that a Python function makes of the arguments.
    pub(crate) fn made_by(
        make: &Bound<'py, PyAny>,
        seed: u64,
        skip: usize,
        args: &Args,
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

/// Names of arguments as exact strings: in `f(**{name: value})` a name may be of a subclass, whose comparison is
/// Python code.
pub(crate) fn exact_names<'py>(names: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyTuple>> {
    if names.iter_borrowed().all(|name| name.is_exact_instance_of::<PyString>()) {
        return Ok(names.clone());
    }
    let copy = names.py().get_type::<PyString>().getattr("__str__")?;
    let exact = names.iter_borrowed().map(|name| copy.invoke1(&name));
    PyTuple::new(names.py(), exact.collect::<PyResult<Vec<_>>>()?)
}

type Ordered<'py> = (Vec<Bound<'py, PyAny>>, Vec<Bound<'py, PyString>>);

/// The arguments with those given by name behind, by ascending name.
fn in_order<'py>(
    py: Python<'py>,
    args: &[Ref],
    names: Option<&Bound<'py, PyTuple>>,
) -> PyResult<Ordered<'py>> {
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

impl Probe for CallProbe<'_, '_> {
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
            // A `CallKey` is plain to nobody, so it is equal to itself only.
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
                codec::encode_by_value(key.object, &mut bytes, &mut codec::Found::default())?;
                Ok(Some(bytes))
            }
            Self::Made(key, _) => key.get().encode(py),
            Self::ByPython(key, _) => encode_object(key),
            Self::Plain(_) => encode_object(&self.to_key(py)?),
        }
    }
}

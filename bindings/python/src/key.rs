//! Keys: the objects in the store, and look-ups.
//!
//! The store holds one Python object for a key: the object that the user passed to `AsyncCache`; or
//! for a decorated function the argument itself, if the call has a single plain argument, and
//! otherwise a [`CallKey`].
//!
//! - Plain objects are compared while the store is borrowed: see `plain`.
//! - All others are compared by Python with nothing borrowed: see `Cache::address`.
//! - Calls are compared by value: see `call_key`.

use pyo3::prelude::*;

use crate::call_key::{CallKey, is_number};
use crate::codec;
use crate::plain::{DEPTH, hash_of, hash_of_plain, is_plain, mix, plain_hash, quick};
use crate::raw::Ref;
use crate::raw::calls::Invoke;

/// A key to look up.
pub(crate) trait Query {
    /// Well mixed in all bits.
    fn hash(&self) -> u64;
    /// Whether a stored key is equal, if this can be decided without running Python code.
    fn quick(&self, py: Python<'_>, known: &Ref) -> Option<bool>;
    /// Whether a stored key is equal, by Python's comparison.
    fn ask(&self, known: &Bound<'_, PyAny>) -> PyResult<bool>;
    /// The object to be stored.
    fn to_key<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>>;
    /// The key in the form for a file; `None` if no other process could find it in any form.
    fn encode(&self, py: Python<'_>) -> PyResult<Option<Vec<u8>>>;
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

    /// [`ObjectKey::new`] of an argument that is compared directly; `None` for other arguments.
    #[inline]
    pub(crate) fn of_plain_argument(seed: u64, object: &'a Bound<'py, PyAny>) -> Option<Self> {
        Some(Self { object, hash: mix(seed, plain_hash(object)?) })
    }

    /// [`ObjectKey::new`] of a plain object; `None` for other objects.
    #[inline]
    pub(crate) fn of_plain(seed: u64, object: &'a Bound<'py, PyAny>) -> Option<Self> {
        if is_plain(object) { Some(Self { object, hash: mix(seed, hash_of_plain(object)?) }) } else { None }
    }
}

impl Query for ObjectKey<'_, '_> {
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

pub(crate) fn encode_object(object: &Bound<'_, PyAny>) -> PyResult<Option<Vec<u8>>> {
    if let Ok(call) = object.cast_exact::<CallKey>() {
        return call.get().encode(object.py());
    }
    let mut bytes = Vec::with_capacity(64);
    Ok(codec::encode_key(object, &mut bytes)?.then_some(bytes))
}

/// Appends [`Query::encode`] of a stored key. False: there is none, and `out` is unchanged.
pub(crate) fn append_encoded(object: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<bool> {
    if object.is_exact_instance_of::<CallKey>() {
        return Ok(encode_object(object)?.map(|bytes| out.extend_from_slice(&bytes)).is_some());
    }
    codec::encode_key(object, out)
}

/// A key that is already in the store or in a flight, looked up again.
pub(crate) struct StoredKey<'a, 'py> {
    pub(crate) key: &'a Bound<'py, PyAny>,
    pub(crate) hash: u64,
}

impl Query for StoredKey<'_, '_> {
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

/// An entry or a load of the object with the given number, identified by its hash: see `instances`.
/// For a key by value only the hash is compared: one in billions belongs to another object, which
/// causes a miss there.
pub(crate) struct OfInstance {
    pub(crate) number: u64,
    pub(crate) hash: u64,
}

impl Query for OfInstance {
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

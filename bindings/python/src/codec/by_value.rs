//! Arguments of decorated functions, by value: two calls share a result if their arguments have the same
//! bytes and, in memory, name the same types.
//!
//! Rules:
//! 1. Numbers, strings and whatever else a key may be are as in keys, but a class that inherits from one of
//!    these is not its base. Lists are as tuples, frozensets as sets; dicts and sets are in the order of
//!    bytes.
//! 2. Any other object is its class's name with all that it holds: see `object`.
//! 3. What shows nothing of itself (a lambda, an `object()`) is itself: it is kept in [`Found`], which makes
//!    it unlike all others, and the encoding unstable.
//! 4. The walk may run Python code (`__getattr__`, `__reduce_ex__`, `__repr__`); what it raises propagates, but
//!    for an object that says it cannot be reduced.
//! 5. What is shared is written as often as it is met, for it equals what is not shared. So the number of
//!    parts has a bound: a few shared lists can come to more of them than anybody has time for.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyComplex, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString,
    PyTuple, PyType,
};

use super::key::{write_enum, write_known, write_text};
use super::names::Name;
use super::object::write_object;
use super::{atom, ext, number, write};

/// How deep arguments nest.
const MAX_DEPTH: usize = 64;
/// How many parts an argument has, one that is shared as often as it is met: some seconds of work.
const MAX_PARTS: u32 = 1 << 24;

/// What an encoding by value refers to.
#[derive(Default)]
pub(crate) struct Found {
    objects: Vec<Py<PyAny>>,
    is_unstable: bool,
    parts: u32,
}

impl Found {
    /// Whether every name in the encoding leads to what was met under it, so that another process will find
    /// the same there.
    pub(crate) fn is_stable(&self) -> bool {
        !self.is_unstable
    }

    /// The classes, functions and modules that were met, and objects that are known by identity only, in the
    /// order of the encoding.
    pub(crate) fn into_types(self) -> Vec<Py<PyAny>> {
        self.objects
    }

    pub(super) fn named<'py>(&mut self, name: &Name<'py>, object: &Bound<'py, PyAny>) {
        self.is_unstable |= !name.leads_to(object);
        self.objects.push(object.clone().unbind());
    }

    /// The object is known by its identity.
    pub(super) fn itself(&mut self, object: &Bound<'_, PyAny>) {
        self.is_unstable = true;
        self.objects.push(object.clone().unbind());
    }

    fn count_part(&mut self) -> PyResult<()> {
        self.parts += 1;
        if self.parts <= MAX_PARTS {
            return Ok(());
        }
        let what = format!(
            "an argument has more than {MAX_PARTS} parts, or holds some of them so often that it comes to \
             that: leave it out of the key (skip_args=1, if it is the first), or pass something smaller"
        );
        Err(PyValueError::new_err(what))
    }

    /// For a part of it whose place is not known yet.
    fn branch(&self) -> Self {
        Self { parts: self.parts, ..Self::default() }
    }

    fn append(&mut self, mut other: Self) {
        self.objects.append(&mut other.objects);
        self.is_unstable |= other.is_unstable;
    }
}

/// Appends an argument.
pub(crate) fn encode_by_value(
    argument: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    found: &mut Found,
) -> PyResult<()> {
    let start = out.len();
    write_any(argument, out, found, 0).inspect_err(|_| out.truncate(start))
}

pub(super) fn write_any(
    value: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    found: &mut Found,
    depth: usize,
) -> PyResult<()> {
    if depth > MAX_DEPTH {
        let what = format!(
            "an argument nests deeper than {MAX_DEPTH} levels, or contains itself; if it is self, \
             skip_args=1 leaves it out of the key"
        );
        return Err(PyValueError::new_err(what));
    }
    found.count_part()?;
    if is_base(value) {
        return write_base(value, out, found, depth).map(drop);
    }
    if let Some(class) = write_enum(value, out)? {
        found.objects.push(class.class.into_any().unbind());
        found.is_unstable |= !class.is_importable;
        return Ok(());
    }
    let start = out.len();
    if write_known(value, out)? {
        return Ok(());
    }
    out.truncate(start);
    write_object(value, out, found, depth)
}

/// Exactly one of the types that [`write_base`] knows.
fn is_base(value: &Bound<'_, PyAny>) -> bool {
    value.is_exact_instance_of::<PyString>()
        || value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_exact_instance_of::<PyList>()
        || value.is_exact_instance_of::<PyTuple>()
        || value.is_exact_instance_of::<PyDict>()
        || value.is_exact_instance_of::<PyBool>()
        || value.is_exact_instance_of::<PyBytes>()
        || value.is_exact_instance_of::<PySet>()
        || value.is_exact_instance_of::<PyFrozenSet>()
        || value.is_exact_instance_of::<PyByteArray>()
        || value.is_exact_instance_of::<PyComplex>()
}

/// The type that [`write_base`] knows and that the object is, or inherits from.
pub(super) fn base_of<'py>(value: &Bound<'py, PyAny>) -> Option<Bound<'py, PyType>> {
    macro_rules! first {
        ($($base:ty),*) => {
            $(if value.is_instance_of::<$base>() {
                return Some(value.py().get_type::<$base>());
            })*
        };
    }
    first!(
        PyString,
        PyInt,
        PyFloat,
        PyList,
        PyTuple,
        PyDict,
        PyBytes,
        PyByteArray,
        PySet,
        PyFrozenSet,
        PyComplex
    );
    None
}

/// Appends the content of a built-in type, or of what inherits from it; false if it is neither.
pub(super) fn write_base(
    value: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    found: &mut Found,
    depth: usize,
) -> PyResult<bool> {
    if let Ok(value) = value.cast::<PyString>() {
        write_text(value, out)?;
    } else if value.is_instance_of::<PyInt>() {
        number::write_int(value, out, usize::MAX)?;
    } else if let Ok(value) = value.cast::<PyFloat>() {
        if !number::write_float_key(value.py(), value.value(), out)? {
            write::float(out, f64::NAN);
        }
    } else if let Ok(list) = value.cast::<PyList>() {
        // Encoding may run code that changes the list.
        write_items(&list.iter().collect::<Vec<_>>(), out, found, depth)?;
    } else if let Ok(tuple) = value.cast::<PyTuple>() {
        write_items(&tuple.iter().collect::<Vec<_>>(), out, found, depth)?;
    } else if let Ok(dict) = value.cast::<PyDict>() {
        write_dict(dict, out, found, depth)?;
    } else if let Ok(bytes) = value.cast::<PyBytes>() {
        write::binary(out, bytes.as_bytes())?;
    } else if let Ok(bytes) = value.cast::<PyByteArray>() {
        write::ext(out, ext::BYTEARRAY, &bytes.to_vec())?;
    } else if let Ok(set) = value.cast::<PySet>() {
        write_set(set.iter().collect(), out, found, depth)?;
    } else if let Ok(set) = value.cast::<PyFrozenSet>() {
        write_set(set.iter().collect(), out, found, depth)?;
    } else if let Ok(complex) = value.cast::<PyComplex>() {
        write_complex(complex, out)?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

fn write_complex(value: &Bound<'_, PyComplex>, out: &mut Vec<u8>) -> PyResult<()> {
    use pyo3::types::PyComplexMethods;
    if number::write_complex_key(value, out)? {
        return Ok(());
    }
    let part = |part: f64| if part.is_nan() { f64::NAN } else { part + 0.0 };
    atom::write_complex(part(value.real()), part(value.imag()), out)
}

pub(super) fn write_items(
    items: &[Bound<'_, PyAny>],
    out: &mut Vec<u8>,
    found: &mut Found,
    depth: usize,
) -> PyResult<()> {
    write::array(out, items.len())?;
    items.iter().try_for_each(|item| write_any(item, out, found, depth + 1))
}

/// Appends parts in the order of their bytes, with what was found in them in the same order.
fn write_sorted(mut parts: Vec<(Vec<u8>, Found)>, out: &mut Vec<u8>, found: &mut Found) {
    parts.sort_by(|a, b| a.0.cmp(&b.0));
    for (bytes, part_found) in parts {
        out.extend_from_slice(&bytes);
        found.append(part_found);
    }
}

fn write_set(
    items: Vec<Bound<'_, PyAny>>,
    out: &mut Vec<u8>,
    found: &mut Found,
    depth: usize,
) -> PyResult<()> {
    let mut parts = Vec::with_capacity(items.len());
    for item in items {
        let (mut bytes, mut part_found) = (Vec::new(), found.branch());
        write_any(&item, &mut bytes, &mut part_found, depth + 1)?;
        found.parts = part_found.parts;
        parts.push((bytes, part_found));
    }
    let start = out.len();
    write::array(out, parts.len())?;
    write_sorted(parts, out, found);
    write::close_ext(out, ext::FROZENSET, start)
}

pub(super) fn write_dict(
    dict: &Bound<'_, PyDict>,
    out: &mut Vec<u8>,
    found: &mut Found,
    depth: usize,
) -> PyResult<()> {
    // Encoding may run code that changes the dict.
    write_pairs(dict.iter().collect(), out, found, depth)
}

/// Appends a map in the order of bytes.
pub(super) fn write_pairs(
    pairs: Vec<(Bound<'_, PyAny>, Bound<'_, PyAny>)>,
    out: &mut Vec<u8>,
    found: &mut Found,
    depth: usize,
) -> PyResult<()> {
    let mut parts = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        let (mut bytes, mut part_found) = (Vec::new(), found.branch());
        write_any(&key, &mut bytes, &mut part_found, depth + 1)?;
        write_any(&value, &mut bytes, &mut part_found, depth + 1)?;
        found.parts = part_found.parts;
        parts.push((bytes, part_found));
    }
    write::map(out, parts.len())?;
    write_sorted(parts, out, found);
    Ok(())
}

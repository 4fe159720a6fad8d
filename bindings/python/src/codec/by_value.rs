//! Arguments of decorated functions, by value: two calls share a result if their arguments have the same
//! bytes and, in memory, name the same types.
//!
//! Rules:
//! 1. Numbers, strings and whatever else a key may be are as in keys, but a class that inherits from one of
//!    these is not its base. Lists are as tuples, frozensets as sets; dicts and sets are in the order of
//!    bytes.
//! 2. Any other object is its class's name with its attributes; without attributes its content, as far as it
//!    shows it (as a buffer or by `repr`).
//! 3. What shows nothing of itself (a lambda, an `object()`) is itself: it is kept in [`Found`], which makes
//!    it unlike all others, and the encoding unstable.
//! 4. The walk may run Python code (`__getattr__`, `__repr__`); whatever it raises propagates.

use pyo3::exceptions::{PyBaseException, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyCFunction, PyComplex, PyDict, PyFloat, PyFrozenSet, PyFunction, PyInt,
    PyList, PyMemoryView, PyModule, PySet, PyString, PyTuple, PyType,
};

use super::key::{write_enum, write_known, write_text};
use super::names::{self, Name};
use super::{atom, ext, number, types, write};

/// How deep arguments nest.
const MAX_DEPTH: usize = 64;

/// What an encoding by value refers to.
#[derive(Default)]
pub(crate) struct Found {
    objects: Vec<Py<PyAny>>,
    is_unstable: bool,
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

    fn named<'py>(&mut self, name: &Name<'py>, object: &Bound<'py, PyAny>) {
        self.is_unstable |= !name.leads_to(object);
        self.objects.push(object.clone().unbind());
    }

    fn itself(&mut self, object: &Bound<'_, PyAny>) {
        self.is_unstable = true;
        self.objects.push(object.clone().unbind());
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

fn write_any(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, found: &mut Found, depth: usize) -> PyResult<()> {
    if depth > MAX_DEPTH {
        let what = format!("an argument nests deeper than {MAX_DEPTH} levels, or contains itself");
        return Err(PyValueError::new_err(what));
    }
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

/// Appends the content of a built-in type, or of what inherits from it; false if it is neither.
fn write_base(
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

fn write_items(
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
        let (mut bytes, mut part_found) = (Vec::new(), Found::default());
        write_any(&item, &mut bytes, &mut part_found, depth + 1)?;
        parts.push((bytes, part_found));
    }
    let start = out.len();
    write::array(out, parts.len())?;
    write_sorted(parts, out, found);
    write::close_ext(out, ext::FROZENSET, start)
}

fn write_dict(dict: &Bound<'_, PyDict>, out: &mut Vec<u8>, found: &mut Found, depth: usize) -> PyResult<()> {
    let items: Vec<_> = dict.iter().collect();
    let mut parts = Vec::with_capacity(items.len());
    for (key, value) in items {
        let (mut bytes, mut part_found) = (Vec::new(), Found::default());
        write_any(&key, &mut bytes, &mut part_found, depth + 1)?;
        write_any(&value, &mut bytes, &mut part_found, depth + 1)?;
        parts.push((bytes, part_found));
    }
    write::map(out, parts.len())?;
    write_sorted(parts, out, found);
    Ok(())
}

/// Appends what is known by its name alone, or else everything that an object shows of itself.
fn write_object(
    value: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    found: &mut Found,
    depth: usize,
) -> PyResult<()> {
    let start = out.len();
    let is_module = value.is_instance_of::<PyModule>();
    if is_module
        || value.is_instance_of::<PyType>()
        || value.is_instance_of::<PyFunction>()
        || value.is_instance_of::<PyCFunction>()
    {
        let name = if is_module { Name::of_module(value)? } else { Name::of(value) };
        names::write_body(&name, out)?;
        found.named(&name, value);
        return write::close_ext(out, ext::REFERENCE, start);
    }
    let class = value.get_type();
    let name = Name::of(&class);
    write::array(out, 4)?;
    name.write(out)?;
    found.named(&name, &class);
    let has_content = write_content(value, out, found, depth)?;
    write_state(value, has_content, out, found, depth)?;
    write::close_ext(out, ext::OBJECT, start)
}

/// Appends what an object holds besides attributes, or nil; says whether it was anything.
fn write_content(
    value: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    found: &mut Found,
    depth: usize,
) -> PyResult<bool> {
    let py = value.py();
    if write_base(value, out, found, depth)? {
        return Ok(true);
    }
    // Classes that are written in C and keep something out of `vars`.
    let hidden: &[&str] = if value.is_instance_of::<PyBaseException>() {
        &["args"]
    } else if value.is_instance(types::partial(py)?)? {
        &["func", "args", "keywords"]
    } else if types::is_exactly(value, types::method(py)?) {
        &["__func__", "__self__"]
    } else {
        &[]
    };
    if hidden.is_empty() {
        write::nil(out);
        return Ok(false);
    }
    let hidden = hidden.iter().map(|name| value.getattr(*name)).collect::<PyResult<Vec<_>>>()?;
    write_items(&hidden, out, found, depth)?;
    Ok(true)
}

/// Appends the attributes as a map; without any, a text that shows the object, or nil.
fn write_state(
    value: &Bound<'_, PyAny>,
    has_content: bool,
    out: &mut Vec<u8>,
    found: &mut Found,
    depth: usize,
) -> PyResult<()> {
    let py = value.py();
    let is_method = types::is_exactly(value, types::method(py)?);
    // A method answers for its function.
    let own = if is_method { None } else { value.getattr_opt(intern!(py, "__dict__"))? };
    let own = own.and_then(|own| own.cast_into::<PyDict>().ok());
    let attributes = match &own {
        Some(own) => own.copy()?,
        None => PyDict::new(py),
    };
    for slot in types::slot_names(py)?.call1((value.get_type(),))?.try_iter()? {
        let slot = slot?.cast_into::<PyString>()?;
        if let Some(content) = value.getattr_opt(&slot)? {
            attributes.set_item(slot, content)?;
        }
    }
    if !attributes.is_empty() {
        return write_dict(&attributes, out, found, depth);
    }
    if has_content {
        write::nil(out);
        return Ok(());
    }
    if write_buffer(value, out, found, depth)? {
        return Ok(());
    }
    let shows_itself = intern!(py, "__repr__");
    if !value.get_type().getattr(shows_itself)?.is(&py.get_type::<PyAny>().getattr(shows_itself)?) {
        return write_text(&value.repr()?, out);
    }
    // The `repr` of `object` is an address. With room for attributes but none set, the object is like any
    // other of its class; without, all it has is its identity.
    if own.is_none() {
        found.itself(value);
    }
    write::nil(out);
    Ok(())
}

/// Appends the content of an object that is a buffer: an array, whose `repr` may leave out its middle.
fn write_buffer(
    value: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    found: &mut Found,
    depth: usize,
) -> PyResult<bool> {
    let Ok(view) = PyMemoryView::from(value) else { return Ok(false) };
    let format = view.getattr("format")?;
    // A buffer of references says nothing about what they lead to.
    let items =
        if format.contains("O")? { value.getattr_opt("tolist")? } else { Some(view.getattr("tobytes")?) };
    let Some(items) = items else { return Ok(false) };
    write_items(&[format, view.getattr("shape")?, items.call0()?], out, found, depth)?;
    Ok(true)
}

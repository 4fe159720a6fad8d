//! Keys of an `AsyncCache`: equal keys, and only equal keys, have the same bytes.
//!
//! Rules:
//! 1. A class has an encoding only if its equality is known: the types below, subclasses that do
//!    not define `__eq__` and `__hash__`, and numpy's scalars.
//! 2. Keys equal across types (1, 1.0, True; paths of one flavour) have the encoding of the value.
//! 3. In doubt there is no encoding. Two equal keys, one of them without an encoding, are a miss;
//!    two keys with the same encoding would be a wrong value.
//! 4. Nothing depends on a hash, an address or the order of a set.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyComplex, PyFloat, PyFrozenSet, PyInt, PyString, PyTuple, PyType};

use super::names::QualifiedName;
use super::text::write_text;
use super::{MAX_DEPTH, atom, ext, heirs, number, time, types, write};
use crate::raw::calls::Invoke;

/// Appends the canonical encoding of a key. False: the key has no encoding, and `out` is unchanged.
pub(crate) fn encode_key(key: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<bool> {
    let start = out.len();
    let done = write_key(key, out, 0);
    if !matches!(done, Ok(true)) {
        out.truncate(start);
    }
    done
}

fn write_key(key: &Bound<'_, PyAny>, out: &mut Vec<u8>, depth: usize) -> PyResult<bool> {
    if let Ok(key) = key.cast_exact::<PyString>() {
        write_text(key, out)?;
        Ok(true)
    } else if key.is_exact_instance_of::<PyInt>() {
        number::write_int(key, out, number::MAX_KEY_INT)
    } else if let Ok(key) = key.cast_exact::<PyTuple>() {
        write_tuple(key, out, depth)
    } else if write_known(key, out)? {
        Ok(true)
    } else if let Some(base) = heirs::as_base(key)? {
        write_known(&base, out)
    } else if let Some(item) = heirs::as_item(key)? {
        write_key(&item, out, depth)
    } else {
        write_as_base(key, out, depth)
    }
}

/// Appends a key that is not nested and depends only on its value.
pub(super) fn write_known(key: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<bool> {
    if let Ok(key) = key.cast_exact::<PyFloat>() {
        return number::write_float_key(key.py(), key.value(), out);
    }
    if let Ok(key) = key.cast_exact::<PyBytes>() {
        write::binary(out, key.as_bytes())?;
        return Ok(true);
    }
    if key.is_none() {
        write::nil(out);
        return Ok(true);
    }
    if number::write_number_key(key, out)? || time::write_canonical(key, out)? || atom::write_uuid(key, out)?
    {
        return Ok(true);
    }
    if write_path(key, out)? {
        return Ok(true);
    }
    // A member of a class that no other process would find is a key of this process only.
    write_enum(key, out)
}

/// Appends the elements of a tuple, or of an object of a subclass.
fn write_tuple(key: &Bound<'_, PyTuple>, out: &mut Vec<u8>, depth: usize) -> PyResult<bool> {
    if depth >= MAX_DEPTH {
        return Ok(false);
    }
    write::array(out, key.len())?;
    for item in key.iter_borrowed() {
        if !write_key(&item, out, depth + 1)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn write_frozenset(key: &Bound<'_, PyFrozenSet>, out: &mut Vec<u8>, depth: usize) -> PyResult<bool> {
    if depth >= MAX_DEPTH {
        return Ok(false);
    }
    let mut items = Vec::with_capacity(key.len());
    for item in key.iter() {
        let mut bytes = Vec::new();
        if !write_key(&item, &mut bytes, depth + 1)? {
            return Ok(false);
        }
        items.push(bytes);
    }
    items.sort_unstable();
    let start = out.len();
    write::array(out, items.len())?;
    for item in items {
        out.extend_from_slice(&item);
    }
    write::close_ext(out, ext::FROZENSET, start)?;
    Ok(true)
}

/// Appends an object whose class inherits equality from a base with an encoding.
fn write_as_base(key: &Bound<'_, PyAny>, out: &mut Vec<u8>, depth: usize) -> PyResult<bool> {
    let py = key.py();
    let equals_as = |base: Bound<'_, PyType>| heirs::equals_as(key, &base);
    if let Ok(set) = key.cast::<PyFrozenSet>() {
        Ok(equals_as(py.get_type::<PyFrozenSet>())? && write_frozenset(set, out, depth)?)
    } else if let Ok(tuple) = key.cast::<PyTuple>() {
        Ok(equals_as(py.get_type::<PyTuple>())? && write_tuple(tuple, out, depth)?)
    } else if let Ok(text) = key.cast::<PyString>() {
        Ok(equals_as(py.get_type::<PyString>())? && write_text(text, out).map(|()| true)?)
    } else if let Ok(bytes) = key.cast::<PyBytes>() {
        Ok(equals_as(py.get_type::<PyBytes>())? && write::binary(out, bytes.as_bytes()).map(|()| true)?)
    } else if key.is_instance_of::<PyInt>() {
        Ok(equals_as(py.get_type::<PyInt>())? && number::write_int(key, out, number::MAX_KEY_INT)?)
    } else if let Ok(float) = key.cast::<PyFloat>() {
        Ok(equals_as(py.get_type::<PyFloat>())? && number::write_float_key(py, float.value(), out)?)
    } else if let Ok(complex) = key.cast::<PyComplex>() {
        Ok(equals_as(py.get_type::<PyComplex>())? && number::write_complex_key(complex, out)?)
    } else {
        Ok(false)
    }
}

/// Paths are equal if their flavours and texts are; paths of Windows ignore case.
fn write_path(key: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<bool> {
    let py = key.py();
    let is = |class| types::is_exactly(key, class);
    let (flavour, text) = if is(types::pure_posix_path(py)?) || is(types::posix_path(py)?) {
        ("posix", key.invoke_str()?)
    } else if is(types::pure_windows_path(py)?) || is(types::windows_path(py)?) {
        ("windows", key.invoke_str()?.invoke_method0(intern!(py, "lower"))?.cast_into()?)
    } else {
        return Ok(false);
    };
    let start = out.len();
    write::array(out, 2)?;
    write::text(out, flavour)?;
    write_text(&text, out)?;
    write::close_ext(out, ext::PATH, start)?;
    Ok(true)
}

/// The name of an enum member, if members are equal to themselves only and the name leads to the
/// member.
pub(super) fn member_name<'py>(key: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyString>>> {
    let py = key.py();
    let base = types::enumeration(py)?;
    let class = key.get_type();
    let has_own = |name: &Bound<'py, PyString>, of: &Bound<'py, PyAny>| -> PyResult<bool> {
        Ok(!class.getattr(name)?.is(&of.getattr(name)?))
    };
    let object = py.get_type::<PyAny>();
    if has_own(intern!(py, "__eq__"), &object)? || has_own(intern!(py, "__hash__"), base)? {
        return Ok(None);
    }
    let name = key.getattr(intern!(py, "_name_"))?;
    let Ok(name) = name.cast_into::<PyString>() else { return Ok(None) };
    // A combination of flags has a name that leads nowhere.
    let members = class.getattr(intern!(py, "_member_map_"))?;
    Ok(members.get_item(&name).is_ok_and(|member| member.is(key)).then_some(name))
}

/// Appends a member of an enum that another process would find. False for other objects.
fn write_enum(key: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<bool> {
    if !key.is_instance(types::enumeration(key.py())?)? {
        return Ok(false);
    }
    let class = key.get_type();
    let class_name = QualifiedName::of(&class);
    let Some(name) = member_name(key)? else { return Ok(false) };
    if !class_name.leads_to(&class) {
        return Ok(false);
    }
    let start = out.len();
    write::array(out, 3)?;
    class_name.write(out)?;
    write_text(&name, out)?;
    write::close_ext(out, ext::ENUM, start)?;
    Ok(true)
}

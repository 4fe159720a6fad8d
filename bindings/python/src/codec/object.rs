//! Objects of any class, by value: the name of the class with all that the object holds.
//!
//! Rules:
//! 1. Its *content* is what it holds besides attributes: what its built-in base holds; what it says to `pickle`,
//!    if it may hide something (see [`hides`]). Its *state* is its attributes. Nothing is left out because there
//!    is something else: an amount that inherits from `Decimal` is its digits and its currency.
//! 2. What hides something and does not say what, is its bytes, if it is a buffer, or its `repr`, if that could
//!    be an expression; texts in angle brackets and addresses describe an object, and describe others, too.
//! 3. Else it is itself, and like no other.

use pyo3::exceptions::PyBaseException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyCFunction, PyDict, PyFrozenSet, PyFunction, PyMemoryView, PyModule, PyString, PyTuple, PyType,
};

use super::by_value::{Found, base_of, write_any, write_base, write_dict, write_items, write_pairs};
use super::key::write_text;
use super::names::{self, Name};
use super::reduce::{Reduced, hides, reduce};
use super::{ext, types, write};

/// What an object holds besides attributes.
enum Content<'py> {
    /// Nothing.
    None,
    /// What its built-in base holds.
    Base,
    /// These parts.
    Items(Vec<Bound<'py, PyAny>>),
    /// What it says to `pickle`.
    Reduced(Bound<'py, PyTuple>),
    /// Something that it shows by these parts, or by a text.
    Buffer([Bound<'py, PyAny>; 3]),
    Text(Bound<'py, PyString>),
    /// Something that it does not show.
    Itself,
}

/// Appends what is known by its name alone, or else everything that an object shows of itself.
pub(super) fn write_object(
    value: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    found: &mut Found,
    depth: usize,
) -> PyResult<()> {
    if value.is_instance_of::<PyModule>() {
        return write_reference(&Name::of_module(value)?, value, out, found);
    }
    if let Some((name, class)) = Name::of_class_method(value)? {
        // The method itself is made anew each time it is looked up.
        found.named(&Name::of(&class), &class);
        return write_name(&name, out);
    }
    if value.is_instance_of::<PyType>()
        || value.is_instance_of::<PyFunction>()
        || value.is_instance_of::<PyCFunction>()
    {
        return write_reference(&Name::of(value), value, out, found);
    }
    let attributes = attributes(value)?;
    let content = match known_content(value)? {
        Some(content) => content,
        None => match hidden_content(value)? {
            Ok(content) => content,
            Err(global) => return write_reference(&Name::of_global(value, global), value, out, found),
        },
    };
    let start = out.len();
    let class = value.get_type();
    let name = Name::of(&class);
    write::array(out, 4)?;
    name.write(out)?;
    found.named(&name, &class);
    write_content_and_state(value, &content, &attributes, out, found, depth)?;
    write::close_ext(out, ext::OBJECT, start)
}

fn write_reference<'py>(
    name: &Name<'py>,
    object: &Bound<'py, PyAny>,
    out: &mut Vec<u8>,
    found: &mut Found,
) -> PyResult<()> {
    found.named(name, object);
    write_name(name, out)
}

fn write_name(name: &Name<'_>, out: &mut Vec<u8>) -> PyResult<()> {
    let start = out.len();
    names::write_body(name, out)?;
    write::close_ext(out, ext::REFERENCE, start)
}

/// `vars` and slots.
fn attributes<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    let py = value.py();
    // A method answers for its function.
    let is_method = types::is_exactly(value, types::method(py)?);
    let own = if is_method { None } else { own_dict(value)? };
    let attributes = match own {
        Some(own) => own.copy()?,
        None => PyDict::new(py),
    };
    for slot in types::slot_names(py)?.call1((value.get_type(),))?.try_iter()? {
        let slot = slot?.cast_into::<PyString>()?;
        if let Some(content) = value.getattr_opt(&slot)? {
            attributes.set_item(slot, content)?;
        }
    }
    Ok(attributes)
}

fn own_dict<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyDict>>> {
    let own = value.getattr_opt(intern!(value.py(), "__dict__"))?;
    Ok(own.and_then(|own| own.cast_into().ok()))
}

/// What classes hold that were written in C, and of which it is known.
fn known_content<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Content<'py>>> {
    let py = value.py();
    let class = value.get_type();
    let names: &[&str] = if value.is_instance(types::partial(py)?)? {
        &["func", "args", "keywords"]
    } else if types::is_exactly(value, types::method(py)?) {
        &["__func__", "__self__"]
    } else if value.is_instance_of::<PyBaseException>() {
        let (reduce, base) = (intern!(py, "__reduce__"), py.get_type::<PyBaseException>());
        if !class.getattr(reduce)?.is(&base.getattr(reduce)?) {
            return Ok(None);
        }
        &["args"]
    } else if types::is_exactly(value, types::mapping_proxy(py)?) {
        return Ok(Some(Content::Items(vec![
            PyDict::from_sequence(&value.call_method0("items")?)?.into_any(),
        ])));
    } else if value.is_instance(types::dict_keys(py)?)? {
        let keys = PyFrozenSet::new(py, value.try_iter()?.collect::<PyResult<Vec<_>>>()?)?;
        return Ok(Some(Content::Items(vec![keys.into_any()])));
    } else if value.is_instance(types::dict_values(py)?)? || value.is_instance(types::dict_items(py)?)? {
        return Ok(Some(Content::Items(value.try_iter()?.collect::<PyResult<_>>()?)));
    } else if is_array(value)? {
        return Ok(buffer(value)?.map(Content::Buffer));
    } else {
        return Ok(None);
    };
    let items = names.iter().map(|name| value.getattr(*name)).collect::<PyResult<_>>()?;
    Ok(Some(Content::Items(items)))
}

/// Whether a buffer shows all that there is to an object.
fn is_array(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    if value.is_instance_of::<PyMemoryView>() || types::is_exactly(value, types::array(value.py())?) {
        return Ok(true);
    }
    let class = value.get_type();
    Ok(class.name()? == "ndarray" && class.module()? == "numpy")
}

/// What an object holds besides attributes; `Err`: it is what is found under a name.
#[allow(clippy::type_complexity)] // said once
fn hidden_content<'py>(value: &Bound<'py, PyAny>) -> PyResult<Result<Content<'py>, Bound<'py, PyString>>> {
    let (py, class) = (value.py(), value.get_type());
    let base = base_of(value);
    if !hides(&class, base.as_ref())? {
        return Ok(Ok(if base.is_some() { Content::Base } else { Content::None }));
    }
    Ok(match reduce(value)? {
        Reduced::Parts(parts) => Ok(Content::Reduced(parts)),
        Reduced::Global(name) => Err(name),
        Reduced::Refused if value.is_instance_of::<PyBaseException>() => {
            Ok(Content::Items(vec![value.getattr(intern!(py, "args"))?]))
        }
        Reduced::Refused => Ok(if let Some(parts) = buffer(value)? {
            Content::Buffer(parts)
        } else {
            shown(value)?.map_or(Content::Itself, Content::Text)
        }),
    })
}

/// A `repr` that could be an expression.
fn shown<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyString>>> {
    let repr = value.repr()?;
    let text = repr.to_string_lossy();
    Ok((!text.starts_with('<') && !text.contains(" at 0x")).then_some(repr.clone()))
}

/// Format, shape and bytes of an object that is a buffer: an array, whose `repr` may leave out its middle. Its
/// items instead of bytes if it holds references, since addresses say nothing about what they lead to.
fn buffer<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<[Bound<'py, PyAny>; 3]>> {
    let Ok(view) = PyMemoryView::from(value) else { return Ok(None) };
    let format = view.getattr("format")?;
    let items =
        if format.contains("O")? { value.getattr_opt("tolist")? } else { Some(view.getattr("tobytes")?) };
    let Some(items) = items else { return Ok(None) };
    Ok(Some([format, view.getattr("shape")?, items.call0()?]))
}

/// Appends content and state. What shows an object as a whole is its state, if it has no attributes.
fn write_content_and_state(
    value: &Bound<'_, PyAny>,
    content: &Content<'_>,
    attributes: &Bound<'_, PyDict>,
    out: &mut Vec<u8>,
    found: &mut Found,
    depth: usize,
) -> PyResult<()> {
    let has_attributes = !attributes.is_empty();
    match content {
        Content::None if has_attributes => write::nil(out),
        Content::None => {
            write::nil(out);
            return write_bare(value, out, found, depth);
        }
        Content::Base => drop(write_base(value, out, found, depth)?),
        Content::Items(items) => write_items(items, out, found, depth)?,
        Content::Reduced(parts) => write_reduced(value, parts, attributes, out, found, depth)?,
        Content::Buffer(_) | Content::Text(_) => {
            if !has_attributes {
                write::nil(out);
            }
            match content {
                Content::Buffer(parts) => write_items(parts, out, found, depth)?,
                Content::Text(text) => write_text(text, out)?,
                _ => {}
            }
            if !has_attributes {
                return Ok(());
            }
        }
        Content::Itself => {
            found.itself(value);
            write::nil(out);
            write::nil(out);
            return Ok(());
        }
    }
    if has_attributes {
        return write_dict(attributes, out, found, depth);
    }
    write::nil(out);
    Ok(())
}

/// Appends the state of an object that hides nothing and has no attributes.
fn write_bare(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, found: &mut Found, depth: usize) -> PyResult<()> {
    let py = value.py();
    if let Some(parts) = buffer(value)? {
        return write_items(&parts, out, found, depth);
    }
    let shows_itself = intern!(py, "__repr__");
    let is_shown =
        !value.get_type().getattr(shows_itself)?.is(&py.get_type::<PyAny>().getattr(shows_itself)?);
    if is_shown {
        let text = value.repr()?;
        if !text.to_string_lossy().contains(" at 0x") {
            return write_text(&text, out);
        }
    }
    // With room for attributes but none set, it is like any other of its class; without, or if it shows an
    // address, all it has is its identity.
    if is_shown || own_dict(value)?.is_none() {
        found.itself(value);
    }
    write::nil(out);
    Ok(())
}

/// Appends what an object says to `pickle`: function, arguments, state, items, pairs and setter of the state, as
/// far as there are any. Nil if that is nothing but its class and its attributes.
fn write_reduced(
    value: &Bound<'_, PyAny>,
    parts: &Bound<'_, PyTuple>,
    attributes: &Bound<'_, PyDict>,
    out: &mut Vec<u8>,
    found: &mut Found,
    depth: usize,
) -> PyResult<()> {
    let py = value.py();
    let part = |index: usize| -> PyResult<Option<Bound<'_, PyAny>>> {
        Ok(if index < parts.len() {
            Some(parts.get_item(index)?).filter(|part| !part.is_none())
        } else {
            None
        })
    };
    let (function, arguments) = (parts.get_item(0)?, parts.get_item(1)?.cast_into::<PyTuple>()?);
    // The attributes follow.
    let state = match part(2)? {
        Some(state) if are_same(&state, attributes)? => None,
        state => state,
    };
    let class = value.get_type();
    let is_bare = match arguments.len() {
        0 => function.is(&class),
        1 => function.is(types::new_object(py)?) && arguments.get_item(0)?.is(&class),
        _ => false,
    };
    let mut last = 2;
    for (index, is_there) in
        [state.is_some(), part(3)?.is_some(), part(4)?.is_some(), part(5)?.is_some()].into_iter().enumerate()
    {
        if is_there {
            last = index + 3;
        }
    }
    if is_bare && last == 2 {
        write::nil(out);
        return Ok(());
    }
    write::array(out, last)?;
    write_any(&function, out, found, depth + 1)?;
    write_any(arguments.as_any(), out, found, depth + 1)?;
    for index in 2..last {
        match (index, if index == 2 { state.clone() } else { part(index)? }) {
            (_, None) => write::nil(out),
            (3, Some(items)) => {
                let items = items.try_iter()?.collect::<PyResult<Vec<_>>>()?;
                write_items(&items, out, found, depth)?;
            }
            (4, Some(pairs)) => {
                let pairs = pairs.try_iter()?.map(|pair| pair?.extract()).collect::<PyResult<Vec<_>>>()?;
                write_pairs(pairs, out, found, depth)?;
            }
            (_, Some(part)) => write_any(&part, out, found, depth + 1)?,
        }
    }
    Ok(())
}

/// Whether a state is the attributes, which are written anyway.
fn are_same(state: &Bound<'_, PyAny>, attributes: &Bound<'_, PyDict>) -> PyResult<bool> {
    let Ok(state) = state.cast::<PyDict>() else { return Ok(false) };
    if state.len() != attributes.len() {
        return Ok(false);
    }
    for (name, content) in attributes.iter() {
        if !state.get_item(name)?.is_some_and(|other| other.is(&content)) {
            return Ok(false);
        }
    }
    Ok(true)
}

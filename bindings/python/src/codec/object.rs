//! Objects of any class, by value: the name of the class with the object's whole content.
//!
//! Rules:
//! 1. An object's *content* is everything besides attributes: the content of its built-in base; its
//!    description for `pickle`, if its class defines the description (see `facts`) or if the object
//!    may hide content (see `reduce`). Its *state* is its attributes. Neither replaces the other:
//!    an amount that inherits from `Decimal` is its digits and its currency. But if the object's
//!    own class describes its instances, the description is everything: a logger is its name.
//! 2. An object that hides content without describing it is represented by its bytes, if it is a
//!    buffer, or by its `repr`, if the `repr` could be an expression; texts in angle brackets and
//!    addresses only describe an object, and may also describe others.
//! 3. Any other object is itself, and unlike all others.
//! 4. Examining an object does not run its `__getattr__`: the attributes are those in its dict and
//!    its slots. A part whose examination raises is treated as missing; only interrupts, a lack of
//!    memory, and exceptions of functions registered by `cache.key.register` are passed on.
//! 5. If a class has its own equality, objects equal by it give the same key: see `compare`.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyFunction, PyModule, PyType};

use super::attributes;
use super::compare::{Compared, compare};
use super::content::{Content, bare, hidden, known};
use super::facts::{self, Facts, InstanceKind};
use super::key;
use super::names::QualifiedName;
use super::plan::{ObjectPlan, Plan};
use super::reduce::not_there;
use super::references::{Reference, References};
use super::text::write_text;
use super::{ext, write};
use crate::raw::attribute;
use crate::raw::calls::Invoke;

/// Appends an object represented by its name or its identity alone, or returns the plan of the
/// content that an object shows.
pub(super) fn look_at_object<'py>(
    value: &Bound<'py, PyAny>,
    out: &mut Vec<u8>,
    references: &mut References,
) -> PyResult<Option<Plan<'py>>> {
    if write_global(value, out, references)? {
        return Ok(None);
    }
    let class = value.get_type();
    let facts = facts::of(&class)?;
    // Rule 5.
    if let Some(equality) = &facts.equality
        && let Some(encode) = references.encode_parts()
    {
        match compare(value, &facts, equality, encode)? {
            Compared::Attributes(attributes) => {
                let class = references.name(class.as_any(), || Ok(facts.name(value.py())))?;
                return Ok(Some(object_plan(class, Plan::nil(), Plan::Pairs(attributes))));
            }
            Compared::Twin(twin) => return write_itself(twin.as_any(), out, references).map(|()| None),
            Compared::Unknown => {}
        }
    }
    match content_of(value, &class, &facts, out, references)? {
        None => Ok(None),
        Some(Content::Global(qualname)) => {
            let name = || Ok(QualifiedName::of_global(value, qualname));
            write_reference(value, name, out, references).map(|()| None)
        }
        Some(content) => {
            let class = references.name(class.as_any(), || Ok(facts.name(value.py())))?;
            match with_attributes(value, &facts, content)? {
                Some((content, state)) => Ok(Some(object_plan(class, content, state))),
                // Rule 3.
                None => write_itself(value, out, references).map(|()| None),
            }
        }
    }
}

fn object_plan<'py>(class: Reference, content: Plan<'py>, state: Plan<'py>) -> Plan<'py> {
    Plan::Object(Box::new(ObjectPlan { class, content, state }))
}

/// Appends a module, class, function or method written in C; false for other objects.
fn write_global(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, references: &mut References) -> PyResult<bool> {
    if value.is_instance_of::<PyModule>() {
        write_reference(value, || QualifiedName::of_module(value), out, references)?;
        return Ok(true);
    }
    let is_c_function = value.is_instance_of::<PyCFunction>();
    if is_c_function && let Some((name, class)) = QualifiedName::of_class_method(value)? {
        // The method object itself is made anew at each look-up.
        write_method(&name, &class, out, references)?;
    } else if is_c_function || value.is_instance_of::<PyFunction>() || value.is_instance_of::<PyType>() {
        write_reference(value, || Ok(QualifiedName::of(value)), out, references)?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// The content of an object by the kind of its class. None: the object is appended without content.
fn content_of<'py>(
    value: &Bound<'py, PyAny>,
    class: &Bound<'py, PyType>,
    facts: &Facts,
    out: &mut Vec<u8>,
    references: &mut References,
) -> PyResult<Option<Content<'py>>> {
    let content = match &facts.kind {
        InstanceKind::Known => {
            let start = out.len();
            if key::write_known(value, out)? {
                return Ok(None);
            }
            out.truncate(start);
            None
        }
        InstanceKind::Enum => {
            if write_member(value, class, out, references)? {
                return Ok(None);
            }
            unnamed_member(value).map(Content::All)
        }
        InstanceKind::Itself => return write_itself(value, out, references).map(|()| None),
        InstanceKind::OfOneCall => {
            references.note_of_one_call(class);
            return write_itself(value, out, references).map(|()| None);
        }
        InstanceKind::StandsFor { function, is_asked } => {
            match stand_in(value, class, function.bind(value.py()), *is_asked)? {
                Some(standing) => Some(Content::All(Plan::Array(vec![Plan::Value(standing)]))),
                None => return write_itself(value, out, references).map(|()| None),
            }
        }
        kind => known(value, kind)?,
    };
    match content {
        Some(content) => Ok(Some(content)),
        None => hidden(value, class, facts).map(Some),
    }
}

/// Content and state (rule 1). None: the object shows neither.
fn with_attributes<'py>(
    value: &Bound<'py, PyAny>,
    facts: &Facts,
    content: Content<'py>,
) -> PyResult<Option<(Plan<'py>, Plan<'py>)>> {
    match content {
        Content::All(plan) => return Ok(Some((plan, Plan::nil()))),
        Content::Itself => return Ok(None),
        _ => {}
    }
    let attributes = attributes::compared(value, facts);
    Ok(Some(match (content, attributes.is_empty()) {
        (Content::Plan(plan) | Content::Shown(plan), false) => (plan, Plan::Pairs(attributes)),
        (Content::Plan(plan), true) => (plan, Plan::nil()),
        (Content::Shown(plan), true) => (Plan::nil(), plan),
        (_, false) => (Plan::nil(), Plan::Pairs(attributes)),
        (_, true) => return Ok(bare(value, facts)?.map(|plan| (Plan::nil(), plan))),
    }))
}

fn write_reference<'py>(
    object: &Bound<'py, PyAny>,
    name: impl FnOnce() -> PyResult<QualifiedName<'py>>,
    out: &mut Vec<u8>,
    references: &mut References,
) -> PyResult<()> {
    let reference = references.name(object, name)?;
    if let Reference::Itself(_) = reference {
        return references.write(reference, out);
    }
    let start = out.len();
    write::array(out, reference.width())?;
    references.write(reference, out)?;
    write::close_ext(out, ext::REFERENCE, start)
}

/// Appends a class method written in C.
fn write_method<'py>(
    name: &QualifiedName<'py>,
    class: &Bound<'py, PyAny>,
    out: &mut Vec<u8>,
    references: &mut References,
) -> PyResult<()> {
    let reference = references.name(class, || Ok(QualifiedName::of(class)))?;
    let start = out.len();
    write::array(out, 2)?;
    match reference {
        Reference::Named(_) => name.write(out)?,
        Reference::Itself(_) => {
            references.write(reference, out)?;
            name.write_qualname(out)?;
        }
    }
    write::close_ext(out, ext::REFERENCE, start)
}

/// Rule 3.
fn write_itself(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, references: &mut References) -> PyResult<()> {
    let reference = references.itself(value);
    references.write(reference, out)
}

/// Appends a named member of an enum; false if it has no name.
fn write_member<'py>(
    value: &Bound<'py, PyAny>,
    class: &Bound<'py, PyType>,
    out: &mut Vec<u8>,
    references: &mut References,
) -> PyResult<bool> {
    let Some(name) = key::member_name(value)? else { return Ok(false) };
    let reference = references.name(class.as_any(), || Ok(QualifiedName::of(class)))?;
    let start = out.len();
    write::array(out, reference.width() + 1)?;
    references.write(reference, out)?;
    write_text(&name, out)?;
    write::close_ext(out, ext::ENUM, start)?;
    Ok(true)
}

/// A combination of flags, or a member whose class has its own equality: name and value.
fn unnamed_member<'py>(value: &Bound<'py, PyAny>) -> Option<Plan<'py>> {
    let own = attribute::own_dict(value)?;
    let part = |name: &str| own.get_item(name).ok().flatten();
    Some(Plan::Items(vec![part("_name_")?, part("_value_")?]))
}

/// The result of the function registered for a class. None: the object is represented by its
/// identity.
fn stand_in<'py>(
    value: &Bound<'py, PyAny>,
    class: &Bound<'py, PyType>,
    function: &Bound<'py, PyAny>,
    is_asked: bool,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = value.py();
    match function.invoke1(value) {
        Ok(standing) if !standing.is(value) => Ok(Some(standing)),
        Ok(_) if is_asked => Err(PyTypeError::new_err(format!(
            "the function that cache.key.register was given for {} returned the object itself: let it return what tells \
             the object from others, such as a tuple of its fields",
            class.qualname()?
        ))),
        Err(error) if is_asked => {
            let message = format!(
                "the function that cache.key.register was given for {} raised {}, so there is no key for the call",
                class.qualname()?,
                error.get_type(py).qualname()?
            );
            let raised = PyTypeError::new_err(message);
            if !error.is_instance_of::<pyo3::exceptions::PyException>(py) {
                return Err(error);
            }
            raised.set_cause(py, Some(error));
            Err(raised)
        }
        // Rule 4: a function of ours, and a library that has changed.
        Err(error) => not_there(py, error).map(|()| None),
        Ok(_) => Ok(None),
    }
}

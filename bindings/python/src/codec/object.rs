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
//! 5. If a class has its own equality, objects equal by it give the same key: see `equality`.

use pyo3::exceptions::{PyBaseException, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyCFunction, PyDict, PyFunction, PyList, PyMemoryView, PyModule, PyString, PyTuple, PyType,
};

use super::equality::Compared;
use super::facts::{self, Facts, Kind, Says};
use super::found::{Found, Place};
use super::key::{self, write_text};
use super::names::Name;
use super::plan::{ObjectPlan, Plan, base_plan};
use super::reduce::{Reduced, is_registered, not_there, reduce};
use super::{ext, types, write};
use crate::raw::attribute;
use crate::raw::calls::Invoke;

pub(super) type Attributes<'py> = Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>;

/// The content of an object besides attributes.
enum Content<'py> {
    /// The given parts.
    Plan(Plan<'py>),
    /// Content shown as a whole: the object's state, if it has no attributes.
    Shown(Plan<'py>),
    /// The given plan, which includes the attributes.
    All(Plan<'py>),
    /// Nothing.
    None,
    /// Content that is not shown.
    Itself,
    /// The object is found under this name in its module.
    Global(Bound<'py, PyString>),
}

/// Appends an object represented by its name or its identity alone, or returns the plan of the
/// content that an object shows.
pub(super) fn look_at_object<'py>(
    value: &Bound<'py, PyAny>,
    out: &mut Vec<u8>,
    found: &mut Found,
) -> PyResult<Option<Plan<'py>>> {
    let py = value.py();
    if value.is_instance_of::<PyModule>() {
        return write_reference(value, || Name::of_module(value), out, found).map(|()| None);
    }
    let is_c_function = value.is_instance_of::<PyCFunction>();
    if is_c_function && let Some((name, class)) = Name::of_class_method(value)? {
        // The method object itself is made anew at each look-up.
        return write_method(&name, &class, out, found).map(|()| None);
    }
    if is_c_function || value.is_instance_of::<PyFunction>() || value.is_instance_of::<PyType>() {
        return write_reference(value, || Ok(Name::of(value)), out, found).map(|()| None);
    }
    let class = value.get_type();
    let facts = facts::of(&class)?;
    if let Some(equality) = &facts.equality
        && !found.is_by_content()
    {
        match equality.look(value, &facts)? {
            Compared::Attributes(attributes) => {
                let place = found.name(class.as_any(), || Ok(facts.name(py)))?;
                let (content, state) = (Plan::nil(), Plan::Pairs(attributes));
                return Ok(Some(Plan::Object(Box::new(ObjectPlan { class: place, content, state }))));
            }
            Compared::Twin(twin) => return write_itself(twin.as_any(), out, found).map(|()| None),
            Compared::Unknown => {}
        }
    }
    let content = match &facts.kind {
        Kind::Known => {
            let start = out.len();
            if key::write_known(value, out)? {
                return Ok(None);
            }
            out.truncate(start);
            hidden(value, &class, &facts)?
        }
        Kind::Enum => {
            if write_member(value, &class, out, found)? {
                return Ok(None);
            }
            match unnamed_member(value) {
                Some(plan) => Content::All(plan),
                None => hidden(value, &class, &facts)?,
            }
        }
        Kind::Itself => return write_itself(value, out, found).map(|()| None),
        Kind::OfOneCall => {
            found.note_of_one_call(&class);
            return write_itself(value, out, found).map(|()| None);
        }
        Kind::StandsFor { function, is_asked } => {
            match stand_in(value, &class, function.bind(py), *is_asked)? {
                Some(standing) => Content::All(Plan::Array(vec![Plan::Value(standing)])),
                None => return write_itself(value, out, found).map(|()| None),
            }
        }
        kind => match known(value, kind)? {
            Some(content) => content,
            None => hidden(value, &class, &facts)?,
        },
    };
    if let Content::Global(qualname) = content {
        return write_reference(value, || Ok(Name::of_global(value, qualname)), out, found).map(|()| None);
    }
    let place = found.name(class.as_any(), || Ok(facts.name(py)))?;
    let (content, state) = match content {
        Content::All(plan) => (plan, Plan::nil()),
        Content::Itself => return write_itself(value, out, found).map(|()| None),
        Content::Global(_) => (Plan::nil(), Plan::nil()),
        content => {
            let attributes = attributes(value, &facts);
            match (content, attributes.is_empty()) {
                (Content::Plan(plan) | Content::Shown(plan), false) => (plan, Plan::Pairs(attributes)),
                (Content::Plan(plan), true) => (plan, Plan::nil()),
                (Content::Shown(plan), true) => (Plan::nil(), plan),
                (_, false) => (Plan::nil(), Plan::Pairs(attributes)),
                (_, true) => match bare(value, &facts)? {
                    Some(plan) => (Plan::nil(), plan),
                    None => return write_itself(value, out, found).map(|()| None),
                },
            }
        }
    };
    Ok(Some(Plan::Object(Box::new(ObjectPlan { class: place, content, state }))))
}

fn write_reference<'py>(
    object: &Bound<'py, PyAny>,
    name: impl FnOnce() -> PyResult<Name<'py>>,
    out: &mut Vec<u8>,
    found: &mut Found,
) -> PyResult<()> {
    let place = found.name(object, name)?;
    if let Place::Itself(_) = place {
        return found.write(place, out);
    }
    let start = out.len();
    write::array(out, place.width())?;
    found.write(place, out)?;
    write::close_ext(out, ext::REFERENCE, start)
}

/// Appends a class method written in C.
fn write_method<'py>(
    name: &Name<'py>,
    class: &Bound<'py, PyAny>,
    out: &mut Vec<u8>,
    found: &mut Found,
) -> PyResult<()> {
    let place = found.name(class, || Ok(Name::of(class)))?;
    let start = out.len();
    write::array(out, 2)?;
    match place {
        Place::Named(_) => name.write(out)?,
        Place::Itself(_) => {
            found.write(place, out)?;
            name.write_qualname(out)?;
        }
    }
    write::close_ext(out, ext::REFERENCE, start)
}

/// Rule 3.
fn write_itself(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, found: &mut Found) -> PyResult<()> {
    let place = found.itself(value);
    found.write(place, out)
}

/// Appends a named member of an enum; false if it has no name.
fn write_member<'py>(
    value: &Bound<'py, PyAny>,
    class: &Bound<'py, PyType>,
    out: &mut Vec<u8>,
    found: &mut Found,
) -> PyResult<bool> {
    let Some(name) = key::member_name(value)? else { return Ok(false) };
    let place = found.name(class.as_any(), || Ok(Name::of(class)))?;
    let start = out.len();
    write::array(out, place.width() + 1)?;
    found.write(place, out)?;
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

/// The contents of the object's dict and slots, except attributes that its class leaves out.
fn attributes<'py>(value: &Bound<'py, PyAny>, facts: &Facts) -> Attributes<'py> {
    let py = value.py();
    // For a method the attributes are those of its function.
    if matches!(facts.kind, Kind::Method) {
        return Vec::new();
    }
    let mut attributes = all_attributes(value, facts, py);
    attributes.retain(|(name, _)| !facts.leaves_out(name));
    attributes
}

pub(super) fn all_attributes<'py>(
    value: &Bound<'py, PyAny>,
    facts: &Facts,
    py: Python<'py>,
) -> Attributes<'py> {
    let own = if facts.has_dict { attribute::own_dict(value) } else { None };
    let mut attributes: Attributes<'_> = own.map_or_else(Vec::new, |own| own.iter().collect());
    for slot in &facts.slots {
        let slot = slot.bind(py);
        if let Some(content) = attribute::slot(value, slot) {
            // The name leads to the slot.
            attributes.retain(|(name, _)| !name.is(slot));
            attributes.push((slot.clone().into_any(), content));
        }
    }
    attributes
}

/// The known content of classes written in C. None: an expected part is missing.
fn known<'py>(value: &Bound<'py, PyAny>, kind: &Kind) -> PyResult<Option<Content<'py>>> {
    let looked = look_inside(value, kind);
    looked.or_else(|error| not_there(value.py(), error).map(|()| None))
}

fn look_inside<'py>(value: &Bound<'py, PyAny>, kind: &Kind) -> PyResult<Option<Content<'py>>> {
    let py = value.py();
    let names: &[&str] = match kind {
        Kind::Partial => &["func", "args", "keywords"],
        Kind::Method => &["__func__", "__self__"],
        Kind::Exception => &["args"],
        Kind::MappingProxy => {
            let items = PyDict::from_sequence(&value.invoke_method0(intern!(py, "items"))?)?;
            return Ok(Some(Content::Plan(Plan::Array(vec![Plan::Pairs(items.iter().collect())]))));
        }
        Kind::DictKeys => {
            let keys = value.try_iter()?.collect::<PyResult<_>>()?;
            return Ok(Some(Content::Plan(Plan::Array(vec![Plan::Set(keys)]))));
        }
        Kind::DictValues => {
            return Ok(Some(Content::Plan(Plan::Items(value.try_iter()?.collect::<PyResult<_>>()?))));
        }
        Kind::Ordered => {
            // The order of the items is part of the value.
            let items = types::ordered_dict(py)?.getattr(intern!(py, "items"))?.call1((value,))?;
            return Ok(Some(Content::Plan(Plan::Items(items.try_iter()?.collect::<PyResult<_>>()?))));
        }
        Kind::Array => return Ok(buffer(value)?.map(Content::Shown)),
        _ => return Ok(None),
    };
    let items = names.iter().map(|name| value.getattr(*name)).collect::<PyResult<_>>()?;
    Ok(Some(Content::Plan(Plan::Items(items))))
}

/// The content of an object besides attributes, or its description (rules 1 to 3).
fn hidden<'py>(
    value: &Bound<'py, PyAny>,
    class: &Bound<'py, PyType>,
    facts: &Facts,
) -> PyResult<Content<'py>> {
    let says = if is_registered(class)? { Says::Reduce { is_own: true } } else { facts.says };
    match says {
        Says::Nothing if !facts.hides => {
            return Ok(if facts.has_base { Content::Plan(base_plan(value)?) } else { Content::None });
        }
        Says::State { is_own } if !facts.hides => return state(value, class, facts, is_own),
        _ => {}
    }
    Ok(match reduce(value)? {
        Reduced::Parts(parts) => {
            let is_own = matches!(says, Says::Reduce { is_own: true } | Says::State { is_own: true });
            match reduced(value, class, facts, &parts, is_own) {
                Ok(Some(plan)) if is_own => Content::All(plan),
                Ok(Some(plan)) => Content::Plan(plan),
                Ok(None) => Content::None,
                // Half of the description would be the value of another object.
                Err(error) => not_there(value.py(), error).map(|()| Content::Itself)?,
            }
        }
        Reduced::Global(name) => Content::Global(name),
        Reduced::Refused if matches!(facts.kind, Kind::Exception | Kind::Other) && !facts.hides => {
            if facts.has_base { Content::Plan(base_plan(value)?) } else { Content::None }
        }
        Reduced::Refused if value.is_instance_of::<PyBaseException>() => {
            Content::Plan(Plan::Items(vec![value.getattr(intern!(value.py(), "args"))?]))
        }
        Reduced::Refused => {
            if let Some(plan) = buffer(value)? {
                Content::Shown(plan)
            } else {
                shown(value)?.map_or(Content::Itself, Content::Shown)
            }
        }
    })
}

/// The result of `__getstate__`, beside the content of the built-in base.
fn state<'py>(
    value: &Bound<'py, PyAny>,
    class: &Bound<'py, PyType>,
    facts: &Facts,
    is_own: bool,
) -> PyResult<Content<'py>> {
    let said = class.getattr(intern!(value.py(), "__getstate__")).and_then(|state| state.invoke1(value));
    let base = if facts.has_base { Some(base_plan(value)?) } else { None };
    let said = match said {
        Ok(said) => Plan::Value(said),
        Err(error) => {
            not_there(value.py(), error)?;
            return Ok(base.map_or(Content::None, Content::Plan));
        }
    };
    let plan = Plan::Array(vec![base.unwrap_or_else(Plan::nil), said]);
    Ok(if is_own { Content::All(plan) } else { Content::Plan(plan) })
}

/// A `repr` that could be an expression.
fn shown<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Plan<'py>>> {
    let Some(text) = repr(value)? else { return Ok(None) };
    let shown = text.to_string_lossy();
    if shown.starts_with('<') || shown.contains(" at 0x") {
        return Ok(None);
    }
    text_plan(&text).map(Some)
}

fn text_plan<'py>(text: &Bound<'py, PyString>) -> PyResult<Plan<'py>> {
    let mut bytes = Vec::new();
    write_text(text, &mut bytes)?;
    Ok(Plan::Bytes(bytes))
}

fn repr<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyString>>> {
    value.invoke_repr().map(Some).or_else(|error| not_there(value.py(), error).map(|()| None))
}

/// Format, shape and bytes of a buffer: an array, whose `repr` may leave out its middle. If the
/// buffer holds references, its items instead of its bytes, since addresses do not represent their
/// objects.
fn buffer<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Plan<'py>>> {
    let parts = || -> PyResult<Option<Plan<'py>>> {
        let Ok(view) = PyMemoryView::from(value) else { return Ok(None) };
        let format = view.getattr("format")?;
        let items = if format.contains("O")? { value.getattr("tolist")? } else { view.getattr("tobytes")? };
        Ok(Some(Plan::Items(vec![format, view.getattr("shape")?, items.call0()?])))
    };
    parts().or_else(|error| not_there(value.py(), error).map(|()| None))
}

/// The state of an object without hidden content and without attributes. None: the object is
/// represented by its identity.
fn bare<'py>(value: &Bound<'py, PyAny>, facts: &Facts) -> PyResult<Option<Plan<'py>>> {
    let py = value.py();
    if let Some(plan) = buffer(value)? {
        return Ok(Some(plan));
    }
    let shows_itself = intern!(py, "__repr__");
    let is_shown =
        !value.get_type().getattr(shows_itself)?.is(&py.get_type::<PyAny>().getattr(shows_itself)?);
    if is_shown {
        let text = repr(value)?.filter(|text| !text.to_string_lossy().contains(" at 0x"));
        return text.as_ref().map(text_plan).transpose();
    }
    // With room for attributes but none set, the object is like any other of its class; without
    // room, it has only its identity.
    Ok(facts.has_dict.then(Plan::nil))
}

/// An object's description for `pickle`: function, arguments, state, items, pairs and setter of the
/// state, as far as present. None if the description is only the class and the attributes.
fn reduced<'py>(
    value: &Bound<'py, PyAny>,
    class: &Bound<'py, PyType>,
    facts: &Facts,
    parts: &Bound<'py, PyTuple>,
    is_own: bool,
) -> PyResult<Option<Plan<'py>>> {
    let py = value.py();
    let part = |index: usize| parts.get_item(index).ok().filter(|part| !part.is_none());
    let (function, arguments) = (parts.get_item(0)?, parts.get_item(1)?.cast_into::<PyTuple>()?);
    // The attributes follow, unless the description is everything.
    let state = part(2).filter(|state| is_own || !are_same(state, &all_attributes(value, facts, py)));
    let is_bare = !is_own
        && match arguments.len() {
            0 => function.is(class),
            1 => function.is(types::new_object(py)?) && arguments.get_item(0)?.is(class),
            _ => false,
        };
    let rest = [state, part(3), part(4), part(5)];
    let count = rest.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
    if is_bare && count == 0 {
        return Ok(None);
    }
    let mut plans = vec![Plan::Value(function), Plan::Value(arguments.into_any())];
    for (index, part) in rest.into_iter().take(count).enumerate() {
        plans.push(match (index, part) {
            (_, None) => Plan::nil(),
            (1, Some(items)) => Plan::Items(listed(&items)?.iter().collect()),
            (2, Some(pairs)) => {
                let pairs = listed(&pairs)?;
                Plan::Pairs(pairs.iter().map(|pair| pair.extract()).collect::<PyResult<_>>()?)
            }
            (_, Some(part)) => Plan::Value(part),
        });
    }
    Ok(Some(Plan::Array(plans)))
}

/// The items of an object's own iterator.
fn listed<'py>(items: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
    Ok(items.py().get_type::<PyList>().invoke1(items)?.cast_into()?)
}

/// Whether a state consists of the attributes, which are written anyway.
fn are_same(state: &Bound<'_, PyAny>, attributes: &[(Bound<'_, PyAny>, Bound<'_, PyAny>)]) -> bool {
    let Ok(state) = state.cast::<PyDict>() else { return false };
    state.len() == attributes.len()
        && attributes.iter().all(|(name, content)| {
            state.get_item(name).is_ok_and(|other| other.is_some_and(|other| other.is(content)))
        })
}

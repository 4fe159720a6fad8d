//! Objects of any class, by value: the name of the class with all that the object holds.
//!
//! Rules:
//! 1. Its *content* is what it holds besides attributes: what its built-in base holds; what it says
//!    to `pickle`, if its class says that (see `facts`) or if it may hide something (see `reduce`).
//!    Its *state* is its attributes. Nothing is left out because there is something else: an amount
//!    that inherits from `Decimal` is its digits and its currency. But where the object's own class
//!    says what its instances are made of, that is all: a logger is its name.
//! 2. What hides something and does not say what, is its bytes, if it is a buffer, or its `repr`,
//!    if that could be an expression; texts in angle brackets and addresses describe an object, and
//!    describe others, too.
//! 3. Else it is itself, and like no other.
//! 4. Looking at an object does not run its `__getattr__`: attributes are those in its dict and its
//!    slots. What raises while it is looked at is not there; only interrupts and the want of memory
//!    are passed on, and what a function raises that was registered by `cache.key.register`.
//! 5. Where a class has an equality of its own, objects that it calls equal are one: see `equality`.

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

/// What an object holds besides attributes.
enum Content<'py> {
    /// These parts.
    Plan(Plan<'py>),
    /// Something that it shows as a whole: its state, if it has no attributes.
    Shown(Plan<'py>),
    /// This, which tells of the attributes, too.
    All(Plan<'py>),
    /// Nothing.
    None,
    /// Something that it does not show.
    Itself,
    /// It is what is found under this name in its module.
    Global(Bound<'py, PyString>),
}

/// Appends what is known by its name or its identity alone, or returns the plan of what an object
/// shows of itself.
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
        // The method itself is made anew each time it is looked up.
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

/// Appends a class method that is written in C.
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

/// A member that is put together from flags, or whose class has an equality of its own: name and
/// value.
fn unnamed_member<'py>(value: &Bound<'py, PyAny>) -> Option<Plan<'py>> {
    let own = attribute::own_dict(value)?;
    let part = |name: &str| own.get_item(name).ok().flatten();
    Some(Plan::Items(vec![part("_name_")?, part("_value_")?]))
}

/// What the function that is registered for a class returns for an object. None: it is known by its
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
        // Rule 4: of ours, and of a library that has changed.
        Err(error) => not_there(py, error).map(|()| None),
        Ok(_) => Ok(None),
    }
}

/// What is in the object's dict and slots, but what its class leaves out.
fn attributes<'py>(value: &Bound<'py, PyAny>, facts: &Facts) -> Attributes<'py> {
    let py = value.py();
    // A method answers for its function.
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
            // The slot is what the name leads to.
            attributes.retain(|(name, _)| !name.is(slot));
            attributes.push((slot.clone().into_any(), content));
        }
    }
    attributes
}

/// What classes hold that were written in C, and of which it is known. None: what there should be
/// is not there.
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

/// What an object holds besides attributes, or says that it is made of (rules 1 to 3).
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
                // Half of what it says would be somebody else's value.
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

/// What `__getstate__` returns, beside what the built-in base holds.
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

/// Format, shape and bytes of an object that is a buffer: an array, whose `repr` may leave out its
/// middle. Its items instead of bytes if it holds references, since addresses say nothing about
/// what they lead to.
fn buffer<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Plan<'py>>> {
    let parts = || -> PyResult<Option<Plan<'py>>> {
        let Ok(view) = PyMemoryView::from(value) else { return Ok(None) };
        let format = view.getattr("format")?;
        let items = if format.contains("O")? { value.getattr("tolist")? } else { view.getattr("tobytes")? };
        Ok(Some(Plan::Items(vec![format, view.getattr("shape")?, items.call0()?])))
    };
    parts().or_else(|error| not_there(value.py(), error).map(|()| None))
}

/// The state of an object that hides nothing and has no attributes. None: it is known by its
/// identity.
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
    // With room for attributes but none set, it is like any other of its class; without, all it has
    // is its identity.
    Ok(facts.has_dict.then(Plan::nil))
}

/// What an object says to `pickle`: function, arguments, state, items, pairs and setter of the
/// state, as far as there are any. None if that is nothing but its class and its attributes.
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
    // The attributes follow, unless this is all.
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

/// What an iterator of an object's own yields.
fn listed<'py>(items: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
    Ok(items.py().get_type::<PyList>().invoke1(items)?.cast_into()?)
}

/// Whether a state is the attributes, which are written anyway.
fn are_same(state: &Bound<'_, PyAny>, attributes: &[(Bound<'_, PyAny>, Bound<'_, PyAny>)]) -> bool {
    let Ok(state) = state.cast::<PyDict>() else { return false };
    state.len() == attributes.len()
        && attributes.iter().all(|(name, content)| {
            state.get_item(name).is_ok_and(|other| other.is_some_and(|other| other.is(content)))
        })
}

//! The content of an object besides its attributes, by value: of a class written in C, or described
//! for `pickle`. The rules are in `object`.

use pyo3::exceptions::PyBaseException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyMemoryView, PyString, PyTuple, PyType};

use super::attributes::all_attributes;
use super::builtin::base_plan;
use super::facts::{Facts, InstanceKind, Says};
use super::plan::Plan;
use super::reduce::{Reduced, is_registered, not_there, reduce};
use super::text::write_text;
use super::types;
use crate::raw::calls::Invoke;

/// The content of an object besides attributes.
pub(super) enum Content<'py> {
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

/// The known content of classes written in C. None: an expected part is missing.
pub(super) fn known<'py>(value: &Bound<'py, PyAny>, kind: &InstanceKind) -> PyResult<Option<Content<'py>>> {
    let looked = look_inside(value, kind);
    looked.or_else(|error| not_there(value.py(), error).map(|()| None))
}

fn look_inside<'py>(value: &Bound<'py, PyAny>, kind: &InstanceKind) -> PyResult<Option<Content<'py>>> {
    let py = value.py();
    let names: &[&str] = match kind {
        InstanceKind::Partial => &["func", "args", "keywords"],
        InstanceKind::Method => &["__func__", "__self__"],
        InstanceKind::Exception => &["args"],
        InstanceKind::MappingProxy => {
            let items = PyDict::from_sequence(&value.invoke_method0(intern!(py, "items"))?)?;
            return Ok(Some(Content::Plan(Plan::Array(vec![Plan::Pairs(items.iter().collect())]))));
        }
        InstanceKind::DictKeys => {
            let keys = value.try_iter()?.collect::<PyResult<_>>()?;
            return Ok(Some(Content::Plan(Plan::Array(vec![Plan::Set(keys)]))));
        }
        InstanceKind::DictValues => {
            return Ok(Some(Content::Plan(Plan::Items(value.try_iter()?.collect::<PyResult<_>>()?))));
        }
        InstanceKind::Ordered => {
            // The order of the items is part of the value.
            let items = types::ordered_dict(py)?.getattr(intern!(py, "items"))?.call1((value,))?;
            return Ok(Some(Content::Plan(Plan::Items(items.try_iter()?.collect::<PyResult<_>>()?))));
        }
        InstanceKind::Array => return Ok(buffer(value)?.map(Content::Shown)),
        _ => return Ok(None),
    };
    let items = names.iter().map(|name| value.getattr(*name)).collect::<PyResult<_>>()?;
    Ok(Some(Content::Plan(Plan::Items(items))))
}

/// The content of an object besides attributes, or its description (rules 1 to 3).
pub(super) fn hidden<'py>(
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
        Reduced::Refused
            if matches!(facts.kind, InstanceKind::Exception | InstanceKind::Other) && !facts.hides =>
        {
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
pub(super) fn bare<'py>(value: &Bound<'py, PyAny>, facts: &Facts) -> PyResult<Option<Plan<'py>>> {
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

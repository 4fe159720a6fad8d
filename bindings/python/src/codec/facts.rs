//! What is known of classes: how their instances are looked at. Found out once for each class, as
//! it takes longer than all the rest of a small object.
//!
//! Rules:
//! 1. What is registered for a class or one of its bases comes first (`cache.key.register`, and
//!    what `cache._stand_ins` has for well-known libraries).
//! 2. What a class *says* of its instances counts if Python code says it: `__reduce_ex__`,
//!    `__reduce__`, `__getstate__`. What `object` and classes written in C have is asked only of
//!    instances that *hide* something (see `reduce`). What dataclasses, attrs and pydantic generate
//!    says nothing that their fields do not say.
//! 3. Attributes that are *left out*: fields of dataclasses with `compare=False` and of attrs with
//!    `eq=False`; results of cached properties; the note of pydantic's models which fields were
//!    given.
//! 4. No class is kept alive.
//! 5. An equality of the class's own counts where nothing above says what its instances are (see
//!    `cache._equality` and `equality`).

use std::collections::HashMap;
use std::sync::Arc;

use pyo3::exceptions::{PyBaseException, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyDate, PyDateTime, PyDelta, PyDict, PyFunction, PyMemoryView, PyString, PyTime, PyTuple, PyType,
    PyWeakrefMethods, PyWeakrefReference,
};

use super::equality::Equality;
use super::{names::Name, plan, reduce, types};
use crate::raw::GilCell;
use crate::raw::calls::Invoke;

/// How instances of a class are looked at.
pub(super) enum Kind {
    /// By a form of their own: dates, decimals, paths and the like, if they have one.
    Known,
    /// Members of an enum.
    Enum,
    Partial,
    Method,
    Exception,
    MappingProxy,
    DictKeys,
    DictValues,
    Ordered,
    /// Arrays: a buffer shows all there is.
    Array,
    /// What a function returns for them stands for them. `is_asked`: by `cache.key.register`.
    StandsFor {
        function: Py<PyAny>,
        is_asked: bool,
    },
    /// By identity.
    Itself,
    /// By identity, and they belong to one call of a function.
    OfOneCall,
    /// By what they hold.
    Other,
}

/// Who says what instances are made of, in Python.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    Nothing,
    /// `__reduce_ex__` or `__reduce__`. `is_own`: of the class itself, which knows all attributes.
    Reduce {
        is_own: bool,
    },
    /// `__getstate__`.
    State {
        is_own: bool,
    },
}

/// What is known of a class.
pub(super) struct Facts {
    pub(super) kind: Kind,
    pub(super) says: Says,
    /// Whether instances hold something besides attributes and what their built-in base holds.
    pub(super) hides: bool,
    pub(super) has_base: bool,
    pub(super) has_dict: bool,
    pub(super) slots: Vec<Py<PyString>>,
    /// Names of attributes that are no part of the value.
    left_out: Vec<Py<PyString>>,
    /// Rule 5.
    pub(super) equality: Option<Equality>,
    module: Py<PyString>,
    qualname: Py<PyString>,
}

type Known = HashMap<usize, (Py<PyWeakrefReference>, Arc<Facts>)>;

/// By address of the class. The weak reference tells whether it is still the same (rule 4).
static KNOWN: GilCell<Option<Known>> = GilCell::new(None);

/// Beyond so many classes, and twice what was alive when last looked, those that are gone are
/// removed.
const LEAST: usize = 1024;
static SWEEP_AT: GilCell<usize> = GilCell::new(LEAST);

/// What is known of a class; found out if need be.
pub(super) fn of(class: &Bound<'_, PyType>) -> PyResult<Arc<Facts>> {
    let py = class.py();
    let at = class.as_ptr().addr();
    let known = KNOWN.borrow(py).as_ref().and_then(|known| {
        let (reference, facts) = known.get(&at)?;
        let is_same = reference.bind(py).upgrade().is_some_and(|alive| alive.is(class));
        is_same.then(|| Arc::clone(facts))
    });
    if let Some(facts) = known {
        return Ok(facts);
    }
    let facts = Arc::new(find_out(class)?);
    let reference = PyWeakrefReference::new(class)?.unbind();
    let replaced = KNOWN.borrow(py).get_or_insert_default().insert(at, (reference, Arc::clone(&facts)));
    drop(replaced);
    sweep(py);
    Ok(facts)
}

fn sweep(py: Python<'_>) {
    let count = KNOWN.borrow(py).as_ref().map_or(0, HashMap::len);
    if count < *SWEEP_AT.borrow(py) {
        return;
    }
    let known = KNOWN.borrow(py).take().unwrap_or_default();
    let (alive, gone): (Known, Known) =
        known.into_iter().partition(|(_, (reference, _))| reference.bind(py).upgrade().is_some());
    *SWEEP_AT.borrow(py) = LEAST.max(2 * alive.len());
    let replaced = KNOWN.borrow(py).replace(alive);
    // What they refer to may run code when it goes: nothing is borrowed here.
    drop((gone, replaced));
}

/// Something was registered: what is known may be out of date.
pub(super) fn forget(py: Python<'_>) {
    let known = KNOWN.borrow(py).take();
    drop(known);
}

impl Facts {
    pub(super) fn name<'py>(&self, py: Python<'py>) -> Name<'py> {
        Name::new(self.module.bind(py).clone(), self.qualname.bind(py).clone())
    }

    pub(super) fn leaves_out(&self, name: &Bound<'_, PyAny>) -> bool {
        !self.left_out.is_empty()
            && self.left_out.iter().any(|left_out| {
                left_out.is(name)
                    || name.cast_exact::<PyString>().is_ok_and(|name| equal(left_out.bind(name.py()), name))
            })
    }
}

fn equal(a: &Bound<'_, PyString>, b: &Bound<'_, PyString>) -> bool {
    crate::raw::equal(a.as_any(), b.as_any())
}

fn find_out(class: &Bound<'_, PyType>) -> PyResult<Facts> {
    let py = class.py();
    let base = plan::base_of(class);
    let model = is_model(class);
    let says = if model { says(class, true) } else { says(class, false) };
    let kind = match stands_for(class)? {
        Some(kind) => kind,
        None => kind_of(class)?,
    };
    let mut slots = Vec::new();
    for slot in types::slot_names(py)?.invoke1(class)?.try_iter()? {
        let slot = slot?.cast_into::<PyString>()?;
        if !(model && is_note_of_fields(&slot)) {
            slots.push(slot.unbind());
        }
    }
    let hides = reduce::hides(class, base.as_ref())?;
    let has_rule = model || hides || base.is_some() || says != Says::Nothing;
    let equality = if !has_rule && matches!(kind, Kind::Other) { Equality::of_class(class)? } else { None };
    let name = Name::of(class);
    let (module, qualname) = name.parts();
    Ok(Facts {
        kind,
        says,
        hides,
        has_base: base.is_some(),
        has_dict: reduce::has_dict(class)?,
        slots,
        left_out: left_out(class),
        equality,
        module,
        qualname,
    })
}

/// Rule 1.
fn stands_for(class: &Bound<'_, PyType>) -> PyResult<Option<Kind>> {
    let py = class.py();
    let found = types::stand_in_of(py)?.invoke1(class)?;
    if found.is_none() {
        return Ok(None);
    }
    let (how, function): (String, Bound<'_, PyAny>) = found.extract()?;
    Ok(Some(match how.as_str() {
        "itself" => Kind::Itself,
        "of one call" => Kind::OfOneCall,
        "value" => Kind::StandsFor { function: function.unbind(), is_asked: false },
        "registered" => Kind::StandsFor { function: function.unbind(), is_asked: true },
        _ => return Err(PyTypeError::new_err(format!("an unknown stand-in: {how}"))),
    }))
}

fn kind_of(class: &Bound<'_, PyType>) -> PyResult<Kind> {
    let py = class.py();
    let is = |other: &Bound<'_, PyType>| class.is(other);
    let inherits = |other: &Bound<'_, PyType>| class.mro().iter().any(|ancestor| ancestor.is(other));
    Ok(
        if is(&py.None().bind(py).get_type())
            || is(&py.get_type::<PyDate>())
            || is(&py.get_type::<PyDateTime>())
            || is(&py.get_type::<PyTime>())
            || is(&py.get_type::<PyDelta>())
            || is(types::timezone(py)?)
            || is(types::decimal(py)?)
            || is(types::fraction(py)?)
            || is(types::uuid(py)?)
            || is(types::pure_posix_path(py)?)
            || is(types::pure_windows_path(py)?)
            || is(types::posix_path(py)?)
            || is(types::windows_path(py)?)
        {
            Kind::Known
        } else if inherits(types::enumeration(py)?) {
            Kind::Enum
        } else if inherits(types::partial(py)?) {
            Kind::Partial
        } else if is(types::method(py)?) {
            Kind::Method
        } else if inherits(&py.get_type::<PyBaseException>()) {
            let (reduce, base) = (intern!(py, "__reduce__"), py.get_type::<PyBaseException>());
            if class.getattr(reduce)?.is(&base.getattr(reduce)?) { Kind::Exception } else { Kind::Other }
        } else if is(types::mapping_proxy(py)?) {
            Kind::MappingProxy
        } else if inherits(types::dict_keys(py)?) {
            Kind::DictKeys
        } else if inherits(types::dict_values(py)?) || inherits(types::dict_items(py)?) {
            Kind::DictValues
        } else if inherits(types::ordered_dict(py)?) {
            Kind::Ordered
        } else if is_array(class)? {
            Kind::Array
        } else {
            Kind::Other
        },
    )
}

/// Whether a buffer shows all that there is to an object.
fn is_array(class: &Bound<'_, PyType>) -> PyResult<bool> {
    let py = class.py();
    if class.is(py.get_type::<PyMemoryView>()) || class.is(types::array(py)?) {
        return Ok(true);
    }
    Ok(class.name()? == "ndarray" && class.module()? == "numpy")
}

/// The first of the class and its bases that defines a name, and what it is there.
fn definition<'py>(
    class: &Bound<'py, PyType>,
    name: &Bound<'py, PyString>,
) -> Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    class.mro().iter().find_map(|ancestor| {
        let found = own_of(&ancestor, name)?;
        Some((ancestor, found))
    })
}

/// What a class itself defines under a name.
fn own_of<'py>(class: &Bound<'py, PyAny>, name: &Bound<'py, PyString>) -> Option<Bound<'py, PyAny>> {
    namespace(class)?.get_item(name).ok()
}

fn namespace<'py>(class: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    let py = class.py();
    py.get_type::<PyType>()
        .getattr(intern!(py, "__getattribute__"))
        .ok()?
        .call1((class, intern!(py, "__dict__")))
        .ok()
}

/// The module that the code of a function is from; empty if it is no function of Python's.
fn module_of(function: &Bound<'_, PyAny>) -> String {
    if !function.is_instance_of::<PyFunction>() {
        return String::new();
    }
    let of = |name| function.getattr(name).ok().and_then(|text| text.extract::<String>().ok());
    // What attrs generates has the module of the class, but not its globals.
    let globals = function.getattr("__globals__").ok().and_then(|globals| globals.get_item("__name__").ok());
    globals.and_then(|name| name.extract().ok()).or_else(|| of("__module__")).unwrap_or_default()
}

/// Rule 2.
fn says(class: &Bound<'_, PyType>, is_model: bool) -> Says {
    let py = class.py();
    let says = |name: &Bound<'_, PyString>| {
        let (ancestor, function) = definition(class, name)?;
        if !function.is_instance_of::<PyFunction>() {
            return None;
        }
        let module = module_of(&function);
        let is_generated = module == "dataclasses"
            || module.starts_with("attr.")
            || (is_model && module.starts_with("pydantic"));
        (!is_generated).then(|| ancestor.is(class))
    };
    if let Some(is_own) = says(intern!(py, "__reduce_ex__")).or_else(|| says(intern!(py, "__reduce__"))) {
        return Says::Reduce { is_own };
    }
    says(intern!(py, "__getstate__")).map_or(Says::Nothing, |is_own| Says::State { is_own })
}

/// Whether it is one of pydantic's models.
fn is_model(class: &Bound<'_, PyType>) -> bool {
    class.mro().iter().any(|ancestor| {
        let name = Name::of(&ancestor);
        let (module, qualname) = name.texts();
        qualname == "BaseModel" && (module == "pydantic.main" || module == "pydantic.v1.main")
    })
}

fn is_note_of_fields(name: &Bound<'_, PyString>) -> bool {
    name.to_cow().is_ok_and(|name| name == "__pydantic_fields_set__" || name == "__fields_set__")
}

/// Rule 3. What goes wrong while looking leaves nothing out.
fn left_out(class: &Bound<'_, PyType>) -> Vec<Py<PyString>> {
    let mut names = Vec::new();
    for ancestor in class.mro().iter() {
        let items = namespace(&ancestor)
            .and_then(|own| own.call_method0("items").ok())
            .and_then(|items| items.try_iter().ok())
            .into_iter()
            .flatten();
        for item in items {
            let Some((name, attribute)) =
                item.ok().and_then(|item| item.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>().ok())
            else {
                continue;
            };
            let Ok(name) = name.cast_into::<PyString>() else { continue };
            if is_cached_property(&attribute.get_type())
                && definition(class, &name).is_some_and(|found| found.1.is(&attribute))
            {
                names.push(name.unbind());
            }
        }
    }
    names.extend(fields_left_out(class, "__dataclass_fields__", "compare").unwrap_or_default());
    names.extend(fields_left_out(class, "__attrs_attrs__", "eq").unwrap_or_default());
    names
}

/// Those of `functools`, and their likes in other libraries: they keep their result under their own
/// name.
fn is_cached_property(class: &Bound<'_, PyType>) -> bool {
    class.mro().iter().any(|ancestor| {
        ancestor.cast::<PyType>().is_ok_and(|class| class.name().is_ok_and(|name| name == "cached_property"))
    })
}

/// Fields that say that comparisons do not look at them.
fn fields_left_out(class: &Bound<'_, PyType>, fields: &str, flag: &str) -> Option<Vec<Py<PyString>>> {
    let py = class.py();
    let (_, listed) = definition(class, &PyString::new(py, fields))?;
    let listed = match listed.cast::<PyDict>() {
        Ok(fields) => fields.values().into_any(),
        Err(_) => listed.cast::<PyTuple>().ok()?.clone().into_any(),
    };
    let mut names = Vec::new();
    for field in listed.try_iter().ok()? {
        let field = field.ok()?;
        if field.getattr(flag).ok()?.is(pyo3::types::PyBool::new(py, false).as_any()) {
            names.push(field.getattr("name").ok()?.cast_into::<PyString>().ok()?.unbind());
        }
    }
    Some(names)
}

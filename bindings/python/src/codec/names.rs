//! Classes, functions and modules by name, as another process would find them.

use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyModule, PyString, PyType};

use super::text::write_text;
use super::types;

/// The place of definition claimed by an object. Either part may be empty, and neither need be
/// true: see [`QualifiedName::leads_to`].
pub(super) struct QualifiedName<'py> {
    module: Bound<'py, PyString>,
    qualname: Bound<'py, PyString>,
}

impl<'py> QualifiedName<'py> {
    /// Of a class or function.
    pub(super) fn of(object: &Bound<'py, PyAny>) -> Self {
        let py = object.py();
        let part = |name| match object.getattr(name).map(Bound::cast_into::<PyString>) {
            Ok(Ok(text)) => text,
            _ => PyString::new(py, ""),
        };
        Self { module: part("__module__"), qualname: part("__qualname__") }
    }

    pub(super) fn new(module: Bound<'py, PyString>, qualname: Bound<'py, PyString>) -> Self {
        Self { module, qualname }
    }

    /// Module and qualified name.
    pub(super) fn parts(self) -> (Py<PyString>, Py<PyString>) {
        (self.module.unbind(), self.qualname.unbind())
    }

    /// Module and qualified name, as text.
    pub(super) fn texts(&self) -> (String, String) {
        (self.module.to_string_lossy().into_owned(), self.qualname.to_string_lossy().into_owned())
    }

    /// Of an object found under `qualname` in its own module, or in its class's module.
    pub(super) fn of_global(object: &Bound<'py, PyAny>, qualname: Bound<'py, PyString>) -> Self {
        let own = Self::of(object);
        let is_empty = own.module.len().is_ok_and(|len| len == 0);
        Self { module: if is_empty { Self::of(&object.get_type()).module } else { own.module }, qualname }
    }

    /// Of a class method written in C, and its class.
    pub(super) fn of_class_method(object: &Bound<'py, PyAny>) -> PyResult<Option<(Self, Bound<'py, PyAny>)>> {
        if !object.is_instance_of::<PyCFunction>() {
            return Ok(None);
        }
        let class = object.getattr("__self__")?;
        if !class.is_instance_of::<PyType>() {
            return Ok(None);
        }
        let name = Self::of(&class);
        let qualname =
            PyString::new(object.py(), &format!("{}.{}", name.qualname, object.getattr("__name__")?));
        Ok(Some((Self { module: name.module, qualname }, class)))
    }

    pub(super) fn of_module(module: &Bound<'py, PyAny>) -> PyResult<Self> {
        let name = module.getattr("__name__")?.cast_into()?;
        Ok(Self { module: name, qualname: PyString::new(module.py(), "") })
    }

    /// Appends two strings.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> PyResult<()> {
        write_text(&self.module, out)?;
        write_text(&self.qualname, out)
    }

    pub(super) fn write_qualname(&self, out: &mut Vec<u8>) -> PyResult<()> {
        write_text(&self.qualname, out)
    }

    /// Whether the name leads to the object.
    pub(super) fn leads_to(&self, object: &Bound<'py, PyAny>) -> bool {
        find(&self.module, &self.qualname).is_ok_and(|found| found.is_some_and(|found| found.is(object)))
            || self.is_of_interpreter(object)
    }

    /// Whether the object is a class of the interpreter that no module has under its name, for
    /// example `NoneType` or `dict_keys`. The modules `types` and `_collections_abc` list them.
    fn is_of_interpreter(&self, object: &Bound<'py, PyAny>) -> bool {
        self.module.to_cow().is_ok_and(|module| module == "builtins")
            && object.is_instance_of::<PyType>()
            && [types::all_types(object.py()), types::all_views(object.py())].into_iter().any(|listed| {
                let listed = listed.ok().and_then(|listed| listed.cast::<PyDict>().ok());
                listed.is_some_and(|listed| listed.values().iter().any(|listed| listed.is(object)))
            })
    }
}

/// Whether a class, function or module is found under its name.
pub(crate) fn is_found(object: &Bound<'_, PyAny>) -> bool {
    let name = if object.is_instance_of::<PyModule>() {
        QualifiedName::of_module(object)
    } else {
        Ok(QualifiedName::of(object))
    };
    name.is_ok_and(|name| name.leads_to(object))
}

/// Looks only in imported modules: a file must not make a program import the modules it names.
pub(super) fn find<'py>(
    module: &Bound<'py, PyString>,
    qualname: &Bound<'py, PyString>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let Ok(mut found) = types::modules(module.py())?.get_item(module) else { return Ok(None) };
    let qualname = qualname.to_str()?;
    for part in qualname.split('.').filter(|_| !qualname.is_empty()) {
        let Ok(next) = found.getattr(part) else { return Ok(None) };
        found = next;
    }
    Ok(Some(found))
}

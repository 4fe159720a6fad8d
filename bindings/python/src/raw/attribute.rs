//! The content of an object, without running its `__getattribute__` or `__getattr__`.

use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

/// The instance's own dict, whatever its class returns as `__dict__`. None if there is no dict, or
/// no access to it.
pub(crate) fn own_dict<'py>(object: &Bound<'py, PyAny>) -> Option<Bound<'py, PyDict>> {
    let py = object.py();
    // SAFETY: attached, and `object` is alive. The function returns a new reference, or null and an
    // exception.
    let dict = unsafe {
        let dict = ffi::PyObject_GenericGetDict(object.as_ptr(), ptr::null_mut());
        Bound::from_owned_ptr_or_err(py, dict)
    };
    dict.ok()?.cast_into().ok()
}

/// Whether an object can be read as memory.
pub(crate) fn has_buffer(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: attached, and `object` is alive.
    unsafe { ffi::PyObject_CheckBuffer(object.as_ptr()) != 0 }
}

/// Whether an object's class has a `__next__`. If not, `PyO3`'s cast would import a module, and
/// panic if an interrupt occurred during the import.
pub(crate) fn is_iterator(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: attached, and `object` is alive.
    unsafe { ffi::PyIter_Check(object.as_ptr()) != 0 }
}

/// An attribute as `object.__getattribute__` finds it; called here for slots only. None if the
/// attribute is not set, or the slot's descriptor raises.
pub(crate) fn slot<'py>(
    object: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
) -> Option<Bound<'py, PyAny>> {
    let py = object.py();
    // SAFETY: attached, and both are alive. The function returns a new reference, or null and an
    // exception.
    unsafe {
        let content = ffi::PyObject_GenericGetAttr(object.as_ptr(), name.as_ptr());
        Bound::from_owned_ptr_or_err(py, content).ok()
    }
}

//! A method that is called like those of `method`, and is accepted as an async function.
//!
//! `inspect.iscoroutinefunction`, and with it `unittest.mock` and Starlette, look at the class of a
//! method's function and at its code. A method descriptor of the interpreter has neither, so we use
//! a descriptor of our own: it is called without being bound (`Py_TPFLAGS_METHOD_DESCRIPTOR`), and
//! all its attributes are those of a Python async function with the same parameters, which never
//! runs.
//!
//! The class with the method is a static class made by `PyO3`, which lives as long as the process.
//! A call reads the class from the descriptor, because the way through `PyO3` takes longer than the
//! rest of the check.

use std::ffi::c_void;
use std::ptr::null_mut;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyType;
use pyo3::{PyTypeInfo, ffi};

use super::class::{self, Blueprint, Class, Forward};
use super::method::{self, Method};
use super::visit::visits;
use super::{Ref, attached};

unsafe extern "C" {
    /// Makes a bound method from a function and its object; not among `PyO3`'s declarations.
    fn PyMethod_New(function: *mut ffi::PyObject, object: *mut ffi::PyObject) -> *mut ffi::PyObject;
}

static CLASS: Class<AsyncMethod> = Class::new();

struct AsyncMethod {
    passes_for: Ref,
    /// The class with the method.
    class: *mut ffi::PyTypeObject,
}

visits!(struct AsyncMethod { passes_for });

impl Forward for AsyncMethod {
    fn owner(&self) -> &Ref {
        &self.passes_for
    }
}

/// Adds the method, which stands for a function, to the class.
pub(crate) fn add<M: Method<N>, const N: usize>(
    py: Python<'_>,
    passes_for: Bound<'_, PyAny>,
) -> PyResult<()> {
    let class = CLASS.get_or_make(py, || make_class(py))?.as_ptr().cast();
    let body = AsyncMethod { passes_for: Ref::new(passes_for), class: M::Class::type_object_raw(py) };
    // SAFETY: attached; the class is that of objects with this body.
    let method = unsafe { class::make(py, class, call::<M, N>, body)? };
    let name = M::NAME.to_str().expect("our own names are ASCII");
    M::Class::type_object(py).cast::<PyType>()?.setattr(name, method)
}

fn make_class(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let flags = ffi::Py_TPFLAGS_METHOD_DESCRIPTOR
        // For method look-ups the interpreter caches only descriptors of immutable types.
        | ffi::Py_TPFLAGS_IMMUTABLETYPE
        | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
    let blueprint = Blueprint::of_object::<AsyncMethod>(c"cache._native.AsyncMethod", flags)
        .slot(ffi::Py_tp_descr_get, bind as *mut c_void)
        .slot(ffi::Py_tp_getattro, class::forward_rest::<AsyncMethod> as *mut c_void)
        .attribute(c"__class__", class::forward::<AsyncMethod>)
        .attribute(c"__doc__", class::forward::<AsyncMethod>)
        .attribute(c"__module__", class::forward::<AsyncMethod>);
    // SAFETY: attached; the slots and getters have their signatures.
    unsafe { blueprint.make(py) }
}

unsafe extern "C" fn call<M: Method<N>, const N: usize>(
    method: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    flags: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: attached. The vectorcall protocol: `args` are the positional arguments, then one for
    // each of `names`, null or a tuple of strings. The first one is the object, whose class is
    // checked, as by a descriptor. `method` has this body.
    unsafe {
        let positional = ffi::PyVectorcall_NARGS(flags);
        let class = class::body::<AsyncMethod>(method).class;
        if positional < 1 || !is_of(*args, class) {
            attached(|py| {
                let message = format!("{}() is called on a cache", M::NAME.to_string_lossy());
                PyTypeError::new_err(message).restore(py);
            });
            return null_mut();
        }
        method::call::<M, N>(*args, args.add(1), positional - 1, names)
    }
}

/// Whether an object is of a class; most objects are of a direct subclass.
///
/// # Safety
/// Both are alive, and the thread is attached.
#[inline]
unsafe fn is_of(object: *mut ffi::PyObject, class: *mut ffi::PyTypeObject) -> bool {
    // SAFETY: promised by the caller.
    unsafe { (*ffi::Py_TYPE(object)).tp_base == class || ffi::PyObject_TypeCheck(object, class) != 0 }
}

unsafe extern "C" fn bind(
    method: *mut ffi::PyObject,
    instance: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: attached; all objects are alive.
    unsafe {
        if instance.is_null() || instance == ffi::Py_None() {
            ffi::Py_NewRef(method)
        } else {
            PyMethod_New(method, instance)
        }
    }
}

//! A method that is called as those of `method` are, and passes for an async function.
//!
//! `inspect.iscoroutinefunction`, and with it `unittest.mock` and Starlette, look at the class of a method's function and
//! at its code. A method descriptor of the interpreter has neither, so this is a descriptor of our own: it is called
//! without being bound (`Py_TPFLAGS_METHOD_DESCRIPTOR`), and all its attributes are those of an async function of Python's
//! with the same parameters, which never runs.
//!
//! Invariant: `passes_for` is set from creation to dealloc and never changes. It refers to nothing that leads back. `class`
//! is the class that has the method: a static one of `PyO3`'s, which lives as long as the process. A call looks it up
//! here, for `PyO3` takes longer than the rest of the check.

use std::ffi::{CStr, c_int, c_void};
use std::mem::offset_of;
use std::ptr::null_mut;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use pyo3::{PyTypeInfo, ffi};

use super::attached;
use super::method::{self, Method};

unsafe extern "C" {
    /// A function and the object it is called on, as a bound method; not among `PyO3`'s declarations.
    fn PyMethod_New(function: *mut ffi::PyObject, object: *mut ffi::PyObject) -> *mut ffi::PyObject;
}

static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();

#[repr(C)]
struct Object {
    base: ffi::PyObject,
    vectorcall: Option<ffi::vectorcallfunc>,
    passes_for: *mut ffi::PyObject,
    class: *mut ffi::PyTypeObject,
}

/// Gives the class the method, which passes for a function.
pub(crate) fn add<M: Method<N>, const N: usize>(
    py: Python<'_>,
    passes_for: Bound<'_, PyAny>,
) -> PyResult<()> {
    let class = CLASS.get_or_try_init(py, || make_class(py).map(Bound::unbind))?.bind(py);
    // SAFETY: attached; the type is ready and has the size of `Object`; every field is written before anybody sees it.
    let method = unsafe {
        let alloc = ffi::PyType_GenericAlloc(class.as_ptr().cast(), 0);
        let method = Bound::from_owned_ptr_or_err(py, alloc)?;
        let this = method.as_ptr().cast::<Object>();
        (&raw mut (*this).vectorcall).write(Some(call::<M, N>));
        (&raw mut (*this).passes_for).write(passes_for.into_ptr());
        (&raw mut (*this).class).write(M::Class::type_object_raw(py));
        method
    };
    let name = M::NAME.to_str().expect("our own names are ASCII");
    M::Class::type_object(py).cast::<PyType>()?.setattr(name, method)
}

fn make_class(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    // The interpreter keeps pointers to these; the type lives as long as the process.
    let members = Box::leak(Box::new([
        ffi::PyMemberDef {
            name: c"__vectorcalloffset__".as_ptr(),
            type_code: ffi::Py_T_PYSSIZET,
            offset: offset_of!(Object, vectorcall).cast_signed(),
            flags: ffi::Py_READONLY,
            doc: std::ptr::null(),
        },
        // SAFETY: all zeros end the list.
        unsafe { std::mem::zeroed() },
    ]));
    let forwarded = |name: &'static CStr| ffi::PyGetSetDef {
        name: name.as_ptr(),
        get: Some(forward),
        set: None,
        doc: std::ptr::null(),
        closure: name.as_ptr().cast_mut().cast(),
    };
    let getset = Box::leak(Box::new([
        forwarded(c"__class__"),
        forwarded(c"__doc__"),
        forwarded(c"__module__"),
        // SAFETY: all zeros end the list.
        unsafe { std::mem::zeroed() },
    ]));
    let slot = |slot, pfunc: *mut c_void| ffi::PyType_Slot { slot, pfunc };
    let mut slots = [
        slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void),
        slot(ffi::Py_tp_descr_get, bind as *mut c_void),
        slot(ffi::Py_tp_getattro, getattro as *mut c_void),
        slot(ffi::Py_tp_dealloc, dealloc as *mut c_void),
        slot(ffi::Py_tp_members, members.as_mut_ptr().cast()),
        slot(ffi::Py_tp_getset, getset.as_mut_ptr().cast()),
        slot(0, null_mut()),
    ];
    let flags = ffi::Py_TPFLAGS_DEFAULT
        | ffi::Py_TPFLAGS_HAVE_VECTORCALL
        | ffi::Py_TPFLAGS_METHOD_DESCRIPTOR
        // The interpreter remembers only descriptors of such a type where it looks up a method.
        | ffi::Py_TPFLAGS_IMMUTABLETYPE
        | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
    let mut spec = ffi::PyType_Spec {
        name: c"cache._native.AsyncMethod".as_ptr(),
        basicsize: c_int::try_from(size_of::<Object>())?,
        itemsize: 0,
        flags: u32::try_from(flags)?,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: attached; the slots have the signatures that their numbers ask for, end with a zero, and are
    // copied; the offset is that of a field of the right type.
    unsafe {
        let class = Bound::from_owned_ptr_or_err(py, ffi::PyType_FromSpec(&raw mut spec))?;
        Ok(class.cast_into_unchecked::<PyType>())
    }
}

unsafe extern "C" fn call<M: Method<N>, const N: usize>(
    method: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    flags: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: attached. The vectorcall protocol: `args` are the positional arguments, then one for each of `names`, null
    // or a tuple of strings. The first one is the object, whose class is checked, as a descriptor does. `method` is of
    // this type, so its `class` is set.
    unsafe {
        let positional = ffi::PyVectorcall_NARGS(flags);
        let class = (*method.cast::<Object>()).class;
        if positional < 1 || ffi::PyObject_TypeCheck(*args, class) == 0 {
            attached(|py| {
                let message = format!("{}() is called on a cache", M::NAME.to_string_lossy());
                PyTypeError::new_err(message).restore(py);
            });
            return null_mut();
        }
        method::call::<M, N>(*args, args.add(1), positional - 1, names)
    }
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

/// Its own attributes, then those of what it passes for.
unsafe extern "C" fn getattro(method: *mut ffi::PyObject, name: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: attached; the object is of this type; the exception is taken away if it is an `AttributeError` only.
    unsafe {
        let own = ffi::PyObject_GenericGetAttr(method, name);
        if !own.is_null() || ffi::PyErr_ExceptionMatches(ffi::PyExc_AttributeError) == 0 {
            return own;
        }
        ffi::PyErr_Clear();
        ffi::PyObject_GetAttr((*method.cast::<Object>()).passes_for, name)
    }
}

/// The attribute of what it passes for whose name is in `closure`.
unsafe extern "C" fn forward(method: *mut ffi::PyObject, closure: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: attached; the object is of this type, `closure` the name that `make_class` put there.
    unsafe {
        let name = closure.cast_const().cast();
        ffi::PyObject_GetAttrString((*method.cast::<Object>()).passes_for, name)
    }
}

unsafe extern "C" fn dealloc(method: *mut ffi::PyObject) {
    // SAFETY: called once, when the last reference is gone. The type's reference is given back last.
    unsafe {
        ffi::Py_XDECREF((*method.cast::<Object>()).passes_for);
        let class = ffi::Py_TYPE(method);
        ffi::PyObject_Free(method.cast());
        ffi::Py_DECREF(class.cast());
    }
}

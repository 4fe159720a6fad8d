//! The decorated function: a callable with vectorcall that passes for the function it decorates.
//!
//! A call makes an awaitable and does nothing else. The object has a `__dict__` (for `functools.update_wrapper`
//! and the methods that the decorator adds), is a method descriptor, so that a call of a method makes no bound
//! method, and says that its `__class__` is the function's: web frameworks ask `inspect.isfunction` and
//! `inspect.iscoroutinefunction`, which look at that and at the code object.
//!
//! Invariant: `function` is initialised from creation to the end of dealloc and never changes; the collector
//! alone takes its `dict` away, when nobody can reach the object any more.

use std::ffi::{CStr, c_int, c_void};
use std::mem::{ManuallyDrop, offset_of};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyTuple, PyType};

use super::calls::Invoke;
use super::coroutine::{panicked, pointer_of};
use super::{Ref, attached};
use crate::agent::Tool;
use crate::args::Args;
use crate::function::Function;
use crate::instances::Instances;

static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();

#[repr(C)]
struct Object {
    base: ffi::PyObject,
    vectorcall: Option<ffi::vectorcallfunc>,
    dict: *mut ffi::PyObject,
    weakrefs: *mut ffi::PyObject,
    function: ManuallyDrop<Function>,
}

/// What a call of a decorated function makes.
pub(crate) trait Calls {
    /// With one positional argument.
    fn called_with_one(function: Bound<'_, PyAny>, arg: Ref) -> PyResult<Bound<'_, PyAny>>;
    /// With any arguments, the last ones given by `names`.
    fn called(
        function: Bound<'_, PyAny>,
        args: Args,
        names: Option<Ref<PyTuple>>,
    ) -> PyResult<Bound<'_, PyAny>>;
}

/// Makes a decorated function whose calls make what `C` says.
pub(crate) fn new<C: Calls>(py: Python<'_>, function: Function) -> PyResult<Bound<'_, PyAny>> {
    let class = class(py)?.as_ptr().cast::<ffi::PyTypeObject>();
    // SAFETY: the type is ready and has the size of `Object`; every field is written before anybody sees it.
    unsafe {
        let object = ffi::PyObject_GC_New::<ffi::PyObject>(class);
        if object.is_null() {
            return Err(PyErr::fetch(py));
        }
        let this = object.cast::<Object>();
        (&raw mut (*this).vectorcall).write(Some(call::<C>));
        (&raw mut (*this).dict).write(null_mut());
        (&raw mut (*this).weakrefs).write(null_mut());
        (&raw mut (*this).function).write(ManuallyDrop::new(function));
        ffi::PyObject_GC_Track(object.cast());
        Ok(Bound::from_owned_ptr(py, object))
    }
}

/// What a decorated function is made of; `None` for any other object.
pub(crate) fn function<'a>(object: &'a Bound<'_, PyAny>) -> Option<&'a Function> {
    let class = CLASS.get(object.py())?;
    // SAFETY: the type is checked; the function is there as long as the object is.
    (object.get_type().is(class)).then(|| unsafe { &*(*object.as_ptr().cast::<Object>()).function })
}

/// The Python type, made at its first use.
pub(crate) fn class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    Ok(CLASS.get_or_try_init(py, || make_class(py).map(Bound::unbind))?.bind(py))
}

fn make_class(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let offset = |name: &'static CStr, offset: usize| ffi::PyMemberDef {
        name: name.as_ptr(),
        type_code: ffi::Py_T_PYSSIZET,
        offset: offset.cast_signed(),
        flags: ffi::Py_READONLY,
        doc: std::ptr::null(),
    };
    // The interpreter keeps pointers to these; the type lives as long as the process.
    let members = Box::leak(Box::new([
        offset(c"__vectorcalloffset__", offset_of!(Object, vectorcall)),
        offset(c"__dictoffset__", offset_of!(Object, dict)),
        offset(c"__weaklistoffset__", offset_of!(Object, weakrefs)),
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
        ffi::PyGetSetDef {
            name: c"__dict__".as_ptr(),
            get: Some(ffi::PyObject_GenericGetDict),
            set: Some(ffi::PyObject_GenericSetDict),
            doc: std::ptr::null(),
            closure: null_mut(),
        },
        forwarded(c"__class__"),
        forwarded(c"__code__"),
        forwarded(c"__defaults__"),
        forwarded(c"__kwdefaults__"),
        forwarded(c"__globals__"),
        forwarded(c"__builtins__"),
        forwarded(c"__closure__"),
        // SAFETY: all zeros end the list.
        unsafe { std::mem::zeroed() },
    ]));
    let methods = Box::leak(Box::new([
        ffi::PyMethodDef {
            ml_name: c"__reduce__".as_ptr(),
            ml_meth: ffi::PyMethodDefPointer { PyCFunction: reduce },
            ml_flags: ffi::METH_NOARGS,
            ml_doc: c"Pickles it by name, as a function is.".as_ptr(),
        },
        ffi::PyMethodDef::zeroed(),
    ]));
    let slot = |slot, pfunc: *mut c_void| ffi::PyType_Slot { slot, pfunc };
    let mut slots = [
        slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void),
        slot(ffi::Py_tp_descr_get, bind as *mut c_void),
        slot(ffi::Py_tp_repr, repr as *mut c_void),
        slot(ffi::Py_tp_dealloc, dealloc as *mut c_void),
        slot(ffi::Py_tp_traverse, traverse as *mut c_void),
        slot(ffi::Py_tp_clear, clear as *mut c_void),
        slot(ffi::Py_tp_members, members.as_mut_ptr().cast()),
        slot(ffi::Py_tp_getset, getset.as_mut_ptr().cast()),
        slot(ffi::Py_tp_methods, methods.as_mut_ptr().cast()),
        slot(0, null_mut()),
    ];
    let flags = ffi::Py_TPFLAGS_DEFAULT
        | ffi::Py_TPFLAGS_HAVE_GC
        | ffi::Py_TPFLAGS_HAVE_VECTORCALL
        | ffi::Py_TPFLAGS_METHOD_DESCRIPTOR
        // The interpreter remembers only descriptors of such a type where it looks up a method.
        | ffi::Py_TPFLAGS_IMMUTABLETYPE
        | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
    let mut spec = ffi::PyType_Spec {
        name: c"cache._native.CachedFunction".as_ptr(),
        basicsize: c_int::try_from(size_of::<Object>())?,
        itemsize: 0,
        flags: u32::try_from(flags)?,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: attached; the slots have the signatures that their numbers ask for, end with a zero, and are
    // copied; the offsets are those of fields of the right types.
    unsafe {
        let class = Bound::from_owned_ptr_or_err(py, ffi::PyType_FromSpec(&raw mut spec))?;
        Ok(class.cast_into_unchecked::<PyType>())
    }
}

unsafe extern "C" fn call<C: Calls>(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    flags: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: attached. The vectorcall protocol: `args` are the positional arguments, then one for each name;
    // `names` is null or a tuple of strings; the object is of this type.
    unsafe {
        let py = Python::assume_attached();
        let positional = ffi::PyVectorcall_NARGS(flags).cast_unsigned();
        let named = if names.is_null() { 0 } else { ffi::PyTuple_GET_SIZE(names).cast_unsigned() };
        let made = catch_unwind(AssertUnwindSafe(|| {
            if positional == 1 && named == 0 {
                let arg = Ref::new(Bound::from_borrowed_ptr(py, *args));
                return C::called_with_one(Bound::from_borrowed_ptr(py, object), arg);
            }
            let args = Args::collect(positional + named, |index| {
                Ref::new(Bound::from_borrowed_ptr(py, *args.add(index)))
            });
            let names = (named > 0)
                .then(|| Ref::new(Bound::from_borrowed_ptr(py, names).cast_into_unchecked::<PyTuple>()));
            C::called(Bound::from_borrowed_ptr(py, object), args, names)
        }));
        match made {
            Ok(Ok(awaitable)) => awaitable.into_ptr(),
            Ok(Err(error)) => {
                attached(|py| error.restore(py));
                null_mut()
            }
            Err(panic) => {
                attached(|py| panicked(&*panic).restore(py));
                null_mut()
            }
        }
    }
}

unsafe extern "C" fn bind(
    object: *mut ffi::PyObject,
    instance: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: attached; all objects are alive.
    unsafe {
        if instance.is_null() || instance == ffi::Py_None() {
            ffi::Py_NewRef(object)
        } else {
            super::bound::bind(object, instance)
        }
    }
}

/// The attribute of the function that it passes for whose name is in `closure`.
unsafe extern "C" fn forward(object: *mut ffi::PyObject, closure: *mut c_void) -> *mut ffi::PyObject {
    attached(|py| {
        // SAFETY: the object is of this type; `closure` is the name that `make_class` put there.
        let (function, name) =
            unsafe { (&(*object.cast::<Object>()).function, CStr::from_ptr(closure.cast_const().cast())) };
        let name = name.to_str().expect("our own names are ASCII");
        let value = match &function.passes_for {
            Some(passes_for) => passes_for.bind(py).getattr(name),
            None if name == "__class__" => class(py).map(|class| class.clone().into_any()),
            None => function.wrapped.bind(py).getattr(name),
        };
        match value {
            Ok(value) => value.into_ptr(),
            Err(error) => {
                error.restore(py);
                null_mut()
            }
        }
    })
}

unsafe extern "C" fn reduce(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: attached, and the object is alive.
    unsafe { ffi::PyObject_GetAttrString(object, c"__qualname__".as_ptr()) }
}

unsafe extern "C" fn repr(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    attached(|py| {
        // SAFETY: the object is of this type.
        let function = unsafe { &(*object.cast::<Object>()).function };
        match function.wrapped.bind(py).invoke_repr() {
            Ok(wrapped) => pyo3::types::PyString::new(py, &format!("<cached {wrapped}>")).into_ptr(),
            Err(error) => {
                error.restore(py);
                null_mut()
            }
        }
    })
}

unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    let this = object.cast::<Object>();
    // SAFETY: called once, when the last reference is gone; off the collector's lists before anything in it
    // is dropped. The type's reference is given back last.
    unsafe {
        ffi::PyObject_GC_UnTrack(object.cast());
        if !(*this).weakrefs.is_null() {
            ffi::PyObject_ClearWeakRefs(object);
        }
        let dict = std::mem::replace(&mut (*this).dict, null_mut());
        ffi::Py_XDECREF(dict);
        ManuallyDrop::drop(&mut (*this).function);
        let class = ffi::Py_TYPE(object);
        ffi::PyObject_GC_Del(object.cast());
        ffi::Py_DECREF(class.cast());
    }
}

unsafe extern "C" fn traverse(object: *mut ffi::PyObject, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    let this = object.cast::<Object>();
    // SAFETY: the collector passes live objects of this type.
    unsafe {
        let function = &(*this).function;
        let held = [
            ffi::Py_TYPE(object).cast(),
            (*this).dict,
            function.wrapped.pointer(),
            pointer_of(function.passes_for.as_ref()),
            function.cache.pointer(),
            pointer_of(function.make_key.as_ref()),
            pointer_of(function.tool.as_ref().and_then(Tool::make)),
        ];
        let instances = function.part.as_ref().and_then(|part| part.instances.as_ref());
        let of_instances = instances.map_or([null_mut(); 2], Instances::held);
        for held in held.into_iter().chain(of_instances) {
            if !held.is_null() {
                let stop = visit(held, arg);
                if stop != 0 {
                    return stop;
                }
            }
        }
        0
    }
}

unsafe extern "C" fn clear(object: *mut ffi::PyObject) -> c_int {
    let this = object.cast::<Object>();
    // SAFETY: nobody can reach the object any more. `function` stays, for it must be there until dealloc; the
    // cycles it is in go through the cache or the decorated function, which can be cleared themselves.
    unsafe {
        let dict = std::mem::replace(&mut (*this).dict, null_mut());
        ffi::Py_XDECREF(dict);
    }
    0
}

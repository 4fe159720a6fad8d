//! The bound method of a decorated function: the function and the object that it is called on.
//!
//! The interpreter's own bound methods look their attributes up on the function, which then does not know the object:
//! `repository.get.invalidate_cache(7)` would be an invalidation for 7. This one passes for such a method (`__class__`
//! is its class, so `inspect.ismethod` is true), and binds `invalidate_cache`, too. All other attributes are the
//! function's. A call of a method makes no bound method, so none of this is on its way.
//!
//! Invariant: `function` and `instance` are set from creation to dealloc and never change; the collector does not clear
//! them, for the cycles that they are in go through the object or the function's cache.

use std::ffi::{CStr, c_int, c_void};
use std::mem::offset_of;
use std::ptr::null_mut;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyType};

use super::attached;
use super::calls::Invoke;

unsafe extern "C" {
    /// A function and the object it is called on, as a bound method; not among `PyO3`'s declarations.
    fn PyMethod_New(function: *mut ffi::PyObject, object: *mut ffi::PyObject) -> *mut ffi::PyObject;
    /// The interpreter's class of bound methods; not among `PyO3`'s declarations.
    static mut PyMethod_Type: ffi::PyTypeObject;
}

static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// Arguments of a call that are copied on the stack; more are copied to the heap.
const ON_STACK: usize = 8;

#[repr(C)]
struct Object {
    base: ffi::PyObject,
    vectorcall: Option<ffi::vectorcallfunc>,
    function: *mut ffi::PyObject,
    instance: *mut ffi::PyObject,
    weakrefs: *mut ffi::PyObject,
}

/// Binds a decorated function to an object. Both are alive, and the thread is attached.
pub(super) unsafe fn bind(function: *mut ffi::PyObject, object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: attached. The type is ready and has the size of `Object`; every field is written before anybody sees it.
    unsafe {
        let py = Python::assume_attached();
        let class = match class(py) {
            Ok(class) => class.as_ptr().cast::<ffi::PyTypeObject>(),
            Err(error) => {
                attached(|py| error.restore(py));
                return null_mut();
            }
        };
        let bound = ffi::PyObject_GC_New::<ffi::PyObject>(class);
        if bound.is_null() {
            return null_mut();
        }
        let this = bound.cast::<Object>();
        (&raw mut (*this).vectorcall).write(Some(call));
        (&raw mut (*this).function).write(ffi::Py_NewRef(function));
        (&raw mut (*this).instance).write(ffi::Py_NewRef(object));
        (&raw mut (*this).weakrefs).write(null_mut());
        ffi::PyObject_GC_Track(bound.cast());
        bound
    }
}

/// The Python type, made at its first use.
pub(crate) fn class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    Ok(CLASS.get_or_try_init(py, || make_class(py).map(Bound::unbind))?.bind(py))
}

fn make_class(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let member = |name: &'static CStr, type_code: c_int, offset: usize| ffi::PyMemberDef {
        name: name.as_ptr(),
        type_code,
        offset: offset.cast_signed(),
        flags: ffi::Py_READONLY,
        doc: std::ptr::null(),
    };
    // The interpreter keeps pointers to these; the type lives as long as the process.
    let members = Box::leak(Box::new([
        member(c"__vectorcalloffset__", ffi::Py_T_PYSSIZET, offset_of!(Object, vectorcall)),
        member(c"__weaklistoffset__", ffi::Py_T_PYSSIZET, offset_of!(Object, weakrefs)),
        member(c"__func__", ffi::Py_T_OBJECT_EX, offset_of!(Object, function)),
        member(c"__self__", ffi::Py_T_OBJECT_EX, offset_of!(Object, instance)),
        // SAFETY: all zeros end the list.
        unsafe { std::mem::zeroed() },
    ]));
    let computed = |name: &'static CStr, get: ffi::getter| ffi::PyGetSetDef {
        name: name.as_ptr(),
        get: Some(get),
        set: None,
        doc: std::ptr::null(),
        closure: name.as_ptr().cast_mut().cast(),
    };
    let getset = Box::leak(Box::new([
        computed(c"__class__", method_class),
        computed(c"__doc__", of_function),
        computed(c"__module__", of_function),
        computed(c"invalidate_cache", invalidate_cache),
        // SAFETY: all zeros end the list.
        unsafe { std::mem::zeroed() },
    ]));
    let methods = Box::leak(Box::new([
        ffi::PyMethodDef {
            ml_name: c"__reduce__".as_ptr(),
            ml_meth: ffi::PyMethodDefPointer { PyCFunction: reduce },
            ml_flags: ffi::METH_NOARGS,
            ml_doc: c"Pickles it as the attribute of its object, as a bound method is.".as_ptr(),
        },
        ffi::PyMethodDef::zeroed(),
    ]));
    let slot = |slot, pfunc: *mut c_void| ffi::PyType_Slot { slot, pfunc };
    let mut slots = [
        slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void),
        slot(ffi::Py_tp_new, new as *mut c_void),
        slot(ffi::Py_tp_getattro, getattro as *mut c_void),
        slot(ffi::Py_tp_descr_get, get as *mut c_void),
        slot(ffi::Py_tp_richcompare, compare as *mut c_void),
        slot(ffi::Py_tp_hash, hash as *mut c_void),
        slot(ffi::Py_tp_repr, repr as *mut c_void),
        slot(ffi::Py_tp_dealloc, dealloc as *mut c_void),
        slot(ffi::Py_tp_traverse, traverse as *mut c_void),
        slot(ffi::Py_tp_members, members.as_mut_ptr().cast()),
        slot(ffi::Py_tp_getset, getset.as_mut_ptr().cast()),
        slot(ffi::Py_tp_methods, methods.as_mut_ptr().cast()),
        slot(0, null_mut()),
    ];
    let flags = ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC | ffi::Py_TPFLAGS_HAVE_VECTORCALL;
    let mut spec = ffi::PyType_Spec {
        name: c"cache._native.CachedMethod".as_ptr(),
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

unsafe extern "C" fn call(
    bound: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    flags: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: attached. The vectorcall protocol: `args` are the positional arguments, then one for each of `names`,
    // null or a tuple. With the flag the place before the first one may be written, if it is put back. The copies
    // borrow what the caller holds for the call.
    unsafe {
        let this = bound.cast::<Object>();
        let (function, object) = ((*this).function, (*this).instance);
        let positional = ffi::PyVectorcall_NARGS(flags).cast_unsigned();
        if flags & ffi::PY_VECTORCALL_ARGUMENTS_OFFSET != 0 {
            let first = args.cast_mut().sub(1);
            let before = first.replace(object);
            let result = ffi::PyObject_Vectorcall(function, first, positional + 1, names);
            first.write(before);
            return result;
        }
        let named = if names.is_null() { 0 } else { ffi::PyTuple_GET_SIZE(names).cast_unsigned() };
        let count = positional + named;
        let mut on_stack = [null_mut(); ON_STACK];
        let mut on_heap = Vec::new();
        let copies = if count < ON_STACK {
            &mut on_stack[..=count]
        } else {
            on_heap.resize(count + 1, null_mut());
            &mut on_heap[..]
        };
        copies[0] = object;
        for (at, copy) in copies[1..].iter_mut().enumerate() {
            *copy = *args.add(at);
        }
        ffi::PyObject_Vectorcall(function, copies.as_ptr(), positional + 1, names)
    }
}

/// `type(method)(function, object)`, which `weakref.WeakMethod` and `copy` call.
unsafe extern "C" fn new(
    _: *mut ffi::PyTypeObject,
    args: *mut ffi::PyObject,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: attached; `args` is a tuple and `names` null or a dict, both alive; the two objects that come out of the
    // tuple are borrowed from it.
    unsafe {
        let (mut function, mut object) = (null_mut(), null_mut());
        let is_named = !names.is_null() && ffi::PyDict_Size(names) != 0;
        let parsed =
            ffi::PyArg_ParseTuple(args, c"OO:CachedMethod".as_ptr(), &raw mut function, &raw mut object);
        if parsed == 0 {
            return null_mut();
        }
        let is_ours = Python::assume_attached();
        let is_ours = super::function::function(&Bound::from_borrowed_ptr(is_ours, function)).is_some();
        if is_named || !is_ours || object == ffi::Py_None() {
            let message = c"CachedMethod() takes a decorated function and the object to bind it to";
            ffi::PyErr_SetString(ffi::PyExc_TypeError, message.as_ptr());
            return null_mut();
        }
        bind(function, object)
    }
}

/// Its own attributes, then the function's.
unsafe extern "C" fn getattro(bound: *mut ffi::PyObject, name: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: attached; the object is of this type; the exception is taken away if it is an `AttributeError` only.
    unsafe {
        let own = ffi::PyObject_GenericGetAttr(bound, name);
        if !own.is_null() || ffi::PyErr_ExceptionMatches(ffi::PyExc_AttributeError) == 0 {
            return own;
        }
        ffi::PyErr_Clear();
        ffi::PyObject_GetAttr((*bound.cast::<Object>()).function, name)
    }
}

/// A bound method stays bound to what it is bound to.
unsafe extern "C" fn get(
    bound: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the object is alive.
    unsafe { ffi::Py_NewRef(bound) }
}

unsafe extern "C" fn method_class(_: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: a static type of the interpreter.
    unsafe { ffi::Py_NewRef((&raw mut PyMethod_Type).cast()) }
}

/// The attribute of the function whose name is in `closure`.
unsafe extern "C" fn of_function(bound: *mut ffi::PyObject, closure: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: attached; the object is of this type, `closure` the name that `make_class` put there.
    unsafe {
        let name = closure.cast_const().cast();
        ffi::PyObject_GetAttrString((*bound.cast::<Object>()).function, name)
    }
}

/// The function's `invalidate_cache`, for this object.
unsafe extern "C" fn invalidate_cache(bound: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: attached; the object is of this type; the new references are given back or handed out.
    unsafe {
        let this = bound.cast::<Object>();
        let invalidate = ffi::PyObject_GetAttrString((*this).function, c"invalidate_cache".as_ptr());
        if invalidate.is_null() {
            return null_mut();
        }
        let through = ffi::PyObject_GetAttrString(invalidate, c"through".as_ptr());
        ffi::Py_DECREF(invalidate);
        if through.is_null() {
            return null_mut();
        }
        let for_object = PyMethod_New(through, (*this).instance);
        ffi::Py_DECREF(through);
        for_object
    }
}

unsafe extern "C" fn reduce(bound: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    attached(|py| {
        // SAFETY: attached, and the object is of this type.
        let (function, object) = unsafe { parts(py, bound) };
        let reduced = (|| {
            let getattr = py.import("builtins")?.getattr("getattr")?;
            (getattr, (object, function.getattr("__name__")?)).into_pyobject(py)
        })();
        match reduced {
            Ok(reduced) => reduced.into_ptr(),
            Err(error) => {
                error.restore(py);
                null_mut()
            }
        }
    })
}

unsafe extern "C" fn compare(a: *mut ffi::PyObject, b: *mut ffi::PyObject, how: c_int) -> *mut ffi::PyObject {
    // SAFETY: attached; both are alive; the second one is looked into only if it is of this type.
    unsafe {
        let is_ours = ffi::Py_TYPE(a) == ffi::Py_TYPE(b);
        if !is_ours || (how != ffi::Py_EQ && how != ffi::Py_NE) {
            return ffi::Py_NewRef(ffi::Py_NotImplemented());
        }
        let (a, b) = (a.cast::<Object>(), b.cast::<Object>());
        let is_same = (*a).function == (*b).function && (*a).instance == (*b).instance;
        ffi::PyBool_FromLong((is_same == (how == ffi::Py_EQ)).into())
    }
}

unsafe extern "C" fn hash(bound: *mut ffi::PyObject) -> ffi::Py_hash_t {
    // SAFETY: the object is of this type.
    let (function, object) = unsafe {
        let this = bound.cast::<Object>();
        ((*this).function as usize, (*this).instance as usize)
    };
    // Objects are aligned. -1 stands for an exception.
    let hash = (function >> 4).rotate_left(16) ^ (object >> 4);
    if hash == usize::MAX { -2 } else { hash.cast_signed() }
}

unsafe extern "C" fn repr(bound: *mut ffi::PyObject) -> *mut ffi::PyObject {
    attached(|py| {
        // SAFETY: attached, and the object is of this type.
        let (function, object) = unsafe { parts(py, bound) };
        let shown = (|| {
            let name = function.getattr("__qualname__")?;
            Ok(PyString::new(py, &format!("<bound method {name} of {}>", object.invoke_repr()?)))
        })();
        match shown {
            Ok(shown) => shown.into_ptr(),
            Err(error) => {
                PyErr::restore(error, py);
                null_mut()
            }
        }
    })
}

/// The function and the object of one that is of this type.
unsafe fn parts(py: Python<'_>, bound: *mut ffi::PyObject) -> (Bound<'_, PyAny>, Bound<'_, PyAny>) {
    // SAFETY: the caller's: the object is of this type, which holds both.
    unsafe {
        let this = bound.cast::<Object>();
        (Bound::from_borrowed_ptr(py, (*this).function), Bound::from_borrowed_ptr(py, (*this).instance))
    }
}

unsafe extern "C" fn dealloc(bound: *mut ffi::PyObject) {
    let this = bound.cast::<Object>();
    // SAFETY: called once, when the last reference is gone; off the collector's lists before anything in it
    // is dropped. The type's reference is given back last.
    unsafe {
        ffi::PyObject_GC_UnTrack(bound.cast());
        if !(*this).weakrefs.is_null() {
            ffi::PyObject_ClearWeakRefs(bound);
        }
        ffi::Py_DECREF((*this).function);
        ffi::Py_DECREF((*this).instance);
        let class = ffi::Py_TYPE(bound);
        ffi::PyObject_GC_Del(bound.cast());
        ffi::Py_DECREF(class.cast());
    }
}

unsafe extern "C" fn traverse(bound: *mut ffi::PyObject, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    let this = bound.cast::<Object>();
    // SAFETY: the collector passes live objects of this type.
    unsafe {
        for held in [ffi::Py_TYPE(bound).cast(), (*this).function, (*this).instance] {
            let stop = visit(held, arg);
            if stop != 0 {
                return stop;
            }
        }
        0
    }
}

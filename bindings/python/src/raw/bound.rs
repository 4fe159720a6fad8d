//! The bound method of a decorated function: the function and the object on which it is called.
//!
//! The interpreter's own bound methods look up their attributes on the function, which then does
//! not know the object: `repository.get.invalidate_cache(7)` would be an invalidation for 7. Our
//! bound method stands for the interpreter's (`__class__` is its class, so `inspect.ismethod` is
//! true), and binds `invalidate_cache` too. All other attributes are the function's. A call of a
//! method makes no bound method, so no call takes this path.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::mem::offset_of;
use std::ptr::null_mut;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyType};

use super::calls::Invoke;
use super::class::{self, Blueprint, Forward, Offsets};
use super::function::Payload;
use super::visit::visits;
use super::{Ref, attached, to_pointer};

unsafe extern "C" {
    /// Makes a bound method from a function and its object; not among `PyO3`'s declarations.
    fn PyMethod_New(function: *mut ffi::PyObject, object: *mut ffi::PyObject) -> *mut ffi::PyObject;
    /// The interpreter's class of bound methods; not among `PyO3`'s declarations.
    static mut PyMethod_Type: ffi::PyTypeObject;
}

/// Arguments of a call that are copied on the stack; more are copied to the heap.
const ON_STACK: usize = 8;

/// A decorated function with the payload `P`, and the object on which it is called.
pub(crate) struct BoundMethod<P> {
    function: Ref,
    instance: Ref,
    of: PhantomData<fn(P) -> P>,
}

impl<P> BoundMethod<P> {
    fn addresses(&self) -> (usize, usize) {
        (self.function.pointer().addr(), self.instance.pointer().addr())
    }
}

visits!(impl<P> struct BoundMethod<P> { function, instance });

impl<P: Payload> Forward for BoundMethod<P> {
    fn owner(&self) -> &Ref {
        &self.function
    }
}

/// Binds a decorated function to an object.
///
/// # Safety
/// Both are alive, the function has the payload `P`, and the thread is attached.
pub(super) unsafe fn bind<P: Payload>(
    function: *mut ffi::PyObject,
    object: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: promised by the caller; the class is that of objects with this body.
    unsafe {
        let py = Python::assume_attached();
        let bound = class::<P>(py).and_then(|class| {
            let [function, instance] =
                [function, object].map(|held| Ref::new(Bound::from_borrowed_ptr(py, held)));
            let method = BoundMethod::<P> { function, instance, of: PhantomData };
            class::make(py, class.as_ptr().cast(), call::<P>, method)
        });
        match bound {
            Ok(bound) => bound.into_ptr(),
            Err(error) => {
                attached(|py| error.restore(py));
                null_mut()
            }
        }
    }
}

/// The Python type, made at its first use.
pub(crate) fn class<P: Payload>(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    P::classes().method.get_or_make(py, || {
        let at = |offset| Offsets::<BoundMethod<P>>::BODY + offset;
        let blueprint = Blueprint::of_object::<BoundMethod<P>>(c"cache._native.CachedMethod", 0)
            .slot(ffi::Py_tp_new, new::<P> as *mut c_void)
            .slot(ffi::Py_tp_getattro, class::forward_rest::<BoundMethod<P>> as *mut c_void)
            .slot(ffi::Py_tp_descr_get, get as *mut c_void)
            .slot(ffi::Py_tp_richcompare, compare::<P> as *mut c_void)
            .slot(ffi::Py_tp_hash, hash::<P> as *mut c_void)
            .slot(ffi::Py_tp_repr, repr::<P> as *mut c_void)
            .member(c"__weaklistoffset__", ffi::Py_T_PYSSIZET, Offsets::<BoundMethod<P>>::WEAKREFS)
            // A `Ref` is a pointer to its object.
            .member(c"__func__", ffi::Py_T_OBJECT_EX, at(offset_of!(BoundMethod<P>, function)))
            .member(c"__self__", ffi::Py_T_OBJECT_EX, at(offset_of!(BoundMethod<P>, instance)))
            .attribute(c"__class__", method_class)
            .attribute(c"__doc__", class::forward::<BoundMethod<P>>)
            .attribute(c"__module__", class::forward::<BoundMethod<P>>)
            .attribute(c"invalidate_cache", invalidate_cache::<P>)
            .method(
                c"__reduce__",
                reduce::<P>,
                ffi::METH_NOARGS,
                c"Pickles it as the attribute of its object, as a bound method is.",
            );
        // SAFETY: attached; the slots, getters and methods have their signatures; the offsets are
        // those of fields.
        unsafe { blueprint.make(py) }
    })
}

unsafe extern "C" fn call<P: Payload>(
    bound: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    flags: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: attached. The vectorcall protocol: `args` are the positional arguments, then one for
    // each of `names`, null or a tuple. With the flag the place before the first argument may be
    // written, if it is restored. The copies borrow objects held by the caller for the call. The
    // object has this body.
    unsafe {
        let BoundMethod { function, instance, .. } = class::body::<BoundMethod<P>>(bound);
        let (function, object) = (function.pointer(), instance.pointer());
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

/// `type(method)(function, object)`, called by `weakref.WeakMethod` and `copy`.
unsafe extern "C" fn new<P: Payload>(
    _: *mut ffi::PyTypeObject,
    args: *mut ffi::PyObject,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: attached; `args` is a tuple and `names` null or a dict, both alive; the two objects
    // extracted from the tuple are borrowed from it.
    unsafe {
        let (mut function, mut object) = (null_mut(), null_mut());
        let is_named = !names.is_null() && ffi::PyDict_Size(names) != 0;
        let parsed =
            ffi::PyArg_ParseTuple(args, c"OO:CachedMethod".as_ptr(), &raw mut function, &raw mut object);
        if parsed == 0 {
            return null_mut();
        }
        let decorated = Bound::from_borrowed_ptr(Python::assume_attached(), function);
        let is_ours = super::function::payload::<P>(&decorated).is_some();
        if is_named || !is_ours || object == ffi::Py_None() {
            let message = c"CachedMethod() takes a decorated function and the object to bind it to";
            ffi::PyErr_SetString(ffi::PyExc_TypeError, message.as_ptr());
            return null_mut();
        }
        bind::<P>(function, object)
    }
}

/// A bound method keeps its object.
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

/// The function's `invalidate_cache`, for this object.
unsafe extern "C" fn invalidate_cache<P: Payload>(
    bound: *mut ffi::PyObject,
    _: *mut c_void,
) -> *mut ffi::PyObject {
    // SAFETY: attached; the object is of this type; the new references are released or returned.
    unsafe {
        let BoundMethod { function, instance, .. } = class::body::<BoundMethod<P>>(bound);
        let invalidate = ffi::PyObject_GetAttrString(function.pointer(), c"invalidate_cache".as_ptr());
        if invalidate.is_null() {
            return null_mut();
        }
        let through = ffi::PyObject_GetAttrString(invalidate, c"through".as_ptr());
        ffi::Py_DECREF(invalidate);
        if through.is_null() {
            return null_mut();
        }
        let for_object = PyMethod_New(through, instance.pointer());
        ffi::Py_DECREF(through);
        for_object
    }
}

unsafe extern "C" fn reduce<P: Payload>(
    bound: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    attached(|py| {
        // SAFETY: the object has this body.
        let BoundMethod { function, instance, .. } = unsafe { class::body::<BoundMethod<P>>(bound) };
        let reduced = || {
            let getattr = py.import("builtins")?.getattr("getattr")?;
            let name = function.bind(py).getattr("__name__")?;
            Ok((getattr, (instance.bind(py), name)).into_pyobject(py)?.into_any())
        };
        to_pointer(py, reduced())
    })
}

unsafe extern "C" fn compare<P: Payload>(
    a: *mut ffi::PyObject,
    b: *mut ffi::PyObject,
    how: c_int,
) -> *mut ffi::PyObject {
    // SAFETY: attached; both are alive; the second object is read only if it is of this type.
    unsafe {
        let is_ours = ffi::Py_TYPE(a) == ffi::Py_TYPE(b);
        if !is_ours || (how != ffi::Py_EQ && how != ffi::Py_NE) {
            return ffi::Py_NewRef(ffi::Py_NotImplemented());
        }
        let (a, b) = (class::body::<BoundMethod<P>>(a), class::body::<BoundMethod<P>>(b));
        let is_same = a.addresses() == b.addresses();
        ffi::PyBool_FromLong((is_same == (how == ffi::Py_EQ)).into())
    }
}

unsafe extern "C" fn hash<P: Payload>(bound: *mut ffi::PyObject) -> ffi::Py_hash_t {
    // SAFETY: the object has this body.
    let (function, object) = unsafe { class::body::<BoundMethod<P>>(bound) }.addresses();
    // Objects are aligned. -1 stands for an exception.
    let hash = (function >> 4).rotate_left(16) ^ (object >> 4);
    if hash == usize::MAX { -2 } else { hash.cast_signed() }
}

unsafe extern "C" fn repr<P: Payload>(bound: *mut ffi::PyObject) -> *mut ffi::PyObject {
    attached(|py| {
        // SAFETY: the object has this body.
        let BoundMethod { function, instance, .. } = unsafe { class::body::<BoundMethod<P>>(bound) };
        let shown = || {
            let (name, object) =
                (function.bind(py).getattr("__qualname__")?, instance.bind(py).invoke_repr()?);
            Ok(PyString::new(py, &format!("<bound method {name} of {object}>")).into_any())
        };
        to_pointer(py, shown())
    })
}

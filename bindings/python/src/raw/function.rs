//! The decorated function: a callable with vectorcall that stands for the function it decorates.
//!
//! A call only makes an awaitable. The object has a `__dict__` (for `functools.update_wrapper` and
//! the methods added by the decorator), is a method descriptor, so that a call of a method makes no
//! bound method, and claims the function's `__class__`: web frameworks call `inspect.isfunction`
//! and `inspect.iscoroutinefunction`, which look at `__class__` and at the code object.
//!
//! A decorated function has a [`Payload`], about which this module knows nothing else.

use std::ffi::{CStr, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple, PyType};

use super::bound::BoundMethod;
use super::calls::Invoke;
use super::class::{self, Blueprint, Class, Forward, Offsets};
use super::coroutine::panicked;
use super::visit::Visit;
use super::{Ref, attached, to_pointer};

/// A decorated function's own part.
pub(crate) trait Payload: Visit + Sized + 'static {
    /// The decorated function.
    fn wrapped(&self) -> &Ref;
    /// The function for which the decorated function stands, if any.
    fn passes_for(&self) -> Option<&Ref>;
    /// The classes of decorated functions with this payload.
    fn classes() -> &'static FunctionClasses<Self>;
}

/// The class of decorated functions, and the class of their bound methods.
pub(crate) struct FunctionClasses<P> {
    function: Class<P>,
    pub(super) method: Class<BoundMethod<P>>,
}

impl<P> FunctionClasses<P> {
    pub(crate) const fn new() -> Self {
        Self { function: Class::new(), method: Class::new() }
    }
}

/// The arguments of a call: positional ones, then one for each name.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a, 'py> {
    arguments: &'a [*mut ffi::PyObject],
    names: *mut ffi::PyObject,
    py: Python<'py>,
}

impl<'py> Given<'_, 'py> {
    /// How many arguments there are.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.arguments.len()
    }

    /// An argument.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> Ref {
        // SAFETY: attached, as the token proves; the caller of the function keeps its arguments
        // alive for the call.
        Ref::new(unsafe { Bound::from_borrowed_ptr(self.py, self.arguments[index]) })
    }

    /// The names of the last arguments, a tuple of strings; `None` if there are none.
    #[inline]
    pub(crate) fn names(&self) -> Option<Bound<'py, PyTuple>> {
        if self.names.is_null() {
            return None;
        }
        // SAFETY: as above. By the vectorcall protocol the object is a tuple.
        let names = unsafe { Bound::from_borrowed_ptr(self.py, self.names).cast_into_unchecked::<PyTuple>() };
        (!names.is_empty()).then_some(names)
    }
}

/// The awaitables made by calls of a decorated function.
pub(crate) trait Calls<P> {
    /// Of a call with one positional argument.
    fn called_with_one(function: Bound<'_, PyAny>, argument: Ref) -> PyResult<Bound<'_, PyAny>>;
    /// Of a call with any arguments.
    fn called<'py>(function: Bound<'py, PyAny>, given: Given<'_, 'py>) -> PyResult<Bound<'py, PyAny>>;
}

/// Makes a decorated function whose calls make the awaitables of `C`.
pub(crate) fn new<P: Payload, C: Calls<P>>(py: Python<'_>, payload: P) -> PyResult<Bound<'_, PyAny>> {
    let class = class::<P>(py)?.as_ptr().cast::<ffi::PyTypeObject>();
    // SAFETY: attached; the class is that of objects with the body `P`.
    unsafe { class::make(py, class, call::<P, C>, payload) }
}

/// The payload of a decorated function; `None` for any other object.
#[inline]
pub(crate) fn payload<'a, P: Payload>(object: &'a Bound<'_, PyAny>) -> Option<&'a P> {
    class::body_of(&P::classes().function, object)
}

/// The Python type, made at its first use.
pub(crate) fn class<P: Payload>(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    P::classes().function.get_or_make(py, || {
        let flags = ffi::Py_TPFLAGS_METHOD_DESCRIPTOR
            // For method look-ups the interpreter caches only descriptors of immutable types.
            | ffi::Py_TPFLAGS_IMMUTABLETYPE
            | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
        let blueprint = Blueprint::of_object::<P>(c"cache._native.CachedFunction", flags)
            .slot(ffi::Py_tp_descr_get, bind::<P> as *mut c_void)
            .slot(ffi::Py_tp_repr, repr::<P> as *mut c_void)
            .member(c"__dictoffset__", ffi::Py_T_PYSSIZET, Offsets::<P>::DICT)
            .member(c"__weaklistoffset__", ffi::Py_T_PYSSIZET, Offsets::<P>::WEAKREFS)
            .dict()
            .attribute(c"__class__", class::forward::<P>)
            .attribute(c"__code__", class::forward::<P>)
            .attribute(c"__defaults__", class::forward::<P>)
            .attribute(c"__kwdefaults__", class::forward::<P>)
            .attribute(c"__globals__", class::forward::<P>)
            .attribute(c"__builtins__", class::forward::<P>)
            .attribute(c"__closure__", class::forward::<P>)
            .method(c"__reduce__", reduce, ffi::METH_NOARGS, c"Pickles it by name, as a function is.");
        // SAFETY: attached; the slots, getters and methods have their signatures; the offsets are
        // those of fields.
        unsafe { blueprint.make(py) }
    })
}

impl<P: Payload> Forward for P {
    fn owner(&self) -> &Ref {
        self.passes_for().unwrap_or_else(|| self.wrapped())
    }

    fn owner_of(&self, name: &CStr) -> Option<&Ref> {
        if self.passes_for().is_none() && name == c"__class__" { None } else { Some(self.owner()) }
    }
}

unsafe extern "C" fn call<P: Payload, C: Calls<P>>(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    flags: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: attached. The vectorcall protocol: `args` are the positional arguments, then one for
    // each name; `names` is null or a tuple of strings; the object is of this type.
    unsafe {
        let py = Python::assume_attached();
        let positional = ffi::PyVectorcall_NARGS(flags).cast_unsigned();
        let named = if names.is_null() { 0 } else { ffi::PyTuple_GET_SIZE(names).cast_unsigned() };
        let made = catch_unwind(AssertUnwindSafe(|| {
            if positional == 1 && named == 0 {
                let arg = Ref::new(Bound::from_borrowed_ptr(py, *args));
                return C::called_with_one(Bound::from_borrowed_ptr(py, object), arg);
            }
            let count = positional + named;
            let arguments = if count == 0 { &[][..] } else { std::slice::from_raw_parts(args, count) };
            C::called(Bound::from_borrowed_ptr(py, object), Given { arguments, names, py })
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

unsafe extern "C" fn bind<P: Payload>(
    object: *mut ffi::PyObject,
    instance: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: attached; all objects are alive; the object is a decorated function.
    unsafe {
        if instance.is_null() || instance == ffi::Py_None() {
            ffi::Py_NewRef(object)
        } else {
            super::bound::bind::<P>(object, instance)
        }
    }
}

unsafe extern "C" fn reduce(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: attached, and the object is alive.
    unsafe { ffi::PyObject_GetAttrString(object, c"__qualname__".as_ptr()) }
}

unsafe extern "C" fn repr<P: Payload>(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    attached(|py| {
        // SAFETY: the object is of this type.
        let payload = unsafe { class::body::<P>(object) };
        let wrapped = payload.wrapped().bind(py).invoke_repr();
        to_pointer(py, wrapped.map(|wrapped| PyString::new(py, &format!("<cached {wrapped}>")).into_any()))
    })
}

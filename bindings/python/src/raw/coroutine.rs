//! Objects awaited like coroutines, at the lowest possible cost.
//!
//! Owns the Python side of two types, the awaitable of a call and the driver of a load; their
//! behaviour is safe code, behind [`Coroutine`]. The life of an object:
//!
//! | state | what moves it on |
//! |---|---|
//! | new | `send(None)` begins; `throw` and `close` end it; dropped, it warns that it was never awaited |
//! | running | one of the calls below is on the stack; any other call is `ValueError` |
//! | waiting | `send`, `throw`, `close`; dropped, it leaves what it waits for; another `await` is `RuntimeError` |
//! | done | every further `send` or `throw` is `RuntimeError`; dropped, it goes to the free list |
//! | free | a call takes it from the free list: it is new again |
//!
//! Rules:
//! 1. `body` is initialised unless the object is free. `busy` is set while a method of the body
//!    runs and while the object is free, and no other code accesses the body then: the only `&mut`
//!    belongs to the running method;
//! 2. the collector visits the body only while the object is not busy. The objects held by a busy
//!    body are also held by the stack, so they are alive anyway.
//!
//! Rules 3 and 4 are in `life`, which makes objects and takes them back.

use std::ffi::{CStr, c_int, c_void};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;

use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyType};

use super::calls::Invoke;
use super::class::{Blueprint, is_exactly};
use super::visit;
use super::{Sent, attached, refcount, stop};
use crate::errors::out_of_coroutine;
use life::{Object, Origin, allocate, dealloc};

pub(crate) use life::{Coroutine, Statics};

mod life;

/// Makes a coroutine-like object.
pub(crate) fn new<B: Coroutine>(py: Python<'_>, body: B) -> PyResult<Bound<'_, PyAny>> {
    make(py, move || body)
}

/// Makes a coroutine-like object from the result of `body`. Inlined, so that the body is made in
/// its final place: a move in wide steps would have to wait for the narrow writes of the body's
/// fields, longer than everything else takes.
#[inline(always)]
#[allow(clippy::inline_always)] // see above
pub(crate) fn make<B: Coroutine>(py: Python<'_>, body: impl FnOnce() -> B) -> PyResult<Bound<'_, PyAny>> {
    let (object, origin) = allocate::<B>(py, class::<B>)?;
    // SAFETY: the object has the right size, its head is initialised, and its body is not. Only the
    // collector can also know the object, and the object is busy for it (rule 4) or unknown to it
    // until the object is complete. If `body` panics, the object is leaked.
    unsafe {
        let this = object.cast::<Object<B>>();
        (&raw mut (*this).body).write(ManuallyDrop::new(body()));
        (&raw mut (*this).finalized).write(false);
        (&raw mut (*this).awaited).write(false);
        (&raw mut (*this).busy).write(false);
        if let Origin::Memory = origin {
            ffi::PyObject_GC_Track(object.cast());
        }
        Ok(Bound::from_owned_ptr(py, object))
    }
}

/// The Python type, made at its first use.
pub(crate) fn class<B: Coroutine>(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    let class = B::statics().class.get_or_try_init(py, || make_class::<B>(py).map(Bound::unbind))?;
    Ok(class.bind(py))
}

fn make_class<B: Coroutine>(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let flags = ffi::Py_TPFLAGS_HAVE_GC | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
    let blueprint = Blueprint::new::<Object<B>>(B::NAME, flags)
        .slot(ffi::Py_am_await, await_slot::<B> as *mut c_void)
        .slot(ffi::Py_am_send, send_slot::<B> as *mut c_void)
        .slot(ffi::Py_tp_repr, repr_slot::<B> as *mut c_void)
        .slot(ffi::Py_tp_iter, iter_slot::<B> as *mut c_void)
        .slot(ffi::Py_tp_iternext, next_slot::<B> as *mut c_void)
        .slot(ffi::Py_tp_dealloc, dealloc::<B> as *mut c_void)
        .slot(ffi::Py_tp_finalize, finalize::<B> as *mut c_void)
        .slot(ffi::Py_tp_traverse, traverse::<B> as *mut c_void)
        .attribute(c"__name__", name_getter::<B>)
        .attribute(c"__qualname__", name_getter::<B>)
        .attribute(c"cr_running", running_getter::<B>)
        .attribute(c"cr_suspended", suspended_getter::<B>)
        // There is no Python frame except the frame of an inner coroutine, which shows where the
        // object hangs.
        .attribute(c"cr_frame", inner_getter::<B>)
        .attribute(c"cr_await", inner_getter::<B>)
        .attribute(c"cr_code", inner_getter::<B>)
        .method(c"send", send_method::<B>, ffi::METH_O, c"Resumes it with a value.")
        .method(c"throw", throw_method::<B>, ffi::METH_VARARGS, c"Raises an exception where it waits.")
        .method(c"close", close_method::<B>, ffi::METH_NOARGS, c"Ends it.");
    // SAFETY: attached; the slots, getters and methods have their signatures.
    unsafe { blueprint.make(py) }
}

/// Runs `work` on the body, unless a method is already running.
fn with<B: Coroutine, R>(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    work: impl FnOnce(&mut B) -> PyResult<R>,
) -> PyResult<R> {
    let this = object.cast::<Object<B>>();
    // SAFETY: the slots of this type are called with objects of this type. Rule 1: `busy` prevents
    // every other access as long as the `&mut` lives, and is always reset, because panics are
    // caught here. `object` is kept alive by our own reference, because `work` may drop the last
    // one of others.
    unsafe {
        if (*this).busy {
            return Err(PyValueError::new_err("coroutine already executing"));
        }
        (*this).busy = true;
        let kept = Bound::from_borrowed_ptr(py, object);
        let result = catch_unwind(AssertUnwindSafe(|| work(&mut *(*this).body)));
        let result = result.unwrap_or_else(|panic| {
            let error = panicked(&*panic);
            drop(catch_unwind(AssertUnwindSafe(|| (*this).body.fail(py, &error))));
            Err(error)
        });
        (*this).busy = false;
        drop(kept);
        result
    }
}

/// Runs `work` on the body of an object; `None` if a method is already running, or the object has
/// another type.
pub(crate) fn on<B: Coroutine, R>(object: &Bound<'_, PyAny>, work: impl FnOnce(&mut B) -> R) -> Option<R> {
    let class = B::statics().class.get(object.py())?;
    if !is_exactly(object, class) {
        return None;
    }
    with::<B, _>(object.py(), object.as_ptr(), |body| Ok(work(body))).ok()
}

pub(super) fn panicked(panic: &(dyn std::any::Any + Send)) -> PyErr {
    let message = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let message = message.or_else(|| panic.downcast_ref::<String>().cloned());
    PanicException::new_err(message.unwrap_or_else(|| "panic in the cache".to_owned()))
}

fn step<'py, B: Coroutine>(
    py: Python<'py>,
    object: *mut ffi::PyObject,
    value: &Bound<'py, PyAny>,
) -> PyResult<Sent<'py>> {
    with::<B, _>(py, object, |body| {
        if body.is_done() {
            return Err(PyRuntimeError::new_err("cannot reuse already awaited coroutine"));
        }
        body.send(py, value).map_err(|error| out_of_coroutine(py, error))
    })
}

unsafe extern "C" fn name_getter<B: Coroutine>(
    object: *mut ffi::PyObject,
    _: *mut c_void,
) -> *mut ffi::PyObject {
    attached(|py| {
        let name = with::<B, _>(py, object, |body| Ok(body.name(py)));
        PyString::new(py, &name.unwrap_or_else(|_| "running".to_owned())).into_ptr()
    })
}

unsafe extern "C" fn running_getter<B: Coroutine>(
    object: *mut ffi::PyObject,
    _: *mut c_void,
) -> *mut ffi::PyObject {
    // SAFETY: attached, and the object is of this type.
    unsafe { ffi::PyBool_FromLong((*object.cast::<Object<B>>()).busy.into()) }
}

unsafe extern "C" fn suspended_getter<B: Coroutine>(
    object: *mut ffi::PyObject,
    _: *mut c_void,
) -> *mut ffi::PyObject {
    // SAFETY: attached, and the object is of this type.
    unsafe { ffi::PyBool_FromLong(is_waiting(object.cast::<Object<B>>()).into()) }
}

unsafe extern "C" fn repr_slot<B: Coroutine>(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    attached(|py| {
        let name = with::<B, _>(py, object, |body| Ok(body.name(py)));
        let name = name.unwrap_or_else(|_| "running".to_owned());
        PyString::new(py, &format!("<coroutine object {name} at {object:p}>")).into_ptr()
    })
}

/// An attribute of the inner coroutine, or `None`. The name of the attribute is in `closure`.
unsafe extern "C" fn inner_getter<B: Coroutine>(
    object: *mut ffi::PyObject,
    closure: *mut c_void,
) -> *mut ffi::PyObject {
    attached(|py| {
        // SAFETY: `closure` is the attribute's name, stored by `Blueprint::attribute`.
        let name = unsafe { CStr::from_ptr(closure.cast_const().cast()) };
        let inner = with::<B, _>(py, object, |body| Ok(body.inner(py))).ok().flatten();
        let value = inner.and_then(|inner| inner.getattr(name.to_str().ok()?).ok());
        value.unwrap_or_else(|| py.None().into_bound(py)).into_ptr()
    })
}

/// Rule 1: the body is read only while no method of the body runs.
///
/// # Safety
/// `this` is alive, and the thread is attached.
unsafe fn is_waiting<B: Coroutine>(this: *mut Object<B>) -> bool {
    // SAFETY: promised by the caller; not busy, so there is no `&mut` to the body.
    unsafe { !(*this).busy && (*this).body.is_waiting() }
}

unsafe extern "C" fn await_slot<B: Coroutine>(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    let this = object.cast::<Object<B>>();
    // SAFETY: attached, and `object` is alive and of this type.
    unsafe {
        if is_waiting(this) {
            let message = c"coroutine is being awaited already";
            ffi::PyErr_SetString(ffi::PyExc_RuntimeError, message.as_ptr());
            return null_mut();
        }
        (*this).awaited = true;
        refcount::add(object);
        object
    }
}

unsafe extern "C" fn iter_slot<B: Coroutine>(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: attached, and `object` is alive and of this type.
    unsafe {
        if (*object.cast::<Object<B>>()).awaited {
            return ffi::Py_NewRef(object);
        }
        let message = c"'coroutine' object is not iterable";
        ffi::PyErr_SetString(ffi::PyExc_TypeError, message.as_ptr());
        null_mut()
    }
}

unsafe extern "C" fn send_slot<B: Coroutine>(
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    // SAFETY: attached; the object is of this type; `result` is writable.
    unsafe {
        if let Some(value) = fast::<B>(Python::assume_attached(), object) {
            result.write(value.into_ptr());
            return ffi::PySendResult::PYGEN_RETURN;
        }
        attached(|py| match step::<B>(py, object, &Bound::from_borrowed_ptr(py, value)) {
            Ok(Sent::Return(value)) => {
                result.write(value.into_ptr());
                ffi::PySendResult::PYGEN_RETURN
            }
            Ok(Sent::Yield(value)) => {
                result.write(value.into_ptr());
                ffi::PySendResult::PYGEN_NEXT
            }
            Err(error) => {
                error.restore(py);
                result.write(null_mut());
                ffi::PySendResult::PYGEN_ERROR
            }
        })
    }
}

/// The result of `send`, `throw` and `__next__` for Python: a returned value is a `StopIteration`.
fn to_python(sent: PyResult<Sent<'_>>, py: Python<'_>) -> *mut ffi::PyObject {
    match sent {
        Ok(Sent::Yield(value)) => value.into_ptr(),
        Ok(Sent::Return(value)) => {
            stop::raise(value.as_borrowed());
            null_mut()
        }
        Err(error) => {
            error.restore(py);
            null_mut()
        }
    }
}

/// The first attempt at an object that is not waiting; `None` if the call needs more.
///
/// # Safety
/// The object is alive and of this type, and the thread is attached.
#[inline(always)]
#[allow(clippy::inline_always)] // a call of its own is a fiftieth of a hit
unsafe fn fast<B: Coroutine>(py: Python<'_>, object: *mut ffi::PyObject) -> Option<Bound<'_, PyAny>> {
    let this = object.cast::<Object<B>>();
    // SAFETY: promised by the caller. Rule 1: `busy` prevents every other access to the body.
    unsafe {
        if (*this).busy {
            return None;
        }
        (*this).busy = true;
        let served = catch_unwind(AssertUnwindSafe(|| (*this).body.send_fast(py)));
        (*this).busy = false;
        served.ok().flatten()
    }
}

/// From 3.12 on `await` calls this function instead of `send_slot`.
unsafe extern "C" fn next_slot<B: Coroutine>(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: attached; the object is of this type.
    unsafe {
        if let Some(value) = fast::<B>(Python::assume_attached(), object) {
            // A null without an exception is a `StopIteration` with `None`.
            if !value.is_none() {
                // `await f(x)` holds the only reference, so only the interpreter gets the
                // exception.
                let context = if ffi::Py_REFCNT(object) == 1 {
                    stop::ContextValue::None
                } else {
                    stop::ContextValue::Handled
                };
                stop::raise_fast(value.as_borrowed(), context);
            }
            return null_mut();
        }
    }
    attached(|py| to_python(step::<B>(py, object, py.None().bind(py)), py))
}

unsafe extern "C" fn send_method<B: Coroutine>(
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    attached(|py| {
        // SAFETY: the argument is alive for the call.
        let value = unsafe { Bound::from_borrowed_ptr(py, value) };
        to_python(step::<B>(py, object, &value), py)
    })
}

unsafe extern "C" fn throw_method<B: Coroutine>(
    object: *mut ffi::PyObject,
    args: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    attached(|py| {
        // SAFETY: `METH_VARARGS` passes a tuple, alive for the call.
        let args = unsafe { Bound::from_borrowed_ptr(py, args) };
        let thrown = thrown(py, &args).and_then(|error| {
            with::<B, _>(py, object, |body| {
                if body.is_done() {
                    return Err(PyRuntimeError::new_err("cannot reuse already awaited coroutine"));
                }
                body.throw(py, error).map_err(|error| out_of_coroutine(py, error))
            })
        });
        to_python(thrown, py)
    })
}

/// The exception of `throw(exception)` or `throw(type, value, traceback)`.
fn thrown(py: Python<'_>, args: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let (kind, value, traceback): (Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>) = match args.len()? {
        1 => (args.get_item(0)?, py.None().into_bound(py), py.None().into_bound(py)),
        2 => (args.get_item(0)?, args.get_item(1)?, py.None().into_bound(py)),
        3 => args.extract()?,
        count => return Err(PyTypeError::new_err(format!("throw expected 1 to 3 arguments, got {count}"))),
    };
    let error = match kind.cast::<PyType>() {
        Ok(_) if value.is_instance(&kind)? => value,
        Ok(class) if value.is_none() => class.invoke0()?,
        Ok(class) => class.invoke1(&value)?,
        Err(_) => kind,
    };
    if !traceback.is_none() {
        error.invoke_method1(pyo3::intern!(py, "with_traceback"), &traceback)?;
    }
    Ok(PyErr::from_value(error))
}

unsafe extern "C" fn close_method<B: Coroutine>(
    object: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    attached(|py| {
        let closed = with::<B, _>(py, object, |body| if body.is_done() { Ok(()) } else { body.close(py) });
        match closed {
            Ok(()) => py.None().into_ptr(),
            Err(error) => {
                error.restore(py);
                null_mut()
            }
        }
    })
}

unsafe extern "C" fn finalize<B: Coroutine>(object: *mut ffi::PyObject) {
    let this = object.cast::<Object<B>>();
    // SAFETY: the object is of this type, and only the caller refers to it, so it is not busy.
    unsafe {
        (*this).finalized = true;
        if (*this).busy || (*this).body.is_done() {
            return;
        }
        attached(|py| {
            // A pending exception must not be lost.
            let pending = PyErr::take(py);
            let abandoned = with::<B, _>(py, object, |body| {
                body.abandon(py);
                Ok(())
            });
            if let Err(error) = abandoned {
                error.write_unraisable(py, None);
            }
            if let Some(pending) = pending {
                pending.restore(py);
            }
        });
    }
}

unsafe extern "C" fn traverse<B: Coroutine>(
    object: *mut ffi::PyObject,
    visit: ffi::visitproc,
    argument: *mut c_void,
) -> c_int {
    let this = object.cast::<Object<B>>();
    // SAFETY: the collector passes live objects of this type, and its own function and argument. By
    // rule 2 no visit reads a body in use.
    unsafe {
        let class = visit(ffi::Py_TYPE(object).cast(), argument);
        if class != 0 || (*this).busy {
            return class;
        }
        visit::from_slot(&*(*this).body, visit, argument)
    }
}

//! `StopIteration`: how `__next__` returns a value.
//!
//! Up to Python 3.11 `await` resumes an awaitable through `am_send`, which returns the value
//! without an exception, so a hit uses nothing of this file. From Python 3.12 on the `SEND`
//! instruction uses a shortcut for the interpreter's own coroutines and generators, and calls
//! `tp_iternext` of every other type; `am_send` is left to `PyIter_Send`, which `asyncio.Task`
//! calls. A hit must therefore raise a `StopIteration`; `SEND` takes `value` out of the exception
//! and drops the exception at once. No flag and no slot of a type changes this behaviour.
//!
//! Making an exception costs more than the rest of a hit. So one exception, the *spare*, is raised
//! again and again. Its class is a subclass of `StopIteration` whose only addition is the
//! deallocator:
//!
//! | state | references | what ends the state |
//! |---|---|---|
//! | raised | from the interpreter, a tracer or a user | the last reference is dropped: the deallocator runs |
//! | raised | those of the interpreter, a tracer or a user | the last reference is dropped: the deallocator runs |
//! | dead | none | unchanged by others: it is the spare again; otherwise, or if there is a spare: freed |
//!
//! 1. The class has the size of [`ffi::PyStopIterationObject`], so its fields have the same
//!    offsets. `make_class` checks the size. If the size differs, every exception is made by a
//!    call.
//! 2. The spare holds nothing: `args` is empty, every other field is null. So neither a value nor a
//!    handled exception lives longer than the exception raised with it. The collector may find the
//!    spare, alive and complete.
//! 3. A raised exception is owned by its holders alone. A user who keeps the exception owns it for
//!    good, a cycle through the exception is collected, and a hit in the meantime (by a tracer, by
//!    another thread, inside a finalizer) finds no spare and makes its own exception.
//! 4. The spare is raised only if `SPARE` has the only reference: `gc.get_objects` may have
//!    returned another one.
//! 5. The deallocator keeps an exception only if it is clean: `args` is the empty tuple, and there
//!    are no traceback, cause, notes and attributes. `value` and `__context__` are taken out.
//! 6. The deallocator makes the exception the spare before dropping `value` and `__context__`,
//!    because the drops may run Python code, which may hit again.
//! 7. `__context__` is the exception being handled, as with every raised exception. Finding the
//!    handled exception is work on each hit, so the step is skipped where only the `SEND`
//!    instruction gets the exception.
//!
//! The interpreter's lock guards `SPARE` (contract 1 of `raw`). Subinterpreters and free-threaded
//! builds are refused when the module is imported.

use pyo3::Borrowed;
use pyo3::ffi;
use pyo3::prelude::*;

/// Raises `StopIteration` with a value, made by a call: for calls from Python code.
pub(super) fn raise(value: Borrowed<'_, '_, PyAny>) {
    // SAFETY: attached, because there is a `value`. `PyErr_SetObject` takes a tuple for arguments,
    // and an exception for the exception to raise; for these two the exception is made by a call.
    unsafe {
        let class = ffi::PyExc_StopIteration;
        if ffi::PyTuple_Check(value.as_ptr()) == 0 && ffi::PyExceptionInstance_Check(value.as_ptr()) == 0 {
            ffi::PyErr_SetObject(class, value.as_ptr());
            return;
        }
        let stop = ffi::PyObject_CallOneArg(class, value.as_ptr());
        if !stop.is_null() {
            ffi::PyErr_SetObject(class, stop);
            ffi::Py_DECREF(stop);
        }
    }
}

/// The value of the exception's `__context__`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ContextValue {
    /// The exception being handled, if there is one.
    Handled,
    /// Nothing, because no code reads it.
    None,
}

/// Raises `StopIteration` with a value. Not called by frequent operations.
#[cfg(not(Py_3_12))]
pub(super) fn raise_fast(value: Borrowed<'_, '_, PyAny>, _: ContextValue) {
    raise(value);
}

#[cfg(Py_3_12)]
pub(super) use fast::raise_fast;

#[cfg(Py_3_12)]
mod fast {
    use std::cell::UnsafeCell;
    use std::ffi::{c_int, c_void};
    use std::ptr::null_mut;

    use pyo3::Borrowed;
    use pyo3::ffi;
    use pyo3::prelude::*;
    use pyo3::sync::PyOnceLock;
    use pyo3::types::PyType;

    use super::ContextValue;
    use crate::raw::refcount;

    type Object = ffi::PyStopIterationObject;

    struct Spare {
        /// Null while the exception is raised, and before the first one was made.
        exception: *mut Object,
        /// The interpreter's only empty tuple. It lives as long as the interpreter.
        no_args: *mut ffi::PyObject,
    }

    struct Guarded(UnsafeCell<Spare>);

    // SAFETY: accessed by attached threads only (contract 1 of `raw`).
    unsafe impl Sync for Guarded {}

    static SPARE: Guarded = Guarded(UnsafeCell::new(Spare { exception: null_mut(), no_args: null_mut() }));

    /// `None` if the interpreter's exceptions are not laid out as expected (rule 1).
    static CLASS: PyOnceLock<Option<Py<PyType>>> = PyOnceLock::new();

    /// Raises `StopIteration` with a value.
    #[inline]
    pub(in crate::raw) fn raise_fast(value: Borrowed<'_, '_, PyAny>, context: ContextValue) {
        // SAFETY: attached, so no other thread accesses the spare, and nothing below runs Python
        // code before `SPARE` is null. Rules 2 and 4: the exception is complete, and only `SPARE`
        // refers to it.
        unsafe {
            let spare = &mut *SPARE.0.get();
            let object = spare.exception;
            if object.is_null() || ffi::Py_REFCNT(object.cast()) != 1 {
                return raise_new(value, context);
            }
            spare.exception = null_mut();
            raise_object(object, value, context);
        }
    }

    /// # Safety
    /// The thread is attached, the exception is complete, and the caller owns the reference to the
    /// exception.
    #[inline]
    unsafe fn raise_object(object: *mut Object, value: Borrowed<'_, '_, PyAny>, context: ContextValue) {
        // SAFETY: promised by the caller. The field's old content is dropped after the field was
        // written. Rule 7: the exception being handled is a different one, because the caller has
        // the only reference to this one.
        unsafe {
            let old = std::mem::replace(&mut (*object).value, ffi::Py_NewRef(value.as_ptr()));
            ffi::Py_XDECREF(old);
            if context == ContextValue::Handled {
                let handled = ffi::PyErr_GetHandledException();
                if !handled.is_null() {
                    ffi::PyException_SetContext(object.cast(), handled);
                }
            }
            ffi::PyErr_SetRaisedException(object.cast());
        }
    }

    /// Makes an exception and raises it.
    #[cold]
    fn raise_new(value: Borrowed<'_, '_, PyAny>, context: ContextValue) {
        let py = value.py();
        let class = match CLASS.get_or_try_init(py, || make_class(py)) {
            Ok(Some(class)) => class.as_ptr().cast::<ffi::PyTypeObject>(),
            Ok(None) => return super::raise(value),
            Err(error) => return error.restore(py),
        };
        // SAFETY: attached. The class has the size and the fields of `Object` (rule 1), and every
        // field is written before the collector sees the object.
        unsafe {
            let no_args = ffi::PyTuple_New(0);
            let object = ffi::PyObject_GC_New::<ffi::PyObject>(class);
            if object.is_null() {
                return;
            }
            let this = object.cast::<Object>();
            (&raw mut (*this).dict).write(null_mut());
            (&raw mut (*this).args).write(no_args);
            (&raw mut (*this).notes).write(null_mut());
            (&raw mut (*this).traceback).write(null_mut());
            (&raw mut (*this).context).write(null_mut());
            (&raw mut (*this).cause).write(null_mut());
            (&raw mut (*this).suppress_context).write('\0');
            (&raw mut (*this).value).write(null_mut());
            ffi::PyObject_GC_Track(object.cast());
            let spare = &mut *SPARE.0.get();
            spare.no_args = no_args;
            // Rule 4: a spare to which other code refers is left to that code.
            let given_up = std::mem::replace(&mut spare.exception, null_mut());
            ffi::Py_XDECREF(given_up.cast());
            raise_object(this, value, context);
        }
    }

    fn make_class(py: Python<'_>) -> PyResult<Option<Py<PyType>>> {
        let slot = |slot, pfunc: *mut c_void| ffi::PyType_Slot { slot, pfunc };
        let mut slots = [slot(ffi::Py_tp_dealloc, dealloc as *mut c_void), slot(0, null_mut())];
        let mut spec = ffi::PyType_Spec {
            name: c"cache._native.StopIteration".as_ptr(),
            basicsize: c_int::try_from(size_of::<Object>())?,
            itemsize: 0,
            flags: u32::try_from(ffi::Py_TPFLAGS_DEFAULT)?,
            slots: slots.as_mut_ptr(),
        };
        // SAFETY: attached; the slot has its signature, and the list ends with a zero. Rule 1: a
        // class with the size of its base has the fields of the base.
        unsafe {
            let base = ffi::PyExc_StopIteration;
            if (*base.cast::<ffi::PyTypeObject>()).tp_basicsize != size_of::<Object>().cast_signed() {
                return Ok(None);
            }
            let class = ffi::PyType_FromSpecWithBases(&raw mut spec, base);
            Ok(Some(Bound::from_owned_ptr_or_err(py, class)?.cast_into_unchecked::<PyType>().unbind()))
        }
    }

    unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
        // SAFETY: the interpreter calls this on an attached thread when the last reference is gone.
        unsafe {
            let this = object.cast::<Object>();
            let spare = &mut *SPARE.0.get();
            // Rule 5.
            let is_clean = (*this).args == spare.no_args
                && (*this).traceback.is_null()
                && (*this).dict.is_null()
                && (*this).notes.is_null()
                && (*this).cause.is_null()
                && (&raw const (*this).suppress_context).cast::<u8>().read() == 0;
            if !is_clean || !spare.exception.is_null() {
                return free(object);
            }
            // Rule 2.
            let value = std::mem::replace(&mut (*this).value, null_mut());
            let context = std::mem::replace(&mut (*this).context, null_mut());
            // Rule 6. The new reference belongs to `SPARE`; the collector still knows the object.
            refcount::revive(object);
            spare.exception = this;
            if !context.is_null() {
                ffi::Py_DECREF(context);
            }
            ffi::Py_XDECREF(value);
        }
    }

    /// # Safety
    /// The thread is attached, and there is no reference to the object.
    #[cold]
    unsafe fn free(object: *mut ffi::PyObject) {
        // SAFETY: promised by the caller. The object leaves the collector's lists before its fields
        // are dropped by the base's `tp_clear`. The reference to the class is dropped last.
        unsafe {
            ffi::PyObject_GC_UnTrack(object.cast());
            let class = ffi::Py_TYPE(object);
            let base = ffi::PyExc_StopIteration.cast::<ffi::PyTypeObject>();
            if let Some(clear) = (*base).tp_clear {
                clear(object);
            }
            ffi::PyObject_GC_Del(object.cast());
            ffi::Py_DECREF(class.cast());
        }
    }
}

//! Returning a value from `__next__`: `StopIteration`, as cheaply as it can be had.
//!
//! From Python 3.12 on, `await` resumes what is not a coroutine of the interpreter's own through `__next__`, and so
//! gets its value inside of an exception. Made by a call, that takes longer than everything else that a hit does.
//! Here it is an object of a subclass of ours, from a free list; the interpreter takes the value out of it at once,
//! and drops it. Before 3.12 the interpreter makes no object at all, and nothing of this is used.
//!
//! Invariants:
//! 1. the class has the size of [`ffi::PyStopIterationObject`], so its fields are where that says. That is checked
//!    when the class is made; if it is not so, exceptions are made by calls;
//! 2. what is on the free list has no references, is unknown to the collector, and its fields are null. Making it an
//!    object again sets `args`, which the interpreter does not expect to be null, and `value`.

use pyo3::Borrowed;
use pyo3::ffi;
use pyo3::prelude::*;

/// Raises `StopIteration` with a value, made by a call: for calls from Python code.
pub(super) fn raise(value: Borrowed<'_, '_, PyAny>) {
    // SAFETY: attached, as the value says. `PyErr_SetObject` takes a tuple for arguments, and an exception for
    // what is raised; around these the exception is made by a call.
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

#[cfg(not(Py_3_12))]
pub(super) use raise as raise_fast;

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

    type Object = ffi::PyStopIterationObject;

    const KEPT: usize = 16;

    struct Free {
        len: usize,
        objects: [*mut ffi::PyObject; KEPT],
    }

    struct FreeList(UnsafeCell<Free>);

    // SAFETY: touched by attached threads only (contract 1 of `raw`).
    unsafe impl Sync for FreeList {}

    static FREE: FreeList = FreeList(UnsafeCell::new(Free { len: 0, objects: [null_mut(); KEPT] }));

    /// `None` if the interpreter's exceptions are not laid out as expected.
    static CLASS: PyOnceLock<Option<Py<PyType>>> = PyOnceLock::new();

    /// Raises `StopIteration` with a value.
    #[inline]
    pub(in crate::raw) fn raise_fast(value: Borrowed<'_, '_, PyAny>) {
        let Some(Some(class)) = CLASS.get(value.py()) else {
            return raise_first(value);
        };
        // SAFETY: attached, so nobody else touches the free list. Invariants 1 and 2: whichever way the object was
        // had, its head is initialised, and all its fields are written before anybody sees it.
        unsafe {
            let free = &mut *FREE.0.get();
            let class = class.as_ptr().cast::<ffi::PyTypeObject>();
            let object = if free.len > 0 {
                free.len -= 1;
                ffi::PyObject_Init(free.objects[free.len], class)
            } else {
                ffi::PyObject_GC_New::<ffi::PyObject>(class)
            };
            if object.is_null() {
                return;
            }
            let this = object.cast::<Object>();
            (&raw mut (*this).dict).write(null_mut());
            (&raw mut (*this).args).write(ffi::PyTuple_New(0));
            (&raw mut (*this).notes).write(null_mut());
            (&raw mut (*this).traceback).write(null_mut());
            (&raw mut (*this).context).write(null_mut());
            (&raw mut (*this).cause).write(null_mut());
            (&raw mut (*this).suppress_context).write('\0');
            (&raw mut (*this).value).write(ffi::Py_NewRef(value.as_ptr()));
            ffi::PyObject_GC_Track(object.cast());
            ffi::PyErr_SetRaisedException(object);
        }
    }

    #[cold]
    fn raise_first(value: Borrowed<'_, '_, PyAny>) {
        let py = value.py();
        match CLASS.get_or_try_init(py, || make_class(py)) {
            Ok(Some(_)) => raise_fast(value),
            Ok(None) => super::raise(value),
            Err(error) => error.restore(py),
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
        // SAFETY: attached; the slot has its signature, and the list ends with a zero. A class that is as large as
        // its base has the fields of the base.
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
        // SAFETY: called once, when the last reference is gone; off the collector's lists before its fields are
        // dropped, which the base's `tp_clear` does, all of them. The class's reference is given back last.
        unsafe {
            ffi::PyObject_GC_UnTrack(object.cast());
            let class = ffi::Py_TYPE(object);
            let base = ffi::PyExc_StopIteration.cast::<ffi::PyTypeObject>();
            if let Some(clear) = (*base).tp_clear {
                clear(object);
            }
            let free = &mut *FREE.0.get();
            if free.len < KEPT {
                free.objects[free.len] = object;
                free.len += 1;
            } else {
                ffi::PyObject_GC_Del(object.cast());
            }
            ffi::Py_DECREF(class.cast());
        }
    }
}

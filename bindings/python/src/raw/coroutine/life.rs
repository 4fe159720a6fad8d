//! The memory of coroutine-like objects: their layout, the free list, and the first and the last
//! step of an object's life.
//!
//! Rules 1 and 2 are in `coroutine`, with the states of an object. Here:
//!
//! 3. an object whose finalizer ran does not go to the free list: the interpreter records the run
//!    in the object's header, and would not call the finalizer of the object's next life;
//! 4. a free object is a live one for the interpreter: the free list owns the only reference to it,
//!    the collector knows it, and it holds nothing but its type. So neither taking nor returning
//!    the object changes the collector's lists. `gc.get_objects` may return a second reference:
//!    then the object is not taken, but left to the holder.

use std::cell::UnsafeCell;
use std::ffi::CStr;
use std::mem::ManuallyDrop;
use std::ptr::null_mut;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use super::super::visit::Visit;
use super::super::{Sent, refcount};

/// The behaviour of a coroutine-like object.
pub(crate) trait Coroutine: Visit + Sized {
    /// The name of its type.
    const NAME: &'static CStr;

    /// The object's name, in the form of a coroutine function's name.
    fn name(&self, py: Python<'_>) -> String;
    /// The coroutine that the object drives, and whose frame it shows as its own.
    fn inner<'py>(&self, _py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        None
    }
    /// Whether the object has ended.
    fn is_done(&self) -> bool;
    /// Whether the body holds nothing, so that dropping the body can be left out.
    fn is_empty(&self) -> bool {
        false
    }
    /// Whether the object has begun and not ended.
    fn is_waiting(&self) -> bool;
    /// The first attempt, before `PyO3`'s bookkeeping is set up: must access nothing but `Bound`
    /// and [`Ref`](crate::raw::Ref). `None` if the call needs more.
    fn send_fast<'py>(&mut self, py: Python<'py>) -> Option<Bound<'py, PyAny>>;
    /// One step.
    fn send<'py>(&mut self, py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Sent<'py>>;
    /// Raises an exception at the point of waiting.
    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Sent<'py>>;
    /// The object is closed: no code wants it to continue.
    fn close(&mut self, py: Python<'_>) -> PyResult<()>;
    /// The object was dropped before it was done.
    fn abandon(&mut self, py: Python<'_>);
    /// A step has panicked. The caller gets this error; other waiting callers must not wait for
    /// ever.
    fn fail(&mut self, py: Python<'_>, error: &PyErr);
    /// The type and the free list.
    fn statics() -> &'static Statics;
}

/// The type of one kind of coroutine, and its free list.
pub(crate) struct Statics {
    pub(super) class: PyOnceLock<Py<PyType>>,
    free: UnsafeCell<Free>,
}

const KEPT: usize = 128;

struct Free {
    len: usize,
    objects: [*mut ffi::PyObject; KEPT],
}

// SAFETY: the free list is accessed by attached threads only (contract 1 of `raw`).
unsafe impl Sync for Statics {}

impl Statics {
    pub(crate) const fn new() -> Self {
        Self { class: PyOnceLock::new(), free: UnsafeCell::new(Free { len: 0, objects: [null_mut(); KEPT] }) }
    }
}

#[repr(C)]
pub(super) struct Object<B> {
    base: ffi::PyObject,
    pub(super) busy: bool,
    pub(super) finalized: bool,
    /// Whether `__await__` was called. Only then is the object an iterator, so that
    /// `list(cache.get(key))` is an error, as with a coroutine, and not an empty list.
    pub(super) awaited: bool,
    pub(super) body: ManuallyDrop<B>,
}

/// The origin of a new object.
#[derive(Clone, Copy)]
pub(super) enum Origin {
    FreeList,
    /// The collector does not know it yet.
    Memory,
}

/// An object without a body, with one reference to it, and one to the type, which `class` returns.
#[inline(always)]
#[allow(clippy::inline_always)] // a call of its own is a fiftieth of a hit
pub(super) fn allocate<'py, B: Coroutine>(
    py: Python<'py>,
    class: impl FnOnce(Python<'py>) -> PyResult<&'py Bound<'py, PyType>>,
) -> PyResult<(*mut ffi::PyObject, Origin)> {
    // SAFETY: attached, so no other thread accesses the free list, which holds live objects of this
    // type. Rule 4: from now on the list's reference is the caller's.
    unsafe {
        let free = &mut *B::statics().free.get();
        if free.len > 0 {
            free.len -= 1;
            let object = free.objects[free.len];
            if ffi::Py_REFCNT(object) == 1 {
                return Ok((object, Origin::FreeList));
            }
            ffi::Py_DECREF(object);
        }
    }
    Ok((allocate_memory(py, class)?, Origin::Memory))
}

/// An object without a body, unknown to the collector.
#[cold]
#[inline(never)]
fn allocate_memory<'py>(
    py: Python<'py>,
    class: impl FnOnce(Python<'py>) -> PyResult<&'py Bound<'py, PyType>>,
) -> PyResult<*mut ffi::PyObject> {
    let class = class(py)?.as_ptr().cast::<ffi::PyTypeObject>();
    // SAFETY: the type is ready and has the size of its objects.
    let object = unsafe { ffi::PyObject_GC_New::<ffi::PyObject>(class) };
    if object.is_null() { Err(PyErr::fetch(py)) } else { Ok(object) }
}

/// The slot.
pub(super) unsafe extern "C" fn dealloc<B: Coroutine>(object: *mut ffi::PyObject) {
    let this = object.cast::<Object<B>>();
    // SAFETY: called when the last reference is gone. A busy object is a free one (rule 1) given up
    // by the list, because the caller of a running method has a reference. The finalizer may bring
    // the object back to life, which ends the call.
    unsafe {
        let is_free = (*this).busy;
        if !is_free && !(*this).body.is_done() && ffi::PyObject_CallFinalizerFromDealloc(object) < 0 {
            return;
        }
        // Rule 3.
        if (*this).finalized || (*B::statics().free.get()).len >= KEPT {
            ffi::PyObject_GC_UnTrack(object.cast());
            if !is_free {
                ManuallyDrop::drop(&mut (*this).body);
            }
            return free_memory(object);
        }
        // Rule 4: alive again before the body is dropped, because dropping may run Python code and
        // the collector.
        refcount::revive(object);
        (*this).busy = true;
        if !is_free && !(*this).body.is_empty() {
            ManuallyDrop::drop(&mut (*this).body);
        }
        let free = &mut *B::statics().free.get();
        if free.len < KEPT {
            free.objects[free.len] = object;
            free.len += 1;
        } else if ffi::Py_REFCNT(object) == 1 {
            // Python code run by the drop has filled the list.
            ffi::PyObject_GC_UnTrack(object.cast());
            free_memory(object);
        } else {
            ffi::Py_DECREF(object);
        }
    }
}

/// Frees an object without a body that is unknown to the collector.
///
/// # Safety
/// The thread is attached, and the caller holds the only reference to the object.
#[cold]
unsafe fn free_memory(object: *mut ffi::PyObject) {
    // SAFETY: promised by the caller; the reference to the type, which each object holds, is
    // dropped last.
    unsafe {
        let class = ffi::Py_TYPE(object);
        ffi::PyObject_GC_Del(object.cast());
        ffi::Py_DECREF(class.cast());
    }
}

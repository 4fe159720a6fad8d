//! Counts of references that are written in full width.
//!
//! From Python 3.12 on `Py_INCREF` writes the lower half of a count, and `Py_DECREF` reads all of
//! it. A processor cannot forward a narrow write to a wide read: the read waits until the write is
//! in the cache. The functions here write all of it, for objects whose count is
//! read again within a few instructions. They are for objects that are not immortal. Where the
//! interpreter counts all references, or counts otherwise, they are `Py_INCREF`.

use pyo3::ffi;

/// Adds a reference to an object that has some.
///
/// # Safety
/// The thread is attached; the object is alive and not immortal.
#[inline]
pub(super) unsafe fn add(object: *mut ffi::PyObject) {
    // SAFETY: as the caller says.
    unsafe {
        #[cfg(all(Py_3_12, not(Py_3_14), not(Py_GIL_DISABLED), not(py_sys_config = "Py_REF_DEBUG")))]
        {
            (*object).ob_refcnt.ob_refcnt += 1;
        }
        #[cfg(not(all(Py_3_12, not(Py_3_14), not(Py_GIL_DISABLED), not(py_sys_config = "Py_REF_DEBUG"))))]
        ffi::Py_INCREF(object);
    }
}

/// Makes an object live again whose last reference was dropped: it has one then.
///
/// # Safety
/// The thread is attached; the object was not freed, and is not immortal.
#[inline]
pub(super) unsafe fn revive(object: *mut ffi::PyObject) {
    // SAFETY: as the caller says; the count is zero.
    unsafe { add(object) }
}

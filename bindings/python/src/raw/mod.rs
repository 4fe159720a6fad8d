//! The only module with `unsafe`, for operations without a safe form in `PyO3`.
//!
//! - [`Ref`]: a reference to a Python object whose drop is one decrement;
//! - [`GilCell`]: state guarded by the interpreter's lock;
//! - `attribute`: the content of an object, without code of its class;
//! - `class`: classes made by this module; `visit`: the garbage collector's view of an object;
//! - `calls`: calls of Python code, from which a daemon thread may not return;
//! - `context`: context variables;
//! - `interpreter`: the running interpreter;
//! - `stack`: the remaining stack of the running thread;
//! - `coroutine`: objects awaited through `am_send`, from a free list;
//! - `method`: methods called with their arguments in place; `async_method`: methods that stand for
//!   async functions;
//! - `pending`: calls that the main thread makes for other threads;
//! - `refcount`: counts of references that are written in full width;
//! - `stop`: the exception in which a value is returned;
//! - `function`: callables with vectorcall that stand for functions; `bound`: their bound methods;
//! - `text`: properties of a `str`.
//!
//! Contracts on which every block here relies:
//! 1. *attached*: a slot is called by the interpreter, on a thread that holds its lock; a
//!    `Python<'py>` token proves the same for any other function. Free-threaded builds are refused
//!    when the module is imported. Slots also run while the interpreter shuts down, when
//!    `Python::attach` refuses: they enter through [`attached`];
//! 2. *no Python code under a borrow*: while a [`GilCell`] is borrowed, nothing may run Python
//!    code, release the lock or start the garbage collector. A violation is a panic, not undefined
//!    behaviour: the cell counts its borrows.

#![allow(unsafe_code)]

pub(crate) mod async_method;
pub(crate) mod attribute;
pub(crate) mod bound;
pub(crate) mod calls;
mod class;
pub(crate) mod context;
pub(crate) mod coroutine;
pub(crate) mod function;
pub(crate) mod interpreter;
pub(crate) mod method;
pub(crate) mod pending;
mod refcount;
pub(crate) mod stack;
mod stop;
pub(crate) mod text;
pub(crate) mod visit;

use std::cell::{RefCell, RefMut};
use std::ffi::c_int;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::null_mut;

use pyo3::ffi;
use pyo3::prelude::*;

/// A strong reference to a Python object.
///
/// `Py<T>` reads a thread-local counter when it is dropped, and postpones the decrement where
/// `PyO3` did not see the lock being taken, as in our slots. `Ref` decrements at once, which is
/// sound because a `Ref` cannot leave the attached thread: it is neither `Send` nor `Sync`, so it
/// lives on the stack of a function that holds the lock, or inside an object that only the
/// interpreter frees.
#[repr(transparent)]
pub(crate) struct Ref<T = PyAny>(ManuallyDrop<Py<T>>, PhantomData<*mut ()>);

impl<T> Ref<T> {
    pub(crate) fn new(object: Bound<'_, T>) -> Self {
        Self(ManuallyDrop::new(object.unbind()), PhantomData)
    }

    pub(crate) fn bind<'py>(&self, py: Python<'py>) -> &Bound<'py, T> {
        self.0.bind(py)
    }

    pub(crate) fn into_bound(self, py: Python<'_>) -> Bound<'_, T> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, so the reference is taken out once.
        unsafe { ManuallyDrop::take(&mut this.0) }.into_bound(py)
    }

    /// Another reference to the object.
    pub(crate) fn copy(&self, py: Python<'_>) -> Self {
        Self(ManuallyDrop::new(self.0.clone_ref(py)), PhantomData)
    }

    /// Whether both are the same object.
    pub(crate) fn is(&self, other: &Bound<'_, PyAny>) -> bool {
        std::ptr::eq(self.0.as_ptr(), other.as_ptr())
    }

    /// The token that the thread is attached, for the drop of a value that holds a reference.
    #[allow(clippy::unused_self)] // it is the proof
    pub(crate) fn py(&self) -> Python<'_> {
        // SAFETY: a `Ref` never leaves attached threads (contract 1), and no closure that runs
        // detached can borrow one, since it is not `Sync`.
        unsafe { Python::assume_attached() }
    }

    /// The object, for the interpreter's own functions.
    #[inline]
    fn pointer(&self) -> *mut ffi::PyObject {
        self.0.as_ptr()
    }
}

impl<T> From<Bound<'_, T>> for Ref<T> {
    fn from(object: Bound<'_, T>) -> Self {
        Self::new(object)
    }
}

impl<T> Drop for Ref<T> {
    fn drop(&mut self) {
        let object = self.0.as_ptr();
        // SAFETY: a `Ref` never leaves attached threads (contract 1), and owns one reference.
        unsafe {
            if ffi::Py_REFCNT(object) == 1 {
                calls::drop_last(object);
            } else {
                ffi::Py_DECREF(object);
            }
        }
    }
}

/// State accessible with the interpreter's lock only. Borrowing twice at a time is a panic.
pub(crate) struct GilCell<T>(RefCell<T>);

// SAFETY: every access requires a token for an attached thread (contract 1). The last access is the
// drop of the Python object that contains the cell, by the interpreter.
unsafe impl<T> Send for GilCell<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for GilCell<T> {}

impl<T> GilCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(RefCell::new(value))
    }

    /// Borrows the state. Contract 2 names the operations that are forbidden until the borrow ends.
    #[inline]
    pub(crate) fn borrow(&self, _: Python<'_>) -> RefMut<'_, T> {
        self.0.borrow_mut()
    }

    /// For the garbage collector's visits, which may not take a token. `None`: the state is
    /// borrowed.
    pub(crate) fn peek<R>(&self, work: impl FnOnce(&T) -> R) -> Option<R> {
        self.0.try_borrow().ok().map(|state| work(&state))
    }

    /// For the garbage collector's clearing.
    pub(crate) fn take_with<R>(&self, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.0.try_borrow_mut().ok().map(|mut state| work(&mut state))
    }
}

/// Runs the body of a slot, with `PyO3`'s bookkeeping of attached threads if available: an
/// interpreter that shuts down drops its objects, and `Python::attach` panics then.
fn attached<R>(work: impl FnOnce(Python<'_>) -> R) -> R {
    let mut work = Some(work);
    let mut run = |py: Python<'_>| work.take().map(|work| work(py));
    if let Some(result) = Python::try_attach(&mut run).flatten() {
        return result;
    }
    // SAFETY: called by slots only, so the thread is attached (contract 1).
    let result = run(unsafe { Python::assume_attached() });
    result.expect("it did not run if the interpreter refused")
}

/// A result in the form returned by a slot: a new reference, or null and an exception.
fn to_pointer(py: Python<'_>, result: PyResult<Bound<'_, PyAny>>) -> *mut ffi::PyObject {
    match result {
        Ok(object) => object.into_ptr(),
        Err(error) => {
            error.restore(py);
            null_mut()
        }
    }
}

/// Whether two objects that are exactly `str`, both `bytes`, or numbers among `int`, `float` and
/// `bool` are equal.
///
/// Calls the comparison of their types. `PyObject_RichCompare` counts as a level of recursion, and
/// so fails close to the limit, where two equal keys would become two entries.
#[inline]
pub(crate) fn equal(a: &Bound<'_, PyAny>, b: &Bound<'_, PyAny>) -> bool {
    let ask = |a: &Bound<'_, PyAny>, b: &Bound<'_, PyAny>| {
        // SAFETY: attached, and both are alive. The slot is called in the same way as by the
        // interpreter: it returns a new reference, or null and an exception.
        unsafe {
            let compare = (*ffi::Py_TYPE(a.as_ptr())).tp_richcompare?;
            let answer = compare(a.as_ptr(), b.as_ptr(), ffi::Py_EQ as c_int);
            if answer.is_null() {
                // A lack of memory, for the sum of an integer and a fraction.
                ffi::PyErr_Clear();
                return Some(false);
            }
            let told = answer != ffi::Py_NotImplemented();
            let equal = answer == ffi::Py_True();
            ffi::Py_DECREF(answer);
            told.then_some(equal)
        }
    };
    ask(a, b).or_else(|| ask(b, a)).unwrap_or(false)
}

/// The result of driving an awaitable one step further.
pub(crate) enum Sent<'py> {
    /// The awaitable waits; the object is to be passed on to the event loop.
    Yield(Bound<'py, PyAny>),
    /// The value of the awaitable.
    Return(Bound<'py, PyAny>),
}

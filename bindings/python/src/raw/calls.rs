//! Calls of Python code from frames of Rust to which the interpreter may never return.
//!
//! Up to Python 3.13 an interpreter that shuts down ends every other thread that requests its lock
//! (daemon threads) by `pthread_exit`. With glibc this unwinds the thread's stack: frames of Rust
//! would drop references without the lock, and the first `catch_unwind` on the way would abort the
//! process ("exception not rethrown"). Rules:
//! 1. all code of users and of event loops is called through this module, so that the innermost
//!    frame of Rust is one of those below. They hold nothing but pointers and a [`Hang`];
//! 2. when unwound, a [`Hang`] blocks its thread for ever, as Python 3.14 does with daemon threads.
//!    The thread does not hold the interpreter's lock at that point, and the process ends around
//!    it;
//! 3. the functions are called as `C-unwind`, because a call that cannot unwind has no place at
//!    which the [`Hang`] would be dropped. The difference is visible in optimized builds.
//!
//! All other interpreter functions called by this crate run no Python code, with three exceptions:
//! attributes may be properties, modules of the package and of the library may be imported for the
//! first time, and the collector may run finalizers wherever an object is made.

use std::mem::{forget, transmute};
use std::ptr::{null_mut, read_volatile};

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::Sent;

/// Blocks its thread when the stack is unwound (rule 2).
struct Hang;

impl Drop for Hang {
    fn drop(&mut self) {
        loop {
            std::thread::park();
        }
    }
}

/// Calls a function of the interpreter (rules 1 and 3). Use within `unsafe`: the caller must prove
/// the function's requirements.
macro_rules! hanging {
    ($function:path as fn($($kind:ty),*) -> $result:ty, $($argument:expr),*) => {{
        // Read by `read_volatile`, because an optimizer that recognises the function also knows
        // that it is declared not to unwind, and omits the `Hang`.
        let function = read_volatile(&transmute::<
            unsafe extern "C" fn($($kind),*) -> $result,
            unsafe extern "C-unwind" fn($($kind),*) -> $result,
        >($function));
        let hang = Hang;
        let result = function($($argument),*);
        forget(hang);
        result
    }};
}

/// Calls that may run Python code; each has the name of `PyO3`'s function after `invoke_`.
pub(crate) trait Invoke<'py> {
    /// Without arguments.
    fn invoke0(&self) -> PyResult<Bound<'py, PyAny>>;
    /// With one argument.
    fn invoke1(&self, argument: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>>;
    /// With two arguments.
    fn invoke2(&self, first: &Bound<'py, PyAny>, second: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>>;
    /// With any arguments.
    fn invoke(
        &self,
        arguments: &Bound<'py, PyTuple>,
        named: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>>;
    /// With any arguments, from a value convertible to a tuple.
    fn invoke_with<A>(&self, arguments: A) -> PyResult<Bound<'py, PyAny>>
    where
        A: IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error: Into<PyErr>>;
    /// A method, with any arguments.
    fn invoke_method<A>(
        &self,
        name: &str,
        arguments: A,
        named: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>>
    where
        A: IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error: Into<PyErr>>;
    /// A method, without arguments.
    fn invoke_method0(&self, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>>;
    /// A method, with one argument.
    fn invoke_method1(
        &self,
        name: &Bound<'py, PyString>,
        argument: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>>;
    /// A method, with two arguments.
    fn invoke_method2(
        &self,
        name: &Bound<'py, PyString>,
        first: &Bound<'py, PyAny>,
        second: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>>;
    /// The hash.
    fn invoke_hash(&self) -> PyResult<isize>;
    /// The `repr`.
    fn invoke_repr(&self) -> PyResult<Bound<'py, PyString>>;
    /// The `str`.
    fn invoke_str(&self) -> PyResult<Bound<'py, PyString>>;
    /// The length.
    fn invoke_len(&self) -> PyResult<usize>;
    /// The truth value.
    fn invoke_is_true(&self) -> PyResult<bool>;
    /// The iterator, as `iter` returns it.
    fn invoke_iter(&self) -> PyResult<Bound<'py, PyAny>>;
    /// Whether two objects are equal.
    fn invoke_eq(&self, other: &Bound<'py, PyAny>) -> PyResult<bool>;
}

impl<'py> Invoke<'py> for Bound<'py, PyAny> {
    fn invoke0(&self) -> PyResult<Bound<'py, PyAny>> {
        vectorcall(self, &[])
    }

    fn invoke1(&self, argument: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        vectorcall(self, &[argument.as_ptr()])
    }

    fn invoke2(&self, first: &Bound<'py, PyAny>, second: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        vectorcall(self, &[first.as_ptr(), second.as_ptr()])
    }

    fn invoke(
        &self,
        arguments: &Bound<'py, PyTuple>,
        named: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let named = named.map_or(null_mut(), Bound::as_ptr);
        // SAFETY: attached; all are alive for the call, and `named` is null or a dict.
        unsafe {
            let result = hanging!(
                ffi::PyObject_Call as fn(*mut PyObject, *mut PyObject, *mut PyObject) -> *mut PyObject,
                self.as_ptr(),
                arguments.as_ptr(),
                named
            );
            Bound::from_owned_ptr_or_err(self.py(), result)
        }
    }

    fn invoke_with<A>(&self, arguments: A) -> PyResult<Bound<'py, PyAny>>
    where
        A: IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error: Into<PyErr>>,
    {
        self.invoke(&arguments.into_pyobject(self.py()).map_err(Into::into)?, None)
    }

    fn invoke_method<A>(
        &self,
        name: &str,
        arguments: A,
        named: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>>
    where
        A: IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error: Into<PyErr>>,
    {
        self.getattr(name)?.invoke(&arguments.into_pyobject(self.py()).map_err(Into::into)?, named)
    }

    fn invoke_method0(&self, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        vectorcall_method(name, &[self.as_ptr()])
    }

    fn invoke_method1(
        &self,
        name: &Bound<'py, PyString>,
        argument: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        vectorcall_method(name, &[self.as_ptr(), argument.as_ptr()])
    }

    fn invoke_method2(
        &self,
        name: &Bound<'py, PyString>,
        first: &Bound<'py, PyAny>,
        second: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        vectorcall_method(name, &[self.as_ptr(), first.as_ptr(), second.as_ptr()])
    }

    fn invoke_hash(&self) -> PyResult<isize> {
        // SAFETY: attached, and the object is alive.
        let hash = unsafe { hanging!(ffi::PyObject_Hash as fn(*mut PyObject) -> isize, self.as_ptr()) };
        if hash == -1 { Err(PyErr::fetch(self.py())) } else { Ok(hash) }
    }

    fn invoke_repr(&self) -> PyResult<Bound<'py, PyString>> {
        // SAFETY: attached, and the object is alive. `PyObject_Repr` returns a `str`.
        unsafe {
            let text = hanging!(ffi::PyObject_Repr as fn(*mut PyObject) -> *mut PyObject, self.as_ptr());
            Ok(Bound::from_owned_ptr_or_err(self.py(), text)?.cast_into_unchecked())
        }
    }

    fn invoke_str(&self) -> PyResult<Bound<'py, PyString>> {
        // SAFETY: attached, and the object is alive. `PyObject_Str` returns a `str`.
        unsafe {
            let text = hanging!(ffi::PyObject_Str as fn(*mut PyObject) -> *mut PyObject, self.as_ptr());
            Ok(Bound::from_owned_ptr_or_err(self.py(), text)?.cast_into_unchecked())
        }
    }

    fn invoke_iter(&self) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: attached, and the object is alive.
        unsafe {
            let iterator =
                hanging!(ffi::PyObject_GetIter as fn(*mut PyObject) -> *mut PyObject, self.as_ptr());
            Bound::from_owned_ptr_or_err(self.py(), iterator)
        }
    }

    fn invoke_eq(&self, other: &Bound<'py, PyAny>) -> PyResult<bool> {
        // SAFETY: attached; both are alive for the call.
        let answer = unsafe {
            let answer = hanging!(
                ffi::PyObject_RichCompare
                    as fn(*mut PyObject, *mut PyObject, std::ffi::c_int) -> *mut PyObject,
                self.as_ptr(),
                other.as_ptr(),
                ffi::Py_EQ
            );
            Bound::from_owned_ptr_or_err(self.py(), answer)?
        };
        answer.invoke_is_true()
    }

    fn invoke_len(&self) -> PyResult<usize> {
        // SAFETY: attached, and the object is alive.
        let len = unsafe { hanging!(ffi::PyObject_Size as fn(*mut PyObject) -> isize, self.as_ptr()) };
        usize::try_from(len).map_err(|_| PyErr::fetch(self.py()))
    }

    fn invoke_is_true(&self) -> PyResult<bool> {
        // SAFETY: attached, and the object is alive.
        let told =
            unsafe { hanging!(ffi::PyObject_IsTrue as fn(*mut PyObject) -> std::ffi::c_int, self.as_ptr()) };
        if told < 0 { Err(PyErr::fetch(self.py())) } else { Ok(told != 0) }
    }
}

fn vectorcall<'py>(callable: &Bound<'py, PyAny>, arguments: &[*mut PyObject]) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: attached; all are alive for the call, and the count is the length of the list.
    unsafe {
        let result = hanging!(
            ffi::PyObject_VectorcallDict
                as fn(*mut PyObject, *const *mut PyObject, usize, *mut PyObject) -> *mut PyObject,
            callable.as_ptr(),
            arguments.as_ptr(),
            arguments.len(),
            null_mut()
        );
        Bound::from_owned_ptr_or_err(callable.py(), result)
    }
}

/// The first argument is the method's object.
fn vectorcall_method<'py>(
    name: &Bound<'py, PyString>,
    arguments: &[*mut PyObject],
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: attached; all are alive for the call, and the count is the length of the list.
    unsafe {
        let result = hanging!(
            ffi::PyObject_VectorcallMethod
                as fn(*mut PyObject, *const *mut PyObject, usize, *mut PyObject) -> *mut PyObject,
            name.as_ptr(),
            arguments.as_ptr(),
            arguments.len(),
            null_mut()
        );
        Bound::from_owned_ptr_or_err(name.py(), result)
    }
}

/// Drops the last reference to an object: finalizers and callbacks of weak references are Python
/// code.
///
/// # Safety
/// The thread is attached, and the caller owns the reference.
#[inline(never)]
pub(super) unsafe fn drop_last(object: *mut PyObject) {
    // SAFETY: promised by the caller.
    unsafe { hanging!(ffi::Py_DecRef as fn(*mut PyObject) -> (), object) };
}

/// Drives a coroutine, or the iterator of an awaitable.
pub(crate) fn send<'py>(iterator: &Bound<'py, PyAny>, value: &Bound<'py, PyAny>) -> PyResult<Sent<'py>> {
    let py = iterator.py();
    let mut result = null_mut();
    // SAFETY: attached; both are live objects. `PyIter_Send` falls back to `__next__` and `send`,
    // so any object is permitted.
    let status = unsafe {
        hanging!(
            ffi::PyIter_Send as fn(*mut PyObject, *mut PyObject, *mut *mut PyObject) -> ffi::PySendResult,
            iterator.as_ptr(),
            value.as_ptr(),
            &raw mut result
        )
    };
    match status {
        ffi::PySendResult::PYGEN_ERROR => Err(PyErr::fetch(py)),
        // SAFETY: with these two results `result` is a new reference.
        ffi::PySendResult::PYGEN_RETURN => Ok(Sent::Return(unsafe { Bound::from_owned_ptr(py, result) })),
        // SAFETY: as above.
        ffi::PySendResult::PYGEN_NEXT => Ok(Sent::Yield(unsafe { Bound::from_owned_ptr(py, result) })),
    }
}

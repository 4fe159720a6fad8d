//! Methods that the interpreter calls with its arguments in place, for methods called so often that
//! the difference matters: `PyO3`'s own mechanism takes a tenth of a hit.

use std::ffi::{CStr, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple, PyType};
use pyo3::{Borrowed, PyTypeInfo};

use super::attached;
use super::coroutine::panicked;

/// A method of a class, with `N` parameters.
pub(crate) trait Method<const N: usize> {
    /// The class of the method.
    type Class: PyTypeInfo;
    /// The method's name in Python.
    const NAME: &'static CStr;
    /// Its signature, two dashes and its description.
    const DOC: &'static CStr;
    /// The names of its parameters; all except the first are optional.
    const PARAMETERS: [&'static str; N];

    /// Called without `PyO3`'s bookkeeping, so it must use only `Bound` and `Ref`. `None` if the
    /// call needs more.
    fn call_fast<'py>(
        object: &Bound<'py, Self::Class>,
        arguments: &Arguments<'_, 'py, N>,
    ) -> Option<Bound<'py, PyAny>>;

    /// Called if `call_fast` returned `None`.
    fn call<'py>(
        object: &Bound<'py, Self::Class>,
        arguments: &Arguments<'_, 'py, N>,
    ) -> PyResult<Bound<'py, PyAny>>;
}

/// The argument for each parameter, if given.
pub(crate) type Arguments<'a, 'py, const N: usize> = [Option<Borrowed<'a, 'py, PyAny>>; N];

/// Adds the method to the class.
pub(crate) fn add<M: Method<N>, const N: usize>(py: Python<'_>) -> PyResult<()> {
    let class = M::Class::type_object(py);
    // The interpreter keeps a pointer to the definition; the class lives as long as the process.
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: M::NAME.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: call::<M, N> },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS as c_int,
        ml_doc: M::DOC.as_ptr(),
    }));
    // SAFETY: attached; the definition is complete and lives on; the function has the signature of
    // its flags.
    let method = unsafe {
        let class: *mut ffi::PyTypeObject = class.as_type_ptr();
        Bound::from_owned_ptr_or_err(py, ffi::PyDescr_NewMethod(class, definition))?
    };
    let name = M::NAME.to_str().expect("our own names are ASCII");
    class.cast::<PyType>()?.setattr(name, method)
}

pub(super) unsafe extern "C" fn call<M: Method<N>, const N: usize>(
    object: *mut ffi::PyObject,
    given: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: attached. The descriptor, ours or the interpreter's, has checked the class of the
    // object. `given` are `positional` arguments, then one for each of `names`, null or a tuple of
    // strings; all outlive the call.
    unsafe {
        let py = Python::assume_attached();
        let object = Bound::from_borrowed_ptr(py, object).cast_into_unchecked::<M::Class>();
        let positional = positional.cast_unsigned();
        let mut arguments: Arguments<'_, '_, N> = [None; N];
        if names.is_null() && (1..=N).contains(&positional) {
            for (at, argument) in arguments.iter_mut().enumerate().take(positional) {
                *argument = Some(Borrowed::from_ptr(py, *given.add(at)));
            }
            let done = catch_unwind(AssertUnwindSafe(|| M::call_fast(&object, &arguments)));
            if let Ok(Some(value)) = done {
                return value.into_ptr();
            }
        }
        attached(|py| {
            let done = catch_unwind(AssertUnwindSafe(|| {
                let names = Bound::from_borrowed_ptr_or_opt(py, names);
                let names = names.as_ref().map(|names| names.cast_unchecked::<PyTuple>());
                let count = positional + names.map_or(0, PyTupleMethods::len);
                let given = if count == 0 { &[][..] } else { std::slice::from_raw_parts(given, count) };
                let given = given.iter().map(|&argument| Borrowed::from_ptr(py, argument));
                let arguments = arrange::<M, N>(given, positional, names)?;
                M::call(&object, &arguments)
            }));
            match done.unwrap_or_else(|panic| Err(panicked(&*panic))) {
                Ok(value) => value.into_ptr(),
                Err(error) => {
                    error.restore(py);
                    null_mut()
                }
            }
        })
    }
}

/// Assigns arguments to their parameters; the errors are those of a Python function.
fn arrange<'a, 'py, M: Method<N>, const N: usize>(
    given: impl Iterator<Item = Borrowed<'a, 'py, PyAny>>,
    positional: usize,
    names: Option<&Bound<'py, PyTuple>>,
) -> PyResult<Arguments<'a, 'py, N>> {
    let method = || M::NAME.to_string_lossy();
    if positional > N {
        let message = format!("{}() takes {N} positional arguments but {positional} were given", method());
        return Err(PyTypeError::new_err(message));
    }
    let mut arguments: Arguments<'a, 'py, N> = [None; N];
    for (at, argument) in given.enumerate() {
        let Some(named) = at.checked_sub(positional) else {
            arguments[at] = Some(argument);
            continue;
        };
        let name = names.expect("there are more arguments than positional ones").get_item(named)?;
        let name = name.cast_into::<PyString>()?;
        let name = name.to_cow()?;
        let Some(parameter) = M::PARAMETERS.iter().position(|parameter| *parameter == name) else {
            let message = format!("{}() got an unexpected keyword argument '{name}'", method());
            return Err(PyTypeError::new_err(message));
        };
        if arguments[parameter].replace(argument).is_some() {
            let message = format!("{}() got multiple values for argument '{name}'", method());
            return Err(PyTypeError::new_err(message));
        }
    }
    if arguments[0].is_none() {
        let first = M::PARAMETERS[0];
        let message = format!("{}() missing 1 required positional argument: '{first}'", method());
        return Err(PyTypeError::new_err(message));
    }
    Ok(arguments)
}

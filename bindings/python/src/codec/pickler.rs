//! The pickler of values: pickle, with a check of each object that unpickling restores its type.
//!
//! Pickle writes an object's description of itself, from which unpickling may make an object of a
//! different type: a `PickleBuffer` becomes `bytes`, a proxy becomes the object it represents, an
//! iterator over a dict becomes one over a list. A value with an object of this kind is not
//! written. Rules:
//! 1. an object is restored as its class if the class, or its `__new__`, makes it, and if pickle
//!    finds the class by its name;
//! 2. an object made by another function is tried: the first object of a class made by the function
//!    is pickled and read at once, without copies of its buffers. If the result has another class,
//!    the value is refused. If the pickle cannot be read, no wrong value can be read either, and
//!    the value is written: reading it will be a miss;
//! 3. a `PickleBuffer` that an object made for its pickling is written: no other code holds the
//!    buffer. A buffer that is part of the value is refused. Objects of usual classes are checked
//!    for buffers only when a buffer of unknown origin occurs: then the value is pickled a second
//!    time;
//! 4. containers of built-in types are written by pickle itself, and are restored with their types.
//!
//! A pickler is used again for the next value, unless it failed or its value was large.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyCFunction, PyDict, PyFunction, PyList, PyModule, PySet, PyTuple, PyType};

use super::sharing::{BORROWED, OWNED, is_held_by};
use super::types;
use crate::errors;
use crate::raw::GilCell;
use crate::raw::calls::Invoke;

const PROTOCOL: u8 = 5;

/// Bytes of a pickle above which its pickler, whose memory is equally large, is dropped.
const LARGE: usize = 1 << 16;

/// How deep buffers are searched for (rule 3).
const DEEPEST: usize = 8;

/// References of an object held only by us.
const OURS: isize = 1;

/// The number of remembered tries of rule 2; they keep their classes alive.
const REMEMBERED: usize = 512;

/// A pickle and its out-of-band buffers.
#[derive(Default)]
pub(super) struct Pickled {
    pub(super) pickle: Vec<u8>,
    pub(super) buffers: Vec<PyBuffer<u8>>,
}

/// Pickles a value.
///
/// # Errors
/// Exceptions raised by pickling; `TypeError` if a part of the value would be restored with another
/// type.
pub(super) fn pickle(value: &Bound<'_, PyAny>) -> PyResult<Pickled> {
    static IDLE: GilCell<Option<Py<PyAny>>> = GilCell::new(None);
    let py = value.py();
    // Taken out, since pickling runs code that may call this function again.
    let idle = IDLE.borrow(py).take();
    let (pickler, sink) = match idle {
        Some(pickler) => {
            let pickler = pickler.into_bound(py);
            let sink = pickler.getattr(pyo3::intern!(py, "sink"))?.cast_into::<Sink>()?;
            (pickler, sink)
        }
        None => make(py)?,
    };
    let dumped = pickler.invoke_method1(pyo3::intern!(py, "dump"), value);
    if let Err(error) = dumped {
        let is_over = sink.get().0.borrow(py).looks != Looks::Again;
        if is_over {
            return Err(error);
        }
        let (pickler, again) = make(py)?;
        again.get().0.borrow(py).looks = Looks::All;
        pickler.invoke_method1(pyo3::intern!(py, "dump"), value)?;
        return Ok(again.get().take(py));
    }
    pickler.call_method0(pyo3::intern!(py, "clear_memo"))?;
    let pickled = sink.get().take(py);
    if pickled.pickle.len() <= LARGE {
        let before = IDLE.borrow(py).replace(pickler.unbind());
        drop(before);
    }
    Ok(pickled)
}

/// A pickler and its output.
fn make(py: Python<'_>) -> PyResult<(Bound<'_, PyAny>, Bound<'_, Sink>)> {
    static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let class = CLASS.get_or_try_init(py, || -> PyResult<_> {
        // Pickle's own class permits no attributes.
        let base = py.import("pickle")?.getattr("Pickler")?;
        Ok(py.get_type::<PyType>().call1(("Pickler", (base,), PyDict::new(py)))?.unbind())
    })?;
    let sink = Bound::new(py, Sink(GilCell::new(Written::default())))?;
    let options = PyDict::new(py);
    options.set_item("buffer_callback", sink.getattr("take_buffer")?)?;
    let pickler = class.bind(py).call((&sink, PROTOCOL), Some(&options))?;
    pickler.setattr("reducer_override", sink.getattr("reduce")?)?;
    pickler.setattr("sink", &sink)?;
    Ok((pickler, sink))
}

/// The output of a pickler, and its callbacks.
#[pyclass(frozen, module = "cache._native")]
struct Sink(GilCell<Written>);

#[derive(Default)]
struct Written {
    pickle: Vec<u8>,
    buffers: Vec<PyBuffer<u8>>,
    /// The `PickleBuffer`s that objects made for their pickling.
    fresh: Vec<Py<PyAny>>,
    looks: Looks,
}

/// Which objects are checked.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Looks {
    /// Objects that may be restored with another class.
    #[default]
    Some,
    /// A buffer of unknown origin occurred: all objects must be checked.
    Again,
    /// All objects.
    All,
}

#[pymethods]
impl Sink {
    /// The `write` of a file.
    fn write(&self, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        let py = data.py();
        if let Ok(bytes) = data.cast::<PyBytes>() {
            let bytes = bytes.as_bytes();
            self.0.borrow(py).pickle.extend_from_slice(bytes);
            return Ok(bytes.len());
        }
        let bytes = PyBuffer::<u8>::get(data)?.to_vec(py)?;
        self.0.borrow(py).pickle.extend_from_slice(&bytes);
        Ok(bytes.len())
    }

    /// A pickler's `buffer_callback`. Returns whether the buffer is to be written within the
    /// pickle.
    fn take_buffer(&self, buffer: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = buffer.py();
        // Rule 3.
        let is_fresh = self.0.borrow(py).fresh.iter().any(|fresh| fresh.is(buffer));
        if !is_fresh {
            let mut written = self.0.borrow(py);
            if written.looks == Looks::Some {
                written.looks = Looks::Again;
            }
            drop(written);
            return Err(PyTypeError::new_err(
                "a pickle.PickleBuffer would come back as bytes or a bytearray: give one of these",
            ));
        }
        let raw = match buffer.call_method0(pyo3::intern!(py, "raw")) {
            Ok(raw) => raw,
            // The buffer is not contiguous, and has no raw bytes. Pickle itself can write it.
            Err(error) if error.is_instance_of::<PyBufferError>(py) => return Ok(true),
            Err(error) => return Err(error),
        };
        let raw = PyBuffer::get(&raw)?;
        self.0.borrow(py).buffers.push(raw);
        Ok(false)
    }

    /// A pickler's `reducer_override`: the reduction that pickle itself would request, checked.
    fn reduce<'py>(&self, object: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = object.py();
        let class = object.get_type();
        let is_one_of_all = self.0.borrow(py).looks == Looks::All;
        let registered = types::dispatch_table(py)?.cast::<PyDict>()?.get_item(&class)?;
        let reduced = if let Some(reduce) = registered {
            reduce.invoke1(&object)?
        } else {
            // Rule 1: these are pickled by their names, or made by `copyreg.__newobj__`.
            let is_left_to_pickle = object.is_instance_of::<PyType>()
                || object.is_exact_instance_of::<PyFunction>()
                || (!is_one_of_all && is_usual(&class)?);
            let method = if is_left_to_pickle {
                None
            } else {
                object.getattr_opt(pyo3::intern!(py, "__reduce_ex__"))?
            };
            let Some(method) = method else { return Ok(py.NotImplemented().into_bound(py)) };
            method.invoke1(PROTOCOL.into_pyobject(py)?.as_any())?
        };
        // Rule 1: a string is the name of a global. For other results pickle raises an error.
        if let Ok(parts) = reduced.cast_exact::<PyTuple>()
            && let [make, arguments, ..] = parts.as_slice()
            && let Ok(arguments) = arguments.cast_exact::<PyTuple>()
        {
            if is_held_by(&reduced, OURS) {
                parts.iter_borrowed().skip(1).take(2).for_each(|part| self.note_fresh(&part, 0, BORROWED));
            }
            check(&object, &class, make, arguments)?;
        }
        Ok(reduced)
    }
}

impl Sink {
    /// The written pickle.
    fn take(&self, py: Python<'_>) -> Pickled {
        let Written { pickle, buffers, fresh, .. } = std::mem::take(&mut *self.0.borrow(py));
        drop(fresh);
        Pickled { pickle, buffers }
    }

    /// Rule 3: records the buffers in a part of an object's description. `known`: how many
    /// references to the part are accounted for.
    fn note_fresh(&self, part: &Bound<'_, PyAny>, depth: usize, known: isize) {
        if !is_held_by(part, known) || depth > DEEPEST {
            return;
        }
        if let Ok(tuple) = part.cast_exact::<PyTuple>() {
            tuple.iter_borrowed().for_each(|part| self.note_fresh(&part, depth + 1, BORROWED));
        } else if let Ok(list) = part.cast_exact::<PyList>() {
            list.iter().for_each(|part| self.note_fresh(&part, depth + 1, OWNED));
        } else if let Ok(dict) = part.cast_exact::<PyDict>() {
            dict.iter().for_each(|(_, part)| self.note_fresh(&part, depth + 1, OWNED));
        } else if is_pickle_buffer(part) {
            self.0.borrow(part.py()).fresh.push(part.clone().unbind());
        }
    }
}

/// Whether objects of a class are described to pickle by `object`: by their class and attributes.
fn is_usual(class: &Bound<'_, PyType>) -> PyResult<bool> {
    static USUAL: PyOnceLock<[Py<PyAny>; 3]> = PyOnceLock::new();
    let py = class.py();
    let names = [
        pyo3::intern!(py, "__reduce_ex__"),
        pyo3::intern!(py, "__reduce__"),
        pyo3::intern!(py, "__getattribute__"),
    ];
    let usual = USUAL.get_or_try_init(py, || -> PyResult<_> {
        let object = py.get_type::<PyAny>();
        let [a, b, c] = names.map(|name| object.getattr(name).map(Bound::unbind));
        Ok([a?, b?, c?])
    })?;
    for (name, usual) in names.into_iter().zip(usual) {
        if !class.getattr(name)?.is(usual) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_pickle_buffer(object: &Bound<'_, PyAny>) -> bool {
    types::pickle_buffer(object.py()).is_ok_and(|class| types::is_exactly(object, class))
}

/// `Err` if the object would be restored with another class.
fn check<'py>(
    object: &Bound<'py, PyAny>,
    class: &Bound<'py, PyType>,
    make: &Bound<'py, PyAny>,
    arguments: &Bound<'py, PyTuple>,
) -> PyResult<()> {
    static TRIED: PyOnceLock<Py<PySet>> = PyOnceLock::new();
    let py = object.py();
    let first = arguments.get_borrowed_item(0).ok().filter(|first| first.is_instance_of::<PyType>());
    // Rule 1.
    if make.is(class) {
        return Ok(());
    }
    let makes_new = make.is(types::new_object(py)?) || make.is(types::new_object_ex(py)?);
    if makes_new && first.as_ref().is_some_and(|first| first.is(class)) {
        return Ok(());
    }
    // Rule 2.
    let tried = TRIED.get_or_try_init(py, || PySet::empty(py).map(Bound::unbind))?.bind(py);
    let may_remember = is_lasting(make)?;
    let case = (class, make, first.as_ref().map(ToOwned::to_owned)).into_pyobject(py)?;
    if may_remember && tried.contains(&case)? {
        return Ok(());
    }
    match come_back(object) {
        Ok(back) if back.get_type().is(class) => {}
        Ok(back) => {
            let name = |class: &Bound<'_, PyType>| {
                class.fully_qualified_name().map_or_else(|_| "?".to_owned(), |name| name.to_string())
            };
            return Err(PyTypeError::new_err(format!(
                "pickle would bring an object of type {} back as one of type {}",
                name(class),
                name(&back.get_type())
            )));
        }
        Err(error) if errors::is_interrupt(py, &error) => return Err(error),
        Err(_) => return Ok(()),
    }
    if may_remember {
        if tried.len() >= REMEMBERED {
            tried.clear();
        }
        tried.add(case)?;
    }
    Ok(())
}

/// Whether a function may be kept: it is not a method of an object that the cache would keep alive.
fn is_lasting(make: &Bound<'_, PyAny>) -> PyResult<bool> {
    if make.is_exact_instance_of::<PyFunction>() || make.is_exact_instance_of::<PyType>() {
        return Ok(true);
    }
    let is_method = types::is_exactly(make, types::method(make.py())?);
    if !is_method && !make.is_exact_instance_of::<PyCFunction>() {
        return Ok(false);
    }
    let owner = make.getattr(pyo3::intern!(make.py(), "__self__"))?;
    Ok(owner.is_none() || owner.is_instance_of::<PyType>() || is_module(&owner))
}

fn is_module(object: &Bound<'_, PyAny>) -> bool {
    object.is_instance_of::<PyModule>()
}

/// An object pickled and restored, without copies of its buffers.
fn come_back<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = object.py();
    let buffers = PyList::empty(py);
    let options = PyDict::new(py);
    options.set_item("buffer_callback", buffers.getattr("append")?)?;
    let pickle = types::pickle_dumps(py)?.invoke(&(object, PROTOCOL).into_pyobject(py)?, Some(&options))?;
    let options = PyDict::new(py);
    options.set_item("buffers", buffers)?;
    types::pickle_loads(py)?.invoke(&(pickle,).into_pyobject(py)?, Some(&options))
}

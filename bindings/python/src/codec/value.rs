//! Values: any object to bytes.
//!
//! Rules:
//! 1. Only exact types have a form of their own. A subclass may add to its base, so it is pickled.
//! 2. If any part needs pickle, the whole value is pickled: identity between a part inside the
//!    pickle and a part outside could not be kept.
//! 3. The walk runs no Python code of the value: no `__iter__`, `__eq__`, `__hash__`. Nevertheless
//!    a container may change, through finalizers run by the garbage collector. The announced count
//!    is then wrong, which is an error, as in Python's own iterators.

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString, PyTuple,
};

use super::sharing::{self, BORROWED, OWNED, SeenObjects};
use super::text::write_surrogates;
use super::{CodecOptions, MAX_DEPTH, atom, ext, number, pickle, time, write};
use crate::raw::text;

/// Appends the encoded value. After an error `out` is unchanged.
pub(crate) fn encode_value(
    value: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    options: CodecOptions,
) -> PyResult<()> {
    let start = out.len();
    let mut encoder = Encoder { out, seen: SeenObjects::new(value) };
    let Err(EarlyEnd(why)) = encoder.any(value, 0, isize::MAX) else { return Ok(()) };
    out.truncate(start);
    match *why {
        Why::Error(error) => Err(error),
        Why::Pickle(_) if options.pickle => pickle::encode(value, out).inspect_err(|_| out.truncate(start)),
        Why::Pickle(part) => Err(part.refused(value.py())),
    }
}

/// The reason why the walk ended early. Boxed, so that the result of every step is one word.
struct EarlyEnd(Box<Why>);

enum Why {
    Error(PyErr),
    Pickle(PickledPart),
}

/// A part that only pickle can represent.
enum PickledPart {
    Object(Py<PyAny>),
    Shared(Py<PyAny>),
    Deep,
}

impl PickledPart {
    fn refused(self, py: Python<'_>) -> PyErr {
        let name = |object: Py<PyAny>| match object.bind(py).get_type().fully_qualified_name() {
            Ok(name) => name.to_string(),
            Err(_) => "object".to_owned(),
        };
        let what = match self {
            Self::Object(object) => format!("an object of type {}", name(object)),
            Self::Shared(object) => format!("a value that holds one {} object twice", name(object)),
            Self::Deep => format!("a value nested deeper than {MAX_DEPTH} levels"),
        };
        PyTypeError::new_err(format!("pickle=False: {what} can only be pickled"))
    }
}

impl From<PyErr> for EarlyEnd {
    #[cold]
    fn from(error: PyErr) -> Self {
        Self(Box::new(Why::Error(error)))
    }
}

impl From<PickledPart> for EarlyEnd {
    #[cold]
    fn from(part: PickledPart) -> Self {
        Self(Box::new(Why::Pickle(part)))
    }
}

#[cold]
fn changed(what: &str) -> EarlyEnd {
    PyRuntimeError::new_err(format!("{what} changed while it was encoded")).into()
}

struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    seen: SeenObjects,
}

impl Encoder<'_> {
    /// Types in order of likelihood. `known`: how many references to the object are accounted for.
    fn any(&mut self, value: &Bound<'_, PyAny>, depth: usize, known: isize) -> Result<(), EarlyEnd> {
        if value.is_exact_instance_of::<PyString>() {
            self.text(value.cast_exact().map_err(PyErr::from)?, known)
        } else if value.is_exact_instance_of::<PyInt>() {
            Ok(number::write_int(value, self.out, usize::MAX).map(drop)?)
        } else if value.is_exact_instance_of::<PyFloat>() {
            let value: &Bound<'_, PyFloat> = value.cast_exact().map_err(PyErr::from)?;
            write::float(self.out, value.value());
            Ok(())
        } else if value.is_exact_instance_of::<PyDict>() {
            self.enter(value, depth, known)?;
            self.dict(value.cast_exact().map_err(PyErr::from)?, depth + 1)
        } else if value.is_exact_instance_of::<PyList>() {
            self.enter(value, depth, known)?;
            self.list(value.cast_exact().map_err(PyErr::from)?, depth + 1)
        } else if value.is_none() {
            write::nil(self.out);
            Ok(())
        } else if value.is_exact_instance_of::<PyBool>() {
            let value: &Bound<'_, PyBool> = value.cast_exact().map_err(PyErr::from)?;
            write::bool(self.out, value.is_true());
            Ok(())
        } else {
            self.rarer(value, depth, known)
        }
    }

    #[inline(never)]
    fn rarer(&mut self, value: &Bound<'_, PyAny>, depth: usize, known: isize) -> Result<(), EarlyEnd> {
        if let Ok(bytes) = value.cast_exact::<PyBytes>() {
            let bytes = bytes.as_bytes();
            self.long(value, bytes.len(), known)?;
            Ok(write::binary(self.out, bytes)?)
        } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            self.enter(value, depth, known)?;
            let start = self.out.len();
            write::array(self.out, tuple.len())?;
            for item in tuple.iter_borrowed() {
                self.any(&item, depth + 1, BORROWED)?;
            }
            Ok(write::close_ext(self.out, ext::TUPLE, start)?)
        } else if let Ok(set) = value.cast_exact::<PySet>() {
            self.enter(value, depth, known)?;
            self.set(set.len(), set.iter(), ext::SET, depth + 1)
        } else if let Ok(set) = value.cast_exact::<PyFrozenSet>() {
            self.enter(value, depth, known)?;
            self.set(set.len(), set.iter(), ext::FROZENSET, depth + 1)
        } else if let Ok(bytes) = value.cast_exact::<PyByteArray>() {
            self.enter(value, depth, known)?;
            Ok(write::ext(self.out, ext::BYTEARRAY, &bytes.to_vec())?)
        } else if time::write(value, self.out)? || atom::write(value, self.out)? {
            Ok(())
        } else {
            Err(PickledPart::Object(value.clone().unbind()).into())
        }
    }

    /// Called for every object that holds references or can change, before anything else.
    #[inline]
    fn enter(&mut self, value: &Bound<'_, PyAny>, depth: usize, known: isize) -> Result<(), EarlyEnd> {
        if depth >= MAX_DEPTH {
            return Err(PickledPart::Deep.into());
        }
        if self.seen.again(value, known) && !sharing::may_repeat(value) {
            return Err(PickledPart::Shared(value.clone().unbind()).into());
        }
        Ok(())
    }

    #[inline]
    fn long(&mut self, value: &Bound<'_, PyAny>, len: usize, known: isize) -> Result<(), EarlyEnd> {
        if len >= sharing::LONG && self.seen.again(value, known) {
            return Err(PickledPart::Shared(value.clone().unbind()).into());
        }
        Ok(())
    }

    #[inline]
    fn text(&mut self, value: &Bound<'_, PyString>, known: isize) -> Result<(), EarlyEnd> {
        if let Some(text) = text::ascii(value) {
            self.long(value, text.len(), known)?;
            return Ok(write::text(self.out, text)?);
        }
        // `to_str` would store its result in the object: a save would enlarge the cache.
        let Ok(text) = value.encode_utf8() else { return Ok(write_surrogates(value, self.out)?) };
        self.long(value, text.as_bytes().len(), known)?;
        Ok(write::text_bytes(self.out, text.as_bytes())?)
    }

    fn list(&mut self, list: &Bound<'_, PyList>, depth: usize) -> Result<(), EarlyEnd> {
        let count = list.len();
        write::array(self.out, count)?;
        let mut written = 0;
        for item in list.iter() {
            self.any(&item, depth, OWNED)?;
            written += 1;
        }
        if written == count && list.len() == count { Ok(()) } else { Err(changed("a list")) }
    }

    fn dict(&mut self, dict: &Bound<'_, PyDict>, depth: usize) -> Result<(), EarlyEnd> {
        let count = dict.len();
        write::map(self.out, count)?;
        let mut items = dict.iter();
        for _ in 0..count {
            // The iterator panics in situations in which Python's iterator raises.
            if dict.len() != count {
                return Err(changed("a dict"));
            }
            let Some((key, value)) = items.next() else { return Err(changed("a dict")) };
            self.any(&key, depth, OWNED)?;
            self.any(&value, depth, OWNED)?;
        }
        Ok(())
    }

    fn set<'py>(
        &mut self,
        count: usize,
        items: impl Iterator<Item = Bound<'py, PyAny>>,
        kind: i8,
        depth: usize,
    ) -> Result<(), EarlyEnd> {
        let start = self.out.len();
        // Collected first: the set's iterator panics if the set changes during iteration.
        let items: Vec<_> = items.collect();
        if items.len() != count {
            return Err(changed("a set"));
        }
        write::array(self.out, count)?;
        for item in items {
            self.any(&item, depth, OWNED)?;
        }
        Ok(write::close_ext(self.out, kind, start)?)
    }
}

//! Bytes to objects, for values and keys.
//!
//! Rules, for untrusted bytes:
//! 1. Every length is checked against the rest of its container before anything is made from it. An
//!    item takes at least one byte, so no count can request more space than the input has bytes.
//! 2. Containers nest at most [`MAX_DEPTH`] deep.
//! 3. A pickle is a whole value or an error, so `pickle=False` is checked in one place.
//! 4. Extension types fill their body, and a value fills its input.

use std::vec::Drain;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyFrozenSet, PyList, PySet, PyString, PyTuple, PyType,
};
use rmp::Marker;

use super::{CodecOptions, MAX_DEPTH, atom, ext, names, number, pickle, time, types};
use crate::errors;
use crate::raw::calls::Invoke;

/// The value encoded by [`encode_value`](super::encode_value) or by another writer of
/// `MessagePack`.
pub(crate) fn decode_value<'py>(
    py: Python<'py>,
    bytes: &[u8],
    options: CodecOptions,
) -> PyResult<Bound<'py, PyAny>> {
    Decoder::new(py, bytes, Arrays::Lists, options.pickle).whole()
}

/// Whether [`decode_value`] would unpickle. A pickle is always a whole value (rule 3).
pub(crate) fn is_pickled(bytes: &[u8]) -> bool {
    let kind_at = match bytes.first().map(|marker| Marker::from_u8(*marker)) {
        Some(Marker::FixExt1 | Marker::FixExt2 | Marker::FixExt4 | Marker::FixExt8 | Marker::FixExt16) => 1,
        Some(Marker::Ext8) => 2,
        Some(Marker::Ext16) => 3,
        Some(Marker::Ext32) => 5,
        _ => return false,
    };
    bytes.get(kind_at) == Some(&ext::PICKLE.cast_unsigned())
}

/// A key equal to the encoded key. Encodings by value only (objects, calls) are an error.
pub(crate) fn decode_key<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    Decoder::new(py, bytes, Arrays::Tuples, false).whole()
}

/// The container that an array represents.
#[derive(Clone, Copy)]
enum Arrays {
    Lists,
    Tuples,
}

struct Decoder<'a, 'py> {
    py: Python<'py>,
    bytes: &'a [u8],
    /// Offset of the next byte; at most `end`.
    at: usize,
    /// The end of the innermost extension type.
    end: usize,
    arrays: Arrays,
    pickle: bool,
    /// Items of the incomplete containers, the innermost container's last: a single allocation for
    /// all containers.
    items: Vec<Bound<'py, PyAny>>,
}

impl<'a, 'py> Decoder<'a, 'py> {
    fn new(py: Python<'py>, bytes: &'a [u8], arrays: Arrays, pickle: bool) -> Self {
        Self { py, bytes, at: 0, end: bytes.len(), arrays, pickle, items: Vec::new() }
    }

    fn whole(mut self) -> PyResult<Bound<'py, PyAny>> {
        let value = self.any(0)?;
        self.at_end("the value")?;
        Ok(value)
    }

    #[cold]
    fn error(&self, at: usize, what: &str) -> PyErr {
        PyValueError::new_err(format!("not an encoded value: {what} at byte {at} of {}", self.bytes.len()))
    }

    /// The error of a constructor, as an error of its bytes.
    #[cold]
    fn refused(&self, at: usize, what: &str, cause: PyErr) -> PyErr {
        if errors::is_from_outside(self.py, &cause) {
            return cause;
        }
        let error = self.error(at, &format!("{what} ({})", cause.value(self.py)));
        error.set_cause(self.py, Some(cause));
        error
    }

    fn at_end(&self, what: &str) -> PyResult<()> {
        if self.at == self.end { Ok(()) } else { Err(self.error(self.at, &format!("bytes behind {what}"))) }
    }

    fn left(&self) -> usize {
        self.end - self.at
    }

    #[inline]
    fn bytes(&mut self, len: usize) -> PyResult<&'a [u8]> {
        if len > self.left() {
            return Err(self.error(self.at, &format!("{len} bytes are announced, {} left", self.left())));
        }
        let bytes = &self.bytes[self.at..self.at + len];
        self.at += len;
        Ok(bytes)
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> PyResult<[u8; N]> {
        let mut fixed = [0; N];
        fixed.copy_from_slice(self.bytes(N)?);
        Ok(fixed)
    }

    fn len8(&mut self) -> PyResult<usize> {
        Ok(usize::from(u8::from_be_bytes(self.fixed()?)))
    }

    fn len16(&mut self) -> PyResult<usize> {
        Ok(usize::from(u16::from_be_bytes(self.fixed()?)))
    }

    fn len32(&mut self) -> PyResult<usize> {
        let at = self.at;
        let len = u32::from_be_bytes(self.fixed()?);
        usize::try_from(len).map_err(|_| self.error(at, "a length beyond this machine"))
    }

    fn marker(&mut self) -> PyResult<Marker> {
        let [byte] = self.fixed()?;
        Ok(Marker::from_u8(byte))
    }

    fn any(&mut self, depth: usize) -> PyResult<Bound<'py, PyAny>> {
        let at = self.at;
        let py = self.py;
        let int = |value: u64| Ok(value.into_pyobject(py)?.into_any());
        let negative = |value: i64| Ok(value.into_pyobject(py)?.into_any());
        let float = |value: f64| Ok(PyFloat::new(py, value).into_any());
        match self.marker()? {
            Marker::FixStr(len) => self.text(usize::from(len)),
            Marker::FixPos(value) => int(value.into()),
            Marker::FixMap(count) => self.map(count.into(), depth),
            Marker::FixArray(count) => self.array(count.into(), depth),
            Marker::F64 => float(f64::from_be_bytes(self.fixed()?)),
            Marker::Null => Ok(py.None().into_bound(py)),
            Marker::False => Ok(PyBool::new(py, false).to_owned().into_any()),
            Marker::True => Ok(PyBool::new(py, true).to_owned().into_any()),
            Marker::FixNeg(value) => negative(value.into()),
            Marker::U8 => int(u8::from_be_bytes(self.fixed()?).into()),
            Marker::U16 => int(u16::from_be_bytes(self.fixed()?).into()),
            Marker::U32 => int(u32::from_be_bytes(self.fixed()?).into()),
            Marker::U64 => int(u64::from_be_bytes(self.fixed()?)),
            Marker::I8 => negative(i8::from_be_bytes(self.fixed()?).into()),
            Marker::I16 => negative(i16::from_be_bytes(self.fixed()?).into()),
            Marker::I32 => negative(i32::from_be_bytes(self.fixed()?).into()),
            Marker::I64 => negative(i64::from_be_bytes(self.fixed()?)),
            Marker::F32 => float(f32::from_be_bytes(self.fixed()?).into()),
            Marker::Str8 => self.len8().and_then(|len| self.text(len)),
            Marker::Str16 => self.len16().and_then(|len| self.text(len)),
            Marker::Str32 => self.len32().and_then(|len| self.text(len)),
            Marker::Bin8 => self.len8().and_then(|len| self.binary(len)),
            Marker::Bin16 => self.len16().and_then(|len| self.binary(len)),
            Marker::Bin32 => self.len32().and_then(|len| self.binary(len)),
            Marker::Array16 => self.len16().and_then(|count| self.array(count, depth)),
            Marker::Array32 => self.len32().and_then(|count| self.array(count, depth)),
            Marker::Map16 => self.len16().and_then(|count| self.map(count, depth)),
            Marker::Map32 => self.len32().and_then(|count| self.map(count, depth)),
            Marker::FixExt1 => self.ext(1, depth),
            Marker::FixExt2 => self.ext(2, depth),
            Marker::FixExt4 => self.ext(4, depth),
            Marker::FixExt8 => self.ext(8, depth),
            Marker::FixExt16 => self.ext(16, depth),
            Marker::Ext8 => self.len8().and_then(|len| self.ext(len, depth)),
            Marker::Ext16 => self.len16().and_then(|len| self.ext(len, depth)),
            Marker::Ext32 => self.len32().and_then(|len| self.ext(len, depth)),
            Marker::Reserved => Err(self.error(at, "a marker that MessagePack does not use")),
        }
    }

    #[inline]
    fn text(&mut self, len: usize) -> PyResult<Bound<'py, PyAny>> {
        let at = self.at;
        match str::from_utf8(self.bytes(len)?) {
            Ok(text) => Ok(PyString::new(self.py, text).into_any()),
            Err(_) => Err(self.error(at, "a string that is not UTF-8")),
        }
    }

    fn binary(&mut self, len: usize) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyBytes::new(self.py, self.bytes(len)?).into_any())
    }

    /// Checks the claimed size of a container of `count` parts with at least `each` bytes.
    fn enter(&self, count: usize, each: usize, depth: usize) -> PyResult<()> {
        if depth >= MAX_DEPTH {
            return Err(self.error(self.at, &format!("more than {MAX_DEPTH} nested levels")));
        }
        if count > self.left() / each {
            let what = format!("{count} items are announced, {} bytes left", self.left());
            return Err(self.error(self.at, &what));
        }
        Ok(())
    }

    /// Reads items onto the stack; returns the index of the first one.
    fn fill(&mut self, count: usize, depth: usize) -> PyResult<usize> {
        self.enter(count, 1, depth)?;
        let start = self.items.len();
        for _ in 0..count {
            let item = self.any(depth + 1)?;
            self.items.push(item);
        }
        Ok(start)
    }

    fn array(&mut self, count: usize, depth: usize) -> PyResult<Bound<'py, PyAny>> {
        let start = self.fill(count, depth)?;
        let items = self.items.drain(start..);
        Ok(match self.arrays {
            Arrays::Lists => PyList::new(self.py, items)?.into_any(),
            Arrays::Tuples => PyTuple::new(self.py, items)?.into_any(),
        })
    }

    fn map(&mut self, count: usize, depth: usize) -> PyResult<Bound<'py, PyAny>> {
        self.enter(count, 2, depth)?;
        let dict = PyDict::new(self.py);
        for _ in 0..count {
            let at = self.at;
            let key = self.any(depth + 1)?;
            let value = self.any(depth + 1)?;
            dict.set_item(key, value).map_err(|error| self.refused(at, "not a key of a dict", error))?;
        }
        Ok(dict.into_any())
    }

    fn ext(&mut self, len: usize, depth: usize) -> PyResult<Bound<'py, PyAny>> {
        let at = self.at;
        let kind = i8::from_be_bytes(self.fixed()?);
        if len > self.left() {
            return Err(self.error(at, &format!("{len} bytes are announced, {} left", self.left())));
        }
        let outer = std::mem::replace(&mut self.end, self.at + len);
        let value = self.body(kind, at, depth)?;
        self.at_end("the content of an extension type")?;
        self.end = outer;
        Ok(value)
    }

    /// The object that fills the bytes up to `end`.
    fn body(&mut self, kind: i8, at: usize, depth: usize) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        match kind {
            ext::TUPLE | ext::SET | ext::FROZENSET | ext::RATIONAL | ext::PATH | ext::ENUM => {
                let count = match self.marker()? {
                    Marker::FixArray(count) => usize::from(count),
                    Marker::Array16 => self.len16()?,
                    Marker::Array32 => self.len32()?,
                    _ => return Err(self.error(at, "an extension type without the array it should hold")),
                };
                let start = self.fill(count, depth)?;
                let made = make(py, kind, self.items.drain(start..));
                made.map_err(|error| self.refused(at, "a malformed extension type", error))
            }
            ext::PICKLE => self.pickled(at, depth),
            _ => {
                let body = self.bytes(self.left())?;
                match kind {
                    ext::INT => number::read_int(py, body),
                    ext::BYTEARRAY => Ok(PyByteArray::new(py, body).into_any()),
                    ext::SURROGATES => {
                        PyBytes::new(py, body).call_method1("decode", ("utf-8", "surrogatepass"))
                    }
                    ext::COMPLEX | ext::DECIMAL | ext::UUID => atom::read(py, kind, body),
                    ext::DATETIME | ext::DATE | ext::TIME | ext::TIMEDELTA | ext::TIMEZONE => {
                        time::read(py, kind, body)
                    }
                    ext::REFERENCE | ext::OBJECT | ext::CALL | ext::TYPED_CALL => {
                        return Err(self.error(at, "an object known by value only"));
                    }
                    _ => return Err(self.error(at, &format!("the unknown extension type {kind}"))),
                }
                .map_err(|error| self.refused(at, "a malformed extension type", error))
            }
        }
    }

    fn pickled(&mut self, at: usize, depth: usize) -> PyResult<Bound<'py, PyAny>> {
        if depth > 0 {
            return Err(self.error(at, "a pickle inside of a value"));
        }
        if !self.pickle {
            return Err(self.error(at, "pickle=False refuses a pickle"));
        }
        let pickle = self.raw_binary()?;
        let mut buffers = Vec::new();
        while self.left() > 0 {
            let is_read_only = match self.marker()? {
                Marker::False => false,
                Marker::True => true,
                _ => return Err(self.error(self.at, "a pickle's buffer without its flag")),
            };
            buffers.push(pickle::Buffer { is_read_only, bytes: self.raw_binary()? });
        }
        self.at_end("the value")?;
        pickle::decode(self.py, pickle, &buffers)
    }

    fn raw_binary(&mut self) -> PyResult<&'a [u8]> {
        let len = match self.marker()? {
            Marker::Bin8 => self.len8()?,
            Marker::Bin16 => self.len16()?,
            Marker::Bin32 => self.len32()?,
            _ => return Err(self.error(self.at, "a pickle that is not binary data")),
        };
        self.bytes(len)
    }
}

/// The object made from the items.
fn make<'py>(py: Python<'py>, kind: i8, items: Drain<'_, Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
    match kind {
        ext::TUPLE => return Ok(PyTuple::new(py, items)?.into_any()),
        ext::SET => return Ok(PySet::new(py, items)?.into_any()),
        ext::FROZENSET => return Ok(PyFrozenSet::new(py, items)?.into_any()),
        _ => {}
    }
    match (kind, items.as_slice()) {
        (ext::RATIONAL, [numerator, denominator]) => number::read_ratio(numerator, denominator),
        (ext::PATH, [flavour, text]) => {
            let class = match flavour.cast::<PyString>()?.to_str()? {
                "posix" => types::pure_posix_path(py)?,
                "windows" => types::pure_windows_path(py)?,
                _ => return Err(PyValueError::new_err("a path of an unknown flavour")),
            };
            class.invoke1(text.cast::<PyString>()?.as_any())
        }
        (ext::ENUM, [module, qualname, name]) => read_enum(module, qualname, name),
        _ => Err(PyValueError::new_err("the number of its parts is wrong")),
    }
}

fn read_enum<'py>(
    module: &Bound<'py, PyAny>,
    qualname: &Bound<'py, PyAny>,
    name: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = module.py();
    let class = names::find(module.cast()?, qualname.cast()?)?;
    // Only an enum is asked for members, because the file chooses the name.
    let class = class.and_then(|class| class.cast_into::<PyType>().ok());
    match class {
        Some(class) if class.is_subclass(types::enumeration(py)?)? => {
            class.getattr("_member_map_")?.get_item(name.cast::<PyString>()?)
        }
        _ => Err(PyValueError::new_err("a member of an enum that is not imported")),
    }
}

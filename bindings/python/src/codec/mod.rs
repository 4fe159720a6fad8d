//! Python objects as bytes: `MessagePack` readable by Rust too, with extension types for Python's
//! own types.
//!
//! `docs/values.md` describes every byte. Three encodings share the same markers and extension
//! types:
//! - *values* ([`encode_value`], [`decode_value`]): the decoded value equals the encoded value,
//!   including its type, and an object used several times in a value is a single object again;
//! - *keys* ([`encode_key`], [`decode_key`]): keys equal in Python have the same bytes, unequal
//!   keys different bytes, in every process. If this cannot be guaranteed for a key, the key has no
//!   encoding;
//! - *by value* ([`encode_by_value`]): arguments of decorated functions, which need not be
//!   hashable; written and compared, but never read back.
//!
//! Layout:
//! - `write`: the markers; `ext`: the numbers of the extension types;
//! - `value` and `decode`: the two directions of values; `sharing` detects objects used several
//!   times;
//! - `time`, `number` and `atom`: the common parts of values and keys;
//! - `pickle`: the fallback, with `pickler`;
//! - `key`: the canonical encoding of keys, with `heirs` for keys that equal keys of another class;
//! - `by_value`: the encoding of arguments. `plan` inspects one object, with `object`, `facts` and
//!   `reduce` for objects that are not built in, and `equality` and `twins` for classes that define
//!   the equality of their objects; `flat` and `graph` go through the parts, `circle` through parts
//!   that lead back; `found` keeps named objects, `digest` shortens;
//! - `names`: names and look-up of classes; `types`: classes that Python's library defines in
//!   Python;
//! - `python`: functions called by the tests, and by keys made in Python.
//!
//! Invariants:
//! - bytes from a file never cause a panic, unbounded recursion, or an allocation that their own
//!   length does not justify; malformed bytes are a `ValueError` with the position;
//! - only `pickle` runs code named in a file, and [`Options::pickle`] turns `pickle` off, for
//!   writing and reading.

mod atom;
mod by_value;
mod circle;
mod decode;
mod digest;
mod equality;
mod ext;
mod facts;
mod flat;
mod found;
mod graph;
mod heirs;
mod key;
mod names;
mod number;
mod object;
mod pickle;
mod pickler;
mod plan;
mod python;
mod reduce;
mod sharing;
mod time;
mod twins;
mod types;
mod value;
mod write;

pub(crate) use by_value::encode_by_value;
pub(crate) use decode::{decode_key, decode_value, is_pickled};
pub(crate) use ext::{CALL, TYPED_CALL};
pub(crate) use found::Found;
pub(crate) use key::encode_key;
pub(crate) use names::is_found;
pub(crate) use python::register;
pub(crate) use twins::why_not_saved;
pub(crate) use types::prepare;
pub(crate) use value::encode_value;
pub(crate) use write::out_of_memory;

/// The maximum nesting of values and keys: the same in both directions, and in the Rust front.
const MAX_DEPTH: usize = 256;

/// The options of the caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Write and read values that only pickle can represent.
    pub(crate) pickle: bool,
}

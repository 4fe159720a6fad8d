//! Python objects as bytes: `MessagePack` that Rust reads too, and extension types for what only Python has.
//!
//! `docs/values.md` describes every byte. Three encodings share the same markers and extension types:
//! - *values* ([`encode_value`], [`decode_value`]): what comes back equals what went in, in type too, and
//!   what was one object inside a value is one object again;
//! - *keys* ([`encode_key`], [`decode_key`]): keys that Python calls equal have the same bytes, unequal ones
//!   different bytes, in every process. A key for which that cannot be promised has no encoding;
//! - *by value* ([`encode_by_value`]): arguments of decorated functions, which need not be hashable; written
//!   and compared, never read back.
//!
//! Layout: `write` the markers; `ext` the numbers of the extension types; `value` and `decode` the two
//! directions of values; `sharing` how one object met twice is noticed; `time`, `number` and `atom` what
//! values and keys have in common; `pickle` the fallback, with `pickler`; `key` the canonical encoding of keys, with `heirs` for
//! those that equal keys of another class; `by_value` that of arguments: `plan` looks at one object, with `object`, `facts` and
//! `reduce` for whatever is not built in, `equality` and `twins` for classes that say which objects are equal, `flat` and `graph` go through its parts, `circle` through those that lead back,
//! `found` keeps what is named, `digest` shortens; `names` how classes are named and found; `types` the classes that Python's
//! library defines in Python; `python` the functions that the tests and the keys made in Python call.
//!
//! Invariants:
//! - bytes from a file never cause a panic, a recursion without bound, or an allocation that their own length
//!   does not justify; what is wrong with them is a `ValueError` that says where;
//! - only `pickle` runs code that a file names, and [`Options::pickle`] turns it off, for writing and
//!   reading.

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

/// How deep values and keys nest: both directions agree on it, and so does the Rust front.
const MAX_DEPTH: usize = 256;

/// What the caller allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Write and read values that only pickle can represent.
    pub(crate) pickle: bool,
}

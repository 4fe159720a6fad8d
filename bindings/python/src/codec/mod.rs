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
//! - `text`, `time`, `number` and `atom`: the common parts of values and keys;
//! - `pickle`: the fallback, with `pickler`;
//! - `key`: the canonical encoding of keys, with `heirs` for keys that equal keys of another class;
//! - `by_value`: the encoding of arguments. `look` examines one object, and its `plan` lists the
//!   parts; `flat` and `graph` go through the parts, `circle` through parts that lead back, with
//!   `shape` for the encoding of an object around its parts; `references` keeps named objects,
//!   `digest` shortens;
//! - `builtin`: objects of built-in types; `object`: all others, with `facts` about their class,
//!   `attributes`, and `content` for all else (`reduce`: hidden content). `equality` is a class's
//!   own definition, which `compare` applies, with `twins` for classes that are asked;
//! - `names`: names and look-up of classes; `types`: classes that Python's library defines in
//!   Python;
//! - `python`: functions called by the tests, and by keys made in Python.
//!
//! Invariants:
//! - bytes from a file never cause a panic, unbounded recursion, or an allocation that their own
//!   length does not justify; malformed bytes are a `ValueError` with the position;
//! - only `pickle` runs code named in a file, and [`CodecOptions::pickle`] turns `pickle` off, for
//!   writing and reading.

mod atom;
mod attributes;
mod builtin;
mod by_value;
mod circle;
mod compare;
mod content;
mod decode;
mod digest;
mod equality;
mod ext;
mod facts;
mod flat;
mod graph;
mod heirs;
mod key;
mod look;
mod names;
mod number;
mod object;
mod pickle;
mod pickler;
mod plan;
mod python;
mod reduce;
mod references;
mod shape;
mod sharing;
mod text;
mod time;
mod twins;
mod types;
mod value;
mod write;

pub(crate) use by_value::{encode_by_value, new_references};
pub(crate) use decode::{decode_key, decode_value, is_pickled};
pub(crate) use ext::{CALL, TYPED_CALL};
pub(crate) use key::encode_key;
pub(crate) use names::is_found;
pub(crate) use python::register;
pub(crate) use references::References;
pub(crate) use twins::why_not_saved;
pub(crate) use types::prepare;
pub(crate) use value::encode_value;
pub(crate) use write::out_of_memory;

/// The maximum nesting of values and keys: the same in both directions, and in the Rust front.
const MAX_DEPTH: usize = 256;

/// The options of the caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CodecOptions {
    /// Write and read values that only pickle can represent.
    pub(crate) pickle: bool,
}

//! Keys and values as JSON, and back. `docs/cli.md` has the table of forms; `docs/values.md` the
//! meaning of the bytes.
//!
//! Rules:
//! 1. JSON values (null, booleans, numbers, text, arrays, maps with text keys) are shown as JSON
//!    values. All others are objects with a single name beginning with `$`. A map whose only key
//!    begins with `$` is shown as a `$map`.
//! 2. Showing never fails: a malformed or unknown extension type is a `$ext`. Bytes that are not
//!    `MessagePack`, or nest too deep for a reader of JSON, are a `$raw`.
//! 3. [`exact`] promises that [`from_json`] returns the same bytes. The promise is kept by trying:
//!    if the bytes differ (for example because a longer form than necessary was used), the result
//!    is a `$raw`.
//! 4. Nothing is run. A pickle is searched for the names that it would import, see `pickle.rs`.

mod int;
mod pickle;
mod read;
mod time;
mod write;

use async_cache_disk::values as kind;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Extension types whose body is one array, and their names in JSON.
const ARRAYS: [(i8, &str); 9] = [
    (kind::TUPLE, "$tuple"),
    (kind::SET, "$set"),
    (kind::FROZENSET, "$frozenset"),
    (kind::RATIONAL, "$rational"),
    (kind::PATH, "$path"),
    (kind::ENUM, "$enum"),
    (kind::REFERENCE, "$reference"),
    (kind::OBJECT, "$object"),
    (kind::TYPED_CALL, "$typed_call"),
];

/// The maximum depth of the JSON; readers of JSON, including ours, accept about 128 levels.
const MAX_LEVELS: u16 = 100;

/// The form for people: a pickle is described, not included.
pub fn show(bytes: &[u8]) -> Value {
    read::value(bytes, read::Pickles::Described).unwrap_or_else(|| raw(bytes))
}

/// The form that [`from_json`] turns back into the same bytes.
pub fn exact(bytes: &[u8]) -> Value {
    let value = read::value(bytes, read::Pickles::Whole);
    value.filter(|value| from_json(value).is_ok_and(|back| back == bytes)).unwrap_or_else(|| raw(bytes))
}

/// The bytes represented by a JSON form.
///
/// # Errors
/// A description of the malformed part.
pub fn from_json(value: &Value) -> Result<Vec<u8>, String> {
    if let Some(("$raw", body)) = tagged(value) {
        return from_base64(body);
    }
    write::value(value)
}

/// Whether a value is a pickle as a whole.
pub(crate) fn is_pickle(bytes: &[u8]) -> bool {
    read::pickle_body(bytes).is_some()
}

fn raw(bytes: &[u8]) -> Value {
    json!({ "$raw": to_base64(bytes) })
}

/// The name and the content of an object with one name that begins with `$`.
fn tagged(value: &Value) -> Option<(&str, &Value)> {
    let object = value.as_object()?;
    let (name, content) = object.iter().next()?;
    (object.len() == 1 && name.starts_with('$')).then_some((name, content))
}

fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn from_base64(value: &Value) -> Result<Vec<u8>, String> {
    let text = value.as_str().ok_or("bytes are given as a text in base64")?;
    STANDARD.decode(text).map_err(|error| format!("this is not base64: {error}"))
}

/// Numbers that JSON cannot write, by name.
fn float_to_json(float: f64) -> Value {
    if float.is_finite() {
        return json!(float);
    }
    json!({ "$float": match float {
        f64::INFINITY => "inf".to_owned(),
        f64::NEG_INFINITY => "-inf".to_owned(),
        nan if nan.to_bits() == f64::NAN.to_bits() => "nan".to_owned(),
        nan => format!("nan:{:016x}", nan.to_bits()),
    } })
}

fn float_from_json(value: &Value) -> Result<f64, String> {
    if let Some(float) = value.as_f64() {
        return Ok(float);
    }
    let name = match tagged(value) {
        Some(("$float", name)) => name.as_str(),
        _ => None,
    };
    match name.ok_or("a floating point number is expected")? {
        "inf" => Ok(f64::INFINITY),
        "-inf" => Ok(f64::NEG_INFINITY),
        "nan" => Ok(f64::NAN),
        other => {
            let bits = other.strip_prefix("nan:").and_then(|bits| u64::from_str_radix(bits, 16).ok());
            bits.map(f64::from_bits).ok_or_else(|| format!("there is no floating point number {other:?}"))
        }
    }
}

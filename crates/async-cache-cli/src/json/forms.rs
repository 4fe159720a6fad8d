//! Forms that both directions share: names that begin with `$`, base64, and floating point numbers.

use async_cache_disk::values as kind;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Extension types whose body is one array, and their names in JSON.
pub(super) const ARRAYS: [(i8, &str); 9] = [
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
pub(super) const MAX_LEVELS: u16 = 100;

/// The name and the content of an object with one name that begins with `$`.
pub(super) fn tagged(value: &Value) -> Option<(&str, &Value)> {
    let object = value.as_object()?;
    let (name, content) = object.iter().next()?;
    (object.len() == 1 && name.starts_with('$')).then_some((name, content))
}

pub(super) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(super) fn from_base64(value: &Value) -> Result<Vec<u8>, String> {
    let text = value.as_str().ok_or("bytes are given as a text in base64")?;
    STANDARD.decode(text).map_err(|error| format!("this is not base64: {error}"))
}

/// Numbers that JSON cannot write, by name.
pub(super) fn float_to_json(float: f64) -> Value {
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

pub(super) fn float_from_json(value: &Value) -> Result<f64, String> {
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

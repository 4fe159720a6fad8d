//! `MessagePack` to JSON.

use async_cache_disk::values as kind;
use num_bigint::BigInt;
use rmpv::ValueRef;
use rmpv::decode::read_value_ref_with_max_depth;
use serde_json::{Map, Value, json};

use super::forms::{ARRAYS, MAX_LEVELS, float_to_json, to_base64};
use super::{pickle, time};

/// Longer integers are shown in hexadecimal: the time for decimal digits grows with the square of
/// the length.
const MAX_DECIMAL_BYTES: usize = 4096;

/// How a pickle is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pickles {
    /// The size and the names that the pickle would import.
    Described,
    /// Its bytes.
    Whole,
}

/// `None` if the bytes are not exactly one value of `MessagePack`, or nest too deep.
pub(super) fn value(bytes: &[u8], pickles: Pickles) -> Option<Value> {
    JsonReader { pickles }.convert(&parse(bytes, MAX_LEVELS)?, MAX_LEVELS)
}

/// The body of a value that is a pickle as a whole.
pub(super) fn pickle_body(bytes: &[u8]) -> Option<&[u8]> {
    match parse(bytes, 1)? {
        ValueRef::Ext(kind::PICKLE, body) => Some(body),
        _ => None,
    }
}

/// Parses one value that takes up all the bytes.
fn parse(mut bytes: &[u8], levels: u16) -> Option<ValueRef<'_>> {
    // In `rmpv` each of our levels counts twice, and the innermost value a few times more.
    let depth = levels.saturating_mul(2).saturating_add(4);
    let value = read_value_ref_with_max_depth(&mut bytes, depth.into()).ok()?;
    bytes.is_empty().then_some(value)
}

struct JsonReader {
    pickles: Pickles,
}

impl JsonReader {
    /// `None` if there are more levels than allowed.
    fn convert(&self, value: &ValueRef<'_>, levels: u16) -> Option<Value> {
        Some(match value {
            ValueRef::Nil => Value::Null,
            ValueRef::Boolean(value) => json!(value),
            ValueRef::Integer(value) => match value.as_u64() {
                Some(value) => json!(value),
                None => json!(value.as_i64()?),
            },
            ValueRef::F32(value) => json!({ "$f32": float_to_json(f64::from(*value)) }),
            ValueRef::F64(value) => float_to_json(*value),
            ValueRef::String(text) => match text.as_str() {
                Some(text) => json!(text),
                None => json!({ "$str": to_base64(text.as_bytes()) }),
            },
            ValueRef::Binary(bytes) => json!({ "$bin": to_base64(bytes) }),
            ValueRef::Array(items) => self.array(items, levels)?,
            ValueRef::Map(items) => self.map(items, levels)?,
            ValueRef::Ext(kind, body) => match self.ext(*kind, body, levels.checked_sub(1)?) {
                Some(value) => value,
                None => json!({ "$ext": [kind, to_base64(body)] }),
            },
        })
    }

    fn array(&self, items: &[ValueRef<'_>], levels: u16) -> Option<Value> {
        let levels = levels.checked_sub(1)?;
        items.iter().map(|item| self.convert(item, levels)).collect::<Option<Vec<_>>>().map(Value::Array)
    }

    fn map(&self, items: &[(ValueRef<'_>, ValueRef<'_>)], levels: u16) -> Option<Value> {
        if let Some(object) = self.object(items, levels.checked_sub(1)?)? {
            return Some(Value::Object(object));
        }
        let levels = levels.checked_sub(3)?;
        let pair = |(key, value): &(ValueRef<'_>, ValueRef<'_>)| {
            Some(json!([self.convert(key, levels)?, self.convert(value, levels)?]))
        };
        Some(json!({ "$map": items.iter().map(pair).collect::<Option<Vec<_>>>()? }))
    }

    /// `Some(None)` if the map cannot be an object of JSON.
    #[allow(clippy::option_option)] // the outer `None` means "too deep", as elsewhere in this file
    fn object(
        &self,
        items: &[(ValueRef<'_>, ValueRef<'_>)],
        levels: u16,
    ) -> Option<Option<Map<String, Value>>> {
        let mut object = Map::new();
        for (key, value) in items {
            let name = match key {
                ValueRef::String(text) => text.as_str().filter(|name| !name.starts_with('$')),
                _ => None,
            };
            let Some(name) = name else { return Some(None) };
            if object.insert(name.to_owned(), self.convert(value, levels)?).is_some() {
                return Some(None);
            }
        }
        Some(Some(object))
    }

    /// `None` if the body does not have the form of its kind, or nests too deep.
    fn ext(&self, kind: i8, body: &[u8], levels: u16) -> Option<Value> {
        if let Some((_, name)) = ARRAYS.iter().find(|(array, _)| *array == kind) {
            let ValueRef::Array(items) = parse(body, levels)? else { return None };
            return Some(named(name, self.array(&items, levels)?));
        }
        Some(match kind {
            kind::INT if !body.is_empty() => {
                let int = BigInt::from_signed_bytes_be(body);
                let is_long = body.len() > MAX_DECIMAL_BYTES;
                named("$int", json!(if is_long { format!("{int:#x}") } else { int.to_string() }))
            }
            kind::COMPLEX => {
                let (real, imaginary) = body.split_first_chunk::<8>()?;
                let imaginary: [u8; 8] = imaginary.try_into().ok()?;
                let parts = [f64::from_be_bytes(*real), f64::from_be_bytes(imaginary)];
                named("$complex", json!(parts.map(float_to_json)))
            }
            kind::DATETIME | kind::DATE | kind::TIME | kind::TIMEDELTA | kind::TIMEZONE => {
                time::read(kind, body)?
            }
            kind::DECIMAL if body.is_ascii() => named("$decimal", json!(str::from_utf8(body).ok()?)),
            kind::UUID => named("$uuid", json!(uuid(body.try_into().ok()?))),
            kind::BYTEARRAY => named("$bytearray", json!(to_base64(body))),
            kind::SURROGATES => named("$surrogates", json!(to_base64(body))),
            kind::PICKLE if self.pickles == Pickles::Whole => named("$pickle", json!(to_base64(body))),
            kind::PICKLE => named("$pickle", pickle::describe(body)?),
            kind::CALL => named("$call", self.call(body, levels)?),
            _ => return None,
        })
    }

    fn call(&self, body: &[u8], levels: u16) -> Option<Value> {
        let mut rest = body;
        let mut items = Vec::new();
        while !rest.is_empty() {
            items.push(read_value_ref_with_max_depth(&mut rest, usize::from(levels).saturating_mul(2)).ok()?);
        }
        let (count, items) = items.split_first()?;
        let (args, rest) = items.split_at_checked(usize::try_from(count.as_u64()?).ok()?)?;
        let (pairs, []) = rest.as_chunks::<2>() else { return None };
        let levels = levels.checked_sub(2)?;
        let mut by_name = Map::new();
        for [name, value] in pairs {
            let ValueRef::String(name) = name else { return None };
            by_name.insert(name.as_str()?.to_owned(), self.convert(value, levels)?);
        }
        Some(json!([self.array(args, levels)?, by_name]))
    }
}

fn named(name: &str, content: Value) -> Value {
    Value::Object(Map::from_iter([(name.to_owned(), content)]))
}

fn uuid(bytes: [u8; 16]) -> String {
    let digits = format!("{:032x}", u128::from_be_bytes(bytes));
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32];
    parts.map(|part| digits.get(part).unwrap_or_default().to_owned()).join("-")
}

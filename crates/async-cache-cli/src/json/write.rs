//! JSON to `MessagePack`, every marker and length in its shortest form.

use async_cache_disk::values as kind;
use num_bigint::BigInt;
use rmpv::Value as Packed;
use serde_json::Value;

use super::forms::{ARRAYS, float_from_json, from_base64, tagged};
use super::{int, time};

pub(super) fn value(value: &Value) -> Result<Vec<u8>, String> {
    pack(&convert(value)?)
}

fn pack(value: &Packed) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn convert(value: &Value) -> Result<Packed, String> {
    Ok(match value {
        Value::Null => Packed::Nil,
        Value::Bool(value) => Packed::Boolean(*value),
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), ..) => Packed::from(number),
            (_, Some(number), _) => Packed::from(number),
            (.., Some(number)) => Packed::F64(number),
            _ => return Err(format!("{number} is no number")),
        },
        Value::String(text) => Packed::from(text.as_str()),
        Value::Array(items) => array(items)?,
        Value::Object(object) => match tagged(value) {
            Some((name, content)) => special(name, content)?,
            None if object.keys().any(|name| name.starts_with('$')) => {
                return Err("an object with a name that begins with $ is written as a $map".to_owned());
            }
            None => {
                let pair =
                    |(name, value): (&String, &Value)| Ok((Packed::from(name.as_str()), convert(value)?));
                Packed::Map(object.iter().map(pair).collect::<Result<_, String>>()?)
            }
        },
    })
}

fn array(items: &[Value]) -> Result<Packed, String> {
    items.iter().map(convert).collect::<Result<_, _>>().map(Packed::Array)
}

fn special(name: &str, content: &Value) -> Result<Packed, String> {
    if let Some((kind, _)) = ARRAYS.iter().find(|(_, array)| *array == name) {
        return Ok(Packed::Ext(*kind, pack(&array(items(name, content)?)?)?));
    }
    Ok(match name {
        "$map" => Packed::Map(items(name, content)?.iter().map(pair).collect::<Result<_, _>>()?),
        "$bin" => Packed::Binary(from_base64(content)?),
        "$str" => {
            let text = String::from_utf8(from_base64(content)?);
            Packed::from(text.map_err(|_| "this $str is not UTF-8 and cannot be text".to_owned())?)
        }
        #[allow(clippy::cast_possible_truncation)] // the name asks for 32 bits
        "$f32" => Packed::F32(float_from_json(content)? as f32),
        "$float" => {
            let whole = Value::Object(serde_json::Map::from_iter([(name.to_owned(), content.clone())]));
            Packed::F64(float_from_json(&whole)?)
        }
        "$ext" => match items(name, content)? {
            [kind, body] => {
                let kind = kind.as_i64().and_then(|kind| i8::try_from(kind).ok());
                Packed::Ext(kind.ok_or("the kind of an $ext is from -128 to 127")?, from_base64(body)?)
            }
            _ => return Err("an $ext has a kind and a body".to_owned()),
        },
        "$int" => Packed::Ext(kind::INT, int_bytes(&int::parse(text(name, content)?)?)),
        "$complex" => match items(name, content)? {
            [real, imaginary] => {
                let parts = [float_from_json(real)?, float_from_json(imaginary)?];
                Packed::Ext(kind::COMPLEX, parts.map(f64::to_be_bytes).concat())
            }
            _ => return Err("a $complex has a real and an imaginary part".to_owned()),
        },
        "$decimal" => Packed::Ext(kind::DECIMAL, text(name, content)?.as_bytes().to_vec()),
        "$uuid" => {
            let digits = text(name, content)?.replace('-', "");
            let number = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32);
            Packed::Ext(kind::UUID, number.ok_or("a $uuid has 32 digits")?.to_be_bytes().to_vec())
        }
        "$bytearray" => Packed::Ext(kind::BYTEARRAY, from_base64(content)?),
        "$surrogates" => Packed::Ext(kind::SURROGATES, from_base64(content)?),
        "$pickle" if content.is_string() => Packed::Ext(kind::PICKLE, from_base64(content)?),
        "$pickle" => return Err("this $pickle is described, not given; export gives it".to_owned()),
        "$call" => Packed::Ext(kind::CALL, call(content)?),
        "$raw" => return Err("a $raw stands for a whole key or value, not for a part".to_owned()),
        _ => match time::write(name, content)? {
            Some((kind, body)) => Packed::Ext(kind, body),
            None => return Err(format!("there is no {name}")),
        },
    })
}

fn pair(value: &Value) -> Result<(Packed, Packed), String> {
    match value.as_array().map(Vec::as_slice) {
        Some([key, value]) => Ok((convert(key)?, convert(value)?)),
        _ => Err("a $map is an array of [key, value]".to_owned()),
    }
}

fn call(content: &Value) -> Result<Vec<u8>, String> {
    let wrong = || "a $call is [[arguments], {name: argument}]".to_owned();
    let Some([Value::Array(args), Value::Object(names)]) = content.as_array().map(Vec::as_slice) else {
        return Err(wrong());
    };
    let mut body = pack(&Packed::from(args.len()))?;
    for arg in args {
        body.extend(value(arg)?);
    }
    for (name, arg) in names {
        body.extend(pack(&Packed::from(name.as_str()))?);
        body.extend(value(arg)?);
    }
    Ok(body)
}

/// Two's complement with one bit more than the magnitude, as `docs/values.md` requires.
fn int_bytes(int: &BigInt) -> Vec<u8> {
    let bytes = int.to_signed_bytes_be();
    let wanted = usize::try_from(int.bits() / 8).unwrap_or(usize::MAX).saturating_add(1);
    let sign = if int.sign() == num_bigint::Sign::Minus { 0xFF } else { 0 };
    let mut padded = vec![sign; wanted.saturating_sub(bytes.len())];
    padded.extend(bytes);
    padded
}

fn items<'v>(name: &str, content: &'v Value) -> Result<&'v [Value], String> {
    content.as_array().map(Vec::as_slice).ok_or_else(|| format!("a {name} is an array"))
}

fn text<'v>(name: &str, content: &'v Value) -> Result<&'v str, String> {
    content.as_str().ok_or_else(|| format!("a {name} is a text"))
}

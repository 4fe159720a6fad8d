//! Points and spans of time as ISO 8601 text, in the form of Python's `isoformat`.
//!
//! A body is shown as text only if the text represents it completely; unknown flags, a year of five
//! digits and other irregular bodies are left to `$ext`. Whether the day exists in the calendar is
//! not checked: bytes are shown unchanged.

use std::fmt::Write as _;

use async_cache_disk::values as kind;
use serde_json::{Map, Value, json};

const FOLD: u8 = 1;
const ZONE: u8 = 2;
const NAME: u8 = 4;
const SECOND: i64 = 1_000_000;
const DAY: i64 = 24 * 60 * 60 * SECOND;

/// `None` if the body does not have the form of its kind.
pub(super) fn read(kind: i8, body: &[u8]) -> Option<Value> {
    let mut object = Map::new();
    match kind {
        kind::DATE => {
            object.insert("$date".to_owned(), json!(date(body.try_into().ok()?)?));
        }
        kind::TIME => {
            let (time, zone) = time(body)?;
            object.insert("$time".to_owned(), wrap(&time, zone));
        }
        kind::DATETIME => {
            let (day, rest) = body.split_first_chunk::<4>()?;
            let (time, zone) = time(rest)?;
            object.insert("$datetime".to_owned(), wrap(&format!("{}T{time}", date(*day)?), zone));
        }
        kind::TIMEDELTA => {
            let (days, rest) = body.split_first_chunk::<4>()?;
            let (seconds, rest) = rest.split_first_chunk::<4>()?;
            let parts = json!({
                "days": i32::from_be_bytes(*days),
                "seconds": u32::from_be_bytes(*seconds),
                "microseconds": u32::from_be_bytes(rest.try_into().ok()?),
            });
            object.insert("$timedelta".to_owned(), parts);
        }
        _ => {
            let (flags, rest) = body.split_first()?;
            let zone = Zone::read(*flags, rest).filter(|zone| zone.offset.is_some() && !zone.fold)?;
            let offset = offset_text(zone.offset?);
            object.insert("$timezone".to_owned(), wrap(&offset, zone));
        }
    }
    Some(Value::Object(object))
}

/// `Ok(None)` if the name is not one of the names here.
pub(super) fn write(name: &str, content: &Value) -> Result<Option<(i8, Vec<u8>)>, String> {
    let kind = match name {
        "$date" => kind::DATE,
        "$time" => kind::TIME,
        "$datetime" => kind::DATETIME,
        "$timedelta" => kind::TIMEDELTA,
        "$timezone" => kind::TIMEZONE,
        _ => return Ok(None),
    };
    let body = parse(kind, content).ok_or_else(|| format!("this is not a {name} as export writes it"))?;
    Ok(Some((kind, body)))
}

#[derive(Clone, Default)]
struct Zone {
    fold: bool,
    /// Microseconds east of UTC.
    offset: Option<i64>,
    name: Option<String>,
}

impl Zone {
    fn read(flags: u8, bytes: &[u8]) -> Option<Self> {
        let fold = flags & FOLD != 0;
        let (offset, name) = match flags & !FOLD {
            0 if bytes.is_empty() => (None, None),
            ZONE => (Some(bytes.try_into().ok()?), None),
            flags if flags == ZONE | NAME => {
                let (offset, name) = bytes.split_first_chunk::<8>()?;
                (Some(*offset), Some(str::from_utf8(name).ok()?.to_owned()))
            }
            _ => return None,
        };
        let offset = offset.map(i64::from_be_bytes);
        offset.is_none_or(|offset| offset > -DAY && offset < DAY).then_some(Self { fold, offset, name })
    }

    fn flags(&self) -> u8 {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        bit(self.fold, FOLD) | bit(self.offset.is_some(), ZONE) | bit(self.name.is_some(), NAME)
    }

    fn body(&self) -> Vec<u8> {
        let mut bytes = self.offset.map(|offset| offset.to_be_bytes().to_vec()).unwrap_or_default();
        bytes.extend(self.name.iter().flat_map(|name| name.bytes()));
        bytes
    }
}

/// A text, or an array of the text and the fields that the text cannot represent.
fn wrap(text: &str, zone: Zone) -> Value {
    let mut more = Map::new();
    if zone.fold {
        more.insert("fold".to_owned(), json!(1));
    }
    more.extend(zone.name.map(|name| ("zone".to_owned(), json!(name))));
    if more.is_empty() { json!(text) } else { json!([text, more]) }
}

fn date(bytes: [u8; 4]) -> Option<String> {
    let [y0, y1, month, day] = bytes;
    let year = u16::from_be_bytes([y0, y1]);
    (year <= 9999 && month <= 99 && day <= 99).then(|| format!("{year:04}-{month:02}-{day:02}"))
}

fn time(bytes: &[u8]) -> Option<(String, Zone)> {
    let ([hour, minute, second, flags, m0, m1, m2, m3], rest) = bytes.split_first_chunk::<8>()?;
    let micros = u32::from_be_bytes([*m0, *m1, *m2, *m3]);
    if *hour > 99 || *minute > 99 || *second > 99 || micros > 999_999 {
        return None;
    }
    let zone = Zone::read(*flags, rest)?;
    let mut text = format!("{hour:02}:{minute:02}:{second:02}");
    if micros > 0 {
        let _ = write!(text, ".{micros:06}"); // into memory
    }
    text.push_str(&zone.offset.map(offset_text).unwrap_or_default());
    Some((text, zone))
}

/// `+HH:MM`, with seconds and microseconds if not zero. Less than a day.
fn offset_text(offset: i64) -> String {
    let (sign, size) = if offset < 0 { ('-', -offset) } else { ('+', offset) };
    let (seconds, micros) = (size / SECOND, size % SECOND);
    let mut text = format!("{sign}{:02}:{:02}", seconds / 3600, seconds / 60 % 60);
    if seconds % 60 > 0 || micros > 0 {
        let _ = write!(text, ":{:02}", seconds % 60);
    }
    if micros > 0 {
        let _ = write!(text, ".{micros:06}"); // into memory
    }
    text
}

fn parse(kind: i8, content: &Value) -> Option<Vec<u8>> {
    if kind == kind::TIMEDELTA {
        let part = |name: &str| content.get(name)?.as_i64();
        let mut body = i32::try_from(part("days")?).ok()?.to_be_bytes().to_vec();
        body.extend(u32::try_from(part("seconds")?).ok()?.to_be_bytes());
        body.extend(u32::try_from(part("microseconds")?).ok()?.to_be_bytes());
        return Some(body);
    }
    let (text, mut zone) = match content {
        Value::String(text) => (text.as_str(), Zone::default()),
        Value::Array(parts) => match parts.as_slice() {
            [Value::String(text), Value::Object(more)] => {
                let name = more.get("zone").map(|name| name.as_str().map(str::to_owned));
                let name = if let Some(name) = name { Some(name?) } else { None };
                (text.as_str(), Zone { fold: more.contains_key("fold"), offset: None, name })
            }
            _ => return None,
        },
        _ => return None,
    };
    let mut rest = Text(text);
    let mut body = Vec::new();
    if kind == kind::DATE || kind == kind::DATETIME {
        body.extend(u16::try_from(rest.digits(4)?).ok()?.to_be_bytes());
        body.push(rest.after("-")?.two()?);
        body.push(rest.after("-")?.two()?);
    }
    if kind == kind::DATE {
        return rest.0.is_empty().then_some(body);
    }
    if kind == kind::DATETIME {
        rest.after("T")?;
    }
    let mut micros = 0;
    if kind != kind::TIMEZONE {
        body.extend([rest.two()?, rest.after(":")?.two()?, rest.after(":")?.two()?]);
        micros = rest.micros()?;
    }
    zone.offset = rest.offset()?;
    body.push(zone.flags());
    if kind != kind::TIMEZONE {
        body.extend(micros.to_be_bytes());
    }
    body.extend(zone.body());
    rest.0.is_empty().then_some(body)
}

/// Removes parts from the front of a text.
struct Text<'t>(&'t str);

impl Text<'_> {
    fn digits(&mut self, count: usize) -> Option<u32> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())?
    }

    fn two(&mut self) -> Option<u8> {
        u8::try_from(self.digits(2)?).ok()
    }

    fn after(&mut self, separator: &str) -> Option<&mut Self> {
        self.0 = self.0.strip_prefix(separator)?;
        Some(self)
    }

    fn micros(&mut self) -> Option<u32> {
        if self.after(".").is_some() { self.digits(6) } else { Some(0) }
    }

    /// `Some(None)` if the text ends here.
    #[allow(clippy::option_option)] // the outer `None` means "malformed", as elsewhere in this file
    fn offset(&mut self) -> Option<Option<i64>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let sign = if self.after("-").is_some() { -1 } else { self.after("+").map(|_| 1)? };
        let mut seconds = i64::from(self.digits(2)?) * 3600 + i64::from(self.after(":")?.digits(2)?) * 60;
        if self.after(":").is_some() {
            seconds += i64::from(self.digits(2)?);
        }
        Some(Some(sign * (seconds * SECOND + i64::from(self.micros()?))))
    }
}

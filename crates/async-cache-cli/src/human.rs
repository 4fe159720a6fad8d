//! Sizes, times and keys for people.

use std::time::{Duration, UNIX_EPOCH};

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use crate::json;

pub(crate) const HEADING: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(crate) const CHANGED: Style = AnsiColor::Yellow.on_default();
pub(crate) const KEY: Style = AnsiColor::Cyan.on_default();

/// In lists, longer keys are cut.
const MAX_KEY_CHARS: usize = 100;
const NANOS: u64 = 1_000_000_000;

/// A size: `17 B`, `1.4 KiB`.
#[allow(clippy::cast_precision_loss)] // two digits are shown
pub(crate) fn bytes(count: u64) -> String {
    if count < 1024 {
        return format!("{count} B");
    }
    let mut size = count as f64 / 1024.0;
    for unit in ["KiB", "MiB", "GiB"] {
        if size < 999.95 {
            return format!("{size:.1} {unit}");
        }
        size /= 1024.0;
    }
    format!("{size:.1} TiB")
}

/// A count: `1,234,567`.
pub(crate) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A count with its noun: `1 entry`, `2,000 entries`.
pub(crate) fn things(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// Seconds, or the two largest units: `3 d 4 h`.
pub(crate) fn span(nanos: u64) -> String {
    let seconds = nanos / NANOS;
    let units = [("y", 31_557_600), ("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)];
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (name, size) in units {
        if rest >= size && parts.len() < 2 {
            parts.push(format!("{} {name}", rest / size));
            rest %= size;
        } else if !parts.is_empty() {
            break;
        }
    }
    if parts.is_empty() { format!("{} ms", nanos / 1_000_000) } else { parts.join(" ") }
}

/// A point of time, in UTC.
pub(crate) fn time(nanos: u64) -> String {
    // At most the year 2554, which humantime can show.
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_nanos(nanos)).to_string()
}

/// The time until a deadline.
pub(crate) fn due(deadline: Option<u64>, now: u64) -> String {
    match deadline {
        None => "never".to_owned(),
        Some(deadline) if deadline <= now => "expired".to_owned(),
        Some(deadline) => span(deadline - now),
    }
}

/// A key on a line: text unchanged, `MessagePack` as JSON, any other bytes in Python's notation.
pub(crate) fn key(bytes: &[u8]) -> String {
    match json::show(bytes) {
        Value::String(text) => plain(&text),
        Value::Object(object) if object.contains_key("$raw") => format!("raw b\"{}\"", bytes.escape_ascii()),
        value => plain(&value.to_string()),
    }
}

/// A key on one line, cut for a list.
pub(crate) fn short_key(bytes: &[u8]) -> String {
    let key = key(bytes);
    match key.char_indices().nth(MAX_KEY_CHARS) {
        Some((cut, _)) => format!("{}…", key.get(..cut).unwrap_or_default()),
        None => key,
    }
}

/// Escapes control characters, which a terminal would obey, and marks for the writing direction.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        let turns =
            matches!(character, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || turns {
            plain.extend(character.escape_default());
        } else {
            plain.push(character);
        }
    }
    plain
}

/// The kind of a value, in a word.
pub(crate) fn kind(value: &[u8]) -> &'static str {
    match json::show(value) {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "array",
        Value::Object(object) => match object.keys().next().map(String::as_str) {
            Some("$tuple") => "tuple",
            Some("$set" | "$frozenset") => "set",
            Some("$bin" | "$bytearray") => "bytes",
            Some("$pickle") => "pickle",
            Some("$raw") => "not MessagePack",
            Some("$float" | "$f32" | "$int" | "$complex" | "$decimal" | "$rational") => "number",
            Some("$date" | "$time" | "$datetime" | "$timedelta" | "$timezone") => "time",
            Some("$ext") => "unknown extension",
            Some("$str" | "$surrogates") => "text",
            Some(name) if name.starts_with('$') && name != "$map" => "other extension",
            _ => "map",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_counts_and_spans_read_well() {
        assert_eq!(
            [0, 1023, 1024, 1_048_525, 1 << 40].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "1.0 TiB"]
        );
        assert_eq!([7, 999, 1000, 1_234_567].map(count), ["7", "999", "1,000", "1,234,567"]);
        assert_eq!(span(0), "0 ms");
        assert_eq!(span(90 * NANOS), "1 min 30 s");
        assert_eq!(span(86_400 * NANOS), "1 d");
        assert_eq!(span(u64::MAX), "584 y 197 d");
        assert_eq!(time(u64::MAX), "2554-07-21T23:34:33Z");
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(key(b"\xa5\x1b[31m"), "\\u{1b}[31m");
        assert_eq!(plain("a\u{9b}b\u{202e}c\nd"), "a\\u{9b}b\\u{202e}c\\nd");
        assert_eq!(key(b"\xff\x1b"), "raw b\"\\xff\\x1b\"");
        assert_eq!(key(&[0x92, 1, 0xa1, b'a']), "[1,\"a\"]");
    }
}

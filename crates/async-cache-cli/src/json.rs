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

mod forms;
mod int;
mod pickle;
mod read;
mod time;
mod write;

use serde_json::{Value, json};

use self::forms::{from_base64, tagged, to_base64};

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

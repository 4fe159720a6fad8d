//! MessagePack to JSON and back, and arbitrary JSON to MessagePack.
#![no_main]

use async_cache_cli::{exact, from_json, show};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = show(bytes).to_string();
    let text = exact(bytes).to_string();
    let value: serde_json::Value = serde_json::from_str(&text).expect("it was written as JSON");
    assert_eq!(from_json(&value).as_deref(), Ok(bytes), "{text}");
    if let Ok(value) = serde_json::from_slice(bytes)
        && let Ok(packed) = from_json(&value)
    {
        let _ = exact(&packed);
    }
});

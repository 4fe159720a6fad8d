//! Names, and keys on the server.

use async_cache_core::remote::port::{Generation, Name, Owner};
use async_cache_redis::layout::WireKey;
use async_cache_redis::{Config, Layout};

fn layout(prefix: &str, namespace: &str, version: &str) -> Result<Layout, String> {
    let mut config = Config::default();
    (config.prefix, config.namespace, config.version) = (prefix.into(), namespace.into(), version.into());
    Layout::new(&config).map_err(|error| error.to_string())
}

/// The canonical bytes of a text.
fn canonical(text: &str) -> Vec<u8> {
    let length = text.len();
    let mut bytes = match length {
        0..32 => vec![0xA0 | u8::try_from(length).unwrap()],
        32..256 => vec![0xD9, u8::try_from(length).unwrap()],
        _ => vec![0xDA, u8::try_from(length / 256).unwrap(), u8::try_from(length % 256).unwrap()],
    };
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

#[test]
fn short_texts_are_readable_other_keys_are_bytes_and_long_keys_are_digests() {
    let name = |bytes: &[u8]| Layout::name(bytes).as_bytes().to_vec();
    assert_eq!(name(&canonical("")), b"s");
    assert_eq!(name(&canonical("user 7")), b"suser 7");
    assert_eq!(name(&canonical(&"ä".repeat(90))), format!("s{}", "ä".repeat(90)).as_bytes());
    assert_eq!(name(&canonical("a\nb")), b"k\xA3a\nb");
    assert_eq!(name(&canonical("\u{85}")), b"k\xA2\xC2\x85");
    assert_eq!(name(b"\xA1\xFF"), b"k\xA1\xFF");
    assert_eq!(name(b"\x07"), b"k\x07");
    assert_eq!(name(b""), b"k");
    // Longer forms of a text, and bytes behind it, are other keys.
    assert_eq!(name(b"\xD9\x01a"), b"k\xD9\x01a");
    assert_eq!(name(b"\xA1ab"), b"k\xA1ab");
    assert_eq!(name(&[7; 200]), [&b"k"[..], &[7; 200]].concat());
    let digest = format!("h{}", &blake3::hash(&[7; 201]).to_hex()[..32]);
    assert_eq!(name(&[7; 201]), digest.as_bytes());
}

#[test]
fn a_key_is_read_as_it_was_written() {
    let layout = layout("ac:", "mod.f", "v1").unwrap();
    let names = [&canonical("x")[..], b"\xC0", &[7; 300], &canonical("a:b{c}")].map(Layout::name);
    for generation in [0, 1, 35, 36, 24, u64::MAX].map(Generation) {
        for name in &names {
            let key = [layout.entries(generation), name.as_bytes().to_vec()].concat();
            assert_eq!(layout.parse(&key), Some(WireKey::Entry(generation, name.clone())));
        }
    }
    assert_eq!(layout.parse(&layout.generation_key()), Some(WireKey::Generation));
    for owner in [0, 7, u64::MAX].map(Owner) {
        assert_eq!(layout.parse(&layout.owner_key(owner)), Some(WireKey::Owner(owner)));
    }
}

#[test]
fn a_key_looks_as_documented() {
    let layout = layout("ac:", "mod.f", "v1").unwrap();
    assert_eq!(layout.tracked(), b"ac:{mod.f:v1}:");
    assert_eq!(layout.entries(Generation(36)), b"ac:{mod.f:v1}:0000000000010:");
    assert_eq!(layout.entries(Generation(u64::MAX)), b"ac:{mod.f:v1}:3w5e11264sgsf:");
    assert_eq!(layout.generation_key(), b"ac:{mod.f:v1}:g");
    assert_eq!(layout.owner_key(Owner(0xAB)), b"ac:{mod.f:v1}:o:00000000000000ab");
}

#[test]
fn other_keys_have_no_meaning() {
    let layout = layout("ac:", "n", "").unwrap();
    let digits = "0000000000001";
    for rest in [
        "",
        "p",
        "gg",
        "o:",
        "o:00000000000000AB",
        "o:+0000000000000ab",
        "o:00000000000000abc",
        "0000000000001",
        "0000000000001:",
        "0000000000001:x",
        "0000000000001:h00",
        "000000000001:sab",
        "00000000000001:sa",
        "000000000000A:sa",
        "zzzzzzzzzzzzz:sa",
        "3w5e11264sgsg:sa",
        &format!("{digits}:s{}", "x".repeat(201)),
    ] {
        let key = [layout.tracked(), rest.as_bytes()].concat();
        assert_eq!(layout.parse(&key), None, "{rest}");
    }
    for key in
        ["", "ac:", "ac:{", "ac:{n:}", "ac:{n:1}:g", "ac:{n:}g", "ac:{}n::g", "ac:{m:}:g", "xac:{n:}:g"]
    {
        assert_eq!(layout.parse(key.as_bytes()), None, "{key}");
    }
    assert_eq!(
        layout.parse(b"ac:{n:}:0000000000001:sa"),
        Some(WireKey::Entry(Generation(1), Name::new(*b"sa")))
    );
}

#[test]
fn texts_that_cannot_be_part_of_a_key_are_refused_with_the_remedy() {
    let long = "x".repeat(201);
    for (prefix, namespace, version, words) in [
        ("ac:", "", "", "namespace: it is empty; give"),
        ("ac:", "a:b", "", "namespace: `a:b` has a colon; use another character"),
        ("ac:", "a", "1:2", "version: `1:2` has a colon"),
        ("ac{x}", "a", "", "prefix: `ac{x}` has a brace, and braces mark the part"),
        ("ac}", "a", "", "prefix: `ac}` has a brace"),
        ("ac:", "a{}", "", "namespace: `a{}` has a brace"),
        ("ac:", "a", "1}", "version: `1}` has a brace"),
        ("ac:", "a\n", "", "namespace: `a\\n` has a control character"),
        (&long, "a", "", "has more than 200 bytes; every key"),
    ] {
        let error = layout(prefix, namespace, version).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    assert!(layout("", "a", "").is_ok());
}

#[test]
fn all_keys_of_a_cache_are_in_its_slot_and_namespaces_spread() {
    // As `CLUSTER KEYSLOT` says.
    for (prefix, namespace, version, slot) in
        [("ac:", "default", "", 10914), ("ac:", "mod.f", "v1", 1064), ("x", "n", "", 16188)]
    {
        assert_eq!(layout(prefix, namespace, version).unwrap().slot(), slot, "{namespace}");
    }
}

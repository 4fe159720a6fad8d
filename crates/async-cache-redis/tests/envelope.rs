//! The bytes under a key.

use std::sync::Arc;

use async_cache_core::remote::port::{Content, Lease, Name, Owner};
use async_cache_redis::body::{Body, Holds};
use async_cache_redis::envelope::{Envelope, HEADER, Opened};
use async_cache_redis::{Config, Layout, Secret};

const LEASE: Lease = Lease { owner: Owner(0x0102_0304_0506_0708), serial: 9 };

fn layout(namespace: &str) -> Layout {
    let mut config = Config::default();
    namespace.clone_into(&mut config.namespace);
    Layout::new(&config).unwrap()
}

fn envelope(secret: Option<&str>) -> Envelope {
    let secret = secret.map(|secret| Secret::new(secret).unwrap());
    Envelope::new(&layout("n"), secret.as_ref(), 1000)
}

fn both() -> [Envelope; 2] {
    [envelope(None), envelope(Some("correct horse battery staple"))]
}

fn body(key: &[u8], holds: Holds, payload: &[u8]) -> Arc<[u8]> {
    let mut bytes = Vec::new();
    Body::begin(&mut bytes, &Layout::name(key), key, holds);
    bytes.extend_from_slice(payload);
    bytes.into()
}

#[test]
fn every_content_is_read_as_it_was_written() {
    for envelope in both() {
        for key in [&b"\xA1k"[..], b"\x07", &[7; 300]] {
            let name = Layout::name(key);
            let body = body(key, Holds::Data, b"payload");
            let value = envelope.content(&name, &Content::Value(body.clone()));
            assert_eq!(envelope.open(&name, &value), Opened::Value(body));
            assert_eq!(envelope.open(&name, &envelope.content(&name, &Content::Stub)), Opened::Stub);
            assert_eq!(envelope.open(&name, &envelope.lease(&name, LEASE)), Opened::Lease(LEASE));
        }
    }
}

#[test]
fn equal_contents_have_equal_bytes() {
    for envelope in both() {
        let name = Layout::name(b"\xA1k");
        assert_eq!(envelope.lease(&name, LEASE), envelope.lease(&name, LEASE));
        assert_ne!(envelope.lease(&name, LEASE), envelope.lease(&name, Lease { serial: 10, ..LEASE }));
    }
}

/// The format, so that a change of it is noticed.
#[test]
fn a_lease_has_the_documented_bytes() {
    let bytes = envelope(None).lease(&Layout::name(b"\xA1k"), LEASE);
    assert_eq!(bytes[..5], *b"AC\x01\x02\x00");
    assert_eq!(bytes[21..27], [0; 6]);
    assert_eq!(bytes[27..], [8, 7, 6, 5, 4, 3, 2, 1, 9, 0, 0, 0, 0, 0, 0, 0]);
    let key = blake3::derive_key("async-cache 2026 redis envelope 1 checksum key", b"");
    let key = blake3::keyed_hash(&key, b"n:");
    let covered = [&[2, 0, 0, 0, 0, 0, 0, 0][..], b"sk", &bytes[..5], &bytes[21..]].concat();
    assert_eq!(bytes[5..21], blake3::keyed_hash(key.as_bytes(), &covered).as_bytes()[..16]);
}

#[test]
fn every_changed_missing_or_added_byte_makes_it_foreign() {
    for envelope in both() {
        for key in [&b"\xA1k"[..], &[7; 300]] {
            let name = Layout::name(key);
            let value = Content::Value(body(key, Holds::Data, b"payload"));
            let contents = [
                envelope.content(&name, &value),
                envelope.content(&name, &Content::Stub),
                envelope.lease(&name, LEASE),
            ];
            for bytes in contents {
                for place in 0..bytes.len() {
                    assert_eq!(envelope.open(&name, &bytes[..place]), Opened::Foreign);
                    for change in [1, 0x80, 0xFF] {
                        let mut changed = bytes.clone();
                        changed[place] ^= change;
                        assert_eq!(envelope.open(&name, &changed), Opened::Foreign, "byte {place}");
                    }
                }
                assert_eq!(envelope.open(&name, &[&bytes[..], b"x"].concat()), Opened::Foreign);
            }
        }
    }
}

#[test]
fn contents_of_another_name_cache_or_secret_are_foreign() {
    let (name, other) = (Layout::name(b"\xA1k"), Layout::name(b"\xA1l"));
    let [plain, signed] = both();
    let another_secret = envelope(Some("another secret, long enough"));
    let secret = Secret::new("correct horse battery staple").unwrap();
    let another_cache = Envelope::new(&layout("m"), Some(&secret), 1000);
    let value = Content::Value(body(b"\xA1k", Holds::Data, b"payload"));
    for bytes in [signed.content(&name, &value), signed.lease(&name, LEASE)] {
        assert_eq!(signed.open(&other, &bytes), Opened::Foreign);
        for reader in [&plain, &another_secret, &another_cache] {
            assert_eq!(reader.open(&name, &bytes), Opened::Foreign);
        }
    }
    for bytes in [plain.content(&name, &value), plain.lease(&name, LEASE)] {
        assert_eq!(signed.open(&name, &bytes), Opened::Foreign);
        assert_eq!(plain.open(&other, &bytes), Opened::Foreign);
    }
}

#[test]
fn pickles_are_shared_with_a_secret_only() {
    let [plain, signed] = both();
    let name = Layout::name(b"\xA1k");
    let pickled = body(b"\xA1k", Holds::Pickles, b"payload");
    let content = Content::Value(pickled.clone());
    assert_eq!(signed.open(&name, &signed.content(&name, &content)), Opened::Value(pickled.clone()));
    assert_eq!(plain.open(&name, &plain.content(&name, &content)), Opened::Stub);
    // Planted by a program that knows the format: its tag is right.
    let planted = planted(&name, &pickled);
    assert_eq!(plain.open(&name, &planted), Opened::Foreign);
    let data = body(b"\xA1k", Holds::Data, b"payload");
    assert_eq!(plain.open(&name, &self::planted(&name, &data)), Opened::Value(data));
}

/// A value with the tag of no secret, whatever its body is.
fn planted(name: &Name, body: &[u8]) -> Vec<u8> {
    let key = blake3::derive_key("async-cache 2026 redis envelope 1 checksum key", b"");
    let key = blake3::keyed_hash(&key, b"n:");
    let mut hasher = blake3::Hasher::new_keyed(key.as_bytes());
    hasher.update(&(name.as_bytes().len() as u64).to_le_bytes()).update(name.as_bytes());
    let tag = hasher.update(b"AC\x01\x01\x00").update(&[0; 6]).update(body).finalize();
    [b"AC\x01\x01\x00", &tag.as_bytes()[..16], &[0; 6], body].concat()
}

#[test]
fn bodies_that_do_not_fit_their_name_are_foreign_and_stored_as_stubs() {
    let plain = envelope(None);
    let (short, long, longer) = (Layout::name(b"\xA1k"), [7; 300], [8; 300]);
    let digest = Layout::name(&long);
    let with_key = body(&long, Holds::Data, b"payload");
    let bodies: &[(&Name, &[u8])] = &[
        (&short, b""),
        (&short, b"\x04payload"),
        (&short, b"\x80payload"),
        (&short, b"\x02\xFF\xFF\xFF\xFFpayload"),
        (&short, b"\x02\x00\x00"),
        (&short, &with_key),
        (&digest, b"\x00payload"),
        (&digest, &body(&longer, Holds::Data, b"payload")),
        (&short, &[0; 1001]),
    ];
    for (name, body) in bodies {
        assert_eq!(plain.open(name, &planted(name, body)), Opened::Foreign, "{}", body.escape_ascii());
        let stored = plain.content(name, &Content::Value((*body).into()));
        assert_eq!(plain.open(name, &stored), Opened::Stub);
    }
    let largest: &[u8] = &[0; 1000];
    let stored = plain.content(&short, &Content::Value(largest.into()));
    assert_eq!((stored.len(), plain.open(&short, &stored)), (1000 + HEADER, Opened::Value(largest.into())));
}

#[test]
fn a_body_has_the_key_if_its_name_is_a_digest() {
    let long = [7; 300];
    let with_key = body(&long, Holds::Pickles, b"payload");
    let parsed = Body::parse(&with_key).unwrap();
    assert_eq!(parsed, Body { holds: Holds::Pickles, key: Some(&long), payload: b"payload" });
    let without = body(b"\x07", Holds::Data, b"");
    assert_eq!(Body::parse(&without), Some(Body { holds: Holds::Data, key: None, payload: b"" }));
}

#[test]
fn a_short_secret_is_refused_and_no_secret_is_shown() {
    let error = Secret::new("hunter2").unwrap_err().to_string();
    assert!(error.contains("7 bytes") && error.contains("openssl rand"), "{error}");
    let [_, signed] = both();
    assert_eq!(format!("{signed:?}"), "Envelope { signed: true, .. }");
}

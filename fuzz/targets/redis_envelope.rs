//! Bytes under a key. The first byte chooses: with or without a secret, and a tag that is right
//! (written by a program that knows the format, and the secret) or that is part of the input.
#![no_main]

use async_cache_core::remote::port::{Content, Name};
use async_cache_redis::body::{Body, Holds};
use async_cache_redis::envelope::{Envelope, Opened};
use async_cache_redis::layout::WireKey;
use async_cache_redis::{Config, Layout, Secret};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    let layout = Layout::new(&Config::default()).expect("the defaults are sound");
    keys(&layout, bytes);
    let secret = Secret::new("correct horse battery staple").expect("it is long enough");
    let signed = choice & 1 != 0;
    let envelope = Envelope::new(&layout, signed.then_some(&secret), 1000);
    let Some((key, rest)) = bytes.split_at_checked(usize::from(choice >> 2)) else { return };
    let name = Layout::name(key);
    if choice & 2 == 0 {
        // The chance of a right tag is nil.
        assert_eq!(envelope.open(&name, rest), Opened::Foreign);
        return;
    }
    let Some((head, rest)) = rest.split_first_chunk() else { return };
    match envelope.open(&name, &envelope.forge(&name, *head, rest)) {
        Opened::Value(body) => {
            let parsed = Body::parse(&body).expect("it is a body");
            assert!(body.len() <= 1000 && (signed || parsed.holds == Holds::Data));
            let stored = envelope.content(&name, &Content::Value(body.clone()));
            assert_eq!(envelope.open(&name, &stored), Opened::Value(body));
        }
        Opened::Lease(lease) => {
            assert_eq!(envelope.open(&name, &envelope.lease(&name, lease)), Opened::Lease(lease));
        }
        Opened::Stub | Opened::Foreign => {}
    }
});

/// A key on the server is read as it is written, or not at all.
fn keys(layout: &Layout, bytes: &[u8]) {
    let wire = [layout.tracked(), bytes].concat();
    let written = match layout.parse(&wire) {
        Some(WireKey::Entry(generation, name)) => [&layout.entries(generation), name.as_bytes()].concat(),
        Some(WireKey::Generation) => layout.generation_key(),
        Some(WireKey::Owner(owner)) => layout.owner_key(owner),
        None => return,
    };
    assert_eq!(written, wire);
    let name: Name = Layout::name(bytes);
    assert!(name.as_bytes().len() <= 201);
}

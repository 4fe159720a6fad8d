//! The bytes under the key of an entry.
//!
//! | bytes | |
//! |---|---|
//! | 2 | `AC` |
//! | 1 | format: 1 |
//! | 1 | kind: 1 value, 2 lease, 3 stub |
//! | 1 | flags: 1 the tag was made with a secret |
//! | 16 | tag |
//! | 4 | reserved: the milliseconds before the end of its life in which a value is stale; 0 |
//! | 2 | the length of the section of labels; 0 |
//! | the rest | value: a body (`body`); lease: owner and serial, 8 bytes each; stub: nothing |
//!
//! Numbers are little endian. No clock is in it: the server knows how long a key lives.
//!
//! **The tag** is the first half of a keyed BLAKE3 digest of the name (its length in 8 bytes, then
//! the name), of the bytes before the tag, and of the bytes behind it. The key is the keyed digest
//! of `namespace:version` under the key derived from the secret, or from no secret. So contents of
//! two names, caches or secrets are never mistaken for each other, and damage is always found. The
//! generation is not covered: a writer to the server can store an older content again in any
//! case. Equal contents of a name have equal bytes, so the tag is also the id of the
//! content, and a condition of the server can name it.
//!
//! Rules:
//! 1. Bytes that are not exactly of this form, with their tag, are foreign. They are never a value
//!    and never a lease.
//! 2. With a secret, only contents with a secret's tag are read; without a secret, only others.
//! 3. A body with pickles is read and written with a secret only.
//! 4. A body that may not be shared (rule 3), is too long or does not fit its name is stored as a
//!    stub, so that changes of the name are heard.

use std::sync::Arc;

use async_cache_core::remote::port::{Content, Lease, Name, Owner};
use constant_time_eq::constant_time_eq;

use crate::body::{Body, Holds};
use crate::layout::Layout;
use crate::secret::Secret;

/// The purpose of the key of tags without a secret; part of the format.
const CONTEXT: &str = "async-cache 2026 redis envelope 1 checksum key";

const MAGIC: [u8; 2] = *b"AC";
const FORMAT: u8 = 1;
const SIGNED: u8 = 1;
const TAG: usize = 16;

/// The bytes before the tag.
const HEAD: usize = 5;

/// The bytes before a body.
pub const HEADER: usize = HEAD + TAG + 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Value = 1,
    Lease = 2,
    Stub = 3,
}

/// The envelopes of a cache.
#[derive(Clone)]
pub struct Envelope {
    key: [u8; 32],
    flags: u8,
    max_value: usize,
}

/// An envelope, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The body of a value.
    Value(Arc<[u8]>),
    /// A stub.
    Stub,
    /// A lease.
    Lease(Lease),
    /// Bytes that are no envelope of this cache.
    Foreign,
}

impl Envelope {
    /// The envelopes of the cache with a layout. No body has more than `max_value` bytes.
    pub fn new(layout: &Layout, secret: Option<&Secret>, max_value: usize) -> Self {
        let (key, flags) = match secret {
            Some(secret) => (*secret.key(), SIGNED),
            None => (blake3::derive_key(CONTEXT, b""), 0),
        };
        let key = *blake3::keyed_hash(&key, layout.scope()).as_bytes();
        Self { key, flags, max_value }
    }

    /// The bytes of a lease.
    pub fn lease(&self, name: &Name, lease: Lease) -> Vec<u8> {
        let mut rest = [0; 16];
        let (owner, serial) = rest.split_at_mut(8);
        owner.copy_from_slice(&lease.owner.0.to_le_bytes());
        serial.copy_from_slice(&lease.serial.to_le_bytes());
        self.seal(name, Kind::Lease, &rest)
    }

    /// The bytes of a content.
    pub fn content(&self, name: &Name, content: &Content) -> Vec<u8> {
        match content {
            Content::Value(body) if self.is_shareable(name, body) => self.seal(name, Kind::Value, body),
            // Rule 4.
            Content::Value(_) | Content::Stub => self.seal(name, Kind::Stub, &[]),
        }
    }

    /// Takes the bytes under a name apart.
    pub fn open(&self, name: &Name, bytes: &[u8]) -> Opened {
        self.opened(name, bytes).unwrap_or(Opened::Foreign)
    }

    fn opened(&self, name: &Name, bytes: &[u8]) -> Option<Opened> {
        let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
        let (tag, rest) = rest.split_first_chunk::<TAG>()?;
        let [magic @ .., format, kind, flags] = *head;
        // Rules 1 and 2.
        if magic != MAGIC || format != FORMAT || flags != self.flags {
            return None;
        }
        if !constant_time_eq(tag, &self.tag(name, head, rest)) {
            return None;
        }
        let (reserved, rest) = rest.split_first_chunk::<6>()?;
        let [_, _, _, _, labels @ ..] = *reserved;
        if labels != [0, 0] {
            return None;
        }
        if kind == Kind::Value as u8 {
            return self.is_shareable(name, rest).then(|| Opened::Value(rest.into()));
        }
        if kind == Kind::Lease as u8 {
            let (owner, rest) = rest.split_first_chunk()?;
            let serial = rest.try_into().ok()?;
            let owner = Owner(u64::from_le_bytes(*owner));
            return Some(Opened::Lease(Lease { owner, serial: u64::from_le_bytes(serial) }));
        }
        (kind == Kind::Stub as u8 && rest.is_empty()).then_some(Opened::Stub)
    }

    /// Whether a body may be under a name on the server.
    fn is_shareable(&self, name: &Name, body: &[u8]) -> bool {
        let parsed = Body::parse(body);
        body.len() <= self.max_value
            && parsed.is_some_and(|body| {
                // Rule 3.
                (body.holds == Holds::Data || self.flags & SIGNED != 0) && body.fits(name)
            })
    }

    /// Bytes of the form of an envelope, with their right tag.
    #[cfg(feature = "fuzzing")]
    pub fn forge(&self, name: &Name, head: [u8; HEAD], rest: &[u8]) -> Vec<u8> {
        [&head, self.tag(name, &head, rest).as_slice(), rest].concat()
    }

    fn seal(&self, name: &Name, kind: Kind, rest: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + rest.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[FORMAT, kind as u8, self.flags]);
        let head = bytes.clone();
        bytes.extend_from_slice(&[0; TAG + 6]);
        bytes.extend_from_slice(rest);
        let tag = self.tag(name, &head, bytes.get(HEAD + TAG..).unwrap_or_default());
        if let Some(place) = bytes.get_mut(HEAD..HEAD + TAG) {
            place.copy_from_slice(&tag);
        }
        bytes
    }

    fn tag(&self, name: &Name, head: &[u8], rest: &[u8]) -> [u8; TAG] {
        let name = name.as_bytes();
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name).update(head).update(rest);
        let digest = hasher.finalize();
        digest.as_bytes().first_chunk().copied().unwrap_or_default()
    }
}

impl std::fmt::Debug for Envelope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Envelope").field("signed", &(self.flags & SIGNED != 0)).finish_non_exhaustive()
    }
}

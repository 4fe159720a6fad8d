//! The part of a stored value that a front makes and reads: `Content::Value` of the core's port.
//!
//! | bytes | |
//! |---|---|
//! | 1 | flags: 1 the payload has pickles; 2 a key follows; 4 reserved for zstd, and refused |
//! | 4, n | with flag 2: the length of the key, little endian, and the canonical bytes of the key |
//! | the rest | the payload: `MessagePack`, as in files |
//!
//! The key is there if the name of the entry is a digest.

use async_cache_core::remote::port::Name;

use crate::layout::{self, Layout};

const PICKLES: u8 = 1;
const KEY: u8 = 2;

/// The parts that a payload may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Data only.
    Data,
    /// Pickles too: reading the payload may run code.
    Pickles,
}

/// A body, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body<'a> {
    /// The parts that the payload may hold.
    pub holds: Holds,
    /// The canonical bytes of the key, if the name is a digest.
    pub key: Option<&'a [u8]>,
    /// The encoded value.
    pub payload: &'a [u8],
}

impl<'a> Body<'a> {
    /// Appends the beginning of a body. The caller appends the payload.
    ///
    /// ```
    /// use async_cache_redis::Layout;
    /// use async_cache_redis::body::{Body, Holds};
    ///
    /// let key = b"\xA4user";
    /// let mut bytes = Vec::new();
    /// Body::begin(&mut bytes, &Layout::name(key), key, Holds::Data);
    /// bytes.extend_from_slice(b"\x2A");
    /// assert_eq!(Body::parse(&bytes).unwrap().payload, b"\x2A");
    /// ```
    pub fn begin(out: &mut Vec<u8>, name: &Name, canonical: &[u8], holds: Holds) {
        let pickles = if holds == Holds::Pickles { PICKLES } else { 0 };
        match u32::try_from(canonical.len()) {
            Ok(length) if layout::is_digest(name) => {
                out.push(pickles | KEY);
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(canonical);
            }
            // A key of more than 4 GiB is left out. Its body fits no entry, so a stub is stored.
            _ => out.push(pickles),
        }
    }

    /// Takes a body apart. `None`: the bytes are no body.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (&flags, rest) = bytes.split_first()?;
        if flags & !(PICKLES | KEY) != 0 {
            return None;
        }
        let (key, payload) = if flags & KEY == 0 {
            (None, rest)
        } else {
            let (length, rest) = rest.split_first_chunk()?;
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            let (key, payload) = rest.split_at_checked(length)?;
            (Some(key), payload)
        };
        let holds = if flags & PICKLES == 0 { Holds::Data } else { Holds::Pickles };
        Some(Self { holds, key, payload })
    }

    /// Whether the body belongs under a name: the key is there exactly if the name is its digest.
    pub(crate) fn fits(&self, name: &Name) -> bool {
        match self.key {
            Some(key) => layout::is_digest(name) && Layout::name(key) == *name,
            None => !layout::is_digest(name),
        }
    }
}

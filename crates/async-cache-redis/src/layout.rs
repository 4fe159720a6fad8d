//! Names of entries, and keys on the server.
//!
//! A key on the server begins with `prefix{namespace:version}:`, the *tracked prefix*. Then:
//!
//! | rest of the key | meaning |
//! |---|---|
//! | generation, `:`, name | an entry |
//! | `g` | the generation |
//! | `o:`, 16 hexadecimal digits | the sign of life of an owner |
//! | `p` | never written: asked about, to find out the commands that the server has |
//!
//! A generation is always 13 digits in base 36 (lower case), so the colon behind it is at a place
//! where no other row has one. A name is one of:
//!
//! | name | for canonical key bytes |
//! |---|---|
//! | `s`, text | a `MessagePack` string of at most 200 bytes of UTF-8, without control characters |
//! | `k`, bytes | all others of at most 200 bytes |
//! | `h`, 32 hexadecimal digits | longer: the first half of their BLAKE3 digest |
//!
//! The part in braces is the hash tag of a cluster: it alone chooses the slot. So all keys of a
//! cache are on one node, and one connection carries all its commands and hears of all its changes.
//! Namespaces spread over the nodes.
//!
//! Invariant: prefix, namespace and version have no brace, and namespace and version no colon; so
//! no key belongs to two caches, and the first pair of braces is the tag.

use async_cache_core::remote::port::{Generation, Name, Owner};

use crate::config::Config;
use crate::error::ConfigError;

/// The longest key that is its own name, in bytes.
const MAX_NAME: usize = 200;

/// The slots of a cluster.
const SLOTS: u16 = 16384;

/// The digits of a generation: 36^13 is more than 2^64.
const GENERATION_DIGITS: usize = 13;

/// The keys of a cache on the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    tracked: Vec<u8>,
    /// `namespace:version`, the scope of tags.
    scope: Vec<u8>,
}

/// A key on the server, as the cache understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WireKey {
    /// The key of an entry.
    Entry(Generation, Name),
    /// The key of the generation.
    Generation,
    /// The sign of life of an owner.
    Owner(Owner),
}

impl Layout {
    /// The keys of a cache.
    ///
    /// # Errors
    /// [`ConfigError`] if the prefix, the namespace or the version cannot be part of a key.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let Config { prefix, namespace, version, .. } = config;
        if namespace.is_empty() {
            return Err(ConfigError::new("namespace", "it is empty", "give the cache a name"));
        }
        for (setting, text) in [("namespace", namespace), ("version", version)] {
            if text.contains(':') {
                let remedy = "use another character: `:` ends the parts of a key";
                return Err(ConfigError::new(setting, format!("`{text}` has a colon"), remedy));
            }
        }
        for (setting, text) in [("prefix", prefix), ("namespace", namespace), ("version", version)] {
            let problem = if text.contains(['{', '}']) {
                "has a brace, and braces mark the part of a key that chooses a node of a cluster"
            } else if text.chars().any(char::is_control) {
                "has a control character"
            } else if text.len() > MAX_NAME {
                "has more than 200 bytes"
            } else {
                continue;
            };
            let text = text.escape_debug();
            let remedy = "every key on the server begins with it: choose a short and readable text";
            return Err(ConfigError::new(setting, format!("`{text}` {problem}"), remedy));
        }
        Ok(Self {
            tracked: format!("{prefix}{{{namespace}:{version}}}:").into_bytes(),
            scope: format!("{namespace}:{version}").into_bytes(),
        })
    }

    /// The name of an entry, from the canonical bytes of its key.
    pub fn name(canonical: &[u8]) -> Name {
        if canonical.len() > MAX_NAME {
            let digest = blake3::hash(canonical).to_hex();
            let half = digest.get(..32).unwrap_or_default();
            return named(b'h', half.as_bytes());
        }
        match plain_text(canonical) {
            Some(text) => named(b's', text.as_bytes()),
            None => named(b'k', canonical),
        }
    }

    /// The beginning of all keys of the cache.
    pub fn tracked(&self) -> &[u8] {
        &self.tracked
    }

    pub(crate) fn scope(&self) -> &[u8] {
        &self.scope
    }

    /// The slot of all keys of the cache, on a cluster.
    pub fn slot(&self) -> u16 {
        crc16(&self.scope) % SLOTS
    }

    /// The key of the generation.
    pub fn generation_key(&self) -> Vec<u8> {
        [&self.tracked, b"g".as_slice()].concat()
    }

    /// The key of the sign of life of an owner.
    pub fn owner_key(&self, owner: Owner) -> Vec<u8> {
        [&self.tracked, format!("o:{:016x}", owner.0).as_bytes()].concat()
    }

    /// The key that is never written.
    pub fn probe_key(&self) -> Vec<u8> {
        [&self.tracked, b"p".as_slice()].concat()
    }

    /// The beginning of the keys of all entries of a generation.
    pub fn entries(&self, generation: Generation) -> Vec<u8> {
        [&self.tracked, digits(generation).as_slice(), b":"].concat()
    }

    /// The meaning of a key. `None`: the cache writes no such key.
    pub fn parse(&self, key: &[u8]) -> Option<WireKey> {
        let rest = key.strip_prefix(self.tracked.as_slice())?;
        if rest == b"g" {
            return Some(WireKey::Generation);
        }
        if let Some(owner) = rest.strip_prefix(b"o:") {
            return Some(WireKey::Owner(Owner(hexadecimal(owner)?)));
        }
        let (generation, rest) = rest.split_at_checked(GENERATION_DIGITS)?;
        let name = rest.strip_prefix(b":")?;
        let (marker, text) = name.split_first()?;
        let possible = match marker {
            b's' | b'k' => text.len() <= MAX_NAME,
            b'h' => text.len() == 32,
            _ => false,
        };
        possible.then_some(())?;
        Some(WireKey::Entry(generation_of(generation)?, Name::new(name)))
    }
}

/// Whether a name is the digest of its key.
pub(crate) fn is_digest(name: &Name) -> bool {
    name.as_bytes().first() == Some(&b'h')
}

/// The checksum that chooses a slot: CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 { shifted } else { shifted ^ 0x1021 }
        })
    })
}

fn named(marker: u8, rest: &[u8]) -> Name {
    Name::new(std::iter::once(marker).chain(rest.iter().copied()).collect::<std::sync::Arc<[u8]>>())
}

/// The text of a `MessagePack` string in its shortest form, if it is readable.
fn plain_text(canonical: &[u8]) -> Option<&str> {
    let text = match canonical {
        [marker @ 0xA0..=0xBF, text @ ..] if text.len() == usize::from(marker & 0x1F) => text,
        [0xD9, length, text @ ..] if text.len() == usize::from(*length) && *length > 31 => text,
        _ => return None,
    };
    std::str::from_utf8(text).ok().filter(|text| !text.chars().any(char::is_control))
}

/// A generation, as its key and its entries have it.
pub(crate) fn digits(generation: Generation) -> [u8; GENERATION_DIGITS] {
    let mut digits = [b'0'; GENERATION_DIGITS];
    let mut rest = generation.0;
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdefghijklmnopqrstuvwxyz".get((rest % 36) as usize).copied().unwrap_or(b'0');
        rest /= 36;
    }
    digits
}

/// The generation with these digits.
pub(crate) fn generation_of(digits: &[u8]) -> Option<Generation> {
    if digits.len() != GENERATION_DIGITS {
        return None;
    }
    let number = digits.iter().try_fold(0_u64, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'z' => digit - b'a' + 10,
            _ => return None,
        };
        number.checked_mul(36)?.checked_add(u64::from(value))
    });
    number.map(Generation)
}

/// A number of 16 lower-case digits.
fn hexadecimal(digits: &[u8]) -> Option<u64> {
    let lower = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != 16 || !digits.iter().all(lower) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_has_the_published_check_value() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(crc16(b""), 0);
    }
}

//! The secret that makes values unforgeable, in its form in memory.
//!
//! Invariant: the user's secret is not kept, only a key derived from it; and neither is ever
//! displayed.

use std::fmt;

use crate::error::ConfigError;

/// The purpose of the derived key; part of the format.
const CONTEXT: &str = "async-cache 2026 redis envelope 1 MAC key";

/// A secret shared by all processes of a cache. With a secret, every content on the server carries
/// a tag that cannot be made without the secret, and other contents are not read.
#[derive(Clone, Copy)]
pub struct Secret([u8; 32]);

impl Secret {
    /// The smallest length of a secret, in bytes.
    pub const MIN_BYTES: usize = 16;

    /// Takes a secret of at least [`MIN_BYTES`](Self::MIN_BYTES) bytes. Random bytes are best.
    ///
    /// # Errors
    /// [`ConfigError`] if the secret has fewer bytes.
    pub fn new(secret: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        let secret = secret.as_ref();
        if secret.len() < Self::MIN_BYTES {
            let problem = format!("it has {} bytes and needs at least {}", secret.len(), Self::MIN_BYTES);
            let remedy = "give random bytes, such as from `openssl rand -hex 32`";
            return Err(ConfigError::new("secret", problem, remedy));
        }
        Ok(Self(blake3::derive_key(CONTEXT, secret)))
    }

    pub(crate) fn key(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

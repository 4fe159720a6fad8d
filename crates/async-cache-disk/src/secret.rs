//! The secret that makes a cache file unforgeable, in its form in memory.
//!
//! Invariant: the user's secret is not kept, only a key derived from it; and neither is ever
//! displayed.

use std::fmt;

use constant_time_eq::constant_time_eq;

/// The purpose of the derived key; part of the format (file format, section 8).
const CONTEXT: &str = "async-cache 2026 cache file format 1 MAC key";

/// The purpose of a store's secret id (file format, section 12).
const STORE_CONTEXT: &str = "async-cache 2026 store secret id";

/// A secret shared by all writers of a cache file. With a secret, every part of a file carries a
/// tag that cannot be made without the secret, and a file whose tags do not match is not read; see
/// `docs/trust.md`.
///
/// ```
/// use async_cache_disk::Secret;
///
/// let secret = Secret::new(b"32 random bytes, from a vault...")?;
/// assert_eq!(format!("{secret:?}"), "Secret(..)");
/// assert!(Secret::new(b"hunter2").is_err());
/// # Ok::<(), async_cache_disk::ShortSecret>(())
/// ```
#[derive(Clone, Copy)]
pub struct Secret([u8; 32]);

impl Secret {
    /// The smallest length of a secret, in bytes.
    pub const MIN_BYTES: usize = 16;

    /// Takes a secret of at least [`MIN_BYTES`](Self::MIN_BYTES) bytes. Random bytes are best; a
    /// password that people remember is not made harder to guess here.
    ///
    /// # Errors
    /// [`ShortSecret`] if the secret has fewer bytes.
    pub fn new(secret: impl AsRef<[u8]>) -> Result<Self, ShortSecret> {
        let secret = secret.as_ref();
        if secret.len() < Self::MIN_BYTES {
            return Err(ShortSecret { bytes: secret.len() });
        }
        Ok(Self(blake3::derive_key(CONTEXT, secret)))
    }

    pub(crate) fn key(&self) -> &[u8; 32] {
        &self.0
    }

    /// Distinguishes the stores of several secrets, and does not reveal the secret.
    pub(crate) fn store_id(&self) -> [u8; 16] {
        let id = blake3::derive_key(STORE_CONTEXT, &self.0);
        id.first_chunk().copied().unwrap_or_default()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Takes the same time whether or not they are equal.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        constant_time_eq(&self.0, &other.0)
    }
}

impl Eq for Secret {}

/// A secret that is too short to be safe from guessing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the secret has {bytes} bytes and needs at least {}: give random ones, such as from `openssl rand -hex 32`",
    Secret::MIN_BYTES
)]
#[non_exhaustive]
pub struct ShortSecret {
    /// The length of the secret in bytes.
    pub bytes: usize,
}

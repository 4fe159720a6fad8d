//! What a caller knows of a file that is about to be opened.

use crate::secret::Secret;

/// Which file is wanted: the shape of its data, and the secret that it was written with. Without anything, a file of
/// any shape that was written without a secret.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    pub(super) version: Option<String>,
    pub(super) secret: Option<Secret>,
}

impl ReadOptions {
    /// Nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only data of the shape that this tag names is wanted.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Only a file that was written with this secret is wanted (`None`: with none).
    #[must_use]
    pub fn secret(mut self, secret: impl Into<Option<Secret>>) -> Self {
        self.secret = secret.into();
        self
    }
}

//! What a caller knows of a file that is about to be opened.

use crate::secret::Secret;
use crate::trust::Owners;

/// Which file is wanted: the shape of its data, and the secret that it was written with. Without anything, a file of
/// any shape that was written without a secret.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    pub(super) version: Option<String>,
    pub(super) secret: Option<Secret>,
    pub(super) owners: Owners,
    pub(super) may_be_cut: bool,
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

    /// A file is opened, too, that another user owns or can write to: for tools that look at files. What is in such a
    /// file may be made to deceive; serve nothing of it, and run nothing.
    #[must_use]
    pub fn of_any_owner(mut self) -> Self {
        self.owners = Owners::Anybody;
        self
    }

    /// A file is opened, too, of which the end is missing, as after a copy that was interrupted: for tools that save what
    /// is intact. What is missing cannot be read, as if it were damaged. A cache must not serve the rest: its index may
    /// lack newer records of the keys that are left.
    #[must_use]
    pub fn even_if_cut(mut self) -> Self {
        self.may_be_cut = true;
        self
    }

    /// Only a file that was written with this secret is wanted (`None`: with none).
    #[must_use]
    pub fn secret(mut self, secret: impl Into<Option<Secret>>) -> Self {
        self.secret = secret.into();
        self
    }
}

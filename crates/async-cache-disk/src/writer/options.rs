//! What a caller decides about a file that is about to be written.

use std::sync::Arc;

use crate::compress::{Compression, Dictionary};
use crate::secret::Secret;
use crate::snapshot::Snapshot;

/// What a snapshot says of itself.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    pub(super) version: String,
    pub(super) saved_at: u64,
    pub(super) producer: String,
    pub(super) identity: Option<([u8; 16], [u8; 16])>,
    pub(super) buckets: Option<u32>,
    pub(super) keep_target: bool,
    pub(super) secret: Option<Secret>,
    pub(super) compression: Compression,
    pub(super) dictionary: Option<Arc<Dictionary>>,
}

impl WriteOptions {
    /// For data of the shape that `version` names (at most 255 bytes), at the time `saved_at`, in nanoseconds since the
    /// Unix epoch.
    pub fn new(version: impl Into<String>, saved_at: u64) -> Self {
        let producer = concat!("async-cache-disk ", env!("CARGO_PKG_VERSION")).to_owned();
        Self {
            version: version.into(),
            saved_at,
            producer,
            identity: None,
            buckets: None,
            keep_target: false,
            secret: None,
            compression: Compression::OFF,
            dictionary: None,
        }
    }

    /// Says in words what writes the file (at most 255 bytes); for people who inspect it.
    #[must_use]
    pub fn producer(mut self, producer: impl Into<String>) -> Self {
        self.producer = producer.into();
        self
    }

    /// Sets aside what stands at the target, a readable cache file, too: for a caller who could not read it when
    /// it opened it, and so does not know what it is about to replace.
    #[must_use]
    pub fn keep_target(mut self) -> Self {
        self.keep_target = true;
        self
    }

    /// Writes a file that only those can open, and only those could have made, who know this secret (`None`: anybody).
    /// A file at the target of another secret, or of none, is set aside.
    #[must_use]
    pub fn secret(mut self, secret: impl Into<Option<Secret>>) -> Self {
        self.secret = secret.into();
        self
    }

    /// Compresses the values.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Compresses with the dictionary of this snapshot, if it has one, instead of training a new one. So what is
    /// [copied](crate::Writer::copy) from it need not be compressed again.
    #[must_use]
    pub fn dictionary_of(mut self, snapshot: &Snapshot) -> Self {
        self.dictionary = snapshot.dictionary().map(Arc::clone);
        self
    }

    /// Gives file id and hash seed, which are random otherwise, so that tests can write the same bytes again.
    #[cfg(any(test, feature = "fake"))]
    #[must_use]
    pub fn identity(mut self, file_id: [u8; 16], hash_seed: [u8; 16]) -> Self {
        self.identity = Some((file_id, hash_seed));
        self
    }

    /// Begins with this many buckets, so that tests can make them overflow.
    #[cfg(any(test, feature = "fake"))]
    #[must_use]
    pub fn buckets(mut self, buckets: u32) -> Self {
        self.buckets = Some(buckets);
        self
    }
}

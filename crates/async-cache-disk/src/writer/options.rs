//! A caller's choices for a save.

use std::sync::Arc;

use crate::compress::Dictionary;
use crate::snapshot::Snapshot;

/// The choices for a single save; the settings of the file are in [`CacheFile`](crate::CacheFile).
#[derive(Debug, Clone)]
pub struct WriteOptions {
    pub(crate) saved_at: u64,
    pub(super) identity: Option<([u8; 16], [u8; 16])>,
    pub(super) buckets: Option<u32>,
    pub(super) keep_target: bool,
    pub(super) dictionary: Option<Arc<Dictionary>>,
}

impl WriteOptions {
    /// At the time `saved_at`, in nanoseconds since the Unix epoch. A merging save takes `saved_at`
    /// for the present: entries with a deadline up to `saved_at` have expired.
    pub fn new(saved_at: u64) -> Self {
        Self { saved_at, identity: None, buckets: None, keep_target: false, dictionary: None }
    }

    /// Sets the file at the target aside, even a readable cache file: for a caller whose open
    /// failed, so that the replaced content is unknown.
    #[must_use]
    pub fn keep_target(mut self) -> Self {
        self.keep_target = true;
        self
    }

    /// Compresses with the dictionary of the snapshot, if there is a dictionary, instead of
    /// training a new dictionary. So entries [copied](crate::Writer::copy) from the snapshot need
    /// not be compressed again.
    #[must_use]
    pub fn dictionary_of(mut self, snapshot: &Snapshot) -> Self {
        self.dictionary = snapshot.dictionary().map(Arc::clone);
        self
    }

    /// Sets file id and hash seed, which are random otherwise, for tests with reproducible bytes.
    #[cfg(any(test, feature = "fake"))]
    #[must_use]
    pub fn identity(mut self, file_id: [u8; 16], hash_seed: [u8; 16]) -> Self {
        self.identity = Some((file_id, hash_seed));
        self
    }

    /// Begins with a fixed number of buckets, so tests can make them overflow.
    #[cfg(any(test, feature = "fake"))]
    #[must_use]
    pub fn buckets(mut self, buckets: u32) -> Self {
        self.buckets = Some(buckets);
        self
    }
}

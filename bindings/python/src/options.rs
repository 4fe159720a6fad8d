//! The options of a `DiskBackend`: permitted contents of its file, protection, and whether saves
//! merge.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_cache_disk::{CacheFile, Compression, RealDisk, Secret};
use async_cache_tier::journal::JournalOptions;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::codec::CodecOptions;

/// Made once for each backend, so that the secret is neither kept in its given form nor derived for
/// every save.
#[pyclass(frozen, module = "cache._native")]
#[derive(Clone)]
pub(crate) struct FileOptions {
    pub(crate) codec: CodecOptions,
    secret: Option<Secret>,
    compression: Compression,
    /// How long a merging save waits for another process's save to end; `None`: saves replace the
    /// file.
    pub(crate) merge: Option<Duration>,
    /// `None`: no journal.
    pub(crate) journal: Option<JournalOptions>,
}

#[pymethods]
impl FileOptions {
    /// `level`: of zstd; `None` does not compress. `merge`: how many seconds a save waits for
    /// another process's save to end; `None` does not merge. `disk_bytes`: the most bytes of a
    /// journal; `None`: as many entries as the cache may have.
    #[new]
    #[pyo3(signature = (pickle, secret, level, merge, journal, disk_bytes))]
    fn new(
        pickle: bool,
        secret: Option<&[u8]>,
        level: Option<u8>,
        merge: Option<f64>,
        journal: bool,
        disk_bytes: Option<u64>,
    ) -> PyResult<Self> {
        let merge = merge.map(Duration::try_from_secs_f64).transpose();
        let secret = secret.map(Secret::new).transpose();
        let compression = level.map_or(Some(Compression::OFF), Compression::zstd);
        Ok(Self {
            codec: CodecOptions { pickle },
            secret: secret.map_err(|error| PyValueError::new_err(error.to_string()))?,
            compression: compression.ok_or_else(|| {
                PyValueError::new_err(format!("a level of zstd is from 1 to {}", Compression::MAX_LEVEL))
            })?,
            merge: merge.map_err(|error| PyValueError::new_err(format!("lock_timeout: {error}")))?,
            journal: journal.then_some(JournalOptions { disk_bytes }),
        })
    }
}

impl FileOptions {
    /// A file with these options, of any version.
    pub(crate) fn file(&self, path: PathBuf) -> CacheFile {
        let producer = concat!("async-cache ", env!("CARGO_PKG_VERSION"), " (Python)");
        let file = CacheFile::new(Arc::new(RealDisk), path).producer(producer);
        file.secret(self.secret).compression(self.compression)
    }
}

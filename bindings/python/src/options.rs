//! What a `DiskBackend` allows in its file, and how it protects it.

use async_cache_disk::{Compression, ReadOptions, Secret, WriteOptions};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::codec;

/// Made once for each backend, so that the secret is neither kept as it was given nor derived for every save.
#[pyclass(frozen, module = "cache._native")]
#[derive(Clone)]
pub(crate) struct FileOptions {
    pub(crate) codec: codec::Options,
    secret: Option<Secret>,
    compression: Compression,
}

#[pymethods]
impl FileOptions {
    /// `level`: of zstd; `None` does not compress.
    #[new]
    #[pyo3(signature = (pickle, secret, level))]
    fn new(pickle: bool, secret: Option<&[u8]>, level: Option<u8>) -> PyResult<Self> {
        let secret = secret.map(Secret::new).transpose();
        let compression = level.map_or(Some(Compression::OFF), Compression::zstd);
        Ok(Self {
            codec: codec::Options { pickle },
            secret: secret.map_err(|error| PyValueError::new_err(error.to_string()))?,
            compression: compression.ok_or_else(|| {
                PyValueError::new_err(format!("a level of zstd is from 1 to {}", Compression::MAX_LEVEL))
            })?,
        })
    }
}

impl FileOptions {
    pub(crate) fn to_read(&self) -> ReadOptions {
        ReadOptions::new().secret(self.secret)
    }

    pub(crate) fn to_write(&self, version: &str, now: u64) -> WriteOptions {
        let producer = concat!("async-cache ", env!("CARGO_PKG_VERSION"), " (Python)");
        let options = WriteOptions::new(version, now).producer(producer);
        options.secret(self.secret).compression(self.compression)
    }
}

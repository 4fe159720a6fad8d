//! The file in which a cache is kept.

use std::path::PathBuf;

use async_cache_disk::{CacheFile, DiskError, Snapshot};
use pyo3::prelude::*;

use crate::options::FileOptions;

/// A path, and the permitted content of the file.
pub(crate) struct TargetFile {
    pub(crate) file: CacheFile,
    pub(crate) options: FileOptions,
}

impl TargetFile {
    pub(crate) fn new(path: PathBuf, version: String, options: &FileOptions) -> Self {
        Self { file: options.file(path).version(version), options: options.clone() }
    }

    /// The version tag of the file at the path, if it can be read.
    pub(crate) fn tag(&self, py: Python<'_>) -> Option<String> {
        let opened = py.detach(|| self.file.clone().any_version().open());
        opened.ok().flatten().map(|snapshot| snapshot.version().to_owned())
    }

    pub(crate) fn open(&self, py: Python<'_>) -> Result<Option<Snapshot>, DiskError> {
        py.detach(|| self.file.open())
    }
}

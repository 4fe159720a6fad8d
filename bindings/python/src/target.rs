//! Which file a cache is kept in.

use std::path::PathBuf;
use std::sync::Arc;

use async_cache_disk::{DiskError, RealDisk, Snapshot, Vfs};
use pyo3::prelude::*;

use crate::options::FileOptions;

/// Which file, and what may be in it.
pub(crate) struct Target {
    pub(crate) path: PathBuf,
    pub(crate) version: String,
    pub(crate) options: FileOptions,
    pub(crate) vfs: Arc<dyn Vfs>,
}

impl Target {
    pub(crate) fn new(path: PathBuf, version: String, options: &FileOptions) -> Self {
        Self { path, version, options: options.clone(), vfs: Arc::new(RealDisk) }
    }

    /// The version tag of what stands at the path, if that can be read.
    pub(crate) fn tag(&self, py: Python<'_>) -> Option<String> {
        let opened = py.detach(|| Snapshot::open_with(&self.vfs, &self.path, &self.options.to_read()));
        opened.ok().flatten().map(|snapshot| snapshot.version().to_owned())
    }

    /// The same at another path.
    pub(crate) fn at(&self, path: PathBuf) -> Self {
        Self {
            path,
            version: self.version.clone(),
            options: self.options.clone(),
            vfs: Arc::clone(&self.vfs),
        }
    }

    pub(crate) fn open(&self, py: Python<'_>) -> Result<Option<Snapshot>, DiskError> {
        let options = self.options.to_read().version(&*self.version);
        py.detach(|| Snapshot::open_with(&self.vfs, &self.path, &options))
    }
}

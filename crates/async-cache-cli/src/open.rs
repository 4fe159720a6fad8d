//! The one place that opens a file to look at, with the options that say how.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_cache_disk::{DiskError, RealDisk, Report, Snapshot, Vfs};
use clap::Args;

use crate::failure::Failure;

/// The file to look at, and how to open it.
#[derive(Debug, Args)]
pub(crate) struct Source {
    /// The cache file
    #[arg(value_name = "FILE")]
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// How to open files.
#[derive(Debug, Clone, Args)]
pub(crate) struct Access {}

impl Source {
    /// Opens the file, whatever the version of the data in it.
    pub(crate) fn open(&self) -> Result<Snapshot, Failure> {
        self.access.open(&self.path)
    }
}

impl Access {
    /// Opens a file, whatever the version of the data in it. That there is none is an error.
    #[allow(clippy::unused_self)] // options come in here
    pub(crate) fn open(&self, path: &Path) -> Result<Snapshot, Failure> {
        match Snapshot::open_any_version(&disk(), path)? {
            Some(snapshot) => Ok(snapshot),
            None if disk().metadata(path).is_ok() => {
                let path = path.display();
                Err(Failure::Other(format!("{path}: the file is empty: it holds no snapshot yet")))
            }
            None => Err(Failure::Other(format!("{}: there is no such file", path.display()))),
        }
    }

    /// Walks a file that [`open`](Self::open) could open.
    #[allow(clippy::unused_self)] // options come in here
    pub(crate) fn verify(&self, path: &Path) -> Result<Report, DiskError> {
        async_cache_disk::verify(&disk(), path)
    }
}

/// The file system.
pub(crate) fn disk() -> Arc<dyn Vfs> {
    Arc::new(RealDisk)
}

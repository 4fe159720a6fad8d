//! A cache file whose saves are locked.

use std::path::Path;
use std::time::Duration;

use crate::error::DiskError;
use crate::lock::SaveLock;
use crate::settings::Settings;
use crate::snapshot::Snapshot;
use crate::trust::Site;
use crate::writer::{WriteOptions, Writer};

/// The lock of a file's saves, and the file. Made by [`CacheFile::lock`](crate::CacheFile::lock).
/// Dropping it releases the lock, and so does the kernel if the process dies.
#[derive(Debug)]
pub struct LockedFile {
    site: Site,
    settings: Settings,
    _lock: SaveLock,
}

impl LockedFile {
    pub(crate) fn take(site: Site, settings: Settings, limit: Duration) -> Result<Self, DiskError> {
        let lock = SaveLock::take(&site, limit)?;
        Ok(Self { site, settings, _lock: lock })
    }

    /// As [`CacheFile::open`](crate::CacheFile::open), for the locked file.
    ///
    /// # Errors
    /// Those of [`CacheFile::open`](crate::CacheFile::open).
    pub fn open(&self) -> Result<Option<Snapshot>, DiskError> {
        Snapshot::open_at(&self.site, &self.settings)
    }

    /// Begins a file that will replace the locked file.
    ///
    /// # Errors
    /// Those of [`CacheFile::write`](crate::CacheFile::write).
    pub fn write(&self, options: WriteOptions) -> Result<Writer, DiskError> {
        Writer::create(&self.site, &self.settings, options)
    }

    /// The path, as given.
    pub fn path(&self) -> &Path {
        &self.site.path
    }
}

//! Removing what was saved.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::error::{DiskError, DiskErrorKind};
use crate::snapshot::Snapshot;
use crate::vfs::Vfs;
use crate::writer::{parent_of, sweep_leftovers};

/// Removes the snapshot at `path`, of whatever version, durably; answers whether there was one. A file that is not a
/// cache file is left alone.
///
/// # Errors
/// [`NotAFile`](DiskErrorKind::NotAFile) and [`Io`](DiskErrorKind::Io). If the folder could not be synced, the file is
/// gone, but may be back after a power loss.
pub fn clear(vfs: &Arc<dyn Vfs>, path: &Path) -> Result<bool, DiskError> {
    sweep_leftovers(&**vfs, path);
    match Snapshot::open_any_version(vfs, path) {
        Ok(None) => return Ok(false),
        Ok(Some(_)) => {}
        Err(error) => match error.kind() {
            DiskErrorKind::Foreign => return Ok(false),
            DiskErrorKind::Damaged | DiskErrorKind::Newer => {}
            _ => return Err(error),
        },
    }
    match vfs.remove(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(DiskError::io("removing the file", path, error)),
    }
    vfs.sync_dir(parent_of(path))
        .map_err(|error| DiskError::io("syncing the folder it was in", path, error))?;
    Ok(true)
}

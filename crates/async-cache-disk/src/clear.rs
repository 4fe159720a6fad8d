//! Removing what was saved.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{DiskError, DiskErrorKind};
use crate::lock::SaveLock;
use crate::names::lock_path;
use crate::snapshot::{Ends, read_header};
use crate::trust::{self, Owners, Trusted};
use crate::vfs::{FileKind, Vfs, parent_of};
use crate::writer::sweep_leftovers;

/// Removes the snapshot at `path`, of whatever version and secret, durably; answers whether there was one. A file that
/// is not a cache file is left alone.
///
/// With a `limit` it takes the lock of the path first, waiting for that long, so that a save that has read the file
/// already does not put back what was in it. (What a process has in memory, its next save writes all the same.) `None`
/// is for paths whose saves take no lock.
///
/// # Errors
/// [`NotAFile`](DiskErrorKind::NotAFile) and [`Io`](DiskErrorKind::Io); [`Trust`](DiskErrorKind::Trust) if the file is
/// another user's, everybody can write to it, or it is a symlink that is not followed: then it stays. If the folder could
/// not be synced, the file is gone, but may be back after a power loss. With a `limit` those of [`SaveLock::take`], too: then nothing has changed.
pub fn clear(vfs: &Arc<dyn Vfs>, path: &Path, limit: Option<Duration>) -> Result<bool, DiskError> {
    let place = &trust::follow(&**vfs, path)?.place;
    sweep_leftovers(&**vfs, place);
    let _lock = match limit {
        Some(limit) if needs_lock(&**vfs, place)? => Some(SaveLock::take(vfs, path, limit)?),
        _ => None,
    };
    let Some(Trusted { file, bytes }) = trust::open(&**vfs, path, Owners::TrustedOrGroup)? else {
        return Ok(false);
    };
    match read_header(&*file, bytes, Ends::BehindAll, path, None) {
        Ok(_) => {}
        Err(error) => match error.kind() {
            DiskErrorKind::Foreign => return Ok(false),
            // Of another secret it is ours to remove, too: nothing that is in it is used.
            DiskErrorKind::Damaged | DiskErrorKind::Newer | DiskErrorKind::Trust => {}
            _ => return Err(error),
        },
    }
    drop(file);
    match vfs.remove(place) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            let doing = "removing the file: it is a mount point, as a container has it that mounts a single file; mount the \
                         folder that it is in instead";
            return Err(DiskError::io(doing, path, error));
        }
        Err(error) => return Err(DiskError::io("removing the file", path, error)),
    }
    vfs.sync_dir(parent_of(place))
        .map_err(|error| DiskError::io("syncing the folder it was in", path, error))?;
    Ok(true)
}

/// Where neither a file nor its lock stands, nobody has saved: no lock is made there, nor a folder for it.
fn needs_lock(vfs: &dyn Vfs, place: &Path) -> Result<bool, DiskError> {
    match vfs.metadata(place) {
        Ok(metadata) => Ok(metadata.kind == FileKind::File),
        Err(_) => Ok(vfs.metadata(&lock_path(place)?).is_ok()),
    }
}

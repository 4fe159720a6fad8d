//! Removing a cache file.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::error::{DiskError, DiskErrorKind};
use crate::lock::SaveLock;
use crate::names::lock_path;
use crate::snapshot::{Ends, read_header};
use crate::trust::{Owners, Site, Trusted};
use crate::vfs::{FileKind, Vfs, parent_of};
use crate::writer::sweep_leftovers;

/// Removes the snapshot at a place: see [`CacheFile::clear`](crate::CacheFile::clear).
pub(crate) fn clear(site: &Site, limit: Option<Duration>) -> Result<bool, DiskError> {
    let Site { vfs, path, place, .. } = site;
    sweep_leftovers(&**vfs, place);
    let _lock = match limit {
        Some(limit) if needs_lock(&**vfs, place)? => Some(SaveLock::take(site, limit)?),
        _ => None,
    };
    let Some(Trusted { file, bytes }) = site.open(Owners::TrustedOrGroup)? else {
        return Ok(false);
    };
    match read_header(&*file, bytes, Ends::BehindAll, path, None) {
        Ok(_) => {}
        Err(error) => match error.kind() {
            DiskErrorKind::Foreign => return Ok(false),
            // A file of another secret is removed, too: its contents are not used.
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

/// If neither the file nor its lock exists, no process has saved there: then neither a lock nor a
/// folder for the lock is created.
fn needs_lock(vfs: &dyn Vfs, place: &Path) -> Result<bool, DiskError> {
    match vfs.metadata(place) {
        Ok(metadata) => Ok(metadata.kind == FileKind::File),
        Err(_) => Ok(vfs.metadata(&lock_path(place)?).is_ok()),
    }
}

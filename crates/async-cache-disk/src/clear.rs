//! Removing what was saved.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::error::{DiskError, DiskErrorKind};
use crate::snapshot::read_header;
use crate::trust::{self, Owners, Trusted};
use crate::vfs::{Vfs, parent_of};
use crate::writer::sweep_leftovers;

/// Removes the snapshot at `path`, of whatever version and secret, durably; answers whether there was one. A file that
/// is not a cache file is left alone.
///
/// # Errors
/// [`NotAFile`](DiskErrorKind::NotAFile) and [`Io`](DiskErrorKind::Io); [`Trust`](DiskErrorKind::Trust) if the file is
/// another user's, others can write to it, or it is a symlink that is not followed: then it stays. If the folder could not be synced, the file is
/// gone, but may be back after a power loss.
pub fn clear(vfs: &Arc<dyn Vfs>, path: &Path) -> Result<bool, DiskError> {
    let place = &trust::follow(&**vfs, path)?.place;
    sweep_leftovers(&**vfs, place);
    let Some(Trusted { file, bytes }) = trust::open(&**vfs, path, Owners::Trusted)? else { return Ok(false) };
    match read_header(&*file, bytes, path, None) {
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
        Err(error) => return Err(DiskError::io("removing the file", path, error)),
    }
    vfs.sync_dir(parent_of(place))
        .map_err(|error| DiskError::io("syncing the folder it was in", path, error))?;
    Ok(true)
}

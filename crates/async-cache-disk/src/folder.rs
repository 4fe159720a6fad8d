//! Creating folders, and making them durable.

use std::io;
use std::path::Path;

use crate::error::{DiskError, DiskErrorKind};
use crate::vfs::{FileKind, Vfs, parent_of};

/// Creates a folder and its parents, and makes each of them durable: otherwise nothing in the
/// folder would be durable.
pub(crate) fn create_folder(vfs: &dyn Vfs, folder: &Path) -> Result<(), DiskError> {
    match vfs.metadata(folder) {
        Ok(metadata) if metadata.kind == FileKind::Directory => return Ok(()),
        Ok(_) => return Err(DiskError::new(DiskErrorKind::NotAFile, folder, "this is not a directory")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(DiskError::io("looking for the folder", folder, error)),
    }
    let parent = parent_of(folder);
    // The working directory was removed, or there is no root: there is no parent folder to create
    // it in.
    if parent == folder || folder.parent().is_none() {
        return Err(DiskError::io("looking for the folder", folder, io::ErrorKind::NotFound.into()));
    }
    create_folder(vfs, parent)?;
    match vfs.create_dir(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Another process created the folder, or the path is a symlink without a target: such a
            // link was not found above.
            if let Ok(Some(link)) = vfs.read_link(folder)
                && vfs.metadata(folder).is_err()
            {
                let what = format!("this is a symlink to {}, where there is nothing", link.display());
                return Err(DiskError::new(DiskErrorKind::NotAFile, folder, what));
            }
        }
        Err(error) => return Err(DiskError::io("creating the folder", folder, error)),
    }
    sync_parent(vfs, folder)
}

/// Makes the name at a path durable: syncs the folder of the path.
pub(crate) fn sync_parent(vfs: &dyn Vfs, path: &Path) -> Result<(), DiskError> {
    vfs.sync_dir(parent_of(path)).map_err(|error| DiskError::io("syncing the folder it is in", path, error))
}

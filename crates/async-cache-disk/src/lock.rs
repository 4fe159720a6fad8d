//! The lock of a path: keeps the saves of several processes apart, and what removes the file from all of them.
//!
//! Rules:
//! 1. the lock is on a file of its own, `<path>.lock`, for the file at the path is replaced by every save;
//! 2. that file is never removed and never replaced, or two processes could lock two files of one name;
//! 3. it is advisory and ends with the process that holds it, however that ends;
//! 4. it stands where a symlink at the path leads, as the file does, so that two names of one file have one lock;
//! 5. where a file system has no locks, there is none, and saves of one moment may overwrite each other.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{DiskError, DiskErrorKind};
use crate::trust;
use crate::vfs::{FileKind, Vfs, VfsFile, not_a_file, parent_of};
use crate::writer::create_folder;

/// Held by the one process that saves to a path. Released when it is dropped, and by the kernel if the process dies.
#[derive(Debug)]
pub struct SaveLock(Box<dyn VfsFile>);

impl Drop for SaveLock {
    fn drop(&mut self) {
        // Closing the file would do, if there were no forks. Where there are no locks, there is nothing to release.
        let _ = self.0.unlock();
    }
}

impl SaveLock {
    /// Takes the lock of `path`, waiting for it for as long as `limit`. Makes missing parent folders.
    ///
    /// # Errors
    /// [`Locked`](DiskErrorKind::Locked) if another process held it all that time;
    /// [`NotAFile`](DiskErrorKind::NotAFile) if the path names no file, or something else than a file has the lock's name;
    /// [`Trust`](DiskErrorKind::Trust) if that is a symlink, or another user's; [`Io`](DiskErrorKind::Io).
    pub fn take(vfs: &Arc<dyn Vfs>, path: &Path, limit: Duration) -> Result<Self, DiskError> {
        let lock_path = lock_path(&trust::follow(&**vfs, path)?.place)?;
        create_folder(&**vfs, parent_of(&lock_path))?;
        let file = open_or_create(&**vfs, &lock_path)?;
        match file.lock_within(limit) {
            Ok(true) => Ok(Self(file)),
            Ok(false) => {
                let what = "another process has held the lock of its saves all the time that this one waited";
                Err(DiskError::new(DiskErrorKind::Locked, path, what))
            }
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(Self(file)),
            Err(error) => Err(DiskError::io("locking it", &lock_path, error)),
        }
    }
}

pub(crate) fn lock_path(path: &Path) -> Result<PathBuf, DiskError> {
    let Some(name) = path.file_name() else {
        return Err(DiskError::new(DiskErrorKind::NotAFile, path, "this path names no file"));
    };
    let mut name = OsString::from(name);
    name.push(".lock");
    Ok(path.with_file_name(name))
}

/// Several processes may do this at once, and all get the same file.
fn open_or_create(vfs: &dyn Vfs, path: &Path) -> Result<Box<dyn VfsFile>, DiskError> {
    loop {
        match vfs.metadata(path) {
            // Asked before the file is opened, since opening a pipe would wait for its other end.
            Ok(metadata) if metadata.kind != FileKind::File => {
                return Err(DiskError::new(DiskErrorKind::NotAFile, path, not_a_file(metadata.kind)));
            }
            Ok(_) => match vfs.open_no_follow(path) {
                Ok(Some(file)) => return Ok(file),
                Ok(None) => {
                    let what = "it is a symlink where the lock of saves is to be: nothing was saved or removed; remove it";
                    return Err(DiskError::new(DiskErrorKind::Trust, path, what));
                }
                // Nobody removes it; it may be that somebody's clean-up does.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    let what = "nothing was saved or removed, for another user has the lock of its saves; remove it, or give \
                                the cache a path in a folder of its own";
                    return Err(DiskError::new(DiskErrorKind::Trust, path, what));
                }
                Err(error) => return Err(DiskError::io("opening the lock file", path, error)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(DiskError::io("looking for the lock file", path, error)),
        }
        match vfs.create_new(path) {
            Ok(file) => return Ok(file),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(DiskError::io("creating the lock file", path, error)),
        }
    }
}

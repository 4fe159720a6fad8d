//! The lock of a path: separates the saves of several processes, and the removal of the file from
//! all saves.
//!
//! Rules:
//! 1. the lock is on a separate file, `<path>.lock`, because every save replaces the file at the
//!    path;
//! 2. the lock file is never removed and never replaced; otherwise two processes could lock two
//!    files with the same name;
//! 3. the lock is advisory and ends with the process that holds it, in any way;
//! 4. the lock file is beside the target of a symlink at the path, so that two names of a file have
//!    the same lock;
//! 5. a file system without locks has none, and simultaneous saves may overwrite each other. Each
//!    file system reports missing locks in its own way: [`has_no_locks`];
//! 6. a symlink at the lock's own name is an error, with any target, even a missing target;
//! 7. the lock file is opened for writing where allowed, because NFS locks nothing else;
//! 8. taking the lock ends: after `limit` if another process holds it, after [`MOST_ATTEMPTS`] if
//!    the lock file comes and goes.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::error::{DiskError, DiskErrorKind};
use crate::folder::create_folder;
use crate::names::lock_path;
use crate::trust::Site;
use crate::vfs::{FileKind, Vfs, VfsFile, has_no_locks, not_a_file, parent_of};

/// How often the lock file may come and go while it is opened.
const MOST_ATTEMPTS: u32 = 16;

/// Held by the only process that saves to a path. Released when dropped, and by the kernel if the
/// process dies.
#[derive(Debug)]
pub(crate) struct SaveLock(Box<dyn VfsFile>);

impl Drop for SaveLock {
    fn drop(&mut self) {
        // Closing the file would do, if there were no forks. Where there are no locks, there is
        // nothing to release.
        let _ = self.0.unlock();
    }
}

impl SaveLock {
    /// Takes the lock of a place, waiting for `limit` at most. Missing parent folders are created.
    ///
    /// # Errors
    /// Those of [`CacheFile::lock`](crate::CacheFile::lock).
    pub(crate) fn take(site: &Site, limit: Duration) -> Result<Self, DiskError> {
        let Site { vfs, path, place, .. } = site;
        let lock_path = lock_path(place)?; // Rule 4
        create_folder(&**vfs, parent_of(&lock_path))?;
        let file = open_or_create(&**vfs, &lock_path)?;
        match file.lock_within(limit) {
            Ok(true) => Ok(Self(file)),
            Ok(false) => {
                let what = "another process has held the lock of its saves all the time that this one waited";
                Err(DiskError::new(DiskErrorKind::Locked, path, what))
            }
            Err(error) if has_no_locks(&error) => Ok(Self(file)), // Rule 5
            Err(error) => Err(DiskError::io("locking it", &lock_path, error)),
        }
    }
}

/// Several processes may do so at once, and all get the same file.
pub(crate) fn open_or_create(vfs: &dyn Vfs, path: &Path) -> Result<Box<dyn VfsFile>, DiskError> {
    for _ in 0..MOST_ATTEMPTS {
        if let Some(file) = open(vfs, path)? {
            return Ok(file);
        }
        match vfs.create_new(path) {
            Ok(file) => return Ok(file),
            // Another process created the file. (Rule 6: a symlink without a target was refused
            // before.)
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(DiskError::io("creating the lock file", path, error)),
        }
    }
    // Rule 8
    let what = "the lock file was removed and created again all the time: nothing was saved or removed; find out which \
                program does that, and keep it from doing it";
    Err(DiskError::new(DiskErrorKind::Trust, path, what))
}

/// Opens the lock file; `None` if there is none.
fn open(vfs: &dyn Vfs, path: &Path) -> Result<Option<Box<dyn VfsFile>>, DiskError> {
    // Rule 6: read first, because `metadata` follows symlinks, and finds nothing behind a link
    // without a target.
    match vfs.read_link(path) {
        Ok(None) => {}
        Ok(Some(_)) => return Err(is_symlink(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DiskError::io("looking for the lock file", path, error)),
    }
    match vfs.metadata(path) {
        // Checked before the file is opened, because opening a pipe would wait for its other end.
        Ok(metadata) => refuse_other_kinds(metadata.kind, path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DiskError::io("looking for the lock file", path, error)),
    }
    match vfs.open_to_lock(path) {
        Ok(Some(file)) => {
            let metadata = file.metadata();
            let metadata =
                metadata.map_err(|error| DiskError::io("looking at the lock file", path, error))?;
            refuse_other_kinds(metadata.kind, path)?;
            Ok(Some(file))
        }
        Ok(None) => Err(is_symlink(path)),
        // No save removes the lock file; another program's clean-up may.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let what = "nothing was saved or removed, for another user has the lock of its saves; remove it, or give \
                        the cache a path in a folder of its own";
            Err(DiskError::new(DiskErrorKind::Trust, path, what))
        }
        Err(error) => Err(DiskError::io("opening the lock file", path, error)),
    }
}

fn refuse_other_kinds(kind: FileKind, path: &Path) -> Result<(), DiskError> {
    match kind {
        FileKind::File => Ok(()),
        kind => Err(DiskError::new(DiskErrorKind::NotAFile, path, not_a_file(kind))),
    }
}

fn is_symlink(path: &Path) -> DiskError {
    let what = "it is a symlink where the lock of saves is to be: nothing was saved or removed; remove it";
    DiskError::new(DiskErrorKind::Trust, path, what)
}

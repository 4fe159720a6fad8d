//! The lock of a store: a single process has the store open.
//!
//! Rules:
//! 1. The lock belongs to the process ([`VfsFile::try_process_lock`]): a forked child of a dead
//!    process does not keep the store locked.
//! 2. A process lock does not exclude a second opening by the same process, and closing any handle
//!    of the lock file releases it. So a list of the process names the lock files that are open:
//!    another opening is refused before it opens the file.
//! 3. A cleanly closed store may remove its lock file. So a process that has taken the lock checks
//!    that the path leads to the locked file, and else tries again.
//! 4. A forked child that drops its copy of the lock does not close the file: the child may have
//!    opened the store anew, and has the lock then.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{DiskError, DiskErrorKind};
use crate::lock::open_or_create;
use crate::process::ProcessMark;
use crate::vfs::{FileIdentity, LockHolder, Metadata, Vfs, VfsFile, has_no_locks};

/// How often the lock file may be removed while the lock is taken.
const MOST_ATTEMPTS: u32 = 16;
const IS_OPEN: &str = "this process has the store open already";

/// The lock files that are open, each with the process that has opened it (rule 2).
static OPEN: Mutex<BTreeSet<(u32, FileIdentity)>> = Mutex::new(BTreeSet::new());

fn open_locks() -> MutexGuard<'static, BTreeSet<(u32, FileIdentity)>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lock, held until it is dropped.
#[derive(Debug)]
pub(super) struct StoreLock {
    /// `None` when dropped.
    file: Option<Box<dyn VfsFile>>,
    /// `None` where files have no identity; then locks exclude a second handle of the process, too.
    name: Option<(u32, FileIdentity)>,
    process: ProcessMark,
}

impl StoreLock {
    /// Takes the lock. `create_folder` creates the folder of the lock file, if it is missing, and
    /// tells whether it was; the last answer is returned.
    ///
    /// # Errors
    /// Those of [`CacheFile::store`](crate::CacheFile::store).
    pub(super) fn take(
        vfs: &dyn Vfs,
        path: &Path,
        create_folder: impl Fn() -> Result<bool, DiskError>,
    ) -> Result<(Self, bool), DiskError> {
        for _ in 0..MOST_ATTEMPTS {
            let was_missing = create_folder()?;
            match Self::try_take(vfs, path) {
                Ok(Some(lock)) => return Ok((lock, was_missing)),
                Ok(None) => {}
                // The folder was removed together with the lock file.
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let what = "the lock file was removed again and again while the store was opened; find out which program does that";
        Err(DiskError::new(DiskErrorKind::Locked, path, what))
    }

    /// The process that has the lock, as far as the system tells. Takes no lock.
    pub(super) fn holder(vfs: &dyn Vfs, path: &Path) -> Option<LockHolder> {
        let process = std::process::id();
        let open = open_locks();
        let is_ours = |metadata: Metadata| Some(open.contains(&(process, metadata.identity?)));
        if is_ours(vfs.metadata(path).ok()?)? {
            return Some(LockHolder::Process(process)); // Rule 2.
        }
        let file = vfs.open_no_follow(path).ok()??;
        if file.metadata().ok().and_then(is_ours) != Some(false) {
            std::mem::forget(file); // The file came to the path in between.
            return Some(LockHolder::Process(process));
        }
        file.process_lock_holder().ok()?
    }

    /// The lock file; `None` where files have no identity.
    pub(super) fn file(&self) -> Option<FileIdentity> {
        self.name.map(|(_, file)| file)
    }

    /// Whether this is the process that has taken the lock.
    pub(super) fn is_of_this_process(&self) -> bool {
        self.process.is_of_this_process()
    }

    /// Whether lock files have an identity, so that a lock file may be removed (rule 3).
    pub(super) fn may_be_removed(&self) -> bool {
        self.name.is_some()
    }

    /// Takes the lock; `None` if the lock file was removed meanwhile.
    fn try_take(vfs: &dyn Vfs, path: &Path) -> Result<Option<Self>, DiskError> {
        let process = std::process::id();
        // Held until the file is in the list: no other thread opens the file in between.
        let mut open = open_locks();
        let by_path = || vfs.metadata(path).ok().and_then(|metadata| metadata.identity);
        if by_path().is_some_and(|identity| open.contains(&(process, identity))) {
            return Err(locked(path, IS_OPEN)); // Rule 2.
        }
        let file = open_or_create(vfs, path)?;
        let metadata =
            file.metadata().map_err(|error| DiskError::io("looking at the lock file", path, error))?;
        let name = metadata.identity.map(|identity| (process, identity));
        if name.is_some_and(|name| open.contains(&name)) {
            std::mem::forget(file); // The file came to the path in between.
            return Err(locked(path, IS_OPEN));
        }
        match file.try_process_lock() {
            Ok(true) => {}
            Ok(false) => return Err(locked(path, "another process writes to the store")),
            Err(error) if has_no_locks(&error) => {
                let what = "its file system has no locks, and a store without a lock may be written to by two processes";
                return Err(locked(path, what));
            }
            Err(error) => return Err(DiskError::io("locking the store", path, error)),
        }
        if by_path() != metadata.identity {
            return Ok(None); // Rule 3.
        }
        open.extend(name);
        Ok(Some(Self { file: Some(file), name, process: ProcessMark::new() }))
    }
}

impl Drop for StoreLock {
    fn drop(&mut self) {
        if !self.is_of_this_process() {
            std::mem::forget(self.file.take()); // Rule 4.
            return;
        }
        let mut open = open_locks();
        drop(self.file.take());
        if let Some(name) = &self.name {
            open.remove(name);
        }
    }
}

fn locked(path: &Path, what: &str) -> DiskError {
    DiskError::new(DiskErrorKind::Locked, path, what)
}

fn is_not_found(error: &DiskError) -> bool {
    error.io_error().is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

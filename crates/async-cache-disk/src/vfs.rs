//! All that this crate asks of a file system, and nothing else touches one: so the crash tests see every call.
//!
//! The traits promise what POSIX promises and no more: a write or a rename is durable only after the sync of the file or
//! of the directory; until then a power loss may keep or lose each of them independently.

#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod real;

use std::ffi::OsString;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use real::RealDisk;

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else: a pipe, a socket, a device.
    Other,
}

/// What is known of a path without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// What it is, links followed.
    pub kind: FileKind,
    /// Its length in bytes.
    pub bytes: u64,
    /// The time since it was last written. Zero if that lies in the future or is not known.
    pub age: Duration,
    /// Whose it is; `None` where the system has no owners.
    pub ownership: Option<Ownership>,
}

/// Whose a file or a folder is, and who may write to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    /// The number of the user who owns it.
    pub owner: u32,
    /// The permission bits, as `chmod` takes them.
    pub mode: u32,
    /// How many names (hard links) it has.
    pub links: u64,
}

/// A file system.
pub trait Vfs: Send + Sync + Debug {
    /// Opens an existing file for reading.
    ///
    /// # Errors
    /// What the system reports; `NotFound` if there is none.
    fn open(&self, path: &Path) -> io::Result<Box<dyn VfsFile>>;

    /// Opens an existing file for reading, but `None` if a symlink stands at the path.
    ///
    /// # Errors
    /// What the system reports; `NotFound` if there is nothing.
    fn open_no_follow(&self, path: &Path) -> io::Result<Option<Box<dyn VfsFile>>>;

    /// Opens an existing file in order to lock it, but `None` if a symlink stands at the path: for reading and writing if
    /// that is allowed, since some file systems (NFS) lock only files that are open for writing; else for reading.
    ///
    /// # Errors
    /// What the system reports; `NotFound` if there is nothing.
    fn open_to_lock(&self, path: &Path) -> io::Result<Option<Box<dyn VfsFile>>> {
        self.open_no_follow(path)
    }

    /// Where the symlink at a path leads, as it says it; `None` if what stands there is no symlink.
    ///
    /// # Errors
    /// What the system reports; `NotFound` if there is nothing.
    fn read_link(&self, path: &Path) -> io::Result<Option<PathBuf>>;

    /// The number of the user as whom this process opens files; `None` where the system has no owners.
    fn user(&self) -> Option<u32>;

    /// Creates a file that only its owner may read and write (mode 0600), for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists` if anything stands there; else what the system reports.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn VfsFile>>;

    /// Tells what stands at a path.
    ///
    /// # Errors
    /// What the system reports; `NotFound` if nothing does.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;

    /// Names everything in a directory.
    ///
    /// # Errors
    /// What the system reports.
    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>>;

    /// Renames a file atomically, over whatever file has that name.
    ///
    /// # Errors
    /// What the system reports; nothing has changed then.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the system reports.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Creates one directory.
    ///
    /// # Errors
    /// `AlreadyExists` if anything stands there; else what the system reports.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes what was created, renamed and removed in a directory durable.
    ///
    /// # Errors
    /// What the system reports; nothing may be claimed to be durable then.
    fn sync_dir(&self, directory: &Path) -> io::Result<()>;
}

/// An open file. All calls take a position, so that threads share one handle.
pub trait VfsFile: Send + Sync + Debug {
    /// Reads at a position; fewer bytes than asked for only at the end of the file, or by the system's leave.
    ///
    /// # Errors
    /// What the system reports.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at a position and tells how many bytes were taken.
    ///
    /// # Errors
    /// What the system reports; `StorageFull` if there is no room.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes the file's contents durable.
    ///
    /// # Errors
    /// What the system reports; nothing may be claimed to be durable then, nor after a later sync that succeeds.
    fn sync(&self) -> io::Result<()>;

    /// The length of the file in bytes.
    ///
    /// # Errors
    /// What the system reports.
    fn bytes(&self) -> io::Result<u64>;

    /// Where the first byte at or behind an offset is that was ever written, `u64::MAX` if there is none: what is before it
    /// is a hole, and reads as zeros. A file system that cannot tell says `offset`. Only ever used to pass holes quickly.
    ///
    /// # Errors
    /// What the system reports.
    fn data_from(&self, offset: u64) -> io::Result<u64> {
        Ok(offset)
    }

    /// Tells what is known of the opened file, whatever stands at its path by now.
    ///
    /// # Errors
    /// What the system reports.
    fn metadata(&self) -> io::Result<Metadata>;

    /// Takes the exclusive lock if nobody has it; it is held until the file is closed.
    ///
    /// # Errors
    /// What the system reports; where files cannot be locked `Unsupported`, or one of ENOLCK, EINVAL and EBADF.
    fn try_lock(&self) -> io::Result<bool>;

    /// Takes the exclusive lock, waiting for it for as long as `limit`; `false` if somebody else had it all that time.
    ///
    /// # Errors
    /// As [`try_lock`](Self::try_lock).
    fn lock_within(&self, limit: Duration) -> io::Result<bool>;

    /// Releases the lock: also on behalf of a child that was forked while it was held, and has the file open, too.
    ///
    /// # Errors
    /// What the system reports.
    fn unlock(&self) -> io::Result<()>;
}

/// Whether an error says that the file system cannot lock files at all. `Unsupported` is
/// ENOSYS and EOPNOTSUPP (user-space and some cluster file systems). ENOLCK is NFS without a lock
/// daemon, EINVAL a file system that knows no locks, and EBADF is NFS for a lock file that can only
/// be read.
pub(crate) fn has_no_locks(error: &io::Error) -> bool {
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        let known = [Errno::NOLCK, Errno::INVAL, Errno::BADF].map(Errno::raw_os_error);
        if error.raw_os_error().is_some_and(|number| known.contains(&number)) {
            return true;
        }
    }
    error.kind() == io::ErrorKind::Unsupported
}

/// The folder a path is in.
pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// What to say about a path that is not a file.
pub(crate) fn not_a_file(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Directory => "this is a directory, not a file",
        FileKind::File | FileKind::Other => "this is not a regular file",
    }
}

/// Why [`read_exact_at`] could not fill its buffer.
#[derive(Debug)]
pub(crate) enum ReadFailure {
    /// The file ends before.
    Short,
    /// The system's error.
    Io(io::Error),
}

/// How often in a row a system call may be interrupted before it counts as failed.
const MOST_INTERRUPTIONS: u32 = 1000;

/// Fills the buffer from a position, going on after short and interrupted reads.
pub(crate) fn read_exact_at(
    file: &dyn VfsFile,
    mut buffer: &mut [u8],
    mut offset: u64,
) -> Result<(), ReadFailure> {
    let mut interruptions = 0;
    while !buffer.is_empty() {
        match file.read_at(buffer, offset) {
            Ok(0) => return Err(ReadFailure::Short),
            Ok(count) => {
                buffer = buffer.get_mut(count..).unwrap_or_default();
                offset = offset.saturating_add(count as u64);
                interruptions = 0;
            }
            Err(error)
                if error.kind() == io::ErrorKind::Interrupted && interruptions < MOST_INTERRUPTIONS =>
            {
                interruptions = interruptions.saturating_add(1);
            }
            Err(error) => return Err(ReadFailure::Io(error)),
        }
    }
    Ok(())
}

/// Writes everything at a position, going on after short and interrupted writes.
pub(crate) fn write_all_at(file: &dyn VfsFile, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    let mut interruptions = 0;
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = bytes.get(count..).unwrap_or_default();
                offset = offset.saturating_add(count as u64);
                interruptions = 0;
            }
            Err(error)
                if error.kind() == io::ErrorKind::Interrupted && interruptions < MOST_INTERRUPTIONS =>
            {
                interruptions = interruptions.saturating_add(1);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

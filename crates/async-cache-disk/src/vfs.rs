//! Every call of this crate to a file system, and nothing else touches one: so the crash tests see
//! every call.
//!
//! The traits promise what POSIX promises and no more: a write or a rename is durable only after
//! the sync of the file or of the directory; until then, a power loss may keep or lose each of them
//! independently.

#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod patience;
mod real;

use std::ffi::OsString;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use patience::Patience;
pub use real::RealDisk;

/// The kind of file at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else: a pipe, a socket, a device.
    Other,
}

/// The metadata of a path, read without opening the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// The kind, with links followed.
    pub kind: FileKind,
    /// Its length in bytes.
    pub bytes: u64,
    /// The time since the last write. Zero if the write is in the future or unknown.
    pub age: Duration,
    /// The ownership; `None` where the system has no owners.
    pub ownership: Option<Ownership>,
    /// Distinguishes the file from every other existing file; `None` where the system does not say.
    pub identity: Option<FileIdentity>,
}

/// Two paths with the same identity are the same file. The identity of a file that was removed may
/// be given to another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileIdentity {
    /// The file system.
    pub device: u64,
    /// The file in the file system.
    pub inode: u64,
}

/// A process that has a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockHolder {
    /// The process with this number.
    Process(u32),
    /// A process whose number is unknown here, for example in another container.
    Unnamed,
}

/// The owner of a file or a folder, and its permissions to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    /// The number of the owning user.
    pub owner: u32,
    /// The permission bits, as `chmod` takes them.
    pub mode: u32,
    /// The number of names (hard links).
    pub links: u64,
}

/// A file system.
pub trait Vfs: Send + Sync + Debug {
    /// Opens an existing file for reading.
    ///
    /// # Errors
    /// The system's error; `NotFound` if there is no file.
    fn open(&self, path: &Path) -> io::Result<Box<dyn VfsFile>>;

    /// Opens an existing file for reading, but `None` if a symlink stands at the path.
    ///
    /// # Errors
    /// The system's error; `NotFound` if there is nothing.
    fn open_no_follow(&self, path: &Path) -> io::Result<Option<Box<dyn VfsFile>>>;

    /// Opens an existing file in order to lock it, but `None` if a symlink stands at the path.
    /// Opens for reading and writing if allowed, because some file systems (NFS) lock only files
    /// that are open for writing; else for reading.
    ///
    /// # Errors
    /// The system's error; `NotFound` if there is nothing.
    fn open_to_lock(&self, path: &Path) -> io::Result<Option<Box<dyn VfsFile>>> {
        self.open_no_follow(path)
    }

    /// The target of the symlink at a path, as stored in the link; `None` if the path is not a
    /// symlink.
    ///
    /// # Errors
    /// The system's error; `NotFound` if there is nothing.
    fn read_link(&self, path: &Path) -> io::Result<Option<PathBuf>>;

    /// The number of the user as which this process opens files; `None` where the system has no
    /// owners.
    fn user(&self) -> Option<u32>;

    /// Creates a file that only its owner may read and write (mode 0600), for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists` if anything stands there; else the system's error.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn VfsFile>>;

    /// Returns the metadata of a path.
    ///
    /// # Errors
    /// The system's error; `NotFound` if there is nothing.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;

    /// Returns the names in a directory.
    ///
    /// # Errors
    /// The system's error.
    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>>;

    /// Renames a file atomically, replacing an existing file with the new name.
    ///
    /// # Errors
    /// The system's error; nothing has changed then.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The system's error.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Creates a directory.
    ///
    /// # Errors
    /// `AlreadyExists` if anything stands there; else the system's error.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Creates a directory that only its owner may use (mode 0700).
    ///
    /// # Errors
    /// `AlreadyExists` if anything stands there; else the system's error.
    fn create_private_dir(&self, path: &Path) -> io::Result<()> {
        self.create_dir(path)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// The system's error; `DirectoryNotEmpty` if there is anything in it.
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Names the run of the system, from its start to its end or a power loss; zero if unknown.
    fn boot_id(&self) -> [u8; 16] {
        [0; 16]
    }

    /// Makes creations, renames and removals in a directory durable.
    ///
    /// # Errors
    /// The system's error; nothing may be claimed to be durable then.
    fn sync_dir(&self, directory: &Path) -> io::Result<()>;
}

/// An open file. All calls take a position, so threads can share a handle.
pub trait VfsFile: Send + Sync + Debug {
    /// Reads at a position; returns fewer bytes than requested only at the end of the file, or when
    /// the system does so.
    ///
    /// # Errors
    /// The system's error.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Reads at a position, but only what is in memory: `None` if the disk would have to be waited
    /// for. May return 0 instead. Where the system cannot tell, the call waits.
    ///
    /// # Errors
    /// The system's error.
    fn read_at_now(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        self.read_at(buffer, offset).map(Some)
    }

    /// Writes at a position and returns the number of written bytes.
    ///
    /// # Errors
    /// The system's error; `StorageFull` if there is no room.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes the file's contents durable.
    ///
    /// # Errors
    /// The system's error; nothing may be claimed to be durable then, nor after a later sync that
    /// succeeds.
    fn sync(&self) -> io::Result<()>;

    /// The same, but the time of the last write, which nothing depends on, need not become durable:
    /// on some file systems that costs less than [`sync`](Self::sync).
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    /// Cuts the file off at a length, if it is longer. Needs no room on the disk.
    ///
    /// # Errors
    /// The system's error.
    fn cut(&self, bytes: u64) -> io::Result<()> {
        let _ = bytes;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The length of the file in bytes.
    ///
    /// # Errors
    /// The system's error.
    fn bytes(&self) -> io::Result<u64>;

    /// The first offset, from `offset` on, with data that was ever written, `u64::MAX` if there is
    /// none: everything before it is a hole, and reads as zeros. A file system without this
    /// information returns `offset`. Used only to pass holes quickly.
    ///
    /// # Errors
    /// The system's error.
    fn data_from(&self, offset: u64) -> io::Result<u64> {
        Ok(offset)
    }

    /// Returns the metadata of the opened file, whatever stands at its path by now.
    ///
    /// # Errors
    /// The system's error.
    fn metadata(&self) -> io::Result<Metadata>;

    /// Takes the exclusive lock if it is free; it is held until the file is closed.
    ///
    /// # Errors
    /// The system's error; where files cannot be locked, `Unsupported`, or one of ENOLCK, EINVAL
    /// and EBADF.
    fn try_lock(&self) -> io::Result<bool>;

    /// Takes the exclusive lock of this process if it is free. The lock ends with the process, even
    /// if a child that was forked meanwhile has the file open. It ends as well when this process
    /// closes any of its handles of the file, and a second handle of this process takes it again:
    /// so a process must open the file once. Where there is no such lock: as
    /// [`try_lock`](Self::try_lock), whose lock a forked child keeps.
    ///
    /// # Errors
    /// As [`try_lock`](Self::try_lock).
    fn try_process_lock(&self) -> io::Result<bool> {
        self.try_lock()
    }

    /// Another process that has the [process lock](Self::try_process_lock). Takes no lock. `None`
    /// also where the system cannot tell.
    ///
    /// # Errors
    /// As [`try_lock`](Self::try_lock).
    fn process_lock_holder(&self) -> io::Result<Option<LockHolder>> {
        Ok(None)
    }

    /// Takes the exclusive lock, waiting up to `limit`; `false` if another process held it all that
    /// time.
    ///
    /// # Errors
    /// As [`try_lock`](Self::try_lock).
    fn lock_within(&self, limit: Duration) -> io::Result<bool>;

    /// Releases the lock, also on behalf of a child that was forked while the lock was held, and
    /// has the file open, too.
    ///
    /// # Errors
    /// The system's error.
    fn unlock(&self) -> io::Result<()>;
}

/// Whether an error means that the file system cannot lock files at all. `Unsupported` is ENOSYS
/// and EOPNOTSUPP (user-space and some cluster file systems). ENOLCK is NFS without a lock daemon,
/// EINVAL a file system without locks, and EBADF is NFS for a lock file that can only be read.
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

/// The message about a path that is not a file.
pub(crate) fn not_a_file(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Directory => "this is a directory, not a file",
        FileKind::File | FileKind::Other => "this is not a regular file",
    }
}

/// Why [`read_exact_at`] could not fill its buffer.
#[derive(Debug)]
pub(crate) enum ReadFailure {
    /// The file ends before; or the read would wait, and [`Patience`] says so.
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

//! The file system of the machine. This file owns `std::fs`; nothing here decides anything.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // only this file may
#![allow(clippy::arithmetic_side_effects)] // counts of interruptions, and a pause that is bounded

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::{FileIdentity, FileKind, MOST_INTERRUPTIONS, Metadata, Ownership, Vfs, VfsFile};

/// The file system of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Vfs for RealDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        Ok(RealFile::boxed(File::open(path)?))
    }

    #[cfg(unix)]
    fn open_no_follow(&self, path: &Path) -> io::Result<Option<Box<dyn VfsFile>>> {
        Ok(open_no_follow(path, rustix::fs::OFlags::RDONLY)?)
    }

    #[cfg(unix)]
    fn open_to_lock(&self, path: &Path) -> io::Result<Option<Box<dyn VfsFile>>> {
        use rustix::fs::OFlags;
        use rustix::io::Errno;
        match open_no_follow(path, OFlags::RDWR) {
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => Ok(open_no_follow(path, OFlags::RDONLY)?),
            opened => Ok(opened?),
        }
    }

    #[cfg(not(unix))]
    fn open_no_follow(&self, path: &Path) -> io::Result<Option<Box<dyn VfsFile>>> {
        if fs::symlink_metadata(path)?.is_symlink() {
            return Ok(None);
        }
        self.open(path).map(Some)
    }

    fn read_link(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        if fs::symlink_metadata(path)?.is_symlink() { fs::read_link(path).map(Some) } else { Ok(None) }
    }

    #[cfg(unix)]
    fn user(&self) -> Option<u32> {
        Some(rustix::process::geteuid().as_raw())
    }

    #[cfg(not(unix))]
    fn user(&self) -> Option<u32> {
        None
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(RealFile::boxed(options.open(path)?))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        Ok(known(&fs::metadata(path)?))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn create_private_dir(&self, path: &Path) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn boot_id(&self) -> [u8; 16] {
        boot_id().unwrap_or_default()
    }

    #[cfg(unix)]
    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        match File::open(directory)?.sync_all() {
            // Some file systems cannot sync a directory.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            result => result,
        }
    }

    #[cfg(not(unix))]
    fn sync_dir(&self, _directory: &Path) -> io::Result<()> {
        Ok(()) // there is no such call; the rename itself is journaled
    }
}

/// Linux names each of its runs by a UUID.
fn boot_id() -> Option<[u8; 16]> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let mut id = [0; 16];
    for (byte, digits) in id.iter_mut().zip(digits.as_chunks::<2>().0) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    (digits.len() == 32).then_some(id)
}

/// Opens a path that is not a symlink.
#[cfg(unix)]
fn open_no_follow(path: &Path, access: rustix::fs::OFlags) -> rustix::io::Result<Option<Box<dyn VfsFile>>> {
    use rustix::fs::{Mode, OFlags};
    use rustix::io::Errno;
    // If a pipe took the file's place, a blocking open would wait for ever.
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    // Opening may wait on a network or a user-space file system, and is then interrupted by a
    // signal's handler.
    let mut interruptions = 0;
    let opened = loop {
        match rustix::fs::open(path, flags, Mode::empty()) {
            Err(Errno::INTR) if interruptions < MOST_INTERRUPTIONS => interruptions += 1,
            opened => break opened,
        }
    };
    match opened {
        Ok(file) => Ok(Some(RealFile::boxed(File::from(file)))),
        Err(Errno::LOOP | Errno::MLINK) => Ok(None),
        Err(error) => Err(error),
    }
}

fn known(metadata: &fs::Metadata) -> Metadata {
    let kind = match metadata.file_type() {
        kind if kind.is_file() => FileKind::File,
        kind if kind.is_dir() => FileKind::Directory,
        _ => FileKind::Other,
    };
    // Only leftovers of crashed saves are judged by age, and by the clock that stamped them.
    let age = metadata.modified().ok().and_then(|then| SystemTime::now().duration_since(then).ok());
    Metadata {
        kind,
        bytes: metadata.len(),
        age: age.unwrap_or(Duration::ZERO),
        ownership: ownership(metadata),
        identity: identity(metadata),
    }
}

#[cfg(unix)]
#[allow(clippy::unnecessary_wraps)] // not everywhere
fn ownership(metadata: &fs::Metadata) -> Option<Ownership> {
    use std::os::unix::fs::MetadataExt;
    Some(Ownership { owner: metadata.uid(), mode: metadata.mode() & 0o7777, links: metadata.nlink() })
}

#[cfg(not(unix))]
fn ownership(_metadata: &fs::Metadata) -> Option<Ownership> {
    None
}

#[cfg(unix)]
#[allow(clippy::unnecessary_wraps)] // not everywhere
fn identity(metadata: &fs::Metadata) -> Option<FileIdentity> {
    use std::os::unix::fs::MetadataExt;
    Some(FileIdentity { device: metadata.dev(), inode: metadata.ino() })
}

#[cfg(not(unix))]
fn identity(_metadata: &fs::Metadata) -> Option<FileIdentity> {
    None
}

#[derive(Debug)]
struct RealFile {
    file: File,
    /// The file system cannot tell whether a read would wait.
    #[cfg(target_os = "linux")]
    always_waits: std::sync::atomic::AtomicBool,
}

impl RealFile {
    fn boxed(file: File) -> Box<dyn VfsFile> {
        Box::new(Self {
            file,
            #[cfg(target_os = "linux")]
            always_waits: false.into(),
        })
    }
}

impl VfsFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::read_at(&self.file, buffer, offset);
        #[cfg(windows)]
        return std::os::windows::fs::FileExt::seek_read(&self.file, buffer, offset);
    }

    #[cfg(target_os = "linux")]
    fn read_at_now(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        use rustix::io::{Errno, ReadWriteFlags, preadv2};
        use std::sync::atomic::Ordering;
        if !self.always_waits.load(Ordering::Relaxed) {
            let mut buffers = [io::IoSliceMut::new(buffer)];
            match preadv2(&self.file, &mut buffers, offset, ReadWriteFlags::NOWAIT) {
                Ok(count) => return Ok(Some(count)),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                    self.always_waits.store(true, Ordering::Relaxed);
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.read_at(buffer, offset).map(Some)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::write_at(&self.file, bytes, offset);
        #[cfg(windows)]
        return std::os::windows::fs::FileExt::seek_write(&self.file, bytes, offset);
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        if self.bytes()? > bytes { self.file.set_len(bytes) } else { Ok(()) }
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Moves the position of the file, which nothing reads: all reads and writes are positioned.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn data_from(&self, offset: u64) -> io::Result<u64> {
        use rustix::fs::{SeekFrom, seek};
        use rustix::io::Errno;
        match seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) => Ok(data),
            Err(Errno::NXIO) => Ok(u64::MAX), // no data behind the offset
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(offset),
            Err(error) => Err(error.into()),
        }
    }

    fn metadata(&self) -> io::Result<Metadata> {
        Ok(known(&self.file.metadata()?))
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut interruptions = 0;
        loop {
            match self.file.try_lock() {
                Ok(()) => return Ok(true),
                Err(TryLockError::WouldBlock) => return Ok(false),
                Err(TryLockError::Error(error))
                    if error.kind() == io::ErrorKind::Interrupted && interruptions < MOST_INTERRUPTIONS =>
                {
                    interruptions += 1;
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// A record lock over the whole file.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn try_process_lock(&self) -> io::Result<bool> {
        use rustix::fs::{FlockOperation, fcntl_lock};
        use rustix::io::Errno;
        let mut interruptions = 0;
        loop {
            match fcntl_lock(&self.file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(true),
                Err(Errno::ACCESS | Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) if interruptions < MOST_INTERRUPTIONS => interruptions += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn process_lock_holder(&self) -> io::Result<Option<super::LockHolder>> {
        use super::LockHolder;
        use rustix::process::{Flock, FlockType, fcntl_getlk};
        let found = fcntl_getlk(&self.file, &Flock::from(FlockType::WriteLock))?;
        let number = |lock: &Flock| u32::try_from(lock.pid?.as_raw_nonzero().get()).ok();
        Ok(found.map(|lock| number(&lock).map_or(LockHolder::Unnamed, LockHolder::Process)))
    }

    /// The system has no call that waits for a lock with a limit, so the lock is tried repeatedly.
    fn lock_within(&self, limit: Duration) -> io::Result<bool> {
        let start = Instant::now();
        let mut pause = Duration::from_micros(200);
        loop {
            match self.try_lock() {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                // many times: the limit still holds
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            let Some(left) = limit.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) else {
                return Ok(false);
            };
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    fn unlock(&self) -> io::Result<()> {
        self.file.unlock()
    }
}

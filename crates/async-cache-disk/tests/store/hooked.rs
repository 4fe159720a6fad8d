//! The fake disk with hooks: a test decides what happens at a sync or at a read.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_cache_disk::fake::FakeDisk;
use async_cache_disk::{Metadata, Vfs, VfsFile};

/// Called with the path of a file.
type Hook<T> = Arc<dyn Fn(&Path) -> T + Send + Sync>;

/// What a read that must not wait does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Now {
    Reads,
    ReadsOneByte,
    WouldWait,
    ReturnsZero,
}

/// The disk.
#[derive(Clone)]
pub(super) struct Hooked {
    pub(super) disk: FakeDisk,
    /// Before a sync of data: an error is the result.
    pub(super) before_sync: Hook<io::Result<()>>,
    /// Before a file is created.
    pub(super) before_create: Hook<()>,
    /// Before a process lock is taken.
    pub(super) before_lock: Hook<()>,
    pub(super) read_now: Hook<Now>,
}

impl Hooked {
    pub(super) fn new(disk: &FakeDisk) -> Self {
        Self {
            disk: disk.clone(),
            before_sync: Arc::new(|_| Ok(())),
            before_create: Arc::new(|_| {}),
            before_lock: Arc::new(|_| {}),
            read_now: Arc::new(|_| Now::Reads),
        }
    }

    pub(super) fn as_vfs(&self) -> Arc<dyn Vfs> {
        Arc::new(self.clone())
    }

    fn file(&self, path: &Path, file: Box<dyn VfsFile>) -> Box<dyn VfsFile> {
        Box::new(HookedFile { hooks: self.clone(), path: path.to_owned(), file })
    }
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooked")
    }
}

impl Vfs for Hooked {
    fn open(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        Ok(self.file(path, self.disk.open(path)?))
    }

    fn open_no_follow(&self, path: &Path) -> io::Result<Option<Box<dyn VfsFile>>> {
        Ok(self.disk.open_no_follow(path)?.map(|file| self.file(path, file)))
    }

    fn read_link(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        self.disk.read_link(path)
    }

    fn user(&self) -> Option<u32> {
        self.disk.user()
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        (self.before_create)(path);
        Ok(self.file(path, self.disk.create_new(path)?))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.disk.metadata(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        self.disk.list(directory)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir(path)
    }

    fn boot_id(&self) -> [u8; 16] {
        self.disk.boot_id()
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.disk.sync_dir(directory)
    }
}

#[derive(Debug)]
struct HookedFile {
    hooks: Hooked,
    path: PathBuf,
    file: Box<dyn VfsFile>,
}

impl VfsFile for HookedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn read_at_now(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        match (self.hooks.read_now)(&self.path) {
            Now::Reads => self.file.read_at(buffer, offset).map(Some),
            Now::ReadsOneByte => self.file.read_at(&mut buffer[..1], offset).map(Some),
            Now::WouldWait => Ok(None),
            Now::ReturnsZero => Ok(Some(0)),
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn sync_data(&self) -> io::Result<()> {
        (self.hooks.before_sync)(&self.path)?;
        self.file.sync_data()
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        self.file.cut(bytes)
    }

    fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }

    fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }

    fn try_process_lock(&self) -> io::Result<bool> {
        (self.hooks.before_lock)(&self.path);
        self.file.try_process_lock()
    }

    fn lock_within(&self, limit: Duration) -> io::Result<bool> {
        self.file.lock_within(limit)
    }

    fn unlock(&self) -> io::Result<()> {
        self.file.unlock()
    }
}

//! A user's own file system, with no other crate than this one. `Vfs` could be named, but not
//! implemented: the types in its methods were in another crate.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use async_cache::{AsyncCache, DiskBackend, FileKind, Metadata, RealDisk, Vfs, VfsFile};

/// The real file system, counting opened files.
#[derive(Debug, Default)]
struct Counting(AtomicUsize);

impl Counting {
    fn count<T>(&self, opened: T) -> T {
        self.0.fetch_add(1, SeqCst);
        opened
    }
}

impl Vfs for Counting {
    fn open(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        self.count(RealDisk.open(path))
    }

    fn open_no_follow(&self, path: &Path) -> io::Result<Option<Box<dyn VfsFile>>> {
        self.count(RealDisk.open_no_follow(path))
    }

    fn read_link(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        RealDisk.read_link(path)
    }

    fn user(&self) -> Option<u32> {
        RealDisk.user()
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        self.count(RealDisk.create_new(path))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let metadata = RealDisk.metadata(path)?;
        assert_ne!(metadata.kind, FileKind::Other);
        Ok(metadata)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        RealDisk.list(directory)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        RealDisk.sync_dir(directory)
    }
}

#[test]
fn a_file_system_of_the_users_own_can_be_implemented() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(Counting::default());
    let open = || -> AsyncCache<u32, u32> {
        let backend = DiskBackend::new(folder.path().join("c")).vfs(Arc::clone(&disk) as Arc<dyn Vfs>);
        AsyncCache::builder().backup(backend).build().unwrap()
    };
    let cache = open();
    cache.set(1, 2);
    cache.save_to_backup().unwrap();
    assert_eq!(open().get(&1), Some(2));
    assert!(disk.0.load(SeqCst) >= 2, "the cache uses it");
}

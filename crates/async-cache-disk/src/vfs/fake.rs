//! A disk in memory that can crash, lose power, fail and fill up. For tests of code that saves
//! through a [`Vfs`].
//!
//! Every call is counted and logged, so a test can run a save once, see the number of calls, and
//! then run the save again for each of them with a crash or a fault there. `image.rs` defines the
//! state after a power loss.
// The fake disk is test support: a panic is a failed test.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]
#![allow(clippy::missing_panics_doc)] // the lock is never poisoned: nothing panics while it is held

mod image;
mod locks;
mod syncs;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{FileIdentity, FileKind, Metadata, Ownership, Vfs, VfsFile};
use image::{Image, NameChange, USER};

/// A disk in memory. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct FakeDisk(Arc<Mutex<FakeState>>);

/// A recorded call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The name of the method of [`Vfs`] or [`VfsFile`].
    pub name: &'static str,
    /// The path of the call; for a file, the path at which it was opened.
    pub path: PathBuf,
}

/// The fault at a chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process dies before the call; the call and all later calls fail.
    Crash,
    /// The process dies in the middle of the call: of a write, a part is done that ends at a page
    /// of the file, as a kernel does it. Other calls are not done.
    TornCrash,
    /// The call is not done and fails with this error.
    Error(io::ErrorKind),
    /// The disk is full: half of a write is done, and every later call that needs room fails.
    Full,
}

/// An error in a form that can be returned again and again.
#[derive(Debug, Clone, Copy)]
enum RepeatableError {
    Kind(io::ErrorKind),
    Number(i32),
}

impl RepeatableError {
    fn to_error(self) -> io::Error {
        match self {
            Self::Kind(kind) => kind.into(),
            Self::Number(number) => io::Error::from_raw_os_error(number),
        }
    }
}

/// The faults of syncs of folders.
#[derive(Debug, Default)]
struct FolderSyncs {
    count: usize,
    failing: Range<usize>,
    /// What a failed sync of this folder has lost stays lost.
    forgetful: Option<PathBuf>,
}

#[derive(Debug)]
struct FakeState {
    image: Image,
    call_count: usize,
    /// `None`: calls are counted and not kept.
    calls: Option<Vec<Call>>,
    faults: BTreeMap<usize, Fault>,
    failing: BTreeMap<&'static str, RepeatableError>,
    crashed: bool,
    full: bool,
    folder_syncs: FolderSyncs,
    /// How many bytes files may have in all.
    capacity: u64,
    now: Duration,
    /// Distinguishes this disk from all others.
    device: u64,
}

/// Lets files and processes keep only this many deletes, for saves and deletes of this thread: so
/// that a short history includes forgotten deletes.
pub fn keep_deletes(most: usize) {
    crate::tombstones::MOST_DELETES.set(most);
}

impl FakeDisk {
    /// An empty disk with a root directory.
    pub fn new() -> Self {
        Self::from_image(Image::new())
    }

    fn from_image(image: Image) -> Self {
        Self(Arc::new(Mutex::new(FakeState {
            image,
            call_count: 0,
            calls: Some(Vec::new()),
            faults: BTreeMap::new(),
            failing: BTreeMap::new(),
            crashed: false,
            full: false,
            folder_syncs: FolderSyncs::default(),
            capacity: u64::MAX,
            now: Duration::ZERO,
            device: image::next_device(),
        })))
    }

    /// The disk as an argument for this crate's functions.
    pub fn as_vfs(&self) -> Arc<dyn Vfs> {
        Arc::new(self.clone())
    }

    /// Injects a fault at the call with this number, counting from 0.
    pub fn inject(&self, call: usize, fault: Fault) {
        self.state().faults.insert(call, fault);
    }

    /// Makes every call with this name fail from now on.
    pub fn fail_every(&self, name: &'static str, error: io::ErrorKind) {
        self.state().failing.insert(name, RepeatableError::Kind(error));
    }

    /// Makes every call with this name fail from now on with an error number of the system.
    pub fn fail_every_as(&self, name: &'static str, number: i32) {
        self.state().failing.insert(name, RepeatableError::Number(number));
    }

    /// Ends all faults except crashes, and forgets the calls made so far.
    pub fn repair(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.failing.clear();
        state.call_count = 0;
        if let Some(calls) = &mut state.calls {
            calls.clear();
        }
        state.full = false;
    }

    /// Limits the disk to this many bytes in all files, including open files without a name. A
    /// write that needs more fails.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// The number of bytes in all files, including open files without a name.
    pub fn bytes_in_use(&self) -> u64 {
        self.state().image.bytes_in_use()
    }

    /// Keeps no log from now on, for tests that watch the memory.
    pub fn keep_no_log(&self) {
        self.state().calls = None;
    }

    /// The calls made so far.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone().unwrap_or_default()
    }

    /// Lets time pass, as far as the age of files is concerned.
    pub fn advance(&self, time: Duration) {
        self.state().now += time;
    }

    /// Puts a file there, durably, directories included.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.state();
        let now = state.now;
        state.image.put(path, bytes, now);
    }

    /// Makes a directory, durably.
    pub fn put_dir(&self, path: &Path) {
        self.state().image.put_dir(path);
    }

    /// Puts a symlink there, durably, directories included.
    pub fn put_link(&self, path: &Path, target: &Path) {
        self.state().image.put_link(path, target);
    }

    /// Gives a file or a directory to a user (the process itself is [`Vfs::user`]), with these
    /// permission bits and this many names. If there is none, nothing happens.
    pub fn set_ownership(&self, path: &Path, ownership: Ownership) {
        let mut state = self.state();
        if let Some(inode) = state.image.find(path) {
            state.image.inode(inode).ownership = ownership;
        }
    }

    /// Changes the content of an existing file in place, also for handles that have the file open.
    /// If there is none, nothing happens.
    pub fn overwrite(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.state();
        if let Some(inode) = state.image.find(path) {
            bytes.clone_into(&mut state.image.inode(inode).live);
        }
    }

    /// The content of a file.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let mut state = self.state();
        let inode = state.image.find(path)?;
        Some(state.image.inode(inode).live.clone())
    }

    /// The paths of all files, in order.
    pub fn files(&self) -> Vec<PathBuf> {
        self.state().image.files()
    }

    /// The possible disks after a restart at this moment: first the disk left by a dead process,
    /// then every disk that a power loss may leave. Each with a description.
    pub fn survivors(&self) -> Vec<(String, FakeDisk)> {
        let survivors = self.state().image.survivors();
        survivors.into_iter().map(|(name, image)| (name, Self::from_image(image))).collect()
    }

    fn state(&self) -> MutexGuard<'_, FakeState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, name: &'static str, path: &Path) -> io::Result<MutexGuard<'_, FakeState>> {
        let mut state = self.state();
        match state.begin(name, path)? {
            Extent::Whole => Ok(state),
            Extent::Half => Err(state.half_done()),
        }
    }
}

impl Default for FakeDisk {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    Half,
}

impl FakeState {
    /// Logs a call and returns how much of it is to be done.
    fn begin(&mut self, name: &'static str, path: &Path) -> io::Result<Extent> {
        if self.crashed {
            return Err(crash());
        }
        let number = self.call_count;
        self.call_count += 1;
        if let Some(calls) = &mut self.calls {
            calls.push(Call { name, path: path.to_owned() });
        }
        if let Some(error) = self.failing.get(name) {
            return Err(error.to_error());
        }
        let needs_room = matches!(name, "write_at" | "create_new" | "create_dir");
        match self.faults.get(&number) {
            Some(Fault::Crash) => {
                self.crashed = true;
                Err(crash())
            }
            Some(Fault::TornCrash) => {
                self.crashed = true;
                Ok(Extent::Half)
            }
            Some(Fault::Error(error)) => Err((*error).into()),
            Some(Fault::Full) => {
                self.full = true;
                Ok(Extent::Half)
            }
            None if self.full && needs_room => Err(io::ErrorKind::StorageFull.into()),
            None => Ok(Extent::Whole),
        }
    }

    fn metadata_of(&mut self, number: usize) -> Metadata {
        let (now, device) = (self.now, self.device);
        let inode = self.image.inode(number);
        Metadata {
            kind: inode.kind,
            bytes: inode.live.len() as u64,
            age: now.saturating_sub(inode.written_at),
            ownership: Some(inode.ownership),
            identity: Some(FileIdentity { device, inode: number as u64 }),
        }
    }

    fn half_done(&self) -> io::Error {
        if self.crashed { crash() } else { io::ErrorKind::StorageFull.into() }
    }
}

fn crash() -> io::Error {
    io::Error::other("the process is dead")
}

impl Vfs for FakeDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        let inode = self.call("open", path)?.image.follow(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(inode, path))
    }

    fn open_no_follow(&self, path: &Path) -> io::Result<Option<Box<dyn VfsFile>>> {
        let mut state = self.call("open", path)?;
        let inode = state.image.find(path).ok_or(io::ErrorKind::NotFound)?;
        let is_link = state.image.inode(inode).link.is_some();
        drop(state);
        Ok((!is_link).then(|| self.handle(inode, path)))
    }

    fn read_link(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        let mut state = self.call("read_link", path)?;
        let inode = state.image.find(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(state.image.inode(inode).link.clone())
    }

    fn user(&self) -> Option<u32> {
        Some(USER)
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        let mut state = self.call("create_new", path)?;
        let now = state.now;
        let inode = state.image.create(path, FileKind::File, now)?;
        drop(state);
        Ok(self.handle(inode, path))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let mut state = self.call("metadata", path)?;
        let inode = state.image.follow(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(state.metadata_of(inode))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        Ok(self.call("list", directory)?.image.list(directory))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.call("rename", to)?;
        let inode = state.image.find(from).ok_or(io::ErrorKind::NotFound)?;
        state.image.change(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), inode });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.call("remove", path)?;
        state.image.find(path).ok_or(io::ErrorKind::NotFound)?;
        state.image.change(NameChange::Unlink { path: path.to_owned() });
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.call("create_dir", path)?;
        let now = state.now;
        state.image.create(path, FileKind::Directory, now).map(|_| ())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.call("remove_dir", path)?.image.remove_dir(path)
    }

    fn boot_id(&self) -> [u8; 16] {
        self.state().image.boot_id()
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.sync_folder(directory)
    }
}

/// How much of a write is done when the process is killed: the write ends at the page nearest to
/// its half.
fn torn(offset: u64, len: usize) -> usize {
    const PAGE: u64 = 4096;
    let end = offset + len as u64;
    let half = offset + len as u64 / 2;
    let page = [half / PAGE * PAGE, half.next_multiple_of(PAGE)]
        .into_iter()
        .find(|page| (offset..end).contains(page));
    page.map_or(0, |page| usize::try_from(page - offset).unwrap())
}

impl FakeDisk {
    fn handle(&self, inode: usize, path: &Path) -> Box<dyn VfsFile> {
        self.state().image.inode(inode).handles += 1;
        Box::new(FakeFile {
            disk: self.clone(),
            inode,
            path: path.to_owned(),
            has_lock: AtomicBool::new(false),
        })
    }
}

#[derive(Debug)]
struct FakeFile {
    disk: FakeDisk,
    inode: usize,
    path: PathBuf,
    has_lock: AtomicBool,
}

impl VfsFile for FakeFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.call("read_at", &self.path)?;
        let live = &state.image.inode(self.inode).live;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(live.len());
        let count = buffer.len().min(live.len() - start);
        buffer[..count].copy_from_slice(&live[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        let extent = state.begin("write_at", &self.path)?;
        let now = state.now;
        let count = match extent {
            Extent::Whole => bytes.len(),
            Extent::Half if state.crashed => torn(offset, bytes.len()),
            Extent::Half => bytes.len() / 2,
        };
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::StorageFull)?;
        let len = state.image.inode(self.inode).live.len();
        let end = len.max(start + count);
        if end > len && state.capacity < u64::MAX {
            let grown = state.image.bytes_in_use() + (end - len) as u64;
            if grown > state.capacity {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let inode = state.image.inode(self.inode);
        inode.live.resize(end, 0);
        inode.live[start..start + count].copy_from_slice(&bytes[..count]);
        inode.written_at = now;
        if state.crashed || count == 0 { Err(state.half_done()) } else { Ok(count) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.call("sync", &self.path)?;
        let inode = state.image.inode(self.inode);
        inode.durable.clone_from(&inode.live);
        Ok(())
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.call("cut", &self.path)?;
        state.image.inode(self.inode).live.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        let mut state = self.disk.call("bytes", &self.path)?;
        Ok(state.image.inode(self.inode).live.len() as u64)
    }

    fn metadata(&self) -> io::Result<Metadata> {
        Ok(self.disk.call("metadata", &self.path)?.metadata_of(self.inode))
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut state = self.disk.call("try_lock", &self.path)?;
        let free = !std::mem::replace(&mut state.image.inode(self.inode).locked, true);
        self.has_lock.fetch_or(free, Ordering::Relaxed);
        Ok(free)
    }

    fn try_process_lock(&self) -> io::Result<bool> {
        let mut state = self.disk.call("try_lock", &self.path)?;
        Ok(state.image.inode(self.inode).take_process_lock())
    }

    /// Not counted as a call: closing the file does the same.
    fn unlock(&self) -> io::Result<()> {
        if self.has_lock.swap(false, Ordering::Relaxed) {
            self.disk.state().image.inode(self.inode).locked = false;
        }
        Ok(())
    }

    /// As if the time had passed already.
    fn lock_within(&self, _limit: Duration) -> io::Result<bool> {
        self.try_lock()
    }
}

impl Drop for FakeFile {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        let inode = state.image.inode(self.inode);
        inode.handles -= 1;
        inode.release_process_lock();
        if self.has_lock.load(Ordering::Relaxed) {
            inode.locked = false;
        }
    }
}

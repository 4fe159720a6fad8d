//! The content of the fake disk, twice: as running processes see it (live) and as guaranteed after
//! a power loss (durable). Names and contents become durable separately.
//!
//! Between two syncs, a power loss may keep any of the changes to names. Of the contents it may
//! keep old, new or mixed sectors, zeros, garbage, or a piece from the front. [`Image::survivors`]
//! goes through them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{FileKind, Ownership};

/// The user that runs the process on this disk.
pub(super) const USER: u32 = 1000;
const SECTOR_BYTES: usize = 512;
/// With more unsynced changes to names than this, only subsets that keep their order are tried.
const MOST_SUBSETS: usize = 6;

/// A number for each disk.
pub(super) fn next_device() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(1);
    LAST.fetch_add(1, Ordering::Relaxed)
}

#[derive(Debug, Clone)]
pub(super) struct Image {
    inodes: Vec<Inode>,
    live_names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    unsynced: Vec<UnsyncedChange>,
    /// How often the system has been started again.
    boots: u8,
}

#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) kind: FileKind,
    pub(super) live: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) locked: bool,
    pub(super) process_lock: ProcessLock,
    /// The number of open handles: a file without a name takes room until its last handle is
    /// closed.
    pub(super) handles: usize,
    pub(super) written_at: Duration,
    /// The target, if this is a symlink.
    pub(super) link: Option<PathBuf>,
    pub(super) ownership: Ownership,
}

/// Who has the lock of a process on a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProcessLock {
    Free,
    Ours,
    /// Another process has it.
    Others,
}

#[derive(Debug, Clone)]
pub(super) enum NameChange {
    Link { path: PathBuf, inode: usize },
    Unlink { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf, inode: usize },
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Link { path, inode } => {
                names.insert(path.clone(), *inode);
            }
            Self::Unlink { path } => {
                names.remove(path);
            }
            Self::Rename { from, to, inode } => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
        }
    }

    /// The path that is another file from then on, or none.
    fn path(&self) -> &Path {
        match self {
            Self::Link { path, .. } | Self::Unlink { path } | Self::Rename { to: path, .. } => path,
        }
    }
}

/// A change to names that is not durable.
#[derive(Debug, Clone)]
struct UnsyncedChange {
    change: NameChange,
    /// A sync of the folder has failed: no later sync makes the change durable.
    is_lost: bool,
}

/// The state of unsynced contents after a power loss.
#[derive(Debug, Clone, Copy)]
enum Unsynced {
    Synced,
    All,
    FrontHalf,
    OddSectors,
    EvenSectors,
    Zeros,
    Garbage,
}

impl Unsynced {
    const ALL: [Self; 7] = [
        Self::Synced,
        Self::All,
        Self::FrontHalf,
        Self::OddSectors,
        Self::EvenSectors,
        Self::Zeros,
        Self::Garbage,
    ];

    fn of(self, inode: &Inode) -> Vec<u8> {
        let (live, durable) = (&inode.live, &inode.durable);
        let sector = |start: usize, from: &[u8]| -> Vec<u8> {
            let end = (start + SECTOR_BYTES).min(live.len());
            (start..end).map(|i| from.get(i).copied().unwrap_or(0)).collect()
        };
        let mix = |keep: &dyn Fn(usize) -> Option<Vec<u8>>| -> Vec<u8> {
            (0..live.len())
                .step_by(SECTOR_BYTES)
                .flat_map(|start| {
                    let changed = sector(start, live) != sector(start, durable);
                    keep(start).filter(|_| changed).unwrap_or_else(|| sector(start, durable))
                })
                .collect()
        };
        // A sector is written whole or not at all: what was durable and has not changed stays.
        let lost = |start: usize, with: u8| -> Vec<u8> {
            let both = (start..).zip(sector(start, live));
            both.map(|(i, byte)| if durable.get(i) == Some(&byte) { byte } else { with }).collect()
        };
        let parity = |odd: usize| move |start: usize| start / SECTOR_BYTES % 2 == odd;
        match self {
            _ if live == durable => durable.clone(),
            Self::Synced => durable.clone(),
            Self::All => live.clone(),
            Self::FrontHalf => live[..usize::midpoint(durable.len().min(live.len()), live.len())].to_vec(),
            Self::OddSectors => mix(&|start| parity(1)(start).then(|| sector(start, live))),
            Self::EvenSectors => mix(&|start| parity(0)(start).then(|| sector(start, live))),
            Self::Zeros => mix(&|start| Some(lost(start, 0))),
            Self::Garbage => mix(&|start| Some(lost(start, 0xA5))),
        }
    }
}

impl UnsyncedChange {
    fn is_in(&self, directory: &Path) -> bool {
        self.change.path().parent() == Some(directory)
    }
}

impl Image {
    pub(super) fn new() -> Self {
        let mut image = Self {
            inodes: Vec::new(),
            live_names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced: Vec::new(),
            boots: 1,
        };
        image.put_dir(Path::new("/"));
        image
    }

    pub(super) fn inode(&mut self, inode: usize) -> &mut Inode {
        &mut self.inodes[inode]
    }

    pub(super) fn find(&self, path: &Path) -> Option<usize> {
        self.live_names.get(path).copied()
    }

    /// The file at a path, with symlinks followed.
    pub(super) fn follow(&self, path: &Path) -> Option<usize> {
        let mut path = path.to_owned();
        for _ in 0..40 {
            let inode = self.find(&path)?;
            let Some(link) = &self.inodes[inode].link else { return Some(inode) };
            path = path.parent()?.join(link);
        }
        None
    }

    pub(super) fn put_link(&mut self, path: &Path, target: &Path) {
        if let Some(folder) = path.parent() {
            self.put_dir(folder);
        }
        let link = Some(target.to_owned());
        self.inodes.push(Inode { link, ..Inode::empty(FileKind::Other, Duration::ZERO) });
        self.name_durably(path);
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        let files = self.live_names.iter().filter(|(_, inode)| self.inodes[**inode].kind == FileKind::File);
        files.map(|(path, _)| path.clone()).collect()
    }

    /// The number of bytes in files that have a name or are open.
    pub(super) fn bytes_in_use(&self) -> u64 {
        let named: BTreeSet<usize> = self.live_names.values().copied().collect();
        let used = self.inodes.iter().enumerate();
        let used = used.filter(|(number, inode)| inode.handles > 0 || named.contains(number));
        used.map(|(_, inode)| inode.live.len() as u64).sum()
    }

    pub(super) fn list(&self, directory: &Path) -> Vec<OsString> {
        let inside = self.live_names.keys().filter(|path| path.parent() == Some(directory));
        inside.filter_map(|path| path.file_name().map(OsString::from)).collect()
    }

    pub(super) fn put(&mut self, path: &Path, bytes: &[u8], now: Duration) {
        if let Some(folder) = path.parent() {
            self.put_dir(folder);
        }
        let (live, durable) = (bytes.to_vec(), bytes.to_vec());
        self.inodes.push(Inode { live, durable, ..Inode::empty(FileKind::File, now) });
        self.name_durably(path);
    }

    pub(super) fn put_dir(&mut self, path: &Path) {
        for folder in path.ancestors() {
            if !self.durable_names.contains_key(folder) {
                self.inodes.push(Inode::empty(FileKind::Directory, Duration::ZERO));
                self.name_durably(folder);
            }
        }
    }

    fn name_durably(&mut self, path: &Path) {
        let inode = self.inodes.len() - 1;
        self.live_names.insert(path.to_owned(), inode);
        self.durable_names.insert(path.to_owned(), inode);
    }

    pub(super) fn create(&mut self, path: &Path, kind: FileKind, now: Duration) -> io::Result<usize> {
        if self.find(path).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let folder = path.parent().and_then(|folder| self.find(folder)).ok_or(io::ErrorKind::NotFound)?;
        if self.inodes[folder].kind != FileKind::Directory {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let inode = self.inodes.len();
        self.inodes.push(Inode::empty(kind, now));
        self.change(NameChange::Link { path: path.to_owned(), inode });
        Ok(inode)
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        let inode = self.find(path).ok_or(io::ErrorKind::NotFound)?;
        if self.inodes[inode].kind != FileKind::Directory {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        if !self.list(path).is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.change(NameChange::Unlink { path: path.to_owned() });
        Ok(())
    }

    pub(super) fn change(&mut self, change: NameChange) {
        change.apply(&mut self.live_names);
        self.unsynced.push(UnsyncedChange { change, is_lost: false });
    }

    pub(super) fn sync_dir(&mut self, directory: &Path) {
        let is_synced = |unsynced: &mut UnsyncedChange| !unsynced.is_lost && unsynced.is_in(directory);
        let synced: Vec<_> = self.unsynced.extract_if(.., is_synced).collect();
        for UnsyncedChange { change, .. } in &synced {
            change.apply(&mut self.durable_names);
        }
        // A later change of the same path is durable.
        let is_outdated = |path: &Path| synced.iter().any(|later| later.change.path() == path);
        self.unsynced.retain(|unsynced| !unsynced.is_lost || !is_outdated(unsynced.change.path()));
    }

    /// A sync of a folder has failed, and no later sync makes these changes durable: a system may
    /// count a failed write as written.
    pub(super) fn lose_names(&mut self, directory: &Path) {
        for unsynced in self.unsynced.iter_mut().filter(|unsynced| unsynced.is_in(directory)) {
            unsynced.is_lost = true;
        }
    }

    /// Every disk that a restart may find.
    pub(super) fn survivors(&self) -> Vec<(String, Self)> {
        let dead_process = (
            String::from("the process died"),
            self.restarted(self.live_names.clone(), Unsynced::All, self.boots),
        );
        let mut survivors = vec![dead_process];
        for kept in self.subsets() {
            let mut names = self.durable_names.clone();
            for (unsynced, _) in self.unsynced.iter().zip(&kept).filter(|(_, kept)| **kept) {
                unsynced.change.apply(&mut names);
            }
            for contents in Unsynced::ALL {
                let name = format!("power loss; of {:?} kept {kept:?}; contents {contents:?}", self.unsynced);
                survivors.push((name, self.restarted(names.clone(), contents, self.boots.wrapping_add(1))));
            }
        }
        survivors
    }

    /// Which of the unsynced changes to names are kept.
    fn subsets(&self) -> Vec<Vec<bool>> {
        let count = self.unsynced.len();
        if count > MOST_SUBSETS {
            return (0..=count).map(|kept| (0..count).map(|i| i < kept).collect()).collect();
        }
        (0..1usize << count).map(|bits| (0..count).map(|i| bits >> i & 1 == 1).collect()).collect()
    }

    pub(super) fn boot_id(&self) -> [u8; 16] {
        [self.boots; 16]
    }

    fn restarted(&self, mut names: BTreeMap<PathBuf, usize>, contents: Unsynced, boots: u8) -> Self {
        let all = names.clone();
        names.retain(|path, _| path.ancestors().all(|folder| all.contains_key(folder)));
        let inodes = self.inodes.iter().map(|inode| {
            let bytes = contents.of(inode);
            Inode {
                live: bytes.clone(),
                durable: bytes,
                locked: false,
                process_lock: ProcessLock::Free,
                handles: 0,
                link: inode.link.clone(),
                ..*inode
            }
        });
        let inodes = inodes.collect();
        Self { inodes, durable_names: names.clone(), live_names: names, unsynced: Vec::new(), boots }
    }
}

impl Inode {
    fn empty(kind: FileKind, written_at: Duration) -> Self {
        let mode = if kind == FileKind::Directory { 0o755 } else { 0o600 };
        let ownership = Ownership { owner: USER, mode, links: 1 };
        let (live, durable, locked, handles) = (Vec::new(), Vec::new(), false, 0);
        let process_lock = ProcessLock::Free;
        Self { kind, live, durable, locked, process_lock, handles, written_at, link: None, ownership }
    }

    /// Takes the lock of this process, unless another process has it.
    pub(super) fn take_process_lock(&mut self) -> bool {
        let is_free = self.process_lock != ProcessLock::Others;
        if is_free {
            self.process_lock = ProcessLock::Ours;
        }
        is_free
    }

    /// This process closes a handle, whichever it is.
    pub(super) fn release_process_lock(&mut self) {
        if self.process_lock == ProcessLock::Ours {
            self.process_lock = ProcessLock::Free;
        }
    }

    pub(super) fn lock_elsewhere(&mut self) -> bool {
        if self.process_lock == ProcessLock::Free {
            self.process_lock = ProcessLock::Others;
        }
        self.process_lock == ProcessLock::Others
    }

    pub(super) fn unlock_elsewhere(&mut self) {
        if self.process_lock == ProcessLock::Others {
            self.process_lock = ProcessLock::Free;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_synced_may_be_lost_and_what_is_synced_may_not() {
        let mut image = Image::new();
        let path = Path::new("/file");
        let inode = image.create(path, FileKind::File, Duration::ZERO).unwrap();
        image.inode(inode).live = vec![1; 2000];
        let outcomes = |image: &Image| -> Vec<Option<Vec<u8>>> {
            let survivors = image.survivors();
            survivors
                .iter()
                .map(|(_, image)| image.find(path).map(|i| image.inodes[i].live.clone()))
                .collect()
        };
        let before = outcomes(&image);
        assert!(
            before.contains(&None)
                && before.contains(&Some(Vec::new()))
                && before.contains(&Some(vec![0; 2000]))
        );
        assert!(before.contains(&Some(vec![1; 1000])) && before.contains(&Some(vec![1; 2000])));

        let file = image.inode(inode);
        file.durable = file.live.clone();
        assert!(outcomes(&image).iter().all(|outcome| outcome.is_none() || outcome == &Some(vec![1; 2000])));
        image.sync_dir(Path::new("/"));
        assert!(outcomes(&image).iter().all(|outcome| outcome == &Some(vec![1; 2000])));
    }

    #[test]
    fn what_a_failed_sync_has_lost_is_durable_once_it_is_done_anew() {
        let mut image = Image::new();
        let [path, other] = ["/file", "/other"].map(Path::new);
        let is_there =
            |image: &Image, path| image.survivors().iter().all(|(_, image)| image.find(path).is_some());
        image.create(path, FileKind::File, Duration::ZERO).unwrap();
        image.lose_names(Path::new("/"));
        let inode = image.create(other, FileKind::File, Duration::ZERO).unwrap();
        image.sync_dir(Path::new("/"));
        assert!(is_there(&image, other) && !is_there(&image, path));
        image.change(NameChange::Rename { from: other.to_owned(), to: path.to_owned(), inode });
        image.sync_dir(Path::new("/"));
        assert!(image.survivors().iter().all(|(_, image)| image.find(path) == Some(inode)));
    }
}

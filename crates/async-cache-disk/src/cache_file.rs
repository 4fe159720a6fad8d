//! A cache file: its path, its file system, and the settings for reading and writing it.
//!
//! Invariant: an operation follows the symlinks of the path once, when it begins, and keeps to that
//! place ([`Site`]). Two operations may find two places, if a link was exchanged in between.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clear;
use crate::compress::Compression;
use crate::error::DiskError;
use crate::locked::LockedFile;
use crate::save::Save;
use crate::secret::Secret;
use crate::settings::Settings;
use crate::snapshot::Snapshot;
use crate::store::view::list::stores;
use crate::store::{DiskStore, FoundStore, StoreOptions, StoreView};
use crate::trust::{Owners, Site};
use crate::verify::{self, Report};
use crate::vfs::Vfs;
use crate::writer::{WriteOptions, Writer};

/// A cache file, which need not exist yet. Clones are cheap, and a value may be kept for as long as
/// the program runs.
///
/// A symlink at the path is followed if only this user and root can have put it there. Every
/// operation follows the link anew, and keeps to a single file from its beginning to its end: a
/// save locks, reads and replaces the same file even if the link is exchanged meanwhile.
#[derive(Debug, Clone)]
pub struct CacheFile {
    vfs: Arc<dyn Vfs>,
    path: PathBuf,
    settings: Settings,
}

impl CacheFile {
    /// The file at `path`. Data of every version is opened; nothing is compressed, and there is no
    /// secret. Nothing is opened yet.
    pub fn new(vfs: Arc<dyn Vfs>, path: impl Into<PathBuf>) -> Self {
        Self { vfs, path: path.into(), settings: Settings::with_secret(None) }
    }

    /// Opens only data with this tag, which names the shape of the data (at most 255 bytes), and
    /// writes the tag into files.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.settings.version = Some(version.into());
        self
    }

    /// Opens data of every version, and writes an empty tag.
    #[must_use]
    pub fn any_version(mut self) -> Self {
        self.settings.version = None;
        self
    }

    /// Opens only files written with this secret (`None`: without a secret), and writes with it:
    /// only programs that know the secret can open the file, or could have made it. A save sets
    /// aside a file at the path with another secret, or with none.
    #[must_use]
    pub fn secret(mut self, secret: impl Into<Option<Secret>>) -> Self {
        self.settings.secret = secret.into();
        self
    }

    /// Compresses the values that are written. Files are opened with any compression.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.settings.compression = compression;
        self
    }

    /// Describes the program that writes the file (at most 255 bytes); for people who inspect the
    /// file.
    #[must_use]
    pub fn producer(mut self, producer: impl Into<String>) -> Self {
        self.settings.producer = producer.into();
        self
    }

    /// Also opens files that another user owns or can write to: for tools that look at files. The
    /// contents may be made to deceive: serve nothing from such a file, and run nothing.
    #[must_use]
    pub fn of_any_owner(mut self) -> Self {
        self.settings.owners = Owners::Anybody;
        self
    }

    /// Also opens a truncated file, as after an interrupted copy: for tools that save the intact
    /// entries. The missing part cannot be read, as if it were damaged. A cache must not serve the
    /// rest: the index may lack newer records of the remaining keys.
    #[must_use]
    pub fn even_if_cut(mut self) -> Self {
        self.settings.may_be_cut = true;
        self
    }

    /// Keeps the file on another file system.
    #[must_use]
    pub fn on(mut self, vfs: Arc<dyn Vfs>) -> Self {
        self.vfs = vfs;
        self
    }

    /// The file at another path, with the same settings.
    #[must_use]
    pub fn at(&self, path: impl Into<PathBuf>) -> Self {
        Self { vfs: Arc::clone(&self.vfs), path: path.into(), settings: self.settings.clone() }
    }

    /// The path, as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file system.
    pub fn vfs(&self) -> &Arc<dyn Vfs> {
        &self.vfs
    }

    /// The tag given to [`version`](Self::version).
    pub fn version_tag(&self) -> Option<&str> {
        self.settings.version.as_deref()
    }

    /// Opens the snapshot, if it matches the settings. `Ok(None)`: there is no file, or an empty
    /// file. The cost does not depend on the number of entries.
    ///
    /// # Errors
    /// [`Foreign`](crate::DiskErrorKind::Foreign), [`Damaged`](crate::DiskErrorKind::Damaged),
    /// [`Newer`](crate::DiskErrorKind::Newer), [`Trust`](crate::DiskErrorKind::Trust) and
    /// [`OtherVersion`](crate::DiskErrorKind::OtherVersion): the file counts as an empty cache.
    /// [`NotAFile`](crate::DiskErrorKind::NotAFile) and [`Io`](crate::DiskErrorKind::Io): the file
    /// could not be read.
    pub fn open(&self) -> Result<Option<Snapshot>, DiskError> {
        Snapshot::open_at(&self.site()?, &self.settings)
    }

    /// Reads the whole file, if it matches the settings, and lists every fault. With a secret,
    /// everything that was not written with the secret is a fault.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), and [`Missing`](crate::DiskErrorKind::Missing) if there is no
    /// snapshot.
    pub fn verify(&self) -> Result<Report, DiskError> {
        match self.open()? {
            Some(snapshot) => Ok(verify::walk(&snapshot)),
            None => Err(verify::missing(&self.path)),
        }
    }

    /// Begins a file that will replace the file at the path. Takes no lock; see
    /// [`LockedFile::write`] and [`begin`](Self::begin).
    ///
    /// # Errors
    /// [`NotAFile`](crate::DiskErrorKind::NotAFile) if the path is a directory or names no file, or
    /// if a parent is no directory; [`Limit`](crate::DiskErrorKind::Limit) if a label is too long;
    /// [`Io`](crate::DiskErrorKind::Io) and [`Full`](crate::DiskErrorKind::Full).
    pub fn write(&self, options: WriteOptions) -> Result<Writer, DiskError> {
        Writer::create(&self.site()?, &self.settings, options)
    }

    /// Takes the lock of the file's saves, waiting for `limit` at most. Missing parent folders are
    /// created.
    ///
    /// # Errors
    /// [`Locked`](crate::DiskErrorKind::Locked) if another process held the lock all that time;
    /// [`NotAFile`](crate::DiskErrorKind::NotAFile) if the path names no file, or if something
    /// other than a file has the lock's name; [`Trust`](crate::DiskErrorKind::Trust) if the lock
    /// file is a symlink, or another user's; [`Io`](crate::DiskErrorKind::Io). A file system
    /// without locks is no error:
    /// [`SavedFile::without_locks`](crate::SavedFile::without_locks) reports it.
    pub fn lock(&self, limit: Duration) -> Result<LockedFile, DiskError> {
        LockedFile::take(self.site()?, self.settings.clone(), limit)
    }

    /// Begins a save of a whole cache. With a limit, the save merges with the saves of other
    /// processes: it takes the lock, waiting for `limit` at most, and opens the file at the path.
    /// `None` replaces the file, and takes no lock.
    ///
    /// # Errors
    /// Those of [`lock`](Self::lock), and [`Io`](crate::DiskErrorKind::Io) if the file at the path
    /// cannot be read. A file that does not match the settings, or is not trusted, is no error:
    /// [`Save::refusal`] says why it will not be merged.
    pub fn begin(&self, merge: Option<Duration>) -> Result<Save, DiskError> {
        Save::begin(self.site()?, self.settings.clone(), merge)
    }

    /// Removes the snapshot, of any version and secret, durably; returns whether there was a
    /// snapshot. A file that is not a cache file is left unchanged.
    ///
    /// With a limit, the lock is taken first, waiting up to the limit. Otherwise, a save of another
    /// process that has already read the file would put its entries back. (Entries in the memory of
    /// a process are written by its next save all the same.) `None` is for paths whose saves take
    /// no lock.
    ///
    /// # Errors
    /// [`NotAFile`](crate::DiskErrorKind::NotAFile) and [`Io`](crate::DiskErrorKind::Io);
    /// [`Trust`](crate::DiskErrorKind::Trust) if the file is another user's, if everybody can write
    /// to it, or if it is a symlink that is not followed: then it stays. If the folder could not be
    /// synced, the file is gone, but may be back after a power loss. With a limit also those of
    /// [`lock`](Self::lock): then nothing has changed.
    pub fn clear(&self, limit: Option<Duration>) -> Result<bool, DiskError> {
        clear::clear(&self.site()?, limit)
    }

    /// Opens the store of the file, or begins one: every write is kept in a folder beside the file.
    /// `now`: the wall clock, in nanoseconds since the Unix epoch.
    ///
    /// # Errors
    /// [`Locked`](crate::DiskErrorKind::Locked) if another process writes to the store, or this
    /// process has it open already, or if the file system has no locks;
    /// [`Trust`](crate::DiskErrorKind::Trust) if another user owns the folder or can write to it;
    /// [`NotAFile`](crate::DiskErrorKind::NotAFile), [`Io`](crate::DiskErrorKind::Io) and
    /// [`Full`](crate::DiskErrorKind::Full). A damaged store is no error: what cannot be read is a
    /// miss.
    pub fn store(&self, options: StoreOptions, now: u64) -> Result<DiskStore, DiskError> {
        DiskStore::open_at(&self.site()?, &self.settings, options, now)
    }

    /// Reads the store of the file as it is now, without its lock, and also while another process
    /// writes to it. Nothing is changed. `None`: there is no store. `now` as for
    /// [`store`](Self::store).
    ///
    /// # Errors
    /// Those of [`open`](Self::open), for the manifest of the store: a cache that opens the store
    /// starts empty then. [`Trust`](crate::DiskErrorKind::Trust) if another user owns the folder or
    /// can write to it; [`Locked`](crate::DiskErrorKind::Locked) if a process changed the store
    /// each time that it was read.
    pub fn store_view(&self, now: u64) -> Result<Option<StoreView>, DiskError> {
        StoreView::open_at(&self.site()?, &self.settings, now)
    }

    /// The stores beside the file: one for each version tag and secret. Stores with another secret
    /// than this file have an error in place of their version tag.
    ///
    /// # Errors
    /// [`Io`](crate::DiskErrorKind::Io) and [`NotAFile`](crate::DiskErrorKind::NotAFile).
    pub fn stores(&self) -> Result<Vec<FoundStore>, DiskError> {
        stores(&self.site()?, &self.settings)
    }

    fn site(&self) -> Result<Site, DiskError> {
        Site::resolve(&self.vfs, &self.path)
    }
}

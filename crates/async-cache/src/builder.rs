//! How a cache is made.

use std::fmt;
use std::hash::Hash;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_cache_core::order::Eviction;
use async_cache_disk::DiskErrorKind;

use crate::autosave::{AtEnd, Autosave};
use crate::backup::{Backup, CacheBackend, Kind};
use crate::cache::{AsyncCache, Shared};
use crate::clock::Clock;
use crate::error::{BackupError, BuildError};
use crate::inner::{Inner, default_shards};
use crate::restore::Opening;

/// Makes an [`AsyncCache`]; from [`AsyncCache::builder`].
#[must_use = "nothing is made before `build`"]
pub struct Builder<K, V> {
    maxsize: Option<usize>,
    default_ttl: Option<Duration>,
    eviction: Eviction,
    shards: Option<usize>,
    clock: Clock,
    backup: Option<Backup<K, V>>,
    autosave: Option<Duration>,
    at_end: AtEnd,
}

impl<K, V> fmt::Debug for Builder<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("maxsize", &self.maxsize)
            .field("default_ttl", &self.default_ttl)
            .field("eviction", &self.eviction)
            .field("shards", &self.shards)
            .field("backup", &self.backup)
            .field("autosave", &self.autosave)
            .field("at_end", &self.at_end)
            .finish_non_exhaustive()
    }
}

impl<K, V> Builder<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new() -> Self {
        Self {
            maxsize: None,
            default_ttl: None,
            eviction: Eviction::default(),
            shards: None,
            clock: Clock::system(),
            backup: None,
            autosave: None,
            at_end: AtEnd::Forget,
        }
    }

    /// The most entries that the cache may hold, cold ones included. 0 stores nothing: loads are shared by
    /// those who ask at the same time, and forgotten; and a save leaves an empty file. Default: unlimited.
    pub fn maxsize(mut self, entries: usize) -> Self {
        self.maxsize = Some(entries);
        self
    }

    /// The time to live of entries that are not given their own. Default: they never expire.
    pub fn default_ttl(mut self, ttl: Duration) -> Self {
        self.default_ttl = Some(ttl);
        self
    }

    /// Which entries make room for others. Default: [`Eviction::Adaptive`].
    pub fn eviction(mut self, eviction: Eviction) -> Self {
        self.eviction = eviction;
        self
    }

    /// Into how many independently locked parts the cache is divided, at least 1 and at most one per entry of
    /// `maxsize`. `maxsize` is divided among them, and the order of eviction holds within each; with 1 it
    /// holds exactly. Default: four per processor, but one per 512 entries of `maxsize` at most.
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = Some(shards);
        self
    }

    /// Where the cache takes the time from; for tests. Default: the system's clocks.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Where entries survive the process: a [`DiskBackend`](crate::DiskBackend), or any [`CacheBackend`].
    /// Default: nowhere.
    pub fn backup(mut self, backend: impl CacheBackend<K, V>) -> Self
    where
        K: Clone,
    {
        self.backup = Some(backend.into_backup());
        self
    }

    /// Saves to the backup this often, in the background, if something was stored, deleted or cleared since the last
    /// save. At least a millisecond; the first time one `interval` after the build. Without a backup nothing happens.
    /// Default: never.
    ///
    /// A save that fails is logged as a warning through [`tracing`], counted in
    /// [`Stats::save_errors`](crate::Stats::save_errors), and tried again one `interval` later. Saves never overlap.
    ///
    /// It is a thread of its own that waits and saves, whatever runtimes come and go; it ends with the last handle of
    /// the cache, and keeps nothing alive. What changed since the last save is lost then, unless
    /// [`save_on_drop`](Self::save_on_drop) is asked for, too.
    ///
    /// ```
    /// use async_cache::{AsyncCache, DiskBackend};
    /// use std::time::Duration;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("pages.cache");
    /// let cache = AsyncCache::builder()
    ///     .backup(DiskBackend::new(&path))
    ///     .autosave(Duration::from_secs(30)) // a crash costs half a minute at most
    ///     .save_on_drop() // and an orderly end nothing
    ///     .build()?;
    /// cache.set("sky".to_owned(), "blue".to_owned());
    /// drop(cache);
    ///
    /// let cache: AsyncCache<String, String> = AsyncCache::builder().backup(DiskBackend::new(&path)).build()?;
    /// assert_eq!(cache.get("sky").as_deref(), Some("blue"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn autosave(mut self, interval: Duration) -> Self {
        self.autosave = Some(interval);
        self
    }

    /// Saves to the backup when the last handle of the cache goes, if something has changed since the last save.
    /// Default: what has changed is lost.
    ///
    /// Blocks the thread that drops it until the entries are on disk, and waits for a save that runs; errors are
    /// logged. To learn of them, or not to block a runtime's thread, save before, with
    /// [`save_to_backup_async`](AsyncCache::save_to_backup_async); then there is nothing left to do here. A cache in
    /// a `static` is never dropped, nor is anything when the process is ended by a signal or by
    /// [`std::process::exit`].
    pub fn save_on_drop(mut self) -> Self {
        self.at_end = AtEnd::Save;
        self
    }

    /// The file that the cache keeps its entries in, if it is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        match &self.backup {
            Some(Backup(Kind::Disk(disk, _))) => Some(disk.path()),
            _ => None,
        }
    }

    /// Marks the file, if there is one, as this function's: keys of one function mean nothing to another.
    pub(crate) fn for_function(mut self, function: &'static str) -> Result<Self, BuildError> {
        if let Some(Backup(Kind::Disk(disk, _))) = &mut self.backup {
            disk.belong_to(function).map_err(|bytes| BuildError::NameTooLong { function, bytes })?;
        }
        Ok(self)
    }

    /// Makes the cache, and loads it from the backup if there is one. A snapshot file is opened here and read
    /// later, so this takes as long for ten million entries as for ten.
    ///
    /// A backup that cannot be loaded (a damaged or foreign file, missing rights, a backend that fails)
    /// leaves the cache empty: the reason is logged as a warning through [`tracing`], and kept in
    /// [`AsyncCache::opening`].
    ///
    /// # Errors
    /// [`BuildError::Backup`] if the backup's path is a directory or the like, where no cache could ever be
    /// saved. [`BuildError::Autosave`] if there can be no more threads.
    pub fn build(self) -> Result<AsyncCache<K, V>, BuildError> {
        let shards = self.shards.unwrap_or_else(|| default_shards(self.maxsize));
        let inner =
            Inner::new(self.maxsize, shards, self.eviction, self.default_ttl, self.clock, self.backup);
        let opening = match inner.load_backup() {
            Ok(opening) => opening,
            Err(BackupError::Disk(error)) if *error.kind() == DiskErrorKind::NotAFile => {
                return Err(BackupError::Disk(error).into());
            }
            Err(error) => {
                tracing::warn!("the cache starts empty: {error}");
                Opening { warning: Some(error), ..Opening::default() }
            }
        };
        let inner = Arc::new(inner);
        let autosave = Autosave::start(&inner, self.autosave, self.at_end).map_err(BuildError::Autosave)?;
        Ok(AsyncCache { inner, shared: Arc::new(Shared { opening, autosave }) })
    }
}

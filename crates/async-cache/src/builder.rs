//! How a cache is made.

use std::fmt;
use std::hash::Hash;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_cache_core::order::Eviction;
use async_cache_disk::DiskErrorKind;

use crate::autosave::{AtEnd, Autosave};
use crate::backup::{BackendKind, Backup, CacheBackend};
use crate::cache::{AsyncCache, Shared};
use crate::clock::Clock;
use crate::error::{BackupError, BuildError};
use crate::inner::{Inner, default_shards};
use crate::keeper::Keeper;
use crate::remote::RemoteTier;
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
    remote: Option<RemoteTier<K, V>>,
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
            remote: None,
            autosave: None,
            at_end: AtEnd::Forget,
        }
    }

    /// The maximum number of entries in the cache, including cold entries. With 0, nothing is
    /// stored: simultaneous callers share a load, its value is then forgotten, and a save leaves an
    /// empty file. Default: unlimited.
    pub fn maxsize(mut self, entries: usize) -> Self {
        self.maxsize = Some(entries);
        self
    }

    /// The time to live of entries without a specific time to live. Default: they never expire.
    pub fn default_ttl(mut self, ttl: Duration) -> Self {
        self.default_ttl = Some(ttl);
        self
    }

    /// Which entries make room for others. Default: [`Eviction::Adaptive`].
    pub fn eviction(mut self, eviction: Eviction) -> Self {
        self.eviction = eviction;
        self
    }

    /// The number of independently locked parts of the cache, at least 1 and at most one per entry
    /// of `maxsize`. `maxsize` is divided among the shards, and the order of eviction holds within
    /// each; with 1 it holds exactly. Default: four per processor, but at most one per 512 entries
    /// of `maxsize`.
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = Some(shards);
        self
    }

    /// Where the cache takes the time from; for tests. Default: the system's clocks.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Where entries survive the process: a [`DiskBackend`](crate::DiskBackend), or any
    /// [`CacheBackend`]. Default: nowhere.
    pub fn backup(mut self, backend: impl CacheBackend<K, V>) -> Self
    where
        K: Clone,
    {
        self.backup = Some(backend.into_backup());
        self
    }

    /// Shares the entries beyond this host, on a server of Redis or Valkey: see
    /// [`Redis`](crate::remote::Redis). Default: nowhere.
    ///
    /// Needs the timer of tokio's runtime (`enable_time`) and its I/O (`enable_io`): the connection
    /// is made by the first call from within a runtime, and is carried by a task of that runtime.
    #[cfg(feature = "redis")]
    pub fn remote(mut self, redis: crate::remote::Redis) -> Self
    where
        K: serde::Serialize + serde::de::DeserializeOwned + Clone,
        V: serde::Serialize + serde::de::DeserializeOwned,
    {
        self.remote = Some(RemoteTier::new(redis, crate::backup::codec::Codec::message_pack()));
        self
    }

    /// Saves to the backup at this interval, in the background, if an entry was stored, deleted or
    /// cleared since the last save. The interval is at least a millisecond; the first save is one
    /// `interval` after the build. Without a backup, nothing happens. Default: never.
    ///
    /// If a save fails, the failure is logged as a warning through [`tracing`] and counted in
    /// [`Stats::save_errors`](crate::Stats::save_errors); the next attempt is one `interval` later.
    /// Saves never overlap.
    ///
    /// A separate thread waits and saves, independent of runtimes. The thread ends with the last
    /// handle of the cache, and keeps nothing alive. Changes since the last save are lost at that
    /// time, unless [`save_on_drop`](Self::save_on_drop) is set, too.
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
    /// let cache: AsyncCache<String, String> =
    /// AsyncCache::builder().backup(DiskBackend::new(&path)).build()?;
    /// assert_eq!(cache.get("sky").as_deref(), Some("blue"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn autosave(mut self, interval: Duration) -> Self {
        self.autosave = Some(interval);
        self
    }

    /// Saves to the backup when the last handle of the cache is dropped, if an entry has changed
    /// since the last save. Default: such changes are lost.
    ///
    /// Blocks the dropping thread until the entries are on disk, and waits for a running save;
    /// errors are logged. To get the errors, or to avoid blocking a thread of a runtime, save
    /// beforehand with [`save_to_backup_async`](AsyncCache::save_to_backup_async); then the drop
    /// has nothing left to save. A cache in a `static` is never dropped, and nothing is dropped
    /// when a signal or [`std::process::exit`] ends the process.
    pub fn save_on_drop(mut self) -> Self {
        self.at_end = AtEnd::Save;
        self
    }

    /// The file of the cache's backup, if the backup is a file.
    pub(crate) fn file(&self) -> Option<&Path> {
        match &self.backup {
            Some(Backup(BackendKind::Disk(disk, _))) => Some(disk.path()),
            _ => None,
        }
    }

    /// Marks the file, if there is a file, as belonging to this function: keys of a function mean
    /// nothing to another function.
    pub(crate) fn for_function(mut self, function: &'static str) -> Result<Self, BuildError> {
        if let Some(Backup(BackendKind::Disk(disk, _))) = &mut self.backup {
            disk.belong_to(function).map_err(|bytes| BuildError::NameTooLong { function, bytes })?;
        }
        self.remote = self.remote.map(|remote| remote.for_function(function));
        Ok(self)
    }

    /// Makes the cache, and loads it from the backup if there is a backup. A snapshot file is
    /// opened here and read later, so this takes the same time for ten entries and for ten million.
    ///
    /// If the backup cannot be loaded (a damaged or foreign file, missing rights, a backend that
    /// fails), the cache is empty. The reason is logged as a warning through [`tracing`], and kept
    /// in [`AsyncCache::opening`].
    ///
    /// # Errors
    /// [`BuildError::Backup`] if the backup's path is a directory or the like, where no cache could
    /// ever be saved. [`BuildError::Autosave`] if no more threads can be started.
    pub fn build(self) -> Result<AsyncCache<K, V>, BuildError> {
        let shards = self.shards.unwrap_or_else(|| default_shards(self.maxsize));
        let inner = Inner::new(
            self.maxsize,
            shards,
            self.eviction,
            self.default_ttl,
            self.clock,
            self.backup,
            self.remote,
        );
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
        #[cfg(feature = "redis")]
        if let Some(remote) = &inner.remote {
            use crate::remote::Cached;
            let cache: std::sync::Weak<Inner<K, V>> = Arc::downgrade(&inner);
            remote.belongs_to(cache);
            inner.suspect_all(false); // What the backup has is asked about before it is served.
        }
        let autosave = Autosave::start(&inner, self.autosave, self.at_end).map_err(BuildError::Autosave)?;
        let keeper = Keeper::start(&inner).map_err(BuildError::Autosave)?;
        Ok(AsyncCache { inner, shared: Arc::new(Shared { opening, autosave, keeper }) })
    }
}

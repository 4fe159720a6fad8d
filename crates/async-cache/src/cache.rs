//! The public face of the cache.

use std::borrow::Borrow;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use async_cache_core::stats::Stats;

use crate::autosave::Autosave;
use crate::builder::Builder;
use crate::error::{BackupError, LoadError};
use crate::inner::Inner;
use crate::keeper::Keeper;
use crate::load::{Miss, Storing};
use crate::lookup::Lookup;
use crate::restore::Opening;
use crate::save::Saved;

/// An in-memory async cache whose entries survive the process.
///
/// Clones are cheap and share the same cache. A cache belongs to no runtime: threads and runtimes
/// may share it.
///
/// - **Keys** are any type with `Hash + Eq`. To be kept in a file, two keys must be equal if and
///   only if serde writes them alike. A key is looked up in its borrowed form: a `String` by
///   `&str`. The `Eq` of keys runs under a lock of the cache and must not call the cache.
/// - **Values** are returned as clones; put large values into an [`Arc`]. Their `Clone` runs under
///   a lock, too.
/// - **A hit** takes a shared lock of a shard for some nanoseconds. The first request for an entry
///   of the opened snapshot reads it from the file and decodes it, which takes microseconds and may
///   touch the disk.
///
/// # Example
///
/// ```
/// use async_cache::{AsyncCache, DiskBackend};
/// use std::time::Duration;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("pages.cache");
/// # async fn fetch(url: &str) -> Result<String, std::io::Error> { Ok(format!("<{url}>")) }
/// let cache: AsyncCache<String, String> = AsyncCache::builder()
///     .maxsize(10_000)
///     .default_ttl(Duration::from_secs(3600))
///     .backup(DiskBackend::new(&path))
///     .build()?; // opens the file
///
/// let page = cache.get_or_load("key", || fetch("key")).await?;
/// assert_eq!(page, "<key>");
///
/// cache.save_to_backup()?; // the next process has it at once
/// # Ok(())
/// # }
/// ```
pub struct AsyncCache<K, V> {
    pub(crate) inner: Arc<Inner<K, V>>,
    /// The state shared by all handles; it ends with the last handle.
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) opening: Opening,
    #[allow(dead_code, reason = "held for what happens when it is dropped")]
    pub(crate) autosave: Option<Autosave>,
    /// After the last save.
    #[allow(dead_code, reason = "held for what happens when it is dropped")]
    pub(crate) keeper: Option<Keeper>,
}

impl<K, V> Clone for AsyncCache<K, V> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), shared: Arc::clone(&self.shared) }
    }
}

impl<K, V> fmt::Debug for AsyncCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// The most requested counters.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Metrics {
    /// Calls that were served from memory or from the opened snapshot.
    pub hits: u64,
    /// Calls that were not served.
    pub misses: u64,
    /// Entries now, cold ones included.
    pub size: usize,
    /// The share of calls that were hits, from 0.0 to 1.0; 0.0 if there were no calls.
    pub hit_rate: f64,
}

impl<K, V> AsyncCache<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Begins a cache: unlimited, never expiring, in memory only, unless told otherwise.
    pub fn builder() -> Builder<K, V> {
        Builder::new()
    }

    // Reading

    /// Returns the value of a key, if the key is present and has not expired. Counts a hit or a
    /// miss, and a use of the entry.
    ///
    /// Starts no load and joins none.
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let hash = self.inner.hash(key);
        match self.inner.hot(hash, |known| key.is(known)) {
            Ok(value) => Some(value),
            Err(under) => {
                let value = self.inner.served_cold(hash, key, under);
                if value.is_none() {
                    self.inner.miss(hash);
                }
                value
            }
        }
    }

    /// Returns the value of a key from the cache, or else from `load`; the loaded value is stored
    /// for the default time to live.
    ///
    /// At most one load runs for each key. All callers that ask meanwhile wait for the load and get
    /// its value or its error. Errors are not stored: the next call loads anew. `load` is called,
    /// and its future polled, on a separate task, on the runtime of the caller that supplied the
    /// loader.
    ///
    /// A `set`, `delete` or `clear` during the load *fences* the load: it still answers the callers
    /// that were already waiting, but stores nothing, and later callers start a new load. So a
    /// value that was read from the origin before an invalidation is never served after the
    /// invalidation.
    ///
    /// # Errors
    /// [`LoadError::Failed`] with the loader's error, shared by all waiting callers.
    /// [`LoadError::Panicked`] if the loader panicked. [`LoadError::Recursive`] if the loader asked
    /// for its own key, directly or through other loaders. [`LoadError::Abandoned`] for the caller
    /// that supplied the loader, if the runtime of the load was shut down; the other callers load
    /// anew. [`LoadError::NoRuntime`] if a load is needed and the caller is outside any tokio
    /// runtime.
    ///
    /// If a runtime is neither driven nor shut down (a `current_thread` runtime outside
    /// `block_on`), its loads stand still, and so do callers on other runtimes that wait for them.
    ///
    /// If loaders of a key fail with different types, a caller that waited for a loader with
    /// another error type than its own does not get the error, but loads anew with its own loader.
    ///
    /// # Cancel safety
    /// Dropping the returned future removes this caller only. The load continues for the remaining
    /// callers, even if this caller started the load. When the last caller leaves, the load is
    /// dropped.
    pub async fn get_or_load<Q, F, Fut, E>(&self, key: &Q, load: F) -> Result<V, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + fmt::Debug + Sync + ?Sized,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        self.get_or_load_with_ttl(key, self.inner.default_ttl, load).await
    }

    /// [`get_or_load`](Self::get_or_load) with a specific time to live, counted from the end of the
    /// load, if this caller's loader runs; `None` never expires.
    ///
    /// # Errors
    /// As [`get_or_load`](Self::get_or_load).
    ///
    /// # Cancel safety
    /// As [`get_or_load`](Self::get_or_load).
    pub async fn get_or_load_with_ttl<Q, F, Fut, E>(
        &self,
        key: &Q,
        ttl: Option<Duration>,
        load: F,
    ) -> Result<V, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + fmt::Debug + Sync + ?Sized,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let hash = self.inner.hash(key);
        match self.inner.hot(hash, |known| key.is(known)) {
            Ok(value) => Ok(value),
            // Boxed, so that the future of a hit is small.
            Err(under) => {
                Box::pin(self.inner.load(hash, key, Miss::under(under), Storing::all(ttl), load)).await
            }
        }
    }

    /// Returns the value of a key from memory, from the backup, or from the
    /// [tier beyond this host](Builder::remote). Loads nothing. Counts a hit or a miss.
    ///
    /// # Cancel safety
    /// Dropping the returned future has no other effect.
    #[cfg(feature = "redis")]
    pub async fn fetch<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + Sync + ?Sized,
    {
        self.get_many([key]).await.pop().flatten()
    }

    /// Waits until the [tier beyond this host](Builder::remote) has acknowledged all writes of this
    /// cache, for the [timeout](crate::remote::RedisBuilder::timeout) at most. Then every later
    /// read of any process sees them, except for what another's memory holds until the message
    /// arrives there. True if all writes are acknowledged, also without such a tier; false if the
    /// timeout is over, or the server is away. Unacknowledged writes are sent again later.
    ///
    /// # Cancel safety
    /// Dropping the returned future has no other effect.
    #[cfg(feature = "redis")]
    pub async fn acknowledged(&self) -> bool {
        match &self.inner.remote {
            Some(tier) => tier.acknowledged().await,
            None => true,
        }
    }

    /// Returns the values of keys, each as by [`fetch`](Self::fetch), in the order of the keys. The
    /// tier beyond this host is asked once for all keys that are not here.
    ///
    /// # Cancel safety
    /// Dropping the returned future has no other effect.
    #[cfg(feature = "redis")]
    pub async fn get_many<'a, Q>(&self, keys: impl IntoIterator<Item = &'a Q>) -> Vec<Option<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + Sync + ?Sized + 'a,
    {
        self.inner.fetch_many(keys.into_iter().collect()).await
    }

    /// Whether a key is there and has not expired. Counts nothing, and is no use of the entry.
    pub fn contains<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        self.inner.contains(key)
    }

    /// The number of entries, including cold entries, and without expired entries (except those of
    /// the last millisecond). Reclaims expired entries, so the time depends on their number.
    pub fn len(&self) -> usize {
        self.inner.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    // Writing

    /// Stores a value for the default time to live. A running load of the key is fenced.
    pub fn set(&self, key: K, value: V) {
        self.set_with_ttl(key, value, self.inner.default_ttl);
    }

    /// Stores a value with a specific time to live; `None` never expires, zero expires at once. A
    /// running load of the key is fenced.
    pub fn set_with_ttl(&self, key: K, value: V, ttl: Option<Duration>) {
        self.inner.set(key, value, ttl);
    }

    /// Removes a key, from the opened snapshot, too. A running load of the key is fenced. A missing
    /// key is not an error.
    ///
    /// The file of the backup stays unchanged until the next save: if the process dies before that,
    /// the next process finds the key again.
    pub fn delete<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + ?Sized,
    {
        self.inner.delete(&key.to_owned());
    }

    /// Removes all entries, fences all running loads and resets the counters. The file of the
    /// backup stays unchanged until the next save.
    pub fn clear(&self) {
        self.inner.clear();
    }

    // Counting

    /// Hits, misses, size and hit rate.
    pub fn metrics(&self) -> Metrics {
        let stats = self.inner.stats();
        Metrics { hits: stats.hits, misses: stats.misses, size: stats.size, hit_rate: stats.hit_rate() }
    }

    /// All counters.
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }

    // The backup

    /// The outcome of opening the backup when the cache was built: how many entries came back, in
    /// what time, or why none did.
    pub fn opening(&self) -> &Opening {
        &self.shared.opening
    }

    /// Saves every entry that has not expired to the backup. Without a backup, nothing happens.
    ///
    /// While the entries of a shard are listed, writes to the shard wait: some milliseconds for a
    /// hundred thousand entries.
    ///
    /// Blocks the thread until the entries are on disk; in async code use
    /// [`save_to_backup_async`](Self::save_to_backup_async). The cache stays usable meanwhile; an
    /// entry that changes during the save is saved in its state before or after the change. If a
    /// save is already running, this save waits for it.
    ///
    /// # Errors
    /// [`BackupError`]. The previous save is intact then.
    pub fn save_to_backup(&self) -> Result<Saved, BackupError> {
        self.inner.save()
    }

    /// [`save_to_backup`](Self::save_to_backup) on a thread of tokio for blocking work.
    ///
    /// # Errors
    /// [`BackupError`]; [`BackupError::Interrupted`] outside a tokio runtime, or if the runtime is
    /// shut down before the save begins.
    ///
    /// # Cancel safety
    /// Once polled, the save runs to its end even if the future is dropped.
    pub async fn save_to_backup_async(&self) -> Result<Saved, BackupError> {
        let inner = Arc::clone(&self.inner);
        let runtime = tokio::runtime::Handle::try_current();
        let runtime = runtime.map_err(|error| BackupError::Interrupted(error.into()))?;
        let saving = runtime.spawn_blocking(move || inner.save());
        saving.await.unwrap_or_else(|error| Err(BackupError::Interrupted(error.into())))
    }

    /// Makes every write that has returned survive a power loss, if the backup has a
    /// [`Journal`](crate::Journal); otherwise nothing happens. Callers at the same time share a
    /// sync.
    ///
    /// Blocks the thread until the disk has synced; in async code use
    /// [`flush_async`](Self::flush_async).
    ///
    /// # Errors
    /// [`BackupError::Disk`]: the disk has failed. Nothing written since the last flush is known to
    /// be durable then.
    pub fn flush(&self) -> Result<(), BackupError> {
        self.inner.flush()
    }

    /// [`flush`](Self::flush) on a thread of tokio for blocking work.
    ///
    /// ```
    /// # use async_cache::{AsyncCache, DiskBackend, Journal};
    /// # async fn example(cache: AsyncCache<String, String>) -> Result<(), Box<dyn std::error::Error>> {
    /// cache.set("order 17".to_owned(), "paid".to_owned());
    /// cache.flush_async().await?; // survives a power loss from here on
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`flush`](Self::flush); [`BackupError::Interrupted`] outside a tokio runtime, or if
    /// the runtime is shut down before the sync begins.
    ///
    /// # Cancel safety
    /// Once polled, the sync runs to its end even if the future is dropped.
    pub async fn flush_async(&self) -> Result<(), BackupError> {
        let inner = Arc::clone(&self.inner);
        let runtime = tokio::runtime::Handle::try_current();
        let runtime = runtime.map_err(|error| BackupError::Interrupted(error.into()))?;
        let flushing = runtime.spawn_blocking(move || inner.flush());
        flushing.await.unwrap_or_else(|error| Err(BackupError::Interrupted(error.into())))
    }

    /// Loads the entries of the backup that are not in memory, as older than every entry in memory.
    /// Without a backup, nothing happens.
    ///
    /// Entries in memory are kept, because they are newer. Entries that were still only in the
    /// previously opened snapshot are replaced by the file's entries, and kept if the file lacks
    /// their keys. A [`DiskBackend`](crate::DiskBackend) is opened and then read entry by entry, as
    /// by [`build`](Builder::build); only the keys in memory, and the cold entries of the previous
    /// snapshot, are compared with the file now. Every other backend is read as a whole. The thread
    /// blocks meanwhile.
    ///
    /// # Errors
    /// [`BackupError`]. The cache is unchanged then.
    pub fn load_from_backup(&self) -> Result<Opening, BackupError> {
        self.inner.load_backup()
    }
}

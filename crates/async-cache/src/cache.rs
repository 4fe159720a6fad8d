//! The cache as its users see it.

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
use crate::load::{Miss, Storing};
use crate::lookup::Lookup;
use crate::restore::Opening;
use crate::save::Saved;

/// An in-memory async cache whose entries survive the process.
///
/// Cloning it is cheap, and the clones are the same cache. It belongs to no runtime: threads and runtimes may
/// share it.
///
/// - **Keys** are anything that is `Hash + Eq` (and, to be kept in a file, written by serde alike if and only
///   if they are equal), and are asked for by what they borrow as: a `String` by `&str`. Their `Eq` runs
///   under a lock of the cache and must not call the cache.
/// - **Values** are handed out as clones; put big ones into an [`Arc`]. Their `Clone` runs under a lock, too.
/// - **A hit** takes a shared lock of one shard for some nanoseconds. An entry of the opened snapshot that is
///   asked for the first time is read from the file and decoded, which takes microseconds and may touch the
///   disk.
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
    /// What there is once for all handles, and ends with the last one.
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) opening: Opening,
    #[allow(dead_code, reason = "held for what happens when it is dropped")]
    pub(crate) autosave: Option<Autosave>,
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

/// The numbers that are asked for most.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Metrics {
    /// Calls that were served from memory or from the opened snapshot.
    pub hits: u64,
    /// Calls that were not.
    pub misses: u64,
    /// Entries now, cold ones included.
    pub size: usize,
    /// The share of calls that were hits, from 0.0 to 1.0; 0.0 if nothing was asked.
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

    /// The value of a key, if it is there and has not expired. Counts a hit or a miss, and a use of the entry.
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
                let value = self.inner.cold(hash, || key.to_key(), under).ok();
                if value.is_none() {
                    self.inner.miss(hash);
                }
                value
            }
        }
    }

    /// The value of a key, from the cache or else from `load`; then it is stored for the default time to
    /// live.
    ///
    /// For one key at most one load runs. Everybody who asks meanwhile waits for it and gets its value or its
    /// error. Errors are not stored: the next call loads anew. `load` is called, and its future polled, on a
    /// task of its own, on the runtime of the caller whose loader it is.
    ///
    /// A `set`, `delete` or `clear` of the key while it loads *fences* the load: it still answers those who
    /// were waiting, but stores nothing, and whoever asks from then on starts a new load. So a value that was
    /// read from the origin before an invalidation is never served after it.
    ///
    /// # Errors
    /// [`LoadError::Failed`] with the loader's error, shared with everybody who waited.
    /// [`LoadError::Panicked`] if it panicked. [`LoadError::Recursive`] if it asked for its own key, directly
    /// or through other loaders. [`LoadError::Abandoned`] if the runtime that loaded was shut down, for the
    /// caller whose loader it was; the others load anew. [`LoadError::NoRuntime`] if a load is needed and the
    /// caller is outside of any tokio runtime.
    ///
    /// A runtime that is neither driven nor shut down (a `current_thread` one outside of `block_on`) leaves
    /// its loads, and whoever waits for them on other runtimes, where they are.
    ///
    /// If loaders of one key fail with different types, a caller who waited for a loader with another error
    /// type than his own does not get that error; he loads anew with his own.
    ///
    /// # Cancel safety
    /// Dropping the returned future takes one caller away. The load goes on for the others, also if it was he
    /// who started it. When the last one goes, the load is dropped.
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

    /// [`get_or_load`](Self::get_or_load) with a time to live of its own, counted from the end of the load,
    /// if this caller's loader runs; `None` never expires.
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

    /// Whether a key is there and has not expired. Counts nothing, and is no use of the entry.
    pub fn contains<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        self.inner.contains(key)
    }

    /// How many entries there are, cold ones included, and expired ones not, but for the last millisecond's.
    /// Reclaims them, so it takes as long as there are some.
    pub fn len(&self) -> usize {
        self.inner.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    // Writing

    /// Stores a value for the default time to live. A load of the key that is running is fenced.
    pub fn set(&self, key: K, value: V) {
        self.set_with_ttl(key, value, self.inner.default_ttl);
    }

    /// Stores a value for a time to live of its own; `None` never expires, zero expires at once. A load of
    /// the key that is running is fenced.
    pub fn set_with_ttl(&self, key: K, value: V, ttl: Option<Duration>) {
        self.inner.set(key, value, ttl);
    }

    /// Removes a key, from the opened snapshot, too. A load of the key that is running is fenced. A key that
    /// is not there is no error.
    ///
    /// The file of the backup is not touched before the next save: a process that dies before it finds the
    /// key again.
    pub fn delete<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + ?Sized,
    {
        self.inner.delete(&key.to_owned());
    }

    /// Removes everything, fences all running loads and resets the counters. The file of the backup is not
    /// touched before the next save.
    pub fn clear(&self) {
        self.inner.clear();
    }

    // Counting

    /// Hits, misses, size and hit rate.
    pub fn metrics(&self) -> Metrics {
        let stats = self.inner.stats();
        Metrics { hits: stats.hits, misses: stats.misses, size: stats.size, hit_rate: stats.hit_rate() }
    }

    /// Everything that is counted.
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }

    // The backup

    /// What was found when the cache was built: how much came back, in what time, or why nothing did.
    pub fn opening(&self) -> &Opening {
        &self.shared.opening
    }

    /// Saves every entry that has not expired to the backup. Without one, nothing happens.
    ///
    /// While the entries of a shard are listed, writes to it wait: some milliseconds for a hundred thousand
    /// entries.
    ///
    /// Blocks the thread until the entries are on disk; in async code use
    /// [`save_to_backup_async`](Self::save_to_backup_async). Others go on using the cache meanwhile; of what
    /// they change, each single entry is saved as it was before or after. A save that runs already is waited
    /// for.
    ///
    /// # Errors
    /// [`BackupError`]. What was saved before is intact then.
    pub fn save_to_backup(&self) -> Result<Saved, BackupError> {
        self.inner.save()
    }

    /// [`save_to_backup`](Self::save_to_backup) on one of tokio's threads for blocking work.
    ///
    /// # Errors
    /// [`BackupError`]; [`BackupError::Interrupted`] outside of a tokio runtime, or if the runtime is shut
    /// down before the save begins.
    ///
    /// # Cancel safety
    /// Once polled, the save goes on to its end even if the future is dropped.
    pub async fn save_to_backup_async(&self) -> Result<Saved, BackupError> {
        let inner = Arc::clone(&self.inner);
        let runtime = tokio::runtime::Handle::try_current();
        let runtime = runtime.map_err(|error| BackupError::Interrupted(error.into()))?;
        let saving = runtime.spawn_blocking(move || inner.save());
        saving.await.unwrap_or_else(|error| Err(BackupError::Interrupted(error.into())))
    }

    /// Loads from the backup what is not in memory, older than everything in memory. Without a backup nothing
    /// happens.
    ///
    /// What is in memory stays, for it is newer; entries of the snapshot that was open until now and were never
    /// asked for give way to the file's, and stay if the file lacks their keys. A cache with nothing in memory and no load running opens the
    /// snapshot and reads it entry by entry, as [`build`](Builder::build) does; any other reads the whole
    /// file now, and blocks the thread meanwhile.
    ///
    /// # Errors
    /// [`BackupError`]. The cache stays as it was then.
    pub fn load_from_backup(&self) -> Result<Opening, BackupError> {
        self.inner.load_backup()
    }
}

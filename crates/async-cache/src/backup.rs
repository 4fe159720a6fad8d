//! Where entries persist.
//!
//! Owns the interface to backends: [`CacheBackend`] for those of the user's own, which load and save the
//! whole cache at once, and [`DiskBackend`], whose snapshot is opened at once and read entry by entry.

pub(crate) mod codec;
pub(crate) mod disk;
mod distinct;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use disk::DiskBackend;

use crate::error::BackendError;
use codec::Codec;

/// One entry as it is handed to a backend and comes back from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedEntry<K, V> {
    /// The key.
    pub key: K,
    /// The value.
    pub value: V,
    /// The time it has left, counted from the call of `save` or from the return of `load`; `None` if it does
    /// not expire. It is the backend's to subtract the time between the two.
    pub ttl: Option<Duration>,
}

/// A place where a cache's entries survive the process.
///
/// A cache loads from its backend when it is built, and saves to it when asked. Implement this to keep
/// entries in a database, a bucket or another cache; [`DiskBackend`] keeps them in a file.
///
/// All three methods may block: the cache calls them on the thread of whoever asked to load or save, or, for
/// [`save_to_backup_async`](crate::AsyncCache::save_to_backup_async), on one of tokio's threads for blocking
/// work. The cache never calls `save` twice at once, and holds no lock meanwhile that reading or writing it
/// needs; but a backend must not save or load the cache that calls it.
///
/// An error of `load` while a cache is built leaves the cache empty, with a warning; an error of `save` goes
/// to whoever asked to save.
///
/// # Example
///
/// A backend over anything that stores strings. It writes down when each entry expires, so that the time
/// between save and load counts.
///
/// ```
/// use async_cache::{AsyncCache, BackendError, CacheBackend, SavedEntry};
/// use std::sync::{Arc, Mutex};
/// use std::time::{Duration, SystemTime};
///
/// #[derive(Default)]
/// struct Table(Mutex<Vec<(String, String, Option<SystemTime>)>>);
///
/// impl CacheBackend<String, String> for Table {
///     fn load(&self) -> Result<Vec<SavedEntry<String, String>>, BackendError> {
///         let now = SystemTime::now();
///         let rows = self.0.lock().map_err(|_| "the table is broken")?;
///         let live = rows.iter().filter_map(|(key, value, expires)| {
///             let ttl = match expires {
///                 None => None,
///                 Some(at) => Some(at.duration_since(now).ok()?), // expired since
///             };
///             Some(SavedEntry { key: key.clone(), value: value.clone(), ttl })
///         });
///         Ok(live.collect())
///     }
///
///     fn save(&self, entries: &mut dyn Iterator<Item = SavedEntry<String, String>>) -> Result<(), BackendError> {
///         let now = SystemTime::now();
///         let rows = entries.map(|entry| (entry.key, entry.value, entry.ttl.map(|ttl| now + ttl))).collect();
///         *self.0.lock().map_err(|_| "the table is broken")? = rows;
///         Ok(())
///     }
///
///     fn clear(&self) -> Result<(), BackendError> {
///         self.0.lock().map_err(|_| "the table is broken")?.clear();
///         Ok(())
///     }
/// }
///
/// let table = Arc::new(Table::default());
/// let cache = AsyncCache::builder().backup(Arc::clone(&table)).build()?;
/// cache.set_with_ttl("sky".to_owned(), "blue".to_owned(), Some(Duration::from_secs(60)));
/// cache.save_to_backup()?;
///
/// let reborn: AsyncCache<String, String> = AsyncCache::builder().backup(table).build()?;
/// assert_eq!(reborn.get("sky").as_deref(), Some("blue"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait CacheBackend<K, V>: Send + Sync + 'static {
    /// Everything that was saved and has not expired, from the least to the most recently used if the backend
    /// can tell.
    ///
    /// # Errors
    /// Whatever keeps the backend from answering. Nothing saved yet is no error.
    fn load(&self) -> Result<Vec<SavedEntry<K, V>>, BackendError>;

    /// Replaces what was saved before by these entries, which come from the least to the most recently used.
    ///
    /// # Errors
    /// Whatever keeps the backend from saving. It should leave what was saved before.
    fn save(&self, entries: &mut dyn Iterator<Item = SavedEntry<K, V>>) -> Result<(), BackendError>;

    /// Removes everything that was saved. For those who use the backend by itself: a cache does not call it.
    ///
    /// # Errors
    /// Whatever keeps the backend from it.
    fn clear(&self) -> Result<(), BackendError>;

    /// How a cache uses this backend. Provided; [`DiskBackend`] has its own.
    #[doc(hidden)]
    fn into_backup(self) -> Backup<K, V>
    where
        Self: Sized,
        K: Clone,
    {
        Backup(Kind::Whole(Box::new(self), K::clone))
    }
}

/// A backend that is shared, with another cache or with whoever looks into it.
impl<K, V, B: CacheBackend<K, V>> CacheBackend<K, V> for Arc<B> {
    fn load(&self) -> Result<Vec<SavedEntry<K, V>>, BackendError> {
        (**self).load()
    }

    fn save(&self, entries: &mut dyn Iterator<Item = SavedEntry<K, V>>) -> Result<(), BackendError> {
        (**self).save(entries)
    }

    fn clear(&self) -> Result<(), BackendError> {
        (**self).clear()
    }
}

/// A backend as a cache keeps it.
#[doc(hidden)]
pub struct Backup<K, V>(pub(crate) Kind<K, V>);

pub(crate) enum Kind<K, V> {
    /// Loaded and saved as a whole.
    Whole(Box<dyn CacheBackend<K, V>>, fn(&K) -> K),
    /// A snapshot file, read entry by entry.
    Disk(DiskBackend, Codec<K, V>),
}

impl<K, V> fmt::Debug for Backup<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Whole(..) => f.write_str("Backup(a backend of the user's own)"),
            Kind::Disk(disk, _) => f.debug_tuple("Backup").field(disk).finish(),
        }
    }
}

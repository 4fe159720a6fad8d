//! Where entries persist.
//!
//! Owns the interface to backends: [`CacheBackend`] for the user's own backends, which load and
//! save the whole cache at once, and [`DiskBackend`], whose snapshot is opened at once and read
//! entry by entry.

pub(crate) mod codec;
pub(crate) mod disk;
mod distinct;
pub(crate) mod journal;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use disk::DiskBackend;
pub use journal::Journal;

use crate::error::BackendError;
use codec::Codec;

/// An entry in the form passed to and returned by a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedEntry<K, V> {
    /// The key.
    pub key: K,
    /// The value.
    pub value: V,
    /// The remaining time, counted from the call of `save` or from the return of `load`; `None` if
    /// the entry does not expire. The backend must subtract the time between the two.
    pub ttl: Option<Duration>,
}

/// A place where a cache's entries survive the process.
///
/// A cache loads from its backend when it is built, and saves to it on request. Implement this
/// trait to keep entries in a database, a bucket or another cache; [`DiskBackend`] keeps them in a
/// file.
///
/// All three methods may block: the cache calls them on the thread of the caller that loads or
/// saves, or, for [`save_to_backup_async`](crate::AsyncCache::save_to_backup_async), on a thread of
/// tokio for blocking work. The cache never calls `save` twice at once, and holds no lock meanwhile
/// that reading or writing the cache needs; but a backend must not save or load the cache that
/// calls it.
///
/// If `load` fails while a cache is built, the cache is empty, with a warning; the caller of a save
/// gets an error of `save`.
///
/// # Example
///
/// A backend over any store of strings. It stores when each entry expires, so that the time between
/// save and load counts.
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
    /// Returns all saved entries that have not expired, from the least to the most recently used if
    /// the backend knows the order.
    ///
    /// # Errors
    /// Any error of the backend. An empty backend is no error.
    fn load(&self) -> Result<Vec<SavedEntry<K, V>>, BackendError>;

    /// Replaces the previous entries by these entries, which come from the least to the most
    /// recently used.
    ///
    /// # Errors
    /// Any error of the backend. The previous entries should then be intact.
    fn save(&self, entries: &mut dyn Iterator<Item = SavedEntry<K, V>>) -> Result<(), BackendError>;

    /// Removes all saved entries. For direct use of the backend: a cache does not call it.
    ///
    /// # Errors
    /// Any error of the backend.
    fn clear(&self) -> Result<(), BackendError>;

    /// The cache's way of using this backend. Provided; [`DiskBackend`] has its own.
    #[doc(hidden)]
    fn into_backup(self) -> Backup<K, V>
    where
        Self: Sized,
        K: Clone,
    {
        Backup(BackendKind::Whole(Box::new(self), K::clone))
    }
}

/// A backend that is shared with another cache or with other code.
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

/// A backend inside a cache.
#[doc(hidden)]
pub struct Backup<K, V>(pub(crate) BackendKind<K, V>);

#[allow(clippy::large_enum_variant)] // one for each cache
pub(crate) enum BackendKind<K, V> {
    /// Loaded and saved as a whole.
    Whole(Box<dyn CacheBackend<K, V>>, fn(&K) -> K),
    /// A snapshot file, read entry by entry.
    Disk(DiskBackend, Codec<K, V>),
}

impl<K, V> fmt::Debug for Backup<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            BackendKind::Whole(..) => f.write_str("Backup(a backend of the user's own)"),
            BackendKind::Disk(disk, _) => f.debug_tuple("Backup").field(disk).finish(),
        }
    }
}

//! The backend that keeps a cache in a file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_cache_disk::{
    CacheFile, Compression, DiskError, Item, RealDisk, Save, Secret, Source, Vfs, WriteOptions,
};
use async_cache_tier::open::OWNER;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::codec::Codec;
use super::journal::Journal;
use super::{BackendKind, Backup, CacheBackend, SavedEntry};
use crate::clock::Clock;
use crate::error::BackendError;

/// Keeps a cache in a file, as a snapshot of all its entries.
///
/// - **Opening is instant**, for any number of entries: they are found through an index in the
///   file, and decoded at their first request.
/// - **Saving is atomic**: a temporary file beside the target is written, synced and renamed over
///   it. After a crash at any moment, the file is the old or the new file, whole.
/// - **The time to live runs down** while no process runs: an entry with 10 seconds left at the
///   save has 6 left 4 seconds later.
/// - **A foreign or damaged file** is an empty cache and a warning; the next save sets the file
///   aside as `<name>.aside`. For cache files a single copy is kept, the latest; other files are
///   never overwritten. A damaged entry is a miss, and costs only itself.
/// - Keys and values are `MessagePack` through serde, structs as maps with field names. Byte
///   strings are smallest and fastest as `serde_bytes::ByteBuf` or `bytes::Bytes`; serde writes a
///   `Vec<u8>` as a list of numbers.
///
/// - Two keys must be equal if and only if serde writes them alike. Unequal keys that are written
///   alike (variants of an untagged enum) miss each other's entries; equal keys that are written
///   differently (such as strings whose `Eq` ignores case) are different entries in the file, and
///   after a delete of one the other may come back.
/// - A key or value with a `Some` around a value that is written as nil (`Some(None)`, `Some(())`,
///   `Some(Value::Null)`) is left out of a save, and counted in
///   [`Saved::left_out`](crate::Saved::left_out): it would be read as `None`. To save it, replace
///   the outer `Option` by an enum of your own.
/// - A `Serialize` that panics leaves out its entry; a `Deserialize` that panics is a miss, as if
///   it had returned `Err`.
/// - A value nested deeper than 256 levels is written, but does not decode.
///
/// - **A file that another user may have written** is refused, with a warning that states the
///   reason, and set aside by the next save: a file that another user owns or can write to (with a
///   [`secret`](Self::secret), its group may), a symlink in a folder that everybody can write to,
///   and with a secret every file that was not written with the secret.
///
/// Parent folders are created; the file has mode 0600. A symlink at the path is followed, if only
/// the program's own user and root can have put it there.
///
/// Several processes of the same host may use the same path. A save takes a lock beside the file
/// (`<name>.lock`) and merges: entries saved by another process stay, for every key the later write
/// wins, and deleted keys stay deleted unless they were written later. A process sees the saves of
/// others when it opens the file again. On a file system without locks (some network and user-space
/// file systems), a save works without a lock, and a single warning is logged. See also
/// [`without_merging`](DiskBackend::without_merging).
///
/// A cache uses the backend through [`Builder::backup`](crate::Builder::backup). The methods of
/// [`CacheBackend`] work without a cache, too, and read, replace or remove the whole file at once:
/// `save` and `clear` take the lock, and merge nothing. Entries in the memory of other processes
/// come back to the file with their next save.
#[derive(Clone)]
pub struct DiskBackend {
    file: CacheFile,
    clock: Clock,
    merges: bool,
    lock_timeout: Duration,
    journal: Option<Journal>,
    /// Whether the lack of locks was logged. Shared by clones.
    has_warned_of_locks: Arc<AtomicBool>,
}

/// The room in the format.
const MAX_TAG_BYTES: usize = 255;

impl fmt::Debug for DiskBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskBackend").field("file", &self.file).finish_non_exhaustive()
    }
}

impl DiskBackend {
    /// A backend that keeps the cache at `path`. Nothing is opened yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let producer = concat!("async-cache ", env!("CARGO_PKG_VERSION"), " (Rust)");
        Self {
            file: CacheFile::new(Arc::new(RealDisk), path).version("").producer(producer),
            clock: Clock::system(),
            merges: true,
            lock_timeout: Duration::from_secs(10),
            journal: None,
            has_warned_of_locks: Arc::default(),
        }
    }

    /// Names the shape of the keys and values, in at most 255 bytes. A file of another version is
    /// an empty cache, and the next save replaces it. Change the version when old values must not
    /// be served any more.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.file = self.file.version(version);
        self
    }

    /// Makes the file unforgeable: every part carries a tag that cannot be made without the secret,
    /// and a part without such a tag is not read. A file with another secret, or with none, is an
    /// empty cache and a warning, and the next save sets it aside. Give every cache its own secret
    /// (or [`version`](Self::version)), or their files can be exchanged. `docs/trust.md` lists the
    /// attacks that a secret prevents.
    ///
    /// ```
    /// use async_cache::{AsyncCache, DiskBackend, Secret};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("pages.cache");
    /// let secret = Secret::new("from the vault, not from the source")?;
    /// let backend = DiskBackend::new(&path).secret(secret);
    /// let cache: AsyncCache<String, String> = AsyncCache::builder().backup(backend).build()?;
    /// cache.set("sky".to_owned(), "blue".to_owned());
    /// cache.save_to_backup()?;
    ///
    /// let without: AsyncCache<String, String> = AsyncCache::builder().backup(DiskBackend::new(&path)).build()?;
    /// assert_eq!(without.get("sky"), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn secret(mut self, secret: Secret) -> Self {
        self.file = self.file.secret(secret);
        self
    }

    /// Compresses the values written by a save. Values are still read separately. Default:
    /// [`Compression::OFF`]. Files are read with any compression.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.file = self.file.compression(compression);
        self
    }

    /// Keeps the file on another disk than the real disk, such as the fake disk of
    /// `async-cache-disk`, which can crash and fill up.
    #[must_use]
    pub fn vfs(mut self, vfs: Arc<dyn Vfs>) -> Self {
        self.file = self.file.on(vfs);
        self
    }

    /// The wall clock for use without a cache; a cache uses its own clock.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Lets every save replace the file, including the saves of other processes. Then no lock is
    /// taken.
    #[must_use]
    pub fn without_merging(mut self) -> Self {
        self.merges = false;
        self
    }

    /// How long a save or `clear` waits while another process saves to the same path; then it
    /// returns an error. Default: 10 seconds.
    #[must_use]
    pub fn lock_timeout(mut self, limit: Duration) -> Self {
        self.lock_timeout = limit;
        self
    }

    /// Keeps every write in a journal beside the file: an entry that was set, loaded or deleted
    /// survives a crash and `kill -9` from the return of the call on. See [`Journal`].
    ///
    /// ```
    /// use async_cache::{AsyncCache, DiskBackend, Journal};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("pages.cache");
    /// let backend = DiskBackend::new(&path).journal(Journal::new());
    /// let cache: AsyncCache<String, String> = AsyncCache::builder().backup(backend).build()?;
    /// cache.set("sky".to_owned(), "blue".to_owned()); // on file from here on
    /// # drop(cache);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn journal(mut self, journal: Journal) -> Self {
        self.journal = Some(journal);
        self
    }

    /// Adds a function's name to the version tag, behind a separator that no name has. The Python
    /// front does the same. `Err`: the number of bytes by which the tag would be too long.
    pub(crate) fn belong_to(&mut self, function: &str) -> Result<(), usize> {
        let tag = format!("{}{OWNER}{function}", self.file.version_tag().unwrap_or_default());
        match tag.len().checked_sub(MAX_TAG_BYTES) {
            None | Some(0) => {
                self.file = self.file.clone().version(tag);
                Ok(())
            }
            Some(excess) => Err(excess),
        }
    }

    pub(crate) fn merges(&self) -> bool {
        self.merges
    }

    /// The journal of a cache with this `maxsize`. A cache that stores nothing has none.
    pub(crate) fn journal_of(&self, maxsize: Option<usize>) -> Option<&Journal> {
        self.journal.as_ref().filter(|journal| maxsize != Some(0) || journal.disk_bytes.is_some())
    }

    /// How long the lock of the file is waited for.
    pub(crate) fn patience(&self) -> Duration {
        self.lock_timeout
    }

    /// The file, with its settings.
    pub(crate) fn file(&self) -> &CacheFile {
        &self.file
    }

    /// Begins a save. If saves merge, takes the lock and opens the file at the path.
    pub(crate) fn begin_save(&self) -> Result<Save, DiskError> {
        self.file.begin(self.limit())
    }

    /// How long the lock is waited for; `None` if saves do not merge.
    fn limit(&self) -> Option<Duration> {
        self.merges.then_some(self.lock_timeout)
    }

    /// Where the cache is kept.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Logs the warnings about the file of a successful save.
    pub(crate) fn log_saved(&self, saved: &async_cache_disk::SavedFile) {
        let path = self.path().display();
        if let Some(aside) = &saved.set_aside {
            tracing::warn!(
                "{path}: what stood there was not a cache that could be read, or another function's, and is at {} now",
                aside.display()
            );
        }
        if let Some(why) = saved.without_locks.as_ref().filter(|_| self.merges)
            && !self.has_warned_of_locks.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "{path}: files cannot be locked in its folder ({why}), so this cache saves without a lock: if several \
                 processes save to the path at the same moment, one may overwrite what another has saved; give each \
                 a path of its own, or use a file system with locks"
            );
        }
    }
}

impl<K, V> CacheBackend<K, V> for DiskBackend
where
    K: Serialize + DeserializeOwned + Clone,
    V: Serialize + DeserializeOwned,
{
    fn load(&self) -> Result<Vec<SavedEntry<K, V>>, BackendError> {
        let Some(snapshot) = self.file.open()? else { return Ok(Vec::new()) };
        let file = self.clock.start_file(snapshot.saved_at());
        let codec = Codec::<K, V>::message_pack();
        let mut entries = Vec::new();
        let mut records = snapshot.records();
        while let Some(item) = records.next() {
            let Item::Entry(record) = item else { continue };
            let ttl = record.deadline.map(|deadline| deadline.saturating_sub(file.file_now()));
            if ttl == Some(0) {
                continue;
            }
            // An entry that does not decode is a miss for a cache, too.
            let (Ok(key), Ok(value)) = ((codec.decode_key)(record.key), (codec.decode_value)(record.value))
            else {
                continue;
            };
            entries.push(SavedEntry { key, value, ttl: ttl.map(Duration::from_nanos) });
        }
        Ok(entries)
    }

    fn save(&self, entries: &mut dyn Iterator<Item = SavedEntry<K, V>>) -> Result<(), BackendError> {
        let codec = Codec::<K, V>::message_pack();
        let locked = self.limit().map(|limit| self.file.lock(limit)).transpose()?;
        let saved_at = self.clock.start_file(0).file_now();
        let options = WriteOptions::new(saved_at);
        let mut writer = match &locked {
            Some(locked) => locked.write(options)?,
            None => self.file.write(options)?,
        };
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for entry in entries {
            key.clear();
            value.clear();
            (codec.encode_key)(&entry.key, &mut key)?;
            (codec.encode_value)(&entry.value, &mut value)?;
            let ttl = entry.ttl.map(|ttl| u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX));
            writer.push(&key, &value, ttl.map(|ttl| saved_at.saturating_add(ttl)))?;
        }
        self.log_saved(&writer.finish()?);
        Ok(())
    }

    fn clear(&self) -> Result<(), BackendError> {
        self.file.clear(self.limit())?;
        Ok(())
    }

    fn into_backup(self) -> Backup<K, V> {
        Backup(BackendKind::Disk(self, Codec::message_pack()))
    }
}

//! The backend that keeps a cache in one file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_cache_disk::{DiskError, RealDisk, Scratch, Snapshot, Step, Vfs, WriteOptions, Writer};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::codec::Codec;
use super::{Backup, CacheBackend, Kind, SavedEntry};
use crate::clock::Clock;
use crate::error::BackendError;

/// Keeps a cache in one file, as a snapshot of all its entries.
///
/// - **Opening is instant**, whatever the number of entries: they are found through an index in the file, and
///   decoded when they are first asked for.
/// - **Saving is atomic**: a temporary file beside the target is written, synced and renamed over it. After a
///   crash at any moment the file is the old or the new one, whole.
/// - **The time to live goes on** while nobody runs: what had 10 seconds left when it was saved has 6 left 4
///   seconds later.
/// - **A file that is not ours, or damaged**, is an empty cache and a warning; the next save sets it aside as
///   `<name>.aside`. A damaged entry is a miss, and costs only itself.
/// - Keys and values are `MessagePack` through serde, structs as maps with field names. Byte strings are
///   smallest and fastest as `serde_bytes::ByteBuf` or `bytes::Bytes`; serde writes a `Vec<u8>` as a list of
///   numbers.
///
/// - Two keys must be equal if and only if serde writes them alike. Unequal keys that are written alike
///   (`None` and `Some(None)`, variants of an untagged enum) miss each other's entries; equal keys that are
///   written differently (such as strings whose `Eq` ignores case) are different entries in the file, and one
///   of them may come back after the other was deleted.
/// - A value nested deeper than 256 levels is written, but does not decode.
///
/// Parent folders are created; the file has mode 0600. A symlink at the path is replaced by the file. One
/// path belongs to one cache at a time: of two caches that save to it, the later one wins.
///
/// A cache uses it through [`Builder::backup`](crate::Builder::backup). The methods of [`CacheBackend`] work
/// without a cache, too, and read or write the whole file at once.
#[derive(Clone)]
pub struct DiskBackend {
    path: PathBuf,
    version: String,
    vfs: Arc<dyn Vfs>,
    clock: Clock,
}

/// Stands between the user's version and the function that a file belongs to.
const OWNER: char = '\u{1F}';

/// What the format has room for.
const MAX_TAG_BYTES: usize = 255;

/// Whether two version tags name files of different functions, or of a function and a cache.
pub(crate) fn owners_differ(tag: &str, other: &str) -> bool {
    let owner = |tag: &str| tag.split_once(OWNER).map(|(_, owner)| owner.to_owned());
    owner(tag) != owner(other)
}

impl fmt::Debug for DiskBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskBackend")
            .field("path", &self.path)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl DiskBackend {
    /// A backend that keeps the cache at `path`. Nothing is opened yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), version: String::new(), vfs: Arc::new(RealDisk), clock: Clock::system() }
    }

    /// Names the shape of the keys and values, in at most 255 bytes. A file of another version is an empty
    /// cache, and the next save replaces it. Change it when old values must not be served any more.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// Keeps the file on another disk than the real one, such as the fake one of `async-cache-disk`, which
    /// can crash and fill up.
    #[must_use]
    pub fn vfs(mut self, vfs: Arc<dyn Vfs>) -> Self {
        self.vfs = vfs;
        self
    }

    /// Takes the wall clock from `clock` when it is used without a cache; a cache uses its own.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Adds a function's name to the version tag, behind a separator that no name has. The Python front does the
    /// same. `Err`: the tag would be so many bytes too long.
    pub(crate) fn belong_to(&mut self, function: &str) -> Result<(), usize> {
        let tag = format!("{}{OWNER}{function}", self.version);
        match tag.len().checked_sub(MAX_TAG_BYTES) {
            None | Some(0) => {
                self.version = tag;
                Ok(())
            }
            Some(excess) => Err(excess),
        }
    }

    /// Where the cache is kept.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn open(&self) -> Result<Option<Snapshot>, DiskError> {
        Snapshot::open(&self.vfs, &self.path, &self.version)
    }

    /// Begins a save. With `unread` what stands at the path could not be read when it was opened, so it is
    /// set aside rather than replaced.
    pub(crate) fn writer(&self, saved_at: u64, unread: bool) -> Result<Writer, DiskError> {
        let producer = concat!("async-cache ", env!("CARGO_PKG_VERSION"), " (Rust)");
        let options = WriteOptions::new(&*self.version, saved_at).producer(producer);
        let options = if unread { options.keep_target() } else { options };
        Writer::create(&self.vfs, &self.path, options)
    }
}

impl<K, V> CacheBackend<K, V> for DiskBackend
where
    K: Serialize + DeserializeOwned + Clone,
    V: Serialize + DeserializeOwned,
{
    fn load(&self) -> Result<Vec<SavedEntry<K, V>>, BackendError> {
        let Some(snapshot) = self.open()? else { return Ok(Vec::new()) };
        let file = self.clock.start_file(snapshot.saved_at());
        let codec = Codec::<K, V>::message_pack();
        let mut entries = Vec::new();
        let mut records = snapshot.records();
        while let Some(step) = records.next_step() {
            let Step::Record(record) = step else { continue };
            let ttl = record.deadline.map(|deadline| deadline.saturating_sub(file.file_now()));
            if ttl == Some(0) {
                continue;
            }
            // What does not decode is a miss for a cache, too.
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
        let saved_at = self.clock.start_file(0).file_now();
        let mut writer = self.writer(saved_at, false)?;
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for entry in entries {
            (codec.encode_key)(&entry.key, &mut key)?;
            (codec.encode_value)(&entry.value, &mut value)?;
            let ttl = entry.ttl.map(|ttl| u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX));
            writer.push(&key, &value, ttl.map(|ttl| saved_at.saturating_add(ttl)))?;
        }
        writer.finish()?;
        Ok(())
    }

    fn clear(&self) -> Result<(), BackendError> {
        async_cache_disk::clear(&self.vfs, &self.path)?;
        Ok(())
    }

    fn into_backup(self) -> Backup<K, V> {
        Backup(Kind::Disk(self, Codec::message_pack()))
    }
}

thread_local! {
    /// One per thread; taken out while it is used, since decoding runs user code that may come back here.
    static SCRATCH: std::cell::RefCell<Option<Scratch>> = const { std::cell::RefCell::new(None) };
}

/// Runs `work` with this thread's buffers for look-ups.
pub(crate) fn with_scratch<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
    let mut scratch = SCRATCH.take().unwrap_or_default();
    let result = work(&mut scratch);
    SCRATCH.set(Some(scratch));
    result
}

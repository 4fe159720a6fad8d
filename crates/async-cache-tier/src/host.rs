//! The traits that a front implements: everything that this crate cannot decide itself.

use async_cache_core::address::Address;
use async_cache_core::listing::Ticket;
use async_cache_core::probe::{Probed, Stale};
use async_cache_core::time::{Deadline, FileClock, Now, Stamp, Time};
use async_cache_disk::{CacheFile, DiskError, KeyKind, Save};

use crate::clock;
use crate::eager::EagerEntries;
use crate::tier::{Tier, Tiered};

/// A front's cache in memory.
///
/// Rules for every implementation:
/// 1. the closures given to [`shard`](Memory::shard), [`read`](Memory::read) and
///    [`all_shards`](Memory::all_shards) run under the lock (or borrow) of the shard. The only user
///    code in them is `Clone` and comparisons that cannot call back into the cache, and their
///    results are dropped after the lock is released;
/// 2. nothing but the turn is locked when any of these methods is called.
pub trait Memory: Sized {
    /// A stored key.
    type Key;
    /// A stored value.
    type Value;
    /// Where the callers of a running load wait.
    type Room;

    /// The state of the cache beside its shards.
    fn tier(&self) -> &Tier;
    /// The maximum number of entries in the cache.
    fn maxsize(&self) -> Option<usize>;
    /// How many shards the cache has.
    fn shards(&self) -> usize;
    /// Works on a shard, exclusively.
    fn shard<R>(&self, number: usize, work: impl FnOnce(&mut Under<Self>) -> R) -> R;
    /// Reads a shard.
    fn read<R>(&self, number: usize, work: impl FnOnce(&Under<Self>) -> R) -> R;
    /// Works on all shards, locked at once, in the order of their numbers.
    fn all_shards<R>(&self, work: impl FnOnce(&mut [&mut Under<Self>]) -> R) -> R;
    /// The number of entries in memory.
    fn hot(&self) -> usize {
        (0..self.shards()).map(|it| self.read(it, |tiered| tiered.shard.store().len())).sum()
    }
    /// Lists the entries of a shard, the least worth keeping first, holding the lock as briefly as
    /// the front can.
    fn list(&self, number: usize) -> Vec<Ticket>;
    /// Copies those entries that have not left into `into`. Under a single lock.
    fn take(&self, number: usize, tickets: &[Ticket], into: &mut Vec<Taken<Self::Key, Self::Value>>);
    /// Copies a key; `None` if the user's `Clone` panics. May run under a lock.
    fn copy_key(&self, key: &Self::Key) -> Option<Self::Key>;
    /// Copies a value that is about to be served.
    fn copy_value(&self, value: &Self::Value) -> Self::Value;

    /// The time now, on the clock of deadlines.
    fn time(&self) -> Time;
    /// Whether a deadline has passed.
    fn has_passed(&self, deadline: Deadline) -> bool;
    /// The wall clock, in nanoseconds since the Unix epoch.
    fn wall(&self) -> u64;
    /// The same instant on both clocks.
    fn both_clocks(&self) -> (Time, u64) {
        clock::both(|| self.time(), || self.wall())
    }
    /// The time of a write. The wall clock is read only if the times of writing are kept.
    fn now(&self) -> Now {
        if self.tier().keeps_writes() {
            Now::new(self.time(), Stamp::from_nanos(self.wall()))
        } else {
            Now::without_wall(self.time())
        }
    }
}

/// A front, with a cache and the file of the cache.
///
/// Methods that encode, decode or compare may run user code, which may use the cache: they are
/// called with nothing locked but the turn. A fault of a single entry is a [`Refusal::Entry`]; only
/// a fault that must end the whole operation (an interrupt, a full disk) is an error.
pub trait Host: Memory {
    /// A fault that ends an operation.
    type Error;
    /// Paces long work.
    type Slice: Slice<Self::Error>;
    /// The handling of records whose keys only the front can compare.
    type Eager: EagerEntries<Self>;

    /// Begins a piece of long work.
    fn begin_slice(&self) -> Self::Slice;
    /// Runs work that reads or writes the file. The work runs no user code.
    fn blocking<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R;

    /// The file of the cache.
    fn file(&self) -> &CacheFile;
    /// Begins a save: takes the lock of the file, if saves merge.
    ///
    /// # Errors
    /// The lock was not available, or the existing file could not be read.
    fn begin_save(&self) -> Result<Save, Self::Error>;
    /// Which values may be copied from file to file as bytes.
    fn allows(&self) -> fn(&[u8]) -> bool;
    /// Appends the canonical bytes of a key; `false`, and nothing is appended, if the key has none.
    ///
    /// # Errors
    /// A fault that must end the operation.
    fn canonical_key(&self, key: &Self::Key, out: &mut Vec<u8>) -> Result<bool, Self::Error>;
    /// Whether `key` equals the key behind these canonical bytes.
    fn is_key_of(&self, key: &Self::Key, bytes: &[u8]) -> bool;
    /// The bytes under which a file may have a key, canonical or eager; `None` if no file can have
    /// the key.
    ///
    /// # Errors
    /// A fault that must end the operation.
    fn file_key(&self, key: &Self::Key) -> Result<Option<FileKey>, Self::Error> {
        let mut bytes = Vec::new();
        let is_canonical = self.canonical_key(key, &mut bytes)?;
        Ok(is_canonical.then_some(FileKey { kind: KeyKind::Canonical, bytes }))
    }
    /// Runs `work` under the lock of the key's shard, unless the key is in memory or cannot be
    /// looked up. For keys that only the front can compare.
    fn while_absent(&self, _key: &Self::Key, work: impl FnOnce()) {
        work();
    }
    /// Appends a key for a record.
    ///
    /// # Errors
    /// The reason for leaving out the entry, or a fault that must end the save.
    fn record_key(&self, key: &Self::Key, out: &mut Vec<u8>) -> Result<KeyKind, Refusal<Self::Error>>;
    /// Appends a value for a record.
    ///
    /// # Errors
    /// The reason for leaving out the entry, or a fault that must end the save.
    fn record_value(&self, value: &Self::Value, out: &mut Vec<u8>) -> Result<(), Refusal<Self::Error>>;
    /// Decodes a value.
    ///
    /// # Errors
    /// The reason why the entry cannot be served, or a fault that must end the operation; then the
    /// entry stays cold.
    fn decode_value(&self, bytes: &[u8]) -> Result<Self::Value, Refusal<Self::Error>>;

    /// The front's error for an error of the file.
    fn error(&self, error: DiskError) -> Self::Error;
    /// Writes a line to the log, as a warning.
    fn warn(&self, message: &str);
    /// The name of an entry for a message: its key, if the front can display it.
    fn name_of(&self, key: &[u8], rank: u32) -> String;
    /// The name of a key in memory for a message; `None` if the front cannot display it.
    fn name_of_key(&self, key: &Self::Key) -> Option<String>;
    /// The front's name of the counter of entries that cannot be served.
    const UNDECODABLE: &'static str;
}

/// A shard of a front.
pub type Under<M> = Tiered<<M as Memory>::Key, <M as Memory>::Value, <M as Memory>::Room>;

/// A key named by a call: asked for, written or deleted.
pub trait NamedKey<H: Host> {
    /// The canonical bytes of the key; `None` if the key has none.
    ///
    /// # Errors
    /// A fault that must end the operation.
    fn encode(&self, host: &H) -> Result<Option<Vec<u8>>, H::Error>;
    /// Whether `self` equals the key behind these bytes.
    fn is_key_of(&self, host: &H, bytes: &[u8]) -> bool;
    /// The bytes under which a file may have the key, canonical or eager; `None` if no file can
    /// have the key.
    ///
    /// # Errors
    /// A fault that must end the operation.
    fn file_key(&self, host: &H) -> Result<Option<FileKey>, H::Error> {
        let key = |bytes| FileKey { kind: KeyKind::Canonical, bytes };
        Ok(self.encode(host)?.map(key))
    }
    /// The key in its stored form.
    ///
    /// # Errors
    /// A fault that must end the operation.
    fn to_key(&self, host: &H) -> Result<H::Key, H::Error>;
    /// Reads the shard of the key.
    fn read<R>(&self, host: &H, work: impl FnOnce(&Under<H>) -> R) -> R;
    /// Locks the shard of the key, finds the key there, and works on the result, unless the probe
    /// is stale.
    ///
    /// # Errors
    /// A fault that must end the operation.
    fn address<R>(
        &self,
        host: &H,
        probed: Probed,
        work: impl FnOnce(&mut Under<H>, Address) -> R,
    ) -> Result<Result<R, Stale>, H::Error>;
    /// Serves the key from memory and counts the hit.
    ///
    /// # Errors
    /// A fault that must end the operation.
    fn serve_hot(&self, host: &H) -> Result<Option<H::Value>, H::Error>;
}

/// Paces work that delays others (in Python, because the work holds the interpreter's lock).
pub trait Slice<E> {
    /// Whether the work has gone on for long enough.
    fn is_over(&self) -> bool;
    /// Lets others run, and begins another slice.
    ///
    /// # Errors
    /// An interrupt.
    fn end(&mut self) -> Result<(), E>;
    /// If the slice is over, lets others run in a place where no interrupt may end the work.
    fn rest_if_over(&mut self);
    /// [`Slice::end`], if the slice is over.
    ///
    /// # Errors
    /// An interrupt.
    fn end_if_over(&mut self) -> Result<(), E> {
        if self.is_over() { self.end() } else { Ok(()) }
    }
}

/// Work that delays nobody.
impl<E> Slice<E> for () {
    fn is_over(&self) -> bool {
        false
    }

    fn end(&mut self) -> Result<(), E> {
        Ok(())
    }

    fn rest_if_over(&mut self) {}
}

/// A key in the form of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileKey {
    /// Whether a look-up finds the key.
    pub kind: KeyKind,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The reason why an operation failed for an entry.
#[derive(Debug)]
pub enum Refusal<E> {
    /// The entry's own fault, for this reason.
    Entry(String),
    /// The whole operation has to end.
    End(E),
}

/// An entry in its state when a save copied it.
#[derive(Debug)]
pub struct Taken<K, V> {
    /// The key, or the reason why it could not be copied.
    pub key: Result<K, String>,
    /// The value, or the reason why it could not be copied.
    pub value: Result<V, String>,
    /// When the entry stops being served.
    pub deadline: Deadline,
    /// When the entry was written.
    pub stamp: Stamp,
}

/// Whether a record's time has passed, by the file's clock.
pub(crate) fn is_expired(deadline: Option<u64>, file: FileClock) -> bool {
    deadline.is_some_and(|deadline| deadline <= file.file_now())
}

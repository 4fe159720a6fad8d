//! What a front provides, and nothing that this crate could decide itself.

use async_cache_core::address::Address;
use async_cache_core::listing::Ticket;
use async_cache_core::probe::{Probed, Stale};
use async_cache_core::time::{Deadline, FileClock, Now, Stamp, Time};
use async_cache_disk::{CacheFile, DiskError, KeyKind, Save, Snapshot, Tombstones};

use crate::eager::{EagerEntries, Restored};
use crate::tier::{Tier, Tiered};

/// A front's cache in memory.
///
/// Rules for every implementation:
/// 1. the closures given to [`shard`](Memory::shard), [`read`](Memory::read) and
///    [`all_shards`](Memory::all_shards) run under the lock (or borrow) of the shard. They run no user code
///    but `Clone` and comparisons that cannot come back to the cache, and what they return is dropped
///    after the lock is released;
/// 2. nothing is locked when any of these methods is called, except the turn.
pub trait Memory: Sized {
    /// A key as it is stored.
    type Key;
    /// A value as it is stored.
    type Value;
    /// Where the callers of a running load wait.
    type Room;

    /// What is kept for the cache beside its shards.
    fn tier(&self) -> &Tier;
    /// The most entries that the cache may hold.
    fn maxsize(&self) -> Option<usize>;
    /// How many shards the cache has.
    fn shards(&self) -> usize;
    /// Works on one shard, alone.
    fn shard<R>(&self, number: usize, work: impl FnOnce(&mut Under<Self>) -> R) -> R;
    /// Reads one shard.
    fn read<R>(&self, number: usize, work: impl FnOnce(&Under<Self>) -> R) -> R;
    /// Works on all shards, locked at once, in the order of their numbers.
    fn all_shards<R>(&self, work: impl FnOnce(&mut [&mut Under<Self>]) -> R) -> R;
    /// Lists the entries of a shard, the least worth keeping first, for as short a time under its lock as
    /// the front can.
    fn list(&self, number: usize) -> Vec<Ticket>;
    /// Copies those entries that are still there into `into`. Under one lock.
    fn take(&self, number: usize, tickets: &[Ticket], into: &mut Vec<Taken<Self::Key, Self::Value>>);
    /// Copies a key; `None` if the user's `Clone` panics. It may run under a lock.
    fn copy_key(&self, key: &Self::Key) -> Option<Self::Key>;
    /// Copies a value that is about to be served.
    fn copy_value(&self, value: &Self::Value) -> Self::Value;

    /// The time now, on the clock of deadlines.
    fn time(&self) -> Time;
    /// Whether a deadline has passed.
    fn has_passed(&self, deadline: Deadline) -> bool;
    /// The wall clock, in nanoseconds since the Unix epoch.
    fn wall(&self) -> u64;
    /// Both clocks, for a write.
    fn now(&self) -> Now {
        if self.tier().keeps_writes() {
            Now::new(self.time(), Stamp::from_nanos(self.wall()))
        } else {
            Now::without_wall(self.time())
        }
    }
}

/// A front, with one of its caches and the file of that cache.
///
/// Methods that encode, decode or compare may run user code, which may use the cache: they are called with
/// nothing locked but the turn. A fault of one entry is a [`Refusal::Entry`]; only what must end the whole
/// operation (an interrupt, a full disk) is an error.
pub trait Host: Memory {
    /// What ends an operation.
    type Error;
    /// Paces long work.
    type Slice: Slice<Self::Error>;
    /// What becomes of records whose keys only the front can compare.
    type Eager: EagerEntries<Self>;

    /// Begins a piece of long work.
    fn begin_slice(&self) -> Self::Slice;
    /// Runs work that reads or writes the file. It runs no user code.
    fn blocking<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R;

    /// The file of the cache.
    fn file(&self) -> &CacheFile;
    /// Begins a save: takes the lock of the file, if saves merge.
    ///
    /// # Errors
    /// The lock could not be had, or what stands there could not be read.
    fn begin_save(&self) -> Result<Save, Self::Error>;
    /// Which values may be copied from file to file as bytes.
    fn allows(&self) -> fn(&[u8]) -> bool;
    /// Appends the canonical bytes of a key; `false`, and nothing is appended, if it has none.
    ///
    /// # Errors
    /// What must end the operation.
    fn canonical_key(&self, key: &Self::Key, out: &mut Vec<u8>) -> Result<bool, Self::Error>;
    /// Whether the key that these canonical bytes were made of equals `key`.
    fn is_key_of(&self, key: &Self::Key, bytes: &[u8]) -> bool;
    /// The bytes under which a file may have a key, canonical or eager; `None` if no file can have it.
    ///
    /// # Errors
    /// What must end the operation.
    fn file_key(&self, key: &Self::Key) -> Result<Option<FileKey>, Self::Error> {
        let mut bytes = Vec::new();
        let is_canonical = self.canonical_key(key, &mut bytes)?;
        Ok(is_canonical.then_some(FileKey { kind: KeyKind::Canonical, bytes }))
    }
    /// Appends a key for a record.
    ///
    /// # Errors
    /// Why the entry is left out, or what must end the save.
    fn record_key(&self, key: &Self::Key, out: &mut Vec<u8>) -> Result<KeyKind, Refusal<Self::Error>>;
    /// Appends a value for a record.
    ///
    /// # Errors
    /// Why the entry is left out, or what must end the save.
    fn record_value(&self, value: &Self::Value, out: &mut Vec<u8>) -> Result<(), Refusal<Self::Error>>;
    /// Decodes a value.
    ///
    /// # Errors
    /// Why the entry cannot be served, or what must end the operation; then it stays cold.
    fn decode_value(&self, bytes: &[u8]) -> Result<Self::Value, Refusal<Self::Error>>;
    /// Takes in the eager entries of a file that is being opened, before its other entries. Deletes that
    /// are not in `before` were made since the opening began.
    ///
    /// # Errors
    /// What must end the operation.
    fn restore_eager(
        &self,
        snapshot: &Snapshot,
        file: FileClock,
        before: Option<&Tombstones>,
    ) -> Result<Restored, Self::Error>;

    /// What ends an operation because of this.
    fn error(&self, error: DiskError) -> Self::Error;
    /// Writes a line to the log, as a warning.
    fn warn(&self, message: &str);
    /// Names an entry in a message: by its key, if the front can say it.
    fn name_of(&self, key: &[u8], rank: u32) -> String;
    /// Names a key of an entry in memory in a message; `None` if it cannot be said.
    fn name_of_key(&self, key: &Self::Key) -> Option<String>;
    /// How the counter of entries that cannot be served is called in this front.
    const UNDECODABLE: &'static str;
}

/// A shard of a front.
pub type Under<M> = Tiered<<M as Memory>::Key, <M as Memory>::Value, <M as Memory>::Room>;

/// A key that a caller asks for, writes or deletes.
pub trait Asked<H: Host> {
    /// The canonical bytes of the key; `None` if it has none.
    ///
    /// # Errors
    /// What must end the operation.
    fn encode(&self, host: &H) -> Result<Option<Vec<u8>>, H::Error>;
    /// Whether the key that these bytes were made of equals this one.
    fn is_key_of(&self, host: &H, bytes: &[u8]) -> bool;
    /// The bytes under which a file may have the key, canonical or eager; `None` if no file can have it.
    ///
    /// # Errors
    /// What must end the operation.
    fn file_key(&self, host: &H) -> Result<Option<FileKey>, H::Error> {
        let key = |bytes| FileKey { kind: KeyKind::Canonical, bytes };
        Ok(self.encode(host)?.map(key))
    }
    /// The key, to be stored.
    ///
    /// # Errors
    /// What must end the operation.
    fn to_key(&self, host: &H) -> Result<H::Key, H::Error>;
    /// Reads the shard of the key.
    fn read<R>(&self, host: &H, work: impl FnOnce(&Under<H>) -> R) -> R;
    /// Locks the shard of the key, finds the key in it, and works on it, unless the probe is stale.
    ///
    /// # Errors
    /// What must end the operation.
    fn address<R>(
        &self,
        host: &H,
        probed: Probed,
        work: impl FnOnce(&mut Under<H>, Address) -> R,
    ) -> Result<Result<R, Stale>, H::Error>;
    /// Serves the key from memory and counts the hit.
    ///
    /// # Errors
    /// What must end the operation.
    fn serve_hot(&self, host: &H) -> Result<Option<H::Value>, H::Error>;
}

/// Paces work that others wait for (in Python, because it holds the interpreter's lock).
pub trait Slice<E> {
    /// Whether the work has gone on for long enough.
    fn is_over(&self) -> bool;
    /// Lets others run, and begins another slice.
    ///
    /// # Errors
    /// An interrupt.
    fn end(&mut self) -> Result<(), E>;
    /// If it is over, lets others run where no interrupt may end the work.
    fn rest_if_over(&mut self);
    /// [`Slice::end`], if it is over.
    ///
    /// # Errors
    /// An interrupt.
    fn end_if_over(&mut self) -> Result<(), E> {
        if self.is_over() { self.end() } else { Ok(()) }
    }
}

/// Work that nobody waits for.
impl<E> Slice<E> for () {
    fn is_over(&self) -> bool {
        false
    }

    fn end(&mut self) -> Result<(), E> {
        Ok(())
    }

    fn rest_if_over(&mut self) {}
}

/// A key as a file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileKey {
    /// Whether a look-up finds it.
    pub kind: KeyKind,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Why something could not be done for one entry.
#[derive(Debug)]
pub enum Refusal<E> {
    /// It is the entry's own fault, for this reason.
    Entry(String),
    /// The whole operation has to end.
    End(E),
}

/// An entry as it was when a save copied it.
#[derive(Debug)]
pub struct Taken<K, V> {
    /// The key; `Err` says why it could not be copied.
    pub key: Result<K, String>,
    /// The value; `Err` says why it could not be copied.
    pub value: Result<V, String>,
    /// When it stops being served.
    pub deadline: Deadline,
    /// When it was written.
    pub stamp: Stamp,
}

/// Whether a record's time has passed, by the file's clock.
pub(crate) fn is_expired(deadline: Option<u64>, file: FileClock) -> bool {
    deadline.is_some_and(|deadline| deadline <= file.file_now())
}

//! The state of a journal: its store, writes on their way to it, and failures. Knows no front.
//! `journal` has the rules.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_cache_core::address::Address;
use async_cache_core::entry::Meta;
use async_cache_core::flight::FlightId;
use async_cache_core::shard::Shard;
use async_cache_core::time::{Deadline, FileClock, Now, Stamp};
use async_cache_disk::store::{DiskStore, EntryPlace, StoreScratch, StoreWrite, Written};
use async_cache_disk::{DiskError, KeyKind, ProcessMark};
use parking_lot::{Mutex, RwLock};

use crate::counts::TierCounts;
use crate::journal_start::{StartUpkeep, UpkeepStart};

/// If a large value made the buffer of a thread larger than this, the buffer is freed.
const KEPT_BYTES: usize = 1 << 16;

/// The journal of a cache.
#[derive(Debug)]
pub struct Journal {
    /// `None`: closed. Read for the length of a call of the store; no user code runs meanwhile.
    pub(crate) store: RwLock<Option<DiskStore>>,
    pub(crate) clock: FileClock,
    pub(crate) limit: DiskLimit,
    pub(crate) counts: Arc<TierCounts>,
    /// Rule 10.
    pub(crate) kept: Mutex<Vec<EntryPlace>>,
    /// Rule 8.
    process: ProcessMark,
    /// Rule 5: the first failure, until it is logged where nothing is locked.
    pub(crate) failure: Mutex<Option<String>>,
    pub(crate) has_failed: AtomicBool,
    /// There is a failure to log.
    pub(crate) has_to_warn: AtomicBool,
    pub(crate) has_met_undecodable: AtomicBool,
    upkeep: UpkeepStart,
    /// When the upkeep has rested enough after its last step.
    pub(crate) rest_until: AtomicU64,
    /// When the upkeep flushed last.
    pub(crate) flushed_at: AtomicU64,
}

/// Whether the disk holds more than memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskLimit {
    /// `maxsize` limits memory and disk together.
    OfMemory,
    /// The disk has a limit of its own.
    Bytes,
}

/// A write on its way to the journal, made by [`Journal::encode`].
#[derive(Debug)]
pub struct JournalWrite {
    /// The key, then the value.
    pub(crate) bytes: Vec<u8>,
    pub(crate) key_end: usize,
    pub(crate) kind: KeyKind,
    pub(crate) statement: Statement,
    /// The wall clock, in nanoseconds since the Unix epoch.
    pub(crate) wall: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Statement {
    Entry {
        deadline: Option<u64>,
    },
    Delete,
    /// The key cannot be written: no record can have it.
    Nothing,
}

impl Journal {
    pub(crate) fn new(store: DiskStore, clock: FileClock, limit: DiskLimit, counts: Arc<TierCounts>) -> Self {
        Self {
            store: RwLock::new(Some(store)),
            clock,
            limit,
            counts,
            failure: Mutex::new(None),
            kept: Mutex::new(Vec::new()),
            process: ProcessMark::new(),
            has_failed: AtomicBool::new(false),
            has_to_warn: AtomicBool::new(false),
            has_met_undecodable: AtomicBool::new(false),
            upkeep: UpkeepStart::default(),
            rest_until: AtomicU64::new(0),
            flushed_at: AtomicU64::new(0),
        }
    }

    /// Sets the start of the work in the background: now if the store has something to do, else at
    /// the first write.
    ///
    /// # Errors
    /// The work cannot be started now.
    pub fn start_upkeep(&self, start: StartUpkeep) -> std::io::Result<()> {
        self.upkeep.set(start);
        let has_upkeep = self.with_own_store(DiskStore::has_upkeep).unwrap_or(false);
        if has_upkeep { self.upkeep.start() } else { Ok(()) }
    }

    /// `None` if the journal is closed.
    pub(crate) fn with_store<R>(&self, work: impl FnOnce(&DiskStore) -> R) -> Option<R> {
        self.store.read_recursive().as_ref().map(work)
    }

    /// [`with_store`](Self::with_store) for reading: `None` also in a forked child (rule 8). The
    /// store itself refuses the writes of a child.
    pub(crate) fn with_own_store<R>(&self, work: impl FnOnce(&DiskStore) -> R) -> Option<R> {
        if self.process.is_of_this_process() { self.with_store(work) } else { None }
    }

    /// [`with_store`](Self::with_store) for a write.
    pub(crate) fn write_with<R>(&self, work: impl FnOnce(&DiskStore) -> R) -> Option<R> {
        self.with_store(|store| {
            if self.upkeep.is_awaited() {
                self.start_at_write();
            }
            work(store)
        })
    }

    #[cold]
    fn start_at_write(&self) {
        if !self.process.is_of_this_process() {
            return;
        }
        if let Err(error) = self.upkeep.start() {
            self.counts.write_errors.fetch_add(1, Ordering::Relaxed);
            self.fail(|| format!("the journal has no thread, so nothing is synced unasked: {error}"));
        }
    }

    /// Whether the journal was closed, or belongs to the parent of this process: the cache is in
    /// memory only.
    pub fn is_closed(&self) -> bool {
        self.with_own_store(|_| ()).is_none()
    }

    /// How many entries are on the disk and not in memory: exact without a limit for the disk.
    pub fn cold(&self) -> usize {
        self.with_own_store(DiskStore::cold).map_or(0, |cold| usize::try_from(cold).unwrap_or(usize::MAX))
    }

    /// The size of the store, in bytes.
    pub fn bytes(&self) -> u64 {
        self.with_own_store(DiskStore::bytes).unwrap_or(0)
    }

    /// The latest time of a record. Every later write has a later time.
    pub(crate) fn latest(&self) -> u64 {
        self.with_store(DiskStore::latest).unwrap_or(0)
    }

    /// Appends a write, under the lock of the key's shard. `replaces`: the stamp of the entry in
    /// memory, if the key has one. Returns the facts with which the entry is stored in memory.
    pub fn append(&self, write: &JournalWrite, replaces: Option<Stamp>, deadline: Deadline) -> Meta {
        let replaces = replaces.filter(|stamp| *stamp != Stamp::UNKNOWN);
        let replaces = replaces.map(|stamp| EntryPlace::from_number(stamp.as_nanos()));
        let written = self.write_with(|store| write.append_to(store, replaces));
        let stamp = match written {
            Some(Ok(Some(written))) => stamp_of(written.place),
            Some(Ok(None)) | None => Stamp::UNKNOWN,
            Some(Err(error)) => {
                self.failed(&error);
                Stamp::UNKNOWN
            }
        };
        Meta::written_at(stamp, deadline)
    }

    /// Appends the value of a load that has ended, under the lock of the key's shard, unless the
    /// load was fenced (rule 4). A value that is not kept deletes the record of the entry that it
    /// replaces in memory.
    pub fn append_load<K, V, R>(
        &self,
        write: JournalWrite,
        shard: &Shard<K, V, R>,
        (flight, at): (FlightId, &Address),
        deadline: Deadline,
        now: Now,
    ) -> Meta {
        let nothing = Meta::written_at(Stamp::UNKNOWN, deadline);
        if !shard.flights().will_store(flight) {
            return nothing;
        }
        let replaces = shard.stamp_at(at);
        if !deadline.has_passed(now.time) {
            return self.append(&write, replaces, deadline);
        }
        if replaces.is_some_and(|stamp| stamp != Stamp::UNKNOWN) {
            self.append(&write.into_delete(), replaces, deadline);
        }
        nothing
    }

    /// Appends a clear, under the locks of all shards.
    pub fn append_clear(&self, wall: u64) {
        if let Some(Err(error)) = self.write_with(|store| store.clear(wall)) {
            self.failed(&error);
        }
        self.kept.lock().clear();
    }

    /// A kept entry was copied to another place.
    pub(crate) fn move_kept(&self, from: EntryPlace, to: EntryPlace) {
        let mut kept = self.kept.lock();
        if let Some(place) = kept.iter_mut().find(|place| **place == from) {
            *place = to;
        }
    }

    pub(crate) fn failed(&self, error: &DiskError) {
        self.counts.write_errors.fetch_add(1, Ordering::Relaxed);
        self.fail(|| format!("a write is not in the journal, and would not survive this process: {error}"));
    }

    /// Keeps the first failure for [`after_write`](Self::after_write) to log.
    pub(crate) fn fail(&self, message: impl FnOnce() -> String) {
        if !self.has_failed.swap(true, Ordering::Relaxed) {
            *self.failure.lock() = Some(message());
            self.has_to_warn.store(true, Ordering::Relaxed);
        }
    }
}

impl JournalWrite {
    /// The same write, as a delete of its key.
    fn into_delete(mut self) -> Self {
        if self.statement != Statement::Nothing {
            self.statement = Statement::Delete;
        }
        self
    }

    fn append_to(
        &self,
        store: &DiskStore,
        replaces: Option<EntryPlace>,
    ) -> Result<Option<Written>, DiskError> {
        let (key, value) = self.bytes.split_at(self.key_end);
        match (self.statement, self.kind) {
            (Statement::Nothing, _) => Ok(None),
            (Statement::Entry { deadline }, KeyKind::Canonical) => {
                store.put(&StoreWrite { key, value, deadline, replaces }, self.wall).map(Some)
            }
            (Statement::Entry { deadline }, KeyKind::Eager) => {
                store.put_eager(&StoreWrite { key, value, deadline, replaces }, self.wall).map(Some)
            }
            (Statement::Delete, KeyKind::Canonical) => store.delete(key, replaces, self.wall).map(|_| None),
            (Statement::Delete, KeyKind::Eager) => store.delete_eager(key, self.wall).map(|_| None),
        }
    }
}

impl Drop for JournalWrite {
    fn drop(&mut self) {
        give_buffer(std::mem::take(&mut self.bytes));
    }
}

/// The stamp of an entry with a record (rule 2).
pub(crate) fn stamp_of(place: EntryPlace) -> Stamp {
    Stamp::from_nanos(place.to_number())
}

thread_local! {
    /// The buffer of the last write of this thread. Taken out during use.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn take_buffer() -> Vec<u8> {
    let mut buffer = BUFFER.try_with(RefCell::take).unwrap_or_default();
    buffer.clear();
    buffer
}

pub(crate) fn give_buffer(buffer: Vec<u8>) {
    if buffer.capacity() > 0 && buffer.capacity() <= KEPT_BYTES {
        let _ = BUFFER.try_with(|place| place.replace(buffer));
    }
}

thread_local! {
    /// The buffers of look-ups, one per thread. Taken out during use: decoding runs user code,
    /// which may come back here. Boxed, so that taking them moves a pointer and not the buffers.
    static SCRATCH: RefCell<Option<Box<StoreScratch>>> = const { RefCell::new(None) };
}

/// Runs `work` with this thread's buffers for look-ups.
pub(crate) fn with_scratch<R>(work: impl FnOnce(&mut StoreScratch) -> R) -> R {
    let mut scratch = SCRATCH.try_with(RefCell::take).ok().flatten().unwrap_or_default();
    let result = work(&mut scratch);
    let _ = SCRATCH.try_with(|place| place.replace(Some(scratch)));
    result
}

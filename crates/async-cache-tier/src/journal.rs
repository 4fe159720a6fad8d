//! The journal of a cache: its store, in which every write is on file when its call returns.
//!
//! ```text
//!          no other process has the store            close
//! no journal --------------------------> open -----------------> closed: memory only
//!      |
//!      `- another process has it: snapshots that merge, as without a journal
//! ```
//!
//! Rules:
//! 1. A write is encoded with nothing locked, and appended under the lock of the key's shard, where
//!    memory changes. So the order of the records of a key is the order of its values in memory. A
//!    clear is appended under the locks of all shards.
//! 2. The stamp of an entry in memory is the place of its record; [`Stamp::UNKNOWN`] if it has
//!    none.
//! 3. An entry read from the store comes into memory only if its key was not written since the
//!    look-up. This is checked under the lock of the shard; otherwise the key is looked up again.
//! 4. The value of a load is appended only if the load was not fenced.
//! 5. A value that cannot be encoded or written stays in memory, and deletes the earlier record of
//!    its key: an older value never returns. The failure is counted, and the first one is logged.
//! 6. Without a limit for the disk, an entry that memory evicts is deleted from the store, unless
//!    it was written since; with a limit, it stays on the disk and is cold.
//! 7. Nothing is owed to the file: no debts, no lost writes, no probes. A write reads no file.
//! 8. A forked child does not use the journal of its parent, not even for reading: the child's
//!    deletes would not be in it.
//!
//! `serve` has reading, `opening` opening and closing, `upkeep` the work in the background.

mod opening;
mod serve;
mod upkeep;

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_cache_core::address::Address;
use async_cache_core::entry::Meta;
use async_cache_core::flight::FlightId;
use async_cache_core::removed::{Cause, Removed};
use async_cache_core::shard::Shard;
use async_cache_core::time::{Deadline, FileClock, Now, Stamp};
use async_cache_disk::store::{DiskStore, EntryPlace, StoreWrite, Written};
use async_cache_disk::{DiskError, KeyKind};
use parking_lot::{Mutex, RwLock};

pub use opening::{JournalClosed, JournalOptions, close, open};
pub use serve::{DiskWait, Served, contains, serve};
pub use upkeep::{JournalSaved, Upkeep, flush, save, tend};

use crate::counts::TierCounts;
use crate::host::{FileKey, Host, NamedKey, Refusal};
use crate::open::OpeningOutcome;

/// If a large value made the buffer of a thread larger than this, the buffer is freed.
const KEPT_BYTES: usize = 1 << 16;

/// The journal of a cache.
#[derive(Debug)]
pub struct Journal {
    /// `None`: closed. Read for the length of a call of the store; no user code runs meanwhile.
    store: RwLock<Option<DiskStore>>,
    clock: FileClock,
    limit: DiskLimit,
    counts: Arc<TierCounts>,
    /// Rule 8.
    process: u32,
    /// Rule 5: the first failure, until it is logged where nothing is locked.
    failure: Mutex<Option<String>>,
    has_failed: AtomicBool,
    /// There is a failure to log.
    has_to_warn: AtomicBool,
    has_met_undecodable: AtomicBool,
}

/// Whether the disk holds more than memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DiskLimit {
    /// `maxsize` limits memory and disk together.
    OfMemory,
    /// The disk has a limit of its own.
    Bytes,
}

/// A write on its way to the journal, made by [`Journal::encode`].
#[derive(Debug)]
pub struct JournalWrite {
    /// The key, then the value.
    bytes: Vec<u8>,
    key_end: usize,
    kind: KeyKind,
    statement: Statement,
    /// The wall clock, in nanoseconds since the Unix epoch.
    wall: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Statement {
    Entry {
        deadline: Option<u64>,
    },
    Delete,
    /// The key cannot be written: no record can have it.
    Nothing,
}

impl Journal {
    fn new(store: DiskStore, clock: FileClock, limit: DiskLimit, counts: Arc<TierCounts>) -> Self {
        Self {
            store: RwLock::new(Some(store)),
            clock,
            limit,
            counts,
            failure: Mutex::new(None),
            process: std::process::id(),
            has_failed: AtomicBool::new(false),
            has_to_warn: AtomicBool::new(false),
            has_met_undecodable: AtomicBool::new(false),
        }
    }

    /// `None` if the journal is closed.
    fn with_store<R>(&self, work: impl FnOnce(&DiskStore) -> R) -> Option<R> {
        self.store.read_recursive().as_ref().map(work)
    }

    /// [`with_store`](Self::with_store) for reading: `None` also in a forked child (rule 8). Asking
    /// for the process is a system call; a write leaves it to the store, which refuses the write.
    fn with_own_store<R>(&self, work: impl FnOnce(&DiskStore) -> R) -> Option<R> {
        if std::process::id() == self.process { self.with_store(work) } else { None }
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

    /// The cache as it is, as if the journal were opened now.
    pub fn present<H: Host>(&self, host: &H) -> OpeningOutcome {
        OpeningOutcome {
            entries: host.hot().saturating_add(self.cold()),
            bytes: self.bytes(),
            saved_at: self.with_store(DiskStore::latest).unwrap_or(0),
        }
    }

    /// Logs the first failure of the upkeep; every failure is counted.
    pub fn report<H: Host>(&self, host: &H, error: &impl std::fmt::Display) {
        self.counts.write_errors.fetch_add(1, Ordering::Relaxed);
        self.fail(|| format!("the disk has failed: {error}"));
        self.warn(host);
    }

    /// The size of the store, in bytes.
    pub fn bytes(&self) -> u64 {
        self.with_own_store(DiskStore::bytes).unwrap_or(0)
    }

    /// Encodes a write of an entry, with nothing locked (rule 1). A value whose deadline has passed
    /// deletes its key.
    ///
    /// # Errors
    /// A fault that must end the operation; then nothing is written.
    pub fn encode<H: Host>(
        &self,
        host: &H,
        key: &H::Key,
        value: &H::Value,
        deadline: Deadline,
    ) -> Result<JournalWrite, H::Error> {
        let mut bytes = take_buffer();
        let mut write = JournalWrite {
            bytes: Vec::new(),
            key_end: 0,
            kind: KeyKind::Canonical,
            statement: Statement::Entry { deadline: self.clock.deadline_to_file(deadline) },
            wall: host.wall(),
        };
        let encoded = host.record_key(key, &mut bytes).and_then(|kind| {
            (write.key_end, write.kind) = (bytes.len(), kind);
            if host.has_passed(deadline) {
                write.statement = Statement::Delete;
                return Ok(());
            }
            host.record_value(value, &mut bytes)
        });
        match encoded {
            Ok(()) => {}
            Err(Refusal::End(error)) => return Err(error),
            Err(Refusal::Entry(why)) => {
                // Rule 5.
                bytes.truncate(write.key_end);
                let has_key = write.key_end > 0;
                write.statement = if has_key { Statement::Delete } else { Statement::Nothing };
                self.counts.unjournaled.fetch_add(1, Ordering::Relaxed);
                let name = host.name_of_key(key).map(|name| format!("{name}: ")).unwrap_or_default();
                self.fail(|| format!("an entry stays in memory only: {name}{why}"));
            }
        }
        write.bytes = bytes;
        Ok(write)
    }

    /// Encodes a delete, with nothing locked.
    pub fn encode_delete<H: Host>(&self, host: &H, key: FileKey) -> JournalWrite {
        let FileKey { kind, bytes } = key;
        let (key_end, statement) = (bytes.len(), Statement::Delete);
        JournalWrite { bytes, key_end, kind, statement, wall: host.wall() }
    }

    /// Appends a write, under the lock of the key's shard. `replaces`: the stamp of the entry in
    /// memory, if the key has one. Returns the facts with which the entry is stored in memory.
    pub fn append(&self, write: &JournalWrite, replaces: Option<Stamp>, deadline: Deadline) -> Meta {
        let replaces = replaces.filter(|stamp| *stamp != Stamp::UNKNOWN);
        let replaces = replaces.map(|stamp| EntryPlace::from_number(stamp.as_nanos()));
        let written = self.with_store(|store| write.append_to(store, replaces));
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
        if let Some(Err(error)) = self.with_store(|store| store.clear(wall)) {
            self.failed(&error);
        }
    }

    /// To be called after each write, with nothing locked: passes evictions on to the store (rule
    /// 6), and logs the first failure.
    pub fn after_write<H: Host>(&self, host: &H, removed: &Removed<H::Key, H::Value>) {
        let evicted = || {
            let is_evicted = |cause| matches!(cause, Cause::Evicted);
            removed.iter().filter(move |it| is_evicted(it.cause) && it.stamp != Stamp::UNKNOWN)
        };
        match self.limit {
            DiskLimit::Bytes => {
                let count = evicted().count() as u64;
                if count > 0 {
                    self.with_store(|store| store.evicted(count));
                }
            }
            DiskLimit::OfMemory => {
                for entry in evicted() {
                    if let Some(key) = &entry.key {
                        self.forget(host, key, entry.stamp);
                    }
                }
                self.trim(host);
            }
        }
        self.warn(host);
    }

    /// Logs the first failure, with nothing locked.
    fn warn<H: Host>(&self, host: &H) {
        if self.has_to_warn.load(Ordering::Relaxed) && self.has_to_warn.swap(false, Ordering::Relaxed) {
            let failure = self.failure.lock().take();
            if let Some(failure) = failure {
                host.warn(&format!("{}: {failure}", host.file().path().display()));
            }
        }
    }

    /// Rule 6: deletes the record of an entry that memory has evicted, unless the key was written
    /// since.
    fn forget<H: Host>(&self, host: &H, key: &H::Key, stamp: Stamp) {
        let mut bytes = take_buffer();
        let place = EntryPlace::from_number(stamp.as_nanos());
        // A fault of the key is none: the entry has been written, so its key can be encoded.
        match host.record_key(key, &mut bytes) {
            Ok(KeyKind::Canonical) => {
                let wall = host.wall();
                let delete = |store: &DiskStore| {
                    serve::with_scratch(|scratch| store.delete_at(&bytes, place, wall, scratch))
                };
                if let Some(Err(error)) = self.with_store(delete) {
                    self.failed(&error);
                }
            }
            // An entry that was written since is later than the evicted one: no delete is needed.
            Ok(KeyKind::Eager) => host.while_absent(key, || {
                let wall = host.wall();
                if let Some(Err(error)) = self.with_store(|store| store.delete_eager(&bytes, wall)) {
                    self.failed(&error);
                }
            }),
            Err(_) => {}
        }
        give_buffer(bytes);
    }

    /// Rule 6: if memory and cold entries are more than `maxsize`, the coldest leave.
    fn trim<H: Host>(&self, host: &H) {
        /// A write adds one entry at most, so a few keep up.
        const AT_ONCE: usize = 4;
        let Some(maxsize) = host.maxsize() else { return };
        for _ in 0..AT_ONCE {
            let cold = self.with_store(DiskStore::roughly_cold).unwrap_or(0);
            if cold == 0 {
                return;
            }
            let hot = host.hot();
            if hot.saturating_add(usize::try_from(cold).unwrap_or(usize::MAX)) <= maxsize {
                return;
            }
            let wall = host.wall();
            match self.with_store(|store| store.evict_coldest(wall)) {
                Some(Ok(true)) => {
                    self.counts.evictions.fetch_add(1, Ordering::Relaxed);
                }
                Some(Err(error)) => return self.failed(&error),
                Some(Ok(false)) | None => return,
            }
        }
    }

    fn failed(&self, error: &DiskError) {
        self.counts.write_errors.fetch_add(1, Ordering::Relaxed);
        self.fail(|| format!("a write is not in the journal, and would not survive this process: {error}"));
    }

    /// Keeps the first failure for [`after_write`](Self::after_write) to log.
    fn fail(&self, message: impl FnOnce() -> String) {
        if !self.has_failed.swap(true, Ordering::Relaxed) {
            *self.failure.lock() = Some(message());
            self.has_to_warn.store(true, Ordering::Relaxed);
        }
    }

    /// Counts an entry that cannot be served. The first one is logged.
    fn undecodable<H: Host>(&self, host: &H, name: &str, why: &str) {
        self.counts.undecodable.fetch_add(1, Ordering::Relaxed);
        if !self.has_met_undecodable.swap(true, Ordering::Relaxed) {
            host.warn(&format!(
                "{}: {name} cannot be served and counts as a miss: {why}; further ones are counted in {} only",
                host.file().path().display(),
                H::UNDECODABLE,
            ));
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

/// Deletes a key from memory and from the store.
///
/// # Errors
/// A fault that must end the operation, from encoding or comparing keys; nothing is deleted.
pub fn delete<H: Host>(host: &H, journal: &Journal, key: &impl NamedKey<H>) -> Result<(), H::Error> {
    let write = key.file_key(host)?.map(|key| journal.encode_delete(host, key));
    let now = host.now();
    loop {
        let probed = key.read(host, |tiered| tiered.shard.epoch().answered(None));
        let deleted = key.address(host, probed, |tiered, at| {
            if let Some(write) = &write {
                journal.append(write, tiered.shard.stamp_at(&at), Deadline::NEVER);
            }
            tiered.shard.delete(at, now)
        })?;
        if let Ok(removed) = deleted {
            journal.after_write(host, &removed);
            return Ok(());
        }
    }
}

/// The stamp of an entry with a record (rule 2).
fn stamp_of(place: EntryPlace) -> Stamp {
    Stamp::from_nanos(place.to_number())
}

thread_local! {
    /// The buffer of the last write of this thread. Taken out during use.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn take_buffer() -> Vec<u8> {
    let mut buffer = BUFFER.try_with(RefCell::take).unwrap_or_default();
    buffer.clear();
    buffer
}

fn give_buffer(buffer: Vec<u8>) {
    if buffer.capacity() > 0 && buffer.capacity() <= KEPT_BYTES {
        let _ = BUFFER.try_with(|place| place.replace(buffer));
    }
}

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
//! 9. An entry that may be out of date comes into memory as a suspect entry, or not at all: see
//!    [`crate::suspects`].
//! 10. Eager entries of another front, which this front cannot read, count as if they were in
//!     memory: a collection copies them, and a close writes them.
//!
//! `serve` has reading, `opening` opening and closing, `upkeep` the work in the background.

mod opening;
mod serve;
mod upkeep;

use std::sync::atomic::Ordering;

use async_cache_core::removed::{Cause, Removed};
use async_cache_core::time::{Deadline, Stamp};
use async_cache_disk::KeyKind;
use async_cache_disk::store::{DiskStore, EntryPlace};

pub use crate::journal_start::StartUpkeep;
pub use crate::journal_state::{Journal, JournalWrite};
pub use opening::{JournalClosed, JournalOptions, close, open};
pub use serve::{DiskWait, Served, contains, serve};
pub use upkeep::{JournalSaved, Upkeep, flush, save, tend};

use crate::host::{FileKey, Host, NamedKey, Refusal};
use crate::journal_state::{DiskLimit, Statement, give_buffer, take_buffer, with_scratch};
use crate::open::OpeningOutcome;

impl Journal {
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

    /// Rule 6: deletes the record of an entry that has left memory, unless the key was written
    /// since.
    pub(crate) fn forget<H: Host>(&self, host: &H, key: &H::Key, stamp: Stamp) {
        let mut bytes = take_buffer();
        let place = EntryPlace::from_number(stamp.as_nanos());
        // A fault of the key is none: the entry has been written, so its key can be encoded.
        match host.record_key(key, &mut bytes) {
            Ok(KeyKind::Canonical) => {
                let wall = host.wall();
                let delete =
                    |store: &DiskStore| with_scratch(|scratch| store.delete_at(&bytes, place, wall, scratch));
                if let Some(Err(error)) = self.write_with(delete) {
                    self.failed(&error);
                }
            }
            // An entry that was written since is later than the evicted one: no delete is needed.
            Ok(KeyKind::Eager) => host.while_absent(key, || {
                let wall = host.wall();
                if let Some(Err(error)) = self.write_with(|store| store.delete_eager(&bytes, wall)) {
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
            let in_memory = host.hot();
            if in_memory.saturating_add(usize::try_from(cold).unwrap_or(usize::MAX)) <= maxsize {
                return;
            }
            let wall = host.wall();
            match self.write_with(|store| store.evict_coldest(wall)) {
                Some(Ok(true)) => {
                    self.counts.evictions.fetch_add(1, Ordering::Relaxed);
                }
                Some(Err(error)) => return self.failed(&error),
                Some(Ok(false)) | None => return,
            }
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

//! Deletes and lost writes, which the next save records for other processes.
//!
//! Kept only for a cache whose saves merge ([`Tier::keep_writes`]). Rules:
//! 1. a delete takes its time and is recorded under the lock of the key's shard, a clearing under
//!    the locks of all shards. So a following write of the same key has a later time;
//! 2. the bytes of the key are made before, with nothing locked. A key that no file can hold needs
//!    no tombstone;
//! 3. opening a file undoes the deletes that were not saved when the opening began, so these are
//!    forgotten. Deletes since then are applied to the entries of the file;
//! 4. lost writes (`async_cache_core::ledger`) are recorded when a save or an opening begins,
//!    beside the deletes. Keys that could not be recorded, because of an interrupt or a panic, stay
//!    lost.

use std::sync::Arc;

use async_cache_core::ledger::{LostWrites, SaveEnd};
use async_cache_core::removed::Removed;
use async_cache_core::shard::{Cleared, Shard};
use async_cache_core::time::{Now, Stamp};
use async_cache_disk::{KeyKind, Tombstones};

use crate::host::{FileKey, Host, Memory, Slice};
use crate::opened::Opened;
use crate::tier::Tier;

/// Rule 1: records that a key is deleted now. Called under the lock of its shard.
pub fn record_delete<K, V, R>(tier: &Tier, shard: &mut Shard<K, V, R>, key: &FileKey, now: Now) {
    if tier.keeps_writes()
        && let Some(stamp) = shard.stamp_delete(now)
    {
        tier.known.lock().tombstones.record_delete(key.kind, &key.bytes, stamp.as_nanos());
    }
}

/// The fate of the counters when a cache is emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CounterFate {
    /// They are zero.
    Reset,
    /// They stay.
    Kept,
}

/// The former content of a shard. Drop it with nothing locked.
pub type Emptied<M> = (Cleared<<M as Memory>::Key, <M as Memory>::Value>, Option<Arc<Opened>>);

/// Removes everything from a cache, including cold entries, and fences all loads. Drop the result
/// with nothing locked.
pub fn clear<M: Memory>(host: &M, counters: CounterFate) -> Vec<Emptied<M>> {
    let tier = host.tier();
    tier.forget_no_room();
    let now = host.now();
    let cleared = host.all_shards(|shards| {
        if let Some(journal) = tier.journal() {
            journal.append_clear(host.wall());
        }
        if tier.keeps_writes() {
            // Rule 1: the latest time of any shard, and every shard writes later than it.
            let stamps = shards.iter_mut().filter_map(|tiered| tiered.shard.stamp_delete(now));
            let stamp = stamps.max().unwrap_or(Stamp::UNKNOWN);
            for tiered in shards.iter_mut() {
                tiered.shard.not_before(stamp);
            }
            tier.known.lock().tombstones.record_clear(stamp.as_nanos());
        }
        let emptied = shards.iter_mut().map(|tiered| match counters {
            CounterFate::Reset => tiered.clear(),
            CounterFate::Kept => tiered.remove_all(),
        });
        emptied.collect()
    });
    if counters == CounterFate::Reset {
        tier.reset();
    }
    cleared
}

/// Whether a save takes note of lost writes, or an opening does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotedFor {
    Save,
    Opening,
}

/// Lost writes of all shards that were taken out, and entries that had expired by then. The caller
/// drops them after the turn has ended.
pub(crate) struct Noted<H: Host> {
    pub(crate) lost: Vec<LostWrites<H::Key>>,
    pub(crate) expired: Vec<Removed<H::Key, H::Value>>,
}

impl<H: Host> Default for Noted<H> {
    fn default() -> Self {
        Self { lost: Vec::new(), expired: Vec::new() }
    }
}

/// Rule 4: records lost writes, in slices. Entries that have expired by now count as lost.
pub(crate) fn note_lost<H: Host>(
    host: &H,
    noted_for: NotedFor,
    noted: &mut Noted<H>,
) -> Result<(), H::Error> {
    if !host.tier().keeps_writes() {
        return Ok(());
    }
    let mut slice = host.begin_slice();
    for number in 0..host.shards() {
        let mut removed = Removed::default();
        let now = host.now();
        let lost = host.shard(number, |tiered| match noted_for {
            NotedFor::Save => tiered.shard.begin_save(now, &mut removed),
            NotedFor::Opening => {
                tiered.shard.reclaim_all(now, &mut removed);
                tiered.shard.take_lost()
            }
        });
        noted.expired.push(removed);
        let unrecorded = Unrecorded { host, number, lost: Some(lost) };
        for (key, until) in unrecorded.lost.iter().flat_map(LostWrites::overwritten) {
            if let Some(key) = host.file_key(key)? {
                record_overwritten(host.tier(), &key, until);
            }
            slice.end_if_over()?;
        }
        noted.lost.extend(unrecorded.recorded());
    }
    Ok(())
}

/// Records that copies of a key up to `until` are older than a lost write.
pub(crate) fn record_overwritten(tier: &Tier, key: &FileKey, until: Stamp) {
    tier.known.lock().tombstones.record_overwrite(key.kind, &key.bytes, until.as_nanos());
}

/// The lost writes of a shard until they are recorded: on an error or a panic they stay lost.
struct Unrecorded<'h, H: Host> {
    host: &'h H,
    number: usize,
    lost: Option<LostWrites<H::Key>>,
}

impl<H: Host> Unrecorded<'_, H> {
    fn recorded(mut self) -> Option<LostWrites<H::Key>> {
        self.lost.take()
    }
}

impl<H: Host> Drop for Unrecorded<'_, H> {
    fn drop(&mut self) {
        if let Some(lost) = self.lost.take() {
            self.host.shard(self.number, |tiered| tiered.shard.settle(SaveEnd::Unrecorded(lost)));
        }
    }
}

impl Tier {
    /// Called when an opening begins: keys deleted by now are wanted again if the file has them
    /// (rule 3). `None` if saves do not merge.
    pub(crate) fn deleted_before(&self) -> Option<Tombstones> {
        self.keeps_writes().then(|| {
            let mut known = self.known.lock();
            // Until the cache has all entries of some file, its saves join the existing file.
            known.learned.opened(None);
            known.tombstones.clone()
        })
    }

    /// Called when a file is open under the cache. `holds`: the file's id, if the cache has all its
    /// entries. Returns the deletes since `before`, the only deletes that are kept (rule 3).
    pub(crate) fn opened(&self, holds: Option<[u8; 16]>, before: &Tombstones) -> Tombstones {
        let mut known = self.known.lock();
        known.learned.opened(holds);
        known.tombstones = std::mem::take(&mut known.tombstones).since(before);
        known.tombstones.clone()
    }

    /// Whether an entry that was read from a file was deleted or overwritten since `before`.
    pub fn is_deleted_since(&self, before: &Tombstones, kind: KeyKind, key: &[u8], stamp: Stamp) -> bool {
        let deleted_at = self.known.lock().tombstones.deleted_at(kind, key);
        deleted_at > before.deleted_at(kind, key) && stamp.as_nanos() <= deleted_at
    }
}

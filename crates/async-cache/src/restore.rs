//! Loading the cache from its backup. A save and a load never run at once: the save lock.
//!
//! Under a cache that has nothing in memory a file is opened: its entries are cold, and read when they are asked for. Else
//! everything is read, and what is not in memory comes in, older than all that is. An entry that was cold so far gives
//! way to the file's entry of its key; if the file lacks the key, the cold entry stays.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_cache_core::entry::{Meta, NewEntry};
use async_cache_core::shard::Restored;
use async_cache_core::time::{FileClock, Now, Stamp};
use async_cache_disk::{DiskError, DiskErrorKind, Scratch, Step, Tombstones};

use crate::backup::codec::Codec;
use crate::backup::disk::is_of_other_owner;
use crate::backup::opened::Opened;
use crate::backup::{Backup, DiskBackend, Kind, SavedEntry};
use crate::error::BackupError;
use crate::inner::Inner;
use crate::save::{Gone, reclaim_and_take_lost};
use crate::sharing::Sharing;

/// The most lost writes that are searched for a key that is about to come in.
const LOST_AT_ONCE: usize = 64;

/// What was found when a cache loaded from its backup.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Opening {
    /// Entries that came back. Those of a snapshot are counted, not read.
    pub entries: u64,
    /// The size of the file in bytes; 0 for a backend of the user's own.
    pub bytes: u64,
    /// How long ago the snapshot was saved, by the wall clock. `None` for a backend of the user's own, or if
    /// there was nothing.
    pub age: Option<Duration>,
    /// How long it took.
    pub took: Duration,
    /// Why nothing came back although there is something, if that is so. It was logged, too.
    pub warning: Option<BackupError>,
}

impl<K: Hash + Eq + 'static, V: Clone + 'static> Inner<K, V> {
    /// Loads from the backup: what is there and not in memory comes in, older than everything in memory.
    /// Without a backup nothing happens.
    pub(crate) fn load_backup(&self) -> Result<Opening, BackupError> {
        let Some(Backup(kind)) = &self.backup else { return Ok(Opening::default()) };
        // Dropped after the save lock is released, for it may use the cache when it is dropped.
        let mut gone = Gone::default();
        let mut clock = self.saving.lock();
        let started = self.clock.now();
        let mut opening = match kind {
            Kind::Disk(disk, codec) => {
                let not_before = clock.map_or(0, |file| self.clock.adjust_file(file).file_now());
                let (opening, file) = self.open_disk(disk, *codec, not_before, &mut gone)?;
                *clock = file.or(*clock);
                opening
            }
            Kind::Whole(backend, _) => {
                let load = backend.load();
                let entries = load.map_err(|source| BackupError::Backend { action: "load", source })?;
                self.shrinking.loaded(entries.len(), self.maxsize);
                Opening {
                    entries: self.restore_all(
                        entries.into_iter().rev().map(|it| (it, None)),
                        &mut gone,
                        |_| {},
                    ),
                    ..Opening::default()
                }
            }
        };
        opening.took = self.clock.now().since(started);
        Ok(opening)
    }

    fn open_disk(
        &self,
        disk: &DiskBackend,
        codec: Codec<K, V>,
        not_before: u64,
        gone: &mut Gone<K, V>,
    ) -> Result<(Opening, Option<FileClock>), DiskError> {
        // What was lost before this is wanted again, if it is in the file.
        let before = self.sharing.as_ref().map(|sharing| {
            self.note_lost(sharing, &codec, reclaim_and_take_lost, gone);
            sharing.known()
        });
        let opened = disk.open();
        let unread = opened.as_ref().is_err_and(|error| match error.kind() {
            DiskErrorKind::Io | DiskErrorKind::Trust => true,
            _ => is_of_other_owner(error),
        });
        self.unread.store(unread, Ordering::Relaxed);
        let Some(snapshot) = opened? else { return Ok((Opening::default(), None)) };
        let file = self.clock.start_file(snapshot.saved_at().max(not_before));
        let age = Duration::from_nanos(self.clock.wall().saturating_sub(snapshot.saved_at()));
        let mut opening = Opening { bytes: snapshot.file_bytes(), age: Some(age), ..Opening::default() };
        self.cold_counts.loaded(&snapshot);
        self.shrinking.loaded(snapshot.len() as usize, self.maxsize);
        self.write_after(&snapshot);
        if let Some(sharing) = &self.sharing {
            // And what was lost since is not.
            self.note_lost(sharing, &codec, reclaim_and_take_lost, gone);
        }
        let opened = Opened::new(snapshot, file, codec, self.maxsize, Arc::clone(&self.cold_counts));
        let opened = Arc::new(opened);
        let note = |gone: &mut Gone<K, V>| {
            if let Some(sharing) = &self.sharing {
                self.note_lost(sharing, &codec, reclaim_and_take_lost, gone);
            }
        };
        let older = self.opened().filter(|older| older.cold.live() > 0);
        if self.open_pristine(&opened, before.as_ref()) {
            opening.entries = opened.cold.live() as u64;
            if let Some(older) = older {
                // What was cold and did not come from this file stays, as far as there is room.
                let mut scratch = Scratch::new();
                let mut rank = |key: &[u8]| opened.snapshot().locate(key, &mut scratch);
                let is_missing = |key: &[u8]| rank(key).is_none_or(|rank| !opened.cold.contains(rank));
                self.restore_all(
                    read_all(&older, self.clock.adjust_file(older.clock).file_now(), is_missing)
                        .into_iter()
                        .rev(),
                    gone,
                    note,
                );
            }
        } else {
            // What is in memory stays, and may be older than what the file has.
            self.sharing.iter().for_each(Sharing::holds_nothing);
            opening.entries =
                self.restore_all(read_all(&opened, file.file_now(), |_| true).into_iter().rev(), gone, note);
        }
        Ok((opening, Some(file)))
    }

    /// Opens a snapshot under a cache that has nothing in memory and loads nothing; elsewhere a key could be
    /// hot and cold.
    fn open_pristine(&self, opened: &Arc<Opened<K, V>>, before: Option<&Tombstones>) -> bool {
        let mut shards: Vec<_> = self.shards().iter().map(|shard| shard.write()).collect();
        if let (Some(sharing), Some(before)) = (&self.sharing, before) {
            // With all shards locked, nothing is deleted between this and the opening.
            let has_all = self.maxsize.is_none_or(|maxsize| opened.snapshot().len() as usize <= maxsize);
            let deleted = sharing.opened(has_all.then(|| opened.snapshot().file_id()), before);
            for rank in opened.snapshot().ranks_of(&deleted) {
                opened.cold.take(rank);
            }
        }
        // What was lost just now, before all shards were locked, is not noted yet: it would come back.
        let is_pristine =
            shards.iter().all(|shard| shard.cache.is_pristine() && shard.cache.store().lost().is_empty());
        if is_pristine {
            for shard in &mut shards {
                // Dropping the old one closes its file; it holds nothing of the user's.
                drop(shard.open(Arc::clone(opened)));
            }
        }
        is_pristine
    }

    /// Takes in entries from the most to the least recently used; returns how many. What is lost meanwhile is noted by
    /// `note_lost`, so that it does not come back.
    fn restore_all(
        &self,
        entries: impl Iterator<Item = (SavedEntry<K, V>, Option<InFile>)>,
        gone: &mut Gone<K, V>,
        note_lost: impl Fn(&mut Gone<K, V>),
    ) -> u64 {
        // What has expired is not there, and takes no room from what comes in.
        self.reclaim();
        let mut restored = 0;
        for (SavedEntry { key, value, ttl }, in_file) in entries {
            let stamp = in_file.as_ref().map_or(Stamp::UNKNOWN, |in_file| in_file.stamp);
            let hash = self.hash(&key);
            let deadline = self.deadline(ttl);
            let mut is_noted = false;
            let restored_or_refused = loop {
                let (probed, _) = self.probe(hash, &key);
                let mut shard = self.shard(hash).write();
                if !is_noted && shard.cache.store().lost().len() > LOST_AT_ONCE {
                    drop(shard);
                    note_lost(gone);
                    is_noted = true;
                    continue;
                }
                if let Ok(at) = shard.cache.address(hash, probed, |known| *known == key) {
                    let is_deleted = in_file.as_ref().is_some_and(|in_file| {
                        // What was lost since that was noted: a few, and not none, if others write all the time.
                        let mut lost = shard.cache.store().lost().overwritten();
                        lost.any(|(lost, until)| in_file.stamp <= until && *lost == key)
                            || self.sharing.as_ref().is_some_and(|sharing| {
                                sharing.is_deleted(&in_file.key, in_file.stamp.as_nanos())
                            })
                    });
                    let new = NewEntry { key, value, meta: Meta::written_at(stamp, deadline) };
                    if is_deleted {
                        break Restored::Refused(new);
                    }
                    if let (Some(cold), Some(rank), Some(_)) = (shard.cache.cold(), at.rank(), &in_file)
                        && at.slot().is_none()
                        && !deadline.has_passed(self.clock.now())
                    {
                        cold.take(rank); // the new file's counts
                    }
                    break shard.cache.restore(at, new, Now::without_wall(self.clock.now()));
                }
            };
            match restored_or_refused {
                Restored::Stored => restored += 1,
                Restored::Refused(entry) => gone.refused.push(entry),
            }
        }
        restored
    }
}

/// An entry as the file has it: its key, and when it was written.
struct InFile {
    key: Box<[u8]>,
    stamp: Stamp,
}

/// Reads every cold entry of a snapshot that can be read and whose key is wanted, coldest first, each with the time of its
/// writing; `now` is the file's.
fn read_all<K, V>(
    opened: &Opened<K, V>,
    now: u64,
    mut is_wanted: impl FnMut(&[u8]) -> bool,
) -> Vec<(SavedEntry<K, V>, Option<InFile>)> {
    let mut records = opened.snapshot().records();
    let mut entries = Vec::new();
    while let Some(step) = records.next_wanted(|rank| opened.cold.contains(rank)) {
        match step {
            Step::Lost { rank } => opened.lose(rank, &"its record is damaged or cannot be read"),
            Step::Record(record) if !is_wanted(record.key) => {}
            Step::Record(record) => {
                let ttl = record.deadline.map(|deadline| deadline.saturating_sub(now));
                let decoded = (opened.codec.decode_key)(record.key)
                    .and_then(|key| Ok((key, (opened.codec.decode_value)(record.value)?)));
                match decoded {
                    Ok((key, value)) => {
                        let entry = SavedEntry { key, value, ttl: ttl.map(Duration::from_nanos) };
                        let (key, stamp) = (record.key.into(), Stamp::from_file(record.written_at));
                        entries.push((entry, Some(InFile { key, stamp })));
                    }
                    Err(error) => opened.lose(record.rank, &error),
                }
            }
        }
    }
    entries
}

//! Saving the cache to its backup. `hot` lists and clones what is in memory; `restore` loads.
//!
//! A save does not stop the service. It takes the list of entries shard by shard, then their values in slices
//! of a few dozen, each under a shared lock held for microseconds (but for large `Clone`s); encoding and
//! writing happen with no lock held. It is consistent for each single entry: what is written is a value that
//! the entry had while the save ran. Rules:
//! 1. one save or load at a time: the save lock;
//! 2. the cold set is copied first, then each shard's list of hot entries is taken; an entry that was cold in
//!    the copy and is hot in the list is taken out of the copy. So no entry is missed when it turns hot in
//!    between, and none is written twice. If the cache is cleared before all lists are taken, the copy is
//!    dropped, for entries that came in since do not know their rank in it;
//! 3. cold entries are written first, as the bytes they are in the old file; then the hot ones, the most
//!    worth keeping last. Shards are interleaved in proportion, since their orders cannot be compared;
//! 4. the file's clock never runs back from one save or load to the next (see [`FileClock`]);
//! 5. a file that could not be read or was not trusted when it was opened, or that belongs to another function, is
//!    set aside by the save, even if it can be read by then; but if saves merge, and it can be joined by then, it is
//!    joined: so a passing error at the start, such as too many open files, costs nothing. If saves merge, another
//!    function's file is set aside whenever it stands there: two functions that were given one path by two programs
//!    do not replace each other's entries without a word;
//! 6. eager records of the file that was loaded last are copied as bytes, as cold entries are. Another program
//!    wrote them, and only it can read them, so they are no entries of this cache and are not counted. If saves
//!    merge, they come from the file that stands there;
//! 7. if saves merge, all of this happens under the lock of the path, and for each key the later write wins, here or
//!    there (`async_cache_disk::Save` has the steps);
//! 8. what is cold is read from the file that the save has written from then on, and the file before it is closed: so a
//!    disk that has room for two files suffices. A cold entry that is not in the new file, for another process deleted it or
//!    wrote it later, is a miss from then on. If a part of the old file could not be read meanwhile, the next save does it.
//!
//! Listing a shard's entries walks them in order under its lock: some milliseconds for a hundred thousand of
//! them, during which writes to this shard wait, and reads behind them.
use std::fmt::Display;
use std::hash::Hash;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_cache_core::cold::Frozen;
use async_cache_core::entry::NewEntry;
use async_cache_core::ledger::{LostWrites, Outcome};
use async_cache_core::removed::Removed;
use async_cache_core::time::{FileClock, Now, Stamp};
use async_cache_disk::{
    Cold, DiskError, EagerStep, Joining, KeyKind, Known, Ours, Output, Pushed, Snapshot, Step, Times,
    WriteOptions,
};

use crate::backup::codec::Codec;
use crate::backup::disk::is_of_other_owner;
use crate::backup::opened::Opened;
use crate::backup::{Backup, CacheBackend, DiskBackend, Kind, SavedEntry};
use crate::error::{BackendError, BackupError};
use crate::hot::{HotEntries, Taken};
use crate::inner::{Core, Inner, Shard};
use crate::sharing::Sharing;
use crate::sync::RwLock;

/// What a save came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Saved {
    /// Entries that were saved.
    pub entries: u64,
    /// The size of the file in bytes; 0 for a backend of the user's own.
    pub bytes: u64,
    /// Entries that should have been saved and were not: they could not be cloned or encoded, are too large for the
    /// format, or another process may have deleted them and the file has forgotten whether it has. The first one of the former,
    /// and the number of the latter, are in a warning.
    pub left_out: u64,
    /// Entries that other processes had saved and that this save dropped: there was no room for them within
    /// [`maxsize`](crate::Builder::maxsize), or this process may have deleted them, and has deleted more than it
    /// remembers. There is a warning if the file had more entries than `maxsize`, the first time.
    pub dropped: u64,
    /// Where the file is now that stood at the path and was not a readable cache of ours, or could not be
    /// opened when the cache was built, if there was one.
    pub set_aside: Option<PathBuf>,
}

impl<K: Hash + Eq + 'static, V: Clone + 'static> Inner<K, V> {
    /// Saves everything that has not expired. Without a backup nothing happens.
    pub(crate) fn save(&self) -> Result<Saved, BackupError> {
        let Some(backup) = &self.backup else { return Ok(Saved::default()) };
        // Dropped after the save lock is released, for it may use the cache when it is dropped.
        let mut gone = Gone::default();
        self.save_as(backup, &mut self.saving.lock(), self.changes(), &mut gone)
    }

    /// [`Inner::save`], unless nothing has changed since the last one that succeeded; then, or without a backup,
    /// `None`.
    pub(crate) fn save_if_changed(&self) -> Result<Option<Saved>, BackupError> {
        let Some(backup) = &self.backup else { return Ok(None) };
        let mut gone = Gone::default();
        let mut clock = self.saving.lock();
        let changes = self.changes();
        if changes == self.saved_changes.load(Ordering::Relaxed) {
            return Ok(None);
        }
        self.save_as(backup, &mut clock, changes, &mut gone).map(Some)
    }

    /// Saves, with the save lock held. `changes` is what [`Inner::changes`] was before; what changes from then on
    /// is for the next save, though it may be in this one, too.
    fn save_as(
        &self,
        Backup(kind): &Backup<K, V>,
        clock: &mut Option<FileClock>,
        changes: u64,
        gone: &mut Gone<K, V>,
    ) -> Result<Saved, BackupError> {
        let saved = match kind {
            Kind::Disk(disk, codec) => self.save_to_disk(disk, codec, clock, gone),
            Kind::Whole(backend, clone_key) => self.save_whole(&**backend, *clone_key),
        };
        self.cold_counts.saved(&saved);
        if saved.is_ok() {
            self.saved_changes.store(changes, Ordering::Relaxed);
        }
        saved
    }

    fn save_whole(
        &self,
        backend: &dyn CacheBackend<K, V>,
        clone_key: fn(&K) -> K,
    ) -> Result<Saved, BackupError> {
        let now = self.clock.now();
        let mut hot = self.hot_entries(&mut None);
        let (mut entries, mut left_out) = (0, LeftOut::default());
        let slices = std::iter::from_fn(|| hot.next_slice(self, clone_key));
        let live = slices.flatten().filter(|taken| !taken.deadline.has_passed(now));
        let mut all = live.filter_map(|Taken { key, value, deadline, .. }| {
            match key.and_then(|key| Ok((key, value?))) {
                Ok((key, value)) => {
                    entries += 1;
                    Some(SavedEntry { key, value, ttl: deadline.remaining(now) })
                }
                Err(why) => {
                    left_out.note(&"the backup", &[], &why);
                    None
                }
            }
        });
        backend.save(&mut all).map_err(|source| BackupError::Backend { action: "save", source })?;
        let dropped = self.shrinking.replaced(&"the backup", self.maxsize);
        Ok(Saved { entries, dropped, left_out: left_out.0, ..Saved::default() })
    }

    fn save_to_disk(
        &self,
        disk: &DiskBackend,
        codec: &Codec<K, V>,
        clock: &mut Option<FileClock>,
        gone: &mut Gone<K, V>,
    ) -> Result<Saved, BackupError> {
        let save = disk.begin()?;
        let saved_at = save.theirs().map_or(0, Snapshot::saved_at);
        let not_before = clock.map_or(0, |file| self.clock.adjust_file(file).file_now());
        let file = self.clock.start_file(saved_at.max(not_before));
        if let Some(theirs) = save.theirs() {
            self.write_after(theirs);
        }
        // Rule 5
        let is_joined = save.theirs().is_some();
        let unread = self.unread.load(Ordering::Relaxed) && !is_joined
            || save.refusal().is_some_and(is_of_other_owner);
        let mut known = Known::default();
        if let Some(sharing) = &self.sharing {
            self.note_lost(sharing, codec, Core::begin_save, gone);
            known = sharing.to_join();
        }
        let opened = self.opened();
        if let Some(opened) = &opened {
            // What has expired says nothing to others, whether a write came by and reclaimed it or not.
            opened.reclaim_all(self.clock.now());
        }
        let base = opened.as_ref().map(|opened| opened.snapshot());
        let mut options = WriteOptions::new(file.file_now());
        if unread {
            options = options.keep_target();
        }
        if let (Some(opened), Some(base)) = (&opened, &base)
            && opened.is_mostly_cold()
        {
            options = options.dictionary_of(base);
        }
        let joining = save.write(options, known, base.as_ref())?;
        let mut cold = opened.map(|opened| (opened.cold.freeze(), opened));
        let mut hot = self.hot_entries(&mut cold);
        let mut output = self.join_theirs(joining, codec, &hot, cold.as_ref())?;
        let mut not_carried = Vec::new();
        if let Some((cold, opened)) = &cold {
            not_carried = copy_cold(&mut output, opened, cold, file)?;
        }
        let known_others = self.cold_counts.others();
        let others = output.theirs().cloned().or_else(|| known_others.clone());
        if let Some(snapshot) = others {
            copy_eager(&mut output, &snapshot, file)?;
        }
        let mut left_out = self.write_hot(disk, codec, &mut output, &mut hot, file)?;
        let place = disk.path().display();
        let finished = output.finish()?;
        let dropped = match &finished.merged {
            None => self.shrinking.replaced(&place, self.maxsize),
            Some(merged) => {
                self.sharing.iter().for_each(|sharing| sharing.merged(merged));
                self.paid();
                left_out.unsure(disk, merged.left_out);
                self.shrinking.merged(&place, self.maxsize, merged)
            }
        };
        let saved = finished.saved;
        *clock = Some(file);
        self.unread.store(false, Ordering::Relaxed);
        // Rule 8
        if let Some((_, opened)) = &cold {
            for rank in not_carried {
                opened.cold.take(rank);
            }
        }
        if let Some(snapshot) = finished.successor {
            self.cold_counts.passed_on(known_others.as_ref(), &snapshot);
            if let Some((_, opened)) = &cold {
                opened.move_to(snapshot);
            }
        }
        disk.tell_of(&saved);
        Ok(Saved {
            entries: saved.entries.into(),
            bytes: saved.bytes,
            left_out: left_out.0,
            dropped,
            set_aside: saved.set_aside,
        })
    }

    /// Writes the entries in memory, the ones most worth keeping last. Returns those that could not be.
    fn write_hot(
        &self,
        disk: &DiskBackend,
        codec: &Codec<K, V>,
        output: &mut Output,
        hot: &mut HotEntries,
        file: FileClock,
    ) -> Result<LeftOut, DiskError> {
        let mut left_out = LeftOut::default();
        let (mut key_bytes, mut value_bytes) = (Vec::new(), Vec::new());
        let now = self.clock.now();
        while let Some(slice) = hot.next_slice(self, codec.clone_key) {
            for Taken { key, value, deadline, stamp } in slice {
                let written_at = stamp.as_nanos();
                key_bytes.clear();
                let encoded = key.and_then(|key| (codec.encode_key)(&key, &mut key_bytes));
                let has_key = encoded.is_ok();
                let encoded = if deadline.has_passed(now) {
                    Err(None)
                } else {
                    let encoded = encoded.and(value);
                    encoded.and_then(|value| (codec.encode_value)(&value, &mut value_bytes)).map_err(Some)
                };
                let why = match encoded {
                    Ok(()) => {
                        let deadline = file.deadline_to_file(deadline);
                        let times = Times { deadline, written_at: Some(written_at) };
                        match output.push(&key_bytes, &value_bytes, times)? {
                            Pushed::Written | Pushed::Superseded => continue,
                            Pushed::TooLarge(error) => Some(error.into()),
                        }
                    }
                    Err(why) => {
                        let is_missed =
                            !has_key || output.leave_out(KeyKind::Canonical, &key_bytes, written_at);
                        why.filter(|_| is_missed)
                    }
                };
                if let Some(why) = why {
                    left_out.note(&disk.path().display(), &key_bytes, &why);
                }
            }
        }
        Ok(left_out)
    }

    /// Records everything that is here, and copies the entries of theirs that win and are not.
    fn join_theirs(
        &self,
        mut joining: Joining,
        codec: &Codec<K, V>,
        hot: &HotEntries,
        cold: Option<&(Frozen, Arc<Opened<K, V>>)>,
    ) -> Result<Output, DiskError> {
        if joining.is_needed() {
            let mut bytes = Vec::new();
            for (key, written_at) in hot.keys(self, codec.clone_key) {
                if (codec.encode_key)(&key, &mut bytes).is_ok() {
                    joining.note(&bytes, written_at.as_nanos());
                }
            }
        }
        let contains = |rank| cold.is_some_and(|(frozen, _)| frozen.contains(rank));
        let base = cold.map(|(_, opened)| opened.snapshot());
        let cold = base.as_ref().map(|snapshot| Cold { snapshot, contains: &contains });
        joining.join(&Ours { maxsize: self.maxsize, eager: None, cold, allows: &|_| true })
    }

    /// Notes what was lost since the last save or load; what has expired goes into `gone`, as the keys do.
    pub(crate) fn note_lost(
        &self,
        sharing: &Sharing,
        codec: &Codec<K, V>,
        take: TakeLost<K, V>,
        gone: &mut Gone<K, V>,
    ) {
        let mut bytes = Vec::new();
        let now = Now::without_wall(self.clock.now());
        for shard in self.shards() {
            let mut removed = Removed::default();
            let lost = take(&mut shard.write().cache, now, &mut removed);
            if !removed.is_empty() {
                gone.expired.push(removed);
            }
            let untold = Untold { shard, lost: Some(lost) };
            for (key, stamp) in untold.lost.iter().flat_map(LostWrites::overwritten) {
                // A key that no file can hold is in none.
                if (codec.encode_key)(key, &mut bytes).is_ok() {
                    sharing.overwrite(&bytes, stamp.as_nanos());
                }
            }
            gone.lost.extend(untold.told().filter(|lost| !lost.is_empty()));
        }
    }

    /// A save that merged has succeeded.
    fn paid(&self) {
        self.shards().iter().for_each(|shard| shard.write().cache.settle(Outcome::Saved));
    }

    /// Writes are later from now on than all that a file has.
    pub(crate) fn write_after(&self, snapshot: &Snapshot) {
        if self.sharing.is_some() {
            let stamp = Stamp::from_nanos(snapshot.written_until());
            self.shards().iter().for_each(|shard| shard.write().cache.not_before(stamp));
        }
    }
}

/// What a save or a load has to drop when it holds no lock any more.
pub(crate) struct Gone<K, V> {
    expired: Vec<Removed<K, V>>,
    lost: Vec<LostWrites<K>>,
    pub(crate) refused: Vec<NewEntry<K, V>>,
}

impl<K, V> Default for Gone<K, V> {
    fn default() -> Self {
        Self { expired: Vec::new(), lost: Vec::new(), refused: Vec::new() }
    }
}

/// How what was lost is taken out of a shard, and what has expired with it.
pub(crate) type TakeLost<K, V> = fn(&mut Core<K, V>, Now, &mut Removed<K, V>) -> LostWrites<K>;

/// Takes out what was lost, and no save begins: the file is about to be opened. What has expired is lost by now.
pub(crate) fn reclaim_and_take_lost<K, V>(
    shard: &mut Core<K, V>,
    now: Now,
    removed: &mut Removed<K, V>,
) -> LostWrites<K> {
    shard.reclaim_all(now, removed);
    shard.take_lost()
}

/// What was lost in a shard, until it is noted: if a key's serialisation panics, it stays lost.
struct Untold<'s, K, V> {
    shard: &'s RwLock<Shard<K, V>>,
    lost: Option<LostWrites<K>>,
}

impl<K, V> Untold<'_, K, V> {
    fn told(mut self) -> Option<LostWrites<K>> {
        self.lost.take()
    }
}

impl<K, V> Drop for Untold<'_, K, V> {
    fn drop(&mut self) {
        if let Some(lost) = self.lost.take() {
            self.shard.write().cache.settle(Outcome::Unrecorded(lost));
        }
    }
}

/// Copies what is still cold, as bytes. Returns the ranks of what the merge left out.
fn copy_cold<K, V>(
    output: &mut Output,
    opened: &Opened<K, V>,
    cold: &Frozen,
    file: FileClock,
) -> Result<Vec<u32>, DiskError> {
    let mut left_out = Vec::new();
    let mut records = opened.snapshot().records();
    while let Some(step) = records.next_wanted(|rank| cold.contains(rank)) {
        match step {
            Step::Lost { rank } => opened.lose(rank, &"its record is damaged or cannot be read"),
            Step::Record(record) if record.deadline.is_some_and(|deadline| deadline <= file.file_now()) => {
                opened.expire(record.rank);
            }
            Step::Record(record) => {
                if !matches!(output.carry(&record)?, Pushed::Written) {
                    left_out.push(record.rank);
                }
            }
        }
    }
    Ok(left_out)
}

/// Copies the eager records whose time has not passed, as bytes.
fn copy_eager(output: &mut Output, snapshot: &Snapshot, file: FileClock) -> Result<(), DiskError> {
    let was_known = snapshot.damage().eager_bytes > 0;
    let mut records = snapshot.eager();
    while let Some(step) = records.next_step() {
        match step {
            EagerStep::Record(record) if record.deadline.is_some_and(|it| it <= file.file_now()) => {}
            EagerStep::Record(record) => drop(output.pass_on_eager(&record)?),
            EagerStep::Lost { bytes } if !was_known => tracing::warn!(
                "{}: entries of another program, {bytes} bytes, are damaged or cannot be read, and are left out \
                 of the save",
                snapshot.path().display()
            ),
            EagerStep::Lost { .. } => {}
        }
    }
    Ok(())
}

/// Entries that a save had to leave out. The first one is reported, the others are counted.
#[derive(Default)]
struct LeftOut(u64);

impl LeftOut {
    /// Others may have deleted so many entries.
    fn unsure(&mut self, disk: &DiskBackend, count: u64) {
        self.0 += count;
        if count > 0 {
            tracing::warn!(
                "{}: {count} entries are left out of the save: other processes have deleted more keys than the file \
                 keeps, and may have deleted these; `Saved::left_out` counts them",
                disk.path().display()
            );
        }
    }

    /// `key` is empty if its bytes are not known.
    fn note(&mut self, place: &dyn Display, key: &[u8], error: &BackendError) {
        self.0 += 1;
        if self.0 == 1 {
            let which = match &key[..key.len().min(64)] {
                [] => String::new(),
                key => format!(" (its key begins with the bytes {})", key.escape_ascii()),
            };
            tracing::warn!(
                "{place}: an entry is left out of the save: {error}{which}; `Saved::left_out` counts them"
            );
        }
    }
}

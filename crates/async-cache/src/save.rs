//! Saving the cache to its backup, and loading it.
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
//!    joined: so a passing error at the start, such as too many open files, costs nothing;
//! 6. eager records of the file that was loaded last are copied as bytes, as cold entries are. Another program
//!    wrote them, and only it can read them, so they are no entries of this cache and are not counted. If saves
//!    merge, they come from the file that stands there;
//! 7. if saves merge, all of this happens under the lock of the path, and for each key the later write wins, here or
//!    there ([`Merge`] has the steps);
//! 8. what is cold is read from the file that the save has written from then on, and the file before it is closed: so a
//!    disk that has room for two files suffices. A cold entry that is not in the new file, for another process deleted it or
//!    wrote it later, is a miss from then on. If a part of the old file could not be read meanwhile, the next save does it.
//!
//! Listing a shard's entries walks them in order under its lock: some milliseconds for a hundred thousand of
//! them, during which writes to this shard wait, and reads behind them.

use std::hash::Hash;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_cache_core::cache::Restored;
use async_cache_core::cold::Frozen;
use async_cache_core::lost::LostWrites;
use async_cache_core::store::{NewEntry, Removed, Ticket};
use async_cache_core::time::{Deadline, FileClock, Time};
use async_cache_disk::{
    Cold, DiskError, DiskErrorKind, EagerStep, KeyKind, Merge, Scratch, Snapshot, Step, Times, Tombstones,
    Writer,
};

use crate::backup::codec::Codec;
use crate::backup::disk::owners_differ;
use crate::backup::opened::Opened;
use crate::backup::{Backup, CacheBackend, DiskBackend, Kind, SavedEntry};
use crate::error::{BackendError, BackupError};
use crate::inner::{Core, Inner, Shard};
use crate::sharing::Sharing;
use crate::sync::RwLock;

/// The most entries whose values are taken under one lock.
const SLICE: usize = 64;

/// Shards take turns this often at least, so that the last entries of a save are the most worth keeping of
/// all shards.
const FEWEST_ROUNDS: usize = 64;

/// The most lost writes that are searched for a key that is about to come in.
const LOST_AT_ONCE: usize = 64;

/// What a save came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Saved {
    /// Entries that were saved.
    pub entries: u64,
    /// The size of the file in bytes; 0 for a backend of the user's own.
    pub bytes: u64,
    /// Entries that should have been saved and were not: they could not be encoded, are too large for the format, or
    /// another process may have deleted them and the file has forgotten whether it has. The first one of the former,
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
        let mut entries = 0;
        let slices = std::iter::from_fn(|| hot.next_slice(self, clone_key));
        let live = slices.flatten().filter(|taken| !taken.deadline.has_passed(now));
        let mut all = live.map(|Taken { key, value, deadline, .. }| {
            entries += 1;
            SavedEntry { key, value, ttl: deadline.remaining(now) }
        });
        backend.save(&mut all).map_err(|source| BackupError::Backend { action: "save", source })?;
        let dropped = self.shrinking.replaced(&"the backup", self.maxsize);
        Ok(Saved { entries, dropped, ..Saved::default() })
    }

    fn save_to_disk(
        &self,
        disk: &DiskBackend,
        codec: &Codec<K, V>,
        clock: &mut Option<FileClock>,
        gone: &mut Gone<K, V>,
    ) -> Result<Saved, BackupError> {
        let mut merge = disk.begin_merge()?;
        let saved_at = merge.as_ref().and_then(Merge::theirs).map_or(0, Snapshot::saved_at);
        let not_before = clock.map_or(0, |file| self.clock.adjust_file(file).file_now());
        let file = self.clock.start_file(saved_at.max(not_before));
        if let Some(theirs) = merge.as_ref().and_then(Merge::theirs) {
            self.write_after(theirs);
        }
        // Rule 5
        let is_joined = merge.as_ref().is_some_and(|merge| merge.theirs().is_some());
        let unread = self.unread.load(Ordering::Relaxed) && !is_joined;
        if let (Some(merge), Some(sharing)) = (&mut merge, &self.sharing) {
            self.note_lost(sharing, codec, Core::begin_save, gone);
            let (tombstones, learned) = sharing.to_join();
            merge.join(tombstones, learned);
        }
        let opened = self.opened();
        if let Some(opened) = &opened {
            // What has expired says nothing to others, whether a write came by and reclaimed it or not.
            opened.reclaim_all(self.clock.now());
        }
        let base = opened.as_ref().map(|opened| opened.snapshot());
        let copied = base.as_ref().filter(|_| opened.as_ref().is_some_and(|opened| opened.is_mostly_cold()));
        let mut writer = disk.writer(file.file_now(), unread, copied)?;
        let successor = writer.successor(base.as_ref());
        let mut cold = opened.map(|opened| (opened.cold.freeze(), opened));
        let mut hot = self.hot_entries(&mut cold);
        if let Some(merge) = merge.as_mut().filter(|merge| merge.is_needed()) {
            self.join_theirs(merge, &mut writer, codec, &hot, cold.as_ref(), file)?;
        }
        let mut not_carried = Vec::new();
        if let Some((cold, opened)) = &cold {
            not_carried = copy_cold(&mut writer, merge.as_mut(), opened, cold, file)?;
        }
        let known_others = self.cold_counts.others();
        let others = merge.as_ref().and_then(Merge::theirs).cloned().or_else(|| known_others.clone());
        if let Some(snapshot) = others {
            copy_eager(&mut writer, merge.as_ref(), &snapshot, file)?;
        }
        let mut left_out = LeftOut::default();
        let (mut key_bytes, mut value_bytes) = (Vec::new(), Vec::new());
        let now = self.clock.now();
        while let Some(slice) = hot.next_slice(self, codec.clone_key) {
            for Taken { key, value, deadline, written_at } in slice {
                let encoded = (codec.encode_key)(&key, &mut key_bytes);
                let has_key = encoded.is_ok();
                let written = if deadline.has_passed(now) {
                    Err(None)
                } else {
                    let encoded = encoded.and_then(|()| (codec.encode_value)(&value, &mut value_bytes));
                    let deadline = file.deadline_to_file(deadline);
                    let times = Times { deadline, written_at: merge.as_ref().map(|_| written_at) };
                    let mut admits = |writer: &mut Writer| {
                        merge.as_mut().is_none_or(|merge| merge.admits(writer, &key_bytes, written_at))
                    };
                    match encoded {
                        Ok(()) if !admits(&mut writer) => Ok(()),
                        Ok(()) => match writer.push(&key_bytes, &value_bytes, times) {
                            Ok(_) => Ok(()),
                            Err(error) if *error.kind() == DiskErrorKind::Limit => Err(Some(error.into())),
                            Err(error) => return Err(error.into()),
                        },
                        Err(error) => Err(Some(error)),
                    }
                };
                let Err(why) = written else { continue };
                let is_missed = merge
                    .as_mut()
                    .filter(|_| has_key)
                    .is_none_or(|merge| merge.leave_out_ours(KeyKind::Canonical, &key_bytes, written_at));
                if let Some(why) = why.filter(|_| is_missed) {
                    left_out.note(disk, &key_bytes, &why);
                }
            }
        }
        let place = disk.path().display();
        let (saved, dropped) = match merge {
            None => (writer.finish()?, self.shrinking.replaced(&place, self.maxsize)),
            Some(merge) => {
                let merged = merge.finish(writer, file.file_now())?;
                self.sharing.iter().for_each(|sharing| sharing.merged(&merged));
                self.paid();
                left_out.unsure(disk, merged.left_out);
                let dropped = self.shrinking.merged(&place, self.maxsize, &merged);
                (merged.saved, dropped)
            }
        };
        *clock = Some(file);
        self.unread.store(false, Ordering::Relaxed);
        // Rule 8
        if let Some((_, opened)) = &cold {
            for rank in not_carried {
                opened.cold.take(rank);
            }
        }
        if let Some(snapshot) = successor.take() {
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

    /// Tells the merge of everything that is here, and copies what of theirs wins and is not.
    fn join_theirs(
        &self,
        merge: &mut Merge,
        writer: &mut Writer,
        codec: &Codec<K, V>,
        hot: &HotEntries,
        cold: Option<&(Frozen, Arc<Opened<K, V>>)>,
        file: FileClock,
    ) -> Result<(), DiskError> {
        let mut bytes = Vec::new();
        for (key, written_at) in hot.keys(self, codec.clone_key) {
            if (codec.encode_key)(&key, &mut bytes).is_ok() {
                merge.note(&bytes, written_at);
            }
        }
        let contains = |rank| cold.is_some_and(|(frozen, _)| frozen.contains(rank));
        let base = cold.map(|(_, opened)| opened.snapshot());
        let cold = base.as_ref().map(|snapshot| Cold { snapshot, contains: &contains });
        merge.write_theirs(writer, file.file_now(), self.maxsize, cold.as_ref(), &|_| true)
    }

    /// Notes what was lost since the last save or load; what has expired goes into `gone`, as the keys do.
    fn note_lost(&self, sharing: &Sharing, codec: &Codec<K, V>, take: TakeLost<K, V>, gone: &mut Gone<K, V>) {
        let mut bytes = Vec::new();
        let now = self.clock.now();
        for shard in self.shards() {
            let mut removed = Removed::default();
            let lost = take(&mut shard.write().cache, now, &mut removed);
            if !removed.is_empty() {
                gone.expired.push(removed);
            }
            let untold = Untold { shard, lost: Some(lost) };
            for (key, time) in untold.lost.iter().flat_map(LostWrites::keys) {
                // A key that no file can hold is in none.
                if (codec.encode_key)(key, &mut bytes).is_ok() {
                    sharing.overwrite(&bytes, time);
                }
            }
            gone.lost.extend(untold.told().filter(|lost| !lost.is_empty()));
        }
    }

    /// A save that merged has succeeded.
    fn paid(&self) {
        self.shards().iter().for_each(|shard| shard.write().cache.saved());
    }

    /// Writes are later from now on than all that a file has.
    fn write_after(&self, snapshot: &Snapshot) {
        if self.sharing.is_some() {
            let time = snapshot.written_until();
            self.shards().iter().for_each(|shard| shard.write().cache.write_after(time));
        }
    }

    /// Lists the hot entries of all shards, and takes those that were cold in `cold` out of it; see rule 2.
    fn hot_entries(&self, cold: &mut Option<(Frozen, Arc<Opened<K, V>>)>) -> HotEntries {
        let mut list = |shard: &RwLock<Shard<K, V>>| {
            let shard = shard.read();
            let tickets = shard.cache.coldest_first();
            if let Some((frozen, opened)) = cold {
                if shard.opened.as_ref().is_some_and(|current| Arc::ptr_eq(current, opened)) {
                    let entries = tickets.iter().filter_map(|&ticket| shard.cache.store().redeem(ticket));
                    entries.filter_map(|entry| entry.origin).for_each(|rank| frozen.remove(rank));
                } else {
                    *cold = None;
                }
            }
            tickets
        };
        let shards: Vec<Vec<Ticket>> = self.shards().iter().map(|shard| list(shard)).collect();
        let longest = shards.iter().map(Vec::len).max().unwrap_or(0);
        let rounds = longest.div_ceil(SLICE).max(longest.min(FEWEST_ROUNDS));
        HotEntries { rounds, shards, round: 0, shard: 0 }
    }

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
            self.note_lost(sharing, &codec, Core::take_lost, gone);
            sharing.known()
        });
        let opened = disk.open();
        let unread = opened.as_ref().is_err_and(|error| match error.kind() {
            DiskErrorKind::Io | DiskErrorKind::Trust => true,
            // Somebody else's cache, not an older one of ours.
            DiskErrorKind::OtherVersion { found, wanted } => owners_differ(found, wanted),
            _ => false,
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
            self.note_lost(sharing, &codec, Core::take_lost, gone);
        }
        let opened = Opened::new(snapshot, file, codec, self.maxsize, Arc::clone(&self.cold_counts));
        let opened = Arc::new(opened);
        let note = |gone: &mut Gone<K, V>| {
            if let Some(sharing) = &self.sharing {
                self.note_lost(sharing, &codec, Core::take_lost, gone);
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
                drop(shard.open(Some(Arc::clone(opened))));
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
            let written_at = in_file.as_ref().map(|in_file| in_file.written_at);
            let hash = self.hash(&key);
            let deadline = self.deadline(ttl);
            let mut is_noted = false;
            let restored_or_refused = loop {
                let probe = self.probe(hash, &key);
                let mut shard = self.shard(hash).write();
                if !is_noted && shard.cache.store().lost().len() > LOST_AT_ONCE {
                    drop(shard);
                    note_lost(gone);
                    is_noted = true;
                    continue;
                }
                if shard.is_as_probed(&probe) {
                    let slot = shard.cache.find(hash, |known| *known == key);
                    let is_deleted = in_file.as_ref().is_some_and(|in_file| {
                        // What was lost since that was noted: a few, and not none, if others write all the time.
                        let mut lost = shard.cache.store().lost().keys();
                        lost.any(|(lost, time)| in_file.written_at <= time && *lost == key)
                            || self
                                .sharing
                                .as_ref()
                                .is_some_and(|sharing| sharing.is_deleted(&in_file.key, in_file.written_at))
                    });
                    let new = NewEntry { key, value, deadline, origin: probe.rank, written_at };
                    if is_deleted {
                        break Restored::Refused(new);
                    }
                    if let (Some(cold), Some(rank), Some(_)) = (shard.cache.cold(), probe.rank, &in_file)
                        && slot.is_none()
                        && !deadline.has_passed(self.clock.now())
                    {
                        cold.take(rank); // the new file's counts
                    }
                    break shard.cache.restore(slot, hash, new, self.clock.now());
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

/// What a save or a load has to drop when it holds no lock any more.
struct Gone<K, V> {
    expired: Vec<Removed<K, V>>,
    lost: Vec<LostWrites<K>>,
    refused: Vec<NewEntry<K, V>>,
}

impl<K, V> Default for Gone<K, V> {
    fn default() -> Self {
        Self { expired: Vec::new(), lost: Vec::new(), refused: Vec::new() }
    }
}

/// How what was lost is taken out of a shard, and what has expired with it.
type TakeLost<K, V> = fn(&mut Core<K, V>, Time, &mut Removed<K, V>) -> LostWrites<K>;

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
            self.shard.write().cache.take_back(lost);
        }
    }
}

/// An entry as the file has it: its key, and when it was written.
struct InFile {
    key: Box<[u8]>,
    written_at: u64,
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
                        let (key, written_at) = (record.key.into(), record.written_at.unwrap_or(0));
                        entries.push((entry, Some(InFile { key, written_at })));
                    }
                    Err(error) => opened.lose(record.rank, &error),
                }
            }
        }
    }
    entries
}

/// Copies what is still cold, as bytes. Returns the ranks of what the merge left out.
fn copy_cold<K, V>(
    writer: &mut Writer,
    mut merge: Option<&mut Merge>,
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
                let written_at = record.written_at.unwrap_or(0);
                if merge.as_mut().is_none_or(|merge| merge.admits(writer, record.key, written_at)) {
                    writer.carry(&record)?;
                } else {
                    left_out.push(record.rank);
                }
            }
        }
    }
    Ok(left_out)
}

/// Copies the eager records whose time has not passed, as bytes.
fn copy_eager(
    writer: &mut Writer,
    merge: Option<&Merge>,
    snapshot: &Snapshot,
    file: FileClock,
) -> Result<(), DiskError> {
    let is_deleted = |key: &[u8], written_at: Option<u64>| {
        merge.is_some_and(|merge| merge.is_deleted(KeyKind::Eager, key, written_at.unwrap_or(0)))
    };
    let was_known = snapshot.damage().eager_bytes > 0;
    let mut records = snapshot.eager();
    while let Some(step) = records.next_step() {
        match step {
            EagerStep::Record(record) if record.deadline.is_some_and(|it| it <= file.file_now()) => {}
            EagerStep::Record(record) if is_deleted(record.key, record.written_at) => {}
            EagerStep::Record(record) => writer.copy_eager(&record)?,
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

/// The hot entries of all shards, to be taken in slices.
struct HotEntries {
    /// For each shard, coldest first.
    shards: Vec<Vec<Ticket>>,
    rounds: usize,
    round: usize,
    shard: usize,
}

/// An entry as it was when a save came by.
struct Taken<K, V> {
    key: K,
    value: V,
    deadline: Deadline,
    /// Zero if that is not kept.
    written_at: u64,
}

impl HotEntries {
    /// Clones all keys, a slice at a time, each with the time of its entry's writing.
    fn keys<K: Hash + Eq, V: Clone>(
        &self,
        inner: &Inner<K, V>,
        clone_key: fn(&K) -> K,
    ) -> impl Iterator<Item = (K, u64)> {
        let slices = self.shards.iter().zip(inner.shards());
        let slices =
            slices.flat_map(|(tickets, shard)| tickets.chunks(SLICE).map(move |slice| (slice, shard)));
        slices.flat_map(move |(slice, shard)| {
            let shard = shard.read();
            let store = shard.cache.store();
            let keys = slice
                .iter()
                .filter_map(|&ticket| Some((store.redeem(ticket)?.key, store.written_at(ticket))));
            keys.map(|(key, written_at)| (clone_key(key), written_at)).collect::<Vec<_>>()
        })
    }

    /// Clones the next few entries; none if they have all left. `None` at the end.
    fn next_slice<K: Hash + Eq, V: Clone>(
        &mut self,
        inner: &Inner<K, V>,
        clone_key: fn(&K) -> K,
    ) -> Option<Vec<Taken<K, V>>> {
        if self.round == self.rounds {
            return None;
        }
        let tickets = &self.shards[self.shard];
        let part = |round: usize| tickets.len() * round / self.rounds;
        let slice = &tickets[part(self.round)..part(self.round + 1)];
        let taken = if slice.is_empty() {
            Vec::new()
        } else {
            let shard = inner.shards()[self.shard].read();
            let store = shard.cache.store();
            let taken = slice.iter().filter_map(|&ticket| {
                let entry = store.redeem(ticket)?;
                let (key, value) = (clone_key(entry.key), entry.value.clone());
                Some(Taken { key, value, deadline: entry.deadline, written_at: store.written_at(ticket) })
            });
            taken.collect()
        };
        self.shard += 1;
        if self.shard == self.shards.len() {
            (self.shard, self.round) = (0, self.round + 1);
        }
        Some(taken)
    }
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

    fn note(&mut self, disk: &DiskBackend, key: &[u8], error: &BackendError) {
        self.0 += 1;
        if self.0 == 1 {
            let path = disk.path().display();
            let key = &key[..key.len().min(64)];
            tracing::warn!(
                "{path}: an entry is left out of the save: {error} (its key begins with the bytes {}); \
                 `Saved::left_out` counts them",
                key.escape_ascii()
            );
        }
    }
}

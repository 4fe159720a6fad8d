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
//! 5. a file that could not be read when it was opened, or that belongs to another function, is set aside by
//!    the save, even if it can be read by then;
//! 6. eager records of the file that was loaded last are copied as bytes, as cold entries are. Another program
//!    wrote them, and only it can read them, so they are no entries of this cache and are not counted.
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
use async_cache_core::store::{NewEntry, Ticket};
use async_cache_core::time::{Deadline, FileClock};
use async_cache_disk::{DiskError, DiskErrorKind, EagerStep, Snapshot, Step, Writer};

use crate::backup::codec::Codec;
use crate::backup::disk::owners_differ;
use crate::backup::opened::Opened;
use crate::backup::{Backup, CacheBackend, DiskBackend, Kind, SavedEntry};
use crate::error::{BackendError, BackupError};
use crate::inner::{Inner, Shard};
use crate::sync::RwLock;

/// The most entries whose values are taken under one lock.
const SLICE: usize = 64;

/// Shards take turns this often at least, so that the last entries of a save are the most worth keeping of
/// all shards.
const FEWEST_ROUNDS: usize = 64;

/// What a save came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Saved {
    /// Entries that were saved.
    pub entries: u64,
    /// The size of the file in bytes; 0 for a backend of the user's own.
    pub bytes: u64,
    /// Entries that could not be encoded, or are too large for the format, and so were left out. The first
    /// one is named in a warning.
    pub left_out: u64,
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
        let Some(Backup(kind)) = &self.backup else { return Ok(Saved::default()) };
        let mut clock = self.saving.lock();
        let saved = match kind {
            Kind::Disk(disk, codec) => {
                let file =
                    clock.map_or_else(|| self.clock.start_file(0), |file| self.clock.adjust_file(file));
                let saved = self.save_to_disk(disk, codec, file)?;
                *clock = Some(file);
                saved
            }
            Kind::Whole(backend, clone_key) => self.save_whole(&**backend, *clone_key)?,
        };
        self.cold_counts.saved();
        Ok(saved)
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
        let live = slices.flatten().filter(|(_, _, deadline)| !deadline.has_passed(now));
        let mut all = live.map(|(key, value, deadline)| {
            entries += 1;
            SavedEntry { key, value, ttl: deadline.remaining(now) }
        });
        backend.save(&mut all).map_err(|source| BackupError::Backend { action: "save", source })?;
        Ok(Saved { entries, ..Saved::default() })
    }

    fn save_to_disk(
        &self,
        disk: &DiskBackend,
        codec: &Codec<K, V>,
        file: FileClock,
    ) -> Result<Saved, BackupError> {
        let mut writer = disk.writer(file.file_now(), self.unread.load(Ordering::Relaxed))?;
        let opened = self.opened();
        let mut cold = opened.map(|opened| (opened.cold.freeze(), opened));
        let mut hot = self.hot_entries(&mut cold);
        if let Some((cold, opened)) = &cold {
            copy_cold(&mut writer, opened, cold, file)?;
        }
        if let Some(snapshot) = self.cold_counts.others() {
            copy_eager(&mut writer, &snapshot, file)?;
        }
        let mut left_out = LeftOut::default();
        let (mut key_bytes, mut value_bytes) = (Vec::new(), Vec::new());
        let now = self.clock.now();
        while let Some(slice) = hot.next_slice(self, codec.clone_key) {
            for (key, value, deadline) in slice {
                if deadline.has_passed(now) {
                    continue;
                }
                let encoded = (codec.encode_key)(&key, &mut key_bytes)
                    .and_then(|()| (codec.encode_value)(&value, &mut value_bytes));
                let pushed = match encoded {
                    Ok(()) => writer.push(&key_bytes, &value_bytes, file.deadline_to_file(deadline)),
                    Err(error) => {
                        left_out.note(disk, &key_bytes, &error);
                        continue;
                    }
                };
                match pushed {
                    Ok(_) => {}
                    Err(error) if *error.kind() == DiskErrorKind::Limit => {
                        left_out.note(disk, &key_bytes, &error.into());
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let saved = writer.finish()?;
        self.unread.store(false, Ordering::Relaxed);
        if let Some(aside) = &saved.set_aside {
            tracing::warn!(
                "{}: what stood there was not a cache that could be read, and is at {} now",
                disk.path().display(),
                aside.display()
            );
        }
        Ok(Saved {
            entries: saved.entries.into(),
            bytes: saved.bytes,
            left_out: left_out.0,
            set_aside: saved.set_aside,
        })
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
        let mut refused = Vec::new();
        let mut clock = self.saving.lock();
        let started = self.clock.now();
        let mut opening = match kind {
            Kind::Disk(disk, codec) => {
                let not_before = clock.map_or(0, |file| self.clock.adjust_file(file).file_now());
                let (opening, file) = self.open_disk(disk, *codec, not_before, &mut refused)?;
                *clock = file.or(*clock);
                opening
            }
            Kind::Whole(backend, _) => {
                let load = backend.load();
                let entries = load.map_err(|source| BackupError::Backend { action: "load", source })?;
                Opening {
                    entries: self.restore_all(entries.into_iter().rev(), &mut refused),
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
        refused: &mut Vec<NewEntry<K, V>>,
    ) -> Result<(Opening, Option<FileClock>), DiskError> {
        let opened = disk.open();
        let unread = opened.as_ref().is_err_and(|error| match error.kind() {
            DiskErrorKind::Io => true,
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
        let opened = Opened::new(snapshot, file, codec, self.maxsize, Arc::clone(&self.cold_counts));
        let opened = Arc::new(opened);
        opening.entries = opened.cold.live() as u64;

        if !self.open_pristine(&opened) {
            opening.entries = self.restore_all(read_all(&opened).into_iter().rev(), refused);
        }
        Ok((opening, Some(file)))
    }

    /// Opens a snapshot under a cache that has nothing in memory and loads nothing; elsewhere a key could be
    /// hot and cold.
    fn open_pristine(&self, opened: &Arc<Opened<K, V>>) -> bool {
        let mut shards: Vec<_> = self.shards().iter().map(|shard| shard.write()).collect();
        let is_pristine = shards.iter().all(|shard| shard.cache.is_pristine());
        if is_pristine {
            for shard in &mut shards {
                // Dropping the old one closes its file; it holds nothing of the user's.
                drop(shard.open(Some(Arc::clone(opened))));
            }
        }
        is_pristine
    }

    /// Takes in entries from the most to the least recently used; returns how many.
    fn restore_all(
        &self,
        entries: impl Iterator<Item = SavedEntry<K, V>>,
        refused: &mut Vec<NewEntry<K, V>>,
    ) -> u64 {
        // What has expired is not there, and takes no room from what comes in.
        self.reclaim();
        let mut restored = 0;
        for SavedEntry { key, value, ttl } in entries {
            let hash = self.hash(&key);
            let deadline = self.deadline(ttl);
            let restored_or_refused = loop {
                let probe = self.probe(hash, &key);
                let mut shard = self.shard(hash).write();
                if shard.is_as_probed(&probe) {
                    let slot = shard.cache.find(hash, |known| *known == key);
                    let new = NewEntry { key, value, deadline, origin: probe.rank };
                    break shard.cache.restore(slot, hash, new, self.clock.now());
                }
            };
            match restored_or_refused {
                Restored::Stored => restored += 1,
                Restored::Refused(entry) => refused.push(entry),
            }
        }
        restored
    }
}

/// Reads every entry of a snapshot that can be read, coldest first.
fn read_all<K, V>(opened: &Opened<K, V>) -> Vec<SavedEntry<K, V>> {
    let mut records = opened.snapshot.records();
    let mut entries = Vec::new();
    while let Some(step) = records.next_wanted(|rank| opened.cold.contains(rank)) {
        match step {
            Step::Lost { rank } => opened.lose(rank, &"its record is damaged or cannot be read"),
            Step::Record(record) => {
                let ttl = record.deadline.map(|deadline| deadline.saturating_sub(opened.clock.file_now()));
                let decoded = (opened.codec.decode_key)(record.key)
                    .and_then(|key| Ok((key, (opened.codec.decode_value)(record.value)?)));
                match decoded {
                    Ok((key, value)) => {
                        entries.push(SavedEntry { key, value, ttl: ttl.map(Duration::from_nanos) });
                    }
                    Err(error) => opened.lose(record.rank, &error),
                }
            }
        }
    }
    entries
}

/// Copies what is still cold, as bytes.
fn copy_cold<K, V>(
    writer: &mut Writer,
    opened: &Opened<K, V>,
    cold: &Frozen,
    file: FileClock,
) -> Result<(), DiskError> {
    let mut records = opened.snapshot.records();
    while let Some(step) = records.next_wanted(|rank| cold.contains(rank)) {
        match step {
            Step::Lost { rank } => opened.lose(rank, &"its record is damaged or cannot be read"),
            Step::Record(record) if record.deadline.is_some_and(|deadline| deadline <= file.file_now()) => {}
            Step::Record(record) => drop(writer.copy(&record)?),
        }
    }
    Ok(())
}

/// Copies the eager records whose time has not passed, as bytes.
fn copy_eager(writer: &mut Writer, snapshot: &Snapshot, file: FileClock) -> Result<(), DiskError> {
    let was_known = snapshot.damage().eager_bytes > 0;
    let mut records = snapshot.eager();
    while let Some(step) = records.next_step() {
        match step {
            EagerStep::Record(record) if record.deadline.is_some_and(|it| it <= file.file_now()) => {}
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

impl HotEntries {
    /// Clones the next few entries; none if they have all left. `None` at the end.
    fn next_slice<K: Hash + Eq, V: Clone>(
        &mut self,
        inner: &Inner<K, V>,
        clone_key: fn(&K) -> K,
    ) -> Option<Vec<(K, V, Deadline)>> {
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
            let entries = slice.iter().filter_map(|&ticket| shard.cache.store().redeem(ticket));
            entries.map(|entry| (clone_key(entry.key), entry.value.clone(), entry.deadline)).collect()
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

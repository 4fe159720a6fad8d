//! A store: every write of a cache, kept in segments beside the cache's file (file format, part
//! two).
//!
//! ```text
//!            no other process has the lock        close, or drop
//! closed --------------------------------> open -----------------> closed
//!    \                                      |  ^
//!     `- another process has it: no store   v  | seal, merge
//! ```
//!
//! Rules:
//! 1. A write is on file when its call returns: one positioned write at the end of the segment,
//!    under the lock of the end. Times ascend in the order of the writes.
//! 2. Places ascend in the order of the writes, copies included. So the latest record of a key is
//!    the record with the greatest place; a store of a single process never compares times.
//! 3. A look-up goes from the latest to the earliest: tails, runs, base. It ends at the first
//!    record of the key. Anything invalid on the way hides what is earlier: the key is a miss.
//! 4. A delete that cannot be written raises the floor over everything earlier, in the manifest. If
//!    the manifest cannot be replaced, it is removed, together with the base. Until a manifest has
//!    the floor, every following write tries to replace it first, and fails if it cannot: a record
//!    in a segment that no manifest names is not on file.
//! 5. Only the process that created the store's value writes to it: a forked child does not.
//! 6. Runs may be later than a record of the tails, if a lost run is built again: then these runs
//!    are searched before the record counts.
//!
//! Locks, in the order of taking: `end`, `layout`, `tails`. No lock but `end` is held during a
//! write to the disk.

mod answer;
mod flushing;
mod folder;
mod lock;
mod merged;
mod opening;
mod replay;
mod rounds;
mod run;
mod sealing;
mod segment;
mod tails;
pub(crate) mod view;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

pub use answer::{Sighting, StoreAnswer, StoreEntry, StoreScratch};
pub use view::{
    FoundStore, RunFacts, SegmentFacts, StoreFinding, StoreFindingKind, StoreItem, StoreReport, StoreView,
    StoredEntry,
};

use crate::error::{DiskError, DiskErrorKind};
use crate::format::address::{KeyHash, KeyHasher};
use crate::format::store::record::{NewRecord, RecordKind, RecordTimes};
use crate::format::store::{Hash40, StorePlace};
use crate::snapshot::Snapshot;
use crate::trust::Site;
use crate::vfs::parent_of;
use folder::{StoreFolder, StoreIds};
use lock::StoreLock;
use rounds::{Durability, Flushes};
use run::{InRun, IndexRun};
use segment::{NotAppended, SegmentEnd, SegmentFile};
use tails::{InTails, Tails};

/// Segments that no run indexes have this many bytes at most in all (file format, section 16).
const MOST_TAIL_BYTES: u32 = 16 << 20;
const MOST_SEGMENT_BYTES: u32 = 64 << 20;

/// In the message of an error.
const UNRECORDED: &str = "a delete could be recorded nowhere: what it deleted may return at the next opening";

/// The sizes of a store.
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions {
    /// A segment takes no further record from this length on, in bytes; at most 64 MiB.
    pub segment_bytes: u32,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { segment_bytes: MOST_TAIL_BYTES / 2 }
    }
}

/// A write to the store.
#[derive(Debug, Clone, Copy)]
pub struct StoreWrite<'w> {
    /// The canonical bytes of the key.
    pub key: &'w [u8],
    /// The value.
    pub value: &'w [u8],
    /// When the entry expires, in nanoseconds since the Unix epoch. `None`: never.
    pub deadline: Option<u64>,
}

/// Where the record of an entry stands in a store. Ascends with the writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryPlace(u64);

impl EntryPlace {
    /// The place as a number that is not 0.
    pub fn to_number(self) -> u64 {
        self.0
    }

    /// The place of a number from [`to_number`](Self::to_number).
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The entry of a base has the number of no segment.
    fn in_base(rank: u32) -> Self {
        Self(u64::from(rank).saturating_add(1))
    }
}

impl From<StorePlace> for EntryPlace {
    fn from(place: StorePlace) -> Self {
        Self(u64::from(place.segment) << 32 | u64::from(place.offset))
    }
}

/// A write that is on file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Where the record stands.
    pub place: EntryPlace,
    /// The time of the write: the wall clock, or later, for a later write has a later time.
    pub time: u64,
}

/// An open store, which this process alone writes to. All methods can be called from any thread.
#[derive(Debug)]
pub struct DiskStore {
    site: Site,
    folder: StoreFolder,
    ids: StoreIds,
    hasher: KeyHasher,
    options: StoreOptions,
    /// Rule 5.
    lock: StoreLock,
    end: Mutex<StoreEnd>,
    layout: RwLock<Arc<StoreLayout>>,
    tails: RwLock<Tails>,
    flushes: Flushes,
}

/// The place where records are appended, and what the next manifest says.
#[derive(Debug)]
struct StoreEnd {
    segment: SegmentEnd,
    /// The latest time given to a record.
    latest: u64,
    /// The time of the latest clear.
    cleared_at: u64,
    manifest: crate::format::store::manifest::ManifestBody,
    /// Rule 4: a floor that no manifest on the disk has yet.
    is_floor_owed: bool,
    durability: Durability,
}

/// The files that count, for look-ups.
#[derive(Debug)]
struct StoreLayout {
    /// Ascending by number.
    segments: Vec<Arc<SegmentFile>>,
    /// The latest first.
    runs: Vec<PlacedRun>,
    base: Option<Arc<Snapshot>>,
    /// The manifest names the base: every record is later than its entries. Else another program
    /// has replaced the base, and times decide.
    is_base_ours: bool,
    /// Entries that are not later than this time do not exist: the floor, and the latest clear.
    cleared_at: u64,
    /// The same for entries of the base.
    dropped_until: u64,
}

/// A run, and the first segment of its range.
#[derive(Debug, Clone)]
struct PlacedRun {
    first_segment: u32,
    run: Arc<IndexRun>,
}

impl StoreLayout {
    fn segment(&self, number: u32) -> Option<&Arc<SegmentFile>> {
        let index = self.segments.binary_search_by_key(&number, |segment| segment.number).ok()?;
        self.segments.get(index)
    }

    /// Answers for a key of which the tails say this (rule 3).
    fn answer<'s>(
        &self,
        key: &[u8],
        hash: KeyHash,
        in_tails: InTails,
        scratch: &'s mut StoreScratch,
    ) -> StoreAnswer<'s> {
        match in_tails {
            InTails::Hidden => StoreAnswer::Hidden,
            InTails::At(place) => {
                match self.read_from_runs(key, hash, Some(place.segment), scratch) {
                    Some(true) => return scratch.answer(key, self), // Rule 6.
                    Some(false) => {}
                    None => return StoreAnswer::Hidden,
                }
                let found = scratch.read(self, place).map(|is_key| is_key(key));
                // One slot for two keys with one hash: `tails`, rule 1.
                if found == Some(true) { scratch.answer(key, self) } else { StoreAnswer::Hidden }
            }
            InTails::Absent => match self.read_from_runs(key, hash, None, scratch) {
                Some(true) => scratch.answer(key, self),
                Some(false) => match &self.base {
                    Some(base) => scratch.find_in_base(base, key, self),
                    None => StoreAnswer::Absent,
                },
                None => StoreAnswer::Hidden,
            },
        }
    }

    /// Reads the latest record of a key from the runs behind a segment. Returns whether there is a
    /// record; `None` if the key is hidden.
    fn read_from_runs(
        &self,
        key: &[u8],
        hash: KeyHash,
        behind: Option<u32>,
        scratch: &mut StoreScratch,
    ) -> Option<bool> {
        let is_behind = |placed: &&PlacedRun| behind.is_none_or(|segment| placed.first_segment > segment);
        for placed in self.runs.iter().take_while(is_behind) {
            let InRun::Places(places) = placed.run.find(Hash40::of(hash)) else { return None };
            for place in places {
                if scratch.read(self, place)?(key) {
                    return Some(true);
                }
            }
        }
        Some(false)
    }
}

impl DiskStore {
    /// Writes an entry. `now`: the wall clock, in nanoseconds since the Unix epoch.
    ///
    /// The entry survives the process from then on, and a power loss from the next
    /// [`flush`](Self::flush) on.
    ///
    /// # Errors
    /// [`Full`](DiskErrorKind::Full) and [`Io`](DiskErrorKind::Io); the entry is not on file then,
    /// and an earlier entry of the key is gone. [`Limit`](DiskErrorKind::Limit) for an entry larger
    /// than a segment; then an earlier entry of the key is gone as well.
    pub fn put(&self, write: &StoreWrite<'_>, now: u64) -> Result<Written, DiskError> {
        self.put_record(RecordKind::Entry, write, now)
            .map_err(|error| self.delete(write.key, now).err().unwrap_or(error))
    }

    /// Writes an entry whose key only its front can compare: no look-up finds it, and
    /// an opening reads all of them.
    ///
    /// # Errors
    /// Those of [`put`](Self::put).
    pub fn put_eager(&self, write: &StoreWrite<'_>, now: u64) -> Result<Written, DiskError> {
        self.put_record(RecordKind::EagerEntry, write, now)
            .map_err(|error| self.delete_eager(write.key, now).err().unwrap_or(error))
    }

    fn put_record(&self, kind: RecordKind, write: &StoreWrite<'_>, now: u64) -> Result<Written, DiskError> {
        let record = |times| NewRecord {
            kind,
            times: RecordTimes { deadline: write.deadline, ..times },
            is_compressed: false,
            attributes: &[],
            key: write.key,
            value: write.value,
        };
        self.append(write.key, now, record)
    }

    /// Deletes a key: no earlier entry is served again, also after a crash. `now` and the result as
    /// for [`put`](Self::put).
    ///
    /// # Errors
    /// [`Full`](DiskErrorKind::Full) and [`Io`](DiskErrorKind::Io). The key is deleted all the same
    /// (rule 4 at the head of this module), together with every earlier entry of the store, unless
    /// the error says that nothing could be written.
    pub fn delete(&self, key: &[u8], now: u64) -> Result<u64, DiskError> {
        self.append(key, now, |times| plain(RecordKind::Delete, key, times))
            .map_or_else(|error| self.forget(error), |written| Ok(written.time))
    }

    /// Deletes a key that only its front can compare.
    ///
    /// # Errors
    /// Those of [`delete`](Self::delete).
    pub fn delete_eager(&self, key: &[u8], now: u64) -> Result<u64, DiskError> {
        self.append(key, now, |times| plain(RecordKind::EagerDelete, key, times))
            .map_or_else(|error| self.forget(error), |written| Ok(written.time))
    }

    /// Deletes everything. As [`delete`](Self::delete).
    ///
    /// # Errors
    /// Those of [`delete`](Self::delete).
    pub fn clear(&self, now: u64) -> Result<u64, DiskError> {
        let written = self.append(&[], now, |times| plain(RecordKind::Clear, &[], times));
        let time = written.map_or_else(|error| self.forget(error), |written| Ok(written.time))?;
        self.change_layout(|layout| layout.cleared_at = layout.cleared_at.max(time));
        write(&self.tails).end_generation();
        Ok(time)
    }

    /// Looks a key up (rule 3).
    pub fn find<'s>(&self, key: &[u8], scratch: &'s mut StoreScratch) -> StoreAnswer<'s> {
        let hash = self.hasher.hash(key);
        // The tails first: a record moves from the tails into a run, and never back.
        let (in_tails, seen) = read(&self.tails).look(hash);
        scratch.seen = seen;
        let layout = Arc::clone(&read(&self.layout));
        layout.answer(key, hash, in_tails, scratch)
    }

    /// Whether the key of an entry was neither written, deleted nor cleared since the look-up that
    /// found the entry. (`false` also after some work in the background: then look it up again.)
    /// Reads no file.
    pub fn is_current(&self, sighting: &Sighting) -> bool {
        read(&self.tails).is_still(&sighting.seen)
    }

    /// Rule 1.
    fn append<'w>(
        &self,
        key: &[u8],
        now: u64,
        record: impl Fn(RecordTimes) -> NewRecord<'w>,
    ) -> Result<Written, DiskError> {
        let mut end = self.lock_end()?;
        let written_at = now.max(end.latest.saturating_add(1));
        let record = record(RecordTimes { deadline: None, written_at });
        let hash = record.kind.has_key().then(|| self.hasher.hash(key));
        let mut is_second = false;
        loop {
            match end.segment.append(&record, hash) {
                Ok(place) => {
                    end.latest = written_at;
                    if record.kind == RecordKind::Clear {
                        end.cleared_at = written_at;
                    }
                    if record.kind.has_slot()
                        && let Some(hash) = hash
                    {
                        write(&self.tails).insert(hash, place);
                    }
                    return Ok(Written { place: place.into(), time: written_at });
                }
                Err(NotAppended::NextSegment) if !is_second => {
                    is_second = true;
                    self.next_segment(&mut end, written_at)?;
                }
                Err(NotAppended::NextSegment | NotAppended::TooLarge) => {
                    let what = "an entry is larger than a segment of the store can hold";
                    return Err(DiskError::new(DiskErrorKind::Limit, &self.folder.path, what));
                }
                Err(NotAppended::Io(error)) if is_second => {
                    return Err(DiskError::io("writing to a segment", &self.folder.path, error));
                }
                // The segment is broken: the next round begins another one.
                Err(NotAppended::Io(_)) => {}
            }
        }
    }

    /// The lock of the end, once what is owed is written.
    fn lock_end(&self) -> Result<MutexGuard<'_, StoreEnd>, DiskError> {
        self.refuse_fork()?;
        let mut end = lock(&self.end);
        if end.is_floor_owed {
            self.write_floor(&mut end)?;
        }
        Ok(end)
    }

    /// Rule 5.
    fn refuse_fork(&self) -> Result<(), DiskError> {
        if self.lock.is_of_this_process() {
            return Ok(());
        }
        let what = "this process was forked from the process that has the store open; open it anew";
        Err(DiskError::new(DiskErrorKind::Locked, &self.folder.path, what))
    }

    /// Rule 4.
    fn forget(&self, error: DiskError) -> Result<u64, DiskError> {
        self.refuse_fork()?;
        let mut end = lock(&self.end);
        let floor = end.latest.saturating_add(1);
        end.latest = floor;
        end.manifest.floor = floor;
        end.is_floor_owed = true;
        self.change_layout(|layout| layout.cleared_at = layout.cleared_at.max(floor));
        write(&self.tails).end_generation();
        if self.write_floor(&mut end).is_err()
            && (self.folder.remove_manifest().is_err() || self.remove_base().is_err())
        {
            let what = format!("{UNRECORDED} ({error})");
            return Err(DiskError::new(error.kind().clone(), &self.folder.path, what));
        }
        Err(error)
    }

    fn write_floor(&self, end: &mut StoreEnd) -> Result<(), DiskError> {
        let now = end.latest;
        end.manifest.sequence = end.manifest.sequence.saturating_add(1);
        self.folder.replace_manifest(&self.ids, &end.manifest, now)?;
        end.is_floor_owed = false;
        Ok(())
    }

    /// Removes the base: its entries may be older than a delete that could be recorded nowhere.
    fn remove_base(&self) -> Result<(), DiskError> {
        let Site { vfs, place, .. } = &self.site;
        match vfs.remove(place) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(DiskError::io("removing the file", place, error))
            }
            _ => vfs
                .sync_dir(parent_of(place))
                .map_err(|error| DiskError::io("syncing the folder", place, error)),
        }
    }

    fn change_layout(&self, change: impl FnOnce(&mut StoreLayout)) {
        let mut layout = write(&self.layout);
        let StoreLayout { segments, runs, base, is_base_ours, cleared_at, dropped_until } = &**layout;
        let mut next = StoreLayout {
            segments: segments.clone(),
            runs: runs.clone(),
            base: base.clone(),
            is_base_ours: *is_base_ours,
            cleared_at: *cleared_at,
            dropped_until: *dropped_until,
        };
        change(&mut next);
        *layout = Arc::new(next);
    }
}

/// A record with a key and nothing else.
fn plain(kind: RecordKind, key: &[u8], times: RecordTimes) -> NewRecord<'_> {
    NewRecord { kind, times, is_compressed: false, attributes: &[], key, value: &[] }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

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
//! Locks, in the order of taking: `collector`, `indexing`, `counter`, `evictor`, `end`, `settled`
//! (of the folder), `settling`, `layout`, `tails`, `counts`. No lock behind `end` is held during a
//! write to the disk, except `settled`, while a manifest is replaced or synced.

mod answer;
mod appending;
mod collecting;
mod collector;
mod counting;
mod counts;
mod eager;
mod evicting;
mod filter;
mod flushing;
mod fold;
mod folder;
mod guards;
mod layout;
mod live;
mod lock;
mod look_up;
mod marks;
mod merged;
mod opening;
mod replay;
mod rounds;
mod run;
mod sealing;
mod segment;
mod stats;
mod tails;
pub(crate) mod view;
mod write;

use std::sync::{Arc, Mutex, MutexGuard, RwLock};

pub use answer::{Sighting, StoreAnswer, StoreEntry, StoreScratch};
pub use collector::Collection;
pub use stats::StoreStats;
pub use view::{
    FoundStore, RunFacts, SegmentFacts, StoreFinding, StoreFindingKind, StoreItem, StoreReport, StoreView,
    StoredEntry,
};
pub use write::{EagerWrite, EntryPlace, Folded, StoreLimit, StoreOptions, StoreWrite, Written};

use crate::error::{DiskError, DiskErrorKind};
use crate::format::address::KeyHasher;
use crate::format::store::record::{NewRecord, RecordKind, RecordTimes};
use crate::trust::Site;
use crate::vfs::{Patience, parent_of};
use collector::Collector;
use counts::Counts;
use filter::FilterRoom;
use folder::{StoreFolder, StoreIds};
use guards::{lock, read, write};
use layout::{PlacedRun, StoreLayout};
use live::LiveCursor;
use lock::StoreLock;
use look_up::LookUp;
use rounds::{Durability, Flushes};
use segment::SegmentEnd;
use tails::Tails;

const MOST_SEGMENT_BYTES: u32 = 64 << 20;

/// In the message of an error.
const UNRECORDED: &str = "a delete could be recorded nowhere: what it deleted may return at the next opening";

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
    counts: Mutex<Counts>,
    /// Held while the queue of the counts is settled.
    settling: Mutex<()>,
    /// Held while runs are built: a run is made of the segments and runs that were chosen.
    indexing: Mutex<()>,
    filters: Arc<FilterRoom>,
    /// The walk that counts the entries of the opening.
    counter: Mutex<LiveCursor>,
    /// The walk that evicts.
    evictor: Mutex<LiveCursor>,
    collector: Mutex<Collector>,
}

/// The place where records are appended, and what the next manifest says.
#[derive(Debug)]
struct StoreEnd {
    /// `None` until the first write after the opening.
    segment: Option<SegmentEnd>,
    /// The latest time given to a record.
    latest: u64,
    /// The time of the latest clear.
    cleared_at: u64,
    manifest: crate::format::store::manifest::ManifestBody,
    /// Rule 4: a floor that no manifest on the disk has yet.
    is_floor_owed: bool,
    durability: Durability,
    /// How many eager records were written.
    eager_writes: u64,
}

impl StoreEnd {
    /// The place of the next record, or a lower place behind all records.
    fn place(&self) -> EntryPlace {
        let begin = || EntryPlace::start_of(self.manifest.next_number);
        self.segment.as_ref().map_or_else(begin, SegmentEnd::place)
    }

    /// Whether there are records that are not known to be durable.
    fn has_unsynced(&self) -> bool {
        self.segment.as_ref().is_some_and(SegmentEnd::is_dirty)
    }

    /// Whether neither this process nor an earlier one has written anything.
    fn is_unwritten(&self) -> bool {
        self.manifest.sequence == 0
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
    /// and an earlier entry of the key is gone, as after [`delete`](Self::delete).
    /// [`Limit`](DiskErrorKind::Limit) for an entry larger than a segment; then an earlier entry of
    /// the key is gone as well.
    pub fn put(&self, write: &StoreWrite<'_>, now: u64) -> Result<Written, DiskError> {
        self.put_record(RecordKind::Entry, write, now).map_err(|error| {
            // The earlier entry must not stand for the later one.
            match self.find(write.key, &mut StoreScratch::new()) {
                StoreAnswer::Absent => error,
                _ => self.delete(write.key, write.replaces, now).err().unwrap_or(error),
            }
        })
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
        self.append(write.key, write.replaces, now, record)
    }

    /// Deletes a key: no earlier entry is served again, also after a crash. `replaces`: as in
    /// [`StoreWrite`]. Returns the time of the delete.
    ///
    /// # Errors
    /// [`Full`](DiskErrorKind::Full) and [`Io`](DiskErrorKind::Io). The key is deleted all the same
    /// (rule 4 at the head of this module), together with every earlier entry of the store, unless
    /// the error says that nothing could be written.
    pub fn delete(&self, key: &[u8], replaces: Option<EntryPlace>, now: u64) -> Result<u64, DiskError> {
        self.append(key, replaces, now, |times| plain(RecordKind::Delete, key, times))
            .map_or_else(|error| self.forget(error), |written| Ok(written.time))
    }

    /// Deletes a key that only its front can compare.
    ///
    /// # Errors
    /// Those of [`delete`](Self::delete).
    pub fn delete_eager(&self, key: &[u8], now: u64) -> Result<u64, DiskError> {
        self.append(key, None, now, |times| plain(RecordKind::EagerDelete, key, times))
            .map_or_else(|error| self.forget(error), |written| Ok(written.time))
    }

    /// Deletes everything. As [`delete`](Self::delete).
    ///
    /// # Errors
    /// Those of [`delete`](Self::delete).
    pub fn clear(&self, now: u64) -> Result<u64, DiskError> {
        let written = self.append(&[], None, now, |times| plain(RecordKind::Clear, &[], times));
        written.map_or_else(|error| self.forget(error), |written| Ok(written.time))
    }

    /// Looks a key up (rule 3).
    pub fn find<'s>(&self, key: &[u8], scratch: &'s mut StoreScratch) -> StoreAnswer<'s> {
        self.find_with(&Patience::unlimited(), key, scratch)
    }

    /// Looks a key up without waiting for the disk: `None` if a read would wait, or has more than
    /// 1 MiB. Then call [`find`](Self::find) on a thread that may wait. Where the system cannot
    /// tell whether a read would wait, the call waits.
    pub fn find_now<'s>(&self, key: &[u8], scratch: &'s mut StoreScratch) -> Option<StoreAnswer<'s>> {
        let patience = Patience::none();
        let answer = self.find_with(&patience, key, scratch);
        (!patience.would_wait()).then_some(answer)
    }

    fn find_with<'s>(
        &self,
        patience: &Patience,
        key: &[u8],
        scratch: &'s mut StoreScratch,
    ) -> StoreAnswer<'s> {
        let hash = self.hasher.hash(key);
        let (layout, in_tails, seen) = self.look_up().look(hash);
        scratch.seen = seen;
        layout.answer(key, hash, in_tails, patience, scratch)
    }

    fn look_up(&self) -> LookUp<'_> {
        LookUp { hasher: &self.hasher, layout: &self.layout, tails: &self.tails }
    }

    /// The latest time of a write, or of the store's opening: in nanoseconds since the Unix epoch.
    pub fn latest(&self) -> u64 {
        lock(&self.end).latest
    }

    /// How large the store is.
    pub fn stats(&self) -> StoreStats {
        let layout = Arc::clone(&read(&self.layout));
        StoreStats { filter_bytes: self.filters.used() as u64, ..StoreStats::of(&layout) }
    }

    /// The bytes on disk of segments, runs and base.
    pub fn bytes(&self) -> u64 {
        self.stats().bytes()
    }

    /// Whether the key of an entry was neither written, deleted nor cleared since the look-up that
    /// found the entry. (`false` also after some work in the background: then look it up again.)
    /// Reads no file.
    pub fn is_current(&self, sighting: &Sighting) -> bool {
        read(&self.tails).is_still(&sighting.seen)
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
        self.forget_until(&end, floor);
        self.folder.refuse_replaced()?; // The files that are there now are not this store's.
        if self.write_floor(&mut end).is_err()
            && (self.folder.remove_manifest().is_err() || self.remove_base().is_err())
        {
            let what = format!("{UNRECORDED} ({error})");
            return Err(DiskError::new(error.kind().clone(), &self.folder.path, what));
        }
        Err(error)
    }

    /// Entries that are not later than a time do not exist any more. The end is locked.
    fn forget_until(&self, end: &StoreEnd, time: u64) {
        self.change_layout(|layout| layout.cleared_at = layout.cleared_at.max(time));
        write(&self.tails).clear_before(end.place());
        lock(&self.counts).cleared(end.place());
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

//! Opening a store, and closing it (file format, section 18).
//!
//! Rules:
//! 1. The lock is taken first, and nothing is read without it: a process that does not write to the
//!    store does not use it.
//! 2. A segment that another process left open is sealed where it ends, after a sync: from then on,
//!    bytes behind the end do not count, and invalid bytes before the end are damage.
//! 3. A segment or a run is lost if there is no such file, or if the file is another one: the name
//!    or the header page says so. A segment that is lost raises the floor. A run that is lost is
//!    built again: its segments are read as tails. If the system cannot open or read a file, or if
//!    the owner of a file is not trusted, nothing is lost: the opening fails and changes nothing.
//! 4. An unusable manifest may have said that entries of the base are deleted: then the base does
//!    not count either. Without a manifest, records may say so: the base counts if there is no
//!    record.
//! 5. A clock that was set back does not lower a floor: the time of the opening is never earlier
//!    than a time that is known from the store and its base.
//! 6. Leftovers of an interrupted step are removed before a file is created with their number.
//! 7. A segment without records leaves the manifest at the opening, and at the close.
//! 8. An opening replaces the manifest only if it has found something that the manifest does not
//!    say: then the next opening, after a power loss, must not come to another result. Segments are
//!    created by writes (rule 4 of `sealing`). So an opening without writes costs no sync, and
//!    leaves no more files than before.

use std::sync::{Arc, Mutex, RwLock};

use super::collector::Collector;
use super::counts::Counts;
use super::folder::{StoreFolder, StoreIds};
use super::live::LiveCursor;
use super::lock::StoreLock;
use super::replay::{ReplayOf, ReplayVisitor, Unreadable, replay};
use super::rounds::{Durability, Flushes};
use super::sealing::is_empty;
use super::segment::{FIRST_RECORD, SegmentFile};
use super::tails::{TailSlot, Tails};
use super::{
    DiskStore, EntryPlace, MOST_SEGMENT_BYTES, PlacedRun, StoreEnd, StoreLayout, StoreLimit, StoreOptions,
};
use crate::error::{DiskError, DiskErrorKind};
use crate::format::address::KeyHasher;
use crate::format::record::RecordForm;
use crate::format::store::manifest::{ManifestBody, SegmentRow};
use crate::format::store::record::{RecordKind, SegmentRecord};
use crate::format::store::{Hash40, StorePlace};
use crate::random::random;
use crate::settings::Settings;
use crate::snapshot::Snapshot;
use crate::trust::Site;

/// A segment takes a record at least.
const LEAST_SEGMENT_BYTES: u32 = FIRST_RECORD + 1;
/// A store with a limit in bytes consists of this many segments at least, unless they would be
/// smaller than `LEAST_SHARE_BYTES`.
const SEGMENTS_OF_LIMIT: u64 = 32;
const LEAST_SHARE_BYTES: u32 = 1 << 16;
/// A limit in bytes loses room to the pages of headers, and to the part of a segment that is free
/// after a collection. The sum is least if a segment has the square root of the limit times this
/// many bytes.
const SEGMENT_OVERHEAD: u64 = 16 << 10;

impl DiskStore {
    pub(crate) fn open_at(
        site: &Site,
        settings: &Settings,
        options: StoreOptions,
        now: u64,
    ) -> Result<Self, DiskError> {
        let options = bounded(options);
        let folder = StoreFolder::beside(site, settings)?;
        // Rule 1.
        let (lock, was_missing) = StoreLock::take(&*folder.vfs, &folder.lock_path(), || folder.create())?;
        folder.note_lock(lock.file());
        let base = open_base(site, settings)?.map(Arc::new);
        let base_until = base.as_ref().map_or(0, |base| base.written_until().max(base.saved_at()));
        // Another process may have used the folder before the lock was taken.
        let is_new = was_missing && folder.is_empty();
        let StoreBegin { ids, mut body, mut is_settled } = if is_new {
            StoreBegin { ids: new_ids(&folder)?, body: new_body(base.as_deref()), is_settled: true }
        } else {
            manifest_or_new(&folder, base.as_deref(), now.max(base_until))?
        };
        let now = [now, body.written_until, body.floor, body.dropped_until, base_until];
        let now = now.into_iter().max().unwrap_or(0); // Rule 5.
        let hasher = KeyHasher::new(&ids.hash_seed);
        let mut opening = StoreOpening {
            folder: &folder,
            ids: &ids,
            now,
            visitor: Replaying::new(&hasher, body.cleared_at),
            segments: Vec::new(),
            access: StoreAccess::Owner,
            damaged: 0,
        };
        let before = body.clone();
        let runs = opening.read(&mut body)?;
        let StoreOpening { visitor: Replaying { tails, cleared_at, clear, .. }, mut segments, .. } = opening;
        body.cleared_at = cleared_at;
        let empty = take_empty(&mut body, &mut segments);
        is_settled &= body == before;

        let latest = now.max(body.written_until).max(body.floor);
        let entries = entries_at_most(&body, &tails, base.as_deref());
        let is_only_base = body.segments.iter().all(|row| row.latest == 0);
        let is_whole = body.floor.max(body.dropped_until).max(cleared_at) == 0;
        if !is_new {
            folder.remove_unnamed(&body); // Rule 6.
        }
        if !is_settled {
            // Rule 8.
            body.sequence = body.sequence.saturating_add(1);
            folder.replace_manifest(&ids, &body, now)?;
            folder.settle()?;
        }
        for number in empty {
            folder.remove_segment(number); // Rule 7.
        }
        let layout = StoreLayout {
            segments,
            runs,
            is_base_ours: body.base == base.as_ref().map(|base| base.file_id()),
            base,
            cleared_at: cleared_at.max(body.floor),
            dropped_until: body.dropped_until,
        };
        let mut counts = Counts::new(options.limit, entries, body.next_number);
        counts.set_gone_until(clear);
        if is_only_base && (is_whole || entries == 0) {
            counts.set_counted(entries);
        }
        let store = Self {
            folder,
            ids,
            hasher,
            options,
            lock,
            site: site.clone(),
            end: Mutex::new(StoreEnd {
                segment: None,
                latest,
                cleared_at,
                manifest: body,
                is_floor_owed: false,
                eager_writes: 0,
                durability: Durability::new(latest),
            }),
            layout: RwLock::new(Arc::new(layout)),
            tails: RwLock::new(tails),
            counts: Mutex::new(counts),
            settling: Mutex::default(),
            indexing: Mutex::default(),
            filters: Arc::default(),
            counter: Mutex::new(LiveCursor::new()),
            evictor: Mutex::new(LiveCursor::new()),
            collector: Mutex::new(Collector::new(options.limit, options.segment_bytes)),
            flushes: Flushes::default(),
        };
        store.cold(); // Counts the entries if they are few.
        Ok(store)
    }

    /// Seals and indexes everything, so that the next opening reads nothing but the manifest.
    ///
    /// # Errors
    /// [`Io`](DiskErrorKind::Io) and [`Full`](DiskErrorKind::Full): the next opening reads the
    /// records instead. Nothing is lost.
    pub fn close(self, now: u64) -> Result<(), DiskError> {
        self.folder.refuse_replaced()?;
        let sealed = self.seal_end(now)?;
        while self.index_tails(now)? {}
        let mut end = super::lock(&self.end);
        if end.is_unwritten() {
            self.folder.remove_unused(self.lock.may_be_removed());
            return Ok(());
        }
        if sealed.is_none() && end.manifest.is_clean {
            return Ok(()); // The manifest on the disk says so.
        }
        end.manifest.is_clean = true;
        end.manifest.sequence = end.manifest.sequence.saturating_add(1);
        self.folder.replace_manifest(&self.ids, &end.manifest, now)?;
        self.folder.settle()?;
        if let Some(sealed) = sealed.filter(is_empty) {
            self.folder.remove_segment(sealed.number); // Rule 7.
        }
        Ok(())
    }
}

/// What an opening begins with.
struct StoreBegin {
    ids: StoreIds,
    body: ManifestBody,
    /// Rule 8: the folder says so, or nothing that matters.
    is_settled: bool,
}

/// The options within their bounds.
fn bounded(options: StoreOptions) -> StoreOptions {
    let most = match options.limit {
        StoreLimit::Live => MOST_SEGMENT_BYTES,
        StoreLimit::Bytes(bytes) => {
            let share = bytes.saturating_mul(SEGMENT_OVERHEAD).isqrt().min(bytes / SEGMENTS_OF_LIMIT);
            u32::try_from(share).unwrap_or(u32::MAX).clamp(LEAST_SHARE_BYTES, MOST_SEGMENT_BYTES)
        }
    };
    StoreOptions { segment_bytes: options.segment_bytes.clamp(LEAST_SEGMENT_BYTES, most), ..options }
}

/// How many entries are the latest of their keys, at most.
fn entries_at_most(body: &ManifestBody, tails: &Tails, base: Option<&Snapshot>) -> u64 {
    let indexed = body.segments.iter().filter(|row| body.run_over(row.number).is_some());
    let in_runs: u64 = indexed.map(|row| u64::from(row.entries)).sum();
    let in_base = base.map_or(0, |base| u64::from(base.len()));
    in_runs.saturating_add(tails.entries()).saturating_add(in_base)
}

/// The base; `None` if there is none, or none that this store can use.
fn open_base(site: &Site, settings: &Settings) -> Result<Option<Snapshot>, DiskError> {
    match Snapshot::open_at(site, settings) {
        Err(error) if matches!(error.kind(), DiskErrorKind::Io | DiskErrorKind::NotAFile) => Err(error),
        opened => Ok(opened.unwrap_or(None)),
    }
}

/// Rule 7: takes the empty tails out of a manifest; returns their numbers.
fn take_empty(body: &mut ManifestBody, segments: &mut Vec<Arc<SegmentFile>>) -> Vec<u32> {
    let is_taken = |row: &&SegmentRow| is_empty(row) && body.run_over(row.number).is_none();
    let empty: Vec<u32> = body.segments.iter().filter(is_taken).map(|row| row.number).collect();
    body.segments.retain(|row| !empty.contains(&row.number));
    segments.retain(|segment| !empty.contains(&segment.number));
    empty
}

/// The manifest, or a new one if there is no store. `now`: at least the times in the base.
fn manifest_or_new(folder: &StoreFolder, base: Option<&Snapshot>, now: u64) -> Result<StoreBegin, DiskError> {
    match folder.read_manifest() {
        Ok(Some((ids, body))) => Ok(StoreBegin { ids, body, is_settled: true }),
        Err(error) if error.kind() == &DiskErrorKind::Io => Err(error),
        unusable => {
            folder.refuse_owner_of_manifest()?; // Rule 3.
            // Rule 4.
            let may_have_deleted = unusable.is_err() || folder.has_records()?;
            let dropped_until = if may_have_deleted { now } else { 0 };
            let (ids, body) = (new_ids(folder)?, ManifestBody { dropped_until, ..new_body(base) });
            Ok(StoreBegin { ids, body, is_settled: !may_have_deleted })
        }
    }
}

fn new_ids(folder: &StoreFolder) -> Result<StoreIds, DiskError> {
    let form = RecordForm { has_tag: folder.settings.secret.is_some(), may_compress: true };
    Ok(StoreIds { store_id: random(&folder.path)?, hash_seed: random(&folder.path)?, form })
}

fn new_body(base: Option<&Snapshot>) -> ManifestBody {
    ManifestBody {
        is_clean: false,
        sequence: 0,
        cleared_at: 0,
        floor: 0,
        dropped_until: 0,
        written_until: 0,
        next_number: 1,
        base: base.map(Snapshot::file_id),
        segments: Vec::new(),
        runs: Vec::new(),
    }
}

/// Whether the reading process has the lock of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoreAccess {
    /// It has, and seals what others left open.
    Owner,
    /// It has not: another process may be writing, and nothing is changed.
    Viewer,
}

/// The reading of a store's files.
pub(super) struct StoreOpening<'o> {
    pub(super) folder: &'o StoreFolder,
    pub(super) ids: &'o StoreIds,
    pub(super) now: u64,
    pub(super) visitor: Replaying<'o>,
    pub(super) segments: Vec<Arc<SegmentFile>>,
    pub(super) access: StoreAccess,
    /// How many records, or ranges of records, of the tails are damaged.
    pub(super) damaged: u32,
}

impl StoreOpening<'_> {
    /// Opens all files and reads the tails; changes the manifest to what was found. Returns the
    /// runs, the latest first.
    pub(super) fn read(&mut self, body: &mut ManifestBody) -> Result<Vec<PlacedRun>, DiskError> {
        let mut runs = Vec::new();
        let mut found = Vec::new();
        for row in &body.runs {
            // Rule 3.
            if let Some(run) = self.folder.open_run(self.ids, row)? {
                runs.push(PlacedRun { first_segment: row.first_segment, run: Arc::new(run) });
                found.push(*row);
            }
        }
        runs.reverse();
        body.runs = found;
        let mut floor = body.floor;
        let mut rows = Vec::new();
        for row in &body.segments {
            let Some((segment, boot_id, bytes)) = self.folder.open_segment(self.ids, row)? else {
                // Rule 3.
                floor = floor.max(if row.is_sealed { row.latest } else { self.now.max(row.latest) });
                continue;
            };
            if body.run_over(row.number).is_some() {
                if bytes < u64::from(row.end) {
                    floor = floor.max(row.latest);
                }
                rows.push(*row);
            } else {
                rows.push(self.read_tail(&segment, row, boot_id, bytes, &mut floor)?);
            }
            self.now = rows.last().map_or(self.now, |row| row.latest.max(self.now)); // Rule 5.
            self.segments.push(Arc::new(segment));
        }
        let latest = rows.iter().map(|row| row.latest).max().unwrap_or(0);
        body.written_until = body.written_until.max(latest);
        body.floor = floor;
        body.segments = rows;
        Ok(runs)
    }

    /// Rule 2.
    fn read_tail(
        &mut self,
        segment: &SegmentFile,
        row: &SegmentRow,
        boot_id: [u8; 16],
        bytes: u64,
        floor: &mut u64,
    ) -> Result<SegmentRow, DiskError> {
        let is_same_boot = boot_id != [0; 16] && boot_id == self.folder.vfs.boot_id();
        self.visitor.may_have_eager = false;
        let io_errors = segment.io_errors();
        let replayed =
            replay(segment, bytes, ReplayOf { row, is_same_boot, now: self.now }, &mut self.visitor);
        if self.access == StoreAccess::Owner && segment.io_errors() != io_errors {
            let what =
                "a segment cannot be read; try again, or repair the cache file with the tool `async-cache`";
            return Err(DiskError::new(DiskErrorKind::Io, &self.folder.path, what)); // Rule 3.
        }
        if !self.visitor.may_have_eager && replayed.damaged == 0 {
            segment.set_without_eager();
        }
        *floor = replayed.floor.max(*floor);
        self.damaged = self.damaged.saturating_add(replayed.damaged);
        if !row.is_sealed && self.access == StoreAccess::Owner {
            let synced = segment.file.sync();
            synced.map_err(|error| DiskError::io("syncing a segment", &self.folder.path, error))?;
        }
        let end = if row.is_sealed { row.end } else { replayed.end };
        Ok(SegmentRow { is_sealed: true, end, ..replayed.summary })
    }
}

/// Gathers the tails.
pub(super) struct Replaying<'o> {
    pub(super) hasher: &'o KeyHasher,
    pub(super) tails: Tails,
    pub(super) cleared_at: u64,
    /// The place of the latest clear.
    clear: EntryPlace,
    /// Where the rest of a segment cannot be read.
    pub(super) unreadable: Vec<StorePlace>,
    /// An eager record, or damage, was met since this was set to `false`.
    may_have_eager: bool,
}

impl<'o> Replaying<'o> {
    pub(super) fn new(hasher: &'o KeyHasher, cleared_at: u64) -> Self {
        let (tails, clear) = (Tails::default(), EntryPlace::NONE);
        Self { hasher, tails, cleared_at, clear, unreadable: Vec::new(), may_have_eager: false }
    }
}

impl ReplayVisitor for Replaying<'_> {
    fn record(&mut self, place: StorePlace, record: &SegmentRecord, bytes: &[u8]) {
        match record.kind {
            RecordKind::Clear | RecordKind::Tag => {
                self.cleared_at = self.cleared_at.max(record.times.written_at);
                self.clear = place.into();
            }
            kind if kind.has_slot() => {
                let key = bytes.get(record.key.clone()).unwrap_or_default();
                self.tails.insert(self.hasher.hash(key), TailSlot::new(place, kind.is_entry()));
            }
            kind => self.may_have_eager |= kind.is_eager(),
        }
    }

    fn damaged(&mut self, place: StorePlace, kind: RecordKind, hash: Hash40) {
        self.may_have_eager = true;
        if kind.has_slot() {
            self.tails.insert_damaged(hash, place);
        }
    }

    fn unreadable(&mut self, place: StorePlace, what: Unreadable) {
        self.may_have_eager = true;
        if what == Unreadable::Rest {
            self.unreadable.push(place);
        }
    }
}

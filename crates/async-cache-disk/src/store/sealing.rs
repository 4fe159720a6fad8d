//! From one segment to the next, and from segments to runs (file format, section 19).
//!
//! Rules:
//! 1. A new segment is named by a manifest that is durable in its folder before the segment's
//!    first record is written.
//! 2. A run is durable before the manifest names it; and the manifest, before the run's records
//!    leave the tails.
//! 3. An unfinished step leaves files that no manifest names; the next opening removes them.
//! 4. The first write after the opening begins a segment, and no other step does. From then on the
//!    manifest is not *clean*.
//! 5. The tails are in memory, and an opening after a crash reads them. So they are indexed between
//!    the parts of a long merge, and whenever [`DiskStore::index`] is called. Else, merges come
//!    first: while much is written, there is always a tail.
//! 6. Filters come first of all: making one takes a tenth of the time of merging its run.
//! 7. A segment that the system cannot read now is indexed later: until then, the tails have the
//!    records, and no entry is lost. After [`MOST_ATTEMPTS`], unreadable records are damage.

mod merging;

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;

use super::filter::RunFilter;
use super::replay::{ReplayVisitor, replay_sealed};
use super::run::{IndexRun, write_buckets};
use super::segment::{FIRST_RECORD, SegmentEnd};
use super::{DiskStore, PlacedRun, StoreEnd, lock, write};
use crate::error::{DiskError, DiskErrorKind};
use crate::format::address::KeyHasher;
use crate::format::header_page::HEADER_BYTES;
use crate::format::page::PAGE_BYTES;
use crate::format::store::bucket::{EagerPlaces, RunSlot};
use crate::format::store::header::{KindFields, RunCounts};
use crate::format::store::manifest::{ManifestBody, RunRow, SegmentRow};
use crate::format::store::record::{RecordKind, SegmentRecord};
use crate::format::store::{FILE_NUMBERS, Hash40, StorePlace};
use crate::vfs::{VfsFile, write_all_at};
use merging::{KeysOfHash, SlotKey};

/// A step of the upkeep makes filters of this many buckets, and of a whole run in any case.
const BUCKETS_OF_STEP: u32 = 1 << 16;
/// Rule 7. The attempts of upkeep are as far apart as its flushes, a second.
const MOST_ATTEMPTS: u32 = 10;

impl DiskStore {
    /// Seals the segment, if there is one, and begins another one (rules 1 and 4). The end is
    /// locked.
    pub(super) fn next_segment(&self, end: &mut StoreEnd, now: u64) -> Result<(), DiskError> {
        let number = self.next_number(end)?;
        end.manifest.next_number = number.saturating_add(1);
        let sealed = end.segment.as_mut().map(|segment| sealed_where_sound(segment, now)).transpose();
        let sealed = sealed.map_err(|error| DiskError::io("sealing a segment", &self.folder.path, error))?;
        let segment = Arc::new(self.folder.create_segment(&self.ids, number, now)?);
        let next = SegmentEnd::new(Arc::clone(&segment), self.options.segment_bytes);
        let mut manifest = end.manifest.clone();
        manifest.sequence = manifest.sequence.saturating_add(1);
        manifest.is_clean = false;
        manifest.cleared_at = end.cleared_at;
        if let Some(sealed) = sealed {
            put_sealed(&mut manifest, sealed);
        }
        manifest.segments.push(next.row());
        if let Err(error) = self.folder.replace_manifest(&self.ids, &manifest, now) {
            self.folder.remove_segment(number);
            return Err(error);
        }
        let latest = end.latest;
        if end.has_unsynced() {
            end.durability.failed_unseen(latest);
        } else {
            end.durability.synced(latest);
        }
        end.manifest = manifest;
        end.segment = Some(next);
        let empty = sealed.filter(is_empty).map(|sealed| sealed.number);
        self.change_layout(|layout| {
            layout.segments.retain(|segment| Some(segment.number) != empty);
            layout.segments.push(segment);
        });
        if let Some(empty) = empty.filter(|_| self.folder.sync_manifest().is_ok()) {
            self.folder.remove_segment(empty);
        }
        Ok(())
    }

    fn next_number(&self, end: &StoreEnd) -> Result<u32, DiskError> {
        let number = end.manifest.next_number;
        if number >= FILE_NUMBERS {
            let what = "the store has used all numbers of files; save the cache to a new path";
            return Err(DiskError::new(DiskErrorKind::Limit, &self.folder.path, what));
        }
        Ok(number)
    }

    /// Indexes sealed segments, merges runs, makes filters, counts entries: one step. Returns
    /// whether there is more to do. Call it on a thread that nobody waits for.
    ///
    /// # Errors
    /// [`Io`](DiskErrorKind::Io) and [`Full`](DiskErrorKind::Full): the step is not done, nothing
    /// is lost.
    pub fn maintain(&self, now: u64) -> Result<bool, DiskError> {
        self.refuse_fork()?;
        self.settle_counts();
        let has_indexed = {
            let _indexing = lock(&self.indexing);
            self.filter_runs() || self.merge_or_index(now)? // Rule 6.
        };
        Ok(has_indexed || self.count_step()?)
    }

    /// Rule 5. A merge that fails, each time perhaps, does not keep the tails from their index.
    fn merge_or_index(&self, now: u64) -> Result<bool, DiskError> {
        match self.merge_runs(now) {
            Ok(true) => Ok(true),
            not_merged => Ok(self.index_tails(now)? || not_merged?),
        }
    }

    /// Indexes full segments, and does no other work. Returns whether there were any.
    ///
    /// # Errors
    /// Those of [`maintain`](Self::maintain).
    pub fn index(&self, now: u64) -> Result<bool, DiskError> {
        self.refuse_fork()?;
        let _indexing = lock(&self.indexing);
        self.index_tails(now)
    }

    /// The bytes of full segments that are not indexed yet. Their records are in memory, and an
    /// opening after a crash would read them: if there are many, call [`index`](Self::index).
    pub fn unindexed_bytes(&self) -> u64 {
        let end = lock(&self.end);
        let tails = end.manifest.segments.iter().filter(|row| is_sealed_tail(&end.manifest, row));
        tails.map(|row| u64::from(row.end)).sum()
    }

    /// Makes filters of runs of earlier processes, where they are due.
    fn filter_runs(&self) -> bool {
        let layout = Arc::clone(&super::read(&self.layout));
        let mut buckets = BUCKETS_OF_STEP;
        for run in layout.runs.iter().map(|placed| &placed.run).filter(|run| run.is_filter_due()) {
            if run.make_filter(&self.filters) {
                buckets = buckets.saturating_sub(run.counts.buckets);
            }
            if buckets == 0 {
                break;
            }
        }
        buckets < BUCKETS_OF_STEP
    }

    /// Indexes the first neighbouring sealed segments that no run indexes. Returns whether there
    /// were any.
    pub(super) fn index_tails(&self, now: u64) -> Result<bool, DiskError> {
        let rows = {
            let end = lock(&self.end);
            let is_tail = |row: &&SegmentRow| is_sealed_tail(&end.manifest, row);
            let rest = end.manifest.segments.iter().skip_while(|row| !is_tail(row));
            rest.take_while(is_tail).copied().collect::<Vec<_>>()
        };
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(false) };
        let row = RunRow {
            number: 0,
            level: 0,
            file_id: [0; 16],
            first_segment: first.number,
            last_segment: last.number,
            earliest: rows.iter().map(|row| row.earliest).min().unwrap_or(0),
            latest: rows.iter().map(|row| row.latest).max().unwrap_or(0),
        };
        self.install_rebuilt(row, &rows, now)?;
        Ok(true)
    }

    /// Builds a run from its segments. Damage that the segments did not have before raises the
    /// floor.
    fn install_rebuilt(&self, row: RunRow, rows: &[SegmentRow], now: u64) -> Result<(), DiskError> {
        let (slots, eager, floor) = self.slots_of(rows)?;
        let count = u32::try_from(slots.len()).unwrap_or(u32::MAX);
        let slots = || slots.iter().copied();
        let contents = RunContents { count, slots, is_whole: &|| true, eager: &eager, floor };
        self.install_run(row, contents, now)
    }

    /// Writes a run, names it in place of the runs that it covers, and forgets its records in the
    /// tails (rule 2). `row` lacks number and file id.
    fn install_run<S: Iterator<Item = RunSlot>>(
        &self,
        row: RunRow,
        contents: RunContents<'_, impl FnMut() -> S>,
        now: u64,
    ) -> Result<(), DiskError> {
        let floor = contents.floor;
        let number = {
            let mut end = lock(&self.end);
            let number = self.next_number(&end)?;
            end.manifest.next_number = number.saturating_add(1);
            number
        };
        let run = match self.write_run(number, contents, now) {
            Ok(run) => run,
            Err(error) => {
                self.folder.remove_run(number);
                return Err(error);
            }
        };
        let row = RunRow { number, file_id: run.1, ..row };
        let replaced = self.name_run(Arc::new(run.0), row, floor, now);
        match &replaced {
            // Not durable: the next opening removes what the manifest on the disk does not name.
            Ok(replaced) if replaced.is_empty() || self.folder.sync_manifest().is_err() => {}
            Ok(replaced) => replaced.iter().for_each(|number| self.folder.remove_run(*number)),
            Err(_) => self.folder.remove_run(number),
        }
        replaced.map(drop)
    }

    fn write_run<S: Iterator<Item = RunSlot>>(
        &self,
        number: u32,
        contents: RunContents<'_, impl FnMut() -> S>,
        now: u64,
    ) -> Result<(IndexRun, [u8; 16]), DiskError> {
        let RunContents { count, mut slots, is_whole, eager, .. } = contents;
        let fields = KindFields::Run(RunCounts { slots: count, buckets: 0, eager: 0 });
        let mut header = self.folder.header(&self.ids, number, now, fields)?;
        let seal = self.folder.seal(&header);
        let file = self.folder.create_run(number)?;
        let failed = |error| DiskError::io("writing an index", &self.folder.path, error);
        let start = HEADER_BYTES as u64;
        let written = Cell::new(0u32);
        let filter = RefCell::new(RunFilter::for_slots(count, &self.filters));
        let counted = || {
            written.set(0);
            slots().inspect(|slot| {
                written.set(written.get().saturating_add(1));
                if let Some(filter) = &mut *filter.borrow_mut() {
                    filter.insert(slot.hash);
                }
            })
        };
        let mut pages = PageWriter::new(&*file, start);
        let buckets = write_buckets(count, seal, start, counted, |bucket, page| {
            pages.put(bucket, page).map_err(failed)
        })?;
        pages.write_out().map_err(failed)?;
        let Some(buckets) = buckets else {
            let what = "hundreds of keys have the same hash, and no index holds them";
            return Err(DiskError::new(DiskErrorKind::Limit, &self.folder.path, what));
        };
        if written.get() != count || !is_whole() {
            let what = "an index that is being merged could not be read again";
            return Err(DiskError::new(DiskErrorKind::Io, &self.folder.path, what));
        }
        let eager_count = u32::try_from(eager.0.len()).unwrap_or(u32::MAX);
        let counts = RunCounts { slots: count, buckets, eager: eager_count };
        if eager_count > 0 {
            let offset = counts.eager_section(seal.tag_bytes()).offset;
            write_all_at(&*file, &eager.encode(seal, offset), offset).map_err(failed)?;
        }
        header.fields = KindFields::Run(counts);
        write_all_at(&*file, &header.encode(seal), 0).map_err(failed)?;
        file.sync().map_err(failed)?;
        self.folder.sync()?;
        let run = IndexRun::new(file, number, seal, counts).with_filter(filter.into_inner());
        Ok((run, header.file_id))
    }

    /// Names a run in the manifest. Returns the numbers of the runs that it replaces.
    fn name_run(&self, run: Arc<IndexRun>, row: RunRow, floor: u64, now: u64) -> Result<Vec<u32>, DiskError> {
        let mut end = lock(&self.end);
        let mut manifest = end.manifest.clone();
        manifest.sequence = manifest.sequence.saturating_add(1);
        let is_replaced = |other: &RunRow| row.covers(other.first_segment);
        let replaced: Vec<u32> =
            manifest.runs.iter().filter(|other| is_replaced(other)).map(|other| other.number).collect();
        manifest.runs.retain(|other| !is_replaced(other));
        let (first_segment, last) = (row.first_segment, row.last_segment);
        manifest.runs.push(row);
        manifest.runs.sort_by_key(|row| row.first_segment);
        manifest.floor = manifest.floor.max(floor);
        self.folder.replace_manifest(&self.ids, &manifest, now)?;
        let order: Vec<u32> = manifest.runs.iter().rev().map(|row| row.number).collect();
        end.manifest = manifest;
        self.change_layout(|layout| {
            layout.runs.push(PlacedRun { first_segment, run });
            let place = |placed: &PlacedRun| order.iter().position(|number| *number == placed.run.number);
            layout.runs.retain(|placed| place(placed).is_some());
            layout.runs.sort_by_key(place);
            layout.cleared_at = layout.cleared_at.max(floor);
        });
        drop(end);
        write(&self.tails).remove_until(last);
        Ok(replaced)
    }

    /// The slots of sealed segments, in the order of an index; the places of eager records; and the
    /// floor over what damage hides.
    ///
    /// # Errors
    /// Rule 7.
    fn slots_of(&self, rows: &[SegmentRow]) -> Result<(Vec<RunSlot>, EagerPlaces, u64), DiskError> {
        let layout = Arc::clone(&super::read(&self.layout));
        let mut indexed = Indexed { hasher: &self.hasher, slots: Vec::new(), eager: Vec::new() };
        let mut floor = 0;
        for row in rows {
            let Some(segment) = layout.segment(row.number) else { continue };
            let io_errors = segment.io_errors();
            floor = replay_sealed(segment, row, &mut indexed).floor.max(floor);
            if segment.io_errors() != io_errors && segment.attempt_failed() < MOST_ATTEMPTS {
                let what = "a segment cannot be read, and is not indexed; its entries are not lost";
                return Err(DiskError::new(DiskErrorKind::Io, &self.folder.path, what));
            }
        }
        let Indexed { slots, mut eager, .. } = indexed;
        eager.sort_unstable();
        Ok((in_order_of_an_index(slots), EagerPlaces(eager), floor))
    }
}

/// Sorts the slots, and leaves out those that no look-up needs (rules 1 and 2 of `merging`): no
/// index could hold a key that was written hundreds of times.
fn in_order_of_an_index(mut slots: Vec<SlotOfKey>) -> Vec<RunSlot> {
    slots.sort_unstable_by(|a, b| a.slot.hash.cmp(&b.slot.hash).then(b.slot.place.cmp(&a.slot.place)));
    let mut keys = KeysOfHash::default();
    slots.retain(|SlotOfKey { slot, key }| !keys.is_replaced(slot.hash, *key));
    slots.into_iter().map(|of_key| of_key.slot).collect()
}

/// Seals a segment. A segment is broken when its last digest cannot be written, and when it cannot
/// be synced; then it ends where it is sound.
fn sealed_where_sound(segment: &mut SegmentEnd, now: u64) -> io::Result<SegmentRow> {
    let mut sealed = segment.seal(now);
    for _ in 0..2 {
        sealed = sealed.or_else(|_| segment.seal(now));
    }
    sealed
}

fn is_sealed_tail(manifest: &ManifestBody, row: &SegmentRow) -> bool {
    row.is_sealed && manifest.run_over(row.number).is_none()
}

/// Whether a segment has no records.
pub(super) fn is_empty(row: &SegmentRow) -> bool {
    row.end <= FIRST_RECORD
}

/// Puts the row of a segment that has been sealed in the place of its row as an open segment. A
/// segment without records has no row from then on.
pub(super) fn put_sealed(manifest: &mut ManifestBody, sealed: SegmentRow) {
    manifest.written_until = manifest.written_until.max(sealed.latest);
    manifest.segments.retain(|row| row.number != sealed.number);
    if !is_empty(&sealed) {
        manifest.segments.push(sealed);
    }
}

/// What a new run holds.
pub(super) struct RunContents<'r, S> {
    pub(super) count: u32,
    /// Makes the slots, in the order of an index.
    pub(super) slots: S,
    /// Asked when the slots are written: whether these were all slots.
    pub(super) is_whole: &'r dyn Fn() -> bool,
    pub(super) eager: &'r EagerPlaces,
    /// Entries that are not later do not exist.
    pub(super) floor: u64,
}

/// Writes pages that follow each other together.
struct PageWriter<'f> {
    file: &'f dyn VfsFile,
    /// Where the first page is.
    start: u64,
    pages: Vec<u8>,
    /// The number of the first page in `pages`.
    from: u32,
}

impl<'f> PageWriter<'f> {
    const MOST_BYTES: usize = 1 << 16;

    fn new(file: &'f dyn VfsFile, start: u64) -> Self {
        Self { file, start, pages: Vec::new(), from: 0 }
    }

    fn put(&mut self, number: u32, page: &[u8; PAGE_BYTES]) -> io::Result<()> {
        let held = u32::try_from(self.pages.len() / PAGE_BYTES).unwrap_or(u32::MAX);
        if number != self.from.saturating_add(held) || self.pages.len() >= Self::MOST_BYTES {
            self.write_out()?;
            self.from = number;
        }
        self.pages.extend_from_slice(page);
        Ok(())
    }

    fn write_out(&mut self) -> io::Result<()> {
        let within = u64::from(self.from).saturating_mul(PAGE_BYTES as u64);
        let written = write_all_at(self.file, &self.pages, self.start.saturating_add(within));
        self.pages.clear();
        written
    }
}

/// Collects the slots of a run.
struct Indexed<'h> {
    hasher: &'h KeyHasher,
    slots: Vec<SlotOfKey>,
    eager: Vec<StorePlace>,
}

/// The slot of a record, and its key.
struct SlotOfKey {
    slot: RunSlot,
    key: SlotKey,
}

impl Indexed<'_> {
    fn add(&mut self, place: StorePlace, kind: RecordKind, hash: Hash40, key: SlotKey) {
        if kind.is_eager() {
            self.eager.push(place);
        } else if kind.has_slot() {
            self.slots.push(SlotOfKey { slot: RunSlot { hash, place }, key });
        }
    }
}

impl ReplayVisitor for Indexed<'_> {
    fn record(&mut self, place: StorePlace, record: &SegmentRecord, bytes: &[u8]) {
        let key = self.hasher.hash(bytes.get(record.key.clone()).unwrap_or_default());
        self.add(place, record.kind, Hash40::of(key), SlotKey::Known(key));
    }

    fn damaged(&mut self, place: StorePlace, kind: RecordKind, hash: Hash40) {
        self.add(place, kind, hash, SlotKey::Damaged);
    }
}

//! A store as another process may read it: without its lock, and while a process writes to it.
//!
//! ```text
//! manifest -> base, segments, runs -> tails -> manifest again: the same ----> view
//!    ^                                             |
//!    `------- another one: start over, at most MOST_ATTEMPTS times ----'
//! ```
//!
//! Rules:
//! 1. A view changes nothing: no file is created, written, synced or removed, and no lock is taken.
//! 2. All files are opened, and the tails read, between two readings of the same manifest. So the
//!    files are those of one moment. They stay open: a view shows this moment for as long as it
//!    exists.
//! 3. The base is opened after the manifest. If it is later than the manifest, it was saved after
//!    the manifest was read: then times decide, as after a save of another program.
//! 4. A segment that grows is read up to the length that it had when it was opened. A system makes
//!    a file longer only behind the bytes that it has copied, so this end is behind a record, or
//!    is that of half a record, at the end of a page.
//! 5. Look-ups are those of the store itself, and an entry is shown only if a look-up of its key
//!    finds this very record.

mod entries;
pub(crate) mod list;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use entries::{StoreItem, StoredEntry};
pub use list::FoundStore;
pub use verify::{StoreFinding, StoreFindingKind, StoreReport};

use super::folder::{StoreFolder, StoreIds};
use super::lock::StoreLock;
use super::opening::{Replaying, StoreAccess, StoreOpening};
use super::tails::Tails;
use super::{StoreAnswer, StoreLayout, StoreScratch};
use crate::error::{DiskError, DiskErrorKind};
use crate::format::address::KeyHasher;
use crate::format::store::StorePlace;
use crate::format::store::manifest::{ManifestBody, RunRow, SegmentRow};
use crate::settings::Settings;
use crate::snapshot::Snapshot;
use crate::trust::Site;
use crate::vfs::{LockHolder, Patience};

/// How often a manifest may be replaced while the store is read.
const MOST_ATTEMPTS: u32 = 64;

/// A store at some moment, without its lock. Made by
/// [`CacheFile::store_view`](crate::CacheFile::store_view).
#[derive(Debug)]
pub struct StoreView {
    folder: StoreFolder,
    ids: StoreIds,
    hasher: KeyHasher,
    /// As it is on the disk.
    manifest: ManifestBody,
    /// The latest time of the store and its base, or the time of the view.
    now: u64,
    layout: StoreLayout,
    tails: Tails,
    /// Segments that were opened, as a reader finds them.
    rows: Vec<SegmentRow>,
    /// Where the rest of an open segment cannot be read; the segment ends there.
    unreadable: Vec<StorePlace>,
    damaged: u32,
    floor: u64,
    producer: String,
    base_error: Option<DiskError>,
}

/// A segment of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentFacts {
    /// The number of the file, which ascends with time.
    pub number: u32,
    /// The length up to the last record.
    pub bytes: u32,
    /// Records that are entries, also those that a later record replaces.
    pub entries: u32,
    /// The earliest time of a record, in nanoseconds since the Unix epoch; 0 without records.
    pub earliest: u64,
    /// The latest time of a record; 0 without records.
    pub latest: u64,
    /// The latest deadline; `u64::MAX` if an entry has none.
    pub last_deadline: u64,
    /// Bytes of records that are known to be replaced, deleted or expired.
    pub dead_bytes: u32,
    /// Nothing is appended to the segment any more.
    pub is_sealed: bool,
    /// A run indexes the segment.
    pub is_indexed: bool,
    /// The file is missing, or its header is not that of the segment.
    pub is_lost: bool,
}

/// A run of a store: an index of neighbouring segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunFacts {
    /// The number of the file.
    pub number: u32,
    /// How often runs were merged into this run.
    pub level: u32,
    /// The length of the file; 0 if it is lost.
    pub bytes: u64,
    /// How many records the run names; 0 if it is lost.
    pub slots: u32,
    /// The first segment of the range.
    pub first_segment: u32,
    /// The last segment of the range.
    pub last_segment: u32,
    /// The file is missing, or its header is not that of the run.
    pub is_lost: bool,
}

impl StoreView {
    pub(crate) fn open_at(site: &Site, settings: &Settings, now: u64) -> Result<Option<Self>, DiskError> {
        let folder = StoreFolder::beside(site, settings)?;
        for _ in 0..MOST_ATTEMPTS {
            if !folder.exists()? {
                return Ok(None);
            }
            let Some((ids, manifest)) = folder.read_manifest()? else {
                return folder.refuse_records().map(|()| None);
            };
            let base = Snapshot::open_at(site, settings); // Rule 3.
            let folder = StoreFolder::beside(site, settings)?;
            let producer = folder.labels()?.map(|labels| labels.producer).unwrap_or_default();
            let (base, base_error) = base.map_or_else(|error| (None, Some(error)), |base| (base, None));
            let view = Self::read(folder, ids, manifest, base.map(Arc::new), now)?;
            if view.is_of_this_moment()? {
                return Ok(Some(Self { producer, base_error, ..view }));
            }
        }
        let what = "the process that writes to the store has changed it each time that it was read";
        Err(DiskError::new(DiskErrorKind::Locked, &folder.path, what))
    }

    /// Rule 2.
    fn is_of_this_moment(&self) -> Result<bool, DiskError> {
        let manifest = self.folder.read_manifest()?;
        Ok(manifest.is_some_and(|(ids, body)| ids.store_id == self.ids.store_id && body == self.manifest))
    }

    /// Opens the files of a manifest and reads the tails.
    pub(super) fn read(
        folder: StoreFolder,
        ids: StoreIds,
        manifest: ManifestBody,
        base: Option<Arc<Snapshot>>,
        now: u64,
    ) -> Result<Self, DiskError> {
        let base_until = base.as_ref().map_or(0, |base| base.written_until().max(base.saved_at()));
        let times = [now, manifest.written_until, manifest.floor, manifest.dropped_until, base_until];
        let now = times.into_iter().max().unwrap_or(0);
        let hasher = KeyHasher::new(&ids.hash_seed);
        let mut body = manifest.clone();
        let mut opening = StoreOpening {
            folder: &folder,
            ids: &ids,
            now,
            visitor: Replaying::new(&hasher, body.cleared_at),
            segments: Vec::new(),
            access: StoreAccess::Viewer,
            damaged: 0,
        };
        let runs = opening.read(&mut body)?;
        let StoreOpening { visitor, segments, damaged, now, .. } = opening;
        let Replaying { tails, cleared_at, mut unreadable, .. } = visitor;
        // A sealed segment is found to be the same whenever it is read.
        let is_open = |place: &StorePlace| {
            manifest.segments.iter().any(|row| row.number == place.segment && !row.is_sealed)
        };
        unreadable.retain(is_open);
        let layout = StoreLayout {
            segments,
            runs,
            is_base_ours: body.base == base.as_ref().map(|base| base.file_id()),
            base,
            cleared_at: cleared_at.max(body.floor),
            dropped_until: body.dropped_until,
        };
        let (rows, floor) = (body.segments, body.floor);
        Ok(Self {
            folder,
            ids,
            hasher,
            manifest,
            now,
            layout,
            tails,
            rows,
            unreadable,
            damaged,
            floor,
            producer: String::new(),
            base_error: None,
        })
    }

    /// The same moment, read from the segments alone: as if all runs were lost. Takes 16 bytes of
    /// memory for each key.
    fn without_runs(&self) -> Self {
        let StoreFolder { vfs, path, settings, .. } = &self.folder;
        let hasher = KeyHasher::new(&self.ids.hash_seed);
        let mut replaying = Replaying::new(&hasher, self.layout.cleared_at);
        let (mut damaged, mut floor) = (0u32, self.floor);
        for segment in &self.layout.segments {
            if let Some(replayed) = self.replay(segment, &mut replaying) {
                damaged = damaged.saturating_add(replayed.damaged);
                floor = floor.max(replayed.floor);
            }
        }
        let Replaying { tails, cleared_at, .. } = replaying;
        Self {
            folder: StoreFolder::at(vfs, path.clone(), settings),
            ids: self.ids.clone(),
            manifest: ManifestBody { runs: Vec::new(), ..self.manifest.clone() },
            now: self.now,
            layout: StoreLayout {
                segments: self.layout.segments.clone(),
                runs: Vec::new(),
                base: self.layout.base.clone(),
                is_base_ours: self.layout.is_base_ours,
                cleared_at: cleared_at.max(floor),
                dropped_until: self.layout.dropped_until,
            },
            tails,
            rows: self.rows.clone(),
            unreadable: self.unreadable.clone(),
            hasher,
            damaged,
            floor,
            producer: self.producer.clone(),
            base_error: None,
        }
    }

    /// Looks a key up.
    pub fn find<'s>(&self, key: &[u8], scratch: &'s mut StoreScratch) -> StoreAnswer<'s> {
        let hash = self.hasher.hash(key);
        self.layout.answer(key, hash, self.tails.find(hash), &Patience::unlimited(), scratch)
    }

    /// The folder of the store.
    pub fn folder(&self) -> &Path {
        &self.folder.path
    }

    /// The path of a file of the store, from its kind and number.
    fn path_of(&self, prefix: char, number: u32) -> PathBuf {
        self.folder.path.join(format!("{prefix}{number:06x}"))
    }

    /// The base: the file at the path, if it counts.
    pub fn base(&self) -> Option<&Snapshot> {
        self.layout.base.as_deref()
    }

    /// Why the base could not be opened: then it does not count. `None` also if there is no base.
    pub fn base_error(&self) -> Option<&DiskError> {
        self.base_error.as_ref()
    }

    /// Whether the store was begun over a base, or folded into one.
    pub fn names_base(&self) -> bool {
        self.manifest.base.is_some()
    }

    /// Whether the base is that of the store. Else another program has replaced it, and of an
    /// entry of the base and one of the store the later counts.
    pub fn is_base_ours(&self) -> bool {
        self.layout.is_base_ours
    }

    /// Whether the store was written with a secret.
    pub fn has_mac(&self) -> bool {
        self.ids.form.has_tag
    }

    /// The version tag of the data.
    pub fn version(&self) -> &str {
        self.folder.settings.version.as_deref().unwrap_or_default()
    }

    /// Describes the program that replaced the manifest last.
    pub fn producer(&self) -> &str {
        &self.producer
    }

    /// How often the manifest was replaced.
    pub fn sequence(&self) -> u64 {
        self.manifest.sequence
    }

    /// Whether the last process that wrote to the store has closed it, and no process writes.
    pub fn is_clean(&self) -> bool {
        self.manifest.is_clean
    }

    /// The process that has the store open now, as far as the system tells.
    pub fn writer(&self) -> Option<LockHolder> {
        StoreLock::holder(&*self.folder.vfs, &self.folder.lock_path())
    }

    /// Entries that are not later than this time do not exist, because of damage, or of a delete
    /// that could not be written. In nanoseconds since the Unix epoch; 0: none.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Entries that are not later than this time do not exist: the floor, and the latest clear.
    pub fn cleared_at(&self) -> u64 {
        self.layout.cleared_at
    }

    /// Entries of the base that are not later than this time do not exist.
    pub fn dropped_until(&self) -> u64 {
        self.layout.dropped_until
    }

    /// No write of the store is later; 0 without writes.
    pub fn written_until(&self) -> u64 {
        let latest = self.rows.iter().map(|row| row.latest).max().unwrap_or(0);
        latest.max(self.manifest.written_until)
    }

    /// The bytes of all segments and runs.
    pub fn bytes(&self) -> u64 {
        let segments = self.segments().map(|segment| u64::from(segment.bytes));
        let runs = self.runs().map(|run| run.bytes);
        segments.chain(runs).fold(0, u64::saturating_add)
    }

    /// How many reads have failed with an error of the system.
    pub(super) fn io_errors(&self) -> u64 {
        self.layout.io_errors()
    }

    /// How many records of the tails, or ranges of records, are damaged.
    pub fn damaged_tails(&self) -> u32 {
        self.damaged
    }

    /// The store has this many entries at most: a key counts once for each of its records.
    pub fn most_entries(&self) -> u64 {
        let base = self.base().map_or(0, |base| u64::from(base.len()));
        self.segments().fold(base, |sum, segment| sum.saturating_add(segment.entries.into()))
    }

    /// The segments, in the order of their places.
    pub fn segments(&self) -> impl Iterator<Item = SegmentFacts> {
        self.manifest.segments.iter().map(|named| {
            let index = self.rows.binary_search_by_key(&named.number, |row| row.number);
            let found = index.ok().and_then(|index| self.rows.get(index));
            let row = found.unwrap_or(named);
            let SegmentRow { number, end: bytes, entries, earliest, latest, .. } = *row;
            SegmentFacts {
                number,
                bytes: if found.is_some() { bytes } else { 0 },
                entries: if found.is_some() { entries } else { 0 },
                earliest,
                latest,
                last_deadline: row.last_deadline,
                dead_bytes: row.dead_bytes,
                is_sealed: named.is_sealed,
                is_indexed: self.manifest.run_over(number).is_some(),
                is_lost: found.is_none(),
            }
        })
    }

    /// The runs, in the order of their ranges.
    pub fn runs(&self) -> impl Iterator<Item = RunFacts> {
        self.manifest.runs.iter().map(|row| {
            let RunRow { number, level, first_segment, last_segment, .. } = *row;
            let found = self.layout.runs.iter().find(|placed| placed.run.number == number);
            let counts = found.map(|placed| placed.run.counts).unwrap_or_default();
            let bytes = counts.eager_section(self.ids.form.tag_bytes()).end();
            RunFacts {
                number,
                level,
                bytes: if found.is_some() { bytes } else { 0 },
                slots: counts.slots,
                first_segment,
                last_segment,
                is_lost: found.is_none(),
            }
        })
    }
}

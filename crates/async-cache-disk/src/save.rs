//! A save of a whole cache, step by step. Each step is a separate type, so that the compiler keeps
//! the order; `merge` decides how two files become one.
//!
//! States:
//! 1. [`Save`]: a save that merges holds the lock, and has opened the file at the path, *theirs*.
//! 2. [`Joining`]: the temporary file exists. If [`Joining::is_needed`], the save names every entry
//!    in memory ([`Joining::note`]). [`Joining::join`] copies the winning entries of theirs.
//! 3. [`Output`]: the entries of this process, *ours*, are written, coldest first.
//! 4. [`Filling`]: all of ours are written. Entries of theirs passed over for lack of room follow,
//!    as far as there is room after all.
//! 5. [`FinishedSave`]: the file is in place, and the lock is released.
//!
//! A save that replaces the file goes through the same states: there are no entries of theirs, and
//! no entry of ours is left out. If a save is dropped in any state before the last, it has changed
//! nothing, and has released the lock.
//!
//! | step | merges | replaces |
//! |---|---|---|
//! | [`CacheFile::begin`](crate::CacheFile::begin) | takes the lock, opens theirs | |
//! | [`Save::write`] | creates the temporary file, joins both sides' tombstones | creates the temporary file |
//! | [`Joining::join`] | copies theirs | |
//! | [`Output::push`], [`Output::carry`] | write an entry, unless it is superseded | write an entry |
//! | [`Output::fill`] | copies theirs that fit after all | |
//! | [`Filling::finish`] | rename, and records of deletes | rename |

use std::fmt;
use std::time::Duration;

use crate::error::{DiskError, DiskErrorKind};
use crate::format::record::Times;
use crate::locked::LockedFile;
use crate::merge::{Known, Merge, Merged, Ours};
use crate::settings::Settings;
use crate::snapshot::{Record, Snapshot};
use crate::tombstones::{KeyKind, Tombstones};
use crate::trust::Site;
use crate::writer::{SavedFile, WriteOptions, Writer};

/// A save that has begun. Made by [`CacheFile::begin`](crate::CacheFile::begin).
#[derive(Debug)]
pub struct Save(Begun);

#[derive(Debug)]
enum Begun {
    Replacing(Site, Settings),
    Merging {
        theirs: Option<Snapshot>,
        /// Why the file at the path is not joined, if there is a file.
        refusal: Option<DiskError>,
        file: LockedFile,
    },
}

impl Save {
    pub(crate) fn begin(site: Site, settings: Settings, merge: Option<Duration>) -> Result<Self, DiskError> {
        let Some(limit) = merge else { return Ok(Self(Begun::Replacing(site, settings))) };
        let file = LockedFile::take(site, settings, limit)?;
        let (theirs, refusal) = match file.open() {
            Ok(theirs) => (theirs, None),
            Err(error) => match error.kind() {
                DiskErrorKind::Io | DiskErrorKind::NotAFile => return Err(error),
                _ => (None, Some(error)),
            },
        };
        Ok(Self(Begun::Merging { theirs, refusal, file }))
    }

    /// Whether the save merges.
    pub fn merges(&self) -> bool {
        matches!(self.0, Begun::Merging { .. })
    }

    /// The file to be merged with, if any.
    pub fn theirs(&self) -> Option<&Snapshot> {
        match &self.0 {
            Begun::Merging { theirs, .. } => theirs.as_ref(),
            Begun::Replacing(..) => None,
        }
    }

    /// Why the file at the path will not be merged, if there is a file. The save replaces the file,
    /// or sets it aside.
    pub fn refusal(&self) -> Option<&DiskError> {
        match &self.0 {
            Begun::Merging { refusal, .. } => refusal.as_ref(),
            Begun::Replacing(..) => None,
        }
    }

    /// Creates the temporary file. `known` is the deletes of this process, and the facts learned by
    /// its last save; unused by a save without merging. `cold_in` is the snapshot whose cold
    /// entries will be [carried](Output::carry) over.
    ///
    /// # Errors
    /// Those of [`CacheFile::write`](crate::CacheFile::write).
    pub fn write(
        self,
        options: WriteOptions,
        known: Known,
        cold_in: Option<&Snapshot>,
    ) -> Result<Joining, DiskError> {
        let now = options.saved_at;
        let (mut writer, merge, lock) = match self.0 {
            Begun::Replacing(site, settings) => (Writer::create(&site, &settings, options)?, None, None),
            Begun::Merging { theirs, file, .. } => {
                let writer = file.write(options)?;
                let merge = Merge::new(theirs, known, now, file.path())?;
                (writer, Some(Box::new(merge)), Some(file))
            }
        };
        writer.carry_from(cold_in);
        Ok(Joining(Parts { writer, merge, lock }))
    }
}

/// The common parts of the later states. Dropped in this order: the temporary file is removed
/// before the lock is released.
struct Parts {
    writer: Writer,
    /// `None`: the save replaces.
    merge: Option<Box<Merge>>,
    lock: Option<LockedFile>,
}

impl Parts {
    fn theirs(&self) -> Option<&Snapshot> {
        self.merge.as_ref()?.theirs()
    }

    fn is_deleted(&self, kind: KeyKind, key: &[u8], written_at: u64) -> bool {
        let merge = self.merge.as_ref();
        merge.is_some_and(|merge| merge.tombstones().covers(kind, key, written_at))
    }

    fn leave_out(&mut self, kind: KeyKind, key: &[u8], written_at: u64) -> bool {
        let merge = self.merge.as_mut();
        merge.is_none_or(|merge| merge.leave_out_ours(kind, key, written_at))
    }

    fn copy_eager(&mut self, record: &Record<'_>) -> Result<(), DiskError> {
        match &mut self.merge {
            Some(merge) => merge.copy_eager(&mut self.writer, record),
            None => self.writer.copy_eager(record),
        }
    }

    fn debug(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        f.debug_struct(name)
            .field("writer", &self.writer)
            .field("merges", &self.merge.is_some())
            .finish_non_exhaustive()
    }
}

/// A save with a temporary file, before its first record.
pub struct Joining(Parts);

impl Joining {
    /// Whether the file at the path may have entries unknown to this process. If so, every entry in
    /// memory must be [noted](Self::note) before [`join`](Self::join).
    pub fn is_needed(&self) -> bool {
        self.0.merge.as_ref().is_some_and(|merge| merge.is_needed())
    }

    /// The other file of the merge, if any.
    pub fn theirs(&self) -> Option<&Snapshot> {
        self.0.theirs()
    }

    /// The deletes of both sides. `None` if the save replaces.
    pub fn tombstones(&self) -> Option<&Tombstones> {
        self.0.merge.as_ref().map(|merge| merge.tombstones())
    }

    /// Whether an entry with these bytes as its key was deleted since its writing.
    pub fn is_deleted(&self, kind: KeyKind, key: &[u8], written_at: u64) -> bool {
        self.0.is_deleted(kind, key, written_at)
    }

    /// Records an entry in memory; `written_at` is zero if the time is unknown.
    pub fn note(&mut self, key: &[u8], written_at: u64) {
        if let Some(merge) = &mut self.0.merge {
            merge.note(key, written_at);
        }
    }

    /// Copies the winning entries of theirs, as far as there is room and their values are allowed.
    ///
    /// # Errors
    /// Those of [`Writer::copy`].
    pub fn join(self, ours: &Ours<'_>) -> Result<Output, DiskError> {
        let Self(mut parts) = self;
        if let Some(merge) = &mut parts.merge {
            merge.copy_theirs(&mut parts.writer, ours)?;
        }
        Ok(Output(parts))
    }
}

impl fmt::Debug for Joining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug(f, "Joining")
    }
}

/// The outcome for an entry of this process.
#[derive(Debug)]
#[must_use]
pub enum Pushed {
    /// The entry is in the file.
    Written,
    /// The entry is left out: a later write or a delete of its key is known, or another process may
    /// have deleted the entry. [`Merged::left_out`] counts the latter.
    Superseded,
    /// The entry is left out, because its size is beyond the format. Older copies in further
    /// processes will be left out as well.
    TooLarge(DiskError),
}

/// A save during the writing of its own entries, the coldest first.
pub struct Output(Parts);

impl Output {
    /// Whether the save merges.
    pub fn merges(&self) -> bool {
        self.0.merge.is_some()
    }

    /// The other file of the merge, if any.
    pub fn theirs(&self) -> Option<&Snapshot> {
        self.0.theirs()
    }

    /// Writes an entry. If the entry has replaced an older, copied entry of theirs, the copy is
    /// taken back. Only a merging save writes times of writing.
    ///
    /// # Errors
    /// Those of [`Writer::push`] but [`Limit`](DiskErrorKind::Limit): the save is over.
    pub fn push(&mut self, key: &[u8], value: &[u8], times: Times) -> Result<Pushed, DiskError> {
        let times = self.times(times);
        let Parts { writer, merge, .. } = &mut self.0;
        let written_at = times.written_at.unwrap_or(0);
        if merge.as_mut().is_some_and(|merge| !merge.admits(writer, key, written_at)) {
            return Ok(Pushed::Superseded);
        }
        let pushed = writer.push(key, value, times).map(drop);
        self.pushed(pushed, KeyKind::Canonical, key, written_at)
    }

    /// Writes an eager entry: an entry whose key only its program can compare. The caller must
    /// first check whether the entry is deleted or superseded.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_eager(&mut self, key: &[u8], value: &[u8], times: Times) -> Result<Pushed, DiskError> {
        let times = self.times(times);
        let pushed = self.0.writer.push_eager(key, value, times);
        self.pushed(pushed, KeyKind::Eager, key, times.written_at.unwrap_or(0))
    }

    /// Copies a cold entry with its bytes in the snapshot given to [`Save::write`]. The entry keeps
    /// its rank in [`FinishedSave::successor`].
    ///
    /// # Errors
    /// As [`push`](Self::push), and [`Limit`](DiskErrorKind::Limit).
    pub fn carry(&mut self, record: &Record<'_>) -> Result<Pushed, DiskError> {
        let Parts { writer, merge, .. } = &mut self.0;
        let written_at = record.written_at.unwrap_or(0);
        if merge.as_mut().is_some_and(|merge| !merge.admits(writer, record.key, written_at)) {
            return Ok(Pushed::Superseded);
        }
        writer.carry(record).map(|_| Pushed::Written)
    }

    /// Copies an eager record of another program, unless its exact bytes were deleted.
    ///
    /// # Errors
    /// Those of [`Writer::copy_eager`].
    pub fn pass_on_eager(&mut self, record: &Record<'_>) -> Result<Pushed, DiskError> {
        if self.is_deleted(KeyKind::Eager, record.key, record.written_at.unwrap_or(0)) {
            return Ok(Pushed::Superseded);
        }
        self.0.writer.copy_eager(record).map(|()| Pushed::Written)
    }

    /// Records an entry of this process without writing it, because it has expired or its value
    /// cannot be encoded. The entry still supersedes older copies of others, so they will be left
    /// out. Returns whether the entry would have been written otherwise.
    pub fn leave_out(&mut self, kind: KeyKind, key: &[u8], written_at: u64) -> bool {
        self.0.leave_out(kind, key, written_at)
    }

    /// Whether an entry with these bytes as its key was deleted since its writing. Of an eager key,
    /// only its program can say more.
    pub fn is_deleted(&self, kind: KeyKind, key: &[u8], written_at: u64) -> bool {
        self.0.is_deleted(kind, key, written_at)
    }

    /// Whether this process may have deleted a missing entry of theirs. If so, the entry is
    /// counted in [`Merged::unsure`].
    pub fn may_have_deleted(&mut self, written_at: u64) -> bool {
        self.0.merge.as_mut().is_some_and(|merge| merge.may_have_deleted(written_at))
    }

    /// Whether others may have deleted an entry of this process, which their file lacks.
    pub fn may_have_been_deleted(&self, written_at: u64) -> bool {
        self.0.merge.as_ref().is_some_and(|merge| merge.may_have_been_deleted(written_at))
    }

    /// Whether an earlier save left an eager entry out as superseded.
    pub fn is_superseded(&self, key: &[u8], written_at: u64) -> bool {
        self.0.merge.as_ref().is_some_and(|merge| merge.is_superseded(key, written_at))
    }

    /// Records an eager entry of this process as replaced by a later write or a delete.
    pub fn record_superseded(&mut self, key: &[u8], written_at: u64) {
        if let Some(merge) = &mut self.0.merge {
            merge.record_superseded(key, written_at);
        }
    }

    /// Records an entry of this process as left out because others may have deleted it.
    pub fn leave_out_unsure(&mut self, kind: KeyKind, key: &[u8], written_at: u64) {
        if let Some(merge) = &mut self.0.merge {
            merge.leave_out_unsure(kind, key, written_at);
        }
    }

    /// The number of eager records of theirs for which there is room, as far as known before the
    /// entries of this process are written. Eager records are colder than all other entries.
    pub fn room_for_eager(&self) -> usize {
        self.0.merge.as_ref().map_or(0, |merge| merge.room_for_eager())
    }

    /// Copies an eager record of theirs, absent from memory.
    ///
    /// # Errors
    /// Those of [`Writer::copy_eager`].
    pub fn copy_eager(&mut self, record: &Record<'_>) -> Result<(), DiskError> {
        self.0.copy_eager(record)
    }

    /// Called when all entries of this process are written: copies as many of the passed-over
    /// entries of theirs as there is room for, and drops the rest.
    ///
    /// # Errors
    /// Those of [`Writer::copy`].
    pub fn fill(self) -> Result<Filling, DiskError> {
        let Self(mut parts) = self;
        if let Some(merge) = &mut parts.merge {
            merge.fill(&mut parts.writer)?;
        }
        Ok(Filling(parts))
    }

    /// [`fill`](Self::fill) and [`Filling::finish`].
    ///
    /// # Errors
    /// The errors of both.
    pub fn finish(self) -> Result<FinishedSave, DiskError> {
        self.fill()?.finish()
    }

    fn times(&self, times: Times) -> Times {
        let written_at = self.merges().then(|| times.written_at.unwrap_or(0));
        Times { written_at, ..times }
    }

    fn pushed(
        &mut self,
        pushed: Result<(), DiskError>,
        kind: KeyKind,
        key: &[u8],
        written_at: u64,
    ) -> Result<Pushed, DiskError> {
        match pushed {
            Ok(()) => Ok(Pushed::Written),
            Err(error) if *error.kind() == DiskErrorKind::Limit => {
                self.leave_out(kind, key, written_at);
                Ok(Pushed::TooLarge(error))
            }
            Err(error) => Err(error),
        }
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug(f, "Output")
    }
}

/// A save after all entries of its process are written.
pub struct Filling(Parts);

impl Filling {
    /// How many more entries there is room for, within the `maxsize` of [`Ours`].
    pub fn room_left(&self) -> usize {
        let Parts { writer, merge, .. } = &self.0;
        merge.as_ref().map_or(usize::MAX, |merge| merge.room_left(writer))
    }

    /// Counts winning eager records of theirs without room.
    pub fn drop_eager(&mut self, count: usize) {
        if let Some(merge) = &mut self.0.merge {
            merge.drop_eager(count);
        }
    }

    /// As [`Output::copy_eager`].
    ///
    /// # Errors
    /// Those of [`Writer::copy_eager`].
    pub fn copy_eager(&mut self, record: &Record<'_>) -> Result<(), DiskError> {
        self.0.copy_eager(record)
    }

    /// As [`Output::leave_out`].
    pub fn leave_out(&mut self, kind: KeyKind, key: &[u8], written_at: u64) -> bool {
        self.0.leave_out(kind, key, written_at)
    }

    /// Puts the file in place, durably, and releases the lock.
    ///
    /// # Errors
    /// Those of [`Writer::finish`]; and [`Io`](DiskErrorKind::Io) if a part of theirs could not be
    /// read, because its entries would be lost. (Damaged entries of theirs are lost anyway.)
    pub fn finish(self) -> Result<FinishedSave, DiskError> {
        let Self(Parts { mut writer, merge, lock }) = self;
        let Some(merge) = merge else {
            let (saved, successor) = writer.finish_and_open()?;
            return Ok(FinishedSave { saved, successor, merged: None });
        };
        let ending = merge.end(&mut writer)?;
        let (saved, successor) = writer.finish_and_open()?;
        drop(lock);
        let merged = Some(ending.merged(&saved));
        Ok(FinishedSave { saved, successor, merged })
    }
}

impl fmt::Debug for Filling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug(f, "Filling")
    }
}

/// The result of a save.
#[derive(Debug)]
#[non_exhaustive]
pub struct FinishedSave {
    /// The file.
    pub saved: SavedFile,
    /// The new file, in which the entries that were [carried](Output::carry) over have their old
    /// ranks; see [`Writer::finish_and_open`] for saves without a successor.
    pub successor: Option<Snapshot>,
    /// The result of the merge, if the save merged.
    pub merged: Option<Merged>,
}

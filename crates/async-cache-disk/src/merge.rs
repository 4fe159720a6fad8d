//! Merging the file at a path with the entries of a process: for every key the last write wins
//! (file format, section 10). *Ours* are the entries of the process that saves, *theirs* the
//! entries of the file. `save` has the steps in their order; this module has the decisions.
//!
//! Rules:
//! 1. At equal times an entry loses to a tombstone, and theirs to ours.
//! 2. An entry of theirs that is not copied (expired, or with a value that this process refuses)
//!    still supersedes an older entry of ours.
//! 3. An entry that only one side has, and that is not later than a floor, may have been deleted.
//!    An entry of theirs is left out if deletes of this process were forgotten, an entry of ours if
//!    deletes of others were ([`Learned`]). Both are counted.
//! 4. An entry of ours that was superseded once stays superseded ([`Learned`]).
//! 5. Theirs are older in the order of use than all of ours. Only entries that are written take
//!    room. Over `maxsize` entries of theirs are left out first, the coldest before the others. The
//!    entries of ours that will be written are counted before theirs are copied. They may turn out
//!    to be fewer, because an entry expires or has a value that cannot be written. Then as many
//!    more of theirs as there is room for follow at the end of the file.
//! 6. If an entry wins and is not written, its key is recorded as overwritten: older copies in
//!    other processes must not come back.
//!
//! Keys of ours in memory are known by a 128-bit hash with a random key, 48 bytes an entry. Cold
//! keys are looked up.
//!
//! An example of rules 2 and 6. Ours has `a`, written at 5; theirs has `a`, written at 7, as a
//! pickle that this process refuses. Neither is written. The file records that `a` was overwritten
//! at 6, so that no third process brings a copy from 5 or 6 back. A process that still has the
//! write of 7 in memory may save it.
// Only counts of records are added up, which are 32 bits wide in a file.
#![allow(clippy::arithmetic_side_effects)]

mod learned;
mod theirs;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::path::Path;

use crate::error::DiskError;
use crate::snapshot::{Record, Scratch, Snapshot};
use crate::tombstones::{KeyKind, Tombstones};
use crate::writer::{RecordNumber, SavedFile, Writer};

pub use learned::Learned;
use learned::{Others, Superseded};
use theirs::Wanted;

/// The knowledge of a process about to save.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The deletes since its last save.
    pub tombstones: Tombstones,
    /// The facts learned by its last save: [`Merged::learned`].
    pub learned: Learned,
}

/// The entries of the process that saves, as far as a merge must know them.
pub struct Ours<'o> {
    /// How many entries the file may have.
    pub maxsize: Option<usize>,
    /// How many eager entries the process has, if eager entries count for `maxsize`.
    pub eager: Option<usize>,
    /// The cold entries.
    pub cold: Option<ColdEntries<'o>>,
    /// Whether a value of theirs may be copied.
    pub allows: &'o dyn Fn(&[u8]) -> bool,
}

impl fmt::Debug for Ours<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ours")
            .field("maxsize", &self.maxsize)
            .field("eager", &self.eager)
            .field("cold", &self.cold)
            .finish_non_exhaustive()
    }
}

/// The cold entries of the process that saves.
pub struct ColdEntries<'c> {
    /// Their snapshot.
    pub snapshot: &'c Snapshot,
    /// Whether the entry of a rank is cold.
    pub contains: &'c dyn Fn(u32) -> bool,
}

impl fmt::Debug for ColdEntries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ColdEntries").field("snapshot", &self.snapshot).finish_non_exhaustive()
    }
}

/// The result of a merge.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Merged {
    /// How many entries of the file were copied from theirs.
    pub copied: u64,
    /// How many entries of theirs were not copied because their values are not allowed.
    pub refused: u64,
    /// How many entries of theirs were not copied because there was no room within `maxsize`.
    pub dropped: u64,
    /// How many entries of theirs were not copied because this process may have deleted them: it
    /// has deleted more than it remembers.
    pub unsure: u64,
    /// How many entries of this process were not written because others may have deleted them: the
    /// file has forgotten which entries those were.
    pub left_out: u64,
    /// How many entries theirs had, live or expired, without eager entries.
    pub found: u64,
    /// For the next save: [`Known::learned`].
    pub learned: Learned,
    /// The deletes of this process that are in the file now.
    pub tombstones: Tombstones,
}

/// A merge under way.
pub(crate) struct Merge {
    theirs: Option<Snapshot>,
    /// The present, by the file's clock.
    now: u64,
    /// The deletes known to theirs.
    their_tombstones: Tombstones,
    our_tombstones: Tombstones,
    /// Of both.
    tombstones: Tombstones,
    is_needed: bool,
    learned: Learned,
    /// The deletes of further processes, as far as theirs may have seen them.
    others: Others,
    /// Entries of ours that are superseded now.
    superseded: Superseded,
    /// Our entries in memory.
    ours: HashMap<u128, OurEntry>,
    /// Keys of which both sides have an entry and theirs is later: the time of their entry, and its
    /// record, if the entry was copied.
    later: HashMap<u128, (u64, Option<RecordNumber>)>,
    /// Keys that were in `later` until ours was written anew during the save.
    overtaken: HashSet<u128>,
    wanted: Wanted,
    maxsize: Option<usize>,
    /// How many eager entries this process has, if eager entries count for `maxsize`.
    eager: Option<usize>,
    /// How many eager entries of theirs there is room for, as estimated before ours are written.
    room_for_eager: usize,
    copied: u64,
    refused: u64,
    dropped: u64,
    unsure: u64,
    left_out: u64,
    scratch: Scratch,
}

/// An entry of ours in memory.
#[derive(Debug, Clone, Copy)]
struct OurEntry {
    written_at: u64,
    /// Unless theirs is later.
    is_written: bool,
}

/// The decision on an entry of ours, apart from later entries of theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Written,
    /// Deleted, or a later write of its key is known.
    Superseded,
    /// Possibly deleted by others.
    Unsure,
}

impl Merge {
    /// Joins the tombstones of both sides. Errors name `path`.
    ///
    /// # Errors
    /// [`Io`](crate::DiskErrorKind::Io) if the system gives no random bytes.
    pub(crate) fn new(
        theirs: Option<Snapshot>,
        known: Known,
        now: u64,
        path: &Path,
    ) -> Result<Self, DiskError> {
        let Known { tombstones: our_tombstones, learned } = known;
        let their_tombstones = theirs.as_ref().map(Snapshot::tombstones).unwrap_or_default();
        let mut tombstones = their_tombstones.clone();
        tombstones.join(&our_tombstones);
        let superseded = match learned.superseded().emptied() {
            Some(emptied) => emptied,
            None => Superseded::random(path)?,
        };
        let mut others = Others::default();
        if let Some(theirs) = &theirs {
            others = learned.others(theirs, &their_tombstones);
        }
        let is_needed = theirs.as_ref().is_some_and(|theirs| Some(theirs.file_id()) != learned.holds());
        Ok(Self {
            theirs,
            now,
            their_tombstones,
            our_tombstones,
            tombstones,
            is_needed,
            learned,
            others,
            superseded,
            ours: HashMap::new(),
            later: HashMap::new(),
            overtaken: HashSet::new(),
            wanted: Wanted::default(),
            maxsize: None,
            eager: None,
            room_for_eager: usize::MAX,
            copied: 0,
            refused: 0,
            dropped: 0,
            unsure: 0,
            left_out: 0,
            scratch: Scratch::new(),
        })
    }

    pub(crate) fn theirs(&self) -> Option<&Snapshot> {
        self.theirs.as_ref()
    }

    pub(crate) fn is_needed(&self) -> bool {
        self.is_needed
    }

    /// The deletes of both sides.
    pub(crate) fn tombstones(&self) -> &Tombstones {
        &self.tombstones
    }

    /// Records that an entry is in memory; `written_at` is zero if the time is not known.
    pub(crate) fn note(&mut self, key: &[u8], written_at: u64) {
        let is_written = self.decide(key, written_at) == Decision::Written;
        let hash = self.hash(key);
        self.ours.insert(hash, OurEntry { written_at, is_written });
    }

    /// The decision on an entry of ours, if theirs is not later.
    fn decide(&mut self, key: &[u8], written_at: u64) -> Decision {
        let hash = self.hash(key);
        if self.tombstones.covers(KeyKind::Canonical, key, written_at)
            || self.learned.superseded().contains(hash, written_at) // Rule 4
            || self.superseded.contains(hash, written_at)
        {
            Decision::Superseded
        } else if self.may_have_been_deleted(written_at) && !self.is_in_theirs(key) {
            Decision::Unsure // Rule 3
        } else {
            Decision::Written
        }
    }

    fn is_in_theirs(&mut self, key: &[u8]) -> bool {
        self.theirs.as_ref().is_some_and(|theirs| theirs.locate(key, &mut self.scratch).is_some())
    }

    /// Whether an entry of ours is to be written; `written_at` is zero if the time is not known. An
    /// older, copied entry of theirs is taken back.
    pub(crate) fn admits(&mut self, writer: &mut Writer, key: &[u8], written_at: u64) -> bool {
        let hash = self.hash(key);
        match self.decide(key, written_at) {
            Decision::Written => {}
            Decision::Superseded => {
                self.superseded.insert(hash, written_at); // Rule 4
                return false;
            }
            Decision::Unsure => {
                self.leave_out_unsure(KeyKind::Canonical, key, written_at);
                return false;
            }
        }
        match self.later.get(&hash) {
            Some((theirs, _)) if *theirs >= written_at => {
                self.superseded.insert(hash, written_at); // Rule 4
                false
            }
            Some((_, copy)) => {
                if let Some(copy) = *copy {
                    writer.forget(copy);
                    self.copied -= 1;
                }
                self.later.remove(&hash);
                self.overtaken.insert(hash);
                true
            }
            None => true,
        }
    }

    /// Whether this process may have deleted an entry of theirs, which it lacks. If so, the entry
    /// is counted.
    pub(crate) fn may_have_deleted(&mut self, written_at: u64) -> bool {
        let may_have = self.our_tombstones.may_cover(written_at); // Rule 3
        self.unsure += u64::from(may_have);
        may_have
    }

    /// Whether others may have deleted an entry of this process that is not in theirs.
    pub(crate) fn may_have_been_deleted(&self, written_at: u64) -> bool {
        self.others.forgotten != 0 && written_at <= self.others.forgotten // Rule 3
    }

    /// Whether an earlier save left an eager entry of ours out as superseded.
    pub(crate) fn is_superseded(&self, key: &[u8], written_at: u64) -> bool {
        let hash = self.superseded.hash(KeyKind::Eager, key);
        self.learned.superseded().contains(hash, written_at)
    }

    /// Records that a later write or a delete has replaced an eager entry of ours.
    pub(crate) fn record_superseded(&mut self, key: &[u8], written_at: u64) {
        let hash = self.superseded.hash(KeyKind::Eager, key);
        self.superseded.insert(hash, written_at);
    }

    /// Records and counts an entry of ours that is not written because others may have deleted it.
    pub(crate) fn leave_out_unsure(&mut self, kind: KeyKind, key: &[u8], written_at: u64) {
        self.left_out += 1;
        self.tombstones.add_overwrite(kind, key, written_at.saturating_sub(1)); // Rule 6
    }

    /// Records that an entry of ours is not written, because it has expired or cannot be written.
    /// Older copies of its key, in any process, must not be saved again. Returns whether the entry
    /// would have been written otherwise.
    pub(crate) fn leave_out_ours(&mut self, kind: KeyKind, key: &[u8], written_at: u64) -> bool {
        if kind == KeyKind::Canonical {
            let hash = self.hash(key);
            let is_later = self.later.get(&hash).is_some_and(|(theirs, _)| *theirs >= written_at);
            if is_later || self.decide(key, written_at) == Decision::Superseded {
                self.superseded.insert(hash, written_at);
                return false;
            }
        }
        self.tombstones.add_overwrite(kind, key, written_at.saturating_sub(1)); // Rule 6
        true
    }

    pub(crate) fn room_for_eager(&self) -> usize {
        self.room_for_eager
    }

    /// How many more entries there is room for.
    pub(crate) fn room_left(&self, writer: &Writer) -> usize {
        let eager = self.eager.map_or(0, |_| writer.eager_len());
        let written = writer.len().saturating_add(eager);
        self.maxsize.map_or(usize::MAX, |maxsize| maxsize.saturating_sub(written))
    }

    /// Counts eager records of theirs that win and that there is no room for.
    pub(crate) fn drop_eager(&mut self, count: usize) {
        self.dropped += count as u64;
    }

    /// Copies an eager record of theirs that is not in memory.
    pub(crate) fn copy_eager(&mut self, writer: &mut Writer, record: &Record<'_>) -> Result<(), DiskError> {
        writer.copy_eager(record)?;
        self.copied += 1;
        Ok(())
    }

    /// All entries are written: gives the writer the tombstones of the file.
    ///
    /// # Errors
    /// [`Io`](crate::DiskErrorKind::Io) if a part of theirs could not be read.
    pub(crate) fn end(mut self: Box<Self>, writer: &mut Writer) -> Result<CompleteMerge, DiskError> {
        if let Some(theirs) = &self.theirs
            && theirs.damage().io_errors > 0
        {
            let error = io::Error::other("a read failed");
            return Err(DiskError::io("reading what another process has saved", theirs.path(), error));
        }
        // Not before: the deletes of this process since its last save have been applied to theirs
        // only now.
        self.tombstones.forget_beyond();
        self.tombstones.forget_old(self.now);
        let floor = self.tombstones.floor();
        // The deletes of theirs that are forgotten now, possibly deletes by further processes.
        let forgotten = self.their_tombstones.latest_delete_until(floor.min(self.others.listed));
        self.others.forgotten = self.others.forgotten.max(forgotten);
        writer.set_tombstones(std::mem::take(&mut self.tombstones));
        Ok(CompleteMerge { merge: self, floor })
    }

    fn hash(&self, key: &[u8]) -> u128 {
        self.superseded.hash(KeyKind::Canonical, key)
    }
}

/// A merge whose file only has to be put in place.
pub(crate) struct CompleteMerge {
    merge: Box<Merge>,
    floor: u64,
}

impl CompleteMerge {
    /// The result, once the file is in place.
    pub(crate) fn merged(self, saved: &SavedFile) -> Merged {
        let Self { merge, floor } = self;
        let has_all = merge.copied == 0;
        Merged {
            learned: Learned::after(saved.file_id, has_all, floor, merge.others, merge.superseded),
            found: merge.theirs.as_ref().map_or(0, |theirs| theirs.len().into()),
            copied: merge.copied,
            refused: merge.refused,
            dropped: merge.dropped,
            unsure: merge.unsure,
            left_out: merge.left_out,
            tombstones: merge.our_tombstones,
        }
    }
}

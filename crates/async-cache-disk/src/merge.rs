//! Joining what stands at a path with what a process has: for every key the last write wins (file format, section 10).
//!
//! The steps of a save that merges; the fronts make them in this order:
//! 1. [`Merge::begin`] takes the lock and opens the file that stands there, *theirs*;
//! 2. [`Merge::join`] takes in the tombstones of both sides;
//! 3. if [`Merge::is_needed`], [`Merge::note`] hears of every entry in memory;
//! 4. [`Merge::write_theirs`] copies what of theirs wins and is not here;
//! 5. [`Merge::admits`] is asked before each entry of the process's own is written;
//! 6. [`Merge::finish`] puts the file in place and releases the lock.
//!
//! Dropped earlier, it releases the lock and has changed nothing.
//!
//! Rules:
//! 1. at equal times an entry yields to a tombstone, and theirs to ours;
//! 2. an entry that may not be copied, for its time has passed or its value is not allowed, is later all the same;
//! 3. an entry that only one side has, and that is not later than a floor, may have been deleted: an entry of theirs
//!    if deletes of this process were forgotten, an entry of ours if deletes of others were ([`Learned`]). It is not
//!    written, and counted;
//! 4. an entry of ours that was superseded once stays so ([`Learned`]);
//! 5. theirs are older in the order of use than all of ours. Only entries that are written take room: over `maxsize`
//!    those of theirs go first, the coldest before the others. How many of ours will be written is counted before theirs
//!    are copied, and may turn out to be fewer (an entry expires, or has a value that cannot be written). Then as many of
//!    theirs as there is room for follow at the end, behind ours in the order of use;
//! 6. when an entry wins and is not written, the key is overwritten: nothing older comes back from another process.
//!
//! Keys of ours in memory are known by a 128-bit hash with a random key, so 48 bytes an entry; cold ones are looked up.

mod learned;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{DiskError, DiskErrorKind};
use crate::lock::SaveLock;
use crate::snapshot::{EagerRecord, ReadOptions, Record, Records, Scratch, Snapshot, Step};
use crate::tombstones::{KeyKind, Tombstones};
use crate::vfs::Vfs;
use crate::writer::{Pushed, Saved, Writer};

pub use learned::Learned;
use learned::{Others, Superseded};

/// The cold entries of the process that saves.
pub struct Cold<'c> {
    /// The snapshot they are in.
    pub snapshot: &'c Snapshot,
    /// Whether the entry of a rank is one of them.
    pub contains: &'c dyn Fn(u32) -> bool,
}

impl fmt::Debug for Cold<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cold").field("snapshot", &self.snapshot).finish_non_exhaustive()
    }
}

/// What a save that merged came to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Merged {
    /// What it came to as a save.
    pub saved: Saved,
    /// How many of its entries were copied for others.
    pub copied: u64,
    /// How many entries of others would have been copied, and were not allowed.
    pub refused: u64,
    /// How many entries of others would have been copied, and there was no room for them within `maxsize`.
    pub dropped: u64,
    /// How many entries of others were not copied since this process may have deleted them: it has deleted more than it
    /// remembers.
    pub unsure: u64,
    /// How many entries of this process were not written since others may have deleted them: the file has forgotten
    /// which entries those were.
    pub left_out: u64,
    /// How many entries the file had that stood there, live or expired; the eager ones not counted.
    pub found: u64,
    /// To be given to [`Merge::join`] the next time.
    pub learned: Learned,
    /// What was deleted by this process and is in the file now.
    pub tombstones: Tombstones,
}

/// A save that merges, under way.
pub struct Merge {
    lock: SaveLock,
    theirs: Option<Snapshot>,
    /// Why what stands there is not joined, if it is not.
    refusal: Option<DiskError>,
    /// What the file that stands there knows of deletes.
    their_tombstones: Tombstones,
    our_tombstones: Tombstones,
    /// Of both.
    tombstones: Tombstones,
    is_needed: bool,
    learned: Learned,
    /// The deletes of others that the file that stands there may have seen.
    others: Others,
    /// Entries of ours that are superseded now.
    superseded: Superseded,
    /// Our entries in memory.
    ours: HashMap<u128, Noted>,
    /// Keys of ours of which theirs is the later entry: when that was written, and where it is, if it was copied.
    later: HashMap<u128, (u64, Option<Pushed>)>,
    /// Keys that were in `later`, until ours was written anew while the save went on.
    overtaken: HashSet<u128>,
    wanted: Wanted,
    maxsize: Option<usize>,
    /// How many eager entries this process has, if eager entries count for `maxsize`.
    eager: Option<usize>,
    /// How many eager entries of theirs there is room for, as far as that is known before ours are written.
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
struct Noted {
    written_at: u64,
    /// Unless theirs is later.
    is_written: bool,
}

/// What becomes of an entry of ours, apart from later entries of theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Written,
    /// It was deleted, or a later write of its key is known.
    Superseded,
    /// Others may have deleted it.
    Unsure,
}

/// Entries of theirs that win.
#[derive(Debug, Default)]
struct Wanted {
    /// A bit for each rank, in words by their number: a file may count ranks that it does not have.
    ranks: HashMap<u32, u64>,
    count: usize,
    /// How many of them, the coldest, were passed over for want of room.
    skipped: usize,
}

impl Wanted {
    fn insert(&mut self, rank: u32) {
        *self.ranks.entry(rank / 64).or_default() |= 1 << (rank % 64);
        self.count += 1;
    }

    fn contains(&self, rank: u32) -> bool {
        self.ranks.get(&(rank / 64)).is_some_and(|word| word >> (rank % 64) & 1 == 1)
    }
}

impl Merge {
    /// Takes the lock of `path`, waiting for `limit` at most, and opens what stands there. A file that is not what the
    /// options want, or not trusted, is not joined: [`Writer::finish`] deals with it.
    ///
    /// # Errors
    /// Those of [`SaveLock::take`], and [`Io`](DiskErrorKind::Io) if the file cannot be read.
    pub fn begin(
        vfs: &Arc<dyn Vfs>,
        path: &Path,
        options: &ReadOptions,
        limit: Duration,
    ) -> Result<Self, DiskError> {
        let lock = SaveLock::take(vfs, path, limit)?;
        let (theirs, refusal) = match Snapshot::open_with(vfs, path, options) {
            Ok(theirs) => (theirs, None),
            Err(error) => match error.kind() {
                DiskErrorKind::Io | DiskErrorKind::NotAFile => return Err(error),
                _ => (None, Some(error)),
            },
        };
        Ok(Self {
            lock,
            their_tombstones: theirs.as_ref().map(Snapshot::tombstones).unwrap_or_default(),
            theirs,
            refusal,
            our_tombstones: Tombstones::default(),
            tombstones: Tombstones::default(),
            is_needed: false,
            learned: Learned::default(),
            others: Others::default(),
            superseded: Superseded::random(path)?,
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

    /// Leaves what stands there alone: for a caller who is about to set it aside.
    pub fn ignore_theirs(&mut self) {
        self.theirs = None;
        self.their_tombstones = Tombstones::default();
    }

    /// The file that stands there, if it can be joined.
    pub fn theirs(&self) -> Option<&Snapshot> {
        self.theirs.as_ref()
    }

    /// Why a file stands there that cannot be joined, if one does.
    pub fn refusal(&self) -> Option<&DiskError> {
        self.refusal.as_ref()
    }

    /// Takes in what this process deleted, and what it learned by its last save.
    pub fn join(&mut self, ours: Tombstones, learned: Learned) {
        self.tombstones = self.their_tombstones.clone();
        self.tombstones.join(&ours);
        self.our_tombstones = ours;
        if let Some(emptied) = learned.superseded().emptied() {
            self.superseded = emptied;
        }
        if let Some(theirs) = &self.theirs {
            self.is_needed = Some(theirs.file_id()) != learned.holds();
            self.others = learned.others(theirs, &self.their_tombstones);
        }
        self.learned = learned;
    }

    /// Whether there may be entries in the file that this process does not have.
    pub fn is_needed(&self) -> bool {
        self.is_needed
    }

    /// Eager entries are this program's own, so they count for `maxsize`; `ours` of them are in memory.
    pub fn count_eager(&mut self, ours: usize) {
        self.eager = Some(ours);
    }

    /// Hears of an entry in memory; `written_at` is zero if that is not known.
    pub fn note(&mut self, key: &[u8], written_at: u64) {
        let is_written = self.fate(key, written_at) == Fate::Written;
        let hash = self.hash(key);
        self.ours.insert(hash, Noted { written_at, is_written });
    }

    /// What becomes of an entry of ours, if theirs is not later.
    fn fate(&mut self, key: &[u8], written_at: u64) -> Fate {
        let hash = self.hash(key);
        if self.tombstones.covers(KeyKind::Canonical, key, written_at)
            || self.learned.superseded().contains(hash, written_at) // Rule 4.
            || self.superseded.contains(hash, written_at)
        {
            Fate::Superseded
        } else if self.may_have_been_deleted(written_at) && !self.is_in_theirs(key) {
            Fate::Unsure // Rule 3.
        } else {
            Fate::Written
        }
    }

    fn is_in_theirs(&mut self, key: &[u8]) -> bool {
        self.theirs.as_ref().is_some_and(|theirs| theirs.locate(key, &mut self.scratch).is_some())
    }

    /// Copies what of theirs wins and is not here, and has a value that is allowed; `now` is the file's.
    ///
    /// # Errors
    /// Those of [`Writer::copy`].
    pub fn write_theirs(
        &mut self,
        writer: &mut Writer,
        now: u64,
        maxsize: Option<usize>,
        cold: Option<&Cold<'_>>,
        is_allowed: &dyn Fn(&[u8]) -> bool,
    ) -> Result<(), DiskError> {
        let Some(theirs) = self.theirs.clone().filter(|_| self.is_needed) else { return Ok(()) };
        self.maxsize = maxsize;
        let mut wanted = Wanted::default();
        let mut records = theirs.records();
        while let Some(step) = records.next_step() {
            let Step::Record(record) = step else {
                records.skip_lost();
                continue;
            };
            let written_at = record.written_at.unwrap_or(0);
            if !self.wins(record.key, written_at, cold, now) {
                continue;
            }
            if record.deadline.is_some_and(|deadline| deadline <= now) {
                if self.later.contains_key(&self.hash(record.key)) {
                    // Rule 6: any other copy of what we have is older than the expired entry, too.
                    self.tombstones.hide(KeyKind::Canonical, record.key, written_at);
                }
            } else if is_allowed(record.value) {
                wanted.insert(record.rank);
            } else {
                self.refused += 1;
                self.leave_out(record.key, written_at);
            }
        }
        wanted.skipped = self.too_many(wanted.count, cold, now);
        let mut passed = 0;
        let mut records = theirs.records();
        while passed < wanted.count
            && let Some(step) = next_wanted(&mut records, &wanted)
        {
            passed += 1;
            if let Step::Record(record) = step
                && passed > wanted.skipped
            {
                self.copy(writer, &record)?;
            }
        }
        self.wanted = wanted;
        Ok(())
    }

    /// How many entries of theirs there is no room for, of `count` that win.
    fn too_many(&mut self, count: usize, cold: Option<&Cold<'_>>, now: u64) -> usize {
        let Some(maxsize) = self.maxsize else { return 0 };
        let hot = self.ours.iter().filter(|(hash, noted)| noted.is_written && !self.later.contains_key(hash));
        let ours = hot.count().saturating_add(self.eager.unwrap_or(0));
        let is_cold =
            |cold: &Cold<'_>| (0..cold.snapshot.len()).filter(|rank| (cold.contains)(*rank)).count();
        let mut room = maxsize.saturating_sub(ours);
        if let Some(cold) = cold {
            // Counting the cold ones exactly reads them, so that is done only where it matters.
            let is_enough = count <= room.saturating_sub(is_cold(cold));
            let cold = if is_enough { is_cold(cold) } else { self.count_cold(cold, now) };
            room = room.saturating_sub(cold);
        }
        self.room_for_eager = room.saturating_sub(count);
        count.saturating_sub(room)
    }

    /// How many cold entries of ours will be written.
    fn count_cold(&mut self, cold: &Cold<'_>, now: u64) -> usize {
        let mut count = 0;
        let mut records = cold.snapshot.records();
        while let Some(step) = records.next_wanted(|rank| (cold.contains)(rank)) {
            if let Step::Record(record) = step
                && record.deadline.is_none_or(|deadline| deadline > now)
                && self.fate(record.key, record.written_at.unwrap_or(0)) == Fate::Written
                && !self.later.contains_key(&self.hash(record.key))
            {
                count += 1;
            }
        }
        count
    }

    fn copy(&mut self, writer: &mut Writer, record: &Record<'_>) -> Result<(), DiskError> {
        let pushed = match writer.copy(record) {
            Err(error) if *error.kind() == DiskErrorKind::Limit => {
                self.dropped += 1;
                self.leave_out(record.key, record.written_at.unwrap_or(0));
                return Ok(());
            }
            pushed => pushed?,
        };
        self.copied += 1;
        let hash = self.hash(record.key);
        if let Some((_, place)) = self.later.get_mut(&hash) {
            *place = Some(pushed);
        }
        Ok(())
    }

    /// All of ours are written: copies as many of the entries that were passed over as there is room for after all, and
    /// drops the others (rule 5). [`Merge::finish`] does it, unless it was done before.
    ///
    /// # Errors
    /// Those of [`Writer::copy`].
    pub fn fill(&mut self, writer: &mut Writer) -> Result<(), DiskError> {
        let wanted = std::mem::take(&mut self.wanted);
        let Some(theirs) = self.theirs.clone() else { return Ok(()) };
        let dropped = wanted.skipped.saturating_sub(self.room_left(writer));
        if wanted.skipped == dropped && self.later.is_empty() {
            self.dropped += dropped as u64;
            return Ok(());
        }
        let mut passed = 0;
        let mut records = theirs.records();
        while passed < wanted.skipped
            && let Some(step) = next_wanted(&mut records, &wanted)
        {
            passed += 1;
            let Step::Record(record) = step else { continue };
            let hash = self.hash(record.key);
            if self.overtaken.contains(&hash) {
                continue;
            }
            if passed > dropped {
                self.copy(writer, &record)?;
            } else {
                self.dropped += 1;
                self.leave_out(record.key, record.written_at.unwrap_or(0));
            }
        }
        Ok(())
    }

    /// An entry of theirs that won is not copied. If ours is the older one, the file has to say so (rule 6): by the next
    /// save it has forgotten theirs. A process that has that in memory still may save it.
    fn leave_out(&mut self, key: &[u8], written_at: u64) {
        if self.later.contains_key(&self.hash(key)) {
            self.tombstones.hide(KeyKind::Canonical, key, written_at.saturating_sub(1));
        }
    }

    /// Whether an entry of theirs is to be in the file.
    fn wins(&mut self, key: &[u8], written_at: u64, cold: Option<&Cold<'_>>, now: u64) -> bool {
        if self.tombstones.covers(KeyKind::Canonical, key, written_at) {
            return false;
        }
        let hash = self.hash(key);
        let noted = self.ours.get(&hash).map(|noted| (noted.written_at, noted.is_written));
        let ours = noted.or_else(|| {
            let cold = cold?;
            let found = cold.snapshot.find(key, &mut self.scratch)?;
            let is_live = found.deadline.is_none_or(|deadline| deadline > now);
            (cold.contains)(found.rank).then(|| (found.written_at.unwrap_or(0), is_live))
        });
        match ours {
            Some((ours, is_written)) if ours >= written_at => {
                if ours > written_at && !is_written {
                    // Rule 6: neither is in the file from now on.
                    self.tombstones.hide(KeyKind::Canonical, key, ours.saturating_sub(1));
                }
                false
            }
            Some(_) => {
                self.later.insert(hash, (written_at, None));
                true
            }
            None if self.our_tombstones.may_cover(written_at) => {
                self.unsure += 1; // Rule 3.
                false
            }
            None => true,
        }
    }

    /// Whether an entry of this process is to be written, with the time of its writing or zero. If an older one of
    /// theirs was copied, it is taken back.
    pub fn admits(&mut self, writer: &mut Writer, key: &[u8], written_at: u64) -> bool {
        let hash = self.hash(key);
        match self.fate(key, written_at) {
            Fate::Written => {}
            Fate::Superseded => {
                self.superseded.insert(hash, written_at);
                return false;
            }
            Fate::Unsure => {
                self.leave_out_unsure(KeyKind::Canonical, key, written_at);
                return false;
            }
        }
        match self.later.get(&hash) {
            Some((theirs, _)) if *theirs >= written_at => {
                self.superseded.insert(hash, written_at);
                false
            }
            Some((_, pushed)) => {
                if let Some(pushed) = *pushed {
                    writer.forget(pushed);
                    self.copied -= 1;
                }
                self.later.remove(&hash);
                self.overtaken.insert(hash);
                true
            }
            None => true,
        }
    }

    /// Whether an eager entry with a key of these bytes was deleted since; as far as the bytes tell.
    pub fn is_deleted(&self, kind: KeyKind, key: &[u8], written_at: u64) -> bool {
        self.tombstones.covers(kind, key, written_at)
    }

    /// Whether an entry of theirs that this process does not have may have been deleted by it; if so, it is counted.
    pub fn may_have_deleted(&mut self, written_at: u64) -> bool {
        let may_have = self.our_tombstones.may_cover(written_at);
        self.unsure += u64::from(may_have);
        may_have
    }

    /// Whether an entry of this process that is not in the file may have been deleted by others.
    pub fn may_have_been_deleted(&self, written_at: u64) -> bool {
        self.others.forgotten != 0 && written_at <= self.others.forgotten
    }

    /// Whether an eager entry of ours, with a key of these bytes, was superseded before.
    pub fn is_superseded(&self, key: &[u8], written_at: u64) -> bool {
        self.learned.superseded().contains(self.superseded.hash(KeyKind::Eager, key), written_at)
    }

    /// Hears of an eager entry of ours that a later write or a delete has replaced.
    pub fn supersede(&mut self, key: &[u8], written_at: u64) {
        let hash = self.superseded.hash(KeyKind::Eager, key);
        self.superseded.insert(hash, written_at);
    }

    /// Hears of an entry of ours that is not written, since others may have deleted it. It is counted.
    pub fn leave_out_unsure(&mut self, kind: KeyKind, key: &[u8], written_at: u64) {
        self.left_out += 1;
        self.tombstones.hide(kind, key, written_at.saturating_sub(1));
    }

    /// Hears of an entry of ours that is not written, for its time has passed or its value cannot be: it is later all the
    /// same than what others have. Whether it would have been written otherwise, as far as is known.
    pub fn leave_out_ours(&mut self, kind: KeyKind, key: &[u8], written_at: u64) -> bool {
        if kind == KeyKind::Canonical {
            let hash = self.hash(key);
            let is_later = self.later.get(&hash).is_some_and(|(theirs, _)| *theirs >= written_at);
            if is_later || self.fate(key, written_at) == Fate::Superseded {
                self.superseded.insert(hash, written_at);
                return false;
            }
        }
        self.tombstones.hide(kind, key, written_at.saturating_sub(1));
        true
    }

    /// What both sides deleted.
    pub fn tombstones(&self) -> &Tombstones {
        &self.tombstones
    }

    /// How many eager records of theirs there is room for, as far as that is known before ours are written. They are
    /// colder than all other entries.
    pub fn room_for_eager(&self) -> usize {
        self.room_for_eager
    }

    /// How many entries there is room for, with all that was written by now.
    pub fn room_left(&self, writer: &Writer) -> usize {
        let eager = self.eager.map_or(0, |_| writer.eager_len());
        let written = writer.len().saturating_add(eager);
        self.maxsize.map_or(usize::MAX, |maxsize| maxsize.saturating_sub(written))
    }

    /// Hears of eager records of theirs that win, and that there is no room for.
    pub fn drop_eager(&mut self, count: usize) {
        self.dropped += count as u64;
    }

    /// Copies an eager record of theirs, which the process does not have in memory.
    ///
    /// # Errors
    /// Those of [`Writer::copy_eager`].
    pub fn copy_eager(&mut self, writer: &mut Writer, record: &EagerRecord<'_>) -> Result<(), DiskError> {
        writer.copy_eager(record)?;
        self.copied += 1;
        Ok(())
    }

    /// Puts the file in place and releases the lock; `now` is the file's.
    ///
    /// # Errors
    /// Those of [`Writer::finish`]; and [`Io`](DiskErrorKind::Io) if what stands there could not be read, for then
    /// something would be lost. (What is damaged there is lost anyway.)
    pub fn finish(mut self, mut writer: Writer, now: u64) -> Result<Merged, DiskError> {
        self.fill(&mut writer)?;
        if let Some(theirs) = &self.theirs
            && theirs.damage().io_errors > 0
        {
            let error = io::Error::other("a read failed");
            return Err(DiskError::io("reading what another process has saved", theirs.path(), error));
        }
        // Not before: what this process deleted since its last save has been applied to theirs only now.
        self.tombstones.forget_beyond();
        self.tombstones.forget_old(now);
        let floor = self.tombstones.floor();
        // Of the deletes of theirs that are forgotten now, those that may be of others.
        let forgotten = self.their_tombstones.latest_delete_until(floor.min(self.others.listed));
        let others = Others { forgotten: self.others.forgotten.max(forgotten), ..self.others };
        writer.set_tombstones(self.tombstones);
        let saved = writer.finish()?;
        drop(self.lock);
        Ok(Merged {
            learned: Learned::after(saved.file_id, self.copied == 0, floor, others, self.superseded),
            found: self.theirs.as_ref().map_or(0, |theirs| theirs.len().into()),
            saved,
            copied: self.copied,
            refused: self.refused,
            dropped: self.dropped,
            unsure: self.unsure,
            left_out: self.left_out,
            tombstones: self.our_tombstones,
        })
    }

    fn hash(&self, key: &[u8]) -> u128 {
        self.superseded.hash(KeyKind::Canonical, key)
    }
}

/// The next wanted one: a record of theirs, so one that is there.
fn next_wanted<'r>(records: &'r mut Records, wanted: &Wanted) -> Option<Step<'r>> {
    records.skip_lost();
    records.next_wanted(|rank| wanted.contains(rank))
}

impl fmt::Debug for Merge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Merge")
            .field("theirs", &self.theirs)
            .field("copied", &self.copied)
            .finish_non_exhaustive()
    }
}

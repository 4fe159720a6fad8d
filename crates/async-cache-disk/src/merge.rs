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
//! - at equal times an entry yields to a tombstone, and theirs to ours;
//! - an entry that may not be copied, for its time has passed or its value is not allowed, is later all the same;
//! - an entry that is not later than a floor, and that the side with that floor does not have, is left out;
//! - theirs are older in the order of use than all of ours; over `maxsize` they go first.
//!
//! Keys of ours in memory are known by a 128-bit hash with a random key, so 32 bytes an entry; cold ones are looked up.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use siphasher::sip128::SipHasher13;

use crate::error::{DiskError, DiskErrorKind};
use crate::lock::SaveLock;
use crate::snapshot::{EagerRecord, ReadOptions, Scratch, Snapshot, Step};
use crate::tombstones::{KeyKind, Tombstones};
use crate::vfs::Vfs;
use crate::writer::{Pushed, Saved, Writer, random};

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
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Merged {
    /// What it came to as a save.
    pub saved: Saved,
    /// How many of its entries were copied for others.
    pub copied: u64,
    /// How many entries of others would have been copied, and were not allowed.
    pub refused: u64,
    /// The file, if the process has all that is in it: to be given to [`Merge::join`] the next time.
    pub holds: Option<[u8; 16]>,
    /// What was deleted by this process and is in the file now.
    pub tombstones: Tombstones,
}

/// A save that merges, under way.
pub struct Merge {
    lock: SaveLock,
    theirs: Option<Snapshot>,
    /// What the file that stands there knows of deletes.
    their_tombstones: Tombstones,
    our_tombstones: Tombstones,
    /// Of both.
    tombstones: Tombstones,
    is_needed: bool,
    hasher: SipHasher13,
    /// Our entries in memory: when each was written.
    ours: HashMap<u128, u64>,
    /// Keys of ours of which theirs is the later entry: when that was written, and where it is, if there was room for it.
    later: HashMap<u128, (u64, Option<Pushed>)>,
    copied: u64,
    refused: u64,
    scratch: Scratch,
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
        let theirs = match Snapshot::open_with(vfs, path, options) {
            Ok(theirs) => theirs,
            Err(error) => match error.kind() {
                DiskErrorKind::Io | DiskErrorKind::NotAFile => return Err(error),
                _ => None,
            },
        };
        Ok(Self {
            lock,
            their_tombstones: theirs.as_ref().map(Snapshot::tombstones).unwrap_or_default(),
            theirs,
            our_tombstones: Tombstones::default(),
            tombstones: Tombstones::default(),
            is_needed: false,
            hasher: SipHasher13::new_with_key(&random(path)?),
            ours: HashMap::new(),
            later: HashMap::new(),
            copied: 0,
            refused: 0,
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

    /// Takes in what this process deleted. `holds` is the file that it opened or wrote last, if it has everything that is
    /// in it.
    pub fn join(&mut self, ours: Tombstones, holds: Option<[u8; 16]>) {
        self.tombstones = self.their_tombstones.clone();
        self.tombstones.join(&ours);
        self.our_tombstones = ours;
        self.is_needed = self.theirs.as_ref().is_some_and(|theirs| Some(theirs.file_id()) != holds);
    }

    /// Whether there may be entries in the file that this process does not have.
    pub fn is_needed(&self) -> bool {
        self.is_needed
    }

    /// Hears of an entry in memory; `written_at` is zero if that is not known.
    pub fn note(&mut self, key: &[u8], written_at: u64) {
        let hash = self.hash(key);
        self.ours.insert(hash, written_at);
    }

    /// Copies what of theirs wins and is not here, and has a value that is allowed; `now` is the file's. `ours` is how
    /// many entries this process has.
    ///
    /// # Errors
    /// Those of [`Writer::copy`].
    pub fn write_theirs(
        &mut self,
        writer: &mut Writer,
        now: u64,
        maxsize: Option<usize>,
        ours: usize,
        cold: Option<&Cold<'_>>,
        is_allowed: &dyn Fn(&[u8]) -> bool,
    ) -> Result<(), DiskError> {
        let Some(theirs) = self.theirs.clone().filter(|_| self.is_needed) else { return Ok(()) };
        let mut wanted = vec![0_u64; (theirs.len() as usize).div_ceil(64)];
        let mut count = 0_usize;
        let mut records = theirs.records();
        while let Some(step) = records.next_step() {
            let Step::Record(record) = step else { continue };
            let written_at = record.written_at.unwrap_or(0);
            if !self.wins(record.key, written_at, cold) {
                continue;
            }
            if record.deadline.is_some_and(|deadline| deadline <= now) {
                if self.later.contains_key(&self.hash(record.key)) {
                    // Whoever else has what we have has something older than that, too.
                    self.tombstones.overwrite(KeyKind::Canonical, record.key, written_at);
                }
            } else if is_allowed(record.value) {
                wanted[record.rank as usize / 64] |= 1 << (record.rank % 64);
                count += 1;
            } else {
                self.refused += 1;
                self.leave_out(record.key, written_at);
            }
        }
        let room = maxsize.map(|most| most.saturating_sub(ours.saturating_sub(self.later.len())));
        let mut too_many = room.map_or(0, |room| count.saturating_sub(room));
        let is_wanted = |rank: u32| wanted[rank as usize / 64] & (1 << (rank % 64)) != 0;
        let mut records = theirs.records();
        while let Some(step) = records.next_wanted(is_wanted) {
            let Step::Record(record) = step else { continue };
            let written_at = record.written_at.unwrap_or(0);
            if too_many > 0 {
                too_many -= 1;
                self.leave_out(record.key, written_at);
                continue;
            }
            let pushed = match writer.copy(&record) {
                Err(error) if *error.kind() == DiskErrorKind::Limit => {
                    self.leave_out(record.key, written_at);
                    continue;
                }
                pushed => pushed?,
            };
            self.copied += 1;
            let hash = self.hash(record.key);
            if let Some((_, place)) = self.later.get_mut(&hash) {
                *place = Some(pushed);
            }
        }
        Ok(())
    }

    /// An entry of theirs that won is not copied. If ours is the older one, the file has to say so: by the next save it
    /// has forgotten theirs. Whoever has that in memory still may save it.
    fn leave_out(&mut self, key: &[u8], written_at: u64) {
        if self.later.contains_key(&self.hash(key)) {
            self.tombstones.overwrite(KeyKind::Canonical, key, written_at.saturating_sub(1));
        }
    }

    /// Whether an entry of theirs is to be in the file.
    fn wins(&mut self, key: &[u8], written_at: u64, cold: Option<&Cold<'_>>) -> bool {
        if self.tombstones.covers(KeyKind::Canonical, key, written_at) {
            return false;
        }
        let hash = self.hash(key);
        let ours = self.ours.get(&hash).copied().or_else(|| {
            let cold = cold?;
            let found = cold.snapshot.find(key, &mut self.scratch)?;
            (cold.contains)(found.rank).then(|| found.written_at.unwrap_or(0))
        });
        match ours {
            Some(ours) if ours >= written_at => false,
            Some(_) => {
                self.later.insert(hash, (written_at, None));
                true
            }
            None => !self.our_tombstones.may_cover(written_at),
        }
    }

    /// Whether an entry of this process is to be written, with the time of its writing or zero. If an older one of
    /// theirs was copied, it is taken back.
    pub fn admits(&mut self, writer: &mut Writer, key: &[u8], written_at: u64) -> bool {
        if self.tombstones.covers(KeyKind::Canonical, key, written_at) {
            return false;
        }
        if self.their_tombstones.may_cover(written_at)
            && self.theirs.as_ref().is_none_or(|theirs| theirs.locate(key, &mut self.scratch).is_none())
        {
            return false;
        }
        if self.later.is_empty() {
            return true;
        }
        let hash = self.hash(key);
        match self.later.get(&hash) {
            Some((theirs, _)) if *theirs >= written_at => false,
            Some((_, pushed)) => {
                if let Some(pushed) = *pushed {
                    writer.forget(pushed);
                    self.copied -= 1;
                }
                self.later.remove(&hash);
                true
            }
            None => true,
        }
    }

    /// Whether an eager entry with a key of these bytes was deleted since; as far as the bytes tell.
    pub fn is_deleted(&self, kind: KeyKind, key: &[u8], written_at: u64) -> bool {
        self.tombstones.covers(kind, key, written_at)
    }

    /// Whether an entry of theirs that this process does not have may have been deleted by it.
    pub fn may_have_deleted(&self, written_at: u64) -> bool {
        self.our_tombstones.may_cover(written_at)
    }

    /// Hears of an entry of ours that is not written, for its time has passed or its value cannot be: it is later all the
    /// same than what others have.
    pub fn leave_out_ours(&mut self, kind: KeyKind, key: &[u8], written_at: u64) {
        self.tombstones.overwrite(kind, key, written_at.saturating_sub(1));
    }

    /// What both sides deleted.
    pub fn tombstones(&self) -> &Tombstones {
        &self.tombstones
    }

    /// What the file that stands there says was deleted.
    pub fn their_tombstones(&self) -> &Tombstones {
        &self.their_tombstones
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
        if let Some(theirs) = &self.theirs
            && theirs.damage().io_errors > 0
        {
            let error = io::Error::other("a read failed");
            return Err(DiskError::io("reading what another process has saved", theirs.path(), error));
        }
        self.tombstones.forget_old(now);
        writer.set_tombstones(self.tombstones);
        let saved = writer.finish()?;
        drop(self.lock);
        let holds = (self.copied == 0).then_some(saved.file_id);
        let refused = self.refused;
        Ok(Merged { saved, copied: self.copied, refused, holds, tombstones: self.our_tombstones })
    }

    fn hash(&self, key: &[u8]) -> u128 {
        self.hasher.hash(key).as_u128()
    }
}

impl fmt::Debug for Merge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Merge")
            .field("theirs", &self.theirs)
            .field("copied", &self.copied)
            .finish_non_exhaustive()
    }
}

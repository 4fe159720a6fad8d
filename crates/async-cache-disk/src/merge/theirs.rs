//! The passes over the records of theirs: finding and copying the winning entries.
//!
//! 1. [`Merge::copy_theirs`] goes through all records and decides which win. It counts how many
//!    there is room for, and copies those in a second pass.
//! 2. [`Merge::fill`] copies the rest that has room after all, when all of ours are written.

use std::collections::HashMap;

use super::{ColdEntries, Decision, Merge, Ours};
use crate::error::{DiskError, DiskErrorKind};
use crate::snapshot::{Item, Record, Records, Source};
use crate::tombstones::KeyKind;
use crate::writer::Writer;

/// The winning entries of theirs.
#[derive(Debug, Default)]
pub(super) struct Wanted {
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
    /// Copies the winning entries of theirs, as far as there is room and their values are allowed.
    ///
    /// # Errors
    /// Those of [`Writer::copy`].
    pub(crate) fn copy_theirs(&mut self, writer: &mut Writer, ours: &Ours<'_>) -> Result<(), DiskError> {
        let Some(theirs) = self.theirs.clone().filter(|_| self.is_needed) else { return Ok(()) };
        let (now, cold) = (self.now, ours.cold.as_ref());
        (self.maxsize, self.eager) = (ours.maxsize, ours.eager);
        let mut wanted = Wanted::default();
        let mut records = theirs.records();
        while let Some(item) = records.next() {
            let Item::Entry(record) = item else {
                records.skip_lost();
                continue;
            };
            let written_at = record.written_at.unwrap_or(0);
            if !self.wins(record.key, written_at, cold) {
                continue;
            }
            if record.deadline.is_some_and(|deadline| deadline <= now) {
                if self.later.contains_key(&self.hash(record.key)) {
                    // Rules 2 and 6. A copy of the expired entry itself is as old as the entry.
                    self.tombstones.add_overwrite(KeyKind::Canonical, record.key, written_at);
                }
            } else if (ours.allows)(record.value) {
                record.rank.into_iter().for_each(|rank| wanted.insert(rank));
            } else {
                self.refused += 1;
                self.leave_out(record.key, written_at); // Rule 2
            }
        }
        wanted.skipped = self.too_many(wanted.count, cold); // Rule 5
        let mut passed = 0;
        let mut records = theirs.records();
        while passed < wanted.count
            && let Some(item) = next_wanted(&mut records, &wanted)
        {
            passed += 1;
            if let Item::Entry(record) = item
                && passed > wanted.skipped
            {
                self.copy(writer, &record)?;
            }
        }
        self.wanted = wanted;
        Ok(())
    }

    /// The number of winning entries of theirs without room, of `count`.
    fn too_many(&mut self, count: usize, cold: Option<&ColdEntries<'_>>) -> usize {
        let Some(maxsize) = self.maxsize else { return 0 };
        let hot = self.ours.iter().filter(|(hash, noted)| noted.is_written && !self.later.contains_key(hash));
        let ours = hot.count().saturating_add(self.eager.unwrap_or(0));
        let is_cold =
            |cold: &ColdEntries<'_>| (0..cold.snapshot.len()).filter(|rank| (cold.contains)(*rank)).count();
        let mut room = maxsize.saturating_sub(ours);
        if let Some(cold) = cold {
            // An exact count of the cold entries reads them, so that is done only where it matters.
            let is_enough = count <= room.saturating_sub(is_cold(cold));
            let cold = if is_enough { is_cold(cold) } else { self.count_cold(cold) };
            room = room.saturating_sub(cold);
        }
        self.room_for_eager = room.saturating_sub(count);
        count.saturating_sub(room)
    }

    /// How many cold entries of ours will be written.
    fn count_cold(&mut self, cold: &ColdEntries<'_>) -> usize {
        let mut count = 0;
        let mut records = cold.snapshot.records();
        while let Some(item) = records.next_wanted(|rank| (cold.contains)(rank)) {
            if let Item::Entry(record) = item
                && record.deadline.is_none_or(|deadline| deadline > self.now)
                && self.decide(record.key, record.written_at.unwrap_or(0)) == Decision::Written
                && !self.later.contains_key(&self.hash(record.key))
            {
                count += 1;
            }
        }
        count
    }

    fn copy(&mut self, writer: &mut Writer, record: &Record<'_>) -> Result<(), DiskError> {
        let copied = match writer.copy(record) {
            Err(error) if *error.kind() == DiskErrorKind::Limit => {
                self.dropped += 1;
                self.leave_out(record.key, record.written_at.unwrap_or(0));
                return Ok(());
            }
            copied => copied?,
        };
        self.copied += 1;
        let hash = self.hash(record.key);
        if let Some((_, copy)) = self.later.get_mut(&hash) {
            *copy = Some(copied);
        }
        Ok(())
    }

    /// All of ours are written: copies as many of the entries that were passed over as there is
    /// room for after all, and drops the others (rule 5).
    ///
    /// # Errors
    /// Those of [`Writer::copy`].
    pub(crate) fn fill(&mut self, writer: &mut Writer) -> Result<(), DiskError> {
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
            && let Some(item) = next_wanted(&mut records, &wanted)
        {
            passed += 1;
            let Item::Entry(record) = item else { continue };
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

    /// Records that an entry of theirs that won is not copied. If ours is older, the file must
    /// record the key as overwritten (rule 6): by the next save the file has forgotten theirs. A
    /// process that still has theirs in memory may save it.
    fn leave_out(&mut self, key: &[u8], written_at: u64) {
        if self.later.contains_key(&self.hash(key)) {
            self.tombstones.add_overwrite(KeyKind::Canonical, key, written_at.saturating_sub(1));
        }
    }

    /// Whether an entry of theirs is to be in the file.
    fn wins(&mut self, key: &[u8], written_at: u64, cold: Option<&ColdEntries<'_>>) -> bool {
        if self.tombstones.covers(KeyKind::Canonical, key, written_at) {
            return false; // Rule 1
        }
        let hash = self.hash(key);
        let noted = self.ours.get(&hash).map(|noted| (noted.written_at, noted.is_written));
        let ours = noted.or_else(|| {
            let cold = cold?;
            let found = cold.snapshot.find(key, &mut self.scratch)?;
            let is_live = found.deadline.is_none_or(|deadline| deadline > self.now);
            (cold.contains)(found.rank).then(|| (found.written_at.unwrap_or(0), is_live))
        });
        match ours {
            Some((ours, is_written)) if ours >= written_at => {
                // Rule 1
                if ours > written_at && !is_written {
                    // Rule 6: neither entry is in the file from now on.
                    self.tombstones.add_overwrite(KeyKind::Canonical, key, ours.saturating_sub(1));
                }
                false
            }
            Some(_) => {
                self.later.insert(hash, (written_at, None));
                true
            }
            None => !self.may_have_deleted(written_at), // Rule 3
        }
    }
}

/// The next wanted record of theirs. Ranks without a record are passed.
fn next_wanted<'r>(records: &'r mut Records, wanted: &Wanted) -> Option<Item<'r>> {
    records.skip_lost();
    records.next_wanted(|rank| wanted.contains(rank))
}

//! What an opened snapshot and a newer one have between them, as one snapshot.
//!
//! A cache that takes in another file goes on serving what is cold in the one it has: entries that were never read
//! into memory, and may be in no other file. Keys cannot be decoded in general (those of decorated functions are
//! compared and never read), so the entries are copied as bytes into a third file, which has no name as soon as it is
//! open. Rules:
//! 1. an entry of the newer snapshot stands, whatever the older one has under its key;
//! 2. those of the older one come first, so they are colder;
//! 3. eager records are not copied: both snapshots' are in memory;
//! 4. which older entries are still cold is looked up once more when the union is adopted, for the cache goes on
//!    being used meanwhile.

use std::hash::{BuildHasher, RandomState};

use async_cache_core::cold::{Frozen, Rank};
use async_cache_core::time::FileClock;
use async_cache_disk::{
    CacheFile, DiskError, DiskErrorKind, Scratch, Snapshot, Step, WriteOptions, temporary_beside,
};
use pyo3::prelude::*;

use crate::opened::Opened;
use crate::pace::in_background;
use crate::target::Target;

pub(crate) struct Union {
    pub(crate) snapshot: Snapshot,
    /// The first entries are the older snapshot's: their ranks in it.
    pub(crate) older: Vec<Rank>,
}

/// `None` if the newer snapshot has every key that is cold in the older one.
pub(crate) fn union(
    py: Python<'_>,
    target: &Target,
    older: &Opened,
    newer: &Snapshot,
    file: FileClock,
) -> PyResult<Option<Union>> {
    let frozen = older.cold.freeze();
    // The process is part of the name, for a forked child goes on with a copy of the parent's random state.
    let number = RandomState::new().hash_one(std::process::id());
    let place =
        temporary_beside(target.file.path(), number).map_err(|error| crate::errors::backup(py, &error))?;
    let place = target.file.at(place);
    let written = in_background(py, || write(&place, &older.snapshot(), &frozen, newer, file))?;
    let Some(older) = written else { return Ok(None) };
    let opened = py.detach(|| place.open());
    // Where an open file cannot be removed, it is one of the leftovers that the next save clears away.
    drop(place.vfs().remove(place.path()));
    let snapshot = opened.map_err(|error| crate::errors::backup(py, &error))?;
    Ok(snapshot.map(|snapshot| Union { snapshot, older }))
}

/// Writes the union, unless it would be the newer snapshot. Returns the ranks of what came from the older one.
fn write(
    place: &CacheFile,
    older: &Snapshot,
    frozen: &Frozen,
    newer: &Snapshot,
    file: FileClock,
) -> Result<Option<Vec<Rank>>, DiskError> {
    let (mut writer, mut ranks, mut scratch) = (None, Vec::new(), Scratch::new());
    let mut records = older.records();
    while let Some(step) = records.next_wanted(|rank| frozen.contains(rank)) {
        let Step::Record(record) = step else { continue };
        if record.deadline.is_some_and(|deadline| deadline <= file.file_now())
            || newer.locate(record.key, &mut scratch).is_some()
            // Where the newer one's index is damaged, it may have the key all the same; and no file has one twice.
            || scratch.is_blind()
        {
            continue;
        }
        let writer = match &mut writer {
            Some(writer) => writer,
            none => none.insert(place.write(WriteOptions::new(newer.saved_at()))?),
        };
        if is_in(writer.copy(&record))? {
            ranks.push(record.rank);
        }
    }
    let Some(mut writer) = writer else { return Ok(None) };
    let mut records = newer.records();
    while let Some(step) = records.next_step() {
        if let Step::Record(record) = step {
            is_in(writer.copy(&record))?;
        }
    }
    writer.finish()?;
    Ok(Some(ranks))
}

/// Whether an entry was taken; one too many is left out.
fn is_in<T>(pushed: Result<T, DiskError>) -> Result<bool, DiskError> {
    match pushed {
        Ok(_) => Ok(true),
        Err(error) if *error.kind() == DiskErrorKind::Limit => Ok(false),
        Err(error) => Err(error),
    }
}

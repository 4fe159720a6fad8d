//! The union of an opened snapshot and a newer snapshot, as a single snapshot.
//!
//! A cache that opens another file continues to serve the cold entries of its previous file:
//! entries that were never read into memory, and may be in no other file. Keys cannot be decoded in
//! general (a front may be able to compare them without decoding them), so the entries are copied
//! as bytes into a third file. The third file loses its name as soon as it is open. Rules:
//! 1. an entry of the newer snapshot counts, with any entry of the older under its key;
//! 2. entries of the older snapshot come first, so they are colder;
//! 3. eager records are not copied: the front has taken in the records of both;
//! 4. of the newer snapshot, only the last `maxsize` entries are copied, and no expired entry. An
//!    entry that is not copied does not hide an older entry;
//! 5. the older entries that are still cold are determined once more when the union is adopted,
//!    because the cache stays in use meanwhile.

use std::hash::{BuildHasher, RandomState};

use async_cache_core::cold::{Frozen, Rank};
use async_cache_core::time::FileClock;
use async_cache_disk::{
    CacheFile, DiskError, DiskErrorKind, Item, Scratch, Snapshot, WriteOptions, temporary_beside,
};

use crate::host::{Host, is_expired};
use crate::opened::Opened;

/// Two snapshots in one.
pub(crate) struct Union {
    pub(crate) snapshot: Snapshot,
    /// Its first entries are the older snapshot's: their ranks there.
    pub(crate) older: Vec<Rank>,
}

/// `None` if the newer snapshot has every cold key of the older.
pub(crate) fn union<H: Host>(
    host: &H,
    older: &Opened,
    newer: &Snapshot,
    file: FileClock,
) -> Result<Option<Union>, H::Error> {
    let frozen = older.cold().freeze();
    // The process is part of the name: a forked child continues with a copy of its parent's random
    // state.
    let number = RandomState::new().hash_one(std::process::id());
    let place = temporary_beside(host.file().path(), number).map_err(|error| host.error(error))?;
    let place = host.file().at(place);
    let older = older.snapshot();
    let floor = host.maxsize().map_or(0, |maxsize| (newer.len() as usize).saturating_sub(maxsize)) as Rank;
    let written = host.blocking(|| {
        let Some(ranks) = write(&place, (&older, &frozen), (newer, floor), file)? else { return Ok(None) };
        let opened = place.open();
        // Where an open file cannot be removed, the file is a leftover that the next save removes.
        drop(place.vfs().remove(place.path()));
        Ok(opened?.map(|snapshot| Union { snapshot, older: ranks }))
    });
    written.map_err(|error: DiskError| host.error(error))
}

/// Writes the union, unless it would equal the newer snapshot. Returns the ranks of the older
/// entries.
fn write(
    place: &CacheFile,
    (older, frozen): (&Snapshot, &Frozen),
    (newer, floor): (&Snapshot, Rank),
    file: FileClock,
) -> Result<Option<Vec<Rank>>, DiskError> {
    let (mut writer, mut ranks, mut scratch) = (None, Vec::new(), Scratch::new());
    let mut records = older.records();
    while let Some(item) = records.next_wanted(|rank| frozen.contains(rank)) {
        let Item::Entry(record) = item else { continue };
        if is_expired(record.deadline, file)
            // Rules 1 and 4.
            || newer.locate(record.key, &mut scratch).is_some_and(|rank| rank >= floor)
            // If the newer snapshot's index is damaged, it may have the key all the same.
            || scratch.may_have_missed()
        {
            continue;
        }
        let writer = match &mut writer {
            Some(writer) => writer,
            none => none.insert(place.write(WriteOptions::new(newer.saved_at()))?),
        };
        if fits(writer.copy(&record))? {
            ranks.extend(record.rank);
        }
    }
    let Some(mut writer) = writer else { return Ok(None) };
    let mut records = newer.records();
    while let Some(item) = records.next_wanted(|rank| rank >= floor) {
        if let Item::Entry(record) = item
            && !is_expired(record.deadline, file)
        {
            fits(writer.copy(&record))?;
        }
    }
    writer.finish()?;
    Ok(Some(ranks))
}

/// Whether an entry was copied; an entry that is too large for the format is left out.
fn fits<T>(copied: Result<T, DiskError>) -> Result<bool, DiskError> {
    match copied {
        Ok(_) => Ok(true),
        Err(error) if *error.kind() == DiskErrorKind::Limit => Ok(false),
        Err(error) => Err(error),
    }
}

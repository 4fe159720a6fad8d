//! Opening the journal of a cache, and closing it.
//!
//! Rules:
//! 1. A journal is opened once in the life of a cache. Entries in memory by then are written to it:
//!    they are later than everything in the store.
//! 2. If another process has the store, or the store cannot be used, there is no journal: the
//!    caller opens the file as a snapshot, and saves merge.
//! 3. A cache whose `maxsize` is 0 stores nothing: without a limit for the disk, it has no journal.
//! 4. A closed journal takes no more writes. The entries are in the store, or in the file at the
//!    path if the store was folded into it; those in memory were written last, because the order of
//!    a file is the order of eviction.

use std::sync::Arc;
use std::time::Duration;

use async_cache_core::time::Stamp;
use async_cache_disk::DiskError;
use async_cache_disk::store::{EntryPlace, Folded, StoreLimit, StoreOptions};

use crate::eager::{EagerEntries, EagerReplay};
use crate::host::{Host, Memory, Slice};
use crate::hot::HotEntries;
use crate::journal_state::{DiskLimit, Journal};
use crate::open::OpeningOutcome;
use crate::tier::Turn;

/// The options of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalOptions {
    /// The most bytes on the disk. `None`: the disk holds no more entries than the cache may have.
    pub disk_bytes: Option<u64>,
}

impl JournalOptions {
    fn store_options(self) -> StoreOptions {
        let limit = self.disk_bytes.map_or(StoreLimit::Live, StoreLimit::Bytes);
        StoreOptions { limit, ..StoreOptions::default() }
    }

    fn limit(self) -> DiskLimit {
        if self.disk_bytes.is_some() { DiskLimit::Bytes } else { DiskLimit::OfMemory }
    }
}

/// The outcome of closing a journal.
#[derive(Debug)]
pub enum JournalClosed {
    /// There was none, or it was closed before.
    Nothing,
    /// It is closed, and the file at the path has all entries if the store was small.
    Closed(Folded),
}

/// Opens the journal of a cache. `Err` inside: there is none, for this reason (rule 2).
///
/// # Errors
/// A fault that must end the operation: an interrupt.
pub fn open<H: Host>(
    host: &H,
    turn: &mut Turn<'_>,
    options: JournalOptions,
) -> Result<Result<OpeningOutcome, DiskError>, H::Error> {
    let tier = host.tier();
    let (time, wall) = host.both_clocks();
    let path = host.file();
    let store = match host.blocking(|| path.store(options.store_options(), wall)) {
        Ok(store) => store,
        Err(error) => return Ok(Err(error)),
    };
    let saved_at = store.latest();
    let file = turn.clock((time, wall), saved_at);
    let eager = match host.blocking(|| store.eager()) {
        Ok(eager) => eager,
        Err(error) => return Ok(Err(error)),
    };
    let journal = Journal::new(store, file, options.limit(), Arc::clone(&tier.counts));
    // Before entries come in, which have places.
    host.all_shards(|shards| {
        for tiered in shards.iter_mut() {
            tiered.shard.keep_places();
        }
    });
    let EagerReplay { restored, kept } = H::Eager::replay(host, &eager, file)?;
    *journal.kept.lock() = kept; // Rule 10 of `journal`.
    let outcome =
        OpeningOutcome { entries: journal.cold().saturating_add(restored), bytes: journal.bytes(), saved_at };
    turn.keep_clock(file);
    let journal = tier.begin_journal(journal);
    write_memory(host, journal)?; // Rule 1.
    Ok(Ok(outcome))
}

/// Rule 1: writes the entries in memory that have no record.
fn write_memory<H: Host>(host: &H, journal: &Journal) -> Result<(), H::Error> {
    let mut slice = host.begin_slice();
    let listed = HotEntries::list(host);
    for (number, tickets) in listed.shards.iter().enumerate() {
        for &ticket in tickets {
            let mut taken = Vec::new();
            host.take(number, &[ticket], &mut taken);
            for entry in taken {
                let (Ok(key), Ok(value)) = (entry.key, entry.value) else { continue };
                let write = journal.encode(host, &key, &value, entry.deadline)?;
                host.shard(number, |tiered| {
                    let known = tiered.shard.store().redeem(ticket).map(|known| known.meta.stamp);
                    if known == Some(Stamp::UNKNOWN) {
                        let meta = journal.append(&write, None, entry.deadline);
                        tiered.shard.move_place(ticket, Stamp::UNKNOWN, meta.stamp);
                    }
                });
            }
            slice.end_if_over()?;
        }
    }
    Ok(())
}

/// Closes the journal (rule 4), waiting up to `limit` for the lock of the file.
///
/// # Errors
/// The store could not be closed in order: the next opening reads its records instead, and nothing
/// is lost.
pub fn close<H: Host>(host: &H, limit: Duration) -> Result<JournalClosed, H::Error> {
    let Some(journal) = host.tier().journal() else { return Ok(JournalClosed::Nothing) };
    if journal.is_closed() {
        return Ok(JournalClosed::Nothing); // Also in a forked child: the store is its parent's.
    }
    let mut places = journal.kept.lock().clone();
    places.extend(places_in_order(host));
    let Some(store) = host.blocking(|| journal.store.write().take()) else {
        return Ok(JournalClosed::Nothing);
    };
    let wall = host.wall();
    let folded = host.blocking(|| store.fold(&places, limit, wall));
    folded.map(JournalClosed::Closed).map_err(|error| host.error(error))
}

/// The places of the entries in memory, the least worth keeping first.
fn places_in_order<M: Memory>(host: &M) -> Vec<EntryPlace> {
    let listed = HotEntries::list(host);
    let mut places = Vec::new();
    for (number, tickets) in listed.slices() {
        host.read(number, |tiered| {
            let stamps = tickets.iter().filter_map(|ticket| tiered.shard.store().redeem(*ticket));
            let known = stamps.map(|entry| entry.meta.stamp).filter(|stamp| *stamp != Stamp::UNKNOWN);
            places.extend(known.map(|stamp| EntryPlace::from_number(stamp.as_nanos())));
        });
    }
    places
}

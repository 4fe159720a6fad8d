//! The work in the background: syncs, indexes, collections. A front calls [`tend`] from a thread of
//! its own, at every interval of its flush.
//!
//! Rules:
//! 1. Nobody waits for any of this but the callers of a flush.
//! 2. A store over its limit in bytes is collected at every step, and rests for a moment only. An
//!    index is due whenever a segment is full, so a collection that waited for all indexes would
//!    never begin in a busy cache. And a rest counts waits for the disk as work.
//! 3. A collection asks memory which entries stand in the segment that goes, and afterwards gives
//!    those entries their new places, unless they were written meanwhile.
//! 4. A look-up of a key that is on the disk only may ask each index. If there are many, because
//!    writes are faster than a tenth of a core can index, upkeep takes half a core.
//! 5. Full segments are indexed during a rest as well: their records are in memory, and an opening
//!    after a crash would read them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_cache_core::listing::Ticket;
use async_cache_core::time::{Stamp, Time};
use async_cache_disk::store::{Collection, DiskStore, EntryPlace};

use crate::host::{Host, Slice};
use crate::journal_state::{DiskLimit, Journal};

/// The share of a core for indexes and collections: one part in so many.
const SHARE: u32 = 10;
/// Rule 4.
const SHARE_IF_BEHIND: u32 = 2;
const MOST_RUNS: u64 = 32;
/// Rule 5: how long full segments wait.
const MOST_REST: Duration = Duration::from_millis(50);
/// Rule 5: a segment of the usual size.
const MOST_UNINDEXED_BYTES: u64 = 8 << 20;
/// Rule 2.
const REST_OVER_LIMIT: Duration = Duration::from_millis(10);

/// What upkeep has left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upkeep {
    /// Nothing: come again after the interval.
    Done,
    /// There is more to do. Come again after this time, so that upkeep takes a tenth of a core
    /// (rule 4: or half).
    More(Duration),
}

/// The outcome of a save of a cache with a journal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JournalSaved {
    /// The entries of the cache, in memory and on the disk.
    pub entries: u64,
    /// The size of the store, in bytes.
    pub bytes: u64,
}

/// Makes every write that has returned survive a power loss.
///
/// # Errors
/// The disk has failed: nothing since the last flush is known to be durable.
pub fn flush<H: Host>(host: &H, journal: &Journal) -> Result<(), H::Error> {
    let flushed = host.blocking(|| journal.with_store(DiskStore::flush));
    flushed.unwrap_or(Ok(())).map_err(|error| host.error(error))
}

/// A save: a [`flush`]. It is counted.
///
/// # Errors
/// Those of [`flush`].
pub fn save<H: Host>(host: &H, journal: &Journal) -> Result<JournalSaved, H::Error> {
    flush(host, journal)?;
    host.tier().count_save();
    let in_memory = host.hot();
    Ok(JournalSaved { entries: in_memory.saturating_add(journal.cold()) as u64, bytes: journal.bytes() })
}

/// Syncs if there is something to sync, then does one step of the other work. `flush_every`: how
/// often a sync is due.
///
/// # Errors
/// The disk has failed; nothing is lost. Come again after the interval.
pub fn tend<H: Host>(host: &H, journal: &Journal, flush_every: Duration) -> Result<Upkeep, H::Error> {
    let started = host.time();
    let wall = host.wall();
    let rest = journal.rest_after(started);
    let is_flush_due = rest.is_none() || journal.flushed_before(started, flush_every);
    let tended = host.blocking(|| {
        journal.with_own_store(|store| {
            let flushed = if is_flush_due && store.is_dirty() { store.flush() } else { Ok(()) };
            let has_more = flushed.and_then(|()| match rest {
                None => store.maintain(wall),
                // Rule 5.
                Some(_) => Ok(store.unindexed_bytes() > MOST_UNINDEXED_BYTES && store.index(wall)?),
            });
            let share = if store.stats().runs > MOST_RUNS { SHARE_IF_BEHIND } else { SHARE };
            (has_more, share, store.next_collection())
        })
    });
    if is_flush_due {
        journal.flushed_at.store(started.as_nanos(), Ordering::Relaxed);
    }
    let (has_more, share, collection) = tended.unwrap_or((Ok(false), SHARE, None));
    let is_over = collection.is_some() && journal.limit == DiskLimit::Bytes;
    // Also after an error: a full disk gets room by a collection.
    let has_collected = match &collection {
        Some(collection) if is_over || rest.is_none() => collect(host, journal, collection),
        _ => Ok(false),
    };
    let ended = host.time();
    let pause = ended.since(started).saturating_mul(share - 1);
    let pause = if is_over { pause.min(REST_OVER_LIMIT) } else { pause }; // Rule 2.
    let is_done = matches!((&has_more, &has_collected), (Ok(false), Ok(false)));
    if rest.is_none() && !is_done {
        journal.rest_until.store(ended.later(pause).as_nanos(), Ordering::Relaxed);
    }
    has_more.map_err(|error| host.error(error))?;
    has_collected?;
    Ok(match rest {
        Some(rest) => Upkeep::More(if is_over { REST_OVER_LIMIT } else { rest.min(MOST_REST) }),
        None if is_done => Upkeep::Done,
        None => Upkeep::More(pause.min(MOST_REST)),
    })
}

impl Journal {
    fn flushed_before(&self, now: Time, interval: Duration) -> bool {
        now.since(Time::from_nanos(self.flushed_at.load(Ordering::Relaxed))) >= interval
    }

    /// How long the upkeep still rests.
    fn rest_after(&self, now: Time) -> Option<Duration> {
        let until = Time::from_nanos(self.rest_until.load(Ordering::Relaxed));
        (until > now).then(|| until.since(now))
    }
}

/// Rule 3. Returns whether anything was collected.
fn collect<H: Host>(host: &H, journal: &Journal, collection: &Collection) -> Result<bool, H::Error> {
    let stamp = |place: EntryPlace| Stamp::from_nanos(place.to_number());
    let places = collection.places();
    let range = stamp(*places.start())..=stamp(*places.end());
    let mut in_memory: Vec<(Stamp, usize, Ticket)> = Vec::new();
    let mut slice = host.begin_slice();
    for number in 0..host.shards() {
        let mut of_shard = Vec::new();
        host.read(number, |tiered| tiered.shard.placed_within(range.clone(), &mut of_shard));
        in_memory.extend(of_shard.into_iter().map(|(stamp, ticket)| (stamp, number, ticket)));
        slice.rest_if_over();
    }
    in_memory.sort_unstable_by_key(|(stamp, ..)| *stamp);
    let mut places: Vec<EntryPlace> =
        in_memory.iter().map(|(stamp, ..)| EntryPlace::from_number(stamp.as_nanos())).collect();
    // Rule 10 of `journal`.
    places.extend(journal.kept.lock().iter().filter(|place| collection.places().contains(place)));
    places.sort_unstable();
    let wall = host.wall();
    let collected = host.blocking(|| journal.with_store(|store| store.collect(collection, &places, wall)));
    let Some(collected) = collected else { return Ok(false) };
    let moved = collected.map_err(|error| host.error(error))?;
    for (from, to) in moved {
        journal.move_kept(from, to);
        let from = stamp(from);
        let first = in_memory.partition_point(|(stamp, ..)| *stamp < from);
        for (_, number, ticket) in in_memory[first..].iter().take_while(|(stamp, ..)| *stamp == from) {
            host.shard(*number, |tiered| tiered.shard.move_place(*ticket, from, stamp(to)));
        }
        slice.rest_if_over();
    }
    Ok(true)
}

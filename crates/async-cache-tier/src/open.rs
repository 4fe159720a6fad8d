//! Opening a file under a cache, with any content in memory and any open snapshot.
//!
//! There is a single way, for an empty cache and for a cache in full use:
//! 1. writes that were lost before the opening began are recorded, and forgotten again: if the file
//!    has the keys, its entries are wanted (`writes`, rule 3);
//! 2. entries whose keys only the front can compare are taken in ([`EagerEntries::restore`]);
//! 3. if another snapshot is open, the file is opened as the *union* of both: cold entries whose
//!    keys the file lacks stay, and of a key in both the file's entry counts;
//! 4. the keys in memory are listed, and each is looked up in the file, with nothing locked.
//!    Entries in memory stay: they are newer, so the ranks of their keys leave the cold set;
//! 5. the snapshot is put under all shards at once. Keys written since step 4 are copied under the
//!    locks, and so are lost writes and deleted keys;
//! 6. until those are looked up in the file too, the snapshot *settles*: it serves nothing, so an
//!    entry that a newer entry has overtaken is never served.
//!
//! The cache has at most `maxsize` entries afterwards: the coldest of the file leave. Expired
//! entries leave first, and take no room.
//!
//! The next save does not replace a file that cannot be read now, unless the save joins the file
//! (`save`, rule 6). An interrupt before step 5 leaves the cache unchanged.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_cache_core::cold::Rank;
use async_cache_core::ledger::LostWrites;
use async_cache_core::listing::Ticket;
use async_cache_core::removed::Removed;
use async_cache_core::time::{FileClock, Stamp};
use async_cache_disk::{DiskError, DiskErrorKind, KeyKind, Snapshot, Tombstones};

use crate::eager::EagerEntries;
use crate::host::{Host, Slice, Under};
use crate::hot::HotEntries;
use crate::opened::Opened;
use crate::save::write_after;
use crate::tier::Turn;
use crate::union::union;
use crate::writes::{Noted, NotedFor, note_lost, record_overwritten};

/// The outcome of an opening.
#[derive(Debug, Clone, Copy)]
pub struct OpeningOutcome {
    /// Entries that came in. Entries that stay in the file are counted, not read.
    pub entries: usize,
    /// The size of the file, in bytes.
    pub bytes: u64,
    /// When the file was saved, by its own clock, in nanoseconds since the Unix epoch.
    pub saved_at: u64,
}

/// Separates the user's version from the function that owns a file, in the version tag of the file.
pub const OWNER: char = '\u{1F}';

/// Whether a file could not be opened because its owner differs: another function, or a function
/// instead of a cache, or the other way round. Such a file belongs to another cache, and is not an
/// older file of this cache.
pub fn is_of_other_owner(error: &DiskError) -> bool {
    let owner = |tag: &str| tag.split_once(OWNER).map(|(_, owner)| owner.to_owned());
    match error.kind() {
        DiskErrorKind::OtherVersion { found, wanted } => owner(found) != owner(wanted),
        _ => false,
    }
}

/// Opens the file of a cache. `None` if there is none.
///
/// # Errors
/// The file cannot be opened, or an interrupt: the cache continues with its present entries.
pub fn open<H: Host>(host: &H, turn: Turn<'_>) -> Result<Option<OpeningOutcome>, H::Error> {
    // Dropped after the turn has ended: a user's destructor may save.
    let mut noted = Noted::default();
    let mut turn = turn;
    open_in_turn(host, &mut turn, &mut noted)
}

fn open_in_turn<H: Host>(
    host: &H,
    turn: &mut Turn<'_>,
    noted: &mut Noted<H>,
) -> Result<Option<OpeningOutcome>, H::Error> {
    let tier = host.tier();
    note_lost(host, NotedFor::Opening, noted)?; // Step 1.
    let before = tier.deleted_before();
    if before.is_some() {
        let file = turn.clock(host.both_clocks(), 0);
        turn.keep_clock(file);
    }
    let path = host.file();
    let found = host.blocking(|| path.open());
    tier.unread.store(found.as_ref().is_err_and(is_unread), Ordering::Relaxed);
    let Some(snapshot) = found.map_err(|error| host.error(error))? else { return Ok(None) };
    // Until the file is adopted: after an interrupt, the next save must not replace the file. A
    // save that merges joins it.
    tier.unread.store(before.is_none(), Ordering::Relaxed);
    let file = turn.clock(host.both_clocks(), snapshot.saved_at());
    let mut opening =
        OpeningOutcome { entries: 0, bytes: snapshot.file_bytes(), saved_at: snapshot.saved_at() };
    let eager = H::Eager::restore(host, &snapshot, file, before.as_ref())?; // Step 2.
    let entries = snapshot.len() as usize + eager.restored + eager.refused;
    write_after(host, &snapshot);

    let older = host.read(0, |tiered| tiered.opened().cloned());
    let older = older.filter(|older| older.snapshot().file_id() != snapshot.file_id());
    let union = match &older {
        Some(older) => union(host, older, &snapshot, file)?, // Step 3.
        None => None,
    };
    let (under, from_older) = match union {
        Some(union) => (union.snapshot, union.older),
        None => (snapshot.clone(), Vec::new()),
    };
    let opened = Arc::new(opened_within(host, under, file));
    let adoption = Adoption { host, opened: &opened, older: older.as_ref(), from_older: &from_older };
    let ranks = adoption.look_up()?; // Step 4.
    note_lost(host, NotedFor::Opening, noted)?;
    reclaim(host, noted);
    // Nothing else is in memory, so every entry of the file is in the cache, if they fit.
    let has_all = ranks.iter().map(Vec::len).sum::<usize>() == eager.restored
        && host.maxsize().is_none_or(|maxsize| entries <= maxsize)
        && eager.is_complete();
    let late = adoption
        .adopt(&ranks, before.as_ref(), |late| (has_all && late.is_empty()).then(|| snapshot.file_id()));
    tier.unread.store(false, Ordering::Relaxed);
    tier.loaded(entries, host.maxsize());
    turn.keep_clock(file);
    let settled = adoption.settle(&late);
    noted.lost.extend(late.lost);
    settled?;
    for why in &eager.undecodable {
        opened.report(host, &"an entry whose key is an object", why);
    }
    let cold = opened.cold();
    let older = (0..).zip(&from_older).filter(|(rank, _)| cold.contains(*rank)).count();
    opening.entries = eager.restored + cold.live().saturating_sub(older);
    Ok(Some(opening))
}

/// A snapshot with at most the last `maxsize` entries cold. If some must make room for entries in
/// memory, the expired entries leave first.
fn opened_within<H: Host>(host: &H, snapshot: Snapshot, file: FileClock) -> Opened {
    let in_memory = host.hot();
    let is_short = host.maxsize().is_some_and(|maxsize| snapshot.len() as usize + in_memory > maxsize);
    let opened = Opened::new(snapshot, file, host.maxsize(), Arc::clone(&host.tier().counts));
    if is_short && in_memory > 0 {
        // Not else: opening takes as long for ten million entries as for ten.
        opened.reclaim_all(host.time());
    }
    opened
}

/// Removes expired entries from memory, so that they take no room from the entries that come in.
fn reclaim<H: Host>(host: &H, noted: &mut Noted<H>) {
    for number in 0..host.shards() {
        let (now, mut removed) = (host.now(), Removed::default());
        host.shard(number, |tiered| tiered.shard.reclaim_all(now, &mut removed));
        noted.expired.push(removed);
    }
}

/// Whether a save must not replace the existing file, because the file may be readable the next
/// time.
fn is_unread(error: &DiskError) -> bool {
    matches!(error.kind(), DiskErrorKind::Io | DiskErrorKind::Trust) || is_of_other_owner(error)
}

/// Steps 4 to 6.
struct Adoption<'a, H: Host> {
    host: &'a H,
    opened: &'a Arc<Opened>,
    /// The previous snapshot, if it is another file.
    older: Option<&'a Arc<Opened>>,
    /// The ranks in `older` of the first entries of `opened`.
    from_older: &'a [Rank],
}

/// Events between the look-ups and the locks.
struct Late<H: Host> {
    /// Keys that were written.
    written: Vec<H::Key>,
    /// Writes that were lost.
    lost: Vec<LostWrites<H::Key>>,
    /// Keys that were deleted.
    deleted: Option<Tombstones>,
    /// The previous snapshots of the shards, to be dropped with nothing locked.
    before: Vec<Option<Arc<Opened>>>,
}

impl<H: Host> Late<H> {
    fn is_empty(&self) -> bool {
        self.written.is_empty() && self.lost.iter().all(LostWrites::is_empty)
    }
}

type RankedTickets = Vec<(Ticket, Option<Rank>)>;

impl<H: Host> Adoption<'_, H> {
    /// Step 4: the ranks of the keys in memory, for each shard.
    fn look_up(&self) -> Result<Vec<RankedTickets>, H::Error> {
        let hot = HotEntries::list(self.host);
        let (mut slice, mut bytes) = (self.host.begin_slice(), Vec::new());
        let mut ranks = Vec::with_capacity(hot.shards.len());
        for (number, tickets) in hot.shards.iter().enumerate() {
            let mut of_shard = Vec::with_capacity(tickets.len());
            for &ticket in tickets {
                let key = self.host.read(number, |tiered| {
                    let entry = tiered.shard.store().redeem(ticket)?;
                    self.host.copy_key(entry.key)
                });
                let Some(key) = key else { continue };
                of_shard.push((ticket, self.take_rank(&key, &mut bytes)?));
                slice.end_if_over()?;
            }
            ranks.push(of_shard);
        }
        Ok(ranks)
    }

    /// The rank of a key in memory. The rank leaves the cold set at once: the rest is done under
    /// the locks in a single step.
    fn take_rank(&self, key: &H::Key, bytes: &mut Vec<u8>) -> Result<Option<Rank>, H::Error> {
        bytes.clear();
        if !self.host.canonical_key(key, bytes)? {
            return Ok(None);
        }
        let rank = self.opened.rank(self.host, bytes, |bytes| self.host.is_key_of(key, bytes));
        if let Some(rank) = rank {
            self.opened.cold().take(rank);
        }
        Ok(rank)
    }

    /// Step 5. `holds` says which file the cache has all of.
    fn adopt(
        &self,
        ranks: &[RankedTickets],
        before: Option<&Tombstones>,
        holds: impl FnOnce(&Late<H>) -> Option<[u8; 16]>,
    ) -> Late<H> {
        self.host.all_shards(|shards| {
            self.forget_touched(shards);
            let mut late = Late { written: vec![], lost: vec![], deleted: None, before: vec![] };
            for (tiered, ranks) in shards.iter_mut().zip(ranks) {
                let (unknown, before) = tiered.open(Arc::clone(self.opened), ranks);
                let entries = unknown.iter().filter_map(|ticket| tiered.shard.store().redeem(*ticket));
                late.written.extend(entries.filter_map(|entry| self.host.copy_key(entry.key)));
                late.lost.push(tiered.shard.take_lost());
                late.before.push(before);
            }
            late.deleted = before.map(|before| self.host.tier().opened(holds(&late), before));
            if late.is_empty() && late.deleted.as_ref().is_none_or(Tombstones::is_empty) {
                self.opened.settle(); // Step 6 has nothing to look up.
            }
            late
        })
    }

    /// Removes the older entries that were used while the union was made (`union`, rule 5).
    fn forget_touched(&self, shards: &[&mut Under<H>]) {
        let same = |older: &&Arc<Opened>| {
            shards.first().and_then(|tiered| tiered.opened()).is_some_and(|now| Arc::ptr_eq(now, older))
        };
        let older = self.older.filter(|older| same(older));
        for (rank, &older_rank) in (0..).zip(self.from_older) {
            if older.is_none_or(|older| !older.cold().contains(older_rank)) {
                self.opened.cold().take(rank);
            }
        }
    }

    /// Step 6.
    fn settle(&self, late: &Late<H>) -> Result<(), H::Error> {
        let settled = self.look_up_late(late);
        if settled.is_err() {
            // Some newer keys are unknown: nothing of this snapshot may be served, now or after a
            // save.
            let tier = self.host.tier();
            tier.unread.store(!tier.keeps_writes(), Ordering::Relaxed);
            drop(
                self.host
                    .all_shards(|shards| shards.iter_mut().map(|tiered| tiered.close()).collect::<Vec<_>>()),
            );
            return settled;
        }
        self.opened.settle();
        Ok(())
    }

    fn look_up_late(&self, late: &Late<H>) -> Result<(), H::Error> {
        let (tier, mut bytes) = (self.host.tier(), Vec::new());
        for key in &late.written {
            self.take_rank(key, &mut bytes)?;
        }
        for (key, until) in late.lost.iter().flat_map(LostWrites::overwritten) {
            if let Some(key) = self.host.file_key(key)? {
                record_overwritten(tier, &key, until);
            }
            self.take_rank(key, &mut bytes)?;
        }
        if let Some(deleted) = &late.deleted {
            for rank in self.opened.snapshot().ranks_of(deleted) {
                self.opened.cold().take(rank);
            }
        }
        Ok(())
    }
}

/// Whether an entry of the eager section may be taken in, for [`EagerEntries::restore`]: it was
/// neither deleted nor overwritten since the opening began.
///
/// # Errors
/// An interrupt.
pub fn is_wanted<H: Host>(
    host: &H,
    before: Option<&Tombstones>,
    key: &[u8],
    stamp: Stamp,
) -> Result<bool, H::Error> {
    let Some(before) = before else { return Ok(true) };
    // Decoding lets other threads write.
    note_lost(host, NotedFor::Opening, &mut Noted::default())?;
    Ok(!host.tier().is_deleted_since(before, KeyKind::Eager, key, stamp))
}

//! The state of a cache beside its shards: the turn, the facts about the file, and counters.
//!
//! Rules:
//! 1. one save or opening at a time: the *turn*. The turn also owns the clock of the file, which
//!    never runs back from one save or opening to the next;
//! 2. the mutexes here are held for a few instructions. A shard may be locked when a mutex is
//!    taken; while a mutex is held, nothing else is locked and no user code runs;
//! 3. a snapshot is closed only by the owner of the turn, or by clearing the cache. So a snapshot
//!    without cold entries does not vanish under a save that has copied its cold set.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_cache_core::cold::ColdSet;
use async_cache_core::listing::Ticket;
use async_cache_core::probe::Epoch;
use async_cache_core::removed::Removed;
use async_cache_core::shard::{Cleared, Shard, Trust};
use async_cache_core::stats::Stats;
use async_cache_core::time::{FileClock, Time};
use async_cache_disk::{Known, Snapshot};
use parking_lot::{Condvar, Mutex};
use std::sync::OnceLock;

use crate::counts::TierCounts;
use crate::journal_state::Journal;
use crate::opened::Opened;
use crate::suspect_records::SuspectRecords;

/// The state of a cache beside its shards.
#[derive(Debug, Default)]
pub struct Tier {
    turns: Mutex<Turns>,
    /// Notified when a turn has ended.
    ended: Condvar,
    /// Whether deletes and lost writes are kept, for saves that merge. Set once.
    keeps_writes: AtomicBool,
    /// Deletes and lost writes that no save has recorded yet, and facts about others from earlier
    /// saves.
    pub(crate) known: Mutex<Known>,
    /// Whether the file could not be read when it was opened last: then a save must not replace it.
    pub(crate) unread: AtomicBool,
    /// Entries of the last loaded backup that did not fit into `maxsize`, until a save drops them.
    no_room: AtomicU64,
    /// The snapshot that was opened last, if it has eager records that the next save must copy.
    pub(crate) to_pass_on: Mutex<Option<Snapshot>>,
    /// [`Shard::changes`] of all shards at the beginning of the last successful save.
    saved_changes: AtomicU64,
    journal: OnceLock<Journal>,
    pub(crate) suspects: SuspectRecords,
    pub(crate) counts: Arc<TierCounts>,
}

/// The state of the turn. A flag and not a lock that is held, because a fork would copy the held
/// lock into a child without its owner.
#[derive(Debug, Default)]
struct Turns {
    /// Whether a save or an opening has the turn.
    is_taken: bool,
    /// The clock of the file that was opened or saved last.
    clock: Option<FileClock>,
}

/// The turn of one save or opening. Dropping it ends the turn.
#[derive(Debug)]
pub struct Turn<'t>(&'t Tier);

impl Turn<'_> {
    /// The file's clock at an instant of both clocks: never behind an earlier reading, nor behind
    /// `saved_at`.
    pub(crate) fn clock(&self, (time, wall): (Time, u64), saved_at: u64) -> FileClock {
        let kept = self.0.turns.lock().clock;
        let not_before = kept.map_or(0, |then| then.adjusted(time, wall).file_now());
        FileClock::start(time, wall, saved_at.max(not_before))
    }

    pub(crate) fn keep_clock(&mut self, file: FileClock) {
        self.0.turns.lock().clock = Some(file);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.end_turn();
    }
}

impl Tier {
    /// Waits for the turn.
    pub fn turn(&self) -> Turn<'_> {
        let mut turns = self.turns.lock();
        self.ended.wait_while(&mut turns, |turns| turns.is_taken);
        turns.is_taken = true;
        Turn(self)
    }

    /// The turn, if no save or opening has it.
    pub fn try_turn(&self) -> Option<Turn<'_>> {
        let was_taken = std::mem::replace(&mut self.turns.lock().is_taken, true);
        (!was_taken).then(|| Turn(self))
    }

    /// Ends the turn in a forked child, where the owner of the turn is a thread of the parent.
    /// Elsewhere, dropping the [`Turn`] ends it.
    pub fn end_turn(&self) {
        self.turns.lock().is_taken = false;
        self.ended.notify_one();
    }

    /// Whether deletes and lost writes are kept, for saves that merge.
    #[inline]
    pub fn keeps_writes(&self) -> bool {
        self.keeps_writes.load(Ordering::Relaxed)
    }

    /// Keeps deletes and lost writes from now on; the shards have to keep the times of writing
    /// ([`Shard::keep_times`]).
    pub fn keep_writes(&self) {
        self.keeps_writes.store(true, Ordering::Relaxed);
    }

    /// Counts an entry of a tier beyond the host that does not decode.
    pub fn count_undecodable(&self) {
        self.counts.undecodable.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether an entry of a snapshot or a backup may be served without asking the tier beyond the
    /// host. `Covered` in a cache without a tier beyond the host. See [`crate::suspects`].
    pub fn trust_in_files(&self) -> Trust {
        self.suspects.trust_in_files()
    }

    /// Makes the next save set the existing file aside, unless the save joins the file.
    pub fn keep_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// A backup with so many entries was loaded.
    pub fn loaded(&self, entries: usize, maxsize: Option<usize>) {
        self.did_not_fit(maxsize.map_or(0, |maxsize| entries.saturating_sub(maxsize)) as u64);
    }

    /// Records how many entries of the loaded backup did not fit into the cache.
    pub fn did_not_fit(&self, entries: u64) {
        self.no_room.store(entries, Ordering::Relaxed);
    }

    /// The journal of the cache, open or closed, if it has one.
    #[inline]
    pub fn journal(&self) -> Option<&Journal> {
        self.journal.get()
    }

    /// Every write goes to this journal from now on. A cache gets one journal in its life.
    pub(crate) fn begin_journal(&self, journal: Journal) -> &Journal {
        self.suspects.journal_begins(journal.latest());
        self.journal.get_or_init(|| journal)
    }

    /// Called when a save has replaced the backup. Returns how many entries of others it dropped:
    /// those that did not fit when the backup was loaded. They are counted.
    pub fn replaced_backup(&self) -> u64 {
        let dropped = self.no_room.swap(0, Ordering::Relaxed);
        self.count_dropped(dropped);
        dropped
    }

    pub(crate) fn count_dropped(&self, entries: u64) {
        self.counts.dropped.fetch_add(entries, Ordering::Relaxed);
    }

    pub(crate) fn forget_no_room(&self) {
        self.no_room.store(0, Ordering::Relaxed);
    }

    /// Counts a successful save.
    pub fn count_save(&self) {
        self.counts.saves.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a failed save.
    pub fn count_save_error(&self) {
        self.counts.save_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether nothing has changed since the last successful save. `changes`: the sum of
    /// [`Shard::changes`].
    pub fn is_saved(&self, changes: u64) -> bool {
        self.saved_changes.load(Ordering::Relaxed) == changes
    }

    /// Called after a successful save that began when the sum of [`Shard::changes`] was `changes`.
    pub fn saved(&self, changes: u64) {
        self.saved_changes.store(changes, Ordering::Relaxed);
    }

    /// Adds the counters of the tier.
    pub fn add_to(&self, stats: &mut Stats) {
        self.counts.add_to(stats);
    }

    /// Sets the counts to zero, and forgets the records to pass on: the cache is cleared.
    pub fn reset(&self) {
        *self.to_pass_on.lock() = None;
        self.no_room.store(0, Ordering::Relaxed);
        self.counts.reset();
    }
}

/// A shard, and the snapshot with its cold entries.
#[derive(Debug)]
pub struct Tiered<K, V, R> {
    /// The shard.
    pub shard: Shard<K, V, R>,
    /// The same for all shards of a cache, except while a snapshot is opened or closed.
    opened: Option<Arc<Opened>>,
}

/// The snapshot that was open under a shard at some moment.
#[derive(Debug, Clone)]
pub struct UnderShard {
    /// Shows later whether the snapshot is still the same.
    pub epoch: Epoch,
    /// The snapshot.
    pub opened: Option<Arc<Opened>>,
}

impl<K, V, R> Tiered<K, V, R> {
    /// A shard without a snapshot.
    pub fn new(shard: Shard<K, V, R>) -> Self {
        Self { shard, opened: None }
    }

    /// The snapshot that is open under the shard.
    #[inline]
    pub fn opened(&self) -> Option<&Arc<Opened>> {
        self.opened.as_ref()
    }

    /// The snapshot that is open under the shard, with its epoch.
    #[inline]
    pub fn under(&self) -> UnderShard {
        UnderShard { epoch: self.shard.epoch(), opened: self.opened.clone() }
    }

    /// Opens a snapshot under the shard; `ranks` are the known ranks of the keys in memory. Returns
    /// the entries in memory with unknown ranks, and the previous snapshot, to be dropped with
    /// nothing locked.
    pub(crate) fn open(
        &mut self,
        opened: Arc<Opened>,
        ranks: &[(Ticket, Option<u32>)],
    ) -> (Vec<Ticket>, Option<Arc<Opened>>) {
        let late = self.shard.open(Arc::clone(opened.cold()), ranks);
        (late, self.opened.replace(opened))
    }

    /// Closes a snapshot that has no cold entries, or whose entries are given up.
    pub(crate) fn close(&mut self) -> (Removed<K, V>, Option<Arc<Opened>>) {
        let opened = self.opened.take();
        (self.shard.close_snapshot(), opened)
    }

    /// Removes everything, closes the snapshot, and resets the counters of the shard. Drop the
    /// result with nothing locked.
    pub fn clear(&mut self) -> (Cleared<K, V>, Option<Arc<Opened>>) {
        (self.shard.clear(), self.opened.take())
    }

    /// Removes everything and closes the snapshot. Drop the result with nothing locked.
    pub fn remove_all(&mut self) -> (Cleared<K, V>, Option<Arc<Opened>>) {
        (self.shard.remove_all(), self.opened.take())
    }

    /// The cold entries, if a snapshot is open.
    pub fn cold(&self) -> Option<&ColdSet> {
        self.opened.as_deref().map(|opened| &**opened.cold())
    }
}

impl Tier {
    /// Called when the eager records copied by a save are in its file. Does nothing if the cache
    /// was cleared or opened another file meanwhile.
    pub(crate) fn passed_on(&self, from: Option<&Snapshot>, to: &Snapshot) {
        let mut kept = self.to_pass_on.lock();
        if kept.is_some() && kept.as_ref().map(Snapshot::file_id) == from.map(Snapshot::file_id) {
            *kept = to.has_eager().then(|| to.clone());
        }
    }
}

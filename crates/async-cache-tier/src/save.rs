//! Saving a cache to its file while the cache stays in use.
//!
//! A save is consistent for each single entry: it writes a value that the entry had during the
//! save. Rules:
//! 1. one save or opening of a cache at a time: the turn ([`Tier::turn`](crate::Tier::turn));
//! 2. the cold set is copied first, then the entries in memory are listed. An entry may be in both,
//!    if it was read from the snapshot in between: it is removed from the copy, so the file has it
//!    once. An entry that is not in the list keeps its cold record: this was its value when the
//!    save began;
//! 3. if the cache is cleared before the copy has been compared with the list, the copy is
//!    discarded: entries written since carry no ranks, so duplicates could not be detected;
//! 4. cold entries are written first, with their bytes in the old file. The entries in memory
//!    follow, the most worth keeping last (`hot`);
//! 5. the file's clock never runs back from one save or opening to the next ([`FileClock`]);
//! 6. a file that could not be read when it was opened, or that belongs to another function, is set
//!    aside by the save, even if it can be read by then. But if saves merge and the file can be
//!    joined by then, it is joined: a temporary error at the start, such as too many open files,
//!    costs nothing;
//! 7. if saves merge, all of this happens under the lock of the path, and for each key the later
//!    write wins (`async_cache_disk::Save` has the steps);
//! 8. once the save has succeeded, cold entries are read from the new file and the old file is
//!    closed. A cold entry that is not in the new file is a miss from then on: another process
//!    deleted it or wrote it later.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_cache_core::cold::{Frozen, Rank};
use async_cache_core::ledger::SaveEnd;
use async_cache_core::listing::Ticket;
use async_cache_core::time::{FileClock, Stamp, Time};
use async_cache_disk::{
    ColdEntries, DiskError, Filling, FinishedSave, Item, Joining, Known, Loss, Merged, Ours, Output, Pushed,
    Snapshot, WriteOptions,
};

use crate::eager::EagerEntries;
use crate::encoded::{Encoded, TooLarge, times};
use crate::host::{Host, Refusal, Slice, Taken, is_expired};
use crate::hot::HotEntries;
use crate::open::is_of_other_owner;
use crate::opened::Opened;
use crate::read::DAMAGED;
use crate::tier::{Tiered, Turn};
use crate::writes::{Noted, NotedFor, note_lost};

/// The outcome of a save.
#[derive(Debug)]
pub struct SaveOutcome {
    /// The file.
    pub file: async_cache_disk::SavedFile,
    /// Entries of this process with a fault: they should have been written, and could not.
    pub left_out: LeftOut,
    /// Entries of this process left out because other processes may have deleted them.
    pub unsure: u64,
    /// Entries of others not copied because [`Host::allows`] refuses their values.
    pub refused: u64,
    /// Entries of others dropped for lack of room.
    pub dropped: u64,
    /// `maxsize`, if the file had more entries: another process wants to keep more.
    pub shrunk_to: Option<usize>,
    /// Entries of others dropped because this process may have deleted them.
    pub unsure_of_others: u64,
    /// Copied entries of others.
    pub copied: u64,
}

/// Entries that a save could not write.
#[derive(Debug, Default)]
pub struct LeftOut {
    /// How many.
    pub count: u64,
    /// The name of the first, if the front can display it, and the reason.
    pub first: Option<(Option<String>, String)>,
}

impl LeftOut {
    fn note(&mut self, name: impl FnOnce() -> Option<String>, why: String) {
        self.count += 1;
        if self.first.is_none() {
            self.first = Some((name(), why));
        }
    }

    fn too_large(&mut self, entries: TooLarge) {
        self.count += entries.count;
        if let (None, Some(error)) = (&self.first, entries.first) {
            self.first = Some((None, error.to_string()));
        }
    }
}

/// Saves every entry that has not expired. A successful save is counted.
///
/// # Errors
/// The file could not be written, or an interrupt. The previous file is intact.
pub fn save<H: Host>(host: &H, turn: Turn<'_>) -> Result<SaveOutcome, H::Error> {
    // Dropped after the turn has ended: a user's destructor may save.
    let mut noted = Noted::default();
    let mut turn = turn;
    save_in_turn(host, &mut turn, &mut noted)
}

fn save_in_turn<H: Host>(
    host: &H,
    turn: &mut Turn<'_>,
    noted: &mut Noted<H>,
) -> Result<SaveOutcome, H::Error> {
    let tier = host.tier();
    let save = host.begin_save()?; // Rule 7.
    if save.merges() {
        note_lost(host, NotedFor::Save, noted)?;
    }
    // Rule 5.
    let file = turn.clock(host.both_clocks(), save.theirs().map_or(0, Snapshot::saved_at));
    if let Some(theirs) = save.theirs() {
        write_after(host, theirs);
    }
    // Rule 6.
    let is_unread = tier.unread.load(Ordering::Relaxed) && save.theirs().is_none();
    let sets_aside = is_unread || save.refusal().is_some_and(is_of_other_owner);
    let opened = host.read(0, |tiered| tiered.opened().cloned());
    if let Some(opened) = &opened {
        // An expired entry means nothing to other processes, whether a write has reclaimed it or
        // not.
        opened.reclaim_all(host.time());
    }
    let base = opened.as_ref().map(|opened| opened.snapshot());
    let mut options = WriteOptions::new(file.file_now());
    if let (Some(opened), Some(base)) = (&opened, &base)
        && opened.is_mostly_cold()
    {
        options = options.dictionary_of(base);
    }
    if sets_aside {
        options = options.keep_target();
    }
    let known = if save.merges() { tier.known.lock().clone() } else { Known::default() };
    let joining = blocking(host, || save.write(options, known, base.as_ref()))?;

    let frozen = opened.as_ref().map(|opened| opened.cold().freeze()); // Rule 2.
    let listed = HotEntries::list(host);
    let cold = match (opened, frozen) {
        (Some(opened), Some(frozen)) => only_cold(host, &opened, frozen, &listed).map(|it| (opened, it)),
        _ => None,
    };
    let mut saving = Saving { host, file, now: host.time(), hot: listed, cold, left_out: LeftOut::default() };
    let (mut output, mut eager) = saving.join(joining)?;
    let not_carried = saving.carry(&mut output)?; // Rule 4.
    saving.write_hot(&mut output, &mut eager)?;
    let mut filling: Filling = blocking(host, || output.fill())?;
    eager.fill(host, &mut filling)?;
    let known_eager = tier.to_pass_on.lock().clone();
    let finished = blocking(host, || filling.finish())?;
    turn.keep_clock(file);
    Ok(saving.settle(finished, &eager, not_carried, known_eager.as_ref()))
}

/// Makes writes from now on later than every entry of a file.
pub(crate) fn write_after<H: Host>(host: &H, snapshot: &Snapshot) {
    let until = Stamp::from_nanos(snapshot.written_until());
    for number in 0..host.shards() {
        host.shard(number, |tiered| tiered.shard.not_before(until));
    }
}

/// Removes the entries in memory from a copy of the cold set. `None`: the snapshot was closed (rule
/// 3).
fn only_cold<H: Host>(
    host: &H,
    opened: &Arc<Opened>,
    mut frozen: Frozen,
    listed: &HotEntries,
) -> Option<Frozen> {
    /// The number of entries visited under a single lock; takes about as long as a slice.
    const AT_ONCE: usize = 4096;
    let is_open = |tiered: &Tiered<_, _, _>| tiered.opened().is_some_and(|now| Arc::ptr_eq(now, opened));
    let mut slice = host.begin_slice();
    for (number, tickets) in listed.shards.iter().enumerate() {
        for some in tickets.chunks(AT_ONCE) {
            host.read(number, |tiered| {
                let origin = |ticket: &Ticket| tiered.shard.store().redeem(*ticket)?.meta.origin;
                some.iter().filter_map(origin).for_each(|rank| frozen.remove(rank));
            });
            slice.rest_if_over();
        }
        if !host.read(number, |tiered| is_open(tiered)) {
            return None;
        }
    }
    Some(frozen)
}

/// A save, once the entries are listed.
struct Saving<'h, H: Host> {
    host: &'h H,
    file: FileClock,
    now: Time,
    hot: HotEntries,
    /// The cold entries, which are only in the snapshot.
    cold: Option<(Arc<Opened>, Frozen)>,
    left_out: LeftOut,
}

impl<H: Host> Saving<'_, H> {
    /// Notes every entry of this process, and copies the winning entries of the existing file.
    fn join(&self, mut joining: Joining) -> Result<(Output, H::Eager), H::Error> {
        let host = self.host;
        let mut eager = H::Eager::begin(host, &joining, self.file)?;
        if joining.is_needed() {
            let (mut bytes, mut slice) = (Vec::new(), host.begin_slice());
            self.hot.take(host, |Taken { key, stamp, .. }| {
                let Ok(key) = key else { return Ok(()) };
                bytes.clear();
                if host.canonical_key(&key, &mut bytes)? {
                    joining.note(&bytes, stamp.as_nanos());
                } else {
                    eager.note(host, &key, stamp)?;
                }
                slice.end_if_over()
            })?;
        }
        let (cold, maxsize, allows) = (&self.cold, host.maxsize(), host.allows());
        let noted = eager.noted();
        let base = cold.as_ref().map(|(opened, _)| opened.snapshot());
        let mut output = blocking(host, move || {
            let contains = |rank| cold.as_ref().is_some_and(|(_, frozen)| frozen.contains(rank));
            let cold = base.as_ref().map(|snapshot| ColdEntries { snapshot, contains: &contains });
            joining.join(&Ours { maxsize, eager: noted, cold, allows: &allows })
        })?;
        eager.join(host, &mut output)?;
        Ok((output, eager))
    }

    /// Rule 4: copies the cold entries, as bytes. Returns the ranks of the entries that the merge
    /// left out.
    fn carry(&self, output: &mut Output) -> Result<Vec<Rank>, H::Error> {
        let Some((opened, frozen)) = &self.cold else { return Ok(Vec::new()) };
        let mut carried = Carried::default();
        let (file, allows, base) = (self.file, self.host.allows(), opened.snapshot());
        blocking(self.host, || carried.copy(output, (opened, &base), frozen, file, allows))?;
        for (ranks, why) in carried.lost {
            ranks.for_each(|rank| opened.lose(self.host, rank, why));
        }
        Ok(carried.left_out)
    }

    /// Encodes and writes the entries in memory.
    fn write_hot(&mut self, output: &mut Output, eager: &mut H::Eager) -> Result<(), H::Error> {
        let (mut encoded, mut slice) = (Encoded::default(), self.host.begin_slice());
        let hot = std::mem::take(&mut self.hot.shards);
        let hot = HotEntries { shards: hot };
        hot.take(self.host, |taken| {
            if slice.is_over() || encoded.is_full() {
                self.flush(&mut encoded, output)?;
                slice.end()?;
            }
            self.encode(taken, &mut encoded, output, eager)
        })?;
        self.flush(&mut encoded, output)
    }

    fn flush(&mut self, encoded: &mut Encoded, output: &mut Output) -> Result<(), H::Error> {
        let too_large = blocking(self.host, || encoded.write_to(output))?;
        self.left_out.too_large(too_large);
        Ok(())
    }

    /// Encodes an entry, unless it has expired or the merge leaves it out.
    fn encode(
        &mut self,
        Taken { key, value, deadline, stamp }: Taken<H::Key, H::Value>,
        encoded: &mut Encoded,
        output: &mut Output,
        eager: &mut H::Eager,
    ) -> Result<(), H::Error> {
        let host = self.host;
        let has_expired = deadline.has_passed(self.now);
        let key = match key {
            Ok(key) => key,
            Err(why) => {
                if !has_expired {
                    self.left_out.note(|| None, why);
                }
                return Ok(());
            }
        };
        if has_expired {
            return self.leave_out(output, &key, stamp).map(drop);
        }
        let times = times(self.file.deadline_to_file(deadline), stamp);
        let pushed = match &value {
            Ok(value) => encoded.push(host, &key, value, times),
            Err(why) => Err(Refusal::Entry(why.clone())),
        };
        match pushed {
            Ok(()) => {
                if output.merges()
                    && let Some(bytes) = encoded.last_eager_key()
                    && !eager.admits(host, output, &key, bytes, stamp)?
                {
                    encoded.pop();
                }
            }
            Err(Refusal::End(error)) => return Err(error),
            Err(Refusal::Entry(why)) => {
                if self.leave_out(output, &key, stamp)? {
                    self.left_out.note(|| host.name_of_key(&key), why);
                }
            }
        }
        Ok(())
    }

    /// Reports an entry that is not written to the output. Returns whether it would have been
    /// written otherwise.
    fn leave_out(&self, output: &mut Output, key: &H::Key, stamp: Stamp) -> Result<bool, H::Error> {
        if !output.merges() {
            return Ok(true);
        }
        let key = self.host.file_key(key)?;
        Ok(key.is_none_or(|key| output.leave_out(key.kind, &key.bytes, stamp.as_nanos())))
    }

    /// The file is in place.
    fn settle(
        self,
        finished: FinishedSave,
        eager: &H::Eager,
        not_carried: Vec<Rank>,
        known_eager: Option<&Snapshot>,
    ) -> SaveOutcome {
        let tier = self.host.tier();
        let FinishedSave { saved, successor, merged, .. } = finished;
        tier.unread.store(false, Ordering::Relaxed);
        if let (Some(opened), Some(snapshot)) = (&self.cold, &successor) {
            // Rule 8.
            let (opened, _) = opened;
            for rank in not_carried {
                opened.cold().take(rank);
            }
            opened.move_to(snapshot.clone());
        }
        if let Some(snapshot) = &successor {
            tier.passed_on(known_eager, snapshot);
        }
        tier.count_save();
        let maxsize = self.host.maxsize();
        let Some(merged) = merged else {
            let dropped = tier.replaced_backup();
            return SaveOutcome {
                file: saved,
                left_out: self.left_out,
                unsure: 0,
                refused: eager.refused(),
                dropped,
                shrunk_to: maxsize.filter(|_| dropped > 0),
                unsure_of_others: 0,
                copied: 0,
            };
        };
        tier.forget_no_room();
        tier.count_dropped(merged.dropped + merged.unsure);
        self.keep_learned(&merged);
        // Caches with the same `maxsize` drop entries of each other all the time: this is no lack
        // of room.
        let is_short = |maxsize: &usize| merged.found + eager.found() > *maxsize as u64;
        SaveOutcome {
            file: saved,
            left_out: self.left_out,
            unsure: merged.left_out,
            refused: eager.refused() + merged.refused,
            dropped: merged.dropped,
            shrunk_to: maxsize.filter(is_short).filter(|_| merged.dropped > 0),
            unsure_of_others: merged.unsure,
            copied: merged.copied,
        }
    }

    /// Called after a save that merged: its deletes are recorded, and its entries need not be
    /// remembered when they leave memory.
    fn keep_learned(&self, merged: &Merged) {
        {
            let mut known = self.host.tier().known.lock();
            known.tombstones.subtract(&merged.tombstones);
            known.learned = merged.learned.clone();
        }
        for number in 0..self.host.shards() {
            self.host.shard(number, |tiered| tiered.shard.settle(SaveEnd::Saved));
        }
    }
}

/// The outcome for the cold entries of a save.
#[derive(Default)]
struct Carried {
    /// Entries that could not be read or are not allowed, with the reason: as ranges, because a
    /// file may count more entries than it has.
    lost: Vec<(RangeInclusive<Rank>, &'static str)>,
    /// The ranks of entries left out by the merge.
    left_out: Vec<Rank>,
}

impl Carried {
    fn copy(
        &mut self,
        output: &mut Output,
        (opened, base): (&Opened, &Snapshot),
        frozen: &Frozen,
        file: FileClock,
        allows: fn(&[u8]) -> bool,
    ) -> Result<(), DiskError> {
        let mut records = base.records();
        while let Some(item) = records.next_wanted(|rank| frozen.contains(rank)) {
            let record = match item {
                Item::Lost(Loss::Entry { rank }) => {
                    self.lose(rank, DAMAGED);
                    continue;
                }
                Item::Lost(Loss::Bytes { .. }) => continue,
                Item::Entry(record) => record,
            };
            let Some(rank) = record.rank else { continue };
            if is_expired(record.deadline, file) {
                opened.expire(rank);
            } else if !allows(record.value) {
                self.lose(rank, "pickle=False refuses a pickle");
            } else {
                match output.carry(&record)? {
                    Pushed::Written => {}
                    Pushed::Superseded => self.left_out.push(rank),
                    Pushed::TooLarge(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Adds a rank behind all others.
    fn lose(&mut self, rank: Rank, why: &'static str) {
        match self.lost.last_mut() {
            Some((ranks, same)) if *same == why && rank.checked_sub(1) == Some(*ranks.end()) => {
                *ranks = *ranks.start()..=rank;
            }
            _ => self.lost.push((rank..=rank, why)),
        }
    }
}

/// Runs work on the file.
fn blocking<H: Host, R: Send>(
    host: &H,
    work: impl FnOnce() -> Result<R, DiskError> + Send,
) -> Result<R, H::Error> {
    host.blocking(work).map_err(|error| host.error(error))
}

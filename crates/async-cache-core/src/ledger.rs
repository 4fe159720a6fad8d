//! The ledger of a shard: when its entries were written, and which writes the file must learn of.
//!
//! For caches with a file shared by several processes, where the later of two writes of a key wins.
//! Unless a shard keeps times, its ledger is empty, and every stamp inside is [`Stamp::UNKNOWN`].
//!
//! The shard of a cache with a journal keeps *places* instead: the stamp of an entry is the place
//! of its record, which the front states with each write. Every write is in the journal, so nothing
//! is owed or lost, and rules 1 to 7 do not apply.
//!
//! A *lost write* is an entry that replaced an older value and was evicted or expired before a
//! save. The file still holds the older value, so the next save must record the key as overwritten,
//! or the older value would return.
//!
//! Rules for stamps:
//! 1. a later write has a later stamp, even if the wall clock stands still or is set back. After
//!    `Ledger::not_before`, stamps are also later than everything in the file;
//! 2. an entry from a file keeps the stamp in the file;
//! 3. the value of a load has the stamp of the beginning of the load: a write or a delete by
//!    another process since then is later, because the origin may have been read before it. Within
//!    a process, the fence does the same.
//!
//! Rules for debts:
//! 4. a write by a caller is *owed* to the file, because an earlier save may have written the key.
//!    So is the value of a load that replaced a live entry, hot or cold, or an entry that was owed
//!    itself. An entry that comes from the file is not owed;
//! 5. an owed entry that is evicted or expires is a lost write. So is a write by a caller that is
//!    not stored because its deadline has passed. Deletes and clears are recorded by the front;
//! 6. a debt is paid when a save succeeds that began after the write. Example: a save begins, a key
//!    is written, the save succeeds: the write is still owed;
//! 7. the list of lost writes holds as many keys as the shard may hold entries, at least 4,096 and
//!    at most 65,536. When the list is full, the oldest key is dropped; its older value may then
//!    return from the file.

use std::collections::VecDeque;

use crate::time::{Now, Stamp};

/// The fewest keys in a full list of lost writes.
const FEWEST: usize = 1 << 12;
/// The most keys in a full list of lost writes.
const MOST: usize = 1 << 16;
/// The keys in a full list of a shard without a limit.
const OF_UNLIMITED: usize = 1 << 14;

/// Times of writing, debts and lost writes of a shard.
#[derive(Debug)]
pub(crate) struct Ledger<K> {
    /// `None`: the shard keeps no times, and owes nothing.
    times: Option<StampTable>,
    lost: LostWrites<K>,
    /// The number of writes lost so far, without those that had just expired when a save began.
    losses: u64,
}

/// The stamps of a shard's entries, and which of the entries are owed.
#[derive(Debug, Default)]
struct StampTable {
    /// The latest stamp that was given.
    last: Stamp,
    /// By slot, in a table beside the slab, since most caches need none: eight bytes an entry.
    stamps: Vec<Stamp>,
    owed: OwedSlots,
    /// The stamps are places of records.
    are_places: bool,
}

/// Whether a write is owed to the file. Rule 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Debt {
    Owed,
    None,
}

/// How a save ended, or the recording of its lost writes.
#[derive(Debug)]
pub enum SaveEnd<K> {
    /// The save that began last has succeeded.
    Saved,
    /// These lost writes could not be recorded; they stay lost writes.
    Unrecorded(LostWrites<K>),
}

impl<K> Ledger<K> {
    /// The ledger of a shard that may hold `share` entries.
    pub(crate) fn new(share: Option<usize>) -> Self {
        Self { times: None, lost: LostWrites::new(share), losses: 0 }
    }

    /// Keeps times from now on, and no places. Existing entries have [`Stamp::UNKNOWN`].
    pub(crate) fn keep_times(&mut self) {
        if !self.keeps_times() {
            self.times = Some(StampTable::default());
        }
    }

    pub(crate) fn keeps_times(&self) -> bool {
        self.times.as_ref().is_some_and(|times| !times.are_places)
    }

    /// Keeps the places of records from now on.
    pub(crate) fn keep_places(&mut self) {
        self.times.get_or_insert_default().are_places = true;
    }

    /// The same ledger for a store that was emptied: stamps continue.
    pub(crate) fn emptied(&self, share: Option<usize>) -> Self {
        let emptied = |times: &StampTable| StampTable {
            last: times.last,
            are_places: times.are_places,
            ..StampTable::default()
        };
        let times = self.times.as_ref().map(emptied);
        Self { times, losses: self.losses, ..Self::new(share) }
    }

    // Stamps

    /// The stamp of a write that happens now.
    #[inline]
    pub(crate) fn stamp(&mut self, now: Now) -> Stamp {
        // Rule 1
        self.times.as_mut().filter(|times| !times.are_places).map_or(Stamp::UNKNOWN, |times| {
            times.last = times.next(now);
            times.last
        })
    }

    /// The stamp of the value of a load that begins now. A following write may have the same stamp:
    /// it fences the load.
    pub(crate) fn stamp_of_load(&self, now: Now) -> Stamp {
        // Rule 3
        self.times.as_ref().map_or(Stamp::UNKNOWN, |times| times.next(now))
    }

    /// Makes every stamp from now on later than `stamp`.
    pub(crate) fn not_before(&mut self, stamp: Stamp) {
        if let Some(times) = &mut self.times {
            times.last = times.last.max(stamp);
        }
    }

    /// Records when the entry of a slot was written.
    #[inline]
    pub(crate) fn record(&mut self, slot: u32, stamp: Stamp, debt: Debt) {
        if let Some(times) = &mut self.times {
            times.record(slot, stamp, debt);
        }
    }

    /// Replaces the place of an entry, if it is still `from`.
    pub(crate) fn move_place(&mut self, slot: u32, from: Stamp, to: Stamp) {
        if let Some(stamp) = self.times.as_mut().and_then(|times| times.stamps.get_mut(slot as usize))
            && *stamp == from
        {
            *stamp = to;
        }
    }

    /// When the entry of a slot was written.
    pub(crate) fn stamp_of(&self, slot: u32) -> Stamp {
        self.times.as_ref().map_or(Stamp::UNKNOWN, |times| times.stamp_of(slot))
    }

    // Debts

    /// Whether the entry of a slot is owed to the file.
    pub(crate) fn owes(&self, slot: u32) -> bool {
        self.times.as_ref().is_some_and(|times| times.owed.contains(slot))
    }

    /// Rule 5: records a lost write. Keys dropped by a full list go into `forgotten`.
    pub(crate) fn lose(&mut self, key: K, stamp: Stamp, forgotten: &mut Vec<K>) {
        self.losses += 1;
        self.lost.push(key, stamp, forgotten);
    }

    /// Starts a save of every entry: present debts are paid when the save succeeds.
    pub(crate) fn begin_save(&mut self) -> LostWrites<K> {
        if let Some(times) = &mut self.times {
            times.owed.begin_save();
        }
        self.take_lost()
    }

    /// Takes the lost writes out: the caller records them.
    pub(crate) fn take_lost(&mut self) -> LostWrites<K> {
        self.lost.take()
    }

    pub(crate) fn settle(&mut self, outcome: SaveEnd<K>) {
        match (outcome, &mut self.times) {
            (SaveEnd::Saved, Some(times)) => times.owed.pay(), // Rule 6
            (SaveEnd::Saved, None) => {}
            (SaveEnd::Unrecorded(lost), _) => self.lost.take_back(lost),
        }
    }

    pub(crate) fn lost(&self) -> &LostWrites<K> {
        &self.lost
    }

    /// The number of writes lost so far, without those set back by [`Ledger::count_losses`].
    pub(crate) fn losses(&self) -> u64 {
        self.losses
    }

    /// Sets the count of losses back to `losses`, its value a moment ago.
    pub(crate) fn count_losses(&mut self, losses: u64) {
        self.losses = losses;
    }
}

impl StampTable {
    /// Rule 1: the wall clock, or just after the latest stamp that was given.
    fn next(&self, now: Now) -> Stamp {
        now.wall.max(self.last.just_after())
    }

    fn record(&mut self, slot: u32, stamp: Stamp, debt: Debt) {
        if !self.are_places {
            self.owed.remove(slot);
            if debt == Debt::Owed {
                self.owed.insert(slot);
            }
        }
        let slot = slot as usize;
        if slot >= self.stamps.len() {
            let missing = slot + 1 - self.stamps.len();
            if self.stamps.capacity() - self.stamps.len() < missing {
                self.stamps.reserve_exact(missing.max(self.stamps.len() / 8));
            }
            self.stamps.resize(slot + 1, Stamp::UNKNOWN);
        }
        self.stamps[slot] = stamp;
    }

    fn stamp_of(&self, slot: u32) -> Stamp {
        self.stamps.get(slot as usize).copied().unwrap_or(Stamp::UNKNOWN)
    }
}

/// Writes that were lost since the list was last taken out.
#[derive(Debug)]
pub struct LostWrites<K> {
    /// Each with the stamp of the write; the oldest is in front.
    keys: VecDeque<(K, Stamp)>,
    most: usize,
}

impl<K> LostWrites<K> {
    fn new(share: Option<usize>) -> Self {
        // Rule 7
        let most = share.map_or(OF_UNLIMITED, |share| share.clamp(FEWEST, MOST));
        Self { keys: VecDeque::new(), most }
    }

    /// The number of lost writes.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The overwritten keys. A copy of the key that was written at the stamp or before is older
    /// than the lost write.
    pub fn overwritten(&self) -> impl Iterator<Item = (&K, Stamp)> {
        self.keys.iter().map(|(key, stamp)| (key, stamp.just_before()))
    }

    fn take(&mut self) -> Self {
        Self { keys: std::mem::take(&mut self.keys), most: self.most }
    }

    /// Puts a list that was taken out back in front.
    fn take_back(&mut self, mut other: Self) {
        other.keys.append(&mut self.keys);
        self.keys = other.keys;
    }

    fn push(&mut self, key: K, stamp: Stamp, forgotten: &mut Vec<K>) {
        while self.keys.len() >= self.most
            && let Some((first, _)) = self.keys.pop_front()
        {
            forgotten.push(first);
        }
        self.keys.push_back((key, stamp));
    }
}

/// Which slots of a store are owed to the file. Rule 6.
#[derive(Debug, Default)]
struct OwedSlots {
    /// Written since the last save began.
    since: Bits,
    /// Written before the last save began, which still runs or has failed.
    before: Bits,
}

impl OwedSlots {
    fn contains(&self, slot: u32) -> bool {
        self.since.contains(slot) || self.before.contains(slot)
    }

    fn insert(&mut self, slot: u32) {
        self.since.insert(slot);
    }

    fn remove(&mut self, slot: u32) {
        self.since.remove(slot);
        self.before.remove(slot);
    }

    fn begin_save(&mut self) {
        self.before.take_in(&mut self.since);
    }

    /// Called when the save that began last has succeeded.
    fn pay(&mut self) {
        self.before = Bits::default();
    }
}

/// A set of slots.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn contains(&self, slot: u32) -> bool {
        self.0.get(slot as usize / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    fn insert(&mut self, slot: u32) {
        let word = slot as usize / 64;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (slot % 64);
    }

    fn remove(&mut self, slot: u32) {
        if let Some(word) = self.0.get_mut(slot as usize / 64) {
            *word &= !(1 << (slot % 64));
        }
    }

    fn take_in(&mut self, other: &mut Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, taken) in self.0.iter_mut().zip(std::mem::take(&mut other.0)) {
            *word |= taken;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Time;

    fn at(wall: u64) -> Now {
        Now::new(Time::from_nanos(0), Stamp::from_nanos(wall))
    }

    fn keeping_times() -> Ledger<&'static str> {
        let mut ledger = Ledger::new(None);
        ledger.keep_times();
        ledger
    }

    #[test]
    fn a_later_write_has_a_later_stamp_though_the_clock_stands_still_or_is_set_back() {
        let mut ledger = keeping_times();
        let mut stamp = |wall| ledger.stamp(at(wall)).as_nanos();
        assert_eq!([1000, 1000, 1020, 900].map(&mut stamp), [1000, 1001, 1020, 1021]);
        ledger.not_before(Stamp::from_nanos(5000));
        assert_eq!(ledger.stamp(at(900)), Stamp::from_nanos(5001));
        let unread = Now::without_wall(Time::from_nanos(0));
        assert_eq!(ledger.stamp(unread), Stamp::from_nanos(5002), "in the order of the writes");
    }

    #[test]
    fn the_value_of_a_load_is_later_than_a_write_before_the_load_began() {
        let mut ledger = keeping_times();
        let before = ledger.stamp(at(1000));
        let load = ledger.stamp_of_load(at(1000));
        let meanwhile = ledger.stamp(at(1000));
        assert!(before < load && load <= meanwhile);
    }

    #[test]
    fn a_slot_without_a_stamp_is_older_than_all_others() {
        let mut ledger = keeping_times();
        ledger.record(3, Stamp::from_nanos(7), Debt::None);
        let stamps = [0, 3, 4].map(|slot| ledger.stamp_of(slot));
        assert_eq!(stamps, [Stamp::UNKNOWN, Stamp::from_nanos(7), Stamp::UNKNOWN]);
    }

    #[test]
    fn a_ledger_without_times_knows_no_stamp_and_owes_nothing() {
        let mut ledger = Ledger::<&str>::new(None);
        ledger.not_before(Stamp::from_nanos(9));
        ledger.record(1, Stamp::from_nanos(7), Debt::Owed);
        assert_eq!(
            [ledger.stamp(at(5)), ledger.stamp_of_load(at(5)), ledger.stamp_of(1)],
            [Stamp::UNKNOWN; 3]
        );
        assert!(!ledger.owes(1));
    }

    #[test]
    fn a_debt_is_paid_by_a_save_that_began_after_the_write_and_succeeded() {
        let mut ledger = keeping_times();
        let stamp = Stamp::from_nanos(1);
        ledger.record(1, stamp, Debt::Owed);
        ledger.record(70, stamp, Debt::Owed);
        drop(ledger.begin_save()); // fails
        ledger.record(2, stamp, Debt::Owed);
        assert_eq!([1, 2, 3, 70].map(|slot| ledger.owes(slot)), [true, true, false, true]);
        drop(ledger.begin_save());
        ledger.record(3, stamp, Debt::Owed);
        ledger.record(70, stamp, Debt::None);
        ledger.record(1, stamp, Debt::Owed);
        ledger.settle(SaveEnd::Saved);
        assert_eq!([1, 2, 3, 70].map(|slot| ledger.owes(slot)), [true, false, true, false]);
    }

    #[test]
    fn a_full_list_drops_the_oldest_lost_writes() {
        for (share, most) in
            [(None, OF_UNLIMITED), (Some(1), FEWEST), (Some(5000), 5000), (Some(1 << 30), MOST)]
        {
            let (mut lost, mut forgotten) = (LostWrites::new(share), Vec::new());
            for time in 1..=most as u64 + 2 {
                lost.push(time, Stamp::from_nanos(time), &mut forgotten);
            }
            assert_eq!(forgotten, [1, 2]);
            assert_eq!(lost.overwritten().next(), Some((&3, Stamp::from_nanos(2))));
            assert_eq!(lost.overwritten().count(), most);
        }
    }

    #[test]
    fn lost_writes_that_could_not_be_recorded_are_older_than_those_lost_since() {
        let mut ledger = keeping_times();
        ledger.lose("a", Stamp::from_nanos(1), &mut Vec::new());
        let taken = ledger.begin_save();
        assert!(ledger.lost().is_empty());
        ledger.lose("b", Stamp::from_nanos(2), &mut Vec::new());
        ledger.settle(SaveEnd::Unrecorded(taken));
        let lost: Vec<_> = ledger.lost().overwritten().collect();
        assert_eq!(lost, [(&"a", Stamp::UNKNOWN), (&"b", Stamp::from_nanos(1))]);
        assert_eq!(ledger.losses(), 2);
    }
}

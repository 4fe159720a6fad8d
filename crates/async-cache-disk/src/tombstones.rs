//! Tombstones: the deleted keys with their times, so that a process that does not know of a delete
//! does not save the entry again (file format, section 10).
//!
//! Rules:
//! 1. an entry whose key has a tombstone is deleted, unless it was written after the tombstone's
//!    time. *Cleared at* acts as a tombstone of every key;
//! 2. a tombstone that is forgotten, because of age or number, raises the *floor*: an entry that is
//!    not later than the floor and that this side does not have may have been deleted here;
//! 3. an *overwritten* key has a tombstone too. Its time T means: a copy written at or before T is
//!    older than a write that no file holds; drop the copy. Overwritten keys are remembered while
//!    there is room, and forgotten without a trace: an older value may then come back, which is
//!    better than losing a value that is not older. So overwritten keys neither raise the floor nor
//!    displace a delete;
//! 4. a time of zero is no time: nothing was cleared, nothing forgotten. An entry without a time of
//!    writing has this time, and is older than everything.
//!
//! An example of rule 3. A process writes `a` at 5, and evicts the entry before a save. The file
//! still has `a` from 3. The save records `a` as overwritten at 4: copies from 3 or 4 are dropped
//! in every process, and a copy from 6 stays.

use std::collections::BTreeMap;

use crate::format::Fields;
use crate::format::checksum::{CHECKSUM_BYTES, Seal};

/// The maximum number of kept keys: this many deleted keys, and this many overwritten keys.
///
/// The bound does not depend on `maxsize`. An overwritten key is needed until every other process
/// has saved once more: from then on, a process knows by itself that its older entry is superseded
/// (see `merge::learned`). Between two saves of a process, each other process may add the writes
/// that it lost since its own last save, however few entries it holds at a time. A bound by
/// `maxsize` would forget a busy small cache's keys before the other processes have saved, and an
/// older value would come back.
const MOST: usize = 1 << 16;

#[cfg(any(test, feature = "fake"))]
thread_local! {
    /// [`MOST`] for deletes; a test may lower it, for the histories of its own thread.
    pub(crate) static MOST_DELETES: std::cell::Cell<usize> = const { std::cell::Cell::new(MOST) };
}

/// The maximum number of kept deleted keys.
pub(crate) fn most_deletes() -> usize {
    #[cfg(any(test, feature = "fake"))]
    return MOST_DELETES.get();
    #[cfg(not(any(test, feature = "fake")))]
    MOST
}

/// How long a tombstone is kept: a week, in nanoseconds.
const KEPT: u64 = 7 * 24 * 3600 * 1_000_000_000;
const IS_EAGER: u8 = 1;
const IS_OVERWRITTEN: u8 = 2;
/// The size of a tombstone besides its key.
const ROW_BYTES: usize = 1 + 4 + 8;

/// How equal keys are recognized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyKind {
    /// By their bytes.
    Canonical,
    /// By their program: the key of an eager record.
    Eager,
}

/// The deleted and overwritten keys, with times in nanoseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tombstones {
    cleared_at: u64,
    floor: u64,
    deleted: Keys,
    overwritten: Keys,
}

/// Keys, each with a time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Keys {
    canonical: BTreeMap<Box<[u8]>, u64>,
    eager: BTreeMap<Box<[u8]>, u64>,
}

impl Keys {
    fn len(&self) -> usize {
        self.canonical.len().saturating_add(self.eager.len())
    }

    fn of(&self, kind: KeyKind) -> &BTreeMap<Box<[u8]>, u64> {
        match kind {
            KeyKind::Canonical => &self.canonical,
            KeyKind::Eager => &self.eager,
        }
    }

    fn of_mut(&mut self, kind: KeyKind) -> &mut BTreeMap<Box<[u8]>, u64> {
        match kind {
            KeyKind::Canonical => &mut self.canonical,
            KeyKind::Eager => &mut self.eager,
        }
    }

    fn get(&self, kind: KeyKind, key: &[u8]) -> u64 {
        self.of(kind).get(key).copied().unwrap_or(0)
    }

    fn times(&self) -> impl Iterator<Item = u64> {
        self.canonical.values().chain(self.eager.values()).copied()
    }

    fn raise(&mut self, kind: KeyKind, key: &[u8], time: u64) {
        let times = self.of_mut(kind);
        match times.get_mut(key) {
            Some(known) => *known = time.max(*known),
            None => drop(times.insert(key.into(), time)),
        }
    }

    fn join(&mut self, other: &Self) {
        for kind in [KeyKind::Canonical, KeyKind::Eager] {
            other.of(kind).iter().for_each(|(key, time)| self.raise(kind, key, *time));
        }
    }

    fn subtract(&mut self, other: &Self) {
        for kind in [KeyKind::Canonical, KeyKind::Eager] {
            let known = other.of(kind);
            self.of_mut(kind).retain(|key, time| known.get(key).is_none_or(|known| *known < *time));
        }
    }

    /// Forgets tombstones up to `time`; returns the latest forgotten time, zero if there were none.
    fn forget_until(&mut self, time: u64) -> u64 {
        let last = self.times().filter(|it| *it <= time).max().unwrap_or(0);
        if last > 0 {
            self.canonical.retain(|_, it| *it > time);
            self.eager.retain(|_, it| *it > time);
        }
        last
    }

    /// If there are too many, forgets the older half and more; returns the latest forgotten time,
    /// zero if none.
    fn forget_beyond(&mut self, most: usize) -> u64 {
        if self.len() <= most {
            return 0;
        }
        let mut times: Vec<u64> = self.times().collect();
        let middle = times.len() / 2;
        let (_, until, _) = times.select_nth_unstable(middle);
        let until = *until;
        self.forget_until(until)
    }
}

impl Tombstones {
    /// Anything may have been deleted until `time`.
    pub(crate) fn unknown(time: u64) -> Self {
        Self { floor: time, ..Self::default() }
    }

    /// Whether nothing was ever deleted.
    pub fn is_empty(&self) -> bool {
        self.cleared_at == 0 && self.floor == 0 && self.len() == 0
    }

    /// How many keys have a tombstone.
    pub fn len(&self) -> usize {
        self.deleted.len().saturating_add(self.overwritten.len())
    }

    /// When everything was deleted last; zero: never.
    pub fn cleared_at(&self) -> u64 {
        self.cleared_at
    }

    /// Up to when tombstones were forgotten; zero: none was.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// The latest time in the tombstones.
    pub(crate) fn latest(&self) -> u64 {
        let keys = self.deleted.times().chain(self.overwritten.times()).max().unwrap_or(0);
        keys.max(self.cleared_at).max(self.floor)
    }

    /// The latest listed delete of a key; zero: there is none.
    pub(crate) fn latest_delete(&self) -> u64 {
        self.latest_delete_until(u64::MAX)
    }

    /// The latest delete of a key up to `time`; zero if there is none.
    pub(crate) fn latest_delete_until(&self, time: u64) -> u64 {
        self.deleted.times().filter(|it| *it <= time).max().unwrap_or(0)
    }

    /// Records the delete of a key at `time`.
    pub fn record_delete(&mut self, kind: KeyKind, key: &[u8], time: u64) {
        if u32::try_from(key.len()).is_err() {
            return; // no file can hold it
        }
        self.deleted.raise(kind, key, time);
        self.floor = self.floor.max(self.deleted.forget_beyond(most_deletes()));
    }

    /// Records a write of a key after `time` whose value is lost.
    pub fn record_overwrite(&mut self, kind: KeyKind, key: &[u8], time: u64) {
        self.add_overwrite(kind, key, time);
        self.overwritten.forget_beyond(MOST);
    }

    /// The same, without forgetting another key.
    pub(crate) fn add_overwrite(&mut self, kind: KeyKind, key: &[u8], time: u64) {
        if u32::try_from(key.len()).is_ok() && time > self.deleted_at(kind, key) {
            self.overwritten.raise(kind, key, time);
        }
    }

    /// Records the delete of all keys at `time`.
    pub fn record_clear(&mut self, time: u64) {
        self.cleared_at = self.cleared_at.max(time);
        self.drop_cleared();
    }

    /// Records the delete of an unknown key at `time`.
    pub fn record_unknown_delete(&mut self, time: u64) {
        self.floor = self.floor.max(time);
    }

    /// When a key was deleted or overwritten; zero: not as far as is known.
    pub fn deleted_at(&self, kind: KeyKind, key: &[u8]) -> u64 {
        self.deleted.get(kind, key).max(self.overwritten.get(kind, key)).max(self.cleared_at)
    }

    /// Whether an entry written at `written_at` was deleted or overwritten since. The same time
    /// counts as since.
    pub fn covers(&self, kind: KeyKind, key: &[u8], written_at: u64) -> bool {
        let deleted_at = self.deleted_at(kind, key);
        deleted_at != 0 && written_at <= deleted_at
    }

    /// Whether an entry written at `written_at`, and missing on this side, may have been deleted
    /// here.
    pub fn may_cover(&self, written_at: u64) -> bool {
        self.floor != 0 && written_at <= self.floor
    }

    /// The keys of a kind, each with its time; a key both deleted and overwritten occurs twice.
    pub fn keys(&self, kind: KeyKind) -> impl Iterator<Item = (&[u8], u64)> {
        let keys = self.deleted.of(kind).iter().chain(self.overwritten.of(kind));
        keys.map(|(key, time)| (&**key, *time))
    }

    /// The deleted keys among them.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn deleted_keys(&self, kind: KeyKind) -> impl Iterator<Item = (&[u8], u64)> {
        self.deleted.of(kind).iter().map(|(key, time)| (&**key, *time))
    }

    /// Takes in the tombstones of another side. Nothing is forgotten for them, because they may not
    /// have been applied yet: see `forget_beyond`.
    pub fn join(&mut self, other: &Self) {
        self.floor = self.floor.max(other.floor);
        self.cleared_at = self.cleared_at.max(other.cleared_at);
        self.deleted.join(&other.deleted);
        self.overwritten.join(&other.overwritten);
        self.drop_cleared();
    }

    /// Forgets the tombstones that are also in `other`, an earlier copy of this.
    pub fn subtract(&mut self, other: &Self) {
        self.deleted.subtract(&other.deleted);
        self.overwritten.subtract(&other.overwritten);
        if self.floor == other.floor {
            self.floor = 0;
        }
    }

    /// The tombstones recorded since `other` was copied from this.
    #[must_use]
    pub fn since(mut self, other: &Self) -> Self {
        self.subtract(other);
        if self.cleared_at == other.cleared_at {
            self.cleared_at = 0;
        }
        self
    }

    /// Forgets tombstones older than a week at `now`.
    pub fn forget_old(&mut self, now: u64) {
        let until = now.saturating_sub(KEPT);
        self.floor = self.floor.max(self.deleted.forget_until(until));
        self.overwritten.forget_until(until);
    }

    /// Drops tombstones up to *cleared at*, which covers them.
    fn drop_cleared(&mut self) {
        self.deleted.forget_until(self.cleared_at);
        self.overwritten.forget_until(self.cleared_at);
    }

    /// Forgets the older ones, if there are too many.
    pub(crate) fn forget_beyond(&mut self) {
        self.floor = self.floor.max(self.deleted.forget_beyond(most_deletes()));
        self.overwritten.forget_beyond(MOST);
    }

    /// The section for the position `offset`.
    pub(crate) fn encode(self, seal: Seal, offset: u64) -> Vec<u8> {
        let mut bytes = vec![0; CHECKSUM_BYTES];
        bytes.extend_from_slice(&u32::try_from(self.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&self.cleared_at.to_le_bytes());
        bytes.extend_from_slice(&self.floor.to_le_bytes());
        for (keys, of_keys) in [(&self.deleted, 0), (&self.overwritten, IS_OVERWRITTEN)] {
            for (kind, of_kind) in [(KeyKind::Canonical, 0), (KeyKind::Eager, IS_EAGER)] {
                for (key, time) in keys.of(kind) {
                    bytes.push(of_keys | of_kind);
                    // No longer key is taken in.
                    bytes.extend_from_slice(&u32::try_from(key.len()).unwrap_or(0).to_le_bytes());
                    bytes.extend_from_slice(&time.to_le_bytes());
                    bytes.extend_from_slice(key);
                }
            }
        }
        bytes.resize(bytes.len().saturating_add(seal.tag_bytes()), 0);
        seal.close(offset, &mut bytes);
        bytes
    }

    /// From the section's bytes between checksum and tag, which matched.
    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let count = fields.u32()?;
        let mut tombstones = Self { cleared_at: fields.u64()?, floor: fields.u64()?, ..Self::default() };
        if usize::try_from(count).ok()? > fields.0.len() / ROW_BYTES {
            return None;
        }
        for _ in 0..count {
            let flags = fields.u8()?;
            if flags & !(IS_EAGER | IS_OVERWRITTEN) != 0 {
                return None;
            }
            let kind = if flags & IS_EAGER == 0 { KeyKind::Canonical } else { KeyKind::Eager };
            let key_len = usize::try_from(fields.u32()?).ok()?;
            let time = fields.u64()?;
            let is_overwritten = flags & IS_OVERWRITTEN != 0;
            let keys = if is_overwritten { &mut tombstones.overwritten } else { &mut tombstones.deleted };
            keys.raise(kind, fields.bytes(key_len)?, time);
        }
        fields.0.is_empty().then_some(tombstones)
    }
}

#[cfg(test)]
mod tests {
    use super::KeyKind::{Canonical, Eager};
    use super::*;
    use crate::secret::Secret;

    fn some() -> Tombstones {
        let mut tombstones = Tombstones::default();
        tombstones.record_clear(3);
        tombstones.record_delete(Canonical, b"a", 5);
        tombstones.record_delete(Eager, b"a", 6);
        tombstones.record_delete(Canonical, b"", 7);
        tombstones
    }

    #[test]
    fn a_delete_covers_what_was_written_before_it_and_not_what_was_written_after() {
        let tombstones = some();
        assert!(tombstones.covers(Canonical, b"a", 0));
        assert!(tombstones.covers(Canonical, b"a", 5));
        assert!(!tombstones.covers(Canonical, b"a", 6));
        assert!(tombstones.covers(Eager, b"a", 6));
        assert!(tombstones.covers(Canonical, b"other", 3));
        assert!(!tombstones.covers(Canonical, b"other", 4));
    }

    #[test]
    fn an_entry_without_a_time_is_not_covered_by_what_never_happened() {
        assert!(!Tombstones::default().covers(Canonical, b"a", 0));
        assert!(!Tombstones::default().may_cover(0));
    }

    #[test]
    fn what_is_written_is_read_again_and_nothing_else_is() {
        let secret = Secret::new("sixteen bytes or more").unwrap();
        let mut some = some();
        some.record_overwrite(Eager, b"b", 9);
        some.record_overwrite(Canonical, b"b", 8);
        for seal in [Seal::new(&[7; 16], None), Seal::new(&[7; 16], Some(&secret))] {
            let bytes = some.clone().encode(seal, 512);
            let body = seal.open(512, &bytes).unwrap();
            assert_eq!(Tombstones::decode(body), Some(some.clone()));
            assert!((0..body.len()).all(|cut| Tombstones::decode(&body[..cut]).is_none()));
            assert_eq!(Tombstones::decode(&[body, &[0]].concat()), None);
        }
    }

    #[test]
    fn too_many_raise_the_floor_to_the_latest_that_was_forgotten() {
        let mut tombstones = Tombstones::default();
        for time in 1..=u64::try_from(MOST).unwrap() + 1 {
            tombstones.record_delete(Canonical, &time.to_le_bytes(), time);
        }
        assert!(tombstones.len() <= MOST && tombstones.len() >= MOST / 2 - 1);
        let floor = tombstones.floor();
        assert!(tombstones.may_cover(floor) && !tombstones.may_cover(floor + 1));
        assert!(tombstones.keys(Canonical).all(|(_, time)| time > floor));
        assert_eq!(tombstones.deleted_at(Canonical, &(floor + 1).to_le_bytes()), floor + 1);
    }

    #[test]
    fn a_week_later_they_are_forgotten() {
        let mut tombstones = some();
        tombstones.forget_old(KEPT + 5);
        assert_eq!((tombstones.floor(), tombstones.len(), tombstones.cleared_at()), (5, 2, 3));
        tombstones.forget_old(KEPT + 5);
        assert_eq!(tombstones.floor(), 5);
    }

    #[test]
    fn what_was_saved_is_subtracted_and_what_came_since_stays() {
        let (mut tombstones, saved) = (some(), some());
        tombstones.record_delete(Canonical, b"a", 9);
        tombstones.subtract(&saved);
        assert_eq!(tombstones.keys(Canonical).collect::<Vec<_>>(), [(&b"a"[..], 9)]);
        assert_eq!(tombstones.keys(Eager).count(), 0);
        assert_eq!(tombstones.cleared_at(), 3);
    }

    #[test]
    fn since_an_earlier_time_there_is_only_what_came_later() {
        let before = Tombstones { floor: 2, ..some() };
        let mut after = before.clone();
        assert!(after.clone().since(&before).is_empty());
        after.record_delete(Eager, b"new", 10);
        let since = after.clone().since(&before);
        assert_eq!((since.len(), since.cleared_at(), since.floor()), (1, 0, 0));
        after.record_clear(11);
        let since = Tombstones { floor: 12, ..after }.since(&before);
        assert_eq!((since.len(), since.cleared_at(), since.floor()), (0, 11, 12));
    }

    #[test]
    fn what_was_overwritten_hides_what_is_older_and_is_forgotten_without_a_trace() {
        let mut tombstones = some();
        for time in 1..=u64::try_from(MOST).unwrap() + 1 {
            tombstones.record_overwrite(Canonical, &time.to_le_bytes(), time + 10);
        }
        assert!(tombstones.covers(Canonical, &60_000_u64.to_le_bytes(), 60_010));
        assert!(!tombstones.covers(Canonical, &60_000_u64.to_le_bytes(), 60_011));
        assert!(!tombstones.covers(Canonical, &1_u64.to_le_bytes(), 5), "one of the older half");
        assert_eq!(tombstones.floor(), 0);
        assert!(tombstones.covers(Canonical, b"a", 5), "no delete went for it");
        let at_most = MOST + some().len();
        assert!(tombstones.len() <= at_most && tombstones.len() >= at_most / 2);
        tombstones.forget_old(KEPT + 100_000);
        assert_eq!((tombstones.len(), tombstones.floor()), (0, 7), "the floor is of the deletes");
    }

    #[test]
    fn what_was_overwritten_and_then_deleted_is_deleted() {
        let mut tombstones = some();
        tombstones.record_overwrite(Canonical, b"a", 5);
        assert_eq!(tombstones, some(), "the delete says it all");
        tombstones.record_overwrite(Canonical, b"a", 6);
        assert_eq!((tombstones.deleted_at(Canonical, b"a"), tombstones.deleted_at(Eager, b"a")), (6, 6));
        let mut joined = some();
        joined.join(&tombstones);
        assert_eq!(joined, tombstones);
        joined.subtract(&tombstones);
        assert_eq!(joined.len(), 0);
    }
}

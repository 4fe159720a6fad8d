//! What was deleted, and when: so that a process that has not heard of it does not save it again (file format,
//! section 10).
//!
//! Rules:
//! 1. an entry whose key has a tombstone is deleted, unless it was written later than the tombstone says. Likewise
//!    *cleared at*, which is a tombstone of every key;
//! 2. what is forgotten, because it is old or because there are too many, raises the *floor*: an entry that is not later
//!    and that this side does not have may have been deleted here;
//! 3. a time of zero is no time: nothing was cleared, nothing forgotten. An entry that does not say when it was written
//!    has that time, and is older than everything.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::collections::BTreeMap;

use crate::format::Fields;
use crate::format::checksum::{CHECKSUM_BYTES, Seal};

/// The most tombstones that are kept.
const MOST: usize = 1 << 16;
/// How long one is kept: a week, in nanoseconds.
const KEPT: u64 = 7 * 24 * 3600 * 1_000_000_000;
const IS_EAGER: u8 = 1;
/// What a tombstone takes besides its key.
const ROW_BYTES: usize = 1 + 4 + 8;

/// How equal keys are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyKind {
    /// By their bytes.
    Canonical,
    /// By the program that wrote them: the key of an eager record.
    Eager,
}

/// What was deleted, and when, in nanoseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tombstones {
    cleared_at: u64,
    floor: u64,
    canonical: BTreeMap<Box<[u8]>, u64>,
    eager: BTreeMap<Box<[u8]>, u64>,
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
        self.canonical.len().saturating_add(self.eager.len())
    }

    /// When everything was deleted last; zero: never.
    pub fn cleared_at(&self) -> u64 {
        self.cleared_at
    }

    /// Up to when tombstones were forgotten; zero: none was.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// The latest time in it.
    pub(crate) fn latest(&self) -> u64 {
        let keys = self.canonical.values().chain(self.eager.values()).copied().max().unwrap_or(0);
        keys.max(self.cleared_at).max(self.floor)
    }

    /// Notes that a key was deleted at `time`.
    pub fn delete(&mut self, kind: KeyKind, key: &[u8], time: u64) {
        if u32::try_from(key.len()).is_err() {
            return; // no file can hold it
        }
        raise(self.of_mut(kind), key, time);
        self.forget_beyond(MOST);
    }

    /// Notes that everything was deleted at `time`.
    pub fn clear(&mut self, time: u64) {
        self.cleared_at = self.cleared_at.max(time);
        self.retain(|_| true);
    }

    /// Notes that something was deleted at `time` of which there is no telling what it was.
    pub fn delete_unknown(&mut self, time: u64) {
        self.floor = self.floor.max(time);
    }

    /// When a key was deleted; zero: not as far as is known.
    pub fn deleted_at(&self, kind: KeyKind, key: &[u8]) -> u64 {
        self.of(kind).get(key).copied().unwrap_or(0).max(self.cleared_at)
    }

    /// Whether an entry that was written at `written_at` was deleted since. At the same time counts as since.
    pub fn covers(&self, kind: KeyKind, key: &[u8], written_at: u64) -> bool {
        let deleted_at = self.deleted_at(kind, key);
        deleted_at != 0 && written_at <= deleted_at
    }

    /// Whether an entry that was written at `written_at`, and that this side does not have, may have been deleted here.
    pub fn may_cover(&self, written_at: u64) -> bool {
        self.floor != 0 && written_at <= self.floor
    }

    /// The keys of a kind, each with the time of its deletion.
    pub fn keys(&self, kind: KeyKind) -> impl Iterator<Item = (&[u8], u64)> {
        self.of(kind).iter().map(|(key, time)| (&**key, *time))
    }

    /// Takes in what another one knows.
    pub fn join(&mut self, other: &Self) {
        self.floor = self.floor.max(other.floor);
        self.cleared_at = self.cleared_at.max(other.cleared_at);
        for kind in [KeyKind::Canonical, KeyKind::Eager] {
            for (key, time) in other.keys(kind) {
                raise(self.of_mut(kind), key, time);
            }
        }
        self.retain(|_| true);
        self.forget_beyond(MOST);
    }

    /// Forgets what another one, which was made of this one earlier, knows as well.
    pub fn subtract(&mut self, other: &Self) {
        for kind in [KeyKind::Canonical, KeyKind::Eager] {
            let known = other.of(kind);
            self.of_mut(kind).retain(|key, time| known.get(key).is_none_or(|known| *known < *time));
        }
        if self.floor == other.floor {
            self.floor = 0;
        }
    }

    /// What was noted since another one was made of this one.
    #[must_use]
    pub fn since(mut self, other: &Self) -> Self {
        self.subtract(other);
        if self.cleared_at == other.cleared_at {
            self.cleared_at = 0;
        }
        self
    }

    /// Forgets what is older than a week at `now`.
    pub fn forget_old(&mut self, now: u64) {
        self.forget_until(now.saturating_sub(KEPT));
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

    /// Keeps what `keep` says, and of that what is later than the clearing, which says it all.
    fn retain(&mut self, keep: impl Fn(u64) -> bool) {
        let cleared_at = self.cleared_at;
        self.canonical.retain(|_, time| *time > cleared_at && keep(*time));
        self.eager.retain(|_, time| *time > cleared_at && keep(*time));
    }

    /// Forgets the older half and more, if there are more than `most`.
    fn forget_beyond(&mut self, most: usize) {
        if self.len() <= most {
            return;
        }
        let mut times: Vec<u64> = self.canonical.values().chain(self.eager.values()).copied().collect();
        let middle = times.len() / 2;
        let (_, until, _) = times.select_nth_unstable(middle);
        let until = *until;
        self.forget_until(until);
    }

    fn forget_until(&mut self, until: u64) {
        let gone = self.canonical.values().chain(self.eager.values()).filter(|time| **time <= until);
        if let Some(last) = gone.max().copied() {
            self.floor = self.floor.max(last);
            self.retain(|time| time > until);
        }
    }

    /// The section as it will stand at `offset`.
    pub(crate) fn encode(self, seal: Seal, offset: u64) -> Vec<u8> {
        let mut bytes = vec![0; CHECKSUM_BYTES];
        bytes.extend_from_slice(&u32::try_from(self.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&self.cleared_at.to_le_bytes());
        bytes.extend_from_slice(&self.floor.to_le_bytes());
        for (kind, flags) in [(KeyKind::Canonical, 0), (KeyKind::Eager, IS_EAGER)] {
            for (key, time) in self.keys(kind) {
                bytes.push(flags);
                // No longer key is taken in.
                bytes.extend_from_slice(&u32::try_from(key.len()).unwrap_or(0).to_le_bytes());
                bytes.extend_from_slice(&time.to_le_bytes());
                bytes.extend_from_slice(key);
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
            let kind = match fields.u8()? {
                0 => KeyKind::Canonical,
                IS_EAGER => KeyKind::Eager,
                _ => return None,
            };
            let key_len = usize::try_from(fields.u32()?).ok()?;
            let time = fields.u64()?;
            raise(tombstones.of_mut(kind), fields.bytes(key_len)?, time);
        }
        fields.0.is_empty().then_some(tombstones)
    }
}

fn raise(times: &mut BTreeMap<Box<[u8]>, u64>, key: &[u8], time: u64) {
    match times.get_mut(key) {
        Some(known) => *known = time.max(*known),
        None => drop(times.insert(key.into(), time)),
    }
}

#[cfg(test)]
mod tests {
    use super::KeyKind::{Canonical, Eager};
    use super::*;
    use crate::secret::Secret;

    fn some() -> Tombstones {
        let mut tombstones = Tombstones::default();
        tombstones.clear(3);
        tombstones.delete(Canonical, b"a", 5);
        tombstones.delete(Eager, b"a", 6);
        tombstones.delete(Canonical, b"", 7);
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
        for seal in [Seal::new(&[7; 16], None), Seal::new(&[7; 16], Some(&secret))] {
            let bytes = some().encode(seal, 512);
            let body = seal.open(512, &bytes).unwrap();
            assert_eq!(Tombstones::decode(body), Some(some()));
            assert!((0..body.len()).all(|cut| Tombstones::decode(&body[..cut]).is_none()));
            assert_eq!(Tombstones::decode(&[body, &[0]].concat()), None);
        }
    }

    #[test]
    fn too_many_raise_the_floor_to_the_latest_that_was_forgotten() {
        let mut tombstones = Tombstones::default();
        for time in 1..=u64::try_from(MOST).unwrap() + 1 {
            tombstones.delete(Canonical, &time.to_le_bytes(), time);
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
        tombstones.delete(Canonical, b"a", 9);
        tombstones.subtract(&saved);
        assert_eq!(tombstones.keys(Canonical).collect::<Vec<_>>(), [(&b"a"[..], 9)]);
        assert_eq!(tombstones.keys(Eager).count(), 0);
        assert_eq!(tombstones.cleared_at(), 3);
    }

    #[test]
    fn since_an_earlier_time_there_is_only_what_came_later() {
        let mut before = some();
        before.delete_unknown(2);
        let mut after = before.clone();
        assert!(after.clone().since(&before).is_empty());
        after.delete(Eager, b"new", 10);
        let since = after.clone().since(&before);
        assert_eq!((since.len(), since.cleared_at(), since.floor()), (1, 0, 0));
        after.clear(11);
        after.delete_unknown(12);
        let since = after.since(&before);
        assert_eq!((since.len(), since.cleared_at(), since.floor()), (0, 11, 12));
    }
}

//! Lost writes: what left memory by eviction or expiry, before any save had written it, and had taken the place of
//! something. The file may still have what it took the place of, and would bring it back. So the next save has to be
//! told, as it is told of a delete.
//!
//! Kept only if times of writing are (`written.rs`), for the fronts whose saves merge with the file. Rules:
//! 1. a `set` is *owed* to the file: somebody may have saved the key before. So is a load that replaced a live entry,
//!    hot or cold, or one that was owed. What comes from the file is not;
//! 2. an entry that is owed and leaves unasked is a lost write, and so is a `set` that is not stored, because its time
//!    has passed already. A `delete` and a `clear` are noted by the front itself;
//! 3. a debt is paid when a save succeeds that began after the write, not by one that began before it;
//! 4. there are about as many as the shard may hold entries, but for a small one, and of more the ones that left first are
//!    forgotten: then the file's older value may come back, which is what it would do without any of this. Nothing else
//!    suffers for them.

use std::collections::VecDeque;

/// So many keys are kept however small the shard is.
const FEWEST: usize = 1 << 12;
/// And so many however large it is, or if nothing is ever evicted from it.
const MOST: usize = 1 << 16;
const OF_UNLIMITED: usize = 1 << 14;

/// Writes that were lost since they were taken out last.
#[derive(Debug)]
pub struct LostWrites<K> {
    /// Each with the time of the write; those that left first are in front.
    keys: VecDeque<(K, u64)>,
    most: usize,
}

impl<K> LostWrites<K> {
    pub(crate) fn new(share: Option<usize>) -> Self {
        let most = share.map_or(OF_UNLIMITED, |share| share.clamp(FEWEST, MOST));
        Self { keys: VecDeque::new(), most }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys, each with the time up to which what others have of it is older than what was lost.
    pub fn keys(&self) -> impl Iterator<Item = (&K, u64)> {
        self.keys.iter().map(|(key, written_at)| (key, written_at.saturating_sub(1)))
    }

    pub(crate) fn take(&mut self) -> Self {
        Self { keys: std::mem::take(&mut self.keys), most: self.most }
    }

    /// Takes back what was taken out.
    pub(crate) fn take_back(&mut self, mut other: Self) {
        other.keys.append(&mut self.keys);
        self.keys = other.keys;
    }

    /// Notes a lost write. The keys that are forgotten for it go into `forgotten`.
    pub(crate) fn push(&mut self, key: K, written_at: u64, forgotten: &mut Vec<K>) {
        while self.keys.len() >= self.most
            && let Some((first, _)) = self.keys.pop_front()
        {
            forgotten.push(first);
        }
        self.keys.push_back((key, written_at));
    }
}

/// Which slots of a store are owed to the file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Owed {
    /// Written since the last save began.
    since: Bits,
    /// Written before it began, and not paid yet: it runs, or failed.
    before: Bits,
}

impl Owed {
    pub(crate) fn contains(&self, slot: u32) -> bool {
        self.since.contains(slot) || self.before.contains(slot)
    }

    pub(crate) fn insert(&mut self, slot: u32) {
        self.since.insert(slot);
    }

    pub(crate) fn remove(&mut self, slot: u32) {
        self.since.remove(slot);
        self.before.remove(slot);
    }

    /// A save begins: what is owed now is in it.
    pub(crate) fn begin_save(&mut self) {
        self.before.take_in(&mut self.since);
    }

    /// The save that began last has succeeded.
    pub(crate) fn saved(&mut self) {
        self.before = Bits::default();
    }
}

#[derive(Debug, Clone, Default)]
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

    #[test]
    fn a_debt_is_paid_by_a_save_that_began_after_the_write_and_succeeded() {
        let mut owed = Owed::default();
        owed.insert(1);
        owed.insert(70);
        owed.begin_save(); // fails
        owed.insert(2);
        assert_eq!([1, 2, 3, 70].map(|slot| owed.contains(slot)), [true, true, false, true]);
        owed.begin_save();
        owed.insert(3);
        owed.remove(70);
        owed.insert(1);
        owed.saved();
        assert_eq!([1, 2, 3, 70].map(|slot| owed.contains(slot)), [true, false, true, false]);
    }

    #[test]
    fn of_too_many_those_that_left_first_are_forgotten() {
        for (share, most) in
            [(None, OF_UNLIMITED), (Some(1), FEWEST), (Some(5000), 5000), (Some(1 << 30), MOST)]
        {
            let (mut lost, mut forgotten) = (LostWrites::new(share), Vec::new());
            for time in 1..=most as u64 + 2 {
                lost.push(time, time, &mut forgotten);
            }
            assert_eq!(forgotten, [1, 2]);
            assert_eq!(lost.keys().next(), Some((&3, 2)));
            assert_eq!(lost.keys().count(), most);
        }
    }

    #[test]
    fn what_is_taken_back_left_before_what_was_lost_since() {
        let (mut lost, mut forgotten) = (LostWrites::new(None), Vec::new());
        lost.push("a", 1, &mut forgotten);
        let taken = lost.take();
        assert!(lost.is_empty());
        lost.push("b", 2, &mut forgotten);
        lost.take_back(taken);
        assert_eq!(lost.keys().collect::<Vec<_>>(), [(&"a", 0), (&"b", 1)]);
    }
}

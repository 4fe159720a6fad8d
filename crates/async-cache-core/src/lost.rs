//! Lost writes: what left memory by eviction or expiry, before any save had written it, and had taken the place of
//! something. The file may still have what it took the place of, and would bring it back. So the next save has to be
//! told, as it is told of a delete.
//!
//! Kept only if times of writing are ([`crate::written`]), for the fronts whose saves merge with the file. Rules:
//! 1. a `set` is *owed* to the file: somebody may have saved the key before. So is a load that replaced a live entry,
//!    hot or cold, or one that was owed. What comes from the file is not;
//! 2. an entry that is owed and leaves unasked is a lost write, and so is a `set` that is not stored, because its time
//!    has passed already. A `delete` and a `clear` are noted by the front itself;
//! 3. a debt is paid when a save succeeds that began after the write, not by one that began before it;
//! 4. there are at most [`MOST`]. Of more, the older half is forgotten, and the time of the latest of them is kept: up to
//!    then, anything may have been lost.

/// The most keys that are kept: as many as a file has tombstones.
const MOST: usize = 1 << 16;

/// Writes that were lost since they were taken out last.
#[derive(Debug)]
pub struct LostWrites<K> {
    /// Each with the time of the write.
    keys: Vec<(K, u64)>,
    until: u64,
}

impl<K> Default for LostWrites<K> {
    fn default() -> Self {
        Self { keys: Vec::new(), until: 0 }
    }
}

impl<K> LostWrites<K> {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.until == 0
    }

    /// The keys, each with the time up to which what others have of it is older than what was lost.
    pub fn keys(&self) -> impl Iterator<Item = (&K, u64)> {
        self.keys.iter().map(|(key, written_at)| (key, written_at.saturating_sub(1)))
    }

    /// Up to when anything may have been lost, besides the keys; zero: nothing was.
    pub fn until(&self) -> u64 {
        self.until
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.keys.extend(other.keys);
        self.until = self.until.max(other.until);
    }

    /// Notes a lost write. The keys that are forgotten for it go into `forgotten`.
    pub(crate) fn push(&mut self, key: K, written_at: u64, forgotten: &mut Vec<K>) {
        self.keys.push((key, written_at));
        if self.keys.len() <= MOST {
            return;
        }
        let middle = self.keys.len() / 2;
        self.keys.select_nth_unstable_by_key(middle, |(_, written_at)| *written_at);
        let older = self.keys.drain(..=middle);
        for (key, written_at) in older {
            self.until = self.until.max(written_at);
            forgotten.push(key);
        }
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
    fn of_too_many_the_older_half_is_forgotten_and_when_it_was() {
        let (mut lost, mut forgotten) = (LostWrites::default(), Vec::new());
        for time in 1..=MOST as u64 {
            lost.push(time, time, &mut forgotten);
        }
        assert_eq!((lost.keys().count(), forgotten.len(), lost.until()), (MOST, 0, 0));
        lost.push(0, MOST as u64 + 1, &mut forgotten);
        let (kept, until) = (lost.keys().count(), lost.until());
        assert_eq!((kept + forgotten.len(), kept), (MOST + 1, MOST / 2));
        assert_eq!(until, forgotten.iter().copied().max().unwrap());
        assert!(lost.keys().all(|(_, covered)| covered >= until), "the later ones are kept");
    }
}

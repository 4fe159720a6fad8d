//! The names of keys in a tier beyond one host, and the hashes of the keys in memory.
//!
//! A message reports a change under a name. [`NameIndex`] finds the hashes of the
//! keys with the name, without decoding a key: the entries with the hashes are removed.
//!
//! Rules:
//! 1. A name is kept as a digest with a random key, so that an attacker cannot choose names that
//!    meet.
//!    Two names with the same digest cost a needless removal, and nothing else.
//! 2. A pair of digest and hash enters together with the entry or the load of the key, under the
//!    same lock of the shard. The pair may stay after the entry has left.
//! 3. [`NameIndex::compact`] drops the pairs of departed entries, and looks for the entries
//!    with nothing locked. A pair that enters during the compaction stays, also if the pair was
//!    known before. So a key keeps its pair if the key comes in after the look, by rule 2.
//! 4. The mutex is held for a few instructions, except while `compact` copies or drops pairs.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use async_cache_core::remote::port::Name;
use hashbrown::HashTable;
use parking_lot::Mutex;

/// An index of this many pairs more than twice the entries is not compacted.
const SLACK: usize = 1024;

/// Finds the hash of a key by its name. 16 bytes a pair.
#[derive(Debug, Default)]
pub struct NameIndex {
    digests: RandomState,
    pairs: Mutex<Pairs>,
}

#[derive(Debug, Default)]
struct Pairs {
    table: HashTable<Pair>,
    /// The pairs that entered since the running compaction began; `None`: none runs. Rule 3.
    since: Option<HashSet<Pair>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pair {
    digest: u64,
    hash: u64,
}

impl NameIndex {
    /// An empty index.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of pairs, also of entries that have left.
    pub fn len(&self) -> usize {
        self.pairs.lock().table.len()
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Notes the hash of the key with the name, under the lock of the key's shard (rule 2). Nothing
    /// changes if the pair is known.
    pub fn insert(&self, name: &Name, hash: u64) {
        self.insert_digest(self.digest(name), hash);
    }

    /// The hashes of the keys with the name, and perhaps of further keys. The pairs stay.
    pub fn hashes(&self, name: &Name) -> Vec<u64> {
        self.hashes_of_digest(self.digest(name))
    }

    /// Removes every pair: no entry is in memory any more.
    pub fn clear(&self) {
        let mut pairs = self.pairs.lock();
        pairs.table = HashTable::new();
    }

    /// Drops the pairs whose entries have left, if there are more than twice as many pairs as
    /// entries, and 1,024. `is_there`: whether an entry or a load in memory has the hash
    /// ([`Shard::has_hash`](async_cache_core::shard::Shard::has_hash)); may lock shards. Returns
    /// the number of dropped pairs. Does nothing while another thread compacts.
    pub fn compact(&self, entries: usize, is_there: impl Fn(u64) -> bool) -> usize {
        let known: Vec<Pair> = {
            let mut pairs = self.pairs.lock();
            let is_due = pairs.table.len() > entries.saturating_mul(2).saturating_add(SLACK);
            if !is_due || pairs.since.is_some() {
                return 0;
            }
            pairs.since = Some(HashSet::new());
            pairs.table.iter().copied().collect()
        };
        // Ends the compaction also if `is_there` panics.
        let ended = Compaction(&self.pairs);
        let gone: Vec<Pair> = known.into_iter().filter(|pair| !is_there(pair.hash)).collect();
        let dropped = {
            let mut pairs = self.pairs.lock();
            let Pairs { table, since } = &mut *pairs;
            let has_entered = |pair: &Pair| since.as_ref().is_some_and(|since| since.contains(pair));
            let before = table.len();
            for pair in gone.iter().filter(|pair| !has_entered(pair)) {
                if let Ok(found) = table.find_entry(pair.digest, |known| known == pair) {
                    found.remove();
                }
            }
            table.shrink_to_fit(|pair| pair.digest);
            before - table.len()
        };
        drop(ended);
        dropped
    }

    fn digest(&self, name: &Name) -> u64 {
        self.digests.hash_one(name.as_bytes())
    }

    fn insert_digest(&self, digest: u64, hash: u64) {
        let pair = Pair { digest, hash };
        let mut pairs = self.pairs.lock();
        if pairs.table.find(digest, |known| *known == pair).is_none() {
            pairs.table.insert_unique(digest, pair, |pair| pair.digest);
        }
        if let Some(since) = &mut pairs.since {
            since.insert(pair);
        }
    }

    fn hashes_of_digest(&self, digest: u64) -> Vec<u64> {
        let pairs = self.pairs.lock();
        let with_digest = pairs.table.iter_hash(digest).filter(|pair| pair.digest == digest);
        with_digest.map(|pair| pair.hash).collect()
    }
}

/// A running compaction. Its drop ends the compaction.
struct Compaction<'p>(&'p Mutex<Pairs>);

impl Drop for Compaction<'_> {
    fn drop(&mut self) {
        self.0.lock().since = None;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeSet;

    use super::*;

    fn name(number: u64) -> Name {
        Name::new(number.to_string().into_bytes())
    }

    fn sorted(mut hashes: Vec<u64>) -> Vec<u64> {
        hashes.sort_unstable();
        hashes
    }

    /// A generator of random numbers (xorshift).
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) % bound
        }
    }

    #[test]
    fn the_index_knows_what_a_set_of_pairs_knows() {
        for seed in 1..=20 {
            let (index, mut model) = (NameIndex::new(), BTreeSet::new());
            let mut dice = Dice(0x9E37_79B9_7F4A_7C15 ^ seed);
            for _ in 0..6000 {
                // Few names, and few hashes each: known pairs and names with several hashes.
                let (number, hash) = (dice.below(900), dice.below(5));
                match dice.below(1000) {
                    0 => {
                        index.clear();
                        model.clear();
                    }
                    1..10 => {
                        let is_there = |hash: u64| hash < 2;
                        let entries = usize::try_from(dice.below(600)).unwrap();
                        let before = model.len();
                        if before > 2 * entries + 1024 {
                            model.retain(|(_, hash)| is_there(*hash));
                        }
                        assert_eq!(index.compact(entries, is_there), before - model.len(), "seed {seed}");
                    }
                    _ => {
                        index.insert(&name(number), hash);
                        model.insert((number, hash));
                    }
                }
                assert_eq!((index.len(), index.is_empty()), (model.len(), model.is_empty()));
                let asked = dice.below(900);
                let expected: Vec<u64> =
                    model.range((asked, 0)..(asked + 1, 0)).map(|(_, hash)| *hash).collect();
                assert_eq!(sorted(index.hashes(&name(asked))), expected, "seed {seed}");
            }
        }
    }

    #[test]
    fn names_with_one_digest_have_all_their_hashes() {
        let index = NameIndex::new();
        index.insert_digest(7, 1);
        index.insert_digest(7, 2);
        index.insert_digest(7, 1);
        // Another digest at the same place of the table, with the same tag.
        index.insert_digest(7 | 1 << 40, 3);
        assert_eq!(sorted(index.hashes_of_digest(7)), [1, 2]);
        assert_eq!(index.hashes_of_digest(7 | 1 << 40), [3]);
        assert_eq!(index.len(), 3);
    }

    #[test]
    fn two_indexes_have_different_digests() {
        let digest = |index: &NameIndex| index.digest(&name(1));
        let digests: HashSet<u64> = (0..8).map(|_| digest(&NameIndex::new())).collect();
        assert!(digests.len() > 1, "{digests:?}");
    }

    #[test]
    fn an_index_is_compacted_when_it_has_more_than_twice_the_entries_and_a_thousand() {
        let index = NameIndex::new();
        (0..1224).for_each(|number| index.insert(&name(number), number));
        assert_eq!(index.compact(100, |_| false), 0);
        index.insert(&name(1224), 1224);
        assert_eq!((index.compact(100, |hash| hash < 100), index.len()), (1125, 100));
    }

    #[test]
    fn a_pair_that_enters_during_a_compaction_stays_even_if_it_was_known() {
        let index = NameIndex::new();
        (0..1025).for_each(|number| index.insert(&name(number), number));
        let asked = Cell::new(0);
        let dropped = index.compact(0, |_| {
            asked.set(asked.get() + 1);
            if asked.get() == 500 {
                // Whether these were asked about before, or will be: they enter now.
                (0..10).for_each(|number| index.insert(&name(number), number));
                index.insert(&name(5000), 5000);
            }
            false
        });
        assert_eq!((asked.get(), dropped, index.len()), (1025, 1015, 11));
        assert_eq!(index.hashes(&name(3)), [3]);
        assert_eq!(index.hashes(&name(5000)), [5000]);
    }

    #[test]
    fn a_second_compaction_does_nothing_while_one_runs_and_a_panic_ends_it() {
        let index = NameIndex::new();
        (0..1025).for_each(|number| index.insert(&name(number), number));
        let inner = RefCell::new(Vec::new());
        let dropped = index.compact(0, |hash| {
            inner.borrow_mut().push(index.compact(0, |_| false));
            hash > 0
        });
        assert_eq!((dropped, inner.borrow().iter().sum::<usize>()), (1, 0));
        index.insert(&name(0), 0);
        let panics = std::panic::AssertUnwindSafe(|| index.compact(0, |_| panic!("as a test")));
        assert!(std::panic::catch_unwind(panics).is_err());
        assert_eq!((index.compact(0, |_| false), index.len()), (1025, 0));
    }
}

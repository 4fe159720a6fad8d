//! Cold entries: entries of the opened snapshot that have not been used since.
//!
//! The core knows a cold entry only by its *rank*, its place in the saved order: rank 0 was the
//! least recently used. Keys and values stay in the file; the front asks the snapshot for the rank
//! of a key. Owns the set of ranks that are still cold. Invariants:
//! - a rank leaves the set once and never returns. The caller that makes it leave
//!   ([`ColdSet::take`] returns `true`) owns the next step: promoting the entry into the store, or
//!   counting it as deleted, evicted or expired;
//! - the set is shared by all shards of a cache, so its state is atomic. All transitions addressed
//!   by a *key* happen under the lock of that key's shard, so promotion and deletion of a key are
//!   ordered by that lock. Eviction and expiry go by rank and race with them only through `take`,
//!   which has a single winner;
//! - memory follows use: a set of ten million untouched entries costs a few kilobytes.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// A cold entry's place in the saved order; 0 was the least recently used.
pub type Rank = u32;

const WORDS: usize = 512;
const CHUNK: usize = WORDS * 64;

type Chunk = Box<[AtomicU64; WORDS]>;

/// Which entries of an opened snapshot are still cold.
#[derive(Debug)]
pub struct ColdSet {
    /// Bit set: the rank has left. A chunk that was never touched is absent, and all its ranks are
    /// cold.
    gone: Box<[OnceLock<Chunk>]>,
    /// Ranks below this were never in the set: the cache that opened the snapshot had no room for
    /// them.
    floor: Rank,
    len: u32,
    live: AtomicUsize,
    /// All ranks below are gone. Only grows; may lag behind the bits.
    cursor: AtomicU32,
    /// The number of hot entries beside the cold entries, as reported by the shards.
    hot: AtomicUsize,
}

impl ColdSet {
    /// The cold entries of a snapshot with `len` records, of which only the `room` most recently
    /// used are kept.
    pub fn new(len: u32, room: Option<usize>) -> Self {
        let kept = room.map_or(len, |room| u32::try_from(room).unwrap_or(u32::MAX).min(len));
        let floor = len - kept;
        Self {
            gone: (0..(len as usize).div_ceil(CHUNK)).map(|_| OnceLock::new()).collect(),
            floor,
            len,
            live: AtomicUsize::new(kept as usize),
            cursor: AtomicU32::new(floor),
            hot: AtomicUsize::new(0),
        }
    }

    /// How many entries are still cold.
    pub fn live(&self) -> usize {
        self.live.load(Ordering::Acquire)
    }

    /// How many hot entries there are in all shards.
    pub fn hot(&self) -> usize {
        self.hot.load(Ordering::Acquire)
    }

    /// A shard reports that it has `after` hot entries; its previous report was `before`.
    pub(crate) fn report_hot(&self, before: usize, after: usize) {
        if after > before {
            self.hot.fetch_add(after - before, Ordering::AcqRel);
        } else if after < before {
            self.hot.fetch_sub(before - after, Ordering::AcqRel);
        }
    }

    /// Whether the entry of this rank is still cold.
    pub fn contains(&self, rank: Rank) -> bool {
        if rank < self.floor || rank >= self.len {
            return false;
        }
        let (chunk, word, bit) = place(rank);
        self.gone[chunk].get().is_none_or(|words| words[word].load(Ordering::Acquire) & bit == 0)
    }

    /// Removes the entry of this rank; `true` if it was cold until this call.
    pub fn take(&self, rank: Rank) -> bool {
        if rank < self.floor || rank >= self.len {
            return false;
        }
        let (chunk, word, bit) = place(rank);
        let words = self.gone[chunk].get_or_init(|| Box::new([const { AtomicU64::new(0) }; WORDS]));
        let was_cold = words[word].fetch_or(bit, Ordering::AcqRel) & bit == 0;
        if was_cold {
            self.live.fetch_sub(1, Ordering::AcqRel);
        }
        was_cold
    }

    /// Makes the coldest entry leave and returns its rank.
    pub fn take_coldest(&self) -> Option<Rank> {
        let mut rank = self.cursor.load(Ordering::Relaxed);
        while rank < self.len {
            if self.word_is_gone(rank) {
                rank = (rank / 64 + 1).saturating_mul(64);
                continue;
            }
            if self.take(rank) {
                self.cursor.fetch_max(rank + 1, Ordering::Relaxed);
                return Some(rank);
            }
            rank += 1;
        }
        self.cursor.fetch_max(self.len, Ordering::Relaxed);
        None
    }

    /// Whether this rank and its neighbours in the same word are all gone.
    fn word_is_gone(&self, rank: Rank) -> bool {
        let (chunk, word, _) = place(rank);
        self.gone[chunk].get().is_some_and(|words| words[word].load(Ordering::Acquire) == u64::MAX)
    }

    /// Makes every entry leave; returns how many were still cold.
    pub fn take_all(&self) -> usize {
        std::iter::from_fn(|| self.take_coldest()).count()
    }

    /// A copy of the set in its present state, for a save.
    pub fn freeze(&self) -> Frozen {
        let words = self
            .gone
            .iter()
            .map(|chunk| chunk.get().map(|words| words.iter().map(|w| w.load(Ordering::Acquire)).collect()))
            .collect();
        Frozen { gone: words, floor: self.floor, len: self.len }
    }
}

/// A copy of a [`ColdSet`], from which ranks can be removed.
#[derive(Debug)]
pub struct Frozen {
    gone: Vec<Option<Vec<u64>>>,
    floor: Rank,
    len: u32,
}

impl Frozen {
    /// Whether this rank was cold and has not been removed from the copy.
    pub fn contains(&self, rank: Rank) -> bool {
        if rank < self.floor || rank >= self.len {
            return false;
        }
        let (chunk, word, bit) = place(rank);
        self.gone[chunk].as_ref().is_none_or(|words| words[word] & bit == 0)
    }

    /// Leaves `rank` out.
    pub fn remove(&mut self, rank: Rank) {
        if rank < self.floor || rank >= self.len {
            return;
        }
        let (chunk, word, bit) = place(rank);
        self.gone[chunk].get_or_insert_with(|| vec![0; WORDS])[word] |= bit;
    }
}

fn place(rank: Rank) -> (usize, usize, u64) {
    let rank = rank as usize;
    (rank / CHUNK, rank % CHUNK / 64, 1 << (rank % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_leaves_once() {
        let cold = ColdSet::new(3, None);
        assert!(cold.take(1));
        assert!(!cold.take(1));
        assert!(!cold.contains(1));
        assert_eq!(cold.live(), 2);
        assert_eq!([cold.take_coldest(), cold.take_coldest(), cold.take_coldest()], [Some(0), Some(2), None]);
        assert!(!cold.take(3), "beyond the snapshot");
    }

    #[test]
    fn a_smaller_cache_keeps_the_most_recently_used() {
        let cold = ColdSet::new(100_000, Some(10));
        assert_eq!(cold.live(), 10);
        assert!(!cold.contains(99_989));
        assert!(!cold.take(0));
        assert_eq!(cold.take_coldest(), Some(99_990));
        assert_eq!(cold.take_all(), 9);
    }

    #[test]
    fn a_frozen_copy_does_not_follow() {
        let cold = ColdSet::new(70_000, None);
        cold.take(5);
        let mut frozen = cold.freeze();
        cold.take(6);
        assert!(!frozen.contains(5) && frozen.contains(6) && frozen.contains(69_999));
        frozen.remove(69_999);
        assert!(!frozen.contains(69_999) && cold.contains(69_999));
    }
}

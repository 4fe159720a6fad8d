//! A filter of a run: tells of most keys that the run does not have them, without a read (a blocked
//! Bloom filter: F. Putze, P. Sanders, J. Singler, "Cache-, hash- and space-efficient Bloom
//! filters").
//!
//! Rules:
//! 1. A filter never denies a hash that the run has. So it is made of all slots: of those that are
//!    written to the run, or of the slots of all buckets, if all are valid.
//! 2. Filters are in memory only: the index takes no more bytes on the disk, an opening reads no
//!    filter, and a process trusts no filter of another one.
//! 3. A run gets its filter when it is written. A run of an earlier process gets it in the
//!    background, when look-ups have read the run in vain as often as the filter takes to make.
//! 4. All filters of a store together have at most [`MOST_FILTER_BYTES`]. A filter takes at most
//!    half of what is left, so a few large runs leave room for the others: a filter of a small run
//!    saves a look-up as much as that of a large one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::format::store::Hash40;

/// Rule 4: enough for some 30 million entries.
pub(super) const MOST_FILTER_BYTES: usize = 32 << 20;
/// Eight bits a slot: one slot in 43 that is not in the run is not denied.
const SLOTS_OF_BLOCK: u32 = 64;
/// Where the numbers of the bits that a slot sets in its block, of nine bits each, are in a mixed
/// hash. Five are the best number at this size.
const BIT_NUMBERS: [u32; 5] = [0, 9, 18, 27, 36];

/// A cache line.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Block([u64; 8]);

/// The memory of all filters of a store.
#[derive(Debug, Default)]
pub(super) struct FilterRoom(AtomicUsize);

impl FilterRoom {
    /// The bytes in use.
    pub(super) fn used(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Rule 4.
    fn take(self: &Arc<Self>, bytes: usize) -> Option<TakenRoom> {
        let take = |used: usize| {
            let left = MOST_FILTER_BYTES.saturating_sub(used);
            (bytes <= left / 2).then(|| used.saturating_add(bytes))
        };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(TakenRoom { room: Arc::clone(self), bytes })
    }
}

/// Gives its bytes back when it is dropped.
#[derive(Debug)]
struct TakenRoom {
    room: Arc<FilterRoom>,
    bytes: usize,
}

impl Drop for TakenRoom {
    fn drop(&mut self) {
        self.room.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The filter of a run.
#[derive(Debug)]
pub(super) struct RunFilter {
    blocks: Box<[Block]>,
    _room: TakenRoom,
}

impl RunFilter {
    /// An empty filter for this many slots. `None` if there is no room, or no slot.
    pub(super) fn for_slots(slots: u32, room: &Arc<FilterRoom>) -> Option<Self> {
        let blocks = usize::try_from(slots.div_ceil(SLOTS_OF_BLOCK)).ok().filter(|blocks| *blocks > 0)?;
        let room = room.take(blocks.checked_mul(size_of::<Block>())?)?;
        Some(Self { blocks: vec![Block::default(); blocks].into_boxed_slice(), _room: room })
    }

    /// Adds the hash of a slot.
    pub(super) fn insert(&mut self, hash: Hash40) {
        let block = self.block_of(hash);
        if let Some(Block(words)) = self.blocks.get_mut(block) {
            for (word, mask) in bits_of(hash) {
                if let Some(word) = words.get_mut(word) {
                    *word |= mask;
                }
            }
        }
    }

    /// Whether a slot with this hash may have been added.
    pub(super) fn may_hold(&self, hash: Hash40) -> bool {
        let block = self.blocks.get(self.block_of(hash));
        let is_set = |words: &[u64; 8], word, mask| words.get(word).is_none_or(|word| word & mask != 0);
        block.is_none_or(|Block(words)| bits_of(hash).all(|(word, mask)| is_set(words, word, mask)))
    }

    /// Slots come in the order of their homes, so a filter is filled from its start to its end.
    fn block_of(&self, hash: Hash40) -> usize {
        hash.home(u32::try_from(self.blocks.len()).unwrap_or(u32::MAX)) as usize
    }
}

/// The bits of a hash in its block: words, and masks in them.
fn bits_of(hash: Hash40) -> impl Iterator<Item = (usize, u64)> {
    // The block is chosen by the upper bits of the hash. The numbers of the bits come from all of
    // them, mixed (the end of splitmix64).
    let mixed = (hash.bits() ^ (hash.bits() >> 17)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    let mixed = mixed ^ (mixed >> 31);
    BIT_NUMBERS.into_iter().map(move |at| {
        let number = mixed.rotate_right(at);
        ((number >> 6 & 7) as usize, 1 << (number & 63))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::address::KeyHash;
    use crate::store::run::tests::numbers;

    fn hashes(seed: u64, count: u32) -> Vec<Hash40> {
        numbers(seed).take(count as usize).map(|number| Hash40::of(KeyHash(number))).collect()
    }

    fn filled(hashes: &[Hash40]) -> RunFilter {
        let count = u32::try_from(hashes.len()).unwrap();
        let mut filter = RunFilter::for_slots(count, &Arc::default()).unwrap();
        for hash in hashes {
            filter.insert(*hash);
        }
        filter
    }

    #[test]
    fn no_hash_that_was_added_is_denied() {
        for count in [1, 2, 63, 64, 65, 1000, 100_000] {
            let hashes = hashes(count.into(), count);
            let filter = filled(&hashes);
            assert!(hashes.iter().all(|hash| filter.may_hold(*hash)), "{count}");
        }
        // Hashes that differ in a few bits only.
        for shift in [0, 8, 20, 33] {
            let hashes: Vec<Hash40> = (0..100).map(|n| Hash40::of(KeyHash(n << shift))).collect();
            let filter = filled(&hashes);
            assert!(hashes.iter().all(|hash| filter.may_hold(*hash)), "{shift}");
        }
    }

    #[test]
    fn most_other_hashes_are_denied() {
        for count in [64, 1000, 100_000] {
            let filter = filled(&hashes(1, count));
            let wrong = hashes(2, 100_000).into_iter().filter(|hash| filter.may_hold(*hash)).count();
            assert!((1000..4000).contains(&wrong), "{wrong} of 100,000 with {count} slots");
        }
    }

    #[test]
    fn filters_leave_room_for_others_and_give_theirs_back() {
        let room = Arc::<FilterRoom>::default();
        let half = u32::try_from(MOST_FILTER_BYTES / 2).unwrap();
        assert!(RunFilter::for_slots(half + 1, &room).is_none());
        let large = RunFilter::for_slots(half, &room).unwrap();
        assert_eq!(room.used(), MOST_FILTER_BYTES / 2);
        assert!(RunFilter::for_slots(half / 2 + 1, &room).is_none());
        let small = RunFilter::for_slots(100, &room).unwrap();
        assert_eq!(room.used(), MOST_FILTER_BYTES / 2 + 128);
        drop(large);
        assert!(RunFilter::for_slots(half - 128, &room).is_some());
        drop(small);
        assert_eq!(room.used(), 0);
        assert!(RunFilter::for_slots(0, &room).is_none());
        assert!(RunFilter::for_slots(u32::MAX, &room).is_none());
    }
}

//! Building the index of a new file (file format, section 6).

use crate::format::address::{KeyHash, chain};
use crate::format::checksum::Seal;
use crate::format::page::{BucketEntry, PAGE_BYTES, page_items, put_slot};

/// The writer's note of a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct IndexNote {
    pub(super) hash: KeyHash,
    pub(super) offset: u64,
}

/// Builds the buckets for the position `start`. `places` are the entries by rank; its clones start
/// from the beginning. `None` if some entry fits into no bucket for any number of buckets, because
/// hundreds of entries have the same hash.
pub(super) fn build<'p>(
    places: &(impl DoubleEndedIterator<Item = &'p IndexNote> + Clone),
    entries: u32,
    first_buckets: u32,
    seal: Seal,
    start: u64,
) -> Option<Vec<[u8; PAGE_BYTES]>> {
    let mut buckets = first_buckets.max(u32::from(entries > 0));
    let most = entries.saturating_mul(2).max(first_buckets);
    let capacity = page_items(seal.has_mac());
    let mut index = loop {
        match fill(places.clone(), entries, buckets, capacity) {
            Some(index) => break index,
            None if buckets >= most => return None,
            None => buckets = buckets.saturating_mul(2).min(most),
        }
    };
    for (bucket, number) in index.iter_mut().zip(0u64..) {
        seal.close(start + number * PAGE_BYTES as u64, bucket);
    }
    Some(index)
}

/// Places every entry, the most recently used first, so that it is nearest to its home. `None` if a
/// chain grows too long.
fn fill<'p>(
    places: impl DoubleEndedIterator<Item = &'p IndexNote>,
    entries: u32,
    buckets: u32,
    capacity: u32,
) -> Option<Vec<[u8; PAGE_BYTES]>> {
    let mut index = vec![[0; PAGE_BYTES]; buckets as usize];
    for (place, rank) in places.rev().zip((0..entries).rev()) {
        let slot = BucketEntry { tag: place.hash.tag(), rank, offset: place.offset };
        let mut chain = chain(place.hash.home(buckets), buckets);
        if !chain.any(|bucket| put_slot(&mut index[bucket as usize], slot, capacity)) {
            return None;
        }
    }
    Some(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::page::Page;

    fn places(count: u64, hash: impl Fn(u64) -> u64) -> Vec<IndexNote> {
        (0..count).map(|i| IndexNote { hash: KeyHash(hash(i)), offset: 4096 + i }).collect()
    }

    #[test]
    fn entries_of_one_home_fill_a_chain_of_eight_buckets_and_wrap() {
        let places = places(8 * 42, |_| u64::MAX);
        let seal = Seal::new(&[0; 16], None);
        let index = build(&places.iter(), 8 * 42, 10, seal, 0).unwrap();
        let lens = |index: &[[u8; PAGE_BYTES]]| -> Vec<(usize, bool)> {
            let pages = index.iter().zip(0..).map(|(page, i)| Page::open(seal, i * 512, page).unwrap());
            pages.map(|page| (page.len(), page.overflowed())).collect()
        };
        let (full, last, empty) = ((42, true), (42, false), (0, false));
        assert_eq!(lens(&index), [full, full, full, full, full, full, last, empty, empty, full]);
    }

    #[test]
    fn a_chain_that_grows_too_long_makes_the_index_larger() {
        let places = places(1000, |i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let index = build(&places.iter(), 1000, 1, Seal::new(&[0; 16], None), 0).unwrap();
        assert_eq!(index.len(), 32);
    }

    #[test]
    fn more_equal_hashes_than_a_chain_holds_have_no_place() {
        let places = places(8 * 42 + 1, |_| 5);
        assert!(build(&places.iter(), 8 * 42 + 1, 16, Seal::new(&[0; 16], None), 0).is_none());
    }
}

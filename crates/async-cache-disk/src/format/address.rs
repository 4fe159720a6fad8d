//! From a key to its place in the index (file format, section 6).

use siphasher::sip::SipHasher13;

/// Most buckets that a look-up visits: the home bucket and seven more.
pub(crate) const MAX_CHAIN: u32 = 8;
/// The writer's target for entries per bucket: at 30 of 42 (or of 40), few buckets in a hundred
/// overflow.
const MEAN_LOAD: u32 = 30;

/// Hashes keys with the seed of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyHasher(SipHasher13);

impl KeyHasher {
    pub(crate) fn new(seed: &[u8; 16]) -> Self {
        Self(SipHasher13::new_with_key(seed))
    }

    pub(crate) fn hash(&self, key: &[u8]) -> KeyHash {
        KeyHash(self.0.hash(key))
    }
}

/// The seeded hash of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyHash(pub(crate) u64);

impl KeyHash {
    /// The part of the hash that a bucket stores.
    #[allow(clippy::cast_possible_truncation)] // the low 16 bits are meant
    pub(crate) fn tag(self) -> u16 {
        self.0 as u16
    }

    /// The bucket where the search begins; below `buckets` unless `buckets` is zero.
    #[allow(clippy::cast_possible_truncation)] // (h >> 32) * buckets >> 32 is below buckets
    pub(crate) fn home(self, buckets: u32) -> u32 {
        ((self.0 >> 32).wrapping_mul(u64::from(buckets)) >> 32) as u32
    }
}

/// The buckets where an entry with this home may be, in the order of the search.
pub(crate) fn chain(home: u32, buckets: u32) -> impl Iterator<Item = u32> {
    let all = std::iter::successors(Some(home), move |bucket| Some(next_bucket(*bucket, buckets)));
    all.take(MAX_CHAIN.min(buckets) as usize)
}

fn next_bucket(bucket: u32, buckets: u32) -> u32 {
    match bucket.checked_add(1) {
        Some(next) if next < buckets => next,
        _ => 0,
    }
}

/// How many buckets a writer begins with.
pub(crate) fn bucket_count(entries: u32) -> u32 {
    entries.div_ceil(MEAN_LOAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_siphash_1_3_of_the_bare_bytes() {
        // Key and message of the paper's example. The value comes from an independent
        // implementation, which also gives the paper's own a129ca6149be45e5 for SipHash-2-4.
        let seed: [u8; 16] = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let key: Vec<u8> = (0..15).collect();
        assert_eq!(KeyHasher::new(&seed).hash(&key).0, 0xd320_d86d_2a51_9956);
    }

    #[test]
    fn every_hash_has_a_home_below_the_count() {
        for buckets in [1, 2, 7, u32::MAX] {
            assert_eq!(KeyHash(0).home(buckets), 0);
            assert_eq!(KeyHash(u64::MAX).home(buckets), buckets - 1);
            assert_eq!(next_bucket(buckets - 1, buckets), 0);
        }
    }
}

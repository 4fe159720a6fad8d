//! Tables by numbers chosen inside the process: counters and addresses.
//!
//! The hasher of the standard library withstands an attacker that picks the keys, which takes
//! several times longer than the rest of a look-up.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// A map with such numbers as keys.
pub type NumberMap<N, V> = HashMap<N, V, BuildHasherDefault<NumberHasher>>;

/// A set of such numbers.
pub type NumberSet<N> = HashSet<N, BuildHasherDefault<NumberHasher>>;

/// A multiplication for each number, by the golden ratio, which spreads consecutive numbers. The
/// rotation moves the product's best bits to the bits used by tables: the lowest, and the seven at
/// the top.
#[derive(Debug, Default)]
pub struct NumberHasher(u64);

impl Hasher for NumberHasher {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    #[inline]
    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(26);
    }

    #[inline]
    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    /// A table takes the low bits for the place and the top seven for the first comparison.
    #[test]
    fn numbers_in_a_row_and_addresses_differ_where_tables_look() {
        let build = BuildHasherDefault::<NumberHasher>::default();
        for step in [1_u64, 8, 16, 64, 4096] {
            let hashes: Vec<u64> = (0..1024).map(|n| build.hash_one(n * step)).collect();
            let low: HashSet<u64> = hashes.iter().map(|hash| hash & 1023).collect();
            let top: HashSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
            assert!(low.len() > 512, "step {step}: {} places", low.len());
            assert_eq!(top.len(), 128, "step {step}");
        }
    }
}

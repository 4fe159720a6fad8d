//! The files of a store (file format, part two): bytes to numbers and back. No I/O, no state, no
//! policy.
//!
//! Rules:
//! 1. a decoder accepts exactly the units that an encoder writes, apart from fields that the format
//!    tells a reader to ignore. An encoder refuses every unit that its decoder would refuse;
//! 2. offsets in a segment are `u32`, because a segment is shorter than 2³² bytes; numbers of files
//!    are `u32` between 1 and 2²⁴ − 1;
//! 3. a decoder of an open unit (record, digest, attributes) is given bytes whose checksum matched;
//!    decoders of closed units (bucket, eager list, manifest) are given the seal.

pub(crate) mod attributes;
pub(crate) mod bucket;
pub(crate) mod digest;
pub(crate) mod header;
pub(crate) mod manifest;
pub(crate) mod record;

use super::Fields;
use super::address::KeyHash;

/// Numbers of files are below this number, and not 0.
pub(crate) const FILE_NUMBERS: u32 = 1 << 24;
/// The length of a segment without records: its header page.
pub(crate) const MIN_SEGMENT_BYTES: u32 = 4096;
const HASH_BITS: u32 = 40;

/// Whether a segment or a run may have this number.
pub(crate) fn is_file_number(number: u32) -> bool {
    (1..FILE_NUMBERS).contains(&number)
}

/// The low 40 bits of a key's hash: the part that slots and digests hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Hash40(u64);

impl Hash40 {
    pub(crate) fn of(hash: KeyHash) -> Self {
        Self(hash.0 & ((1 << HASH_BITS) - 1))
    }

    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    /// The home bucket in a run. A home bucket comes from the upper half of a hash, so the 40 bits
    /// are shifted there. The home of a slot and of a damaged record is known without the key.
    pub(crate) fn home(self, buckets: u32) -> u32 {
        KeyHash(self.0 << (u64::BITS - HASH_BITS)).home(buckets)
    }
}

/// Where a record stands. A greater place is later, at equal times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StorePlace {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
}

impl StorePlace {
    pub(crate) const BYTES: usize = 8;

    /// `None` if no segment can have the number.
    pub(crate) fn decode(bytes: [u8; Self::BYTES]) -> Option<Self> {
        let mut fields = Fields(&bytes);
        let (offset, segment) = (fields.u32()?, fields.u32()?);
        is_file_number(segment).then_some(Self { segment, offset })
    }

    pub(crate) fn encode(self) -> [u8; Self::BYTES] {
        let [o0, o1, o2, o3] = self.offset.to_le_bytes();
        let [s0, s1, s2, s3] = self.segment.to_le_bytes();
        [o0, o1, o2, o3, s0, s1, s2, s3]
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use crate::format::checksum::Seal;
    use crate::secret::Secret;

    pub(crate) const FILE_ID: [u8; 16] = *b"0123456789abcdef";

    pub(crate) fn secret() -> Secret {
        Secret::new("long enough for a test").unwrap()
    }

    /// A seal without a MAC, and a seal with a MAC.
    pub(crate) fn seals() -> [Seal; 2] {
        [Seal::new(&FILE_ID, None), Seal::new(&FILE_ID, Some(&secret()))]
    }

    /// Asserts that a closed unit is refused with any single bit changed, and if it is cut off
    /// anywhere.
    pub(crate) fn assert_refuses_changes(unit: &[u8], opens: impl Fn(&[u8]) -> bool) {
        assert!(opens(unit));
        let mut changed = unit.to_vec();
        for place in 0..unit.len() {
            assert!(!opens(&unit[..place]), "cut at {place}");
            for bit in 0..8 {
                changed[place] ^= 1 << bit;
                assert!(!opens(&changed), "bit {bit} of byte {place}");
                changed[place] ^= 1 << bit;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_bucket_is_known_from_forty_bits() {
        let hash = KeyHash(0xFEDC_BA98_7654_3210);
        let short = Hash40::of(hash);
        assert_eq!(short.bits(), 0x98_7654_3210);
        // 0x98765432 of 2³², times 1000.
        assert_eq!(short.home(1000), 595);
        assert_eq!(Hash40::of(KeyHash(u64::MAX)).home(u32::MAX), u32::MAX - 1);
        assert_eq!(Hash40::of(KeyHash(0xFF_FFFF << 40)).home(u32::MAX), 0);
    }

    #[test]
    fn a_segment_begins_with_a_header_page() {
        assert_eq!(MIN_SEGMENT_BYTES as usize, crate::format::header_page::HEADER_BYTES);
    }

    #[test]
    fn a_place_is_offset_and_number_and_is_ordered_by_number_first() {
        let place = StorePlace { segment: 0x00FF_FFFE, offset: 0x0403_0201 };
        assert_eq!(place.encode(), [1, 2, 3, 4, 0xFE, 0xFF, 0xFF, 0]);
        assert_eq!(StorePlace::decode(place.encode()), Some(place));
        assert!(place > StorePlace { segment: 1, offset: u32::MAX });
        assert_eq!(StorePlace::decode([1, 2, 3, 4, 0, 0, 0, 0]), None);
        assert_eq!(StorePlace::decode([1, 2, 3, 4, 0, 0, 0, 1]), None);
    }
}

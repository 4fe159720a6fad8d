//! The pages of a run (file format, section 15): buckets of slots, and the list of eager records.

use super::super::Fields;
use super::super::checksum::{CHECKSUM_BYTES, Seal};
use super::super::page::{ITEM_BYTES, PAGE_BYTES, Page, put_or_overflow};
use super::{Hash40, StorePlace};

/// A record in a bucket of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunSlot {
    pub(crate) hash: Hash40,
    pub(crate) place: StorePlace,
}

impl RunSlot {
    fn decode(item: &[u8; ITEM_BYTES]) -> Self {
        let [h0, h1, h2, h3, h4, s0, s1, s2, o0, o1, o2, o3] = *item;
        Self {
            hash: Hash40(u64::from_le_bytes([h0, h1, h2, h3, h4, 0, 0, 0])),
            place: StorePlace {
                segment: u32::from_le_bytes([s0, s1, s2, 0]),
                offset: u32::from_le_bytes([o0, o1, o2, o3]),
            },
        }
    }

    /// Numbers of segments have 24 bits.
    fn encode(self) -> [u8; ITEM_BYTES] {
        let [h0, h1, h2, h3, h4, ..] = self.hash.bits().to_le_bytes();
        let [s0, s1, s2, _] = self.place.segment.to_le_bytes();
        let [o0, o1, o2, o3] = self.place.offset.to_le_bytes();
        [h0, h1, h2, h3, h4, s0, s1, s2, o0, o1, o2, o3]
    }

    /// Adds the slot to a bucket under construction with this capacity
    /// ([`page_items`](super::super::page::page_items)); `false` marks the bucket as overflowed,
    /// because it was full.
    pub(crate) fn put(self, page: &mut [u8; PAGE_BYTES], capacity: u32) -> bool {
        put_or_overflow(page, self.encode(), capacity)
    }
}

/// A bucket whose checksum matched, and its tag if a tag is required.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunBucket<'b>(Page<'b>);

impl<'b> RunBucket<'b> {
    /// Checks a bucket that was read at `offset`.
    pub(crate) fn open(seal: Seal, offset: u64, bytes: &'b [u8; PAGE_BYTES]) -> Option<Self> {
        Page::open(seal, offset, bytes).map(Self)
    }

    /// The same without the checksum, for bytes that [`open`](Self::open) checked before.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn reopen(bytes: &'b [u8; PAGE_BYTES]) -> Option<Self> {
        Page::reopen(bytes).map(Self)
    }

    /// Whether slots whose search passed this bucket may be in the next.
    pub(crate) fn overflowed(self) -> bool {
        self.0.overflowed()
    }

    pub(crate) fn slots(self) -> impl Iterator<Item = RunSlot> + use<'b> {
        self.0.items().iter().map(RunSlot::decode)
    }

    /// The slots of records whose keys have this hash.
    pub(crate) fn matching(self, hash: Hash40) -> impl Iterator<Item = RunSlot> + use<'b> {
        let [h0, h1, h2, h3, h4, ..] = hash.bits().to_le_bytes();
        let items = self.0.items().iter();
        items.filter(move |item| item.starts_with(&[h0, h1, h2, h3, h4])).map(RunSlot::decode)
    }
}

/// The eager records of a run: a unit behind the buckets. Ascending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct EagerPlaces(pub(crate) Vec<StorePlace>);

impl EagerPlaces {
    /// The length of the unit for this many records. None: no unit.
    pub(crate) fn unit_bytes(count: u32, tag_bytes: usize) -> u64 {
        let frame = (CHECKSUM_BYTES as u64).saturating_add(tag_bytes as u64);
        let places = u64::from(count).saturating_mul(StorePlace::BYTES as u64);
        if count == 0 { 0 } else { frame.saturating_add(places) }
    }

    /// Checks and decodes the whole unit, read at `offset`.
    pub(crate) fn decode(seal: Seal, offset: u64, unit: &[u8]) -> Option<Self> {
        let (places, rest) = Fields(seal.open(offset, unit)?).0.as_chunks();
        let places = places.iter().copied().map(StorePlace::decode).collect::<Option<Vec<_>>>()?;
        (rest.is_empty() && places.is_sorted_by(|a, b| a < b)).then_some(Self(places))
    }

    /// The unit, closed for `offset`.
    pub(crate) fn encode(&self, seal: Seal, offset: u64) -> Vec<u8> {
        let places = self.0.iter().flat_map(|place| place.encode());
        let mut unit: Vec<u8> = [0; CHECKSUM_BYTES].into_iter().chain(places).collect();
        unit.resize(unit.len().saturating_add(seal.tag_bytes()), 0);
        seal.close(offset, &mut unit);
        unit
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::address::KeyHash;
    use super::super::super::page::page_items;
    use super::super::testing::{assert_refuses_changes, seals};
    use super::*;

    fn slot(hash: u64, segment: u32, offset: u32) -> RunSlot {
        RunSlot { hash: Hash40::of(KeyHash(hash)), place: StorePlace { segment, offset } }
    }

    #[test]
    fn a_bucket_has_the_bytes_of_the_format() {
        let [seal, _] = seals();
        let mut page = [0; PAGE_BYTES];
        assert!(slot(0x98_7654_3210, 0xC0_B0A0, 0x0403_0201).put(&mut page, 1));
        assert!(!slot(1, 2, 3).put(&mut page, 1));
        seal.close(4096, &mut page);
        #[rustfmt::skip]
        let expected = [
            0xAF, 0x79, 0x07, 0x44, // checksum
            1, 1, 0, 0, // count, flags
            0x10, 0x32, 0x54, 0x76, 0x98, 0xA0, 0xB0, 0xC0, 1, 2, 3, 4,
        ];
        assert_eq!(page[..20], expected);
        assert!(page[20..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_bucket_gives_back_its_slots_and_says_that_it_overflowed() {
        for seal in seals() {
            let capacity = page_items(seal.has_mac());
            let slot = |number| slot(u64::from(number % 3) << 32, number + 1, u32::MAX - number);
            let mut page = [0; PAGE_BYTES];
            assert!((0..capacity).all(|number| slot(number).put(&mut page, capacity)));
            seal.close(4096, &mut page);
            assert!(!RunBucket::open(seal, 4096, &page).unwrap().overflowed());
            assert!(!slot(capacity).put(&mut page, capacity));
            seal.close(4096, &mut page);
            let bucket = RunBucket::open(seal, 4096, &page).unwrap();
            assert!(bucket.overflowed() && RunBucket::reopen(&page).unwrap().overflowed());
            assert!(bucket.slots().eq((0..capacity).map(slot)));
            assert!(bucket.matching(slot(1).hash).eq((0..capacity).filter(|n| n % 3 == 1).map(slot)));
            assert_eq!(bucket.matching(Hash40::of(KeyHash(1))).count(), 0);
            assert!(RunBucket::open(seal, 4096 + 512, &page).is_none());
            assert_refuses_changes(&page, |page| {
                page.first_chunk().is_some_and(|page| RunBucket::open(seal, 4096, page).is_some())
            });
        }
    }

    #[test]
    fn a_list_of_eager_records_has_the_bytes_of_the_format_and_comes_back() {
        let places = [(1, 0x0403_0201), (0x02_0001, 0), (0xFF_FFFF, u32::MAX)];
        let list = EagerPlaces(places.map(|(segment, offset)| StorePlace { segment, offset }).to_vec());
        for seal in seals() {
            let unit = list.encode(seal, 8192);
            assert_eq!(unit.len() as u64, EagerPlaces::unit_bytes(3, seal.tag_bytes()));
            assert_eq!(unit[4..20], [1, 2, 3, 4, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0]);
            assert_eq!(EagerPlaces::decode(seal, 8192, &unit).as_ref(), Some(&list));
            assert_refuses_changes(&unit, |unit| EagerPlaces::decode(seal, 8192, unit).is_some());
            assert!(EagerPlaces::decode(seal, 8193, &unit).is_none());
            let of = |body: &[u8]| {
                let mut unit = [&[0; 4], body, &[0; 16][..seal.tag_bytes()]].concat();
                seal.close(0, &mut unit);
                EagerPlaces::decode(seal, 0, &unit)
            };
            let [first, second, _] = [0, 1, 2].map(|index| list.0[index].encode());
            assert!(of(&[first, second].concat()).is_some());
            assert!(of(&[second, first].concat()).is_none());
            assert!(of(&[first, first].concat()).is_none());
            assert!(of(&[&first[..], &[0]].concat()).is_none());
            assert!(of(&[1, 0, 0, 0, 0, 0, 0, 1]).is_none());
        }
        assert_eq!(EagerPlaces::unit_bytes(0, 16), 0);
    }
}

//! The 512-byte page of index and deadlines (file format, sections 6 and 7): checksum u32, count
//! u8, flags u8, two zero bytes, 42 items of 12 bytes; in a file with a MAC, 40 items, and the tag
//! at the end of the page (section 8).

use super::Fields;
use super::address::KeyHash;
use super::checksum::Seal;

pub(crate) const PAGE_BYTES: usize = 512;
/// Most items on a page without a tag.
const PAGE_ITEMS: u32 = 42;
/// Most items on a page that ends with a tag.
const TAGGED_PAGE_ITEMS: u32 = 40;
const HEAD_BYTES: usize = 8;
pub(crate) const ITEM_BYTES: usize = 12;
const OVERFLOWED: u8 = 1;

/// How many items a page of a file holds.
pub(crate) fn page_items(has_mac: bool) -> u32 {
    if has_mac { TAGGED_PAGE_ITEMS } else { PAGE_ITEMS }
}

/// A page whose checksum matched, and its tag if a tag is required.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page<'b> {
    items: &'b [u8],
    flags: u8,
}

impl<'b> Page<'b> {
    /// Checks a page that was read at `offset`.
    pub(crate) fn open(seal: Seal, offset: u64, bytes: &'b [u8; PAGE_BYTES]) -> Option<Self> {
        let body = seal.open(offset, bytes)?;
        let count = u32::from(*body.first()?);
        if count > page_items(seal.has_mac()) { None } else { Self::reopen(bytes) }
    }

    /// The same without the checksum, for bytes that [`open`](Self::open) checked before.
    pub(crate) fn reopen(bytes: &'b [u8; PAGE_BYTES]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let (_checksum, count, flags, _zero) = (fields.u32()?, fields.u8()?, fields.u8()?, fields.u16()?);
        let items = fields.bytes(usize::from(count).checked_mul(ITEM_BYTES)?)?;
        Some(Self { items, flags })
    }

    /// Whether entries whose search passed this bucket may be in the next.
    pub(crate) fn overflowed(self) -> bool {
        self.flags & OVERFLOWED != 0
    }

    pub(crate) fn flags(self) -> u8 {
        self.flags
    }

    pub(crate) fn len(self) -> usize {
        self.items.len().checked_div(ITEM_BYTES).unwrap_or(0)
    }

    /// The used items, as they stand.
    pub(crate) fn items(self) -> &'b [[u8; ITEM_BYTES]] {
        self.items.as_chunks::<ITEM_BYTES>().0
    }

    /// The items of a bucket.
    pub(crate) fn slots(self) -> impl Iterator<Item = BucketEntry> + use<'b> {
        self.items().iter().map(BucketEntry::decode)
    }

    /// The items of a bucket with a tag.
    pub(crate) fn tagged(self, hash: KeyHash) -> impl Iterator<Item = BucketEntry> + use<'b> {
        let tag = hash.tag().to_le_bytes();
        let items = self.items().iter();
        items.filter(move |item| item.starts_with(&tag)).map(BucketEntry::decode)
    }

    /// An item of a deadline page.
    pub(crate) fn due(self, index: usize) -> Option<(u64, u32)> {
        let mut fields = Fields(self.items().get(index)?);
        Some((fields.u64()?, fields.u32()?))
    }
}

/// An entry of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BucketEntry {
    pub(crate) tag: u16,
    pub(crate) rank: u32,
    pub(crate) offset: u64,
}

impl BucketEntry {
    fn decode(item: &[u8; ITEM_BYTES]) -> Self {
        let [t0, t1, r0, r1, r2, r3, o0, o1, o2, o3, o4, o5] = *item;
        Self {
            tag: u16::from_le_bytes([t0, t1]),
            rank: u32::from_le_bytes([r0, r1, r2, r3]),
            offset: u64::from_le_bytes([o0, o1, o2, o3, o4, o5, 0, 0]),
        }
    }

    fn encode(self) -> [u8; ITEM_BYTES] {
        let [t0, t1] = self.tag.to_le_bytes();
        let [r0, r1, r2, r3] = self.rank.to_le_bytes();
        let [o0, o1, o2, o3, o4, o5, ..] = self.offset.to_le_bytes();
        [t0, t1, r0, r1, r2, r3, o0, o1, o2, o3, o4, o5]
    }
}

/// Adds an entry to a bucket under construction with this capacity; `false` marks the bucket as
/// overflowed, because it was full.
pub(crate) fn put_slot(page: &mut [u8; PAGE_BYTES], slot: BucketEntry, capacity: u32) -> bool {
    put_or_overflow(page, slot.encode(), capacity)
}

/// Adds an item to a bucket under construction, like [`put_slot`].
pub(crate) fn put_or_overflow(page: &mut [u8; PAGE_BYTES], item: [u8; ITEM_BYTES], capacity: u32) -> bool {
    let placed = put_item(page, item, capacity);
    if !placed {
        let [_, _, _, _, _, flags, ..] = page;
        *flags |= OVERFLOWED;
    }
    placed
}

/// Adds a deadline to a page under construction with this capacity; `false` if the page is full.
pub(crate) fn put_due(page: &mut [u8; PAGE_BYTES], deadline: u64, rank: u32, capacity: u32) -> bool {
    let [d0, d1, d2, d3, d4, d5, d6, d7] = deadline.to_le_bytes();
    let [r0, r1, r2, r3] = rank.to_le_bytes();
    put_item(page, [d0, d1, d2, d3, d4, d5, d6, d7, r0, r1, r2, r3], capacity)
}

fn put_item(page: &mut [u8; PAGE_BYTES], item: [u8; ITEM_BYTES], capacity: u32) -> bool {
    let Some(([_, _, _, _, count, ..], items)) = page.split_first_chunk_mut::<HEAD_BYTES>() else {
        return false;
    };
    match items.as_chunks_mut::<ITEM_BYTES>().0.get_mut(usize::from(*count)) {
        Some(place) if u32::from(*count) < capacity => {
            *place = item;
            *count = count.wrapping_add(1);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn a_bucket_takes_42_entries_or_40_and_a_tag_and_then_says_that_it_overflowed() {
        let secret = Secret::new("long enough for a test").unwrap();
        for (secret, capacity) in [(None, 42), (Some(&secret), 40)] {
            let seal = Seal::new(&[3; 16], secret);
            assert_eq!(page_items(seal.has_mac()), capacity);
            let slot = |rank| BucketEntry { tag: 7, rank, offset: 0xFFFF_FFFF_FFFF };
            let mut page = [0; PAGE_BYTES];
            assert!((0..capacity).all(|rank| put_slot(&mut page, slot(rank), capacity)));
            seal.close(0, &mut page);
            assert!(!Page::open(seal, 0, &page).unwrap().overflowed());

            assert!(!put_slot(&mut page, slot(capacity), capacity));
            seal.close(0, &mut page);
            let opened = Page::open(seal, 0, &page).unwrap();
            assert!(opened.overflowed());
            assert!(opened.slots().eq((0..capacity).map(slot)));
            assert!(Page::open(seal, 512, &page).is_none());
        }
    }

    #[test]
    fn a_count_beyond_the_capacity_is_refused_even_with_a_matching_checksum_and_tag() {
        let secret = Secret::new("long enough for a test").unwrap();
        for (secret, count) in [(None, 43), (Some(&secret), 41)] {
            let seal = Seal::new(&[3; 16], secret);
            let mut page = [0; PAGE_BYTES];
            page[4] = count;
            seal.close(0, &mut page);
            assert!(Page::open(seal, 0, &page).is_none());
        }
    }
}

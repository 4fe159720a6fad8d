//! Bytes to numbers and back, as `docs/file-format.md` has them. No I/O, no state, no policy.
//!
//! Invariant: nothing in here panics, whatever the bytes; decoders answer with what is wrong
//! instead.

pub(crate) mod address;
pub(crate) mod checksum;
pub(crate) mod head_bytes;
pub(crate) mod header;
pub(crate) mod header_page;
pub(crate) mod page;
pub(crate) mod record;
pub(crate) mod store;

/// Takes fixed-size fields off the front of a byte slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'b>(pub(crate) &'b [u8]);

impl<'b> Fields<'b> {
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*array)
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'b [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

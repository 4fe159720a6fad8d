//! The parts of a record's head that records of all formats share (file format, sections 5 and
//! 14): flags, and lengths as LEB128.

use super::Fields;

/// The longest head behind the checksum: flags, three lengths, two times.
const MAX_BYTES: usize = 1 + 3 * 5 + 2 * 8;

/// The bytes of a head, from the flags on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HeadBytes {
    bytes: [u8; MAX_BYTES],
    len: usize,
}

impl HeadBytes {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Sets a bit of the first byte.
    pub(crate) fn set_flag(&mut self, flag: u8) {
        if let Some(flags) = self.bytes.first_mut() {
            *flags |= flag;
        }
    }

    /// Appends bytes; none of them if the head would be too long.
    #[inline]
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        if let Some(place) = self.bytes.get_mut(self.len..end) {
            place.copy_from_slice(bytes);
            self.len = end;
        }
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation)] // seven bits
    pub(crate) fn put_length(&mut self, mut length: u32) {
        while length >= 0x80 {
            self.put(&[(length & 0x7F) as u8 | 0x80]);
            length >>= 7;
        }
        self.put(&[length as u8]);
    }
}

/// Takes a length in LEB128; `None` if the length is not in the shortest form, or above 2³² − 1.
#[inline]
pub(crate) fn take_length(fields: &mut Fields<'_>) -> Option<u32> {
    let mut length = 0u64;
    for shift in [0u32, 7, 14, 21, 28] {
        let byte = fields.u8()?;
        length |= u64::from(byte & 0x7F).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            let shortest = byte != 0 || shift == 0;
            return if shortest { u32::try_from(length).ok() } else { None };
        }
    }
    None
}

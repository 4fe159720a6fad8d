//! Checksums of units: bound to the file and to the place in it (file format, section 4).

/// Computes and checks the checksums of one file's units.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seal {
    /// The CRC after the file id.
    base: u32,
}

impl Seal {
    pub(crate) fn new(file_id: &[u8; 16]) -> Self {
        Self { base: crc32c::crc32c(file_id) }
    }

    /// Begins the checksum of the unit at `offset`; go on with [`crc32c::crc32c_append`].
    pub(crate) fn begin(self, offset: u64) -> u32 {
        crc32c::crc32c_append(self.base, &offset.to_le_bytes())
    }

    /// The checksum of the unit at `offset` whose bytes behind the checksum are `body`.
    pub(crate) fn checksum(self, offset: u64, body: &[u8]) -> u32 {
        crc32c::crc32c_append(self.begin(offset), body)
    }

    /// Splits a whole unit into checksum and body, and answers the body if they match.
    pub(crate) fn open(self, offset: u64, unit: &[u8]) -> Option<&[u8]> {
        let (checksum, body) = unit.split_first_chunk::<4>()?;
        (u32::from_le_bytes(*checksum) == self.checksum(offset, body)).then_some(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc32c_over_file_id_offset_and_body() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xE306_9283);
        let mut whole = vec![7; 16];
        whole.extend_from_slice(&4096u64.to_le_bytes());
        whole.extend_from_slice(b"body");
        assert_eq!(Seal::new(&[7; 16]).checksum(4096, b"body"), crc32c::crc32c(&whole));
    }

    #[test]
    fn a_unit_opens_only_in_its_file_and_at_its_place() {
        let seal = Seal::new(&[1; 16]);
        let mut unit = seal.checksum(512, b"body").to_le_bytes().to_vec();
        unit.extend_from_slice(b"body");
        assert_eq!(seal.open(512, &unit), Some(&b"body"[..]));
        assert_eq!(seal.open(1024, &unit), None);
        assert_eq!(Seal::new(&[2; 16]).open(512, &unit), None);
        assert_eq!(seal.open(512, &unit[..3]), None);
    }
}

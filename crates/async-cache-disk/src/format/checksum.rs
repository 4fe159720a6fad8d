//! Checksums and tags of units: both bound to the file and to the position in the file (file
//! format, sections 4 and 8).
//!
//! The checksum detects accidents. The tag, present if the file has a MAC, detects forgeries: it
//! cannot be made without the secret. A unit opens only if its checksum and, if required, its tag
//! match.

use constant_time_eq::constant_time_eq_16;

use crate::secret::Secret;

/// The size of a checksum, at the front of a unit.
pub(crate) const CHECKSUM_BYTES: usize = 4;
/// With this many bytes in front of a unit, its checksum takes a single pass.
pub(crate) const FRONT_BYTES: usize = 8 - CHECKSUM_BYTES;
/// The size of a tag, at the end of a unit in a file with a MAC.
pub(crate) const TAG_BYTES: usize = 16;

/// Closes and opens the units of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seal {
    /// The CRC after the file id.
    base: u32,
    mac: Option<Mac>,
}

impl Seal {
    pub(crate) fn new(file_id: &[u8; 16], secret: Option<&Secret>) -> Self {
        let mac = secret.map(|secret| Mac { secret: *secret, file_id: *file_id });
        Self { base: crc32c::crc32c(file_id), mac }
    }

    /// How many bytes of tag a unit ends with.
    pub(crate) fn tag_bytes(self) -> usize {
        if self.mac.is_some() { TAG_BYTES } else { 0 }
    }

    /// Whether units carry a tag.
    pub(crate) fn has_mac(self) -> bool {
        self.mac.is_some()
    }

    /// The checksum of the unit at `offset` with a body in parts, and its tag, which follows the
    /// body.
    pub(crate) fn close_parts(self, offset: u64, parts: &[&[u8]]) -> (u32, Option<[u8; TAG_BYTES]>) {
        let tag = self.mac.map(|mac| mac.tag(offset, parts));
        let begin = crc32c::crc32c_append(self.base, &offset.to_le_bytes());
        let body = parts.iter().fold(begin, |crc, part| crc32c::crc32c_append(crc, part));
        (tag.map_or(body, |tag| crc32c::crc32c_append(body, &tag)), tag)
    }

    /// Fills checksum and tag of the unit to be written at `offset`; the unit has room for both.
    pub(crate) fn close(self, offset: u64, unit: &mut [u8]) {
        let Some((checksum, rest)) = unit.split_first_chunk_mut::<CHECKSUM_BYTES>() else { return };
        let Some(body) = rest.len().checked_sub(self.tag_bytes()) else { return };
        let Some((body, room)) = rest.split_at_mut_checked(body) else { return };
        let (sum, tag) = self.close_parts(offset, &[body]);
        *checksum = sum.to_le_bytes();
        if let (Some(tag), Some(room)) = (tag, room.first_chunk_mut()) {
            *room = tag;
        }
    }

    /// [`close`](Self::close), for the unit that begins at `start` and ends with the bytes. All
    /// bytes before the unit stay. Without a MAC, and behind [`FRONT_BYTES`], the offset of the
    /// unit is put before the body for a moment: a pass over eight bytes alone costs almost as much
    /// as the pass over a record.
    pub(crate) fn close_at(self, offset: u64, bytes: &mut [u8], start: usize) {
        let front = start.checked_sub(FRONT_BYTES).filter(|_| self.mac.is_none());
        let Some(summed) = front.and_then(|front| bytes.get_mut(front..)) else {
            return self.close(offset, bytes.get_mut(start..).unwrap_or_default());
        };
        let Some(lead) = summed.first_chunk_mut::<8>() else { return };
        let before = u64::from_le_bytes(std::mem::replace(lead, offset.to_le_bytes()));
        let checksum = crc32c::crc32c_append(self.base, summed);
        if let Some(lead) = summed.first_chunk_mut() {
            *lead = (before & u64::from(u32::MAX) | u64::from(checksum) << 32).to_le_bytes();
        }
    }

    /// The body of a whole unit, if its checksum and its tag match.
    pub(crate) fn open(self, offset: u64, unit: &[u8]) -> Option<&[u8]> {
        let (checksum, rest) = unit.split_first_chunk::<CHECKSUM_BYTES>()?;
        let begin = crc32c::crc32c_append(self.base, &offset.to_le_bytes());
        if u32::from_le_bytes(*checksum) != crc32c::crc32c_append(begin, rest) {
            return None;
        }
        let Some(mac) = self.mac else { return Some(rest) };
        let (body, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
        constant_time_eq_16(&mac.tag(offset, &[body]), tag).then_some(body)
    }

    /// Begins to check a unit that is too large to be held before it is known to be valid.
    pub(crate) fn check(self, offset: u64) -> Check {
        let hasher = self.mac.map(|mac| mac.hasher(offset));
        Check { crc: crc32c::crc32c_append(self.base, &offset.to_le_bytes()), hasher }
    }

    /// The tag of the header page, which comes in parts; `None` without a MAC.
    pub(crate) fn header_tag(self, parts: &[&[u8]]) -> Option<[u8; TAG_BYTES]> {
        self.mac.map(|mac| mac.tag(0, parts))
    }
}

/// A unit that is checked piece by piece.
pub(crate) struct Check {
    crc: u32,
    /// There if the file has a MAC.
    hasher: Option<blake3::Hasher>,
}

impl Check {
    /// Takes the next piece of the unit's body, which is all between the checksum and the tag.
    pub(crate) fn update(&mut self, piece: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, piece);
        if let Some(hasher) = &mut self.hasher {
            hasher.update(piece);
        }
    }

    /// Whether the unit with this checksum and this tag at its end (empty without a MAC) is valid.
    pub(crate) fn matches(self, checksum: [u8; CHECKSUM_BYTES], tag: &[u8]) -> bool {
        if u32::from_le_bytes(checksum) != crc32c::crc32c_append(self.crc, tag) {
            return false;
        }
        let Some(hasher) = self.hasher else { return true };
        let right = hasher.finalize();
        let right = right.as_bytes().first_chunk::<TAG_BYTES>();
        match (tag.first_chunk::<TAG_BYTES>(), right) {
            (Some(tag), Some(right)) => constant_time_eq_16(tag, right),
            _ => false,
        }
    }
}

/// Makes the tags of a file.
#[derive(Debug, Clone, Copy)]
struct Mac {
    secret: Secret,
    file_id: [u8; 16],
}

impl Mac {
    fn tag(&self, offset: u64, parts: &[&[u8]]) -> [u8; TAG_BYTES] {
        let mut hasher = self.hasher(offset);
        for part in parts {
            hasher.update(part);
        }
        hasher.finalize().as_bytes().first_chunk().copied().unwrap_or_default()
    }

    fn hasher(&self, offset: u64) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new_keyed(self.secret.key());
        hasher.update(&self.file_id).update(&offset.to_le_bytes());
        hasher
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(of: &str) -> Secret {
        Secret::new(of).unwrap()
    }

    #[test]
    fn the_checksum_is_crc32c_over_file_id_offset_and_body() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xE306_9283);
        let mut whole = vec![7; 16];
        whole.extend_from_slice(&4096u64.to_le_bytes());
        whole.extend_from_slice(b"body");
        let closed = Seal::new(&[7; 16], None).close_parts(4096, &[b"bo", b"dy"]);
        assert_eq!(closed, (crc32c::crc32c(&whole), None));
    }

    #[test]
    fn the_tag_is_keyed_blake3_over_file_id_offset_and_body() {
        let key =
            blake3::derive_key("async-cache 2026 cache file format 1 MAC key", b"sixteen bytes or more");
        let mut whole = vec![7; 16];
        whole.extend_from_slice(&4096u64.to_le_bytes());
        whole.extend_from_slice(b"body");
        let hash = blake3::keyed_hash(&key, &whole);
        let (checksum, tag) =
            Seal::new(&[7; 16], Some(&secret("sixteen bytes or more"))).close_parts(4096, &[b"bo", b"dy"]);
        assert_eq!(tag.unwrap(), hash.as_bytes()[..16]);
        whole.extend_from_slice(&tag.unwrap());
        assert_eq!(checksum, crc32c::crc32c(&whole));
    }

    #[test]
    fn a_unit_has_the_same_checksum_whatever_is_before_it_and_that_stays() {
        let secret = secret("sixteen bytes or more");
        for (secret, start) in [(None, 0), (None, 3), (None, 4), (None, 21), (Some(&secret), 21)] {
            let seal = Seal::new(&[7; 16], secret);
            let mut bytes: Vec<u8> = (1..=start).collect();
            bytes.extend_from_slice(b"....body");
            bytes.resize(bytes.len() + seal.tag_bytes(), 0);
            let mut alone = bytes[start.into()..].to_vec();
            let expected: Vec<u8> = {
                seal.close(4096, &mut alone);
                bytes[..start.into()].iter().chain(&alone).copied().collect()
            };
            seal.close_at(4096, &mut bytes, start.into());
            assert_eq!(bytes, expected, "{start}");
        }
    }

    #[test]
    fn a_unit_opens_only_in_its_file_at_its_place_and_with_its_secret() {
        let (ours, theirs) = (secret("our own secret, long enough"), secret("another secret, long enough"));
        for secret in [None, Some(&ours)] {
            let seal = Seal::new(&[1; 16], secret);
            let mut unit = vec![0; 4];
            unit.extend_from_slice(b"body");
            unit.resize(unit.len() + seal.tag_bytes(), 0);
            seal.close(512, &mut unit);
            assert_eq!(seal.open(512, &unit), Some(&b"body"[..]));
            assert_eq!(seal.open(1024, &unit), None);
            assert_eq!(Seal::new(&[2; 16], secret).open(512, &unit), None);
            assert_eq!(Seal::new(&[1; 16], Some(&theirs)).open(512, &unit), None);
            assert_eq!(seal.open(512, &unit[..3]), None);
            for cut in 4..=unit.len() {
                let (checksum, tag) = (*unit.first_chunk().unwrap(), unit.len() - seal.tag_bytes());
                let mut check = seal.check(512);
                check.update(&unit[4..cut.min(tag)]);
                check.update(&unit[cut.min(tag)..tag]);
                assert!(check.matches(checksum, &unit[tag..]));
                let mut check = seal.check(512);
                check.update(&unit[5..tag]);
                assert!(!check.matches(checksum, &unit[tag..]));
            }
        }
    }

    #[test]
    fn a_matching_checksum_does_not_open_a_unit_whose_tag_does_not_match() {
        let seal = Seal::new(&[1; 16], Some(&secret("our own secret, long enough")));
        let mut unit = [0; 4 + 4 + TAG_BYTES];
        seal.close(512, &mut unit);
        for place in 4..unit.len() {
            let mut forged = unit;
            forged[place] ^= 1;
            Seal::new(&[1; 16], None).close(512, &mut forged);
            assert_eq!(Seal::new(&[1; 16], None).open(512, &forged).unwrap().len(), 20);
            assert_eq!(seal.open(512, &forged), None);
        }
    }
}

//! The attributes of an entry (file format, section 14).
//!
//! Rules:
//! 1. ids ascend, so each attribute occurs at most once and has a single encoding;
//! 2. attributes with unknown ids below 128 are skipped; with an id from 128 on, the entry must not
//!    be served;
//! 3. an entry whose attributes do not decode must not be served. It still hides older records.

use super::super::Fields;
#[cfg(any(test, feature = "fuzzing"))]
use super::super::head_bytes::HeadBytes;
use super::super::head_bytes::take_length;

const SOFT_DEADLINE: u8 = 1;
const WEIGHT: u8 = 2;
const TAGS: u8 = 3;
const FIRST_REQUIRED: u8 = 128;
const TAG_HASH_BYTES: usize = 8;

/// The attributes known to this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct EntryAttributes<'b> {
    /// From then on the entry is stale, in nanoseconds since the Unix epoch.
    pub(crate) soft_deadline: Option<u64>,
    pub(crate) weight: Option<u32>,
    /// The hashes of the tags, as they stand.
    pub(crate) tags: &'b [[u8; TAG_HASH_BYTES]],
    /// An attribute is unknown, and a reader must know it to serve the entry.
    pub(crate) needs_newer: bool,
}

impl<'b> EntryAttributes<'b> {
    pub(crate) fn decode(bytes: &'b [u8]) -> Option<Self> {
        let mut attributes = Self::default();
        for field in AttributeFields::new(bytes) {
            let (id, bytes) = field?;
            let mut body = Fields(bytes);
            match id {
                SOFT_DEADLINE => attributes.soft_deadline = Some(body.u64()?),
                WEIGHT => attributes.weight = Some(take_length(&mut body)?),
                TAGS => {
                    attributes.tags = bytes.as_chunks().0;
                    body = Fields(bytes.as_chunks::<TAG_HASH_BYTES>().1);
                }
                _ => {
                    attributes.needs_newer |= id >= FIRST_REQUIRED;
                    continue;
                }
            }
            if !body.0.is_empty() {
                return None;
            }
        }
        Some(attributes)
    }

    /// Appends the known attributes. No bytes if there are none: then the entry needs no
    /// attributes. `None` if there are too many tags; then nothing is appended.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn encode(&self, out: &mut Vec<u8>) -> Option<()> {
        let tags = self.tags.as_flattened();
        let tags_len = u32::try_from(tags.len()).ok()?;
        if let Some(deadline) = self.soft_deadline {
            out.extend_from_slice(&[SOFT_DEADLINE, 8]);
            out.extend_from_slice(&deadline.to_le_bytes());
        }
        if let Some(weight) = self.weight {
            let mut number = HeadBytes::default();
            number.put_length(weight);
            let number = number.as_bytes();
            out.extend_from_slice(&[WEIGHT, u8::try_from(number.len()).ok()?]);
            out.extend_from_slice(number);
        }
        if !tags.is_empty() {
            let mut head = HeadBytes::default();
            head.put(&[TAGS]);
            head.put_length(tags_len);
            out.extend_from_slice(head.as_bytes());
            out.extend_from_slice(tags);
        }
        Some(())
    }
}

/// Walks attributes: id and bytes. The last item is `None` if the attributes break a rule.
#[derive(Debug, Clone)]
pub(crate) struct AttributeFields<'b> {
    rest: Fields<'b>,
    last_id: Option<u8>,
}

impl<'b> AttributeFields<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self { rest: Fields(bytes), last_id: None }
    }

    fn step(&mut self) -> Option<(u8, &'b [u8])> {
        let id = self.rest.u8()?;
        let len = take_length(&mut self.rest)?;
        let bytes = self.rest.bytes(usize::try_from(len).ok()?)?;
        // Rule 1.
        if self.last_id.replace(id).is_some_and(|last| last >= id) {
            return None;
        }
        Some((id, bytes))
    }
}

impl<'b> Iterator for AttributeFields<'b> {
    type Item = Option<(u8, &'b [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.0.is_empty() {
            return None;
        }
        let step = self.step();
        if step.is_none() {
            self.rest = Fields(&[]);
        }
        Some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_have_the_bytes_of_the_format() {
        let tags = [[1, 2, 3, 4, 5, 6, 7, 8], [9; 8]];
        let all =
            EntryAttributes { soft_deadline: Some(258), weight: Some(300), tags: &tags, needs_newer: false };
        let mut bytes = Vec::new();
        all.encode(&mut bytes).unwrap();
        #[rustfmt::skip]
        let expected = [
            1, 8, 2, 1, 0, 0, 0, 0, 0, 0,
            2, 2, 0xAC, 0x02,
            3, 16, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9, 9, 9, 9, 9,
        ];
        assert_eq!(bytes, expected);
        assert_eq!(EntryAttributes::decode(&bytes), Some(all));
        // Whole fields remain at these cuts.
        for cut in 0..bytes.len() {
            assert_eq!(EntryAttributes::decode(&bytes[..cut]).is_some(), [0, 10, 14].contains(&cut));
        }
    }

    #[test]
    fn every_combination_comes_back() {
        for soft_deadline in [None, Some(0), Some(u64::MAX)] {
            for weight in [None, Some(0), Some(127), Some(128), Some(u32::MAX)] {
                for count in [0, 1, 16, 300] {
                    let tags = vec![[3; 8]; count];
                    let all = EntryAttributes { soft_deadline, weight, tags: &tags, needs_newer: false };
                    let mut bytes = Vec::new();
                    all.encode(&mut bytes).unwrap();
                    assert_eq!(EntryAttributes::decode(&bytes), Some(all));
                }
            }
        }
    }

    #[test]
    fn unknown_attributes_are_skipped_or_prevent_serving() {
        let known = EntryAttributes { weight: Some(1), ..EntryAttributes::default() };
        assert_eq!(EntryAttributes::decode(&[0, 1, 9, 2, 1, 1, 127, 0]), Some(known));
        let needs = EntryAttributes { needs_newer: true, ..known };
        assert_eq!(EntryAttributes::decode(&[2, 1, 1, 128, 0]), Some(needs));
        assert_eq!(EntryAttributes::decode(&[2, 1, 1, 255, 2, 0, 0]), Some(needs));
    }

    #[test]
    fn broken_attributes_are_refused() {
        let wrong: &[&[u8]] = &[
            &[2, 1, 1, 2, 1, 1],                // twice
            &[3, 0, 2, 1, 1],                   // not ascending
            &[1, 7, 0, 0, 0, 0, 0, 0, 0],       // a short time
            &[1, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0], // a long time
            &[2, 0],                            // no weight
            &[2, 2, 1, 1],                      // more than a weight
            &[2, 2, 0x80, 0],                   // not the shortest form
            &[3, 7, 0, 0, 0, 0, 0, 0, 0],       // a part of a tag
            &[9, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F], // beyond the end
            &[9, 0x80, 0],                      // a length that is not in the shortest form
        ];
        for bytes in wrong {
            assert_eq!(EntryAttributes::decode(bytes), None, "{bytes:?}");
            assert!(AttributeFields::new(bytes).filter(Option::is_none).count() <= 1);
        }
    }
}

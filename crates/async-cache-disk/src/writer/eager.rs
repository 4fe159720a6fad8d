//! Eager records before they are in the file. They wait in memory until the records are complete,
//! because a file is written from front to back; their checksums and tags are made when their
//! positions are known.

use crate::format::checksum::{CHECKSUM_BYTES, Seal};

/// Eager records, complete but for their checksums and tags.
#[derive(Debug, Default)]
pub(super) struct EagerBuffer {
    bytes: Vec<u8>,
    /// The length of each record.
    lens: Vec<usize>,
}

impl EagerBuffer {
    /// Adds a record; `parts` are its bytes between checksum and tag.
    pub(super) fn push(&mut self, parts: [&[u8]; 3], tag_bytes: usize) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; CHECKSUM_BYTES]);
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.bytes.resize(self.bytes.len() + tag_bytes, 0);
        self.lens.push(self.bytes.len() - start);
    }

    /// The number of records.
    pub(super) fn len(&self) -> usize {
        self.lens.len()
    }

    /// The size of the section so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The section for the position `start`.
    pub(super) fn into_section(mut self, seal: Seal, start: u64) -> Vec<u8> {
        let (mut rest, mut offset) = (&mut self.bytes[..], start);
        for len in self.lens {
            let (record, behind) = rest.split_at_mut(len);
            seal.close(offset, record);
            (rest, offset) = (behind, offset + len as u64);
        }
        self.bytes
    }
}

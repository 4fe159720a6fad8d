//! Values before their compression, and the dictionary of their compression.
//!
//! The dictionary is read and checked when the first value needs it. A dictionary that could not be
//! read once is absent for the life of the snapshot, as with buckets: its values are misses, and
//! stay misses.

use std::sync::Arc;

use super::opened::Snapshot;
use crate::compress::{Decompressor, Dictionary, dictionary_of};
use crate::format::checksum::CHECKSUM_BYTES;
use crate::format::record::RecordLayout;

impl Snapshot {
    /// The dictionary of the file, if the file has a valid dictionary.
    pub(crate) fn dictionary(&self) -> Option<&Arc<Dictionary>> {
        let read = || {
            let section = self.header().dictionary_section?;
            // At most `MAX_DICTIONARY_BYTES`, which was checked when the header was.
            let mut unit = vec![0; usize::try_from(section.bytes).ok()?];
            if !self.read(&mut unit, section.offset) {
                return None;
            }
            let body = self.seal().open(section.offset, &unit)?;
            Dictionary::new(body.to_vec()).map(Arc::new)
        };
        self.dictionary_cell().get_or_init(read).as_ref()
    }

    /// The dictionary, if the frame needs it: otherwise it is not read.
    fn dictionary_for(&self, frame: &[u8]) -> Option<&Dictionary> {
        dictionary_of(frame)?;
        self.dictionary().map(|dictionary| &**dictionary)
    }
}

/// The value of a verified record; `None` if the value was compressed and its bytes are no valid
/// frame.
pub(crate) fn unpack<'v>(
    snapshot: &Snapshot,
    layout: &RecordLayout,
    record: &'v [u8],
    decompressor: &'v mut Decompressor,
) -> Option<&'v [u8]> {
    let value = record.get(layout.value.clone())?;
    if layout.is_compressed {
        decompressor.decompress(value, snapshot.dictionary_for(value))
    } else {
        Some(value)
    }
}

/// A record as stored in its file, in the parts that another file may take over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'r> {
    pub(crate) flags: u8,
    /// Deadline and time of writing.
    pub(crate) stamps: &'r [u8],
    /// Compressed, or not.
    pub(crate) value: &'r [u8],
    pub(crate) is_compressed: bool,
    /// The file's dictionary, if the value needs it.
    pub(crate) dictionary: Option<&'r Dictionary>,
}

impl<'r> Stored<'r> {
    /// The parts of a verified record.
    pub(super) fn new(snapshot: &'r Snapshot, layout: &RecordLayout, record: &'r [u8]) -> Option<Self> {
        let value = record.get(layout.value.clone())?;
        Some(Self {
            flags: *record.get(CHECKSUM_BYTES)?,
            stamps: record.get(layout.stamps.clone())?,
            value,
            is_compressed: layout.is_compressed,
            dictionary: if layout.is_compressed { snapshot.dictionary_for(value) } else { None },
        })
    }
}

/// Two are the same record if they hold the same bytes.
impl PartialEq for Stored<'_> {
    fn eq(&self, other: &Self) -> bool {
        (self.flags, self.stamps, self.value) == (other.flags, other.stamps, other.value)
    }
}

impl Eq for Stored<'_> {}

//! Records in the form of this file: with its tag, and with its compression. `pack.rs` decides
//! which values are compressed, and with which dictionary.

use std::borrow::Cow;

use super::pack::Packer;
use super::{BUFFER_BYTES, FORGOTTEN, Writer};
use crate::compress::dictionary_of;
use crate::error::DiskError;
use crate::format::checksum::CHECKSUM_BYTES;
use crate::format::record::{MAX_HEAD_BYTES, RecordHead, RecordLayout};
use crate::snapshot::Stored;

impl Writer {
    pub(super) fn tagged(&self, mut head: RecordHead) -> RecordHead {
        if self.seal.has_mac() {
            head.set_tagged();
        }
        head
    }

    /// Notes whether a record's value is compressed, and how.
    pub(super) fn note(&mut self, frame: Option<&[u8]>, head: &mut RecordHead) {
        if let Some(frame) = frame {
            head.set_compressed();
            self.has_packed = true;
            self.needs_dictionary |= dictionary_of(frame).is_some();
        }
    }

    /// Head and value of a record of another file in the form of this file: with their old
    /// compression if this file accepts it, else compressed by `pack`.
    pub(super) fn taken_over<'v>(
        &mut self,
        stored: &Stored<'v>,
        key: &[u8],
        value: &'v [u8],
        pack: impl FnOnce(&mut Packer, &[u8]) -> Option<Vec<u8>>,
    ) -> Result<(RecordHead, Cow<'v, [u8]>), DiskError> {
        let packed = if stored.is_compressed && self.packer.takes(stored.dictionary) {
            Some(Cow::Borrowed(stored.value))
        } else {
            pack(&mut self.packer, value).map(Cow::Owned)
        };
        let bytes = packed.as_deref().unwrap_or(value);
        let (Ok(key_len), Ok(value_len)) = (u32::try_from(key.len()), u32::try_from(bytes.len())) else {
            return Err(self.limit(&format!("a key of {} bytes or a value of {}", key.len(), value.len())));
        };
        let head = RecordHead::with_stamps(stored.flags, stored.stamps, key_len, value_len);
        let mut head = self.tagged(head);
        self.note(packed.as_deref(), &mut head);
        Ok((head, packed.unwrap_or(Cow::Borrowed(value))))
    }

    /// While values are sampled, all records must be in the buffer. Ends the sampling if a further
    /// record does not fit.
    pub(super) fn end_sampling_before(&mut self, key: &[u8], value: &[u8]) -> Result<(), DiskError> {
        let most = MAX_HEAD_BYTES + key.len() + value.len() + self.seal.tag_bytes();
        if self.packer.is_sampling() && self.buffer.len() + most > BUFFER_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Trains the dictionary on the records in the first buffer, and builds the records again,
    /// compressed.
    pub(super) fn end_sampling(&mut self) {
        let plain = std::mem::replace(&mut self.buffer, Vec::with_capacity(BUFFER_BYTES));
        let form = self.header.form;
        let records = || {
            let mut rest = &plain[..];
            std::iter::from_fn(move || {
                let layout = RecordLayout::parse(rest, form)?;
                let record = rest.split_off(..layout.total())?;
                Some((record, layout))
            })
        };
        let values = records().filter(|(_, layout)| !layout.is_compressed);
        self.packer.train(values.map(|(record, layout)| &record[layout.value]));
        let mut places = std::mem::take(&mut self.places);
        for ((record, layout), place) in records().zip(&mut places) {
            let offset = self.position();
            let (key, value) = (&record[layout.key.clone()], &record[layout.value.clone()]);
            let packed = if layout.is_compressed { None } else { self.packer.pack(value) };
            if let Some(value_len) = packed.as_ref().and_then(|frame| u32::try_from(frame.len()).ok()) {
                let key_len = u32::try_from(key.len()).unwrap_or(u32::MAX);
                let stamps = &record[layout.stamps];
                let head = RecordHead::with_stamps(record[CHECKSUM_BYTES], stamps, key_len, value_len);
                let mut head = self.tagged(head);
                self.note(packed.as_deref(), &mut head);
                self.encode(offset, [head.as_bytes(), key, packed.as_deref().unwrap_or_default()]);
            } else {
                self.encode(offset, [&record[CHECKSUM_BYTES..layout.value.end], &[], &[]]);
            }
            if place.offset != FORGOTTEN {
                place.offset = offset;
            }
        }
        self.places = places;
    }
}

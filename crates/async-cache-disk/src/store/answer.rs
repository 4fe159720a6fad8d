//! The result of a look-up, and its buffers.

use super::layout::StoreLayout;
use super::tails::SlotSeen;
use super::write::EntryPlace;
use crate::compress::Decompressor;
use crate::format::store::StorePlace;
use crate::format::store::attributes::EntryAttributes;
use crate::format::store::record::{RecordKind, SegmentRecord};
use crate::snapshot::{Scratch, Snapshot};
use crate::vfs::Patience;

/// If a large record made the buffer larger than this, the buffer is freed at the next look-up.
const KEPT_BYTES: usize = 1 << 20;

/// What a store knows of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreAnswer<'s> {
    /// The entry. It may have expired.
    Entry(StoreEntry<'s>),
    /// The key was deleted, or never written.
    Absent,
    /// A part of the store that cannot be read may hold a later record of the key: a miss.
    Hidden,
}

/// An entry of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreEntry<'s> {
    /// The value, in the buffers of the look-up.
    pub value: &'s [u8],
    /// When the entry expires, in nanoseconds since the Unix epoch. `None`: never.
    pub deadline: Option<u64>,
    /// When the entry was written. `None`: unknown, for an old entry of the base.
    pub written_at: Option<u64>,
    /// Where the entry stands, and whether it is still the latest of its key.
    pub sighting: Sighting,
}

/// An entry as a look-up found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// Where the record stands.
    pub place: EntryPlace,
    pub(super) seen: SlotSeen,
}

/// The buffers of a look-up. Keep one per thread.
#[derive(Debug, Default)]
pub struct StoreScratch {
    bytes: Vec<u8>,
    record: Option<SegmentRecord>,
    /// Where `record` stands.
    place: Option<StorePlace>,
    pub(super) seen: SlotSeen,
    decompressor: Decompressor,
    base: Scratch,
}

impl StoreScratch {
    /// New buffers; the first look-up allocates.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the record at a place. Returns the comparison with its key; `None` if it is invalid,
    /// or the read would wait.
    pub(super) fn read(
        &mut self,
        patience: &Patience,
        layout: &StoreLayout,
        place: StorePlace,
    ) -> Option<impl Fn(&[u8]) -> bool + use<'_>> {
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
        self.place = Some(place);
        self.record = layout.segment(place.segment)?.read_with(patience, place.offset, &mut self.bytes);
        let stored = self.bytes.get(self.record.as_ref()?.key.clone())?;
        Some(move |key: &[u8]| key == stored)
    }

    /// The time of the record read last.
    pub(super) fn written_at(&self) -> Option<u64> {
        self.record.as_ref().map(|record| record.times.written_at)
    }

    /// The answer of the record read last, which is the latest of the key in the segments.
    pub(super) fn answer(
        &mut self,
        patience: &Patience,
        key: &[u8],
        layout: &StoreLayout,
    ) -> StoreAnswer<'_> {
        if !layout.is_base_ours
            && let (Some(base), Some(record)) = (&layout.base, &self.record)
        {
            let found = base.find_with(patience, key, &mut self.base);
            match found.map(|found| found.written_at) {
                Some(in_base) if in_base > Some(record.times.written_at) => {
                    return self.find_in_base(patience, base, key, layout);
                }
                // A later entry may be in a part of the base that cannot be read.
                None if self.base.may_have_missed() || !self.base.lost().is_empty() => {
                    return StoreAnswer::Hidden;
                }
                _ => {}
            }
        }
        self.served(layout).unwrap_or(StoreAnswer::Hidden)
    }

    /// Place and time of the record read last.
    pub(super) fn read_at(&self) -> Option<(StorePlace, u64)> {
        Some((self.place?, self.record.as_ref()?.times.written_at))
    }

    /// Whether the record read last is an entry, and later than a time.
    pub(super) fn is_entry_after(&self, time: u64) -> bool {
        let record = self.record.as_ref();
        record.is_some_and(|record| is_entry(record.kind) && record.times.written_at > time)
    }

    /// When the base's entry of a key was written.
    pub(super) fn time_in_base(&mut self, layout: &StoreLayout, key: &[u8]) -> Option<u64> {
        layout.base.as_ref()?.find(key, &mut self.base)?.written_at
    }

    /// The place of the base's entry of a key.
    pub(super) fn place_in_base(
        &mut self,
        base: &Snapshot,
        key: &[u8],
        layout: &StoreLayout,
    ) -> Option<EntryPlace> {
        match self.find_in_base(&Patience::unlimited(), base, key, layout) {
            StoreAnswer::Entry(entry) => Some(entry.sighting.place),
            StoreAnswer::Absent | StoreAnswer::Hidden => None,
        }
    }

    /// `None` if the record is an entry that cannot be served.
    fn served(&mut self, layout: &StoreLayout) -> Option<StoreAnswer<'_>> {
        let Self { bytes, record, place, seen, decompressor, .. } = self;
        let record = record.as_ref()?;
        if !is_entry(record.kind) || record.times.written_at <= layout.cleared_at {
            return Some(StoreAnswer::Absent);
        }
        if EntryAttributes::decode(bytes.get(record.attributes.clone())?)?.needs_newer {
            return None;
        }
        let value = bytes.get(record.value.clone())?;
        let value = if record.is_compressed { decompressor.decompress(value, None)? } else { value };
        let (deadline, written_at) = (record.times.deadline, Some(record.times.written_at));
        let sighting = Sighting { place: (*place)?.into(), seen: *seen };
        Some(StoreAnswer::Entry(StoreEntry { value, deadline, written_at, sighting }))
    }

    /// Looks a key up in the base.
    pub(super) fn find_in_base(
        &mut self,
        patience: &Patience,
        base: &Snapshot,
        key: &[u8],
        layout: &StoreLayout,
    ) -> StoreAnswer<'_> {
        let Some(found) = base.find_with(patience, key, &mut self.base) else { return StoreAnswer::Absent };
        let gone_until = layout.cleared_at.max(layout.dropped_until);
        if gone_until > 0 && found.written_at.unwrap_or(0) <= gone_until {
            return StoreAnswer::Absent;
        }
        let (value, deadline, written_at) = (found.value, found.deadline, found.written_at);
        let sighting = Sighting { place: EntryPlace::in_base(found.rank), seen: self.seen };
        StoreAnswer::Entry(StoreEntry { value, deadline, written_at, sighting })
    }
}

fn is_entry(kind: RecordKind) -> bool {
    matches!(kind, RecordKind::Entry | RecordKind::EntryWithAttributes)
}

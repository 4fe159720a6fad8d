//! The eager writes of a store: entries and deletes whose keys only a front can compare.
//!
//! Rules:
//! 1. The order of places is the order of writing: base, segments. If another program has replaced
//!    the base, times decide; a record of the store precedes an entry of the base with the same
//!    time.
//! 2. A damaged eager record may have been a delete of any eager key: it hides every earlier eager
//!    entry. So does an unreadable list of a run.
//! 3. Entries that are not later than the latest clear, or the floor, do not count.

use std::collections::HashMap;
use std::sync::Arc;

use super::replay::{ReplayVisitor, replay_sealed};
use super::{DiskStore, EagerWrite, EntryPlace, StoreLayout, lock, read};
use crate::compress::Decompressor;
use crate::error::DiskError;
use crate::format::store::attributes::EntryAttributes;
use crate::format::store::manifest::ManifestBody;
use crate::format::store::record::{RecordKind, SegmentRecord};
use crate::format::store::{Hash40, StorePlace};
use crate::snapshot::{Item, Source};

impl DiskStore {
    /// The eager writes that count, in the order of writing: an opening applies them one after the
    /// other.
    ///
    /// # Errors
    /// [`Locked`](crate::DiskErrorKind::Locked) in a forked process. An entry that cannot be read
    /// is a miss.
    pub fn eager(&self) -> Result<Vec<EagerWrite>, DiskError> {
        self.refuse_fork()?;
        // Layout and manifest change under the lock of the end.
        let (layout, manifest) = {
            let end = lock(&self.end);
            (Arc::clone(&read(&self.layout)), end.manifest.clone())
        };
        Ok(writes_of(&layout, &manifest))
    }
}

/// The eager writes of a layout that count, in the order of writing. `manifest`: with the segments
/// and runs of the layout.
pub(super) fn writes_of(layout: &StoreLayout, manifest: &ManifestBody) -> Vec<EagerWrite> {
    let mut found = Found { layout, writes: base_entries(layout), decompressor: Decompressor::default() };
    let mut lists = HashMap::new();
    for mut row in manifest.segments.iter().copied() {
        let Some(segment) = layout.segment(row.number) else { continue };
        if let Some(run) = manifest.run_over(row.number).and_then(|run| layout.run(run.number)) {
            match lists.entry(run.number).or_insert_with(|| run.eager()) {
                Some(places) => {
                    let here = places.0.iter().filter(|place| place.segment == row.number);
                    here.for_each(|place| found.read(*place));
                }
                None => found.hide_all(), // Rule 2.
            }
            continue;
        }
        if segment.is_without_eager() {
            continue; // The opening has read it.
        }
        if !row.is_sealed {
            (row.is_sealed, row.end) = (true, segment.end()); // Up to its end as it is now.
        }
        replay_sealed(segment, &row, &mut found);
    }
    let mut writes = found.writes;
    if !layout.is_base_ours {
        writes.sort_by_key(|(time, is_in_base, _)| (*time, *is_in_base)); // Rule 1.
    }
    writes.into_iter().map(|(_, _, write)| write).collect()
}

/// Time, whether it is in the base, and the write.
type Timed = (u64, bool, EagerWrite);

fn base_entries(layout: &StoreLayout) -> Vec<Timed> {
    let mut writes = Vec::new();
    let Some(base) = &layout.base else { return writes };
    let gone_until = layout.cleared_at.max(layout.dropped_until);
    let mut records = base.eager();
    let mut number = 0;
    while let Some(item) = records.next() {
        if let Item::Entry(entry) = item {
            let time = entry.written_at.unwrap_or(0);
            if gone_until == 0 || time > gone_until {
                let write = EagerWrite::Entry {
                    key: entry.key.to_vec(),
                    value: entry.value.to_vec(),
                    deadline: entry.deadline,
                    written_at: entry.written_at,
                    place: EntryPlace::eager_in_base(number),
                };
                writes.push((time, true, write));
            }
        }
        number = number.saturating_add(1);
    }
    writes
}

/// The eager writes so far.
struct Found<'l> {
    layout: &'l StoreLayout,
    writes: Vec<Timed>,
    decompressor: Decompressor,
}

impl Found<'_> {
    /// Hides the writes so far. An entry of a base that another program has replaced may be later
    /// than a write that follows, which must not return in its place: a delete stands for it.
    fn hide_all(&mut self) {
        self.writes.retain(|(_, is_in_base, _)| *is_in_base && !self.layout.is_base_ours);
        for (_, _, write) in &mut self.writes {
            if let EagerWrite::Entry { key, .. } = write {
                *write = EagerWrite::Delete { key: std::mem::take(key) };
            }
        }
    }

    fn read(&mut self, place: StorePlace) {
        let Some(segment) = self.layout.segment(place.segment) else { return };
        let mut bytes = Vec::new();
        match segment.read(place.offset, &mut bytes) {
            Some(record) => self.record(place, &record, &bytes),
            None => self.hide_all(), // Rule 2.
        }
    }
}

impl ReplayVisitor for Found<'_> {
    fn record(&mut self, place: StorePlace, record: &SegmentRecord, bytes: &[u8]) {
        let time = record.times.written_at;
        if !record.kind.is_eager() || time <= self.layout.cleared_at {
            return; // Rule 3.
        }
        let part = |range: &std::ops::Range<usize>| bytes.get(range.clone()).unwrap_or_default();
        let key = part(&record.key).to_vec();
        let stored = part(&record.value);
        let attributes = EntryAttributes::decode(part(&record.attributes));
        let value = if attributes.is_none_or(|attributes| attributes.needs_newer) {
            None // Not served, and the latest of its key all the same.
        } else if record.is_compressed {
            self.decompressor.decompress(stored, None)
        } else {
            Some(stored)
        };
        let write = match value {
            Some(value) if record.kind.is_entry() => EagerWrite::Entry {
                key,
                value: value.to_vec(),
                deadline: record.times.deadline,
                written_at: Some(time),
                place: place.into(),
            },
            _ => EagerWrite::Delete { key },
        };
        self.writes.push((time, false, write));
    }

    fn damaged(&mut self, _place: StorePlace, kind: RecordKind, _hash: Hash40) {
        if kind.is_eager() {
            self.hide_all(); // Rule 2.
        }
    }
}

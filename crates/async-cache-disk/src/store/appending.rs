//! Appending records: new writes, and records about a key that are written only while nothing newer
//! is known of the key.
//!
//! Rules:
//! 1. Everything happens under the lock of the end: the check, the record, its place in the tails,
//!    and the count. So the order of records is the order of the writes, and a copy never follows a
//!    later write of its key.
//! 2. The first record after the opening begins a segment. A segment that has no room, or breaks,
//!    is replaced by the next segment, once for each record.

use super::segment::NotAppended;
use super::tails::{SlotSeen, TailSlot};
use super::{DiskStore, EntryPlace, StoreEnd, Written, read, write};
use crate::error::{DiskError, DiskErrorKind};
use crate::format::address::KeyHash;
use crate::format::store::StorePlace;
use crate::format::store::record::{NewRecord, RecordKind, RecordTimes};

impl DiskStore {
    /// Appends a new write (rule 1 of the store).
    pub(super) fn append<'w>(
        &self,
        key: &[u8],
        replaces: Option<EntryPlace>,
        now: u64,
        record: impl Fn(RecordTimes) -> NewRecord<'w>,
    ) -> Result<Written, DiskError> {
        let mut end = self.lock_end()?;
        let time = now.max(end.latest.saturating_add(1));
        let record = record(RecordTimes { deadline: None, written_at: time });
        let hash = record.kind.has_key().then(|| self.hasher.hash(key));
        let place = self.append_to(&mut end, &record, hash)?;
        end.latest = time;
        match (record.kind, hash) {
            (RecordKind::Clear, _) => {
                end.cleared_at = time;
                self.forget_until(&end, time);
            }
            (kind, Some(hash)) if kind.has_slot() => {
                let before = write(&self.tails).insert(hash, TailSlot::new(place, kind.is_entry()));
                if replaces.is_none() {
                    self.count_write(key, place, before);
                }
            }
            _ => end.eager_writes = end.eager_writes.wrapping_add(1),
        }
        Ok(Written { place: place.into(), time })
    }

    /// Appends a record about a key, unless the slot of the key has changed since it was seen:
    /// then, `None`. `record` makes the record; a new write has the given time. `count` is called
    /// with the place.
    pub(super) fn append_if_still<'w>(
        &self,
        seen: &SlotSeen,
        now: u64,
        record: impl FnOnce(u64) -> NewRecord<'w>,
        count: impl FnOnce(StorePlace),
    ) -> Result<Option<StorePlace>, DiskError> {
        let mut end = self.lock_end()?;
        if !read(&self.tails).is_still(seen) {
            return Ok(None);
        }
        let record = record(now.max(end.latest.saturating_add(1)));
        let hash = seen.hash();
        let place = self.append_to(&mut end, &record, Some(hash))?;
        end.latest = end.latest.max(record.times.written_at);
        write(&self.tails).insert(hash, TailSlot::new(place, record.kind.is_entry()));
        count(place);
        Ok(Some(place))
    }

    /// Rule 2.
    pub(super) fn append_to(
        &self,
        end: &mut StoreEnd,
        record: &NewRecord<'_>,
        hash: Option<KeyHash>,
    ) -> Result<StorePlace, DiskError> {
        let now = record.times.written_at.max(end.latest);
        let mut is_second = false;
        loop {
            let Some(segment) = &mut end.segment else {
                self.next_segment(end, now)?;
                continue;
            };
            if segment.is_empty() {
                self.folder.sync_manifest()?; // Rule 1 of `sealing`; it nearly always is durable.
            }
            match segment.append(record, hash) {
                Ok(place) => return Ok(place),
                Err(NotAppended::NextSegment) if !is_second => {
                    is_second = true;
                    self.next_segment(end, now)?;
                }
                Err(NotAppended::NextSegment | NotAppended::TooLarge) => {
                    let what = "an entry is larger than a segment of the store can hold";
                    return Err(DiskError::new(DiskErrorKind::Limit, &self.folder.path, what));
                }
                Err(NotAppended::Io(error)) if is_second => {
                    return Err(DiskError::io("writing to a segment", &self.folder.path, error));
                }
                // The segment is broken: the next round begins another one.
                Err(NotAppended::Io(_)) => {}
            }
        }
    }
}

//! Collecting: making room by removing the oldest part of a store, after its entries that are worth
//! keeping were copied to the end. `collector` says when, and how much may be copied.
//!
//! Rules:
//! 1. A copy is the same record, with the times of the original. It is appended while the original
//!    is the latest record of its key, and only then (rule 1 of `appending`).
//! 2. Worth keeping is, of the entries that are the latest of their keys:
//!    - `Live`: every entry that has not expired, and every entry in memory;
//!    - `Bytes`: an entry that has not expired, and is in memory or has lives left (rule 6 of
//!      `counts`). Of the base, also the most recently used entries, as far as there is room.
//! 3. An eager entry is worth keeping if it is in memory, for an opening reads all of them into
//!    memory. If an eager record was written since the caller has listed its memory, the segment
//!    stays for now: the record may delete the entry.
//! 4. A delete goes, for nothing in the store is earlier (rule 1 of `collector`). A *clear* is in
//!    the manifest. *Dropped until* rises to the latest time that goes, for the case that another
//!    program brings an old base back.
//! 5. If another program has written the base, an entry of the base may hide an earlier record of
//!    the store. Such an entry is always copied.
//! 6. A file is removed when everything in the store is durable, and then the manifest that does
//!    not name the file: so a power loss brings back no entry without its later ones, and loses no
//!    entry that was durable but those that were not worth keeping. A look-up that has begun keeps
//!    the file open.
//! 7. The file of the base is removed under the lock of saves, and only if it is still the base.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::collector::{Collection, Collector, Copied, Sizes};
use super::live::{LiveCursor, LiveRecord};
use super::{DiskStore, EntryPlace, StoreEnd, StoreLayout, StoreLimit, lock, read, write};
use crate::compress::Compressor;
use crate::error::{DiskError, DiskErrorKind};
use crate::format::store::manifest::{ManifestBody, SegmentRow};
use crate::format::store::record::{NewRecord, RecordKind, RecordTimes};
use crate::locked::LockedFile;
use crate::snapshot::{Item, Snapshot, Source};
use crate::vfs::parent_of;

/// The circumstances of a collection.
struct Collecting<'c> {
    of: &'c Collection,
    now: u64,
    in_memory: &'c [EntryPlace],
    /// Copies that memory has not heard of.
    unreported: HashSet<EntryPlace>,
    /// Bytes that may still be copied.
    room: u64,
    /// Entries from this place on are worth keeping (rule 2, of the base).
    warm_from: EntryPlace,
    copies: Vec<Copied>,
    copied_bytes: u64,
    compressor: Option<Compressor>,
}

/// The decision on an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Copied,
    Gone,
    /// The key was written meanwhile.
    Changed,
}

impl DiskStore {
    /// The part of the store to be collected next, if any. Call it after writes and after
    /// [`maintain`](Self::maintain), list the places in memory, and call
    /// [`collect`](Self::collect). Reads no file.
    pub fn next_collection(&self) -> Option<Collection> {
        let eager_writes = lock(&self.end).eager_writes;
        let layout = Arc::clone(&read(&self.layout));
        let mut collector = lock(&self.collector);
        let segment = collector.next(self.sizes(&layout))?;
        let (first, last) = if segment == 0 {
            let entries = layout.base.as_ref()?.len();
            let (from, until) = collector.step(entries);
            let before = if until >= entries { EntryPlace::start_of(1) } else { EntryPlace::in_base(until) };
            (EntryPlace::in_base(from), before.before())
        } else {
            (EntryPlace::start_of(segment), EntryPlace::start_of(segment.saturating_add(1)).before())
        };
        Some(Collection { first, last, segment, eager_writes })
    }

    fn sizes(&self, layout: &StoreLayout) -> Sizes {
        let mut sealed = layout.segments.iter().map(|segment| segment.number).rev().skip(1);
        let last = sealed.next();
        let first = sealed.last().or(last);
        Sizes {
            bytes: super::stats::StoreStats::of(layout).bytes(),
            base_bytes: layout.base.as_ref().map_or(0, |base| base.file_bytes()),
            base_entries: layout.base.as_ref().map(|base| base.len()),
            sealed: first.zip(last),
            live_share: lock(&self.counts).live_share(),
        }
    }

    /// Collects: copies the entries that are worth keeping, and then removes the part. `in_memory`:
    /// the places within [`Collection::places`] of the entries that memory has now, ascending, also
    /// those of eager entries, and of eager entries that the front cannot read and wants to keep.
    /// Returns old and new places of copied entries, those in memory included: memory replaces the
    /// old places that it has. Call it on a thread that nobody waits for.
    ///
    /// # Errors
    /// [`Io`](DiskErrorKind::Io) and [`Full`](DiskErrorKind::Full): the part stays, and nothing is
    /// lost.
    pub fn collect(
        &self,
        collection: &Collection,
        in_memory: &[EntryPlace],
        now: u64,
    ) -> Result<Vec<(EntryPlace, EntryPlace)>, DiskError> {
        self.refuse_fork()?;
        let mut collector = lock(&self.collector);
        self.settle_counts();
        lock(&self.counts).begin_moving();
        let mut collecting = Collecting {
            of: collection,
            now,
            in_memory,
            unreported: collector.unreported.iter().map(|copied| copied.to).collect(),
            room: 0,
            warm_from: EntryPlace::LAST,
            copies: Vec::new(),
            copied_bytes: 0,
            compressor: self
                .folder
                .settings
                .compression
                .level()
                .and_then(|level| Compressor::new(level, None)),
        };
        let collected = if collection.segment == 0 {
            self.collect_base(&mut collector, &mut collecting)
        } else {
            self.collect_segment(&collector, &mut collecting)
        };
        collector.copied(collecting.copied_bytes);
        collector.unreported = followed(std::mem::take(&mut collector.unreported), collecting.copies);
        collected?;
        let copies = std::mem::take(&mut collector.unreported);
        drop(collector);
        let counts = lock(&self.counts);
        let may_be_known = |copied: &Copied| copied.is_in_memory || counts.may_be_in_memory(copied.to);
        Ok(copies.into_iter().filter(may_be_known).map(|copied| (copied.from, copied.to)).collect())
    }

    fn collect_segment(
        &self,
        collector: &Collector,
        collecting: &mut Collecting<'_>,
    ) -> Result<(), DiskError> {
        let number = collecting.of.segment;
        let row = {
            let end = lock(&self.end);
            end.manifest.segments.first().filter(|row| row.number == number && row.is_sealed).copied()
        };
        let has_base = read(&self.layout).base.is_some();
        let Some(row) = row.filter(|_| !has_base) else { return Ok(()) }; // Rule 1 of `collector`.
        collecting.room = collector.room(number, row.end.into(), self.bytes());
        let is_live = self.options.limit == StoreLimit::Live;
        if is_live || collecting.room > 0 && row.last_deadline > collecting.now {
            let until = EntryPlace::start_of(number.saturating_add(1));
            let mut cursor = LiveCursor::from_segment(number);
            if !self.copy_entries(&mut cursor, until, collecting)? {
                return Ok(()); // Rule 3.
            }
        } else {
            let known = u64::try_from(collecting.in_memory.len()).unwrap_or(u64::MAX);
            lock(&self.counts).dropped(u64::from(row.entries).saturating_sub(known));
        }
        self.flush_all()?; // Rule 6.
        self.remove_collected(row, collecting.now)
    }

    /// A step over the base, and its end after the last step.
    fn collect_base(
        &self,
        collector: &mut Collector,
        collecting: &mut Collecting<'_>,
    ) -> Result<(), DiskError> {
        let layout = Arc::clone(&read(&self.layout));
        let Some(base) = &layout.base else { return Ok(()) };
        let (from, until) = collector.step(base.len());
        if collecting.of.first != EntryPlace::in_base(from) {
            return Ok(()); // Collected already.
        }
        let room =
            collector.room(0, base.file_bytes(), self.bytes().saturating_sub(collector.copied_of_base));
        collecting.room = room.saturating_sub(collector.copied_of_base);
        if let StoreLimit::Bytes(_) = self.options.limit {
            if collecting.room == 0 && layout.is_base_ours && until < base.len() {
                // Without a look: only the eager entries are left.
                lock(&self.counts).dropped(base.len().saturating_sub(from).into());
                collector.pass_base(base.len());
                return Ok(());
            }
            let entries =
                u64::from(base.len()).saturating_mul(room).checked_div(base.file_bytes()).unwrap_or(0);
            let warm = u32::try_from(entries).unwrap_or(u32::MAX);
            collecting.warm_from = EntryPlace::in_base(base.len().saturating_sub(warm));
        }
        self.copy_entries(&mut collector.base, EntryPlace::in_base(until), collecting)?;
        collector.copied_of_base = collector.copied_of_base.saturating_add(collecting.copied_bytes);
        collector.next_rank = until;
        if until < base.len() {
            return Ok(());
        }
        if !self.copy_eager_of_base(base, collecting)? {
            return Ok(()); // Rule 3.
        }
        self.flush_all()?; // Rule 6.
        self.drop_base(base, collecting.now)?;
        collector.end_base();
        Ok(())
    }

    /// Copies what is worth keeping of the entries before a place. Returns `false` if an eager
    /// record stands in the way (rule 3).
    fn copy_entries(
        &self,
        cursor: &mut LiveCursor,
        until: EntryPlace,
        collecting: &mut Collecting<'_>,
    ) -> Result<bool, DiskError> {
        while let Some(record) = cursor.next(self.look_up(), until) {
            if record.kind.is_eager() {
                if record.kind.is_entry()
                    && collecting.is_listed(record.place)
                    && !self.copy_eager(record.place, &record.copy(), collecting)?
                {
                    return Ok(false);
                }
            } else {
                let verdict = self.judge(record, collecting);
                if !matches!(verdict, Ok(Verdict::Copied | Verdict::Gone)) {
                    cursor.visit_again();
                }
                verdict?;
            }
        }
        Ok(true)
    }

    /// Rules 1 and 2.
    fn judge(&self, record: &LiveRecord, collecting: &mut Collecting<'_>) -> Result<Verdict, DiskError> {
        let place = record.place;
        let is_listed = collecting.is_listed(place);
        let has_expired = record.has_expired(collecting.now);
        let (is_cold, is_used) = {
            let counts = lock(&self.counts);
            (counts.is_cold(place), counts.lives(place) > 0)
        };
        let is_worth = match self.options.limit {
            StoreLimit::Live => is_listed || !is_cold || !has_expired,
            StoreLimit::Bytes(_) => !has_expired && (is_listed || is_used || place >= collecting.warm_from),
        };
        if !record.hides_a_record && !is_worth {
            return self.leave(record);
        }
        let frame = collecting.compress(record);
        let copy = match &frame {
            Some(frame) => NewRecord { is_compressed: true, value: frame, ..record.copy() },
            None => record.copy(),
        };
        let bytes = (copy.key.len() as u64).saturating_add(copy.value.len() as u64).saturating_add(32);
        if bytes > collecting.room && !record.hides_a_record {
            return self.leave(record);
        }
        let count = |to: crate::format::store::StorePlace| {
            lock(&self.counts).copied(place, to.into(), is_listed);
        };
        match self.append_if_still(&record.seen, 0, |_| copy, count) {
            Ok(Some(to)) => {
                collecting.copied(place, to.into(), is_listed, bytes);
                Ok(Verdict::Copied)
            }
            Ok(None) => Ok(Verdict::Changed),
            // The base may have entries that are larger than a segment.
            Err(error) if error.kind() == &DiskErrorKind::Limit && !record.hides_a_record => {
                self.leave(record)
            }
            Err(error) => Err(error),
        }
    }

    /// The entry goes with its segment.
    fn leave(&self, record: &LiveRecord) -> Result<Verdict, DiskError> {
        let _end = self.lock_end()?;
        if !read(&self.tails).is_still(&record.seen) {
            return Ok(Verdict::Changed);
        }
        let mut counts = lock(&self.counts);
        match self.options.limit {
            StoreLimit::Live => counts.evicted(record.place),
            StoreLimit::Bytes(_) => counts.dropped(1),
        }
        Ok(Verdict::Gone)
    }

    /// Rule 3. Returns `false` if the record was not copied.
    fn copy_eager(
        &self,
        from: EntryPlace,
        record: &NewRecord<'_>,
        collecting: &mut Collecting<'_>,
    ) -> Result<bool, DiskError> {
        let mut end = self.lock_end()?;
        if end.eager_writes != collecting.of.eager_writes {
            return Ok(false);
        }
        let hash = self.hasher.hash(record.key);
        let to = self.append_to(&mut end, record, Some(hash))?;
        drop(end);
        let bytes = (record.key.len() as u64).saturating_add(record.value.len() as u64);
        collecting.copied(from, to.into(), true, bytes);
        Ok(true)
    }

    fn copy_eager_of_base(
        &self,
        base: &Snapshot,
        collecting: &mut Collecting<'_>,
    ) -> Result<bool, DiskError> {
        let mut records = base.eager();
        let mut number = 0;
        while let Some(item) = records.next() {
            let place = EntryPlace::eager_in_base(number);
            number = number.saturating_add(1);
            let Item::Entry(entry) = item else { continue };
            if !collecting.is_listed(place) {
                continue;
            }
            let written_at = entry.written_at.unwrap_or(base.saved_at());
            let record = NewRecord {
                kind: RecordKind::EagerEntry,
                times: RecordTimes { deadline: entry.deadline, written_at },
                is_compressed: false,
                attributes: &[],
                key: entry.key,
                value: entry.value,
            };
            if !self.copy_eager(place, &record, collecting)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes everything durable (rule 6).
    fn flush_all(&self) -> Result<(), DiskError> {
        let latest = lock(&self.end).latest;
        self.flush_write(latest)
    }

    /// Rules 4 and 6, for a segment.
    fn remove_collected(&self, row: SegmentRow, now: u64) -> Result<(), DiskError> {
        let mut end = self.lock_end()?;
        let mut manifest = end.manifest.clone();
        manifest.segments.retain(|other| other.number != row.number);
        manifest.dropped_until = manifest.dropped_until.max(row.latest);
        let is_empty = |run: &crate::format::store::manifest::RunRow| {
            manifest.segments.iter().all(|segment| !run.covers(segment.number))
        };
        let gone: Vec<u32> = manifest.runs.iter().filter(|run| is_empty(run)).map(|run| run.number).collect();
        manifest.runs.retain(|run| !gone.contains(&run.number));
        let is_durable = self.install_collected(&mut end, manifest, now)?;
        self.change_layout(|layout| {
            layout.segments.retain(|segment| segment.number != row.number);
            layout.runs.retain(|placed| !gone.contains(&placed.run.number));
            layout.dropped_until = layout.dropped_until.max(row.latest);
        });
        write(&self.tails).remove_until(row.number);
        lock(&self.counts).forget(row.number);
        drop(end);
        if is_durable {
            self.folder.remove_segment(row.number);
            for number in gone {
                self.folder.remove_run(number);
            }
        }
        Ok(())
    }

    /// Rules 4, 6 and 7.
    fn drop_base(&self, base: &Snapshot, now: u64) -> Result<(), DiskError> {
        let mut end = self.lock_end()?;
        let until = base.written_until().max(base.saved_at());
        let mut manifest = end.manifest.clone();
        manifest.base = None;
        manifest.dropped_until = manifest.dropped_until.max(until);
        let is_durable = self.install_collected(&mut end, manifest, now)?;
        self.change_layout(|layout| {
            (layout.base, layout.is_base_ours) = (None, true);
            layout.dropped_until = layout.dropped_until.max(until);
        });
        write(&self.tails).end_generation();
        lock(&self.counts).forget(0);
        drop(end);
        if is_durable {
            self.remove_base_file(base);
        }
        Ok(())
    }

    /// Replaces the manifest. Returns whether the new one is durable: else the files stay until the
    /// next opening.
    fn install_collected(
        &self,
        end: &mut StoreEnd,
        mut manifest: ManifestBody,
        now: u64,
    ) -> Result<bool, DiskError> {
        self.settle_counts(); // The end is locked: nothing is queued from here on.
        manifest.sequence = manifest.sequence.saturating_add(1);
        self.folder.replace_manifest(&self.ids, &manifest, now)?;
        end.manifest = manifest;
        Ok(self.folder.settle().is_ok())
    }

    /// Rule 7. A file that stays holds nothing that counts.
    fn remove_base_file(&self, base: &Snapshot) {
        let settings = self.folder.settings.clone();
        let Ok(locked) = LockedFile::take(self.site.clone(), settings, Duration::ZERO) else { return };
        if let Ok(Some(there)) = locked.open()
            && there.file_id() == base.file_id()
            && self.site.vfs.remove(&self.site.place).is_ok()
        {
            let _ = self.site.vfs.sync_dir(parent_of(&self.site.place));
        }
    }
}

impl Collecting<'_> {
    fn is_listed(&self, place: EntryPlace) -> bool {
        self.in_memory.binary_search(&place).is_ok() || self.unreported.contains(&place)
    }

    /// The value as a frame, if the cache compresses and the value becomes shorter.
    fn compress(&mut self, record: &LiveRecord) -> Option<Vec<u8>> {
        if record.is_compressed {
            return None;
        }
        self.compressor.as_mut()?.compress(&record.value)
    }

    fn copied(&mut self, from: EntryPlace, to: EntryPlace, is_in_memory: bool, bytes: u64) {
        self.room = self.room.saturating_sub(bytes);
        self.copied_bytes = self.copied_bytes.saturating_add(bytes);
        self.copies.push(Copied { from, to, is_in_memory });
    }
}

/// Earlier copies that were not reported, and copies, some of them of these.
fn followed(earlier: Vec<Copied>, copies: Vec<Copied>) -> Vec<Copied> {
    if earlier.is_empty() {
        return copies;
    }
    let ends: HashMap<EntryPlace, EntryPlace> =
        copies.iter().map(|copied| (copied.from, copied.to)).collect();
    let ended = earlier
        .into_iter()
        .map(|copied| Copied { to: ends.get(&copied.to).copied().unwrap_or(copied.to), ..copied });
    let mut all: Vec<Copied> = ended.collect();
    all.extend(copies);
    all
}

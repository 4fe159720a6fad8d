//! Folding: a store becomes a snapshot again, the single file that the user named (file format,
//! section 19).
//!
//! ```text
//! open --seal--> sealed --save--> the file has everything --manifest--> no record counts --> gone
//!                  |                         |
//!                  `-- error, too large      `-- error
//!                        \                       \
//!                         `-----------------------`--> closed: the store stays as it is
//! ```
//!
//! Rules:
//! 1. The save is that of a cache that merges (`crate::save`): if another program has replaced the
//!    base, the later write of each key counts, and the deletes of the store are in the file's
//!    tombstones.
//! 2. The store counts until a manifest that names the new base, and no segments, is durable. If
//!    the process ends before, the next opening finds the store beside a base that the manifest
//!    does not name: times decide, and every entry has in the base the time of its record.
//! 3. Then segments and runs are removed, durably, and after them the manifest: records without a
//!    manifest would make the base invalid (rule 4 of `opening`).
//! 4. If a part of the store could not be read because of an error of the system, there is no fold:
//!    the part may be sound. Damaged parts are lost.
//!    Nor is there a fold of a store whose folder was removed: its entries are gone with it, and
//!    the base is left as it is.
//! 5. An eager entry counts if its place is among those in memory: only the front knows which eager
//!    keys are equal. Without a front, a delete deletes every earlier eager entry.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::time::Duration;

use super::folder::StoreFolder;
use super::sealing::put_sealed;
use super::view::{StoreItem, StoreView, StoredEntry};
use super::{DiskStore, EagerWrite, EntryPlace, Folded, StoreAnswer, StoreScratch, lock, read};
use crate::error::{DiskError, DiskErrorKind};
use crate::format::record::Times;
use crate::format::store::manifest::{ManifestBody, SegmentRow};
use crate::merge::{Known, Learned, Ours};
use crate::save::{FinishedSave, Joining, Output, Pushed, Save};
use crate::snapshot::{Item, Snapshot, Source};
use crate::tombstones::KeyKind;
use crate::writer::WriteOptions;
use deletes::tombstones_of;

mod deletes;

/// A store with more bytes of entries than this is not folded.
const MOST_BYTES: u64 = 64 << 20;
/// Of a store with more bytes on disk than this, the entries are not counted: most of it is not
/// garbage.
const MOST_COUNTED: u64 = 4 * MOST_BYTES;

/// The entries in memory.
#[derive(Debug, Clone, Copy)]
enum InMemory<'m> {
    /// Their places, the least worth keeping first.
    Places(&'m [EntryPlace]),
    /// There is no front.
    Unknown,
}

impl DiskStore {
    /// Closes the store of a small cache: saves all entries that have not expired to the file, and
    /// removes the store, so that there is the single file that the user named. If the entries have
    /// more than 64 MiB, or the file cannot be written, the store is [closed](Self::close).
    ///
    /// `in_memory`: the places of all entries in memory, the least worth keeping first. In the file
    /// they are in this order behind the entries that are only on disk. An eager entry is in the
    /// file only if its place is in the list. `lock_timeout`: the longest wait for another
    /// program's save.
    ///
    /// # Errors
    /// Those of [`close`](Self::close), if the store had to be closed.
    pub fn fold(
        self,
        in_memory: &[EntryPlace],
        lock_timeout: Duration,
        now: u64,
    ) -> Result<Folded, DiskError> {
        self.fold_up_to(MOST_BYTES, InMemory::Places(in_memory), lock_timeout, now)
    }

    /// The same for tools, without a front, and whatever the size. An eager delete deletes every
    /// earlier eager entry, because only a front knows which keys are equal.
    ///
    /// # Errors
    /// As [`fold`](Self::fold).
    pub fn fold_always(self, lock_timeout: Duration, now: u64) -> Result<Folded, DiskError> {
        self.fold_up_to(u64::MAX, InMemory::Unknown, lock_timeout, now)
    }

    fn fold_up_to(
        self,
        most: u64,
        in_memory: InMemory<'_>,
        lock_timeout: Duration,
        now: u64,
    ) -> Result<Folded, DiskError> {
        let folded = self.folder.refuse_replaced().and_then(|()| self.seal_end(now));
        let folded = folded.and_then(|_| self.try_fold(most, in_memory, lock_timeout, now));
        match folded {
            Ok(Some(whole)) => Ok(whole),
            Ok(None) => self.close(now).map(|()| Folded::TooLarge),
            Err(error) => self.close(now).map(|()| Folded::Closed(error)),
        }
    }

    /// Seals the segment, if there is one. The manifest in memory says so; the manifest on the disk
    /// need not.
    pub(super) fn seal_end(&self, now: u64) -> Result<Option<SegmentRow>, DiskError> {
        let mut end = self.lock_end()?;
        let Some(segment) = &mut end.segment else { return Ok(None) };
        let sealed = segment.seal(now);
        let sealed = sealed.map_err(|error| DiskError::io("sealing a segment", &self.folder.path, error))?;
        end.manifest.cleared_at = end.cleared_at;
        put_sealed(&mut end.manifest, sealed);
        Ok(Some(sealed))
    }

    /// Folds the sealed store. `None`: it is too large.
    fn try_fold(
        &self,
        most: u64,
        in_memory: InMemory<'_>,
        lock_timeout: Duration,
        now: u64,
    ) -> Result<Option<Folded>, DiskError> {
        let manifest = lock(&self.end).manifest.clone();
        let base = read(&self.layout).base.clone();
        let base_id = base.as_ref().map(|base| base.file_id());
        if is_unchanged(&manifest) {
            self.remove_folded(base_id, now)?;
            return Ok(Some(Folded::Whole { saved: None, merged: None }));
        }
        let folder = StoreFolder::beside(&self.site, &self.folder.settings)?;
        let view = StoreView::read(folder, self.ids.clone(), manifest, base, now)?;
        let base_bytes = view.base().map_or(0, Snapshot::file_bytes);
        if is_larger(&view, base_bytes.saturating_add(view.bytes()), most, now) {
            return Ok(None);
        }
        let folding = Folding { store: self, view, in_memory, now };
        let FinishedSave { saved, merged, .. } = folding.save(lock_timeout)?;
        self.remove_folded(Some(saved.file_id), now)?;
        Ok(Some(Folded::Whole { saved: Some(saved), merged: merged.map(Box::new) }))
    }

    /// Rules 2 and 3.
    fn remove_folded(&self, base: Option<[u8; 16]>, now: u64) -> Result<(), DiskError> {
        let mut end = lock(&self.end);
        if end.is_unwritten() {
            self.folder.remove_unused(self.lock.may_be_removed());
            return Ok(());
        }
        let body = ManifestBody {
            is_clean: true,
            sequence: end.manifest.sequence.saturating_add(1),
            base,
            written_until: end.manifest.written_until,
            next_number: end.manifest.next_number,
            ..ManifestBody::default()
        };
        self.folder.replace_manifest(&self.ids, &body, now)?;
        // As long as the manifest is not durable, the records must stay.
        self.folder.settle()?;
        self.folder.remove_store(&body, self.lock.may_be_removed());
        end.manifest = body;
        Ok(())
    }
}

/// Whether the base alone is what the store holds.
fn is_unchanged(manifest: &ManifestBody) -> bool {
    let ManifestBody { cleared_at, floor, dropped_until, .. } = manifest;
    manifest.segments.is_empty() && [cleared_at, floor, dropped_until].iter().all(|time| **time == 0)
}

/// Whether the entries that have not expired have more bytes than this.
fn is_larger(view: &StoreView, on_disk: u64, most: u64, now: u64) -> bool {
    if on_disk <= most || on_disk > MOST_COUNTED.max(most) {
        return on_disk > most;
    }
    let mut bytes = 0u64;
    let counted = view.each(|item| {
        if let StoreItem::Entry(entry) = item
            && !has_expired(entry.deadline, now)
        {
            let entry_bytes = entry.key.len().saturating_add(entry.value.len());
            bytes = bytes.saturating_add(entry_bytes as u64);
        }
        if bytes > most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    counted.is_break()
}

fn has_expired(deadline: Option<u64>, now: u64) -> bool {
    deadline.is_some_and(|deadline| deadline <= now)
}

/// The writing of the file.
struct Folding<'f> {
    store: &'f DiskStore,
    view: StoreView,
    in_memory: InMemory<'f>,
    now: u64,
}

impl Folding<'_> {
    fn save(&self, lock_timeout: Duration) -> Result<FinishedSave, DiskError> {
        let Self { store, view, now, .. } = self;
        let tombstones = {
            let end = lock(&store.end);
            tombstones_of(view, end.cleared_at, end.manifest.floor)
        };
        let mut learned = Learned::default();
        learned.opened(view.base().map(Snapshot::file_id));
        let save = Save::begin(store.site.clone(), store.folder.settings.clone(), Some(lock_timeout))?;
        let known = Known { tombstones, learned };
        let mut joining = save.write(WriteOptions::new(*now), known, None)?;
        let is_joined = joining.is_needed();
        if is_joined {
            self.note(&mut joining);
        }
        let ours = Ours { maxsize: None, eager: None, cold: None, allows: &|_| true };
        let mut output = joining.join(&ours)?;
        self.push_all(&mut output)?;
        self.push_eager(&mut output, is_joined)?;
        self.refuse_unread()?;
        output.finish()
    }

    fn note(&self, joining: &mut Joining) {
        let _ = self.view.each(|item| {
            if let StoreItem::Entry(entry) = item {
                joining.note(entry.key, entry.written_at.unwrap_or(0));
            }
            ControlFlow::Continue(())
        });
    }

    /// Writes the entries on disk in the order of their places, and those in memory in their own
    /// order.
    fn push_all(&self, output: &mut Output) -> Result<(), DiskError> {
        let places: &[EntryPlace] = match self.in_memory {
            InMemory::Places(places) => places,
            InMemory::Unknown => &[],
        };
        let in_memory: HashSet<EntryPlace> = places.iter().copied().collect();
        // The keys of the entries in memory that count.
        let mut keys: HashMap<EntryPlace, Box<[u8]>> = HashMap::new();
        let mut failed = None;
        let _ = self.view.each(|item| {
            let StoreItem::Entry(entry) = item else { return ControlFlow::Continue(()) };
            if in_memory.contains(&entry.place) {
                keys.insert(entry.place, entry.key.into());
                return ControlFlow::Continue(());
            }
            match self.push(output, &entry) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let mut scratch = StoreScratch::new();
        for place in places {
            let Some(key) = keys.remove(place) else { continue };
            if let StoreAnswer::Entry(found) = self.view.find(&key, &mut scratch) {
                let (value, deadline, written_at) = (found.value, found.deadline, found.written_at);
                let entry = StoredEntry { key: &key, value, deadline, written_at, place: *place, rank: None };
                self.push(output, &entry)?;
            }
        }
        Ok(())
    }

    fn push(&self, output: &mut Output, entry: &StoredEntry<'_>) -> Result<(), DiskError> {
        if has_expired(entry.deadline, self.now) {
            output.leave_out(KeyKind::Canonical, entry.key, entry.written_at.unwrap_or(0));
            return Ok(());
        }
        let times = Times { deadline: entry.deadline, written_at: entry.written_at };
        match output.push(entry.key, entry.value, times)? {
            Pushed::Written | Pushed::Superseded => Ok(()),
            Pushed::TooLarge(error) => Err(error),
        }
    }

    /// Rule 5. Of equal keys of theirs, the later write counts, as far as their bytes are equal.
    fn push_eager(&self, output: &mut Output, is_joined: bool) -> Result<(), DiskError> {
        let mut ours = self.eager_entries()?;
        if let Some(theirs) = output.theirs().cloned().filter(|_| is_joined) {
            let mut records = theirs.eager();
            while let Some(item) = records.next() {
                let Item::Entry(record) = item else { continue };
                let time = record.written_at.unwrap_or(0);
                let rival = ours.iter().find(|entry| entry.key == record.key).map(EagerEntry::time);
                let wins = match rival {
                    Some(ours) => time > ours,
                    None => !output.may_have_deleted(time),
                };
                if wins {
                    ours.retain(|entry| entry.key != record.key);
                    let _ = output.pass_on_eager(&record)?;
                }
            }
        }
        for EagerEntry { key, value, times } in ours {
            let time = times.written_at.unwrap_or(0);
            if has_expired(times.deadline, self.now) {
                output.leave_out(KeyKind::Eager, &key, time);
            } else if output.is_deleted(KeyKind::Eager, &key, time) {
                output.record_superseded(&key, time);
            } else if let Pushed::TooLarge(error) = output.push_eager(&key, &value, times)? {
                return Err(error);
            }
        }
        Ok(())
    }

    /// The eager entries that count, the least worth keeping first.
    fn eager_entries(&self) -> Result<Vec<EagerEntry>, DiskError> {
        let mut entries = Vec::new();
        for write in self.store.eager()? {
            match (write, self.in_memory) {
                (EagerWrite::Entry { key, value, deadline, written_at, place }, _) => {
                    entries.push((place, EagerEntry { key, value, times: Times { deadline, written_at } }));
                }
                (EagerWrite::Delete { .. }, InMemory::Unknown) => entries.clear(),
                (EagerWrite::Delete { .. }, InMemory::Places(_)) => {}
            }
        }
        let InMemory::Places(places) = self.in_memory else {
            return Ok(entries.into_iter().map(|(_, entry)| entry).collect());
        };
        let mut by_place: HashMap<EntryPlace, EagerEntry> = entries.into_iter().collect();
        Ok(places.iter().filter_map(|place| by_place.remove(place)).collect())
    }

    /// Rule 4.
    fn refuse_unread(&self) -> Result<(), DiskError> {
        let read = [self.view.io_errors(), read(&self.store.layout).io_errors()];
        if read == [0, 0] {
            return Ok(());
        }
        let what = "a part of the store could not be read";
        Err(DiskError::new(DiskErrorKind::Io, &self.store.folder.path, what))
    }
}

/// An eager entry that counts.
struct EagerEntry {
    key: Vec<u8>,
    value: Vec<u8>,
    times: Times,
}

impl EagerEntry {
    fn time(&self) -> u64 {
        self.times.written_at.unwrap_or(0)
    }
}

//! Merging entries whose keys are objects: only Python can compare the keys.
//!
//! All records are read, decoded and compared with nothing borrowed, because decoding and comparing
//! run Python code. A record whose key cannot be decoded is copied as bytes, unless exactly these
//! bytes were deleted. With `pickle=False` nothing is unpickled, and no pickle is copied either.

use std::ops::Range;

use async_cache_core::time::{FileClock, Stamp};
use async_cache_disk::store::EagerWrite;
use async_cache_disk::{
    DiskError, Filling, Item, Joining, KeyKind, Output, Record, Snapshot, Source, Tombstones,
};
use async_cache_tier::eager::{EagerEntries, EagerOutcome, EagerReplay};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::codec::{self, CodecOptions};
use crate::errors;
use crate::host::FileHost;
use crate::pace::LockSlice;
use crate::raw::Ref;
use crate::restore;

/// Entries of theirs, and the deletes of both sides.
pub(crate) struct EagerMerge<'py> {
    theirs: Option<Snapshot>,
    /// Key to its index in `records`.
    keys: Bound<'py, PyDict>,
    records: Vec<Theirs>,
    /// Key to the time of its deletion.
    deleted: Bound<'py, PyDict>,
    /// The number of recorded entries of ours.
    ours: usize,
    /// The number of winning entries of theirs, the coldest, that were skipped for lack of room.
    skipped: usize,
    /// Whether theirs may have entries missing in this process.
    is_needed: bool,
}

struct Theirs {
    written_at: u64,
    /// Not deleted, as far as is known.
    counts: bool,
    /// Our entry for the key is older, or does not exist.
    wins: bool,
    /// We have an entry for the key.
    is_ours: bool,
    fit: Fit,
}

/// Whether an entry of theirs may be copied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fit {
    Yes,
    /// The entry has expired.
    Expired,
    /// The entry is pickled, with `pickle=False`.
    Pickled,
}

impl Theirs {
    fn is_wanted_and(&self, fit: Fit) -> bool {
        self.counts && self.wins && self.fit == fit
    }
}

impl<'py> EagerMerge<'py> {
    fn new(py: Python<'py>, joining: &Joining, options: CodecOptions, now: u64) -> PyResult<Self> {
        let deleted = PyDict::new(py);
        let mut slice = LockSlice::begin();
        for (bytes, time) in joining.tombstones().into_iter().flat_map(|all| all.keys(KeyKind::Eager)) {
            slice.end_if_over(py)?;
            if let Some(key) = tolerated(py, codec::decode_value(py, bytes, options))? {
                let known: Option<u64> = match tolerated(py, deleted.get_item(&key))?.flatten() {
                    Some(known) => Some(known.extract()?),
                    None => None,
                };
                set(&deleted, key, known.max(Some(time)))?;
            }
        }
        let is_needed = joining.is_needed();
        let theirs = joining.theirs().filter(|theirs| theirs.has_eager()).cloned();
        let mut this = Self {
            theirs,
            keys: PyDict::new(py),
            records: Vec::new(),
            deleted,
            ours: 0,
            skipped: 0,
            is_needed,
        };
        let Some(theirs) = this.theirs.clone() else { return Ok(this) };
        let mut records = theirs.eager();
        while let Some(Item::Entry(record)) = records.next() {
            slice.end_if_over(py)?;
            let written_at = record.written_at.unwrap_or(0);
            let is_pickled = codec::is_pickled(record.key) || codec::is_pickled(record.value);
            let fit = match record.deadline {
                Some(deadline) if deadline <= now => Fit::Expired,
                _ if is_pickled && !options.pickle => Fit::Pickled,
                _ => Fit::Yes,
            };
            let index = this.records.len();
            this.records.push(Theirs {
                written_at,
                counts: is_needed && !joining.is_deleted(KeyKind::Eager, record.key, written_at),
                wins: true,
                is_ours: false,
                fit,
            });
            if let Some(key) = tolerated(py, codec::decode_value(py, record.key, options))? {
                let is_deleted = this.deleted_at(&key)? >= Some(written_at);
                this.records[index].counts &= !is_deleted;
                // Of two equal keys the later entry counts.
                if let Some(before) = this.index(&key)? {
                    this.records[before].wins = false;
                }
                set(&this.keys, key, index)?;
            }
        }
        Ok(this)
    }

    fn index(&self, key: &Bound<'py, PyAny>) -> PyResult<Option<usize>> {
        let index = tolerated(key.py(), self.keys.get_item(key))?.flatten();
        index.map(|index| index.extract()).transpose()
    }

    fn deleted_at(&self, key: &Bound<'py, PyAny>) -> PyResult<Option<u64>> {
        let time = tolerated(key.py(), self.deleted.get_item(key))?.flatten();
        time.map(|time| time.extract()).transpose()
    }

    /// Records that an entry of ours will be written.
    fn note(&mut self, key: &Bound<'py, PyAny>, written_at: u64) -> PyResult<()> {
        self.ours += 1;
        if let Some(index) = self.index(key)? {
            self.records[index].is_ours = true;
            self.records[index].wins &= self.records[index].written_at > written_at;
        }
        Ok(())
    }

    /// Copies the winning entries of theirs that we do not have, as far as there is room: the
    /// coldest are dropped first.
    fn write_theirs(&mut self, output: &mut Output) -> PyResult<()> {
        for known in &mut self.records {
            if known.is_wanted_and(Fit::Yes) && !known.is_ours {
                known.counts = !output.may_have_deleted(known.written_at);
            }
        }
        let wanted = self.records.iter().filter(|known| known.is_wanted_and(Fit::Yes)).count();
        self.skipped = wanted.saturating_sub(output.room_for_eager());
        self.copy(self.skipped..wanted, |record| output.copy_eager(record))
    }

    /// After all of ours are written: copies as many of the skipped entries as there is room for
    /// after all.
    fn fill_up(&mut self, filling: &mut Filling) -> PyResult<()> {
        let skipped = std::mem::take(&mut self.skipped);
        let dropped = skipped.saturating_sub(filling.room_left());
        filling.drop_eager(dropped);
        self.hide_older_ours(filling, dropped)?;
        if dropped == skipped {
            return Ok(());
        }
        self.copy(dropped..skipped, |record| filling.copy_eager(record))
    }

    /// Records entries of theirs that are later than ours and not written either (expired, not
    /// permitted, or among the `dropped` coldest): the file must record that their keys were
    /// written later. For keys with canonical bytes the merge itself does so (rule 6 of `merge` in
    /// the disk crate).
    fn hide_older_ours(&self, filling: &mut Filling, dropped: usize) -> PyResult<()> {
        let is_later = |known: &Theirs| known.is_ours && known.counts && known.wins;
        let Some(theirs) = self.theirs.as_ref().filter(|_| self.records.iter().any(is_later)) else {
            return Ok(());
        };
        let mut records = theirs.eager();
        let mut passed = 0;
        let mut slice = LockSlice::begin();
        for known in &self.records {
            slice.end_if_over(self.keys.py())?;
            let Some(Item::Entry(record)) = records.next() else { break };
            passed += usize::from(known.is_wanted_and(Fit::Yes));
            let until = match known.fit {
                // Any other copy of our entry is older than the expired entry too.
                Fit::Expired => known.written_at.saturating_add(1),
                Fit::Yes if passed > dropped => continue,
                Fit::Yes | Fit::Pickled => known.written_at,
            };
            if is_later(known) {
                filling.leave_out(KeyKind::Eager, record.key, until);
            }
        }
        Ok(())
    }

    /// Copies a part of the winning entries, counted from the coldest.
    fn copy(
        &self,
        part: Range<usize>,
        mut copy: impl FnMut(&Record<'_>) -> Result<(), DiskError>,
    ) -> PyResult<()> {
        let Some(theirs) = &self.theirs else { return Ok(()) };
        let mut records = theirs.eager();
        let mut passed = 0;
        let mut slice = LockSlice::begin();
        for known in &self.records {
            slice.end_if_over(self.keys.py())?;
            let Some(Item::Entry(record)) = records.next() else { break };
            if !known.is_wanted_and(Fit::Yes) {
                continue;
            }
            passed += 1;
            if part.contains(&(passed - 1)) {
                copy(&record).map_err(|error| errors::backup(self.keys.py(), &error))?;
            }
        }
        Ok(())
    }

    /// Whether an entry of ours is to be written. `bytes`: the bytes of its key.
    fn admits_ours(
        &self,
        output: &mut Output,
        key: &Bound<'py, PyAny>,
        bytes: &[u8],
        written_at: u64,
    ) -> PyResult<bool> {
        let theirs = self.index(key)?.map(|index| &self.records[index]);
        let is_later = theirs.is_some_and(|theirs| theirs.counts && theirs.written_at > written_at);
        let is_deleted = output.is_deleted(KeyKind::Eager, bytes, written_at)
            || self.deleted_at(key)? >= Some(written_at.max(1));
        if is_later || is_deleted || output.is_superseded(bytes, written_at) {
            if theirs.is_some_and(|theirs| theirs.counts && theirs.written_at < written_at) {
                // From now on neither is in the file.
                output.leave_out(KeyKind::Eager, bytes, written_at);
            }
            output.record_superseded(bytes, written_at);
            return Ok(false);
        }
        let is_unsure = theirs.is_none() && output.may_have_been_deleted(written_at);
        if is_unsure {
            output.leave_out_unsure(KeyKind::Eager, bytes, written_at);
        }
        Ok(!is_unsure)
    }
}

impl<'c, 'py> EagerEntries<FileHost<'c, 'py>> for EagerMerge<'py> {
    fn restore(
        host: &FileHost<'c, 'py>,
        snapshot: &Snapshot,
        file: FileClock,
        before: Option<&Tombstones>,
    ) -> PyResult<EagerOutcome> {
        restore::eager(host, snapshot, file, before)
    }

    fn replay(host: &FileHost<'c, 'py>, writes: &[EagerWrite], file: FileClock) -> PyResult<EagerReplay> {
        let restored = restore::replay(host, writes, file)?;
        Ok(EagerReplay { restored, kept: Vec::new() })
    }

    fn begin(host: &FileHost<'c, 'py>, joining: &Joining, file: FileClock) -> PyResult<Self> {
        Self::new(host.py, joining, host.target.options.codec, file.file_now())
    }

    fn note(&mut self, host: &FileHost<'c, 'py>, key: &Ref, stamp: Stamp) -> PyResult<()> {
        EagerMerge::note(self, key.bind(host.py), stamp.as_nanos())
    }

    fn noted(&self) -> Option<usize> {
        Some(self.ours)
    }

    fn join(&mut self, _: &FileHost<'c, 'py>, output: &mut Output) -> PyResult<()> {
        if self.is_needed { self.write_theirs(output) } else { Ok(()) }
    }

    fn admits(
        &mut self,
        host: &FileHost<'c, 'py>,
        output: &mut Output,
        key: &Ref,
        bytes: &[u8],
        stamp: Stamp,
    ) -> PyResult<bool> {
        self.admits_ours(output, key.bind(host.py), bytes, stamp.as_nanos())
    }

    fn fill(&mut self, _: &FileHost<'c, 'py>, filling: &mut Filling) -> PyResult<()> {
        self.fill_up(filling)
    }

    fn refused(&self) -> u64 {
        self.records.iter().filter(|theirs| theirs.is_wanted_and(Fit::Pickled)).count() as u64
    }

    fn found(&self) -> u64 {
        self.records.len() as u64
    }
}

/// An object that cannot be a key of a dict cannot be a key of a cache either.
fn set<'py>(
    dict: &Bound<'py, PyDict>,
    key: Bound<'py, PyAny>,
    value: impl IntoPyObject<'py>,
) -> PyResult<()> {
    tolerated(dict.py(), dict.set_item(key, value)).map(drop)
}

/// `None` for an error of a key that cannot be decoded, hashed or compared; `Err` if the key is not
/// at fault.
fn tolerated<T>(py: Python<'_>, result: PyResult<T>) -> PyResult<Option<T>> {
    match result {
        Err(error) if errors::is_from_outside(py, &error) => Err(error),
        result => Ok(result.ok()),
    }
}

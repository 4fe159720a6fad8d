//! Saving the cache to a file while it goes on being used.
//!
//! A save holds the interpreter's lock for slices of about half a millisecond, in which it lists or encodes
//! entries (see [`crate::pace`]), and releases it while it writes. It is consistent for each single entry: what is written is a value
//! that the entry had while the save ran. Rules:
//! 1. one save or load of a cache at a time: the callers in Python see to that;
//! 2. the cold set is copied first, then the hot entries are listed. A key may be in both, if it was written in
//!    between: then it is taken out of the copy, so that the file has it once. What is not in the list when the
//!    copy is looked through is not written from memory, so its cold value stays in the copy: it had that one
//!    when the save began;
//! 3. if the snapshot is let go while the copy is looked through, because the cache is cleared, the copy is
//!    dropped;
//! 4. cold entries are written first, as the bytes they are in the old file, then the hot ones in the order of
//!    their use;
//! 5. the file's clock never runs back from one save or load to the next (see [`FileClock`]);
//! 6. a file that could not be read when it was opened is set aside by the save; but if saves merge, and it can be joined
//!    by then, it is joined: so a passing error at the start, such as too many open files, costs nothing;
//! 7. if saves merge, all of this happens under the lock of the path, and for each key the later write wins, here or
//!    there (`async_cache_disk::Save` has the steps);
//! 8. what is cold is read from the file that the save has written from then on, and the file before it is closed: so a
//!    disk that has room for two files suffices. A cold entry that is not in the new file, for another process deleted it or
//!    wrote it later, is a miss from then on.

use std::sync::Arc;

use async_cache_core::cold::Frozen;
use async_cache_core::ledger::Outcome;
use async_cache_core::listing::{Listing, Ticket, keep_last};
use async_cache_core::time::{Deadline, FileClock, Stamp};
use async_cache_disk::{
    Cold, DiskError, DiskErrorKind, Finished, Joining, LockedFile, Ours, Output, Pushed, Snapshot, Times,
    WriteOptions, Writer,
};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::cache::{Cache, Core};
use crate::call_key::CallKey;
use crate::carry::{carry, is_allowed};
use crate::clock;
use crate::codec::{self, Options};
use crate::eager::EagerMerge;
use crate::errors;
use crate::key::{Query, StoredKey};
use crate::opened::Opened;
use crate::pace::{Slice, in_background};
use crate::sharing;
use crate::target::Target;

/// Entries that are taken under one borrow.
const GULP: usize = 64;
/// Entries that are listed under one borrow; it takes about as long as a slice.
const LISTED: usize = 4096;
/// Bytes that are encoded before they are written, at most (but for one large value).
const BUFFER: usize = 1 << 20;

impl Cache {
    /// Saves everything that has not expired.
    pub(crate) fn save_file<'py>(
        &self,
        py: Python<'py>,
        target: &Target,
        set_aside: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        let save = sharing::begin(py, target)?;
        let saved_at = save.theirs().map_or(0, Snapshot::saved_at);
        if save.merges() {
            self.note_lost(py, Core::begin_save, Some(Slice::begin()))?;
        }
        let (now, wall) = clock::both();
        let (file, opened, keep, known) = {
            let mut state = self.state.borrow(py);
            let file = state.clock_at(now, wall, saved_at);
            if let Some(theirs) = save.theirs() {
                state.core.not_before(Stamp::from_nanos(theirs.written_until()));
            }
            (file, state.opened.clone(), state.unread || set_aside, state.to_join())
        };
        if let Some(opened) = &opened {
            // What has expired says nothing to others, whether a write came by and reclaimed it or not.
            opened.reclaim_all(now);
        }
        let mut options = WriteOptions::new(file.file_now());
        let base = opened.as_ref().map(|opened| opened.snapshot());
        if let (Some(opened), Some(base)) = (&opened, &base)
            && opened.is_mostly_cold()
        {
            options = options.dictionary_of(base);
        }
        // Rule 6
        if keep && save.theirs().is_none() {
            options = options.keep_target();
        }
        let joining = in_background(py, || save.write(options, known, base.as_ref()))?;

        let frozen = opened.as_ref().map(|opened| opened.cold.freeze());
        let tickets = self.list(py);
        let mut cold = None;
        if let (Some(opened), Some(mut frozen)) = (&opened, frozen)
            && self.leave_only_cold(py, opened, &tickets, &mut frozen)
        {
            cold = Some((opened, frozen));
        }
        let (mut output, mut eager) = self.join_theirs(py, target, joining, &tickets, cold.as_ref(), file)?;
        let mut carried = None;
        if let Some((opened, frozen)) = cold {
            carried = Some(carry(py, &mut output, opened, &frozen, file, target.options.codec)?);
        }
        let mut left_out = self.write_hot(py, target, &tickets, file, &mut output, &eager)?;
        let mut filling = in_background(py, || output.fill())?;
        eager.fill(&mut filling)?;
        let mut refused = eager.refused();
        let Finished { saved, successor, merged, .. } = in_background(py, || filling.finish())?;
        if let Some(carried) = carried {
            carried.go_on_with(successor); // Rule 8
        }
        let (maxsize, dropped, shrinks) = {
            let mut state = self.state.borrow(py);
            state.unread = false;
            state.file_clock = Some(file);
            state.saves += 1;
            let maxsize = state.core.maxsize();
            let no_room = std::mem::take(&mut state.no_room);
            let (dropped, shrinks) = match &merged {
                Some(merged) => {
                    state.merged(merged);
                    state.core.settle(Outcome::Saved);
                    let found = merged.found + eager.len() as u64;
                    (merged.dropped, maxsize.is_some_and(|maxsize| found > maxsize as u64))
                }
                None => (no_room, true),
            };
            state.dropped += dropped + merged.as_ref().map_or(0, |merged| merged.unsure);
            (maxsize, dropped, shrinks)
        };
        left_out.add_unsure(merged.as_ref().map_or(0, |merged| merged.left_out));
        let report = PyDict::new(py);
        report.set_item("entries", saved.entries + saved.eager)?;
        report.set_item("bytes", saved.bytes)?;
        report.set_item("left_out", left_out.count)?;
        report.set_item("why_left_out", left_out.first.take())?;
        report.set_item("set_aside", saved.set_aside)?;
        report.set_item("without_locks", saved.without_locks)?;
        refused += merged.as_ref().map_or(0, |merged| merged.refused);
        report.set_item("refused", refused)?;
        report.set_item("dropped", dropped)?;
        // Caches of one maxsize drop entries of each other all the time; to a smaller one than others have, not.
        report.set_item("shrunk_to", maxsize.filter(|_| shrinks && dropped > 0))?;
        report.set_item("unsure", merged.as_ref().map_or(0, |merged| merged.unsure))?;
        report.set_item("copied", merged.map_or(0, |merged| merged.copied))?;
        Ok(report)
    }

    /// The hot entries, the coldest first.
    pub(crate) fn list(&self, py: Python<'_>) -> Vec<Ticket> {
        let len = {
            let mut state = self.state.borrow(py);
            state.core.begin_listing();
            state.core.store().len()
        };
        // Room for what is used, and so listed again, meanwhile.
        let mut tickets = Vec::with_capacity(len + len / 8 + LISTED);
        let mut slice = Slice::begin();
        loop {
            let listing = self.state.borrow(py).core.list_some(LISTED, &mut tickets);
            if listing == Listing::Done {
                return py.detach(|| keep_last(tickets));
            }
            slice.rest_if_over(py);
        }
    }

    /// Takes what is hot out of the copy of the cold set. False: the snapshot was let go.
    fn leave_only_cold(
        &self,
        py: Python<'_>,
        opened: &Arc<Opened>,
        tickets: &[Ticket],
        frozen: &mut Frozen,
    ) -> bool {
        let is_open = |now: &Arc<Opened>| Arc::ptr_eq(now, opened);
        let mut slice = Slice::begin();
        for some in tickets.chunks(LISTED) {
            let state = self.state.borrow(py);
            if !state.opened.as_ref().is_some_and(is_open) {
                return false;
            }
            let entries = some.iter().filter_map(|&ticket| state.core.store().redeem(ticket));
            entries.filter_map(|entry| entry.meta.origin).for_each(|rank| frozen.remove(rank));
            drop(state);
            slice.rest_if_over(py);
        }
        self.state.borrow(py).opened.as_ref().is_some_and(is_open)
    }

    /// Records everything that is here, and copies the entries of theirs that win and are not.
    fn join_theirs<'py>(
        &self,
        py: Python<'py>,
        target: &Target,
        mut joining: Joining,
        tickets: &[Ticket],
        cold: Option<&(&Arc<Opened>, Frozen)>,
        file: FileClock,
    ) -> PyResult<(Output, EagerMerge<'py>)> {
        let mut eager = EagerMerge::new(py, &joining, target.options.codec, file.file_now())?;
        let is_needed = joining.is_needed();
        if is_needed {
            let mut slice = Slice::begin();
            for gulp in tickets.chunks(GULP) {
                for entry in self.take(py, gulp) {
                    match (StoredKey { key: &entry.key, hash: 0 }).encode(py)? {
                        Some(bytes) => joining.note(&bytes, entry.written_at),
                        None => eager.note(&entry.key, entry.written_at)?,
                    }
                    slice.end_if_over(py)?;
                }
            }
        }
        let (ours, maxsize) = (eager.ours(), self.state.borrow(py).core.maxsize());
        let mut output = in_background(py, || {
            let contains = |rank| cold.is_some_and(|(_, frozen)| frozen.contains(rank));
            let base = cold.map(|(opened, _)| opened.snapshot());
            let cold = base.as_ref().map(|snapshot| Cold { snapshot, contains: &contains });
            let allows = |value: &[u8]| is_allowed(value, target.options.codec);
            joining.join(&Ours { maxsize, eager: Some(ours), cold, allows: &allows })
        })?;
        if is_needed {
            eager.write_theirs(&mut output)?;
        }
        Ok((output, eager))
    }

    /// Takes, encodes and writes the entries of `tickets` that are still there.
    fn write_hot(
        &self,
        py: Python<'_>,
        target: &Target,
        tickets: &[Ticket],
        file: FileClock,
        output: &mut Output,
        eager: &EagerMerge<'_>,
    ) -> PyResult<LeftOut> {
        let mut left_out = LeftOut::default();
        let mut encoded = Encoded::default();
        let now = clock::now();
        let mut slice = Slice::begin();
        for gulp in tickets.chunks(GULP) {
            for Taken { key, value, deadline, written_at } in self.take(py, gulp) {
                if slice.is_over() || encoded.bytes.len() >= BUFFER {
                    left_out.count += in_background(py, || encoded.write(output))?;
                    slice.end(py)?;
                }
                if deadline.has_passed(now) {
                    if output.merges() {
                        self.leave_out(py, output, &key, written_at)?;
                    }
                    continue;
                }
                let times = Times { deadline: file.deadline_to_file(deadline), written_at: Some(written_at) };
                match encoded.push(&key, &value, times, target.options.codec)? {
                    Err(why) => {
                        if !output.merges() || self.leave_out(py, output, &key, written_at)? {
                            left_out.note(&key, &why);
                        }
                    }
                    Ok(()) => encoded
                        .drop_last_if_eager(|bytes| Ok(!eager.admits(output, &key, bytes, written_at)?))?,
                }
            }
        }
        left_out.count += in_background(py, || encoded.write(output))?;
        Ok(left_out)
    }

    /// Those of some entries that are still there.
    pub(crate) fn take<'py>(&self, py: Python<'py>, tickets: &[Ticket]) -> Vec<Taken<'py>> {
        let mut taken = Vec::with_capacity(tickets.len());
        let state = self.state.borrow(py);
        taken.extend(tickets.iter().filter_map(|&ticket| {
            let entry = state.core.store().redeem(ticket)?;
            let (key, value) = (entry.key.bind(py).clone(), entry.value.bind(py).clone());
            let (deadline, written_at) = (entry.meta.deadline, entry.meta.stamp.as_nanos());
            Some(Taken { key, value, deadline, written_at })
        }));
        taken
    }
}

/// An entry as it was when a save came by.
pub(crate) struct Taken<'py> {
    pub(crate) key: Bound<'py, PyAny>,
    pub(crate) value: Bound<'py, PyAny>,
    pub(crate) deadline: Deadline,
    /// Zero if that is not kept.
    written_at: u64,
}

/// Writes a file with these entries: (key, value, seconds left or `None`) each. `locked` is the file, if its saves are
/// locked.
pub(crate) fn write_all(
    py: Python<'_>,
    target: &Target,
    locked: Option<&LockedFile>,
    entries: &Bound<'_, PyAny>,
) -> PyResult<()> {
    use crate::ttl::Ttl;
    let wall = clock::wall();
    let options = WriteOptions::new(wall);
    let mut writer = in_background(py, || match locked {
        Some(locked) => locked.write(options),
        None => target.file.write(options),
    })?;
    let (mut encoded, mut left_out) = (Encoded::default(), 0);
    let mut slice = Slice::begin();
    for entry in entries.try_iter()? {
        slice.end_if_over(py)?;
        let (key, value, ttl): (Bound<'_, PyAny>, Bound<'_, PyAny>, Option<Bound<'_, PyAny>>) =
            entry?.extract()?;
        let deadline = match ttl.map_or(Ok(Ttl::Never), |ttl| Ttl::new(&ttl, "the time to live"))? {
            Ttl::For(ttl) if ttl.is_zero() => continue,
            Ttl::For(ttl) => Some(wall.saturating_add(u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX))),
            Ttl::Default | Ttl::Never => None,
        };
        encoded
            .push(&key, &value, Times::from(deadline), target.options.codec)?
            .map_err(|why| errors::backup_message(py, &format!("{}: {why}", errors::repr(&key))))?;
        if encoded.bytes.len() >= BUFFER {
            left_out += in_background(py, || encoded.write(&mut writer))?;
        }
    }
    left_out += in_background(py, || encoded.write(&mut writer))?;
    if left_out > 0 {
        let message =
            format!("{}: {left_out} entries are too large for a file", target.file.path().display());
        return Err(errors::backup_message(py, &message));
    }
    in_background(py, || writer.finish()).map(drop)
}

/// Encoded records on their way to the file.
#[derive(Default)]
struct Encoded {
    bytes: Vec<u8>,
    records: Vec<Record>,
}

struct Record {
    /// Where the key ends in `bytes`; it begins where the record before ends.
    key_end: usize,
    value_end: usize,
    /// By the file's clock.
    times: Times,
    /// Whether its key has no canonical encoding.
    is_eager: bool,
}

impl Encoded {
    /// Appends a record. An inner `Err` says why the entry is left out, an outer one why the save cannot go on.
    fn push(
        &mut self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        times: Times,
        options: Options,
    ) -> PyResult<Result<(), String>> {
        let start = self.bytes.len();
        let mut encode = || -> Result<Record, Refused> {
            let is_eager = encode_key(key, &mut self.bytes, options)?;
            let key_end = self.bytes.len();
            codec::encode_value(value, &mut self.bytes, options)?;
            Ok(Record { key_end, value_end: self.bytes.len(), times, is_eager })
        };
        match encode() {
            Ok(record) => {
                self.records.push(record);
                Ok(Ok(()))
            }
            Err(refused) => {
                self.bytes.truncate(start);
                match refused {
                    Refused::Because(why) => Ok(Err(why)),
                    Refused::Raised(error) if errors::is_fatal(key.py(), &error) => Err(error),
                    Refused::Raised(error) => Ok(Err(error.to_string())),
                }
            }
        }
    }

    /// Takes the last record back if its key has no canonical encoding and `is_unwanted` says so of its bytes.
    fn drop_last_if_eager(&mut self, is_unwanted: impl FnOnce(&[u8]) -> PyResult<bool>) -> PyResult<()> {
        let start = self.records.len().checked_sub(2).map_or(0, |before| self.records[before].value_end);
        if let Some(last) = self.records.last()
            && last.is_eager
            && is_unwanted(&self.bytes[start..last.key_end])?
        {
            self.bytes.truncate(start);
            self.records.pop();
        }
        Ok(())
    }

    /// Writes all records; returns how many were left out because they are too large.
    fn write(&mut self, sink: &mut impl Sink) -> Result<u64, DiskError> {
        let (mut start, mut left_out) = (0, 0);
        for record in &self.records {
            let (key, value) =
                (&self.bytes[start..record.key_end], &self.bytes[record.key_end..record.value_end]);
            start = record.value_end;
            let pushed = sink.write(record.is_eager, key, value, record.times)?;
            left_out += u64::from(matches!(pushed, Pushed::TooLarge(_)));
        }
        self.bytes.clear();
        self.records.clear();
        Ok(left_out)
    }
}

/// Where encoded records go.
trait Sink {
    fn write(&mut self, is_eager: bool, key: &[u8], value: &[u8], times: Times) -> Result<Pushed, DiskError>;
}

impl Sink for Output {
    fn write(&mut self, is_eager: bool, key: &[u8], value: &[u8], times: Times) -> Result<Pushed, DiskError> {
        if is_eager { self.push_eager(key, value, times) } else { self.push(key, value, times) }
    }
}

impl Sink for Writer {
    fn write(&mut self, is_eager: bool, key: &[u8], value: &[u8], times: Times) -> Result<Pushed, DiskError> {
        let pushed = if is_eager {
            self.push_eager(key, value, times)
        } else {
            self.push(key, value, times).map(drop)
        };
        match pushed {
            Ok(()) => Ok(Pushed::Written),
            Err(error) if *error.kind() == DiskErrorKind::Limit => Ok(Pushed::TooLarge(error)),
            Err(error) => Err(error),
        }
    }
}

/// Why an entry was not encoded.
enum Refused {
    Because(String),
    Raised(PyErr),
}

impl From<PyErr> for Refused {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

/// Appends a key. Whether it is for the eager section; `Err` says why no other process could use it.
fn encode_key(key: &Bound<'_, PyAny>, out: &mut Vec<u8>, options: Options) -> Result<bool, Refused> {
    if let Some(bytes) = (StoredKey { key, hash: 0 }).encode(key.py())? {
        out.extend_from_slice(&bytes);
        return Ok(false);
    }
    if key.is_exact_instance_of::<CallKey>() {
        // The classes and objects that its arguments name are what it refers to.
        let gc = key.py().import("gc")?;
        let named: Vec<_> = gc.call_method1("get_referents", (key,))?.extract()?;
        return Err(Refused::Because(codec::why_not_saved(&named)));
    }
    let start = out.len();
    codec::encode_value(key, out, options)?;
    // What is compared by identity, for one, nobody could ask for.
    let read = codec::decode_value(key.py(), &out[start..], options)?;
    if read.eq(key)? {
        return Ok(true);
    }
    Err(Refused::Because(
        "its key, written and read again, does not equal itself, so nobody could ask for it".to_owned(),
    ))
}

/// Entries that were not saved.
#[derive(Default)]
struct LeftOut {
    count: u64,
    first: Option<String>,
}

impl LeftOut {
    /// Others may have deleted so many entries.
    fn add_unsure(&mut self, count: u64) {
        self.count += count;
        if count > 0 && self.first.is_none() {
            let why =
                "one that another process may have deleted: it has deleted more keys than the file keeps";
            self.first = Some(why.to_owned());
        }
    }

    fn note(&mut self, key: &Bound<'_, PyAny>, why: &str) {
        self.count += 1;
        if self.first.is_none() {
            self.first = Some(format!("{}: {why}", errors::repr(key)));
        }
    }
}

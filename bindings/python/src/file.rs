//! Saving the cache to a file, and opening one.
//!
//! A save lets the interpreter go on: it holds the lock for slices of about half a millisecond, in which it takes
//! and encodes entries, and releases it while it writes. It is consistent for each single entry: what is written
//! is a value that the entry had while the save ran. Rules:
//! 1. one save or load of a cache at a time: the callers in Python see to that;
//! 2. the cold set is copied first, then the hot entries are listed; what was cold in the copy and is hot in the
//!    list is taken out of the copy. If the cache is cleared before the list is complete, the copy is dropped;
//! 3. cold entries are written first, as the bytes they are in the old file, then the hot ones in the order of
//!    their use;
//! 4. the file's clock never runs back from one save or load to the next (see `FileClock`);
//! 5. a file that could not be read when it was opened is set aside by the save.
//!
//! A cache that is not pristine opens a snapshot by asking it for the rank of every key in memory: these leave
//! the cold set, since what is in memory is newer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_cache_core::store::Ticket;
use async_cache_core::time::{Deadline, FileClock};
use async_cache_disk::{DiskError, DiskErrorKind, RealDisk, Snapshot, Step, Vfs, WriteOptions, Writer};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::cache::Cache;
use crate::codec::{self, Options};
use crate::errors;
use crate::key::{Probe, StoredKey};
use crate::opened::Opened;
use crate::{clock, raw::Ref};

/// How long the interpreter's lock is held at a time.
const SLICE: Duration = Duration::from_micros(500);
/// Entries that are taken under one borrow.
const GULP: usize = 64;
/// Bytes that are encoded before they are written, at most (but for one large value).
const BUFFER: usize = 1 << 20;

/// Which file, and what may be in it.
pub(crate) struct Target {
    path: PathBuf,
    version: String,
    options: Options,
    vfs: Arc<dyn Vfs>,
}

impl Target {
    pub(crate) fn new(path: PathBuf, version: String, pickle: bool) -> Self {
        Self { path, version, options: Options { pickle }, vfs: Arc::new(RealDisk) }
    }

    /// The version tag of what stands at the path, if that can be read.
    pub(crate) fn tag(&self, py: Python<'_>) -> Option<String> {
        let opened = py.detach(|| Snapshot::open_any_version(&self.vfs, &self.path));
        opened.ok().flatten().map(|snapshot| snapshot.version().to_owned())
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

/// Encoded records on their way to the file.
#[derive(Default)]
struct Encoded {
    bytes: Vec<u8>,
    /// For each record the end of its key and of its value in `bytes`, and its deadline in the file.
    ends: Vec<(usize, usize, Option<u64>)>,
}

impl Encoded {
    fn write(&mut self, writer: &mut Writer) -> Result<u64, DiskError> {
        let (mut start, mut left_out) = (0, 0);
        for &(key_end, value_end, deadline) in &self.ends {
            let (key, value) = (&self.bytes[start..key_end], &self.bytes[key_end..value_end]);
            start = value_end;
            match writer.push(key, value, deadline) {
                Ok(_) => {}
                Err(error) if *error.kind() == DiskErrorKind::Limit => left_out += 1,
                Err(error) => return Err(error),
            }
        }
        self.bytes.clear();
        self.ends.clear();
        Ok(left_out)
    }
}

impl Cache {
    /// Saves everything that has not expired.
    pub(crate) fn save_file<'py>(
        &self,
        py: Python<'py>,
        target: &Target,
        set_aside: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (clock_then, opened, unread) = {
            let state = self.state.borrow(py);
            (state.file_clock, state.opened.clone(), state.unread)
        };
        let (now, wall) = (clock::now(), clock::wall());
        let file = clock_then.map_or_else(|| FileClock::start(now, wall, 0), |then| then.adjusted(now, wall));
        let producer = concat!("async-cache ", env!("CARGO_PKG_VERSION"), " (Python)");
        let options = WriteOptions::new(target.version.clone(), file.file_now()).producer(producer);
        let options = if unread || set_aside { options.keep_target() } else { options };
        let (vfs, path) = (&target.vfs, target.path());
        let written = py.detach(|| Writer::create(vfs, path, options));
        let mut writer = written.map_err(|error| errors::backup(py, &error))?;

        let frozen = opened.as_ref().map(|opened| opened.cold.freeze());
        let tickets = self.list(py);
        if let (Some(opened), Some(mut frozen)) = (&opened, frozen) {
            let still = {
                let state = self.state.borrow(py);
                let still = state.opened.as_ref().is_some_and(|now| Arc::ptr_eq(now, opened));
                if still {
                    let entries = tickets.iter().filter_map(|&ticket| state.core.store().redeem(ticket));
                    entries.filter_map(|entry| entry.origin).for_each(|rank| frozen.remove(rank));
                }
                still
            };
            if still {
                let lost = py.detach(|| -> Result<Vec<u32>, DiskError> {
                    let mut lost = Vec::new();
                    let mut records = opened.snapshot.records();
                    while let Some(step) = records.next_wanted(|rank| frozen.contains(rank)) {
                        match step {
                            Step::Lost { rank } => lost.push(rank),
                            Step::Record(record)
                                if record.deadline.is_some_and(|deadline| deadline <= file.file_now()) => {}
                            Step::Record(record) => drop(writer.copy(&record)?),
                        }
                    }
                    Ok(lost)
                });
                for rank in lost.map_err(|error| errors::backup(py, &error))? {
                    opened.lose(py, rank, "its record is damaged or cannot be read");
                }
            }
        }
        let mut left_out = self.write_hot(py, target, &tickets, file, &mut writer)?;
        let saved = py.detach(|| writer.finish()).map_err(|error| errors::backup(py, &error))?;
        {
            let mut state = self.state.borrow(py);
            state.unread = false;
            state.file_clock = Some(file);
            state.saves += 1;
        }
        let report = PyDict::new(py);
        report.set_item("entries", saved.entries)?;
        report.set_item("bytes", saved.bytes)?;
        report.set_item("left_out", left_out.count)?;
        report.set_item("why_left_out", left_out.first.take())?;
        report.set_item("set_aside", saved.set_aside)?;
        Ok(report)
    }

    fn list(&self, py: Python<'_>) -> Vec<Ticket> {
        self.state.borrow(py).core.coldest_first()
    }

    /// Takes, encodes and writes the entries of `tickets` that are still there.
    fn write_hot(
        &self,
        py: Python<'_>,
        target: &Target,
        tickets: &[Ticket],
        file: FileClock,
        writer: &mut Writer,
    ) -> PyResult<LeftOut> {
        let mut left_out = LeftOut::default();
        let mut encoded = Encoded::default();
        let now = clock::now();
        let mut began = started();
        for gulp in tickets.chunks(GULP) {
            let entries: Vec<(Bound<'_, PyAny>, Bound<'_, PyAny>, Deadline)> = {
                let state = self.state.borrow(py);
                let live = gulp.iter().filter_map(|&ticket| state.core.store().redeem(ticket));
                let live = live.filter(|entry| !entry.deadline.has_passed(now));
                live.map(|entry| (entry.key.bind(py).clone(), entry.value.bind(py).clone(), entry.deadline))
                    .collect()
            };
            for (key, value, deadline) in entries {
                let start = encoded.bytes.len();
                match encode(&key, &value, target.options, &mut encoded.bytes) {
                    Ok(key_end) => {
                        let deadline = file.deadline_to_file(deadline);
                        encoded.ends.push((key_end, encoded.bytes.len(), deadline));
                    }
                    Err(why) => {
                        encoded.bytes.truncate(start);
                        left_out.note(&key, &why);
                    }
                }
            }
            if began.elapsed() >= SLICE || encoded.bytes.len() >= BUFFER {
                left_out.count += self.flush(py, &mut encoded, writer)?;
                // A handler of a signal may be waiting for the main thread to come by.
                py.check_signals()?;
                began = started();
            }
        }
        left_out.count += self.flush(py, &mut encoded, writer)?;
        Ok(left_out)
    }

    #[allow(clippy::unused_self)]
    fn flush(&self, py: Python<'_>, encoded: &mut Encoded, writer: &mut Writer) -> PyResult<u64> {
        py.detach(|| encoded.write(writer)).map_err(|error| errors::backup(py, &error))
    }

    /// Opens a snapshot; what is in memory stays. The number of its entries that came in, or `None` if there is
    /// no file.
    pub(crate) fn open_file(&self, py: Python<'_>, target: &Target) -> PyResult<Option<usize>> {
        let opened = py.detach(|| Snapshot::open(&target.vfs, target.path(), &target.version));
        self.state.borrow(py).unread = opened.as_ref().is_err_and(|error| *error.kind() == DiskErrorKind::Io);
        let Some(snapshot) = opened.map_err(|error| errors::backup(py, &error))? else { return Ok(None) };
        let (now, wall) = (clock::now(), clock::wall());
        for _ in 0..10 {
            let (clock_then, maxsize, tickets) = {
                let state = self.state.borrow(py);
                (state.file_clock, state.core.maxsize(), state.core.coldest_first())
            };
            let not_before = clock_then.map_or(0, |then| then.adjusted(now, wall).file_now());
            let file = FileClock::start(now, wall, snapshot.saved_at().max(not_before));
            let room = maxsize.map(|max| max.saturating_sub(tickets.len()));
            let opened = Arc::new(Opened::new(snapshot.clone(), file, room, target.options));
            let mut ranks = Vec::with_capacity(tickets.len());
            for ticket in tickets {
                let key = {
                    let state = self.state.borrow(py);
                    state.core.store().redeem(ticket).map(|entry| entry.key.bind(py).clone())
                };
                let Some(key) = key else { break };
                let bytes = StoredKey { key: &key, hash: 0 }.encode(py)?;
                ranks.push((ticket, bytes.and_then(|bytes| opened.rank(py, &bytes))));
            }
            let before = {
                let mut state = self.state.borrow(py);
                if state.core.adopt(Arc::clone(&opened.cold), &ranks).is_err() {
                    continue;
                }
                state.file_clock = Some(file);
                state.opened.replace(Arc::clone(&opened))
            };
            drop(before);
            return Ok(Some(opened.cold.live()));
        }
        Err(pyo3::exceptions::PyRuntimeError::new_err("the cache changed all the time while it was loaded"))
    }
}

#[allow(clippy::disallowed_methods)] // how long a slice takes, which nothing depends on
fn started() -> Instant {
    Instant::now()
}

/// Appends key and value; returns where the key ends. `Err` says why the entry is left out.
fn encode(
    key: &Bound<'_, PyAny>,
    value: &Bound<'_, PyAny>,
    options: Options,
    out: &mut Vec<u8>,
) -> Result<usize, String> {
    let Some(bytes) = (StoredKey { key, hash: 0 }).encode(key.py()).map_err(|error| error.to_string())?
    else {
        return Err("its key has no form that another process would find it under".to_owned());
    };
    out.extend_from_slice(&bytes);
    let key_end = out.len();
    codec::encode_value(value, out, options).map_err(|error| error.to_string())?;
    Ok(key_end)
}

/// Entries that were not saved.
#[derive(Default)]
struct LeftOut {
    count: u64,
    first: Option<String>,
}

impl LeftOut {
    fn note(&mut self, key: &Bound<'_, PyAny>, why: &str) {
        self.count += 1;
        if self.first.is_none() {
            self.first = Some(format!("{}: {why}", errors::repr(key)));
        }
    }
}

/// Reads every entry of a file: a list of (key, value, seconds left or `None`). `None` if there is no file.
pub(crate) fn read_all<'py>(py: Python<'py>, target: &Target) -> PyResult<Option<Bound<'py, PyList>>> {
    let opened = py.detach(|| Snapshot::open(&target.vfs, target.path(), &target.version));
    let Some(snapshot) = opened.map_err(|error| errors::backup(py, &error))? else { return Ok(None) };
    let file = FileClock::start(clock::now(), clock::wall(), snapshot.saved_at());
    let entries = PyList::empty(py);
    let mut records = snapshot.records();
    while let Some(step) = records.next_step() {
        let Step::Record(record) = step else { continue };
        let left = record.deadline.map(|deadline| deadline.saturating_sub(file.file_now()));
        // What does not decode is a miss for a cache, too.
        if left == Some(0) {
            continue;
        }
        if let (Ok(key), Ok(value)) =
            (codec::decode_key(py, record.key), codec::decode_value(py, record.value, target.options))
        {
            let left = left.map(|nanos| Duration::from_nanos(nanos).as_secs_f64());
            entries.append((key, value, left))?;
        }
    }
    Ok(Some(entries))
}

/// Writes entries to a file: (key, value, seconds left or `None`) each.
pub(crate) fn write_all(py: Python<'_>, target: &Target, entries: &Bound<'_, PyAny>) -> PyResult<()> {
    let wall = clock::wall();
    let producer = concat!("async-cache ", env!("CARGO_PKG_VERSION"), " (Python)");
    let options = WriteOptions::new(target.version.clone(), wall).producer(producer);
    let mut writer =
        Writer::create(&target.vfs, target.path(), options).map_err(|error| errors::backup(py, &error))?;
    for entry in entries.try_iter()? {
        let (key, value, ttl): (Bound<'_, PyAny>, Bound<'_, PyAny>, Option<Bound<'_, PyAny>>) =
            entry?.extract()?;
        let ttl =
            ttl.map_or(Ok(crate::ttl::Ttl::Never), |ttl| crate::ttl::Ttl::new(&ttl, "the time to live"))?;
        let deadline = match ttl {
            crate::ttl::Ttl::For(ttl) if ttl.is_zero() => continue,
            crate::ttl::Ttl::For(ttl) => {
                Some(wall.saturating_add(u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX)))
            }
            _ => None,
        };
        let mut bytes = Vec::new();
        let key_end = encode(&key, &value, target.options, &mut bytes)
            .map_err(|why| errors::backup_message(py, &format!("{}: {why}", errors::repr(&key))))?;
        writer
            .push(&bytes[..key_end], &bytes[key_end..], deadline)
            .map_err(|error| errors::backup(py, &error))?;
    }
    py.detach(|| writer.finish()).map_err(|error| errors::backup(py, &error))?;
    Ok(())
}

/// Removes a file.
pub(crate) fn remove(py: Python<'_>, target: &Target) -> PyResult<()> {
    py.detach(|| async_cache_disk::clear(&target.vfs, target.path()))
        .map_err(|error| errors::backup(py, &error))?;
    Ok(())
}

/// Takes in an entry from a backend of the user's own, as the coldest.
pub(crate) fn restore(
    cache: &Cache,
    py: Python<'_>,
    probe: &impl Probe,
    value: Bound<'_, PyAny>,
    deadline: Deadline,
) -> PyResult<bool> {
    use async_cache_core::cache::Restored;
    use async_cache_core::store::NewEntry;
    let key = probe.to_key(py)?;
    let (mut state, slot, _) = cache.address(py, probe)?;
    let new = NewEntry { key: Ref::new(key), value: Ref::new(value), deadline, origin: None };
    let restored = state.core.restore(slot, probe.hash(), new, clock::now());
    drop(state);
    Ok(matches!(restored, Restored::Stored))
}

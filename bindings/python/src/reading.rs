//! Reads of cold entries that wait for the disk: a thread reads, and the callers await the read.
//!
//! On an event loop, the look-up of a cold entry in a journal reads only what is in the system's
//! page cache. If the disk has to be waited for, a read begins. Its states:
//!
//! | state | what moves it on |
//! |---|---|
//! | queued | in the table of its cache; a thread of `cache._reads` takes it |
//! | running | the thread reads, with the interpreter's lock released |
//! | ended | left the table, and the callers were woken |
//!
//! Rules:
//! 1. a read returns no value: it brings the record into the page cache, and each caller repeats
//!    the look-up from the beginning. So whatever happens to the key during the read counts, an
//!    older value is never served, and a load begins only after the read, at most once;
//! 2. a key has one read at a time. Callers that come during the read join it;
//! 3. a call awaits [`MOST_READS`] reads at most, because the record may
//!    move or leave the page cache before the look-up is repeated. After that, and wherever there
//!    is no running event loop or no thread, the call waits for the disk in place;
//! 4. the cancellation of a caller ends the caller's wait, and not the read;
//! 5. in a forked child, the reads of the parent end at the fork: their threads do not exist there.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::{PyTraverseError, PyVisit};

use crate::cache::Cache;
use crate::errors;
use crate::key::Query;
use crate::raw::Ref;
use crate::raw::calls::Invoke;
use crate::raw::visit::{self, visits};
use crate::room::{Answer, Room, running_loop};

/// Rule 3.
pub(crate) const MOST_READS: u8 = 2;

/// One read, for a thread.
#[pyclass(frozen, module = "cache._native")]
pub(crate) struct ColdRead {
    cache: Py<Cache>,
    /// The canonical bytes of the key.
    key: Vec<u8>,
    /// Where the callers wait.
    room: Py<Room>,
}

visits!(struct ColdRead { cache, room });

#[pymethods]
impl ColdRead {
    /// Reads, and ends the read.
    fn run(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(journal) = self.cache.bind(py).get().journal() {
            let read = || catch_unwind(AssertUnwindSafe(|| journal.read_ahead(&self.key)));
            // After a panic, the repeated look-ups report it to their callers.
            drop(py.detach(read));
        }
        self.end(py)
    }

    /// Ends the read: the callers repeat their look-ups. `Err`: an interrupt; the read has ended
    /// nevertheless.
    fn end(&self, py: Python<'_>) -> PyResult<()> {
        let room = self.room.bind(py);
        let ended = {
            let reads = &mut self.cache.bind(py).get().state.borrow(py).reads;
            let is_ours = reads.get(&self.key).is_some_and(|listed| listed.is(room));
            if is_ours { reads.remove(&self.key) } else { None }
        };
        drop(ended);
        room.get().tell(py, Answer::Abandoned, running_loop(py).ok().as_ref())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit::traverse(self, visit)
    }
}

/// A call's wait for a read.
pub(crate) struct Reading {
    room: Ref<Room>,
    seat: usize,
    /// The iterator of the awaited future.
    iterator: Ref,
}

visits!(struct Reading { room, iterator });

impl Reading {
    pub(crate) fn iterator<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.iterator.bind(py)
    }
}

impl Drop for Reading {
    /// Rule 4.
    fn drop(&mut self) {
        let py = self.room.py();
        self.room.bind(py).get().leave_seat(py, self.seat);
    }
}

/// Joins the read of a key, or begins it. `None`: there is nothing to await. `may_await` is `false`
/// from then on if there is no event loop or no thread (rule 3).
pub(crate) fn begin(
    cache: &Bound<'_, Cache>,
    query: &impl Query,
    may_await: &mut bool,
) -> PyResult<Option<Reading>> {
    let py = cache.py();
    let (Ok(event_loop), Some(key)) = (running_loop(py), query.encode(py)?) else {
        *may_await = false;
        return Ok(None);
    };
    let running = cache.get().state.borrow(py).reads.get(&key).map(|room| room.bind(py).clone());
    let room = if running.is_some() { running } else { start(cache, key)? };
    let Some(room) = room else {
        *may_await = false;
        return Ok(None);
    };
    let seat = room.get().take_seat(py, &event_loop)?;
    Ok(seat.map(|(seat, iterator)| Reading { room: Ref::new(room), seat, iterator: Ref::new(iterator) }))
}

/// Starts the read of a key. `None`: no thread takes it.
fn start<'py>(cache: &Bound<'py, Cache>, key: Vec<u8>) -> PyResult<Option<Bound<'py, Room>>> {
    let py = cache.py();
    let room = Room::of_read(py)?;
    let read = ColdRead { cache: cache.clone().unbind(), key: key.clone(), room: room.clone().unbind() };
    let read = Bound::new(py, read)?;
    let before = cache.get().state.borrow(py).reads.insert(key, Ref::new(room.clone()));
    drop(before);
    match submit(py).and_then(|submit| submit.invoke1(&read)) {
        Ok(_) => Ok(Some(room)),
        Err(error) => {
            // Calls on other threads may have joined.
            read.get().end(py)?;
            if errors::is_interrupt(py, &error) { Err(error) } else { Ok(None) }
        }
    }
}

/// Imports the module of the threads, because a read must not wait for an import.
pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
    submit(py).map(drop)
}

fn submit(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static SUBMIT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    SUBMIT.import(py, "cache._reads", "submit")
}

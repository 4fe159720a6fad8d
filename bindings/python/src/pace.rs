//! How long work in the background holds the interpreter's lock.
//!
//! A thread that waits for the interpreter's lock is woken when the lock is released, and takes some
//! tens of microseconds to come. A thread that releases the lock and takes it again at once has it
//! back before. The one that waits sees a release, and so begins anew to count the time after which
//! it would insist (`sys.getswitchinterval`): an event loop beside such a thread stands still for as
//! long as the work takes. Rules:
//!
//! 1. work is done in slices of [`SLICE`]; at the end of one, the lock is left to others if another
//!    thread has run since the slice began: it may be waiting. Otherwise nobody can be, and the work
//!    goes on: without other threads, releasing costs nothing;
//! 2. to leave the lock is to release it and to sleep for a moment, never to release it only;
//! 3. where the time that other threads have run is not known exactly (not Linux, or virtual machines
//!    that count in ticks), the lock is left every [`LONGEST`];
//! 4. beside a thread that takes the lock for long, the next slice is as long as the lock was away, at
//!    most [`LONGEST`], so that the work gets its half. `LONGEST` is the interpreter's own interval:
//!    beside a thread that runs Python code an event loop waits as long.

use std::time::{Duration, Instant};

use async_cache_disk::{DiskError, DiskErrorKind};
use pyo3::prelude::*;

use crate::clock;
use crate::errors;

/// How long the interpreter's lock is held at a time.
const SLICE: Duration = Duration::from_micros(500);
/// How long it is held at most, if others may be waiting.
const LONGEST: Duration = Duration::from_millis(5);
/// How long others have the lock for themselves. The kernel makes some 60 µs of it.
const NAP: Duration = Duration::from_micros(5);
/// Another thread that woke up has run for longer.
const STIR: Duration = Duration::from_micros(1);

/// How long the lock of a path is waited for before signals are looked at.
const SIGNALS: Duration = Duration::from_millis(100);

/// A time for which the interpreter's lock is held.
pub(crate) struct Slice {
    began: Instant,
    lasts: Duration,
    /// When the lock was taken.
    held_since: Instant,
    /// For how long other threads of the process had run then, if that is known.
    others: Option<Duration>,
}

impl Slice {
    #[allow(clippy::disallowed_methods)] // how long a slice takes, which nothing depends on
    pub(crate) fn begin() -> Self {
        let now = Instant::now();
        Self { began: now, lasts: SLICE, held_since: now, others: clock::run_by_others() }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.began.elapsed() >= self.lasts
    }

    /// If it is over, lets others run, looks whether a signal has come, and begins another one.
    ///
    /// # Errors
    /// What a handler of a signal raises.
    pub(crate) fn end_if_over(&mut self, py: Python<'_>) -> PyResult<()> {
        if self.is_over() { self.end(py) } else { Ok(()) }
    }

    /// The same, whether it is over or not.
    pub(crate) fn end(&mut self, py: Python<'_>) -> PyResult<()> {
        self.rest(py);
        // A handler of a signal may be waiting for the main thread to come by.
        py.check_signals()
    }

    /// [`Slice::end_if_over`] where no signal may interrupt.
    pub(crate) fn rest_if_over(&mut self, py: Python<'_>) {
        if self.is_over() {
            self.rest(py);
        }
    }

    #[allow(clippy::disallowed_methods)] // see `begin`
    fn rest(&mut self, py: Python<'_>) {
        let others = clock::run_by_others();
        // Rules 1 and 3.
        let has_stirred = match (self.others, others) {
            (Some(before), Some(now)) => now.saturating_sub(before) >= STIR,
            _ => false,
        };
        let now = Instant::now();
        if !has_stirred && now.duration_since(self.held_since) < LONGEST {
            (self.began, self.others) = (now, others);
            return;
        }
        // Rule 2.
        let woke = py.detach(|| {
            std::thread::sleep(NAP);
            Instant::now()
        });
        let now = Instant::now();
        // Rule 4.
        self.lasts = now.duration_since(woke).clamp(SLICE, LONGEST);
        (self.began, self.held_since, self.others) = (now, now, clock::run_by_others());
    }
}

/// Drops what was removed from a cache in slices: of a million values that takes a second.
pub(crate) fn drop_in_slices<T>(py: Python<'_>, many: impl IntoIterator<Item = T>) {
    /// Dropped between two looks at the clock.
    const GULP: usize = 64;
    let mut slice = Slice::begin();
    for (number, one) in many.into_iter().enumerate() {
        drop(one);
        if number % GULP == GULP - 1 {
            slice.rest_if_over(py);
        }
    }
}

/// Works on the file with the interpreter's lock released.
pub(crate) fn in_background<R: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<R, DiskError> + Send,
) -> PyResult<R> {
    py.detach(work).map_err(|error| errors::backup(py, &error))
}

/// Does what waits for the lock of a path, with the interpreter's lock released; looks at signals now and then.
pub(crate) fn waiting<R: Send>(
    py: Python<'_>,
    limit: Duration,
    work: impl Fn(Duration) -> Result<R, DiskError> + Sync,
) -> PyResult<R> {
    let mut left = limit;
    loop {
        let wait = SIGNALS.min(left);
        match py.detach(|| work(wait)) {
            Err(error) if *error.kind() == DiskErrorKind::Locked && left > wait => {
                left -= wait;
                py.check_signals()?;
            }
            done => return done.map_err(|error| errors::backup(py, &error)),
        }
    }
}

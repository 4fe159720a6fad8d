//! How long work in the background holds the interpreter's lock.
//!
//! A thread that waits for the interpreter's lock is woken when the lock is released, and takes
//! some tens of microseconds to run. If a thread releases the lock and takes it again at once, it
//! has the lock back before the waiting thread runs. The waiting thread has seen a release, and so
//! restarts the time after which it would request the lock (`sys.getswitchinterval`): an event loop
//! beside the working thread is blocked for the whole duration of the work. Rules:
//!
//! 1. work is done in slices of [`SLICE`]. At the end of a slice the lock is left to others if
//!    another thread has run since the slice began, because it may be waiting. Otherwise no thread
//!    can be waiting, and the work continues: without other threads, releasing costs nothing;
//! 2. leaving the lock means releasing it and sleeping for a moment, never only releasing it;
//! 3. if the run time of other threads is not known exactly (not Linux, or virtual machines that
//!    count in ticks), the lock is left every [`LONGEST`];
//! 4. beside a thread that takes the lock for long, the next slice is as long as the lock was away,
//!    at most [`LONGEST`], so that the work gets half of the time. `LONGEST` is the interpreter's
//!    own interval: beside a thread that runs Python code an event loop waits equally long.

use std::time::{Duration, Instant};

use async_cache_disk::{DiskError, DiskErrorKind};
use async_cache_tier::clock;
use pyo3::prelude::*;

use crate::errors;

/// How long the interpreter's lock is held at a time.
const SLICE: Duration = Duration::from_micros(500);
/// The longest time for which the lock is held if others may be waiting.
const LONGEST: Duration = Duration::from_millis(5);
/// How long the lock is left to others. The kernel turns this into about 60 µs.
const NAP: Duration = Duration::from_micros(5);
/// A thread that woke up has run for longer than this.
const STIR: Duration = Duration::from_micros(1);

/// How long to wait for the lock of a path between two checks for signals.
const SIGNALS: Duration = Duration::from_millis(100);

/// A period of holding the interpreter's lock.
pub(crate) struct LockSlice {
    began: Instant,
    lasts: Duration,
    /// When the lock was taken.
    held_since: Instant,
    /// How long other threads of the process had run at that time, if known.
    others: Option<Duration>,
}

impl LockSlice {
    #[allow(clippy::disallowed_methods)] // measures a slice, on which no result depends
    pub(crate) fn begin() -> Self {
        let now = Instant::now();
        Self { began: now, lasts: SLICE, held_since: now, others: clock::other_threads() }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.began.elapsed() >= self.lasts
    }

    /// At the end of a slice: lets others run, checks for signals, and begins another slice. Before
    /// the end: does nothing.
    ///
    /// # Errors
    /// Exceptions raised by handlers of signals.
    pub(crate) fn end_if_over(&mut self, py: Python<'_>) -> PyResult<()> {
        if self.is_over() { self.end(py) } else { Ok(()) }
    }

    /// The same, whether or not the slice has ended.
    pub(crate) fn end(&mut self, py: Python<'_>) -> PyResult<()> {
        self.rest(py);
        // A handler of a signal may be waiting for the main thread.
        py.check_signals()
    }

    /// [`LockSlice::end_if_over`] for code that no signal may interrupt.
    pub(crate) fn rest_if_over(&mut self, py: Python<'_>) {
        if self.is_over() {
            self.rest(py);
        }
    }

    #[allow(clippy::disallowed_methods)] // see `begin`
    fn rest(&mut self, py: Python<'_>) {
        let others = clock::other_threads();
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
        (self.began, self.held_since, self.others) = (now, now, clock::other_threads());
    }
}

/// Drops values removed from a cache in slices: dropping a million values takes a second.
pub(crate) fn drop_in_slices<T>(py: Python<'_>, many: impl IntoIterator<Item = T>) {
    /// The number of values dropped between two readings of the clock.
    const GULP: usize = 64;
    let mut slice = LockSlice::begin();
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

/// Does work that waits for the lock of a path, with the interpreter's lock released; checks for
/// signals now and then.
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

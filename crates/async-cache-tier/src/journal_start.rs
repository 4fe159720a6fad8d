//! The start of the work in the background of a journal.
//!
//! Rules:
//! 1. If the store has nothing to do when it is opened, the work starts with the first write. So an
//!    opening starts no thread, and a process that only reads has none.
//! 2. A start that fails at a write fails that write in no way. It is counted and logged, and tried
//!    again at the next write.
//! 3. A forked child starts nothing: the journal is its parent's.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// Starts a thread that calls [`tend`](crate::journal::tend). It is called at most once
/// successfully, perhaps with a shard locked: it must not use the cache itself.
pub type StartUpkeep = Box<dyn FnMut() -> io::Result<()> + Send>;

/// A start that is still to come.
#[derive(Default)]
pub(crate) struct UpkeepStart {
    is_awaited: AtomicBool,
    start: Mutex<Option<StartUpkeep>>,
}

impl fmt::Debug for UpkeepStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpkeepStart").field("is_awaited", &self.is_awaited).finish_non_exhaustive()
    }
}

impl UpkeepStart {
    pub(crate) fn set(&self, start: StartUpkeep) {
        *self.start.lock() = Some(start);
        self.is_awaited.store(true, Ordering::Release);
    }

    /// Whether the next write starts the work.
    pub(crate) fn is_awaited(&self) -> bool {
        self.is_awaited.load(Ordering::Relaxed)
    }

    /// Starts the work, unless it was started.
    pub(crate) fn start(&self) -> io::Result<()> {
        let mut start = self.start.lock();
        if let Some(begin) = &mut *start {
            begin()?;
            *start = None;
            self.is_awaited.store(false, Ordering::Relaxed);
        }
        Ok(())
    }
}

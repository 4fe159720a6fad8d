//! Loads that ask a cache for another key, and so wait for another load.
//!
//! Owns the current load of the running code (a task-local, set around every poll of a load), and
//! the process-wide graph of loads that wait for loads. The graph is process-wide because a circle
//! of waits may lead through several caches. Only a load that asks a cache touches the graph. If a
//! loader spawns a task and the task asks, the call is not recognised as part of the load.

use std::future::Future;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use async_cache_core::waits::{WaitGraph, WouldNeverEnd};
use parking_lot::Mutex;

tokio::task_local! {
    static CURRENT: u64;
}

static WAITS: LazyLock<Mutex<WaitGraph<u64>>> = LazyLock::new(Mutex::default);

/// A new name for a flight or for a batch, unique in this process.
pub(crate) fn new_name() -> u64 {
    static NAMES: AtomicU64 = AtomicU64::new(0);
    NAMES.fetch_add(1, Ordering::Relaxed)
}

/// Runs the load named `flight`.
pub(crate) fn within<F: Future>(flight: u64, load: F) -> impl Future<Output = F::Output> {
    // The model checker runs all its threads on a single thread, so a thread-local would name one
    // load in the midst of another.
    #[cfg(shuttle)]
    {
        let _ = flight;
        load
    }
    #[cfg(not(shuttle))]
    CURRENT.scope(flight, load)
}

/// A wait of a load for another load; over when dropped.
#[derive(Debug)]
pub(crate) struct Wait(Option<(u64, u64)>);

/// Records that the running code waits for the flight `target`, if the running code is a load.
pub(crate) fn wait_for(target: u64) -> Result<Wait, WouldNeverEnd> {
    let Ok(waiter) = CURRENT.try_with(|&flight| flight) else { return Ok(Wait(None)) };
    waits_for(waiter, target)
}

/// Records that the flight `waiter` waits for `target`, independent of the running code.
pub(crate) fn waits_for(waiter: u64, target: u64) -> Result<Wait, WouldNeverEnd> {
    WAITS.lock().wait(waiter, target)?;
    Ok(Wait(Some((waiter, target))))
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some((waiter, target)) = self.0 {
            WAITS.lock().done(waiter, target);
        }
    }
}

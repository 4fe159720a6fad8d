//! Loads that ask a cache for another key, and so wait for another load.
//!
//! Owns which load the running code belongs to (a task-local, set around every poll of a load), and the one
//! process-wide graph of loads that wait for loads: process-wide, because a circle of waits does not stop at
//! the border of a cache. It is touched only by a load that asks a cache. A loader that spawns a task and
//! asks there is not recognised.

use std::future::Future;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use async_cache_core::waits::{WaitGraph, WouldNeverEnd};
use parking_lot::Mutex;

tokio::task_local! {
    static CURRENT: u64;
}

static WAITS: LazyLock<Mutex<WaitGraph<u64>>> = LazyLock::new(Mutex::default);

/// A name for a flight, or for a batch, that was never given before in this process.
pub(crate) fn new_name() -> u64 {
    static NAMES: AtomicU64 = AtomicU64::new(0);
    NAMES.fetch_add(1, Ordering::Relaxed)
}

/// Runs the load named `flight`.
pub(crate) fn within<F: Future>(flight: u64, load: F) -> impl Future<Output = F::Output> {
    // The model checker runs all its threads on one, so a thread-local would name one load in the midst of
    // another.
    #[cfg(shuttle)]
    {
        let _ = flight;
        load
    }
    #[cfg(not(shuttle))]
    CURRENT.scope(flight, load)
}

/// One wait of a load for another; over when dropped.
#[derive(Debug)]
pub(crate) struct Wait(Option<(u64, u64)>);

/// Notes that the running code waits for the flight `target`, if the running code is a load.
pub(crate) fn wait_for(target: u64) -> Result<Wait, WouldNeverEnd> {
    let Ok(waiter) = CURRENT.try_with(|&flight| flight) else { return Ok(Wait(None)) };
    waits_for(waiter, target)
}

/// Notes that the flight `waiter` waits for `target`, whoever runs here.
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

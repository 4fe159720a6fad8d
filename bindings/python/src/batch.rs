//! Batches: keys gathered for one call of a batch loader.
//!
//! The core's planner decides which keys leave together; this module has the timers and the loads.
//! A batch belongs to a loader and to the event loop of its first callers. Until the batch leaves,
//! its flights wait in the state of the cache. The timer that lets the batch leave belongs to the
//! event loop. If the loop drops the timer because the loop is closed, the flights are abandoned,
//! and callers on other loops ask again.

use async_cache_core::batch::{Added, BatchId};
use async_cache_core::flight::FlightId;
use async_cache_tier::clock;
use pyo3::prelude::*;
use pyo3::types::PyFloat;
use pyo3::{PyTraverseError, PyVisit};

use crate::cache::Cache;
use crate::gathering::{Gathered, Group};
use crate::item::LoadFlight;
use crate::load::spawn;
use crate::raw::Ref;
use crate::raw::calls::Invoke;
use crate::raw::visit;
use crate::room::running_loop;
use crate::work::Work;

/// Adds a newly started flight to a batch of its loader.
pub(crate) fn gather<'py>(
    cache: &Bound<'py, Cache>,
    item: LoadFlight,
    loader: Ref,
    event_loop: &Bound<'py, PyAny>,
) -> PyResult<()> {
    let py = cache.py();
    let group = match Group::new(loader.bind(py), event_loop) {
        Ok(group) => group,
        Err(error) => {
            abandon(cache, vec![item])?;
            return Err(error);
        }
    };
    let event_loop_held = Ref::new(event_loop.clone());
    let (added, window) = {
        let mut state = cache.get().state.borrow(py);
        let gathered = Gathered { item, loader, event_loop: event_loop_held };
        (state.batches.add(group, gathered, clock::now()), state.batches.window())
    };
    match added {
        Added::Leaves(batch) => leave(cache, &batch.items),
        Added::Waits { .. } => Ok(()),
        Added::Begins { id, .. } => {
            let timer = Bound::new(py, Timer { cache: cache.clone().unbind(), batch: id.batch() })?;
            let name = pyo3::intern!(py, "call_later");
            let window = PyFloat::new(py, window.seconds());
            let begun = event_loop.invoke_method2(name, window.as_any(), timer.as_any()).map(drop);
            if begun.is_err() {
                // For example an interrupt. The error's traceback may keep the timer, which then
                // never fires, and the next keys must not wait for the timer.
                abandon(cache, take(cache, id.batch()))?;
            }
            begun
        }
    }
}

/// Called when a batch leaves: calls the loader with the keys.
fn leave(cache: &Bound<'_, Cache>, flights: &[FlightId]) -> PyResult<()> {
    let py = cache.py();
    let gathered: Vec<Gathered> = {
        let mut state = cache.get().state.borrow(py);
        let gathered = state.batches.take(flights);
        state.tiered.shard.count_batch(gathered.len());
        gathered
    };
    let mut items = Vec::with_capacity(gathered.len());
    let mut loads = None;
    for Gathered { item, loader, event_loop } in gathered {
        items.push(item);
        loads = Some((loader, event_loop));
    }
    let Some((loader, event_loop)) = loads else { return Ok(()) };
    spawn(cache, items, Work::Batch(loader), event_loop.bind(py))
}

/// Takes the flights waiting in a batch, so that the batch does not leave any more.
fn take(cache: &Bound<'_, Cache>, batch: BatchId) -> Vec<LoadFlight> {
    let mut state = cache.get().state.borrow(cache.py());
    let Some(flights) = state.batches.due(batch) else { return Vec::new() };
    let gathered = state.batches.take(&flights);
    drop(state);
    gathered.into_iter().map(|gathered| gathered.item).collect()
}

/// Ends all flights, even if interrupted.
fn abandon(cache: &Bound<'_, Cache>, items: Vec<LoadFlight>) -> PyResult<()> {
    let py = cache.py();
    let running = running_loop(py).ok();
    let end = |item: LoadFlight| cache.get().abandon(py, item.flight, item.room.bind(py), running.as_ref());
    items.into_iter().map(end).fold(Ok(()), PyResult::and)
}

/// Called by the event loop when the window of a batch is over.
#[pyclass(frozen, module = "cache._native")]
pub(crate) struct Timer {
    cache: Py<Cache>,
    batch: BatchId,
}

#[pymethods]
impl Timer {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let cache = self.cache.bind(py);
        let due = cache.get().state.borrow(py).batches.due(self.batch);
        due.map_or(Ok(()), |flights| leave(cache, &flights))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit::traverse(&self.cache, visit)
    }
}

impl Drop for Timer {
    /// The loop has dropped its timer before it was due, because the loop is closed. Or the
    /// interpreter shuts down, and no caller waits any more.
    fn drop(&mut self) {
        Python::try_attach(|py| {
            let cache = self.cache.bind(py);
            if let Err(error) = abandon(cache, take(cache, self.batch)) {
                error.write_unraisable(py, None);
            }
        });
    }
}

//! Batches: keys that are gathered for one call of a batch loader.
//!
//! The core's planner decides which keys leave together; here are the timers and the loads. A batch belongs to a
//! loader and to the event loop whose callers asked first. Until it leaves, its flights wait in the state of the
//! cache; the timer that will let it leave is the loop's, and if the loop drops it, because it is closed, the
//! flights are abandoned, and callers on other loops ask anew.

use async_cache_core::batch::{Added, BatchId};
use async_cache_core::flight::FlightId;
use pyo3::prelude::*;
use pyo3::types::PyFloat;
use pyo3::{PyTraverseError, PyVisit};

use crate::cache::Cache;
use crate::clock;
use crate::gathering::{Gathered, Group};
use crate::item::Item;
use crate::load::spawn;
use crate::raw::Ref;
use crate::raw::calls::Invoke;
use crate::raw::visit;
use crate::room::running_loop;
use crate::work::Work;

/// Puts a flight that was just started into a batch of its loader.
pub(crate) fn gather<'py>(
    cache: &Bound<'py, Cache>,
    item: Item,
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
                // Interrupted, say. The error's traceback may keep the timer, which then never fires, and the next keys
                // must not wait for it.
                abandon(cache, take(cache, id.batch()))?;
            }
            begun
        }
    }
}

/// A batch leaves: its loader is called with its keys.
fn leave(cache: &Bound<'_, Cache>, flights: &[FlightId]) -> PyResult<()> {
    let py = cache.py();
    let gathered: Vec<Gathered> = {
        let mut state = cache.get().state.borrow(py);
        let gathered = state.batches.take(flights);
        state.core.count_batch(gathered.len());
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

/// Takes what waits for a batch, so that it does not leave any more.
fn take(cache: &Bound<'_, Cache>, batch: BatchId) -> Vec<Item> {
    let mut state = cache.get().state.borrow(cache.py());
    let Some(flights) = state.batches.due(batch) else { return Vec::new() };
    let gathered = state.batches.take(&flights);
    drop(state);
    gathered.into_iter().map(|gathered| gathered.item).collect()
}

/// Ends the flights of all, also if it is interrupted.
fn abandon(cache: &Bound<'_, Cache>, items: Vec<Item>) -> PyResult<()> {
    let py = cache.py();
    let running = running_loop(py).ok();
    let end = |item: Item| cache.get().abandon(py, item.flight, item.room.bind(py), running.as_ref());
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
    /// The loop has dropped its timer before it was due: it is closed. Or the interpreter shuts down, and nobody
    /// waits any more.
    fn drop(&mut self) {
        Python::try_attach(|py| {
            let cache = self.cache.bind(py);
            if let Err(error) = abandon(cache, take(cache, self.batch)) {
                error.write_unraisable(py, None);
            }
        });
    }
}

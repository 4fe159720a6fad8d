//! Batches: keys that are gathered for one call of a batch loader.
//!
//! The core's planner decides which keys leave together; here are the timers and the loads. A batch belongs to a
//! loader and to the event loop whose callers asked first. Until it leaves, its flights wait in the state of the
//! cache; the timer that will let it leave is the loop's, and if the loop drops it, because it is closed, the
//! flights are abandoned, and callers on other loops ask anew.

use async_cache_core::batch::{Added, BatchId, Seat};
use async_cache_core::flight::FlightId;
use pyo3::prelude::*;
use pyo3::types::PyFloat;

use crate::cache::Cache;
use crate::clock;
use crate::library;
use crate::load::{Item, Work, spawn};
use crate::raw::Ref;
use crate::raw::calls::Invoke;
use crate::room::running_loop;

/// Loader and event loop, by their addresses; a waiting batch keeps both alive. A bound method is a new object
/// at every look, so it counts as its function and its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Group {
    loader: (usize, usize),
    event_loop: usize,
}

impl Group {
    fn new(loader: &Bound<'_, PyAny>, event_loop: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = loader.py();
        let loader = if loader.get_type().is(library::method(py)?) {
            let function = loader.getattr(pyo3::intern!(py, "__func__"))?;
            let object = loader.getattr(pyo3::intern!(py, "__self__"))?;
            (function.as_ptr() as usize, object.as_ptr() as usize)
        } else {
            (loader.as_ptr() as usize, 0)
        };
        Ok(Self { loader, event_loop: event_loop.as_ptr() as usize })
    }
}

/// A flight that waits for its batch to leave.
pub(crate) struct Gathered {
    pub(crate) item: Item,
    /// Where it waits among the others; set right after it was added.
    pub(crate) seat: Option<Seat>,
    pub(crate) loader: Ref,
    pub(crate) event_loop: Ref,
}

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
    let flight = item.flight;
    let event_loop_held = Ref::new(event_loop.clone());
    let (added, window) = {
        let mut state = cache.get().state.borrow(py);
        let added = state.planner.add(group, flight, clock::now());
        let seat = match &added {
            Added::Begins { seat, .. } | Added::Waits { seat } => Some(*seat),
            Added::Leaves(_) => None,
        };
        let gathered = Gathered { item, seat, loader, event_loop: event_loop_held };
        state.gathered.insert(flight, gathered);
        (added, state.batch_window)
    };
    match added {
        Added::Leaves(batch) => leave(cache, batch.items),
        Added::Waits { .. } => Ok(()),
        Added::Begins { seat, .. } => {
            let timer = Bound::new(py, Timer { cache: cache.clone().unbind(), batch: seat.batch() })?;
            let name = pyo3::intern!(py, "call_later");
            let window = PyFloat::new(py, window.seconds());
            let begun = event_loop.invoke_method2(name, window.as_any(), timer.as_any()).map(drop);
            if begun.is_err() {
                // Interrupted, say. The error's traceback may keep the timer, which then never fires, and the next keys
                // must not wait for it.
                abandon(cache, take(cache, seat.batch()))?;
            }
            begun
        }
    }
}

/// A batch leaves: its loader is called with its keys.
fn leave(cache: &Bound<'_, Cache>, flights: Vec<FlightId>) -> PyResult<()> {
    let py = cache.py();
    let gathered: Vec<Gathered> = {
        let mut state = cache.get().state.borrow(py);
        let gathered: Vec<_> = flights.iter().filter_map(|flight| state.gathered.remove(flight)).collect();
        state.core.count_batch(gathered.len());
        gathered
    };
    let mut items = Vec::with_capacity(gathered.len());
    let mut loads = None;
    for Gathered { item, loader, event_loop, .. } in gathered {
        items.push(item);
        loads = Some((loader, event_loop));
    }
    let Some((loader, event_loop)) = loads else { return Ok(()) };
    spawn(cache, items, Work::Batch(loader), event_loop.bind(py))
}

/// Takes what waits for a batch, so that it does not leave any more.
fn take(cache: &Bound<'_, Cache>, batch: BatchId) -> Vec<Item> {
    let mut state = cache.get().state.borrow(cache.py());
    let Some(batch) = state.planner.take(batch) else { return Vec::new() };
    let gathered = batch.items.iter().filter_map(|flight| state.gathered.remove(flight)).collect::<Vec<_>>();
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

/// The last caller of a key left. `true` if its batch had not left: then the key is dropped.
pub(crate) fn drop_key(cache: &Cache, py: Python<'_>, flight: FlightId) -> bool {
    let dropped = {
        let mut state = cache.state.borrow(py);
        let gathered = state.gathered.remove(&flight);
        if let Some(seat) = gathered.as_ref().and_then(|gathered| gathered.seat) {
            state.planner.drop_item(seat);
        }
        gathered
    };
    dropped.is_some()
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
        let due = cache.get().state.borrow(py).planner.take(self.batch);
        due.map_or(Ok(()), |batch| leave(cache, batch.items))
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.cache)
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

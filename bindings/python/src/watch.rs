//! Watches: if callers on an event loop wait for a load on another event loop, their loop checks
//! from time to time whether the other loop still runs. If the load's loop has stopped for good,
//! nothing else ends the wait.

use std::sync::atomic::{AtomicBool, Ordering};

use async_cache_core::flight::FlightId;
use pyo3::prelude::*;
use pyo3::types::PyFloat;
use pyo3::{PyTraverseError, PyVisit};

use crate::cache::Cache;
use crate::raw::calls::Invoke;
use crate::raw::visit::{self, visits};
use crate::room::Room;

/// The interval in seconds at which a loop checks whether an awaited load on another loop can
/// continue. If the load cannot at two checks in a row, its loop has stopped, and is not just
/// between two calls of `run_until_complete`.
const LOOK_SECONDS: f64 = 0.25;

/// Makes the `running` loop detect the end of the load's loop; for a caller with a seat.
pub(crate) fn watch_from(
    room: &Bound<'_, Room>,
    cache: &Bound<'_, Cache>,
    flight: FlightId,
    running: &Bound<'_, PyAny>,
) -> PyResult<()> {
    if !room.get().begins_watch(room.py(), running) {
        return Ok(());
    }
    let (cache, room, event_loop) = (cache.clone().unbind(), room.clone().unbind(), running.clone().unbind());
    let watch =
        Bound::new(running.py(), LoopWatch { cache, room, flight, event_loop, had_stopped: false.into() })?;
    LoopWatch::look_later(&watch)
}

/// Kept by an event loop as long as callers on it wait for a load on another loop.
#[pyclass(frozen, module = "cache._native", name = "Watch")]
struct LoopWatch {
    cache: Py<Cache>,
    room: Py<Room>,
    flight: FlightId,
    /// The loop that keeps the watch.
    event_loop: Py<PyAny>,
    /// Whether the load could not continue at the last check.
    had_stopped: AtomicBool,
}

visits!(struct LoopWatch { cache, room, event_loop });

#[pymethods]
impl LoopWatch {
    fn __call__(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let (room, event_loop) = (this.room.bind(py), this.event_loop.bind(py));
        if !room.get().is_waited_for_on(py, event_loop) {
            return Ok(());
        }
        let is_alive = room.get().is_alive(py, event_loop)?;
        if this.had_stopped.swap(!is_alive, Ordering::Relaxed) && !is_alive {
            return this.cache.bind(py).get().abandon(py, this.flight, room, Some(event_loop));
        }
        Self::look_later(slf)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit::traverse(self, visit)
    }
}

impl LoopWatch {
    fn look_later(slf: &Bound<'_, Self>) -> PyResult<()> {
        let event_loop = slf.get().event_loop.bind(slf.py());
        let seconds = PyFloat::new(slf.py(), LOOK_SECONDS);
        let later = pyo3::intern!(slf.py(), "call_later");
        event_loop.invoke_method2(later, seconds.as_any(), slf.as_any()).map(drop)
    }
}

//! Watches: an event loop whose callers wait for a load on another event loop looks from time to time whether that loop
//! still runs. If the loop of the load has stopped for good, nothing else ends the wait.

use std::sync::atomic::{AtomicBool, Ordering};

use async_cache_core::flight::FlightId;
use pyo3::prelude::*;
use pyo3::types::PyFloat;
use pyo3::{PyTraverseError, PyVisit};

use crate::cache::Cache;
use crate::raw::calls::Invoke;
use crate::raw::visit::{self, visits};
use crate::room::Room;

/// How often a loop looks whether the load that it waits for on another loop can go on, in seconds. If it cannot
/// at two looks in a row, its loop has stopped, and is not just between two calls of `run_until_complete`.
const LOOK_SECONDS: f64 = 0.25;

/// Has the `running` loop notice if the loop of the load stops; for a caller that has a seat.
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
        Bound::new(running.py(), Watch { cache, room, flight, event_loop, had_stopped: false.into() })?;
    Watch::look_later(&watch)
}

/// What an event loop keeps as long as callers on it wait for a load on another one.
#[pyclass(frozen, module = "cache._native")]
struct Watch {
    cache: Py<Cache>,
    room: Py<Room>,
    flight: FlightId,
    /// The loop that keeps it.
    event_loop: Py<PyAny>,
    /// Whether the load could not go on at the last look.
    had_stopped: AtomicBool,
}

visits!(struct Watch { cache, room, event_loop });

#[pymethods]
impl Watch {
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

impl Watch {
    fn look_later(slf: &Bound<'_, Self>) -> PyResult<()> {
        let event_loop = slf.get().event_loop.bind(slf.py());
        let seconds = PyFloat::new(slf.py(), LOOK_SECONDS);
        let later = pyo3::intern!(slf.py(), "call_later");
        event_loop.invoke_method2(later, seconds.as_any(), slf.as_any()).map(drop)
    }
}

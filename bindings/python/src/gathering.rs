//! Keys of one cache gathered for batches, until their batch leaves.
//!
//! The core's planner decides which keys leave together; this module keeps the flights waiting for
//! their batch. The timers and the loads are in `batch`.

use std::collections::HashMap;
use std::num::NonZeroUsize;

use async_cache_core::batch::{Added, BatchId, ItemId, Planner};
use async_cache_core::flight::FlightId;
use async_cache_core::time::Time;
use pyo3::prelude::*;

use crate::item::LoadFlight;
use crate::library;
use crate::raw::Ref;
use crate::raw::visit::{Visit, VisitStopped, Visitor, visits};
use crate::window::BatchWindow;

/// Loader and event loop, by their addresses; a waiting batch keeps both alive. A bound method is a
/// new object at every access, so its function and its object are used instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Group {
    loader: (usize, usize),
    event_loop: usize,
}

impl Group {
    pub(crate) fn new(loader: &Bound<'_, PyAny>, event_loop: &Bound<'_, PyAny>) -> PyResult<Self> {
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

/// A flight waiting for its batch to leave.
pub(crate) struct Gathered {
    pub(crate) item: LoadFlight,
    pub(crate) loader: Ref,
    pub(crate) event_loop: Ref,
}

visits!(struct Gathered { item, loader, event_loop });

/// The batches of one cache that have not left.
pub(crate) struct Batches {
    planner: Planner<Group, FlightId>,
    /// The flights by id, each with its place in the planner. A flight that fills its batch has no
    /// place.
    gathered: HashMap<FlightId, (Option<ItemId>, Gathered)>,
    window: BatchWindow,
    max_size: NonZeroUsize,
}

impl Visit for Batches {
    fn visit(&self, visitor: Visitor<'_>) -> Result<(), VisitStopped> {
        self.gathered.values().try_for_each(|(_, gathered)| gathered.visit(visitor))
    }
}

impl Batches {
    pub(crate) fn new(window: BatchWindow, max_size: NonZeroUsize) -> Self {
        let planner = Planner::new(window.duration(), max_size);
        Self { planner, gathered: HashMap::new(), window, max_size }
    }

    /// Adds a flight to the batch of its group.
    pub(crate) fn add(&mut self, group: Group, gathered: Gathered, now: Time) -> Added<Group, FlightId> {
        let flight = gathered.item.flight;
        let added = self.planner.add(group, flight, now);
        let seat = match &added {
            Added::Begins { id, .. } | Added::Waits { id } => Some(*id),
            Added::Leaves(_) => None,
        };
        self.gathered.insert(flight, (seat, gathered));
        added
    }

    /// The flights of a batch whose window is over. `None` if the batch has left.
    pub(crate) fn due(&mut self, batch: BatchId) -> Option<Vec<FlightId>> {
        Some(self.planner.take(batch)?.items)
    }

    /// Takes the flights returned by the planner.
    pub(crate) fn take(&mut self, flights: &[FlightId]) -> Vec<Gathered> {
        let take = |flight| self.gathered.remove(flight).map(|(_, gathered)| gathered);
        flights.iter().filter_map(take).collect()
    }

    /// Takes a flight out of a batch that has not left. `None`: no waiting batch has the flight.
    pub(crate) fn drop_flight(&mut self, flight: FlightId) -> Option<Gathered> {
        let (seat, gathered) = self.gathered.remove(&flight)?;
        if let Some(seat) = seat {
            self.planner.drop_item(seat);
        }
        Some(gathered)
    }

    /// Takes all flights, for the garbage collector.
    pub(crate) fn clear(&mut self) -> Vec<Gathered> {
        self.gathered.drain().map(|(_, (_, gathered))| gathered).collect()
    }

    pub(crate) fn window(&self) -> BatchWindow {
        self.window
    }

    pub(crate) fn set_window(&mut self, window: BatchWindow) {
        self.window = window;
        self.planner.set_window(window.duration());
    }

    pub(crate) fn max_size(&self) -> NonZeroUsize {
        self.max_size
    }

    pub(crate) fn set_max_size(&mut self, size: NonZeroUsize) {
        self.max_size = size;
        self.planner.set_max_size(size);
    }
}

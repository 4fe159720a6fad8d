//! How flights end: with a value that is stored, with a value that is not, or without a value.

use std::time::Duration;

use async_cache_core::cache::{Finished, Loaded};
use async_cache_core::cold::Rank;
use async_cache_core::flight::FlightId;
use async_cache_core::time::Time;
use pyo3::prelude::*;

use super::Cache;
use crate::key::Query;
use crate::raw::Ref;
use crate::room::{Answer, Room};
use crate::ttl::Ttl;

impl Cache {
    /// Ends a flight whose load does not go on. `Err`: an interrupt, and it has ended all the same.
    pub(crate) fn abandon(
        &self,
        py: Python<'_>,
        flight: FlightId,
        room: &Bound<'_, Room>,
        running: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let ended = if room.get().is_inherited(py) {
            // The parent's load has not failed: it goes on in the parent.
            self.state.borrow(py).core.come_back_empty(flight, Duration::ZERO)
        } else {
            self.fail(py, flight, Duration::ZERO)
        };
        let told = room.get().tell(py, Answer::Abandoned, running);
        drop(ended);
        told
    }

    /// Ends a flight without a value.
    pub(crate) fn fail(&self, py: Python<'_>, flight: FlightId, took: Duration) -> Option<(Ref, Ref<Room>)> {
        self.state.borrow(py).core.fail(flight, took)
    }

    /// Ends a flight with a value that is not stored.
    pub(crate) fn answer(
        &self,
        py: Python<'_>,
        flight: FlightId,
        took: Duration,
    ) -> Option<(Ref, Ref<Room>)> {
        self.state.borrow(py).core.answer(flight, took)
    }

    /// Ends a flight with a value.
    pub(crate) fn land(
        &self,
        py: Python<'_>,
        flight: FlightId,
        query: &impl Query,
        now: Time,
        loaded: impl FnOnce(Ttl, Option<Rank>) -> Loaded<Ref>,
    ) -> PyResult<Option<Finished<Ref, Ref, Ref<Room>>>> {
        loop {
            let probed = self.probe(py, query)?;
            let (mut state, slot, _) = self.address(py, query)?;
            if !state.is_as_probed(&probed) {
                continue;
            }
            let loaded = loaded(state.default_ttl, probed.rank);
            return Ok(state.core.land(flight, slot, query.hash(), loaded, now));
        }
    }
}

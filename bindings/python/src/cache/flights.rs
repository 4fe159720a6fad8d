//! The ends of flights: with a value that is stored, with a value that is not stored, or without a
//! value.

use std::time::Duration;

use async_cache_core::entry::Fetched;
use async_cache_core::flight::FlightId;
use async_cache_core::shard::FinishedLoad;
use async_cache_core::time::Time;
use pyo3::prelude::*;

use super::Cache;
use crate::key::Query;
use crate::raw::Ref;
use crate::room::{Answer, Room};
use crate::ttl::Ttl;

impl Cache {
    /// Ends a flight whose load does not continue. `Err`: an interrupt; the flight has ended
    /// nevertheless.
    pub(crate) fn abandon(
        &self,
        py: Python<'_>,
        flight: FlightId,
        room: &Bound<'_, Room>,
        running: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let ended = if room.get().is_inherited(py) {
            // The parent's load has not failed: it goes on in the parent.
            self.state.borrow(py).tiered.shard.finish_without_storing(flight, Duration::ZERO)
        } else {
            self.fail(py, flight, Duration::ZERO)
        };
        let told = room.get().tell(py, Answer::Abandoned, running);
        drop(ended);
        told
    }

    /// Ends a flight without a value.
    pub(crate) fn fail(&self, py: Python<'_>, flight: FlightId, took: Duration) -> Option<(Ref, Ref<Room>)> {
        self.state.borrow(py).tiered.shard.fail(flight, took)
    }

    /// Ends a flight with a value that is not stored.
    pub(crate) fn answer(
        &self,
        py: Python<'_>,
        flight: FlightId,
        took: Duration,
    ) -> Option<(Ref, Ref<Room>)> {
        self.state.borrow(py).tiered.shard.finish_without_storing(flight, took)
    }

    /// Ends a flight with a value, which is stored for `ttl` unless the flight was fenced.
    pub(crate) fn land(
        &self,
        py: Python<'_>,
        flight: FlightId,
        query: &impl Query,
        (value, ttl): (Ref, Ttl),
        (started, ended): (Time, Time),
    ) -> PyResult<Option<FinishedLoad<Ref, Ref, Ref<Room>>>> {
        if let Some(journal) = self.journal() {
            return self.land_in_journal(py, journal, (flight, query), (value, ttl), (started, ended));
        }
        self.warn_if_forked(py);
        loop {
            let probed = self.probe(py, query)?;
            let (mut state, found) = self.locate(py, query)?;
            let Ok(at) = state.tiered.shard.admit(found, probed) else { continue };
            let fetched = Fetched::loaded(value, ttl.deadline(state.default_ttl, || ended));
            let now = super::now(ended, &self.tier);
            return Ok(state.tiered.shard.land(flight, at, fetched, ended.since(started), now));
        }
    }
}

//! Calls of a key that may not be there: whether one is served, joins a load or starts one, and how loads end.

use std::cell::RefMut;
use std::time::Duration;

use async_cache_core::cache::{Finished, Loaded};
use async_cache_core::cold::Rank;
use async_cache_core::flight::{FlightId, Left};
use async_cache_core::time::Time;
use pyo3::prelude::*;

use super::{Cache, Entered, State};
use crate::batch;
use crate::call::Joining;
use crate::clock;
use crate::key::Probe;
use crate::load::{Item, Work, spawn};
use crate::raw::Ref;
use crate::room::{Answer, Room, running_loop};
use crate::ttl::Ttl;

impl Cache {
    /// Serves a key, or joins its load, or starts one. Without `work` a miss is `None`.
    pub(crate) fn enter<'py>(
        slf: &Bound<'py, Self>,
        probe: &impl Probe,
        work: Option<Work>,
        ttl: Ttl,
        mut is_counted: bool,
        joining: Joining,
    ) -> PyResult<Entered<'py>> {
        let (py, this) = (slf.py(), slf.get());
        loop {
            let opened = {
                let (mut state, slot, flight) = this.address(py, probe)?;
                if let Some(slot) = slot
                    && let Some(entry) = state.core.hit_mut(slot, clock::has_passed)
                {
                    return Ok(Entered::Served(entry.value.bind(py).clone()));
                }
                if work.is_some()
                    && let Some(flight) = flight
                {
                    if !is_counted {
                        state.core.miss();
                        is_counted = true;
                    }
                    if joining == Joining::Over {
                        state.core.supersede(flight);
                        continue;
                    }
                    match this.join(py, state, flight)? {
                        Some((room, event_loop)) => {
                            return Ok(Entered::Waits { flight, room, event_loop, leads: false });
                        }
                        None => continue,
                    }
                }
                state.opened.clone()
            };
            let probed = match this.cold(py, probe, opened)? {
                Ok(value) => return Ok(Entered::Served(value)),
                Err(probed) => probed,
            };
            if !is_counted {
                this.state.borrow(py).core.miss();
                is_counted = true;
            }
            if work.is_none() {
                return Ok(Entered::Absent);
            }
            let event_loop = running_loop(py)?;
            let room = Room::new(py, &event_loop)?;
            let key = probe.to_key(py)?;
            let flight = {
                let (mut state, slot, flight) = this.address(py, probe)?;
                let is_live = slot.is_some_and(|slot| state.core.live(slot, clock::has_passed).is_some());
                if is_live || flight.is_some() || !state.is_as_probed(&probed) {
                    continue;
                }
                let (key, room) = (Ref::new(key.clone()), Ref::new(room.clone()));
                state.date();
                state.core.lead(probe.hash(), key, room)
            };
            let work = work.expect("looked at above");
            let item =
                Item { flight, room: Ref::new(room.clone()), key: Ref::new(key), hash: probe.hash(), ttl };
            match work {
                Work::Batch(loader) => batch::gather(slf, item, loader, &event_loop)?,
                work => spawn(slf, vec![item], work, &event_loop)?,
            }
            return Ok(Entered::Waits { flight, room, event_loop, leads: true });
        }
    }

    /// Joins a load that runs. `None` if it cannot go on, because its loop has stopped: then it has ended.
    fn join<'py>(
        &self,
        py: Python<'py>,
        mut state: RefMut<'_, State>,
        flight: FlightId,
    ) -> PyResult<Option<(Bound<'py, Room>, Bound<'py, PyAny>)>> {
        let room = state.core.join(flight).map(|room| room.bind(py).clone());
        drop(state);
        let Some(room) = room else { return Ok(None) };
        let running = running_loop(py);
        match running.and_then(|running| Ok((room.get().is_alive(py, &running)?, running))) {
            Ok((true, running)) => Ok(Some((room, running))),
            Ok((false, running)) => {
                self.abandon(py, flight, &room, Some(&running))?;
                Ok(None)
            }
            Err(error) => {
                self.leave(py, flight, &room)?;
                Err(error)
            }
        }
    }

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

    /// A caller does not wait any more; the last one stops the load.
    pub(crate) fn leave(&self, py: Python<'_>, flight: FlightId, room: &Bound<'_, Room>) -> PyResult<()> {
        let left = self.state.borrow(py).core.leave(flight);
        if left == Left::Others {
            return Ok(());
        }
        // A batch that has left goes on without callers.
        let was_gathering = batch::drop_key(self, py, flight);
        if !was_gathering && room.get().in_batch(py) {
            return Ok(());
        }
        let stopped = if was_gathering { Ok(()) } else { room.get().stop(py) };
        // It ends now, and not when the loader is through with being cancelled, which may take long: who asks
        // from now on loads anew.
        stopped.and(self.abandon(py, flight, room, running_loop(py).ok().as_ref()))
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
        probe: &impl Probe,
        now: Time,
        loaded: impl FnOnce(Ttl, Option<Rank>) -> Loaded<Ref>,
    ) -> PyResult<Option<Finished<Ref, Ref, Ref<Room>>>> {
        loop {
            let probed = self.probe(py, probe)?;
            let (mut state, slot, _) = self.address(py, probe)?;
            if !state.is_as_probed(&probed) {
                continue;
            }
            let loaded = loaded(state.default_ttl, probed.rank);
            return Ok(state.core.land(flight, slot, probe.hash(), loaded, now));
        }
    }
}

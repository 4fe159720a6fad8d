//! Calls of a key that may not be there: whether a call is served, joins a load, or starts one, and how a caller leaves.

use std::cell::RefMut;

use async_cache_core::flight::{FlightId, Left};
use pyo3::prelude::*;

use crate::batch;
use crate::cache::{Cache, State};
use crate::clock;
use crate::item::Item;
use crate::key::Query;
use crate::load::spawn;
use crate::raw::Ref;
use crate::room::{Room, running_loop};
use crate::ttl::Ttl;
use crate::work::Work;

/// Whether a call may wait for a load that another call has started.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joining {
    Allowed,
    /// It waited for one whose value was its leader's alone, and so may the next one's be: it loads for itself, beside
    /// the others that do. Waiting for each other, they would load one after the other.
    Over,
}

/// What a call of a key that may not be there comes to.
pub(crate) enum Entered<'py> {
    /// It is not there, and nothing is to be loaded.
    Absent,
    Served(Bound<'py, PyAny>),
    /// A load runs; the answer comes to the room.
    Waits {
        flight: FlightId,
        room: Bound<'py, Room>,
        /// The caller's event loop.
        event_loop: Bound<'py, PyAny>,
        leads: bool,
    },
}

impl Cache {
    /// Serves a key, or joins its load, or starts one. Without `work` a miss is `None`.
    pub(crate) fn enter<'py>(
        slf: &Bound<'py, Self>,
        query: &impl Query,
        work: Option<Work>,
        ttl: Ttl,
        mut is_counted: bool,
        joining: Joining,
    ) -> PyResult<Entered<'py>> {
        let (py, this) = (slf.py(), slf.get());
        loop {
            let under = {
                let (mut state, found) = this.locate(py, query)?;
                if let Some(slot) = found.slot()
                    && let Some(value) = state.core.hit_mut(slot, clock::has_passed)
                {
                    return Ok(Entered::Served(value.bind(py).clone()));
                }
                if work.is_some()
                    && let Some(flight) = found.flight()
                    && joining == Joining::Allowed
                {
                    if !is_counted {
                        state.core.miss();
                        is_counted = true;
                    }
                    match this.join(py, state, flight)? {
                        Some((room, event_loop)) => {
                            return Ok(Entered::Waits { flight, room, event_loop, leads: false });
                        }
                        None => continue,
                    }
                }
                state.under()
            };
            let probed = match this.cold(py, query, under)? {
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
            let key = query.to_key(py)?;
            let flight = {
                let (mut state, found) = this.locate(py, query)?;
                let is_live =
                    found.slot().is_some_and(|slot| state.core.live(slot, clock::has_passed).is_some());
                let is_to_join = found.flight().is_some() && joining == Joining::Allowed;
                let at = state.core.admit(found, probed);
                let Some(at) = at.ok().filter(|_| !is_live && !is_to_join) else { continue };
                let now = state.at(room.get().began);
                state.core.lead(at, Ref::new(key.clone()), Ref::new(room.clone()), now)
            };
            let work = work.expect("looked at above");
            let item =
                Item { flight, room: Ref::new(room.clone()), key: Ref::new(key), hash: query.hash(), ttl };
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

    /// A caller does not wait any more; the last one stops the load.
    pub(crate) fn leave(&self, py: Python<'_>, flight: FlightId, room: &Bound<'_, Room>) -> PyResult<()> {
        let left = self.state.borrow(py).core.leave(flight);
        if left == Left::Others {
            return Ok(());
        }
        // A batch that has left goes on without callers.
        let gathered = self.state.borrow(py).batches.drop_flight(flight);
        let was_gathering = gathered.is_some();
        drop(gathered);
        if !was_gathering && room.get().in_batch(py) {
            return Ok(());
        }
        let stopped = if was_gathering { Ok(()) } else { room.get().stop(py) };
        // It ends now, and not when the loader is through with being cancelled, which may take long: who asks
        // from now on loads anew.
        stopped.and(self.abandon(py, flight, room, running_loop(py).ok().as_ref()))
    }
}

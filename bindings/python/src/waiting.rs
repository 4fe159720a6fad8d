//! Waiting for a load: a call's seat in the room of the load, and the effect of the load's answer
//! on the call.
//!
//! | answer | to the call that leads | to a call that follows |
//! |---|---|---|
//! | a value | the value | the value |
//! | a value for the leader alone | the value | asks again, and joins no load |
//! | no value, and no loader | `None`; asks again if the call has a loader | the same |
//! | an error | the error | the error; asks again if the error concerns the leader only |
//! | abandoned | asks again | asks again |
//! | cancelled | `LoadCancelledError` | `LoadCancelledError` on the load's event loop; asks again on another |
//!
//! Rules:
//! 1. a waiting call holds a place in the flight, a seat in the room and, inside another load, a
//!    wait in the graph of waits. All of them are released when the wait ends in any way: by
//!    [`Waiting::end`], by [`Waiting::leave`], or when the [`Waiting`] is dropped;
//! 2. the last caller to leave a flight stops the load;
//! 3. a load without a result for the call may be followed by another, endlessly: a task on another
//!    event loop may begin and cancel loads for ever. After [`MOST_IN_VAIN`] such loads, the call
//!    joins loads on its own event loop only, or none if the last error concerned the leader only,
//!    and fences the others. So the call is answered, and calls on one event loop still share a
//!    load.

use async_cache_core::flight::FlightId;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use crate::cache::Cache;
use crate::enter::{Asking, Joinable, Joined, Role};
use crate::errors;
use crate::nesting;
use crate::raw::Ref;
use crate::raw::visit::visits;
use crate::room::{Answer, Room};
use crate::watch::watch_from;

/// Rule 3.
const MOST_IN_VAIN: u32 = 2;

/// A call that waits for a load.
pub(crate) struct Waiting {
    place: HeldLoad,
    /// The iterator of the awaited future.
    iterator: Ref,
}

/// Everything that a call holds of a load (rule 1).
struct HeldLoad {
    cache: Ref<Cache>,
    room: Ref<Room>,
    flight: FlightId,
    role: Role,
    /// Whether the call counts among the callers of the flight.
    is_in_flight: bool,
    /// The call's seat in the room.
    seat: Option<usize>,
    /// The load around the call, which waits for this load.
    waiter: Option<u64>,
}

visits!(struct Waiting { place, iterator });
visits!(struct HeldLoad { cache, room });

/// The result of beginning a wait.
pub(crate) enum WaitStart {
    Waits(Waiting),
    /// The load has ended already.
    Ended(EndedLoad),
}

/// A load that has ended.
pub(crate) struct EndedLoad {
    answer: Answer,
    room: Ref<Room>,
    role: Role,
}

/// The effect of an answer on a call.
pub(crate) enum Answered<'py> {
    Value(Bound<'py, PyAny>),
    /// The load has nothing for the call.
    AsksAgain,
}

impl Waiting {
    /// Begins to wait for a load that the call has joined. `describe` shows the key.
    ///
    /// # Errors
    /// `RecursiveLoadError`, or an interrupt. The call has then left the load.
    pub(crate) fn begin<'py>(
        py: Python<'py>,
        cache: &Bound<'py, Cache>,
        joined: Joined<'py>,
        describe: impl FnOnce() -> String,
    ) -> PyResult<WaitStart> {
        let Joined { flight, room, event_loop, role } = joined;
        if let Some(answer) = room.get().answer(py) {
            return Ok(WaitStart::Ended(EndedLoad { answer, room: Ref::new(room), role }));
        }
        let mut place = HeldLoad {
            cache: Ref::new(cache.clone()),
            room: Ref::new(room),
            flight,
            role,
            is_in_flight: true,
            seat: None,
            waiter: None,
        };
        match place.take_seat(py, &event_loop, describe) {
            Ok(Some(iterator)) => Ok(WaitStart::Waits(Self { place, iterator: Ref::new(iterator) })),
            Ok(None) => {
                let ended = place.end(py);
                Ok(WaitStart::Ended(ended.expect("an answer is the reason why there is no seat")))
            }
            Err(error) => place.give_back(py).and(Err(error)),
        }
    }

    pub(crate) fn iterator<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.iterator.bind(py)
    }

    /// Ends the wait when its future is done.
    ///
    /// # Errors
    /// `LoadCancelledError` if other code finished the future: the load has no answer yet.
    pub(crate) fn end(mut self, py: Python<'_>, describe: impl FnOnce() -> String) -> PyResult<EndedLoad> {
        if let Some(ended) = self.place.end(py) {
            return Ok(ended);
        }
        self.place.give_back(py)?;
        Err(errors::load_cancelled(py, &describe(), None))
    }

    /// Stops waiting.
    pub(crate) fn leave(mut self, py: Python<'_>) -> PyResult<()> {
        let room = self.place.room.bind(py).get();
        // If the loader has raised an interrupt, the event loop stops and cancels the callers
        // before they get an answer.
        if let Some(Answer::Failed(error, _)) = room.answer(py)
            && !error.bind(py).is_instance_of::<PyException>()
        {
            room.retrieve(py);
        }
        room.retrieve_interrupt(py);
        self.place.give_back(py)
    }
}

impl HeldLoad {
    /// Takes a seat in the room, and registers the wait. Returns the iterator of the seat's future;
    /// `None` if the load has ended in the meantime, on another thread.
    fn take_seat<'py>(
        &mut self,
        py: Python<'py>,
        event_loop: &Bound<'py, PyAny>,
        describe: impl FnOnce() -> String,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let room = self.room.bind(py);
        if let Some(waiter) = nesting::current(py)? {
            if !nesting::wait(py, waiter, room.get().name) {
                return Err(errors::recursive(py, &describe()));
            }
            self.waiter = Some(waiter);
        }
        let Some((seat, iterator)) = room.get().take_seat(py, event_loop)? else { return Ok(None) };
        self.seat = Some(seat);
        watch_from(room, self.cache.bind(py), self.flight, event_loop)?;
        Ok(Some(iterator))
    }

    /// The answer, if given: then the flight and the seats have ended.
    fn end(&mut self, py: Python<'_>) -> Option<EndedLoad> {
        let room = self.room.bind(py);
        let answer = room.get().answer(py)?;
        (self.is_in_flight, self.seat) = (false, None);
        nesting::done(py, self.waiter.take(), room.get().name);
        Some(EndedLoad { answer, room: Ref::new(room.clone()), role: self.role })
    }

    /// Releases everything.
    fn give_back(&mut self, py: Python<'_>) -> PyResult<()> {
        let room = self.room.bind(py);
        nesting::done(py, self.waiter.take(), room.get().name);
        if let Some(seat) = self.seat.take() {
            room.get().leave_seat(py, seat);
        }
        // Rule 2.
        let was_in_flight = std::mem::take(&mut self.is_in_flight);
        if was_in_flight { self.cache.bind(py).get().leave(py, self.flight, room) } else { Ok(()) }
    }
}

impl Drop for HeldLoad {
    fn drop(&mut self) {
        if self.is_in_flight || self.seat.is_some() || self.waiter.is_some() {
            let room = Ref::new(self.room.bind(self.room.py()).clone());
            if let Err(error) = self.give_back(room.py()) {
                error.write_unraisable(room.py(), None);
            }
        }
    }
}

impl EndedLoad {
    /// The effect of the answer on the call. `describe` shows the key.
    pub(crate) fn answered<'py>(
        self,
        py: Python<'py>,
        asking: &mut Asking,
        describe: impl FnOnce() -> String,
    ) -> PyResult<Answered<'py>> {
        let Self { answer, room, role } = self;
        let room = room.bind(py).get();
        room.retrieve_interrupt(py);
        match answer {
            Answer::Value(value) => return Ok(Answered::Value(value.into_bound(py))),
            Answer::Alone(value) if role == Role::Leads => return Ok(Answered::Value(value.into_bound(py))),
            Answer::Alone(_) => asking.joining = Joinable::Nothing,
            Answer::Absent if asking.is_look => return Ok(Answered::Value(asking.absent(py)?)),
            // The load was for callers without a loader.
            Answer::Absent => {}
            Answer::Failed(error, _) if role == Role::Follows && concerns_its_caller_only(error.bind(py)) => {
                asks_after_a_load_in_vain(asking, Joinable::Nothing);
            }
            Answer::Failed(error, traceback) => {
                if !error.bind(py).is_instance_of::<PyException>() {
                    room.retrieve(py);
                }
                let traceback = traceback.map(|traceback| traceback.into_bound(py));
                return Err(errors::raise_again(error.into_bound(py), traceback));
            }
            Answer::Cancelled if role == Role::Leads || room.is_here(py) => {
                return Err(errors::load_cancelled(py, &describe(), None));
            }
            Answer::Abandoned if role == Role::Leads => asking.joining = Joinable::Any,
            Answer::Cancelled | Answer::Abandoned => asks_after_a_load_in_vain(asking, Joinable::Here),
        }
        Ok(Answered::AsksAgain)
    }
}

/// Rule 3: `at_last` is the permission of the call after too many loads in vain.
fn asks_after_a_load_in_vain(asking: &mut Asking, at_last: Joinable) {
    asking.in_vain += 1;
    asking.joining = if asking.in_vain < MOST_IN_VAIN { Joinable::Any } else { at_last };
}

/// Whether an exception concerns only the caller whose loader raised it, and not the waiting
/// callers.
fn concerns_its_caller_only(error: &Bound<'_, PyAny>) -> bool {
    error.hasattr(pyo3::intern!(error.py(), "_is_for_its_caller_only")).unwrap_or(false)
}

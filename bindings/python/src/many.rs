//! The awaitable of `get_many`: many keys are looked up by one call, and nothing is loaded.
//!
//! | state | on `send` |
//! |---|---|
//! | new | looks up all keys: takes those that are here, joins look-ups that run, and asks the tier beyond this host about the others, with one read. Returns if there is nothing to wait for |
//! | waiting | passes the value on to the awaited future. When the future is done: returns the values |
//! | done | |
//!
//! Rules:
//! 1. the call waits on one future. It has a seat in the room of each awaited look-up, and the last
//!    answer finishes the future;
//! 2. a cancelled, closed or dropped call leaves its seats. The look-ups that it began go on, and
//!    their values come into memory;
//! 3. a key whose look-up ended without an answer, or that a thread has to read from the disk, is
//!    returned in a list of its own: the caller makes a single call for the key.

use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_cache_core::flight::FlightId;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::awaitable;
use crate::cache::Cache;
use crate::enter::{Looked, absent};
use crate::errors;
use crate::item::LoadFlight;
use crate::key::ObjectKey;
use crate::library;
use crate::load::spawn;
use crate::raw::calls::{Invoke, send};
use crate::raw::coroutine::{self, Coroutine, Statics};
use crate::raw::visit::{Visit, VisitStopped, Visitor, visits};
use crate::raw::{Ref, Sent};
use crate::room::{Answer, Room, running_loop};
use crate::watch::watch_from;
use crate::work::Work;

/// The awaitable of one call.
pub(crate) struct ManyCall {
    state: ManyState,
}

enum ManyState {
    New { cache: Ref<Cache>, keys: Ref<PyList> },
    Waiting(Box<Paused>),
    Done,
}

/// A call that waits.
struct Paused {
    many: Many,
    /// The iterator of the awaited future.
    iterator: Ref,
}

/// The keys of a call, and what is known of each.
struct Many {
    cache: Ref<Cache>,
    keys: Vec<(Ref, State)>,
}

/// What is known of a key.
enum State {
    Value(Ref),
    Absent,
    /// Rule 3.
    Again,
    /// A look-up runs, and the call counts among its callers.
    Open(FlightId, Ref<Room>),
    /// The same, with a seat in the room.
    Waits(FlightId, Ref<Room>, usize),
}

visits!(struct ManyCall { state });
visits!(
    enum ManyState {
        New { cache, keys },
        Waiting(paused),
    }
);
visits!(struct Paused { many, iterator });
visits!(struct Many { cache, keys });

impl Visit for State {
    fn visit(&self, visitor: Visitor<'_>) -> Result<(), VisitStopped> {
        match self {
            Self::Value(value) => value.visit(visitor),
            Self::Absent | Self::Again => Ok(()),
            Self::Open(_, room) | Self::Waits(_, room, _) => room.visit(visitor),
        }
    }
}

impl ManyCall {
    /// A call for keys that differ from each other.
    pub(crate) fn make<'py>(
        cache: &Bound<'py, Cache>,
        keys: Bound<'py, PyList>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let state = ManyState::New { cache: Ref::new(cache.clone()), keys: Ref::new(keys) };
        coroutine::new(cache.py(), Self { state })
    }

    fn begin<'py>(
        &mut self,
        py: Python<'py>,
        cache: &Bound<'py, Cache>,
        keys: &Bound<'py, PyList>,
    ) -> PyResult<Sent<'py>> {
        let mut many = Many { cache: Ref::new(cache.clone()), keys: Vec::with_capacity(keys.len()) };
        let begun = many.look_up(cache, keys).and_then(|()| many.wait(cache));
        match begun {
            Ok(Some(iterator)) => {
                let iterator = Ref::new(iterator);
                self.state = ManyState::Waiting(Box::new(Paused { many, iterator }));
                self.step(py, py.None().bind(py))
            }
            Ok(None) => many.result(py).map(Sent::Return),
            Err(error) => many.leave(py).and(Err(error)),
        }
    }

    /// One step of waiting.
    fn step<'py>(&mut self, py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Sent<'py>> {
        let ManyState::Waiting(paused) = &self.state else { unreachable!("called while it waits") };
        let sent = send(paused.iterator.bind(py), value);
        self.after(py, sent)
    }

    /// The result of a step of the awaited future.
    fn after<'py>(&mut self, py: Python<'py>, sent: PyResult<Sent<'py>>) -> PyResult<Sent<'py>> {
        if let Ok(Sent::Yield(value)) = sent {
            return Ok(Sent::Yield(value));
        }
        let ManyState::Waiting(paused) = std::mem::replace(&mut self.state, ManyState::Done) else {
            unreachable!("called while it waits")
        };
        let Paused { mut many, iterator } = *paused;
        drop(iterator);
        if let Err(error) = sent {
            return many.leave(py).and(Err(error));
        }
        match many.take_answers(py) {
            Ok(()) => many.result(py).map(Sent::Return),
            Err(error) => many.leave(py).and(Err(error)),
        }
    }

    /// Ends the call.
    fn end(&mut self, py: Python<'_>) -> PyResult<()> {
        match std::mem::replace(&mut self.state, ManyState::Done) {
            ManyState::Waiting(mut paused) => paused.many.leave(py),
            ManyState::New { .. } | ManyState::Done => Ok(()),
        }
    }
}

impl Many {
    /// Looks up all keys, and begins one read for those that are not here.
    fn look_up(&mut self, cache: &Bound<'_, Cache>, keys: &Bound<'_, PyList>) -> PyResult<()> {
        let py = cache.py();
        let mut items = Vec::new();
        for key in keys.iter() {
            let looked = ObjectKey::new(cache.get().seed, &key)
                .and_then(|query| cache.get().look_among_many(py, &query, &mut items));
            let state = match looked {
                Ok(Looked::Served(value)) => State::Value(Ref::new(value)),
                Ok(Looked::Absent) => State::Absent,
                Ok(Looked::WouldWait) => State::Again,
                Ok(Looked::Runs(flight, room)) => State::Open(flight, Ref::new(room)),
                Err(error) => {
                    abandon(cache, items)?;
                    return Err(error);
                }
            };
            self.keys.push((Ref::new(key), state));
        }
        if items.is_empty() { Ok(()) } else { spawn(cache, items, Work::Look, &running_loop(py)?) }
    }

    /// Takes seats (rule 1). Returns the iterator of the future; `None`: there is nothing to wait
    /// for.
    fn wait<'py>(&mut self, cache: &Bound<'py, Cache>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = cache.py();
        if !self.keys.iter().any(|(_, state)| matches!(state, State::Open(..))) {
            return Ok(None);
        }
        let event_loop = running_loop(py)?;
        let options = PyDict::new(py);
        options.set_item(pyo3::intern!(py, "loop"), &event_loop)?;
        let future = library::future(py)?.invoke(&PyTuple::empty(py), Some(&options))?;
        let iterator = future.invoke_method0(pyo3::intern!(py, "__await__"))?;
        // From here on, no Python code runs before the last seat was taken, so that no answer
        // comes in between.
        let open = Arc::new(AtomicUsize::new(0));
        for (_, state) in &mut self.keys {
            let State::Open(flight, room) = state else { continue };
            let Some(seat) = room.bind(py).get().take_shared_seat(py, (&future, &event_loop), &open) else {
                continue; // it has an answer
            };
            open.fetch_add(1, Ordering::Relaxed);
            *state = State::Waits(*flight, room.copy(py), seat);
        }
        let waits = open.load(Ordering::Relaxed) > 0;
        for (_, state) in &self.keys {
            if let State::Waits(flight, room, _) = state {
                watch_from(room.bind(py), cache, *flight, &event_loop)?;
            }
        }
        if waits {
            return Ok(Some(iterator));
        }
        self.take_answers(py).map(|()| None)
    }

    /// Takes the answers of the look-ups, which have ended.
    fn take_answers(&mut self, py: Python<'_>) -> PyResult<()> {
        for (_, state) in &mut self.keys {
            let (State::Open(_, room) | State::Waits(_, room, _)) = state else { continue };
            let known = match room.bind(py).get().answer(py) {
                Some(Answer::Value(value)) => State::Value(value),
                Some(Answer::Absent) => State::Absent,
                Some(Answer::Failed(error, traceback)) => {
                    *state = State::Again;
                    let traceback = traceback.map(|traceback| traceback.into_bound(py));
                    return Err(errors::raise_again(error.into_bound(py), traceback));
                }
                Some(Answer::Alone(_) | Answer::Abandoned | Answer::Cancelled) => State::Again,
                // Other code finished the future.
                None => {
                    leave(py, self.cache.bind(py), state)?;
                    continue;
                }
            };
            *state = known;
        }
        Ok(())
    }

    /// The values by key, with a mark in the place of those to be asked for again; and the latter.
    fn result(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        let (values, again) = (PyDict::new(py), PyList::empty(py));
        for (key, state) in self.keys {
            let key = key.into_bound(py);
            match state {
                State::Value(value) => values.set_item(key, value.into_bound(py))?,
                State::Absent => {}
                State::Again | State::Open(..) | State::Waits(..) => {
                    values.set_item(&key, absent(py)?)?;
                    again.append(key)?;
                }
            }
        }
        Ok(PyTuple::new(py, [values.into_any(), again.into_any()])?.into_any())
    }

    /// Leaves all look-ups (rule 2).
    fn leave(&mut self, py: Python<'_>) -> PyResult<()> {
        let cache = self.cache.bind(py);
        self.keys.iter_mut().map(|(_, state)| leave(py, cache, state)).fold(Ok(()), PyResult::and)
    }
}

/// Leaves the look-up of a key, unless it has ended.
fn leave(py: Python<'_>, cache: &Bound<'_, Cache>, state: &mut State) -> PyResult<()> {
    let (flight, room) = match std::mem::replace(state, State::Again) {
        State::Open(flight, room) => (flight, room),
        State::Waits(flight, room, seat) => {
            room.bind(py).get().leave_seat(py, seat);
            (flight, room)
        }
        other => {
            *state = other;
            return Ok(());
        }
    };
    let room = room.bind(py);
    if room.get().answer(py).is_some() { Ok(()) } else { cache.get().leave(py, flight, room) }
}

/// Ends flights that have not begun to ask.
fn abandon(cache: &Bound<'_, Cache>, items: Vec<LoadFlight>) -> PyResult<()> {
    let py = cache.py();
    let running = running_loop(py).ok();
    let end = |item: LoadFlight| cache.get().abandon(py, item.flight, item.room.bind(py), running.as_ref());
    items.into_iter().map(end).fold(Ok(()), PyResult::and)
}

static STATICS: Statics = Statics::new();

impl Coroutine for ManyCall {
    const NAME: &'static CStr = c"cache._native.Many";

    fn name(&self, _: Python<'_>) -> String {
        "AsyncCache.get_many".to_owned()
    }

    fn is_done(&self) -> bool {
        matches!(self.state, ManyState::Done)
    }

    fn is_waiting(&self) -> bool {
        matches!(self.state, ManyState::Waiting(_))
    }

    fn send_fast<'py>(&mut self, _: Python<'py>) -> Option<Bound<'py, PyAny>> {
        None
    }

    fn send<'py>(&mut self, py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Sent<'py>> {
        if matches!(self.state, ManyState::Waiting(_)) {
            return self.step(py, value);
        }
        if !value.is_none() {
            return Err(PyTypeError::new_err("can't send non-None value to a just-started coroutine"));
        }
        let ManyState::New { cache, keys } = std::mem::replace(&mut self.state, ManyState::Done) else {
            unreachable!("it is new")
        };
        self.begin(py, &cache.into_bound(py), &keys.into_bound(py))
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Sent<'py>> {
        let ManyState::Waiting(paused) = &self.state else {
            self.state = ManyState::Done;
            return Err(error);
        };
        let thrown = awaitable::throw(paused.iterator.bind(py), error);
        self.after(py, thrown)
    }

    fn close(&mut self, py: Python<'_>) -> PyResult<()> {
        self.end(py)
    }

    fn abandon(&mut self, py: Python<'_>) {
        if let Err(error) = self.end(py) {
            error.write_unraisable(py, None);
        }
    }

    fn fail(&mut self, py: Python<'_>, _: &PyErr) {
        Coroutine::abandon(self, py);
    }

    fn statics() -> &'static Statics {
        &STATICS
    }
}

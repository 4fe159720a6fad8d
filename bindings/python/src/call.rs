//! Calls: what `cache.get(...)` and a decorated function return.
//!
//! Owns the awaitable. Nothing happens before it is awaited. Its states:
//!
//! | state | on `send` |
//! |---|---|
//! | asked | looks the key up: a hit is returned at once; a miss joins the load that runs, or starts one |
//! | waiting | passes on to the future it waits on; when that is done, returns what the load brought, or asks again if the load was abandoned by others |
//! | done | |
//!
//! A waiting call holds a seat in its flight and leaves it when it is cancelled, closed or dropped; the last
//! one to leave stops the load.

use std::ffi::CStr;

use pyo3::exceptions::{PyException, PyRuntimeWarning, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use async_cache_core::flight::FlightId;

use crate::args::{Args, exact_names};
use crate::awaitable;
use crate::cache::{Cache, Hit};
use crate::call_query::CallQuery;
use crate::enter::{Entered, Joining};
use crate::errors;
use crate::function::{Function, function};
use crate::key::{ObjectKey, Query};
use crate::nesting;
use crate::raw::calls::{Invoke, send};
use crate::raw::coroutine::{self, Coroutine, Statics};
use crate::raw::function::{Calls, Given};
use crate::raw::visit::visits;
use crate::raw::{Ref, Sent, equal};
use crate::room::{Answer, Room};
use crate::ttl::Ttl;
use crate::watch::watch_from;
use crate::work::Work;

/// Calls of functions that are only cached.
pub(crate) struct Cached;

impl Calls<Function> for Cached {
    #[inline]
    fn called_with_one(function: Bound<'_, PyAny>, arg: Ref) -> PyResult<Bound<'_, PyAny>> {
        coroutine::make(function.py(), || Call {
            state: State::Function(FunctionCall {
                function: Ref::new(function),
                args: Args::One([arg]),
                names: None,
                refresh: false,
            }),
        })
    }

    #[inline]
    fn called<'py>(function: Bound<'py, PyAny>, given: Given<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
        let py = function.py();
        let call = FunctionCall::new(function, given)?;
        coroutine::new(py, Call { state: State::Function(call) })
    }
}

/// `use_cache` is the decorator's own argument.
fn with_names(
    py: Python<'_>,
    function: Ref,
    args: Args,
    names: &Bound<'_, PyTuple>,
) -> PyResult<FunctionCall> {
    let names = Ref::new(exact_names(names)?);
    let own = pyo3::intern!(py, "use_cache");
    let at = names.bind(py).iter_borrowed().position(|name| name.is(own) || equal(&name, own.as_any()));
    let Some(at) = at else { return Ok(FunctionCall { function, args, names: Some(names), refresh: false }) };
    let all = args.as_slice();
    let at_all = all.len() - names.bind(py).len() + at;
    let refresh = !all[at_all].bind(py).invoke_is_true()?;
    let kept: Vec<_> = (0..all.len()).filter(|&index| index != at_all).collect();
    let args = Args::collect(kept.len(), |index| Ref::new(all[kept[index]].bind(py).clone()));
    let others = names.bind(py).iter().enumerate().filter(|&(index, _)| index != at).map(|(_, name)| name);
    let others = PyTuple::new(py, others.collect::<Vec<_>>())?;
    let names = (!others.is_empty()).then(|| Ref::new(others));
    Ok(FunctionCall { function, args, names, refresh })
}

/// What `cache.get(...)` returns.
pub(crate) struct Call {
    state: State,
}

enum State {
    Object(ObjectCall),
    Function(FunctionCall),
    Waiting(Box<Waiting>),
    /// Done, and it was a hit.
    Served,
    Done,
}

pub(crate) struct ObjectCall {
    pub(crate) cache: Ref<Cache>,
    pub(crate) key: Ref,
    pub(crate) loader: Option<Ref>,
    pub(crate) batch_loader: Option<Ref>,
    pub(crate) ttl: Ttl,
}

pub(crate) struct FunctionCall {
    pub(crate) function: Ref,
    pub(crate) args: Args,
    /// The names of the last arguments.
    pub(crate) names: Option<Ref<PyTuple>>,
    /// Whether it is to load anew, whatever is cached.
    pub(crate) refresh: bool,
}

struct Waiting {
    /// What it asks again if the load is abandoned.
    asked: State,
    cache: Ref<Cache>,
    room: Ref<Room>,
    flight: FlightId,
    /// Its seat in the room.
    number: usize,
    /// Whether it was this call whose loader runs.
    leads: bool,
    /// The load that this call is part of, if it is.
    waiter: Option<u64>,
    /// The iterator of the future that is waited on.
    iterator: Ref,
}

impl Call {
    /// A call of a decorated function.
    pub(crate) fn of(call: FunctionCall) -> Self {
        Self { state: State::Function(call) }
    }

    /// Whether it is done, and was a hit.
    pub(crate) fn was_hit(&self) -> bool {
        matches!(self.state, State::Served)
    }

    #[inline]
    pub(crate) fn get(py: Python<'_>, call: impl FnOnce() -> ObjectCall) -> PyResult<Bound<'_, PyAny>> {
        coroutine::make(py, || Self { state: State::Object(call()) })
    }

    /// Asks the cache, until there is a value or something to wait for.
    fn ask<'py>(
        &mut self,
        py: Python<'py>,
        mut is_counted: bool,
        mut joining: Joining,
    ) -> PyResult<Sent<'py>> {
        loop {
            let asked = std::mem::replace(&mut self.state, State::Done);
            let entered = asked.enter(py, is_counted, joining)?;
            is_counted = true;
            let (flight, room, event_loop, leads) = match entered {
                Entered::Served(value) => {
                    self.state = State::Served;
                    return Ok(Sent::Return(value));
                }
                Entered::Absent => {
                    self.state = State::Served;
                    return Ok(Sent::Return(py.None().into_bound(py)));
                }
                Entered::Waits { flight, room, event_loop, leads } => (flight, room, event_loop, leads),
            };
            let cache = asked.cache(py);
            let seat = Seat { cache: &cache, room: &room, flight };
            if let Some(answer) = room.get().answer(py) {
                match answered(py, answer, room.get(), leads, &asked)? {
                    Ok(value) => return Ok(Sent::Return(value)),
                    Err(again) => joining = again,
                }
                self.state = asked;
                continue;
            }
            let waiter = nesting::current(py)?;
            if let Some(waiter) = waiter
                && !nesting::wait(py, waiter, room.get().name)
            {
                seat.leave(py)?;
                return Err(errors::recursive(py, &asked.describe(py)));
            }
            let taken = match room.get().take_seat(py, &event_loop) {
                Ok(Some((number, iterator))) => {
                    let watched = watch_from(&room, &cache, flight, &event_loop);
                    watched.map(|()| Some((number, iterator)))
                }
                other => other,
            };
            let (number, iterator) = match taken {
                Ok(Some(taken)) => taken,
                Ok(None) => {
                    // The load ended meanwhile, on another thread.
                    nesting::done(py, waiter, room.get().name);
                    let answer = room.get().answer(py).expect("it is why no seat was given");
                    match answered(py, answer, room.get(), leads, &asked)? {
                        Ok(value) => return Ok(Sent::Return(value)),
                        Err(again) => joining = again,
                    }
                    self.state = asked;
                    continue;
                }
                Err(error) => {
                    nesting::done(py, waiter, room.get().name);
                    seat.leave(py)?;
                    return Err(error);
                }
            };
            self.state = State::Waiting(Box::new(Waiting {
                asked,
                cache: Ref::new(cache),
                room: Ref::new(room),
                flight,
                number,
                leads,
                waiter,
                iterator: Ref::new(iterator),
            }));
            match self.wait(py, py.None().bind(py))? {
                Ok(sent) => return Ok(sent),
                Err(again) => joining = again,
            }
        }
    }

    /// One step of waiting. The inner `Err`: it has to ask again, and the state is back to what was asked.
    fn wait<'py>(
        &mut self,
        py: Python<'py>,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<Result<Sent<'py>, Joining>> {
        let State::Waiting(waiting) = &self.state else { unreachable!("called while it waits") };
        let sent = send(waiting.iterator.bind(py), value);
        self.after(py, sent)
    }

    fn after<'py>(
        &mut self,
        py: Python<'py>,
        sent: PyResult<Sent<'py>>,
    ) -> PyResult<Result<Sent<'py>, Joining>> {
        match sent {
            Ok(Sent::Yield(value)) => Ok(Ok(Sent::Yield(value))),
            Ok(Sent::Return(_)) => {
                let State::Waiting(waiting) = std::mem::replace(&mut self.state, State::Done) else {
                    unreachable!("called while it waits")
                };
                let Waiting { asked, cache, room, flight, number, leads, waiter, .. } = *waiting;
                nesting::done(py, waiter, room.bind(py).get().name);
                let Some(answer) = room.bind(py).get().answer(py) else {
                    // Somebody else finished the future; the seat is left as if the call was cancelled.
                    room.bind(py).get().leave_seat(py, number);
                    Seat { cache: cache.bind(py), room: room.bind(py), flight }.leave(py)?;
                    return Err(errors::load_cancelled(py, &asked.describe(py), None));
                };
                let value = answered(py, answer, room.bind(py).get(), leads, &asked)?;
                if value.is_err() {
                    self.state = asked;
                }
                Ok(value.map(Sent::Return))
            }
            Err(error) => {
                self.leave(py)?;
                Err(error)
            }
        }
    }

    /// Gives up waiting.
    fn leave(&mut self, py: Python<'_>) -> PyResult<()> {
        let State::Waiting(waiting) = std::mem::replace(&mut self.state, State::Done) else { return Ok(()) };
        // An interrupt of the loader's stops the loop, which cancels its callers before they are told.
        if let Some(Answer::Failed(error, _)) = waiting.room.bind(py).get().answer(py)
            && !error.bind(py).is_instance_of::<PyException>()
        {
            waiting.room.bind(py).get().retrieve(py);
        }
        waiting.room.bind(py).get().retrieve_interrupt(py);
        nesting::done(py, waiting.waiter, waiting.room.bind(py).get().name);
        waiting.room.bind(py).get().leave_seat(py, waiting.number);
        let seat =
            Seat { cache: waiting.cache.bind(py), room: waiting.room.bind(py), flight: waiting.flight };
        seat.leave(py)
    }
}

/// What an answer is to a call. The inner `Err`: it has to ask again.
fn answered<'py>(
    py: Python<'py>,
    answer: Answer,
    room: &Room,
    leads: bool,
    asked: &State,
) -> PyResult<Result<Bound<'py, PyAny>, Joining>> {
    room.retrieve_interrupt(py);
    match answer {
        Answer::Value(value) => Ok(Ok(value.into_bound(py))),
        Answer::Alone(value) if leads => Ok(Ok(value.into_bound(py))),
        Answer::Alone(_) => Ok(Err(Joining::Over)),
        // What a guard has to say to the one who loads says nothing of the key.
        Answer::Failed(error, _) if !leads && is_for_its_caller_only(error.bind(py)) => {
            Ok(Err(Joining::Allowed))
        }
        Answer::Failed(error, traceback) => {
            if !error.bind(py).is_instance_of::<PyException>() {
                room.retrieve(py);
            }
            let traceback = traceback.map(|traceback| traceback.into_bound(py));
            Err(errors::raise_again(error.into_bound(py), traceback))
        }
        Answer::Cancelled if !leads && !room.is_here(py) => Ok(Err(Joining::Allowed)),
        Answer::Cancelled => Err(errors::load_cancelled(py, &asked.describe(py), None)),
        Answer::Abandoned => Ok(Err(Joining::Allowed)),
    }
}

/// Whether an exception concerns who called the loader, and nobody who waited: others load anew.
fn is_for_its_caller_only(error: &Bound<'_, PyAny>) -> bool {
    error.hasattr(pyo3::intern!(error.py(), "_is_for_its_caller_only")).unwrap_or(false)
}

/// A place among those who wait for a flight.
struct Seat<'a, 'py> {
    cache: &'a Bound<'py, Cache>,
    room: &'a Bound<'py, Room>,
    flight: FlightId,
}

impl Seat<'_, '_> {
    fn leave(&self, py: Python<'_>) -> PyResult<()> {
        self.cache.get().leave(py, self.flight, self.room)
    }
}

impl State {
    fn cache<'py>(&self, py: Python<'py>) -> Bound<'py, Cache> {
        match self {
            Self::Object(call) => call.cache.bind(py).clone(),
            Self::Function(call) => call.function(py).cache.bind(py).clone(),
            Self::Waiting(_) | Self::Served | Self::Done => unreachable!("asked for by those who ask"),
        }
    }

    /// Looks the key up, and joins or starts a load if it is not there.
    fn enter<'py>(&self, py: Python<'py>, is_counted: bool, joining: Joining) -> PyResult<Entered<'py>> {
        match self {
            Self::Object(call) => {
                let cache = call.cache.bind(py);
                let query = ObjectKey::new(cache.get().seed, call.key.bind(py))?;
                let work = match (&call.loader, &call.batch_loader) {
                    (Some(loader), _) => Some(Work::Loader(Ref::new(loader.bind(py).clone()))),
                    (None, Some(loader)) => Some(Work::Batch(Ref::new(loader.bind(py).clone()))),
                    (None, None) => None,
                };
                Cache::enter(cache, &query, work, call.ttl, is_counted, joining)
            }
            Self::Function(call) => {
                let function = call.function(py);
                let cache = function.cache.bind(py);
                let names = call.names.as_ref().map(|names| names.bind(py));
                let kept = function.kept(py, &call.args, names)?;
                let query = function.query(py, &kept)?;
                if call.refresh && !is_counted {
                    cache.get().delete_key(py, &query)?;
                }
                let work = Work::Function {
                    function: Ref::new(call.function.bind(py).clone()),
                    args: call.args.copy(py),
                    names: names.map(|names| Ref::new(names.clone())),
                };
                function.note(py, (&call.args, names), &query)?;
                Cache::enter(cache, &query, Some(work), Ttl::Default, is_counted, joining)
            }
            Self::Waiting(_) | Self::Served | Self::Done => unreachable!("asked for by those who ask"),
        }
    }

    /// The key, for messages.
    fn describe(&self, py: Python<'_>) -> String {
        match self {
            Self::Object(call) => errors::repr(call.key.bind(py)),
            Self::Function(call) => {
                let function = call.function(py);
                let name = function.wrapped.bind(py).getattr("__qualname__").map(|name| name.to_string());
                let names = call.names.as_ref().map(|names| names.bind(py));
                let kept = function.kept(py, &call.args, names);
                let key = kept.and_then(|kept| function.query(py, &kept)?.to_key(py));
                let key = key.map(|key| errors::repr(&key)).unwrap_or_default();
                format!("{}{key}", name.unwrap_or_default())
            }
            Self::Waiting(_) | Self::Served | Self::Done => String::new(),
        }
    }
}

impl FunctionCall {
    pub(crate) fn new<'py>(function: Bound<'py, PyAny>, given: Given<'_, 'py>) -> PyResult<Self> {
        let py = function.py();
        let (function, args) = (Ref::new(function), Args::of(given));
        match given.names() {
            None => Ok(Self { function, args, names: None, refresh: false }),
            Some(names) => with_names(py, function, args, &names),
        }
    }

    pub(crate) fn function<'a>(&'a self, py: Python<'a>) -> &'a Function {
        function(self.function.bind(py)).expect("only decorated functions make these")
    }
}

visits!(struct FunctionCall { function, names, args });

static STATICS: Statics = Statics::new();

impl Coroutine for Call {
    const NAME: &'static CStr = c"cache._native.Call";

    fn name(&self, py: Python<'_>) -> String {
        let asked = match &self.state {
            State::Waiting(waiting) => &waiting.asked,
            state => state,
        };
        match asked {
            State::Function(call) => {
                let name = call.function.bind(py).getattr("__qualname__");
                name.map_or_else(|_| "cached function".to_owned(), |name| name.to_string())
            }
            _ => "AsyncCache.get".to_owned(),
        }
    }

    #[inline]
    fn is_done(&self) -> bool {
        matches!(self.state, State::Done | State::Served)
    }

    fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting(_))
    }

    #[inline]
    fn send_fast<'py>(&mut self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let hit = match &self.state {
            State::Object(call) => {
                let cache = call.cache.bind(py).get();
                // Its hash may run Python code, as that of a user's key; an error is met again on the long way.
                cache.hit(py, &ObjectKey::of_plain(cache.seed, call.key.bind(py))?)
            }
            State::Function(call) if !call.refresh => {
                let function = call.function(py);
                if !function.is_direct || (call.names.is_some() && function.part.is_some()) {
                    return self.send_kept_fast(py);
                }
                let cache = function.cache.bind(py).get();
                // The most frequent case by far; passed on as a `CallQuery`, the key would go through memory.
                if let (Args::One([arg]), None, 0, 0, false) =
                    (&call.args, &call.names, function.skip, function.number, function.typed)
                {
                    cache.hit(py, &ObjectKey::of_plain_argument(cache.seed, arg.bind(py))?)
                } else {
                    let names = call.names.as_ref().map(|names| names.bind(py));
                    let shape = (function.number, function.typed, function.skip);
                    cache.hit(py, &CallQuery::at_once(py, cache.seed, shape, &call.args, names)?)
                }
            }
            _ => return None,
        };
        let Hit::Served(value) = hit else { return None };
        self.state = State::Done;
        Some(value)
    }

    fn send<'py>(&mut self, py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Sent<'py>> {
        if matches!(self.state, State::Waiting(_)) {
            return match self.wait(py, value)? {
                Ok(sent) => Ok(sent),
                Err(again) => self.ask(py, true, again),
            };
        }
        if !value.is_none() {
            let message = "can't send non-None value to a just-started coroutine";
            return Err(PyTypeError::new_err(message));
        }
        self.ask(py, false, Joining::Allowed)
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Sent<'py>> {
        let State::Waiting(waiting) = &self.state else {
            self.state = State::Done;
            return Err(error);
        };
        let thrown = awaitable::throw(waiting.iterator.bind(py), error);
        match self.after(py, thrown)? {
            Ok(sent) => Ok(sent),
            Err(again) => self.ask(py, true, again),
        }
    }

    fn close(&mut self, py: Python<'_>) -> PyResult<()> {
        self.leave(py)?;
        self.state = State::Done;
        Ok(())
    }

    fn abandon(&mut self, py: Python<'_>) {
        let result = match &self.state {
            State::Waiting(_) => self.leave(py),
            State::Object(_) | State::Function(_) => self.warn(py),
            State::Served | State::Done => Ok(()),
        };
        self.state = State::Done;
        if let Err(error) = result {
            error.write_unraisable(py, None);
        }
    }

    fn fail(&mut self, py: Python<'_>, _: &PyErr) {
        if let Err(error) = self.leave(py) {
            error.write_unraisable(py, None);
        }
        self.state = State::Done;
    }

    fn statics() -> &'static Statics {
        &STATICS
    }
}

visits!(struct Call { state });
visits!(
    enum State {
        Object(call),
        Function(call),
        Waiting(waiting),
    }
);
visits!(struct ObjectCall { cache, key, loader, batch_loader });
visits!(struct Waiting { asked, cache, room, iterator });

impl Call {
    /// A hit of a function whose keys are not made of all arguments.
    fn send_kept_fast<'py>(&mut self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let State::Function(call) = &self.state else { return None };
        let function = call.function(py);
        let names = call.names.as_ref().map(|names| names.bind(py));
        let kept = function.kept_at_once(py, &call.args, names)?;
        let query = function.query_at_once(py, &kept)?;
        let Hit::Served(value) = function.cache.bind(py).get().hit(py, &query) else { return None };
        drop(kept);
        self.state = State::Done;
        Some(value)
    }

    /// As the interpreter warns of a coroutine.
    fn warn(&self, py: Python<'_>) -> PyResult<()> {
        let name = self.name(py);
        let message = std::ffi::CString::new(format!("coroutine '{name}' was never awaited"))?;
        PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &message, 1)
    }
}

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

use std::ffi::{CStr, c_int};

use pyo3::exceptions::{PyException, PyRuntimeWarning, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

use async_cache_core::flight::FlightId;

use crate::agent::Tool;
use crate::cache::{Cache, Entered, Hit};
use crate::errors;
use crate::instances::{Instances, Unknown, with};
use crate::key::{CallProbe, ObjectKey, Probe, exact_names};
use crate::load::Work;
use crate::nesting;
use crate::part::{Kept, Part};
use crate::raw::calls::{Invoke, send};
use crate::raw::coroutine::{self, Coroutine, Statics, pointer_of, visit_all};
use crate::raw::function::Calls;
use crate::raw::{Ref, Sent, equal};
use crate::room::{Answer, Room};
use crate::ttl::Ttl;

/// The arguments of a call.
pub(crate) enum Args {
    None,
    One([Ref; 1]),
    Two([Ref; 2]),
    Three([Ref; 3]),
    Many(Box<[Ref]>),
}

impl Args {
    #[inline]
    pub(crate) fn collect(count: usize, mut arg: impl FnMut(usize) -> Ref) -> Self {
        match count {
            0 => Self::None,
            1 => Self::One([arg(0)]),
            2 => Self::Two([arg(0), arg(1)]),
            3 => Self::Three([arg(0), arg(1), arg(2)]),
            _ => Self::Many((0..count).map(arg).collect()),
        }
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[Ref] {
        match self {
            Self::None => &[],
            Self::One(args) => args,
            Self::Two(args) => args,
            Self::Three(args) => args,
            Self::Many(args) => args,
        }
    }
}

/// A decorated function.
pub(crate) struct Function {
    pub(crate) wrapped: Ref,
    /// The function of Python's that it passes for: `wrapped`, or the one that is inside of it if it is a bound
    /// method, a `functools.partial` or a callable object.
    pub(crate) passes_for: Option<Ref>,
    pub(crate) cache: Ref<Cache>,
    /// Which of the functions that share the cache.
    pub(crate) number: u32,
    /// Whether `1` and `1.0` are two arguments.
    pub(crate) typed: bool,
    /// How many of the first arguments are no part of the key.
    pub(crate) skip: usize,
    /// Makes the keys, if a backend of the user's own is to get them: called with arguments and keywords.
    pub(crate) make_key: Option<Ref>,
    /// What the keys are made of, if that is not all arguments.
    pub(crate) part: Option<Box<Part>>,
    /// Whether the key of a call is made of the call as it stands by the native module. With a part, that holds
    /// of calls without names only.
    pub(crate) is_direct: bool,
    /// What makes it the tool of an agent, if it is one.
    pub(crate) tool: Option<Tool>,
}

impl Function {
    /// What [`Function::is_direct`] is of a function.
    pub(crate) fn is_direct(make_key: Option<&Bound<'_, PyAny>>, part: Option<&Part>) -> bool {
        make_key.is_none() && part.is_none_or(Part::is_about_names_only)
    }

    /// The arguments that make the key.
    #[inline]
    pub(crate) fn kept<'a, 'py>(
        &self,
        py: Python<'py>,
        args: &'a Args,
        names: Option<&'a Bound<'py, PyTuple>>,
    ) -> PyResult<Kept<'a, 'py>> {
        match &self.part {
            None => Ok(Kept::All(args, names)),
            Some(part) => {
                let kept = part.of(args, names, Unknown::Add, self.wrapped.bind(py))?;
                Ok(kept.expect("unknown objects are added"))
            }
        }
    }

    /// [`Function::kept`], if that runs no Python code and is no error.
    #[inline]
    pub(crate) fn kept_at_once<'a, 'py>(
        &self,
        py: Python<'py>,
        args: &'a Args,
        names: Option<&'a Bound<'py, PyTuple>>,
    ) -> Option<Kept<'a, 'py>> {
        match &self.part {
            None => Some(Kept::All(args, names)),
            Some(part) => part.of(args, names, Unknown::Leave, self.wrapped.bind(py)).ok()?,
        }
    }

    /// The objects that it is called on, if its results are kept for each.
    fn instances(&self) -> Option<&Instances> {
        self.part.as_ref().and_then(|part| part.instances.as_ref())
    }

    /// Notes that a call is going to have an entry or a load, if its results go with its object.
    fn note(
        &self,
        py: Python<'_>,
        (args, names): (&Args, Option<&Bound<'_, PyTuple>>),
        probe: &CallProbe<'_, '_>,
    ) -> PyResult<()> {
        let Some(part) = self.part.as_ref() else { return Ok(()) };
        let Some(instances) = &part.instances else { return Ok(()) };
        // Neither is the object excluded nor what is before it, for it is the first parameter.
        let object = instances.position(py, args, names)?;
        instances.note(args.as_slice()[object].bind(py), probe.hash());
        Ok(())
    }

    /// How keys are made of the arguments that are kept.
    #[inline]
    fn shape(&self) -> (u32, bool, usize) {
        // A part may have left out the first ones already.
        (self.number, self.typed, self.part.as_ref().map_or(self.skip, |part| part.skip()))
    }

    /// The key of a call with these arguments, if making it runs no Python code.
    #[inline]
    pub(crate) fn probe_at_once<'a, 'py>(
        &self,
        py: Python<'py>,
        kept: &'a Kept<'_, 'py>,
    ) -> Option<CallProbe<'a, 'py>> {
        if self.make_key.is_some() {
            return None;
        }
        let seed = self.cache.bind(py).get().seed;
        CallProbe::at_once(py, seed, self.shape(), kept.args(), kept.names())
    }

    /// [`Function::probe_at_once`] of a function that [is direct](Function::is_direct).
    #[inline]
    pub(crate) fn probe_direct<'a, 'py>(
        &self,
        py: Python<'py>,
        args: &'a Args,
        names: Option<&'a Bound<'py, PyTuple>>,
    ) -> Option<CallProbe<'a, 'py>> {
        let seed = self.cache.bind(py).get().seed;
        CallProbe::at_once(py, seed, (self.number, self.typed, self.skip), args, names)
    }

    /// The key of a call with these arguments.
    #[inline]
    pub(crate) fn probe<'a, 'py>(
        &self,
        py: Python<'py>,
        kept: &'a Kept<'_, 'py>,
    ) -> PyResult<CallProbe<'a, 'py>> {
        self.probe_of(py, self.shape(), kept.args(), kept.names())
    }

    /// The key that these arguments are, nothing left out.
    pub(crate) fn probe_written<'a, 'py>(
        &self,
        py: Python<'py>,
        args: &'a Args,
        names: Option<&'a Bound<'py, PyTuple>>,
    ) -> PyResult<CallProbe<'a, 'py>> {
        self.probe_of(py, (self.number, self.typed, 0), args, names)
    }

    #[inline]
    fn probe_of<'a, 'py>(
        &self,
        py: Python<'py>,
        (number, typed, skip): (u32, bool, usize),
        args: &'a Args,
        names: Option<&'a Bound<'py, PyTuple>>,
    ) -> PyResult<CallProbe<'a, 'py>> {
        let seed = self.cache.bind(py).get().seed;
        if let Some(make) = &self.make_key {
            return CallProbe::made_by(make.bind(py), seed, skip, args, names);
        }
        CallProbe::new(py, seed, (number, typed, skip), args, names)
    }

    /// Removes what calls that are written so have cached.
    ///
    /// A way to write a call that has no key is a call that raises, and so has cached nothing; if no way has one, it
    /// is the argument's own error.
    pub(crate) fn invalidate(&self, py: Python<'_>, calls: &Bound<'_, PyList>) -> PyResult<()> {
        let mut refused = None;
        let mut is_any_done = false;
        for call in calls.iter() {
            let (args, names): (Bound<'_, PyTuple>, Bound<'_, PyTuple>) = call.extract()?;
            if names.len() > args.len() {
                let message = format!("{} names for {} arguments", names.len(), args.len());
                return Err(PyTypeError::new_err(message));
            }
            let given = args.iter().collect::<Vec<_>>();
            let args = Args::collect(given.len(), |index| Ref::new(given[index].clone()));
            let names = exact_names(&names)?;
            let names = (!names.is_empty()).then_some(&names);
            let args = match self.numbered(py, args, names) {
                Ok(Some(args)) => args,
                Ok(None) => {
                    is_any_done = true;
                    continue;
                }
                Err(error) => {
                    refused = refused.or(Some(error));
                    continue;
                }
            };
            match self.probe_written(py, &args, names) {
                Ok(probe) => {
                    self.cache.bind(py).get().delete_key(py, &probe)?;
                    is_any_done = true;
                }
                Err(error) if !errors::is_from_outside(py, &error) => {
                    // A `TypeError` may be about the way only: that of a function that makes keys, say.
                    if refused.as_ref().is_none_or(|first: &PyErr| first.is_instance_of::<PyTypeError>(py)) {
                        refused = Some(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        match refused {
            Some(error) if !is_any_done => Err(error),
            _ => Ok(()),
        }
    }
}

impl Function {
    /// What was kept of a call with the object's number in its place. `None`: nothing of the object is cached.
    fn numbered(
        &self,
        py: Python<'_>,
        args: Args,
        names: Option<&Bound<'_, PyTuple>>,
    ) -> PyResult<Option<Args>> {
        let Some(instances) = self.instances() else { return Ok(Some(args)) };
        let position = instances.position(py, &args, names)?;
        let object = args.as_slice()[position].bind(py);
        let token = instances.token(object, Unknown::Leave, String::new)?;
        if token.is_none() {
            Instances::check(object, || name_of(self.wrapped.bind(py)))?;
        }
        Ok(token.map(|token| with(py, &args, position, token)))
    }
}

/// A function's name, for messages.
pub(crate) fn name_of(function: &Bound<'_, PyAny>) -> String {
    let name = function.getattr(pyo3::intern!(function.py(), "__qualname__"));
    name.map_or_else(|_| "the function".to_owned(), |name| name.to_string())
}

/// Calls of functions that are only cached.
pub(crate) struct Cached;

impl Calls for Cached {
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
    fn called(
        function: Bound<'_, PyAny>,
        args: Args,
        names: Option<Ref<PyTuple>>,
    ) -> PyResult<Bound<'_, PyAny>> {
        let py = function.py();
        let call = FunctionCall::new(function, args, names)?;
        coroutine::new(py, Call { state: State::Function(call) })
    }
}

/// `use_cache` is the decorator's own argument.
fn with_names(py: Python<'_>, function: Ref, args: Args, names: Ref<PyTuple>) -> PyResult<FunctionCall> {
    let names = Ref::new(exact_names(names.bind(py))?);
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
                    let watched = Room::watch_from(&room, &cache, flight, &event_loop);
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

/// Whether a call may wait for a load that another call has started.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joining {
    Allowed,
    /// It waited for one whose value was its leader's alone, and so may the next one's be: it loads for itself, beside
    /// the others that do. Waiting for each other, they would load one after the other.
    Over,
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
                let probe = ObjectKey::new(cache.get().seed, call.key.bind(py))?;
                let work = match (&call.loader, &call.batch_loader) {
                    (Some(loader), _) => Some(Work::Loader(Ref::new(loader.bind(py).clone()))),
                    (None, Some(loader)) => Some(Work::Batch(Ref::new(loader.bind(py).clone()))),
                    (None, None) => None,
                };
                Cache::enter(cache, &probe, work, call.ttl, is_counted, joining)
            }
            Self::Function(call) => {
                let function = call.function(py);
                let cache = function.cache.bind(py);
                let names = call.names.as_ref().map(|names| names.bind(py));
                let kept = function.kept(py, &call.args, names)?;
                let probe = function.probe(py, &kept)?;
                if call.refresh && !is_counted {
                    cache.get().delete_key(py, &probe)?;
                }
                let work = Work::Function {
                    function: Ref::new(call.function.bind(py).clone()),
                    args: Args::collect(call.args.as_slice().len(), |index| {
                        Ref::new(call.args.as_slice()[index].bind(py).clone())
                    }),
                    names: names.map(|names| Ref::new(names.clone())),
                };
                function.note(py, (&call.args, names), &probe)?;
                Cache::enter(cache, &probe, Some(work), Ttl::Default, is_counted, joining)
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
                let key = kept.and_then(|kept| function.probe(py, &kept)?.to_key(py));
                let key = key.map(|key| errors::repr(&key)).unwrap_or_default();
                format!("{}{key}", name.unwrap_or_default())
            }
            Self::Waiting(_) | Self::Served | Self::Done => String::new(),
        }
    }
}

impl FunctionCall {
    pub(crate) fn new(function: Bound<'_, PyAny>, args: Args, names: Option<Ref<PyTuple>>) -> PyResult<Self> {
        let py = function.py();
        let function = Ref::new(function);
        match names {
            None => Ok(Self { function, args, names: None, refresh: false }),
            Some(names) => with_names(py, function, args, names),
        }
    }

    pub(crate) fn function<'a>(&'a self, py: Python<'a>) -> &'a Function {
        crate::raw::function::function(self.function.bind(py)).expect("only decorated functions make these")
    }

    pub(crate) fn visit(&self, visit: &mut dyn FnMut(*mut ffi::PyObject) -> c_int) -> c_int {
        let stop = visit_all(visit, &[self.function.pointer(), pointer_of(self.names.as_ref())]);
        if stop != 0 {
            return stop;
        }
        self.args.as_slice().iter().map(|arg| visit(arg.pointer())).find(|&stop| stop != 0).unwrap_or(0)
    }
}

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
                // The most frequent case by far; passed on as a `CallProbe`, the key would go through memory.
                if let (Args::One([arg]), None, 0, 0, false) =
                    (&call.args, &call.names, function.skip, function.number, function.typed)
                {
                    cache.hit(py, &ObjectKey::of_plain_argument(cache.seed, arg.bind(py))?)
                } else {
                    let names = call.names.as_ref().map(|names| names.bind(py));
                    let shape = (function.number, function.typed, function.skip);
                    cache.hit(py, &CallProbe::at_once(py, cache.seed, shape, &call.args, names)?)
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
        let thrown = crate::load::throw(waiting.iterator.bind(py), error);
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

    fn visit(&self, visit: &mut dyn FnMut(*mut ffi::PyObject) -> c_int) -> c_int {
        self.state.visit(visit)
    }

    fn statics() -> &'static Statics {
        &STATICS
    }
}

impl State {
    fn visit(&self, visit: &mut dyn FnMut(*mut ffi::PyObject) -> c_int) -> c_int {
        match self {
            Self::Object(call) => visit_all(
                visit,
                &[
                    call.cache.pointer(),
                    call.key.pointer(),
                    pointer_of(call.loader.as_ref()),
                    pointer_of(call.batch_loader.as_ref()),
                ],
            ),
            Self::Function(call) => call.visit(visit),
            Self::Waiting(waiting) => {
                let held = [waiting.cache.pointer(), waiting.room.pointer(), waiting.iterator.pointer()];
                let stop = visit_all(visit, &held);
                if stop != 0 { stop } else { waiting.asked.visit(visit) }
            }
            Self::Served | Self::Done => 0,
        }
    }
}

impl Call {
    /// A hit of a function whose keys are not made of all arguments.
    fn send_kept_fast<'py>(&mut self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let State::Function(call) = &self.state else { return None };
        let function = call.function(py);
        let names = call.names.as_ref().map(|names| names.bind(py));
        let kept = function.kept_at_once(py, &call.args, names)?;
        let probe = function.probe_at_once(py, &kept)?;
        let Hit::Served(value) = function.cache.bind(py).get().hit(py, &probe) else { return None };
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

/// Calls a function with what was kept of a call.
pub(crate) fn apply<'py>(
    function: &Bound<'py, PyAny>,
    args: &Args,
    names: Option<&Bound<'py, PyTuple>>,
) -> PyResult<Bound<'py, PyAny>> {
    let (args, named) = split(function.py(), args.as_slice(), names)?;
    function.invoke(&args, named.as_ref())
}

/// Arguments as a tuple and a dict.
pub(crate) fn split<'py>(
    py: Python<'py>,
    all: &[Ref],
    names: Option<&Bound<'py, PyTuple>>,
) -> PyResult<(Bound<'py, PyTuple>, Option<Bound<'py, PyDict>>)> {
    let positional = all.len() - names.map_or(0, PyTupleMethods::len);
    let args = PyTuple::new(py, all[..positional].iter().map(|arg| arg.bind(py)))?;
    let Some(names) = names else { return Ok((args, None)) };
    let named = PyDict::new(py);
    for (name, value) in names.iter_borrowed().zip(&all[positional..]) {
        named.set_item(name.cast::<PyString>()?, value.bind(py))?;
    }
    Ok((args, Some(named)))
}

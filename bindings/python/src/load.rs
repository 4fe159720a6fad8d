//! Loads: the driver of one load, run by an asyncio task.
//!
//! The decisions are made by the core (`async_cache_core::flight`); this module has the task. The
//! ways in which a flight can end:
//!
//! | event | result for the callers |
//! |---|---|
//! | the loader returns a value | the value, which is stored unless the flight was fenced |
//! | the loader raises | the exception; `KeyboardInterrupt` and `SystemExit` also stop the event loop, as from every task |
//! | the loader raises `CancelledError` without a cancellation | `LoadCancelledError` |
//! | the last caller left, and the task was cancelled | no caller is left; callers that joined in the meantime ask again |
//! | the task is cancelled from elsewhere, closed with its loop, or dropped | callers on its loop get `LoadCancelledError`, callers on other loops ask again |
//!
//! A batch is one load with several flights: each gets its own value from the batch loader's
//! result, and an event that ends the load ends all of them. When the last caller of a flight
//! leaves, the batch continues, and the value is stored.
//!
//! With a tier beyond this host, a load first asks the tier about all of its keys, with one read
//! and without a task (`beyond`). The task begins when some keys are to be loaded, for these keys.
//! The states of a driver:
//!
//! | state | until | then |
//! |---|---|---|
//! | new | the tier has answered, and the task runs | runs |
//! | runs | the loader ends | done |
//! | done | | |
//!
//! The question of a key lies in the room of its flight, and ends with the flight: by a landing, an
//! error, a cancellation, or the last caller that leaves.
//!
//! If tasks can start eagerly (Python 3.12), the loader runs at once up to its first suspension, so
//! that a loader that does not suspend costs no turn of the event loop; but not deep inside other
//! loads (`inline`).

mod beyond;

use std::ffi::CStr;
use std::time::Duration;

use async_cache_core::time::Time;
use async_cache_tier::clock;
use pyo3::exceptions::{PyGeneratorExit, PyKeyboardInterrupt, PySystemExit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFunction, PyString, PyTuple};

use crate::awaitable::{iterator, throw};
use crate::cache::{Beyond, Cache};
use crate::errors;
use crate::inline::Beginning;
use crate::item::LoadFlight;
use crate::key::StoredKey;
use crate::once::{self, Treatment};
use crate::raw::calls::{Invoke, send};
use crate::raw::coroutine::{self, Coroutine, Statics};
use crate::raw::visit::visits;
use crate::raw::{Ref, Sent};
use crate::returned::values;
use crate::room::{Answer, running_loop};
use crate::work::{Work, of_one_call};
use crate::{library, nesting};

/// Drives one load; the coroutine of the task.
#[allow(clippy::struct_excessive_bools)] // independent of each other
pub(crate) struct LoadDriver {
    cache: Ref<Cache>,
    /// The loop that runs the task.
    event_loop: Ref,
    /// A single flight, except for a batch.
    items: Vec<LoadFlight>,
    is_batch: bool,
    /// Identifies the load for loads that wait inside it. A batch has an id of its own, and the
    /// loads of its keys wait for it.
    name: u64,
    started: Time,
    state: LoadState,
    /// Whether its loop is running it now.
    is_driven: bool,
    /// Whether the tier beyond this host is being asked: then the driver of the tier looks
    /// afterwards for the orders of all landings.
    is_asking: bool,
    /// Whether a cancellation came from outside the loader.
    cancelled: bool,
}

enum LoadState {
    New(Work),
    /// The iterator of the loader's result.
    Runs(Ref),
    Done,
}

impl LoadState {
    /// The name of the loader's function, for messages.
    fn name(&self, py: Python<'_>) -> String {
        let name = match self {
            Self::Runs(iterator) => iterator.bind(py).getattr(pyo3::intern!(py, "__qualname__")).ok(),
            Self::New(_) | Self::Done => None,
        };
        name.map_or_else(|| "the loader".to_owned(), |name| format!("{name}()"))
    }
}

/// Begins a load: asks the tier beyond this host, or starts the task. On failure, the flights have
/// ended.
pub(crate) fn spawn<'py>(
    cache: &Bound<'py, Cache>,
    items: Vec<LoadFlight>,
    work: Work,
    event_loop: &Bound<'py, PyAny>,
) -> PyResult<()> {
    let load = LoadDriver::new(cache, items, work, event_loop);
    if cache.get().remote.get().is_some() {
        return beyond::ask(cache, load);
    }
    load.run(cache.py(), None)
}

/// Runs a coroutine as a task of a loop, if possible eagerly. With a context, the task begins in
/// the context, and not eagerly.
fn start_task<'py>(
    py: Python<'py>,
    coroutine: Bound<'py, PyAny>,
    name: Bound<'py, PyAny>,
    event_loop: &Bound<'py, PyAny>,
    context: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let run = pyo3::intern!(py, "run");
    if !event_loop.invoke_method0(pyo3::intern!(py, "get_task_factory"))?.is_none() {
        let create = pyo3::intern!(py, "create_task");
        return match context {
            Some(context) => context.invoke_method2(run, &event_loop.getattr(create)?, &coroutine),
            None => event_loop.invoke_method1(create, &coroutine),
        };
    }
    let options = PyDict::new(py);
    options.set_item(pyo3::intern!(py, "loop"), event_loop)?;
    // A name generated by the task would take longer than everything else here.
    options.set_item(pyo3::intern!(py, "name"), name)?;
    let task = library::task(py)?;
    if let Some(context) = context {
        return context.invoke_method("run", (task, coroutine), Some(&options));
    }
    let beginning = if cfg!(Py_3_12) { Beginning::on_the_stack() } else { None };
    if beginning.is_some() {
        options.set_item(pyo3::intern!(py, "eager_start"), true)?;
    }
    task.invoke(&PyTuple::new(py, [coroutine])?, Some(&options))
}

impl LoadDriver {
    fn new<'py>(
        cache: &Bound<'py, Cache>,
        items: Vec<LoadFlight>,
        work: Work,
        event_loop: &Bound<'py, PyAny>,
    ) -> Self {
        let py = cache.py();
        let is_batch = matches!(work, Work::Batch(_));
        if items.len() > 1 && !is_batch {
            // Several keys that are only looked up are left one by one, as those of a batch. They
            // wait for no load.
            for item in &items {
                item.room.bind(py).get().leaves_in_batch(py);
            }
        }
        let name = match items.first() {
            Some(item) if !is_batch => item.room.bind(py).get().name,
            _ => nesting::name(py),
        };
        if is_batch {
            for item in &items {
                let room = item.room.bind(py).get();
                room.leaves_in_batch(py);
                nesting::wait(py, room.name, name);
            }
        }
        Self {
            cache: Ref::new(cache.clone()),
            event_loop: Ref::new(event_loop.clone()),
            items,
            is_batch,
            name,
            started: clock::now(),
            state: LoadState::New(work),
            is_driven: false,
            is_asking: false,
            cancelled: false,
        }
    }

    /// Starts the task. On failure, the flights have ended.
    fn run(self, py: Python<'_>, context: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let task_name = self.task_name(py);
        let event_loop = self.event_loop.bind(py).clone();
        let rooms: Vec<_> = self.items.iter().map(|item| item.room.bind(py).clone()).collect();
        // From here on the driver ends the flights in every case: at the latest when it is dropped.
        let driver = coroutine::new(py, self)?;
        let task = match start_task(py, driver.clone(), task_name, &event_loop, context) {
            Ok(task) => task,
            Err(error) => {
                // The error's traceback may keep the driver, which then is never dropped.
                let ended = coroutine::on::<Self, _>(&driver, |load| load.end_failed(py, &error));
                ended.unwrap_or(Ok(()))?;
                return Err(error);
            }
        };
        for room in rooms {
            room.get().driven_by(py, &task);
        }
        Ok(())
    }

    /// Ends the flights after an error of this module's own calls. After an interrupt other callers
    /// ask again; after any other error they would fail in the same way.
    fn end_failed(&mut self, py: Python<'_>, error: &PyErr) -> PyResult<()> {
        let is_interrupt = errors::is_interrupt(py, error);
        let answer = if is_interrupt { Answer::Abandoned } else { Answer::failed(py, error.clone_ref(py)) };
        self.end(py, &answer)
    }

    /// The name of the loader, if the loader is a function: an existing `str`.
    fn task_name<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        let named = match &self.state {
            LoadState::New(Work::Function { function, .. }) => Some(function.bind(py)),
            LoadState::New(Work::Loader(loader) | Work::Batch(loader)) => {
                Some(loader.bind(py)).filter(|loader| loader.is_exact_instance_of::<PyFunction>())
            }
            _ => None,
        };
        let name = named.and_then(|named| named.getattr(pyo3::intern!(py, "__qualname__")).ok());
        let name = name.filter(PyAnyMethods::is_exact_instance_of::<PyString>);
        name.unwrap_or_else(|| pyo3::intern!(py, "AsyncCache.load").clone().into_any())
    }

    /// Ends the task, whose flights have ended.
    fn done<'py>(&mut self, py: Python<'py>, ended: PyResult<()>) -> PyResult<Sent<'py>> {
        self.state = LoadState::Done;
        self.is_driven = false;
        ended?;
        Ok(Sent::Return(py.None().into_bound(py)))
    }

    /// Calls the loader.
    fn start<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        nesting::enter(py, self.name)?;
        let work = match &self.state {
            LoadState::New(work) => work,
            LoadState::Runs(_) | LoadState::Done => unreachable!("it starts once"),
        };
        work.warn_of_one_call(py, &self.items)?;
        let awaitable = work.begin(py, &self.items)?;
        let loader = work.loader().expect("something is loaded");
        let iterator = iterator(&awaitable, loader.bind(py))?;
        self.state = LoadState::Runs(Ref::new(iterator.clone()));
        Ok(iterator)
    }

    /// The result of a step of the loader, for the task.
    fn after<'py>(&mut self, py: Python<'py>, sent: PyResult<Sent<'py>>) -> PyResult<Sent<'py>> {
        match sent {
            Ok(Sent::Yield(value)) => Ok(Sent::Yield(value)),
            Ok(Sent::Return(value)) => {
                let ended = std::mem::replace(&mut self.state, LoadState::Done);
                self.land(py, &value, &ended)?;
                Ok(Sent::Return(py.None().into_bound(py)))
            }
            Err(error) => {
                self.state = LoadState::Done;
                self.raised(py, error)
            }
        }
    }

    /// `Err`: an interrupt during the notification of the callers.
    fn land(&mut self, py: Python<'_>, value: &Bound<'_, PyAny>, ended: &LoadState) -> PyResult<()> {
        if self.items.is_empty() {
            return Ok(()); // no caller waits any more
        }
        if !self.is_batch {
            let Some(item) = self.items.pop() else { return Ok(()) };
            return self.land_one(py, &item, value, ended);
        }
        match values(&self.items, value) {
            Ok(values) => {
                let items = std::mem::take(&mut self.items);
                let land = |(item, value): (&LoadFlight, _)| self.land_one(py, item, &value, ended);
                items.iter().zip(values).map(land).fold(Ok(()), PyResult::and)
            }
            Err(error) => self.end(py, &Answer::failed(py, error)),
        }
    }

    fn land_one(
        &self,
        py: Python<'_>,
        item: &LoadFlight,
        value: &Bound<'_, PyAny>,
        ended: &LoadState,
    ) -> PyResult<()> {
        match once::judge(value, || ended.name(py)) {
            Ok(Treatment::Stored) => {}
            Ok(Treatment::Alone) => return self.end_one(py, item, Answer::Alone(Ref::new(value.clone()))),
            Ok(Treatment::Refused(error)) | Err(error) => {
                return self.end_one(py, item, Answer::failed(py, error));
            }
        }
        let now = clock::now();
        let cache = self.cache.bind(py).get();
        if of_one_call(item.key.bind(py)).is_some() {
            // No later call can ask for the key.
            let ended = cache.answer(py, item.flight, now.since(self.started));
            self.no_longer_waits(py, item);
            let value = Answer::Value(Ref::new(value.clone()));
            let told = item.room.bind(py).get().tell(py, value, self.running(py).as_ref());
            drop(ended);
            return told;
        }
        let beyond = match self.content_beyond(py, item, value) {
            Ok(beyond) => beyond,
            Err(error) => return self.end_one(py, item, Answer::failed(py, error)),
        };
        self.land_with(py, item, value, beyond, (self.started, now))
    }

    /// Ends a flight with a value, which is stored.
    fn land_with(
        &self,
        py: Python<'_>,
        item: &LoadFlight,
        value: &Bound<'_, PyAny>,
        mut beyond: Beyond,
        (started, now): (Time, Time),
    ) -> PyResult<()> {
        let cache = self.cache.bind(py).get();
        let query = StoredKey { key: item.key.bind(py), hash: item.hash };
        let stored = Ref::new(value.clone());
        let landed = cache.land(py, item.flight, &query, (stored, item.ttl), &mut beyond, (started, now));
        match landed {
            Ok(removed) => {
                self.no_longer_waits(py, item);
                let value = Answer::Value(Ref::new(value.clone()));
                let told = item.room.bind(py).get().tell(py, value, self.running(py).as_ref());
                drop(removed);
                told.and(self.poke(py))
            }
            // A comparison of the key raised.
            Err(error) => self.end_one(py, item, Answer::failed(py, error)),
        }
    }

    fn raised<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Sent<'py>> {
        if errors::is_cancelled(py, &error) {
            let room = self.items.first().map(|item| item.room.bind(py).clone());
            if room.as_ref().is_some_and(|room| room.get().is_stopping(py)) {
                self.end(py, &Answer::Abandoned)?;
                return Err(error);
            }
            // The awaited object may have been cancelled instead of the task; that counts as a
            // cancellation from within.
            if self.cancelled && room.is_none_or(|room| room.get().is_cancelling(py).unwrap_or(true)) {
                self.end(py, &Answer::Cancelled)?;
                return Err(error);
            }
            let key = self.items.first().map_or_else(String::new, |item| errors::repr(item.key.bind(py)));
            let cancelled = errors::load_cancelled(py, &key, Some(error));
            self.end(py, &Answer::failed(py, cancelled))?;
            return Ok(Sent::Return(py.None().into_bound(py)));
        }
        // These two stop the event loop, from any task.
        let stops_the_loop =
            error.is_instance_of::<PyKeyboardInterrupt>(py) || error.is_instance_of::<PySystemExit>(py);
        self.end(py, &Answer::failed(py, error.clone_ref(py)))?;
        if stops_the_loop { Err(error) } else { Ok(Sent::Return(py.None().into_bound(py))) }
    }

    /// The loop running in this thread. A task is driven by its own loop, but may be closed or
    /// dropped anywhere.
    fn running<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        if self.is_driven { Some(self.event_loop.bind(py).clone()) } else { running_loop(py).ok() }
    }

    fn no_longer_waits(&self, py: Python<'_>, item: &LoadFlight) {
        if self.is_batch {
            nesting::done(py, Some(item.room.bind(py).get().name), self.name);
        }
    }

    /// Ends the flights without a value. `Err`: an interrupt; the flights have ended nevertheless.
    fn end(&mut self, py: Python<'_>, answer: &Answer) -> PyResult<()> {
        let items = std::mem::take(&mut self.items);
        items.iter().map(|item| self.end_one(py, item, answer.copy(py))).fold(Ok(()), PyResult::and)
    }

    fn end_one(&self, py: Python<'_>, item: &LoadFlight, answer: Answer) -> PyResult<()> {
        self.no_longer_waits(py, item);
        let took = clock::now().since(self.started);
        let cache = self.cache.bind(py).get();
        let question = item.room.bind(py).get().take_question(py);
        let has_asked = question.is_some();
        drop(question);
        let is_failure = !matches!(answer, Answer::Absent | Answer::Value(_));
        let ended = if is_failure {
            cache.fail(py, item.flight, took)
        } else {
            cache.answer(py, item.flight, Duration::ZERO)
        };
        let told = item.room.bind(py).get().tell(py, answer, self.running(py).as_ref());
        drop(ended);
        if has_asked { told.and(self.poke(py)) } else { told }
    }

    /// Lets the driver of the tier look for the orders of an ended question.
    fn poke(&self, py: Python<'_>) -> PyResult<()> {
        if self.is_asking { Ok(()) } else { self.cache.bind(py).get().poke(py) }
    }

    /// [`LoadDriver::end`] for code that cannot pass on an interrupt.
    fn end_quietly(&mut self, py: Python<'_>, answer: &Answer) {
        if let Err(error) = self.end(py, answer) {
            error.write_unraisable(py, None);
        }
    }
}

visits!(struct LoadDriver { cache, event_loop, items, state });
visits!(
    enum LoadState {
        New(work),
        Runs(iterator),
    }
);

static STATICS: Statics = Statics::new();

impl Coroutine for LoadDriver {
    const NAME: &'static CStr = c"cache._native.Load";

    fn name(&self, py: Python<'_>) -> String {
        let what = match &self.state {
            LoadState::New(work) => work.loader(),
            LoadState::Runs(iterator) => Some(iterator),
            LoadState::Done => None,
        };
        let name = what.and_then(|what| what.bind(py).getattr(pyo3::intern!(py, "__qualname__")).ok());
        match name.and_then(|name| name.cast_into::<PyString>().ok()) {
            Some(name) => format!("AsyncCache.load of {}", name.to_string_lossy()),
            None => "AsyncCache.load".to_owned(),
        }
    }

    fn inner<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        match &self.state {
            LoadState::Runs(iterator) => Some(iterator.bind(py).clone()),
            LoadState::New(_) | LoadState::Done => None,
        }
    }

    fn is_done(&self) -> bool {
        matches!(self.state, LoadState::Done)
    }

    fn is_waiting(&self) -> bool {
        match &self.state {
            LoadState::Runs(_) => true,
            LoadState::New(_) | LoadState::Done => false,
        }
    }

    fn send_fast<'py>(&mut self, _: Python<'py>) -> Option<Bound<'py, PyAny>> {
        None
    }

    fn send<'py>(&mut self, py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Sent<'py>> {
        self.is_driven = true;
        let sent = match &self.state {
            LoadState::Runs(iterator) => send(&iterator.bind(py).clone(), value),
            // The task was scheduled although its start was interrupted: no caller waits any more.
            LoadState::New(_) if self.items.is_empty() => return self.done(py, Ok(())),
            LoadState::New(work) if work.is_outdated(py, &self.items).unwrap_or(true) => {
                // All callers ask again, with the present state of the arguments.
                self.state = LoadState::Done;
                let ended = self.end(py, &Answer::Abandoned);
                return self.done(py, ended);
            }
            _ => self.start(py).and_then(|iterator| send(&iterator, value)),
        };
        let sent = self.after(py, sent);
        self.is_driven = false;
        sent
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Sent<'py>> {
        self.cancelled |= errors::is_cancelled(py, &error);
        let thrown = match &self.state {
            LoadState::Runs(iterator) => throw(&iterator.bind(py).clone(), error),
            _ => Err(error),
        };
        self.after(py, thrown)
    }

    fn close(&mut self, py: Python<'_>) -> PyResult<()> {
        self.is_driven = false;
        let state = std::mem::replace(&mut self.state, LoadState::Done);
        let closed = match state {
            LoadState::Runs(iterator) => match throw(iterator.bind(py), PyGeneratorExit::new_err(())) {
                Err(error) if error.is_instance_of::<PyGeneratorExit>(py) => Ok(()),
                Err(error) => Err(error),
                Ok(_) => Ok(()),
            },
            _ => Ok(()),
        };
        closed.and(self.end(py, &Answer::Cancelled))
    }

    fn abandon(&mut self, py: Python<'_>) {
        self.is_driven = false;
        self.state = LoadState::Done;
        self.end_quietly(py, &Answer::Cancelled);
    }

    fn fail(&mut self, py: Python<'_>, error: &PyErr) {
        self.is_driven = false;
        self.state = LoadState::Done;
        self.end_quietly(py, &Answer::failed(py, error.clone_ref(py)));
    }

    fn statics() -> &'static Statics {
        &STATICS
    }
}

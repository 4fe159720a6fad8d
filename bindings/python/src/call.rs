//! Calls: the awaitables that `cache.get(...)` and decorated functions return.
//!
//! Nothing happens before a call is awaited. Its states:
//!
//! | state | on `send` |
//! |---|---|
//! | new | looks up the key: returns a hit at once; on a miss joins the running load, or starts a load |
//! | waiting for a load | passes the value on to the awaited future. When the future is done: returns the answer of the load, or looks up the key again (see `waiting`) |
//! | waiting for a read | the same; when the future is done: looks up the key again (see `reading`) |
//! | served | done, with a cached value |
//! | done | |
//!
//! A call that waits for a load or read leaves it when the call is cancelled, closed or dropped.

use std::ffi::CStr;

use pyo3::Borrowed;
use pyo3::exceptions::{PyRuntimeWarning, PyTypeError};
use pyo3::prelude::*;

use crate::args::CallArgs;
use crate::ask::{self, Ask, FunctionCall, ObjectCall};
use crate::awaitable;
use crate::cache::{Cache, MemoryLookup};
use crate::call_query::CallQuery;
use crate::enter::{Asking, Entered};
use crate::function::{self, Function};
use crate::key::ObjectKey;
use crate::raw::calls::send;
use crate::raw::coroutine::{self, Coroutine, Statics};
use crate::raw::function::{Calls, Given};
use crate::raw::visit::visits;
use crate::raw::{Ref, Sent};
use crate::reading::Reading;
use crate::ttl::Ttl;
use crate::waiting::{Answered, WaitStart, Waiting};

/// Calls of functions that are not tools.
pub(crate) struct Cached;

impl Calls<Function> for Cached {
    #[inline]
    fn called_with_one(function: Bound<'_, PyAny>, arg: Ref) -> PyResult<Bound<'_, PyAny>> {
        let py = function.py();
        if function::of_call(&function).is_keyed_by_one {
            return coroutine::make(py, || CacheCall {
                state: CallState::NewOne { function: Ref::new(function), arg },
            });
        }
        coroutine::make(py, || {
            CacheCall::of(FunctionCall {
                function: Ref::new(function),
                args: CallArgs::One([arg]),
                names: None,
                refresh: false,
            })
        })
    }

    #[inline]
    fn called<'py>(function: Bound<'py, PyAny>, given: Given<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
        let py = function.py();
        if given.names().is_none() {
            return coroutine::make(py, || CacheCall::of(FunctionCall::without_names(function, given)));
        }
        let call = FunctionCall::new(function, given)?;
        coroutine::new(py, CacheCall::of(call))
    }
}

/// The awaitable of one call.
pub(crate) struct CacheCall {
    state: CallState,
}

enum CallState {
    /// New, of a decorated function with one positional argument, which is the key
    /// (`Function::is_keyed_by_one`). This state and the next one are the most frequent calls:
    /// written, read and dropped in a few instructions.
    NewOne {
        function: Ref,
        arg: Ref,
    },
    /// New, of `cache.get(key)`.
    NewKey {
        cache: Ref<Cache>,
        key: Ref,
    },
    /// New, any other call.
    New(Ask),
    Waiting(Box<Paused>),
    Served,
    Done,
}

/// A call that waits.
struct Paused {
    ask: Ask,
    asking: Asking,
    pause: Pause,
}

/// What a call waits for.
enum Pause {
    Load(Waiting),
    Read(Reading),
}

visits!(struct CacheCall { state });
visits!(
    enum CallState {
        NewOne { function, arg },
        NewKey { cache, key },
        New(ask),
        Waiting(paused),
    }
);
visits!(struct Paused { ask, pause });
visits!(
    enum Pause {
        Load(waiting),
        Read(reading),
    }
);

impl Pause {
    fn iterator<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        match self {
            Self::Load(waiting) => waiting.iterator(py),
            Self::Read(reading) => reading.iterator(py),
        }
    }

    fn leave(self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Load(waiting) => waiting.leave(py),
            Self::Read(reading) => {
                drop(reading);
                Ok(())
            }
        }
    }

    /// The effect on the call when the awaited future is done.
    fn end<'py>(self, py: Python<'py>, ask: &Ask, asking: &mut Asking) -> PyResult<Answered<'py>> {
        match self {
            Self::Load(waiting) => {
                let describe = || ask.describe(py);
                waiting.end(py, describe)?.answered(py, asking, describe)
            }
            Self::Read(reading) => {
                drop(reading);
                Ok(Answered::AsksAgain)
            }
        }
    }
}

/// A step of a waiting call.
enum Resumed<'py> {
    Sent(Sent<'py>),
    AsksAgain(Ask, Asking),
}

impl CacheCall {
    /// A call of a decorated function.
    #[inline]
    pub(crate) fn of(call: FunctionCall) -> Self {
        Self { state: CallState::New(Ask::Function(call)) }
    }

    /// Whether the call is done, with a cached value.
    pub(crate) fn was_hit(&self) -> bool {
        matches!(self.state, CallState::Served)
    }

    /// Whether the call waits for a read, so that it may become a hit or a miss.
    pub(crate) fn is_reading(&self) -> bool {
        matches!(&self.state, CallState::Waiting(paused) if matches!(paused.pause, Pause::Read(_)))
    }

    /// A call of `cache.get` with more than a key.
    #[inline]
    pub(crate) fn get(py: Python<'_>, call: impl FnOnce() -> ObjectCall) -> PyResult<Bound<'_, PyAny>> {
        coroutine::make(py, || Self { state: CallState::New(Ask::Object(call())) })
    }

    /// A call of `cache.get(key)`.
    #[inline]
    pub(crate) fn get_key<'py>(
        cache: &Bound<'py, Cache>,
        key: Borrowed<'_, 'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        coroutine::make(cache.py(), || Self {
            state: CallState::NewKey { cache: Ref::new(cache.clone()), key: Ref::new(key.to_owned()) },
        })
    }

    /// Takes the new call out, and leaves `Done`.
    fn take_new(&mut self) -> Ask {
        match std::mem::replace(&mut self.state, CallState::Done) {
            CallState::NewOne { function, arg } => Ask::Function(FunctionCall {
                function,
                args: CallArgs::One([arg]),
                names: None,
                refresh: false,
            }),
            CallState::NewKey { cache, key } => Ask::Object(ObjectCall {
                cache,
                key,
                loader: None,
                batch_loader: None,
                ttl: Ttl::Default,
                marks_absent: false,
            }),
            CallState::New(ask) => ask,
            CallState::Waiting(_) | CallState::Served | CallState::Done => {
                unreachable!("called while it is new")
            }
        }
    }

    /// Asks the cache, until there is a value, or a load or read to wait for.
    fn ask<'py>(&mut self, py: Python<'py>, mut ask: Ask, mut asking: Asking) -> PyResult<Sent<'py>> {
        loop {
            let pause = match ask.enter(py, &mut asking)? {
                Entered::Served(value) => {
                    self.state = CallState::Served;
                    return Ok(Sent::Return(value));
                }
                Entered::Absent => return Ok(Sent::Return(asking.absent(py)?)),
                Entered::Reads(reading) => Pause::Read(reading),
                Entered::Waits(joined) => {
                    match Waiting::begin(py, &ask.cache(py), joined, || ask.describe(py))? {
                        WaitStart::Waits(waiting) => Pause::Load(waiting),
                        WaitStart::Ended(ended) => {
                            match ended.answered(py, &mut asking, || ask.describe(py))? {
                                Answered::Value(value) => return Ok(Sent::Return(value)),
                                Answered::AsksAgain => continue,
                            }
                        }
                    }
                }
            };
            self.state = CallState::Waiting(Box::new(Paused { ask, asking, pause }));
            match self.wait(py, py.None().bind(py))? {
                Resumed::Sent(sent) => return Ok(sent),
                Resumed::AsksAgain(same, so_far) => (ask, asking) = (same, so_far),
            }
        }
    }

    /// One step of waiting.
    fn wait<'py>(&mut self, py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Resumed<'py>> {
        let CallState::Waiting(paused) = &self.state else { unreachable!("called while it waits") };
        let sent = send(paused.pause.iterator(py), value);
        self.after(py, sent)
    }

    /// The result of a step of the awaited future.
    fn after<'py>(&mut self, py: Python<'py>, sent: PyResult<Sent<'py>>) -> PyResult<Resumed<'py>> {
        if let Ok(Sent::Yield(value)) = sent {
            return Ok(Resumed::Sent(Sent::Yield(value)));
        }
        let CallState::Waiting(paused) = std::mem::replace(&mut self.state, CallState::Done) else {
            unreachable!("called while it waits")
        };
        let Paused { ask, mut asking, pause } = *paused;
        if let Err(error) = sent {
            return pause.leave(py).and(Err(error));
        }
        match pause.end(py, &ask, &mut asking)? {
            Answered::Value(value) => Ok(Resumed::Sent(Sent::Return(value))),
            Answered::AsksAgain => Ok(Resumed::AsksAgain(ask, asking)),
        }
    }

    /// Continues with the result of a step.
    fn resume<'py>(&mut self, py: Python<'py>, resumed: Resumed<'py>) -> PyResult<Sent<'py>> {
        match resumed {
            Resumed::Sent(sent) => Ok(sent),
            Resumed::AsksAgain(ask, asking) => self.ask(py, ask, asking),
        }
    }

    /// Ends the call. If the call is waiting, it leaves its load.
    fn end(&mut self, py: Python<'_>) -> PyResult<()> {
        match std::mem::replace(&mut self.state, CallState::Done) {
            CallState::Waiting(paused) => paused.pause.leave(py),
            _ => Ok(()),
        }
    }
}

static STATICS: Statics = Statics::new();

impl Coroutine for CacheCall {
    const NAME: &'static CStr = c"cache._native.Call";

    fn name(&self, py: Python<'_>) -> String {
        match &self.state {
            CallState::NewOne { function, .. } => ask::name_of_function(function.bind(py)),
            CallState::New(ask) => ask.name(py),
            CallState::Waiting(paused) => paused.ask.name(py),
            CallState::NewKey { .. } | CallState::Served | CallState::Done => ask::NAME_OF_GET.to_owned(),
        }
    }

    #[inline]
    fn is_done(&self) -> bool {
        matches!(self.state, CallState::Done | CallState::Served)
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.is_done()
    }

    fn is_waiting(&self) -> bool {
        matches!(self.state, CallState::Waiting(_))
    }

    #[inline(always)]
    #[allow(clippy::inline_always)] // a call of its own is a fiftieth of a hit
    fn send_fast<'py>(&mut self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        match &self.state {
            CallState::NewOne { function, arg } => {
                let function = function::of_call(function.bind(py));
                let cache = function.cache.bind(py).get();
                // Passed as a `CallQuery`, the key would go through memory.
                let key = ObjectKey::of_plain_argument(cache.seed, arg.bind(py))?;
                let MemoryLookup::Served(value) = cache.hit(py, &key) else { return None };
                // Taken apart here: the drop of the whole state first finds out which state it is.
                if let CallState::NewOne { function, arg } =
                    std::mem::replace(&mut self.state, CallState::Served)
                {
                    drop((function, arg));
                }
                Some(value)
            }
            CallState::NewKey { cache, key } => {
                let cache = cache.bind(py).get();
                // The hash of a user's key may run Python code; an error occurs again on the slow
                // path.
                let key = ObjectKey::of_plain(cache.seed, key.bind(py))?;
                let MemoryLookup::Served(value) = cache.hit(py, &key) else { return None };
                if let CallState::NewKey { cache, key } =
                    std::mem::replace(&mut self.state, CallState::Served)
                {
                    drop((cache, key));
                }
                Some(value)
            }
            CallState::New(_) => self.send_any_fast(py),
            _ => None,
        }
    }

    fn send<'py>(&mut self, py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Sent<'py>> {
        if matches!(self.state, CallState::Waiting(_)) {
            let resumed = self.wait(py, value)?;
            return self.resume(py, resumed);
        }
        if !value.is_none() {
            let message = "can't send non-None value to a just-started coroutine";
            return Err(PyTypeError::new_err(message));
        }
        let ask = self.take_new();
        self.ask(py, ask, Asking::new())
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Sent<'py>> {
        let CallState::Waiting(paused) = &self.state else {
            self.state = CallState::Done;
            return Err(error);
        };
        let thrown = awaitable::throw(paused.pause.iterator(py), error);
        let resumed = self.after(py, thrown)?;
        self.resume(py, resumed)
    }

    fn close(&mut self, py: Python<'_>) -> PyResult<()> {
        self.end(py)
    }

    fn abandon(&mut self, py: Python<'_>) {
        let ended = match &self.state {
            CallState::NewOne { .. } | CallState::NewKey { .. } | CallState::New(_) => self.warn(py),
            CallState::Waiting(_) | CallState::Served | CallState::Done => Ok(()),
        };
        if let Err(error) = ended.and(self.end(py)) {
            error.write_unraisable(py, None);
        }
    }

    fn fail(&mut self, py: Python<'_>, _: &PyErr) {
        if let Err(error) = self.end(py) {
            error.write_unraisable(py, None);
        }
    }

    fn statics() -> &'static Statics {
        &STATICS
    }
}

impl CacheCall {
    /// A hit of a call that is not among the most frequent ones.
    #[inline(always)]
    #[allow(clippy::inline_always)] // a call of its own is a fiftieth of a hit
    fn send_any_fast<'py>(&mut self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let hit = match &self.state {
            CallState::New(Ask::Object(call)) => {
                let cache = call.cache.bind(py).get();
                cache.hit(py, &ObjectKey::of_plain(cache.seed, call.key.bind(py))?)
            }
            CallState::New(Ask::Function(call)) if !call.refresh => {
                let function = call.function(py);
                if !function.is_direct || (call.names.is_some() && function.part.is_some()) {
                    return self.send_kept_fast(py);
                }
                let cache = function.cache.bind(py).get();
                let names = call.names.as_ref().map(|names| names.bind(py));
                let shape = (function.number, function.typed, function.skip);
                cache.hit(py, &CallQuery::at_once(py, cache.seed, shape, &call.args, names)?)
            }
            _ => return None,
        };
        let MemoryLookup::Served(value) = hit else { return None };
        self.state = CallState::Served;
        Some(value)
    }

    /// A hit of a function whose keys are not made from all arguments.
    fn send_kept_fast<'py>(&mut self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let CallState::New(Ask::Function(call)) = &self.state else { return None };
        let function = call.function(py);
        let names = call.names.as_ref().map(|names| names.bind(py));
        let kept = function.kept_at_once(py, &call.args, names)?;
        let query = function.query_at_once(py, &kept)?;
        let MemoryLookup::Served(value) = function.cache.bind(py).get().hit(py, &query) else { return None };
        drop(kept);
        self.state = CallState::Served;
        Some(value)
    }

    /// The same warning as the interpreter's for a coroutine.
    fn warn(&self, py: Python<'_>) -> PyResult<()> {
        let name = self.name(py);
        let message = std::ffi::CString::new(format!("coroutine '{name}' was never awaited"))?;
        PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &message, 1)
    }
}

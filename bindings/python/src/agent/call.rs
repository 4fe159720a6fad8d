//! Calls of tools: the awaitables returned by functions decorated with `AgentCache`.
//!
//! Its states:
//!
//! | state | on `send` |
//! |---|---|
//! | new | determines its place (`frame`), asks the guard, if any, and then becomes a call of the function that keeps the results there; uncached if there is none |
//! | served | a hit whose result must be compared with the results of the same call before: compares and returns it |
//! | running | passes the value on to the inner call; when the inner call is done, records its outcome |
//! | done | |
//!
//! A hit goes through [`Coroutine::send_fast`] alone. A call refused by the guard is never made.

use std::ffi::CStr;

use async_cache_core::agent::BegunCall;
use pyo3::exceptions::{PyException, PyGeneratorExit};
use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyInt};

use super::frame::{self, Frame, PastCall};
use super::outcome::CallOutcome;
use super::session::Session;
use super::tool::{TOTAL, Tool, ToolCounts, ToolScope};
use crate::args::{CallArgs, apply};
use crate::ask::FunctionCall;
use crate::awaitable;
use crate::cache::{Cache, MemoryLookup};
use crate::call::CacheCall;
use crate::call_query::CallQuery;
use crate::enter::{Asking, Entered};
use crate::function::{Function, function};
use crate::key::Query;
use crate::plain::mix;
use crate::raw::calls::send;
use crate::raw::coroutine::{self, Coroutine, Statics};
use crate::raw::function::{Calls, Given};
use crate::raw::visit::visits;
use crate::raw::{Ref, Sent};
use crate::ttl::Ttl;

/// Calls of tools.
pub(crate) struct Watched;

impl Calls<Function> for Watched {
    #[inline]
    fn called_with_one(function: Bound<'_, PyAny>, arg: Ref) -> PyResult<Bound<'_, PyAny>> {
        coroutine::make(function.py(), || {
            ToolCall::New(FunctionCall {
                function: Ref::new(function),
                args: CallArgs::One([arg]),
                names: None,
                refresh: false,
            })
        })
    }

    fn called<'py>(function: Bound<'py, PyAny>, given: Given<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
        let py = function.py();
        let call = FunctionCall::new(function, given)?;
        coroutine::new(py, ToolCall::New(call))
    }
}

/// A call of a tool.
pub(crate) enum ToolCall {
    New(FunctionCall),
    Served(Box<(Ref, Watch)>),
    Running(Box<Running>),
    Done,
}

/// A call permitted by the guard.
pub(crate) struct Watch {
    frame: Ref<Frame>,
    begun: BegunCall,
}

/// A call that needs more than a look-up.
pub(crate) struct Running {
    inner: InnerCall,
    tool: Ref,
    session: Option<Ref<Session>>,
    /// Whether a hit or miss has been counted.
    is_counted: bool,
    watch: Option<Watch>,
}

enum InnerCall {
    /// A call of the function that keeps the results.
    Cached(CacheCall),
    /// The iterator of the function's own awaitable.
    Uncached(Ref),
}

fn tool(function: &Function) -> &Tool {
    function.tool.as_ref().expect("only tools make these calls")
}

/// Identifies tool and arguments.
#[inline]
fn name_of(py: Python<'_>, tool: &Tool, query: &impl Query, args: &CallArgs) -> u64 {
    let name = mix(u64::from(tool.number), query.hash());
    // Python has the same hash for -1 and -2.
    let is_minus_one = |arg: &Ref| {
        let arg = arg.bind(py);
        (arg.is_exact_instance_of::<PyInt>() && arg.extract::<i64>().is_ok_and(|number| number == -1))
            || (arg.is_exact_instance_of::<PyFloat>()
                && arg.extract::<f64>().is_ok_and(|number| number.to_bits() == (-1.0_f64).to_bits()))
    };
    let which = args.as_slice().iter().enumerate().filter(|(_, arg)| is_minus_one(arg));
    which.fold(name, |name, (at, _)| mix(name, at as u64))
}

/// Counts an event for a tool, for the session of the call, and for the process.
#[inline]
fn count(py: Python<'_>, tool: &Tool, session: Option<&Bound<'_, Session>>, add: impl Fn(&mut ToolCounts)) {
    add(&mut tool.counts.borrow(py));
    if let Some(session) = session {
        add(&mut session.get().state.borrow(py).counts);
    }
    add(&mut TOTAL.borrow(py));
}

impl ToolCall {
    fn begin<'py>(&mut self, py: Python<'py>) -> PyResult<Sent<'py>> {
        let Self::New(call) = std::mem::replace(self, Self::Done) else { unreachable!("it begins once") };
        let tool = tool(call.function(py));
        let frame = frame::current(py)?;
        let target = match (&tool.scope, &frame) {
            (ToolScope::Global, _) => Some(call.function.bind(py).clone()),
            (ToolScope::Session(make), Some(frame)) if frame.get().is_in_session => {
                let session = frame.get().session.bind(py);
                Session::function_or_make(session, tool.number, make.bind(py))?
            }
            (ToolScope::Session(_), _) => None,
        };
        let session = frame.as_ref().map(|frame| frame.get().session.bind(py).clone());
        let watch = match frame {
            Some(frame) if frame.get().guard.is_some() => {
                match Self::watch(py, &call, &frame, target.as_ref())? {
                    Ok(watch) => Some(watch),
                    Err(value) => return Ok(Sent::Return(value)),
                }
            }
            _ => None,
        };
        let tool = Ref::new(call.function.bind(py).clone());
        let inner = if let Some(target) = target {
            InnerCall::Cached(CacheCall::of(FunctionCall { function: Ref::new(target), ..call }))
        } else {
            let wrapped = call.function(py).wrapped.bind(py);
            let awaitable = apply(wrapped, &call.args, call.names.as_ref().map(|names| names.bind(py)))?;
            InnerCall::Uncached(Ref::new(awaitable::iterator(&awaitable, wrapped)?))
        };
        let session = session.map(Ref::new);
        *self = Self::Running(Box::new(Running { inner, tool, session, is_counted: false, watch }));
        self.step(py, py.None().bind(py))
    }

    /// Asks the guard. `Err`: the call is not made, and returns this result.
    fn watch<'py>(
        py: Python<'py>,
        call: &FunctionCall,
        frame: &Bound<'py, Frame>,
        target: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Result<Watch, Bound<'py, PyAny>>> {
        let here = frame.get();
        let guard = here.guard.as_ref().expect("looked at by the caller").get();
        let names = call.names.as_ref().map(|names| names.bind(py));
        let keeper = target.and_then(|target| function(target)).unwrap_or_else(|| call.function(py));
        let kept = keeper.kept(py, &call.args, names)?;
        let query = keeper.query(py, &kept)?;
        let tool = tool(call.function(py));
        let name = name_of(py, tool, &query, &call.args);
        let asked = PastCall {
            tool: Ref::new(call.function.bind(py).clone()),
            args: call.args.copy(py),
            names: names.map(|names| Ref::new(names.clone())),
        };
        let alarm = here.history.borrow(py).check(&guard.limits, name, here.depth);
        if let Some(alarm) = alarm {
            count(py, tool, Some(guard.session.bind(py)), |counts| counts.loop_detections += 1);
            if !here.alarm(py, guard, alarm, &asked, false)? {
                let mut cached = None;
                if target.is_some() {
                    let mut asking = Asking::uncounted();
                    let cache = keeper.cache.bind(py);
                    let entered = Cache::enter(cache, &query, None, Ttl::Default, &mut asking)?;
                    if let Entered::Served(value) = entered {
                        cached = Some(value);
                    }
                }
                if cached.is_none() && here.is_in_tool {
                    here.alarm(py, guard, alarm, &asked, true)?;
                }
                return Ok(Err(cached.unwrap_or_else(|| py.None().into_bound(py))));
            }
        }
        let (begun, forgotten) = here.begin(py, name, asked);
        drop(forgotten);
        Ok(Ok(Watch { frame: Ref::new(frame.clone()), begun }))
    }

    fn step<'py>(&mut self, py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Sent<'py>> {
        let Self::Running(running) = self else { unreachable!("called while it runs") };
        let sent = match &mut running.inner {
            InnerCall::Cached(call) => call.send(py, value),
            InnerCall::Uncached(iterator) => send(iterator.bind(py), value),
        };
        self.after(py, sent)
    }

    fn after<'py>(&mut self, py: Python<'py>, sent: PyResult<Sent<'py>>) -> PyResult<Sent<'py>> {
        let Self::Running(running) = self else { unreachable!("called while it runs") };
        running.count(py);
        if let Ok(Sent::Yield(_)) = sent {
            return sent;
        }
        let Self::Running(running) = std::mem::replace(self, Self::Done) else { unreachable!("as above") };
        let Some(watch) = running.watch else { return sent };
        let outcome = match &sent {
            Ok(Sent::Yield(_)) => unreachable!("returned above"),
            Ok(Sent::Return(value)) => CallOutcome::Value(Ref::new(value.clone())),
            // A cancelled call has no outcome.
            Err(error) if !error.is_instance_of::<PyException>(py) => return sent,
            Err(error) => CallOutcome::Failed(Ref::new(error.get_type(py).into_any())),
        };
        watch.end(py, outcome)?;
        sent
    }
}

impl Watch {
    fn end(&self, py: Python<'_>, outcome: CallOutcome) -> PyResult<()> {
        let frame = self.frame.bind(py).get();
        let considers_results = frame.guard.as_ref().is_some_and(|guard| guard.get().considers_results);
        if considers_results { frame.end(py, self.begun, outcome) } else { Ok(()) }
    }
}

impl Running {
    /// Counts a hit or a miss, once, when it is certain which of them the call is.
    fn count(&mut self, py: Python<'_>) {
        if matches!(&self.inner, InnerCall::Cached(call) if call.is_reading()) {
            return;
        }
        if std::mem::replace(&mut self.is_counted, true) {
            return;
        }
        let was_hit = matches!(&self.inner, InnerCall::Cached(call) if call.was_hit());
        let session = self.session.as_ref().map(|session| session.bind(py));
        let function = function(self.tool.bind(py)).expect("only tools make these calls");
        count(py, tool(function), session, |counts| {
            if was_hit {
                counts.hits += 1;
            } else {
                counts.misses += 1;
            }
        });
    }
}

visits!(
    enum ToolCall {
        New(call),
        Served(served),
        Running(running),
    }
);
visits!(struct Watch { frame });
visits!(struct Running { inner, tool, session, watch });
visits!(
    enum InnerCall {
        Cached(call),
        Uncached(iterator),
    }
);

static STATICS: Statics = Statics::new();

impl Coroutine for ToolCall {
    const NAME: &'static CStr = c"cache._native.ToolCall";

    fn name(&self, py: Python<'_>) -> String {
        let tool = match self {
            Self::New(call) => &call.function,
            Self::Running(running) => &running.tool,
            Self::Served(_) | Self::Done => return "tool".to_owned(),
        };
        let name = tool.bind(py).getattr("__qualname__");
        name.map_or_else(|_| "tool".to_owned(), |name| name.to_string())
    }

    #[inline]
    fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    fn is_waiting(&self) -> bool {
        matches!(self, Self::Running(_))
    }

    #[inline]
    fn send_fast<'py>(&mut self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let Self::New(call) = self else { return None };
        if call.refresh {
            return None;
        }
        let tool = tool(call.function(py));
        let frame = frame::current(py).ok()?;
        let of_session = match (&tool.scope, &frame) {
            (ToolScope::Global, _) => None,
            (ToolScope::Session(_), Some(frame)) if frame.get().is_in_session => {
                Some(frame.get().session.get().function(py, tool.number)?)
            }
            (ToolScope::Session(_), _) => return None,
        };
        let keeper = match &of_session {
            None => call.function(py),
            Some(of_session) => function(of_session)?,
        };
        let names = call.names.as_ref().map(|names| names.bind(py));
        let session = frame.as_ref().map(|frame| frame.get().session.bind(py));
        let guarded = frame.as_ref().and_then(|frame| Some((frame, frame.get().guard.as_ref()?.get())));
        let hit = |query: &CallQuery<'_, 'py>| {
            let name = name_of(py, tool, query, &call.args);
            if let Some((frame, guard)) = guarded {
                let here = frame.get();
                if here.history.borrow(py).check(&guard.limits, name, here.depth).is_some() {
                    return None;
                }
            }
            match keeper.cache.bind(py).get().hit(py, query) {
                MemoryLookup::Served(value) => Some((value, name)),
                MemoryLookup::NotAtOnce => None,
            }
        };
        let (value, name) = if keeper.is_direct {
            hit(&keeper.query_direct(py, &call.args, names)?)?
        } else {
            let kept = keeper.kept_at_once(py, &call.args, names)?;
            hit(&keeper.query_at_once(py, &kept)?)?
        };
        count(py, tool, session, |counts| counts.hits += 1);
        let Some((frame, guard)) = guarded else {
            *self = Self::Done;
            return Some(value);
        };
        let Self::New(call) = std::mem::replace(self, Self::Done) else { return None };
        let asked = PastCall { tool: call.function, args: call.args, names: call.names };
        let considers_results = guard.considers_results;
        let (begun, is_settled, forgotten) = {
            let mut history = frame.get().history.borrow(py);
            let (begun, forgotten) = history.begin(name, asked);
            let is_same = !considers_results || history.twins(begun).all(|twin| twin.is_value(&value));
            if considers_results && is_same {
                history.end(begun, CallOutcome::Value(Ref::new(value.clone())), |_| true);
            }
            (begun, is_same, forgotten)
        };
        drop(forgotten);
        if is_settled {
            return Some(value);
        }
        let watch = Watch { frame: Ref::new(frame.clone()), begun };
        *self = Self::Served(Box::new((Ref::new(value), watch)));
        None
    }

    fn send<'py>(&mut self, py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Sent<'py>> {
        match self {
            Self::Running(_) => return self.step(py, value),
            Self::Served(_) => {
                let Self::Served(served) = std::mem::replace(self, Self::Done) else {
                    unreachable!("matched above")
                };
                let (value, watch) = *served;
                watch.end(py, CallOutcome::Value(Ref::new(value.bind(py).clone())))?;
                return Ok(Sent::Return(value.into_bound(py)));
            }
            Self::New(_) | Self::Done => {}
        }
        if !value.is_none() {
            let message = "can't send non-None value to a just-started coroutine";
            return Err(pyo3::exceptions::PyTypeError::new_err(message));
        }
        self.begin(py)
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Sent<'py>> {
        let Self::Running(running) = self else {
            *self = Self::Done;
            return Err(error);
        };
        let thrown = match &mut running.inner {
            InnerCall::Cached(call) => call.throw(py, error),
            InnerCall::Uncached(iterator) => awaitable::throw(iterator.bind(py), error),
        };
        self.after(py, thrown)
    }

    fn close(&mut self, py: Python<'_>) -> PyResult<()> {
        let Self::Running(mut running) = std::mem::replace(self, Self::Done) else { return Ok(()) };
        match &mut running.inner {
            InnerCall::Cached(call) => call.close(py),
            InnerCall::Uncached(iterator) => {
                match awaitable::throw(iterator.bind(py), PyGeneratorExit::new_err(())) {
                    Err(error) if error.is_instance_of::<PyGeneratorExit>(py) => Ok(()),
                    Err(error) => Err(error),
                    Ok(Sent::Yield(_)) => {
                        Err(pyo3::exceptions::PyRuntimeError::new_err("coroutine ignored GeneratorExit"))
                    }
                    Ok(Sent::Return(_)) => Ok(()),
                }
            }
        }
    }

    fn abandon(&mut self, py: Python<'_>) {
        match std::mem::replace(self, Self::Done) {
            // Warns that the call was never awaited.
            Self::New(call) => CacheCall::of(call).abandon(py),
            Self::Running(mut running) => {
                if let InnerCall::Cached(call) = &mut running.inner {
                    call.abandon(py);
                }
            }
            Self::Served(_) | Self::Done => {}
        }
    }

    fn fail(&mut self, py: Python<'_>, error: &PyErr) {
        if let Self::Running(mut running) = std::mem::replace(self, Self::Done)
            && let InnerCall::Cached(call) = &mut running.inner
        {
            call.fail(py, error);
        }
    }

    fn statics() -> &'static Statics {
        &STATICS
    }
}

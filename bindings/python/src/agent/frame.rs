//! Frames: where a call of a tool is made. A context variable holds the frame of the running code.
//!
//! | where | its frame |
//! |---|---|
//! | outside of every session | none |
//! | inside `async with AgentCacheSession(...)` | set by the session's entry: session, guard |
//! | inside a running call of a tool | a child of the call's frame: one deeper, own history |
//!
//! Rules:
//! 1. A frame never changes, except for its history and the mark that it was left. Tasks inherit
//!    the frame of the code that made them. After leaving a session, the running code is in the
//!    nearest surrounding frame that was not left. A frame that was left holds only this frame, so
//!    frames that were left do not hold each other.
//! 2. A session without loop detection keeps the guard of the surrounding session, and the depth
//!    continues to count.
//! 3. The result of a tool with scope "global" is shared by everyone, so no part of it may come
//!    from a session: in the frames of its load, tools with scope "session" run uncached.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};

use async_cache_core::agent::{Alarm, BegunCall, History, Limits, Past};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::outcome::CallOutcome;
use super::session::Session;
use crate::args::{CallArgs, split};
use crate::raw::calls::Invoke;
use crate::raw::context::ContextVar;
use crate::raw::visit::{self, Visit, VisitStopped, Visitor, visits};
use crate::raw::{GilCell, Ref};

static CURRENT: PyOnceLock<ContextVar> = PyOnceLock::new();

/// A call in the history, for reports.
pub(super) struct PastCall {
    pub(super) tool: Ref,
    pub(super) args: CallArgs,
    pub(super) names: Option<Ref<PyTuple>>,
}

visits!(struct PastCall { tool, args, names });

/// A call displaced by a newer one; to be dropped when nothing is borrowed.
pub(super) type Forgotten = Option<Past<PastCall, CallOutcome>>;

/// Watches the calls of a session.
#[pyclass(frozen, module = "cache._native", name = "AgentGuard")]
pub(crate) struct Guard {
    pub(super) limits: Limits,
    pub(super) considers_results: bool,
    /// Called with an alarm. Raises, or returns whether the call is made nevertheless.
    on_alarm: Py<PyAny>,
    pub(super) session: Py<Session>,
}

visits!(struct Guard { on_alarm, session });

#[pymethods]
impl Guard {
    #[new]
    fn new(
        session: Py<Session>,
        max_tool_repeats: NonZeroU32,
        max_execution_depth: u32,
        consider_results: bool,
        on_alarm: Py<PyAny>,
    ) -> Self {
        let limits = Limits { max_repeats: max_tool_repeats, max_depth: max_execution_depth };
        Self { limits, considers_results: consider_results, on_alarm, session }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit::traverse(self, visit)
    }
}

/// The place of a call.
#[pyclass(frozen, module = "cache._native", name = "AgentFrame")]
pub(crate) struct Frame {
    /// The session.
    #[pyo3(get)]
    pub(super) session: Py<Session>,
    pub(super) guard: Option<Py<Guard>>,
    /// The nesting depth of a call made here: the number of tool calls, including the call itself.
    pub(super) depth: u32,
    /// Whether tools with scope "session" use the session's caches here.
    pub(super) is_in_session: bool,
    /// Whether the frame belongs to a running tool, whose result may be cached.
    pub(super) is_in_tool: bool,
    /// The frame in which the session was entered; after it was left, the nearest surrounding frame
    /// that was not left.
    outer: GilCell<Option<Py<Frame>>>,
    was_left: AtomicBool,
    pub(super) history: GilCell<History<PastCall, CallOutcome>>,
}

visits!(struct Frame { session, guard, outer, history });

impl Visit for History<PastCall, CallOutcome> {
    fn visit(&self, visitor: Visitor<'_>) -> Result<(), VisitStopped> {
        self.iter().try_for_each(|past| {
            past.asked.visit(visitor)?;
            past.outcome.visit(visitor)
        })
    }
}

#[pymethods]
impl Frame {
    /// The frame of a session entered in another frame, or in none.
    #[new]
    #[pyo3(signature = (session, guard, outer))]
    fn new(
        py: Python<'_>,
        session: Py<Session>,
        guard: Option<Py<Guard>>,
        outer: Option<Bound<'_, Self>>,
    ) -> Self {
        let around = outer.as_ref().map(Bound::get);
        let inherited = || around.and_then(|outer| outer.guard.as_ref().map(|guard| guard.clone_ref(py)));
        Self {
            session,
            guard: guard.or_else(inherited),
            depth: around.map_or(1, |outer| outer.depth),
            is_in_session: true,
            is_in_tool: around.is_some_and(|outer| outer.is_in_tool),
            outer: GilCell::new(outer.map(Bound::unbind)),
            was_left: AtomicBool::new(false),
            history: GilCell::new(History::default()),
        }
    }

    /// Called when the session's entry is left: drops the history and the outcomes. Returns the
    /// frame of the running code from now on.
    fn leave<'py>(&self, py: Python<'py>) -> Option<Bound<'py, Self>> {
        self.was_left.store(true, Ordering::Relaxed);
        let history = std::mem::take(&mut *self.history.borrow(py));
        drop(history);
        let mut around = self.outer(py);
        while let Some(frame) = &around
            && frame.get().was_left.load(Ordering::Relaxed)
        {
            around = frame.get().outer(py);
        }
        // Tasks made here may enter sessions in turn, and so on endlessly: a frame that was left
        // must not hold the frames left before it.
        let before = self.outer.borrow(py).take();
        *self.outer.borrow(py) = around.as_ref().map(|frame| frame.clone().unbind());
        drop(before);
        around
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit::traverse(self, visit)
    }

    fn __clear__(&self) {
        drop(self.history.take_with(std::mem::take));
    }
}

impl Frame {
    fn outer<'py>(&self, py: Python<'py>) -> Option<Bound<'py, Self>> {
        self.outer.borrow(py).as_ref().map(|outer| outer.bind(py).clone())
    }

    /// Records the beginning of a call.
    #[inline]
    pub(super) fn begin(&self, py: Python<'_>, call: u64, asked: PastCall) -> (BegunCall, Forgotten) {
        self.history.borrow(py).begin(call, asked)
    }

    /// Records the outcome of a call. Runs Python code.
    pub(super) fn end(&self, py: Python<'_>, begun: BegunCall, outcome: CallOutcome) -> PyResult<()> {
        let twins: Vec<_> =
            self.history.borrow(py).twins(begun).map(|outcome| outcome.clone_ref(py)).collect();
        let unlike = outcome.unlike(py, twins)?;
        let is_same = |known: &CallOutcome| !unlike.iter().any(|unlike| unlike.is(py, known));
        let replaced = self.history.borrow(py).end(begun, outcome, is_same);
        drop(replaced);
        Ok(())
    }

    /// Reports an alarm to Python; returns whether the call is made nevertheless. `is_empty`: there
    /// is no result that the call could return instead.
    pub(super) fn alarm(
        &self,
        py: Python<'_>,
        guard: &Guard,
        alarm: Alarm,
        asked: &PastCall,
        is_empty: bool,
    ) -> PyResult<bool> {
        let (kind, count, period) = match alarm {
            Alarm::Repeat { count } => ("repeat", count, 1),
            Alarm::Oscillation { period, count } => ("oscillation", count, period),
            Alarm::Depth { depth } => ("depth", depth, 0),
            _ => ("loop", 0, 0),
        };
        let cycle: Vec<_> = {
            let history = self.history.borrow(py);
            history.last(period).map(|past| past.asked.clone_ref(py)).collect()
        };
        let cycle = cycle.iter().map(|asked| asked.to_tuple(py)).collect::<PyResult<Vec<_>>>()?;
        let cycle = PyList::new(py, cycle)?;
        let session = guard.session.bind(py);
        let told = (session, kind, count, asked.to_tuple(py)?, cycle, is_empty).into_pyobject(py)?;
        guard.on_alarm.bind(py).invoke(&told, None)?.extract()
    }
}

impl PastCall {
    pub(super) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            tool: Ref::new(self.tool.bind(py).clone()),
            args: self.args.copy(py),
            names: self.names.as_ref().map(|names| Ref::new(names.bind(py).clone())),
        }
    }

    /// (tool, arguments, arguments by name).
    fn to_tuple<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let names = self.names.as_ref().map(|names| names.bind(py));
        let (args, named) = split(py, self.args.as_slice(), names)?;
        (self.tool.bind(py), args, named.unwrap_or_else(|| pyo3::types::PyDict::new(py))).into_pyobject(py)
    }
}

fn variable(py: Python<'_>) -> PyResult<&ContextVar> {
    CURRENT.get_or_try_init(py, || ContextVar::new(py, "agent_cache.frame"))
}

/// The frame of the running code.
#[inline]
pub(super) fn current(py: Python<'_>) -> PyResult<Option<Bound<'_, Frame>>> {
    let variable = match CURRENT.get(py) {
        Some(variable) => variable,
        None => variable(py)?,
    };
    Ok(variable.get(py)?.and_then(|frame| frame.cast_into_exact::<Frame>().ok()))
}

/// The frame of the running code.
#[pyfunction]
#[pyo3(name = "current_agent_frame")]
pub(super) fn current_frame(py: Python<'_>) -> PyResult<Option<Bound<'_, Frame>>> {
    current(py)
}

/// Sets the frame of the running code.
#[pyfunction]
#[pyo3(name = "set_current_agent_frame", signature = (frame))]
pub(super) fn set_current_frame(py: Python<'_>, frame: Option<Bound<'_, Frame>>) -> PyResult<()> {
    match frame {
        Some(frame) => variable(py)?.set(frame.as_any()),
        None => variable(py)?.set(py.None().bind(py)),
    }
}

/// Marks the running code as inside a call of a tool; returns its previous frame, if any.
/// `is_global`: the scope of the tool.
#[pyfunction]
#[pyo3(name = "enter_agent_tool")]
pub(super) fn enter_tool(py: Python<'_>, is_global: bool) -> PyResult<Option<Bound<'_, Frame>>> {
    let Some(outer) = current(py)? else { return Ok(None) };
    let frame = {
        let outer = outer.get();
        Frame {
            session: outer.session.clone_ref(py),
            guard: outer.guard.as_ref().map(|guard| guard.clone_ref(py)),
            depth: outer.depth.saturating_add(1),
            is_in_session: outer.is_in_session && !is_global,
            is_in_tool: true,
            outer: GilCell::new(None),
            was_left: AtomicBool::new(false),
            history: GilCell::new(History::default()),
        }
    };
    variable(py)?.set(Bound::new(py, frame)?.as_any())?;
    Ok(Some(outer))
}

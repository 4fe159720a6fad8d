//! Waiting rooms: where the callers of one load wait for its answer.
//!
//! Owns the futures that the callers wait on, one for each, made by the caller's own event loop, and the answer.
//! Rules:
//! 1. the answer is given once; after that nobody takes a seat;
//! 2. a future of the running loop is finished at once, one of another loop by that loop, thread-safely. A
//!    loop that is closed has nobody left who waits;
//! 3. the task that runs the load is held weakly: as long as it can go on, something else holds it; if nothing
//!    does, its driver is dropped, and that ends the load.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyWeakrefReference};
use pyo3::{PyTraverseError, PyVisit};

use crate::raw::{GilCell, Ref};

/// What callers are told.
pub(crate) enum Answer {
    /// The load brought this.
    Value(Ref),
    /// The load failed with this exception, whose traceback was this when it came from the loader.
    Failed(Ref, Option<Ref>),
    /// The load was stopped because nobody waited for it; who joined meanwhile asks again.
    Abandoned,
    /// The load was cancelled by others, or its event loop was closed. Callers on that loop get an error, those
    /// on other loops ask again.
    Cancelled,
}

impl Answer {
    /// The load failed.
    pub(crate) fn failed(py: Python<'_>, error: PyErr) -> Self {
        let traceback = error.traceback(py).map(|traceback| Ref::new(traceback.into_any()));
        Self::Failed(Ref::new(error.into_value(py).into_bound(py).into_any()), traceback)
    }

    /// The same, for another caller.
    pub(crate) fn copy(&self, py: Python<'_>) -> Self {
        match self {
            Self::Value(value) => Self::Value(Ref::new(value.bind(py).clone())),
            Self::Failed(error, traceback) => Self::Failed(
                Ref::new(error.bind(py).clone()),
                traceback.as_ref().map(|traceback| Ref::new(traceback.bind(py).clone())),
            ),
            Self::Abandoned => Self::Abandoned,
            Self::Cancelled => Self::Cancelled,
        }
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Value(object) => object.visit(*visit),
            Self::Failed(error, traceback) => {
                error.visit(*visit)?;
                traceback.as_ref().map_or(Ok(()), |traceback| traceback.visit(*visit))
            }
            Self::Abandoned | Self::Cancelled => Ok(()),
        }
    }
}

/// Where the callers of one load wait.
#[pyclass(frozen, module = "cache._native")]
pub(crate) struct Room {
    /// Names the load among all of the process.
    pub(crate) name: u64,
    state: GilCell<State>,
}

#[derive(Default)]
struct State {
    answer: Option<Answer>,
    seats: Vec<Taken>,
    /// The loop that runs the load.
    event_loop: Option<Ref>,
    /// A weak reference to the task that runs it.
    task: Option<Ref>,
    /// Whether that task loads other keys, too.
    in_batch: bool,
    /// Whether the last caller has left, and the task was told to stop.
    stopping: bool,
}

struct Taken {
    future: Ref,
    event_loop: Ref,
}

#[pymethods]
impl Room {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let visited = self.state.visit(|state| {
            if let Some(answer) = &state.answer {
                answer.visit(&visit)?;
            }
            for seat in &state.seats {
                seat.future.visit(visit)?;
                seat.event_loop.visit(visit)?;
            }
            if let Some(event_loop) = &state.event_loop {
                event_loop.visit(visit)?;
            }
            state.task.as_ref().map_or(Ok(()), |task| task.visit(visit))
        });
        visited.unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        drop(self.state.take_with(std::mem::take));
    }
}

impl Room {
    pub(crate) fn new<'py>(py: Python<'py>, event_loop: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Self>> {
        let state = State { event_loop: Some(Ref::new(event_loop.clone())), ..State::default() };
        Bound::new(py, Self { name: crate::nesting::name(py), state: GilCell::new(state) })
    }

    /// The task that runs the load.
    pub(crate) fn driven_by(&self, py: Python<'_>, task: &Bound<'_, PyAny>, in_batch: bool) -> PyResult<()> {
        let weak = Ref::new(PyWeakrefReference::new(task)?.into_any());
        let mut state = self.state.borrow(py);
        state.task = Some(weak);
        state.in_batch = in_batch;
        Ok(())
    }

    /// Whether the task was told to stop, for the want of callers.
    pub(crate) fn is_stopping(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).stopping
    }

    /// Whether somebody has asked the task to stop. Before Python 3.11 a task does not tell; then: perhaps.
    pub(crate) fn is_cancelling(&self, py: Python<'_>) -> PyResult<bool> {
        let task = self.state.borrow(py).task.as_ref().map(|task| task.bind(py).clone());
        let Some(task) = task else { return Ok(true) };
        match task.call0()?.getattr_opt(pyo3::intern!(py, "cancelling"))? {
            Some(cancelling) => cancelling.call0()?.is_truthy(),
            None => Ok(true),
        }
    }

    /// Notes that the exception of the task was seen, so that the loop does not complain of it.
    pub(crate) fn retrieve(&self, py: Python<'_>) {
        let task = self.state.borrow(py).task.as_ref().map(|task| task.bind(py).clone());
        let task = task.and_then(|task| task.call0().ok()).filter(|task| !task.is_none());
        // It raises if the task is not done, or was cancelled; then there is nothing to note.
        drop(task.map(|task| task.call_method0(pyo3::intern!(py, "exception"))));
    }

    /// Whether the load runs on the caller's event loop.
    pub(crate) fn is_here(&self, py: Python<'_>) -> bool {
        let event_loop = self.state.borrow(py).event_loop.as_ref().map(|held| held.bind(py).clone());
        event_loop.is_some_and(|held| running_loop(py).is_ok_and(|running| running.is(&held)))
    }

    /// Whether the load is one of a batch that has left: it goes on without callers.
    pub(crate) fn in_batch(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).in_batch
    }

    /// The answer, if it is there.
    pub(crate) fn answer(&self, py: Python<'_>) -> Option<Answer> {
        self.state.borrow(py).answer.as_ref().map(|answer| answer.copy(py))
    }

    /// Takes a seat: the iterator of a future of the `running` loop, which is done when the answer is there.
    pub(crate) fn take_seat<'py>(
        &self,
        py: Python<'py>,
        running: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        static FUTURE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let options = PyDict::new(py);
        options.set_item(pyo3::intern!(py, "loop"), running)?;
        let future = FUTURE.import(py, "asyncio", "Future")?.call((), Some(&options))?;
        let iterator = future.call_method0(pyo3::intern!(py, "__await__"))?;
        let seat = Taken { future: Ref::new(future), event_loop: Ref::new(running.clone()) };
        self.state.borrow(py).seats.push(seat);
        Ok(iterator)
    }

    /// Whether the load can go on: its loop runs, or is the one that is `running` here.
    pub(crate) fn is_alive(&self, py: Python<'_>, running: &Bound<'_, PyAny>) -> PyResult<bool> {
        let event_loop = self.state.borrow(py).event_loop.as_ref().map(|held| held.bind(py).clone());
        let Some(event_loop) = event_loop else { return Ok(false) };
        if running.is(&event_loop) {
            return Ok(true);
        }
        event_loop.call_method0(pyo3::intern!(py, "is_running"))?.is_truthy()
    }

    /// Gives the answer to everybody who waits. `running` is the loop that runs here, if one does.
    pub(crate) fn tell(&self, py: Python<'_>, answer: Answer, running: Option<&Bound<'_, PyAny>>) {
        let seats = {
            let mut state = self.state.borrow(py);
            if state.answer.is_some() {
                return;
            }
            state.answer = Some(answer);
            std::mem::take(&mut state.seats)
        };
        for seat in seats {
            let here = running.is_some_and(|running| seat.event_loop.is(running));
            let told = wake(py, seat.future.bind(py), seat.event_loop.bind(py), here);
            if let Err(error) = told {
                error.write_unraisable(py, Some(seat.future.bind(py)));
            }
        }
    }

    /// Asks the task to stop the load; `false` if there is no task any more that could.
    pub(crate) fn stop(&self, py: Python<'_>) -> PyResult<bool> {
        let (task, event_loop) = {
            let mut state = self.state.borrow(py);
            state.stopping = true;
            let (Some(task), Some(event_loop)) = (&state.task, &state.event_loop) else { return Ok(false) };
            (task.bind(py).clone(), event_loop.bind(py).clone())
        };
        let task = task.call0()?;
        if task.is_none() {
            return Ok(false);
        }
        let cancel = pyo3::intern!(py, "cancel");
        if running_loop(py).is_ok_and(|running| running.is(&event_loop)) {
            task.call_method0(cancel)?;
            return Ok(true);
        }
        let asked = event_loop.call_method1("call_soon_threadsafe", (task.getattr(cancel)?,));
        // A closed loop raises: its tasks never go on.
        Ok(asked.is_ok())
    }
}

/// Finishes a future, unless its caller has gone.
fn wake(
    py: Python<'_>,
    future: &Bound<'_, PyAny>,
    event_loop: &Bound<'_, PyAny>,
    here: bool,
) -> PyResult<()> {
    static FINISH: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    if here {
        return match future.call_method1(pyo3::intern!(py, "set_result"), (py.None(),)) {
            Err(error) if !future.call_method0(pyo3::intern!(py, "done"))?.is_truthy()? => Err(error),
            _ => Ok(()),
        };
    }
    let finish = FINISH.get_or_try_init(py, || {
        pyo3::wrap_pyfunction!(finish_future, py).map(|function| function.into_any().unbind())
    })?;
    match event_loop.call_method1("call_soon_threadsafe", (finish.bind(py), future)) {
        Err(error) if !event_loop.call_method0("is_closed")?.is_truthy()? => Err(error),
        _ => Ok(()),
    }
}

/// Run by the loop of a future.
#[pyfunction]
fn finish_future(future: &Bound<'_, PyAny>) -> PyResult<()> {
    wake(future.py(), future, future, true)
}

/// The running event loop of this thread.
pub(crate) fn running_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static GET: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    GET.import(py, "asyncio", "get_running_loop")?.call0()
}

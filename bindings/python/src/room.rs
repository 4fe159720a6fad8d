//! Waiting rooms, in which the callers of one load wait for its answer.
//!
//! Owns the futures on which the callers wait, one for each caller, made by the caller's own event
//! loop, and the answer. Rules:
//! 1. the answer is given once; after that no caller takes a seat;
//! 2. a future of the running loop is finished at once, a future of another loop by that loop,
//!    thread-safely. On a closed loop no caller is waiting any more;
//! 3. the task that runs the load is held as long as a caller may be waiting for it, as by a plain
//!    `await`; the collector sees the reference. If the task's event loop stops for good, callers
//!    on other loops are not notified: each of these loops keeps a watch (see `watch`), which
//!    checks from time to time;
//! 4. an interrupt during the notification of callers is passed to the running code, after all
//!    callers were notified;
//! 5. the load of a room inherited by a forked child does not continue, so no caller joins the
//!    room. Its loops share their wake-up pipe with the parent's, so nothing is called
//!    thread-safely on them: the call would wake the parent. A child that runs an inherited loop
//!    itself has its callers answered there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_cache_core::time::Time;
use async_cache_tier::clock;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use crate::errors;
use crate::library;
use crate::raw::calls::Invoke;
use crate::raw::visit::{self, visits};
use crate::raw::{GilCell, Ref};
use crate::remote::Question;

/// The answer to the callers.
pub(crate) enum Answer {
    /// The result of the load.
    Value(Ref),
    /// A result for the call that loaded it only; callers that joined ask again.
    Alone(Ref),
    /// The load failed with this exception; the second field is the traceback as it came from the
    /// loader.
    Failed(Ref, Option<Ref>),
    /// Nothing was to be loaded, and there is no value; callers with a loader ask again.
    Absent,
    /// The load was stopped because no caller waited; callers that joined in the meantime ask
    /// again.
    Abandoned,
    /// The load was cancelled from elsewhere, or its event loop was closed. Callers on the same
    /// loop get an error, callers on other loops ask again.
    Cancelled,
}

impl Answer {
    /// The load failed.
    pub(crate) fn failed(py: Python<'_>, error: PyErr) -> Self {
        let traceback = error.traceback(py).map(|traceback| Ref::new(traceback.into_any()));
        Self::Failed(Ref::new(error.into_value(py).into_bound(py).into_any()), traceback)
    }

    /// The same answer, for another caller.
    pub(crate) fn copy(&self, py: Python<'_>) -> Self {
        match self {
            Self::Value(value) => Self::Value(Ref::new(value.bind(py).clone())),
            Self::Alone(value) => Self::Alone(Ref::new(value.bind(py).clone())),
            Self::Failed(error, traceback) => Self::Failed(
                Ref::new(error.bind(py).clone()),
                traceback.as_ref().map(|traceback| Ref::new(traceback.bind(py).clone())),
            ),
            Self::Absent => Self::Absent,
            Self::Abandoned => Self::Abandoned,
            Self::Cancelled => Self::Cancelled,
        }
    }
}

visits!(
    enum Answer {
        Value(value),
        Alone(value),
        Failed(error, traceback),
    }
);

/// The waiting callers of one load, and the load's answer.
#[pyclass(frozen, module = "cache._native")]
pub(crate) struct Room {
    /// Identifies the load within the process.
    pub(crate) name: u64,
    /// The time of the request, or up to a tick of the kernel earlier.
    pub(crate) began: Time,
    state: GilCell<RoomState>,
}

#[derive(Default)]
#[allow(clippy::struct_excessive_bools)] // independent of each other
struct RoomState {
    answer: Option<Answer>,
    /// By number; seats that were left are reused.
    seats: Vec<Option<Seat>>,
    left: Vec<usize>,
    /// Event loops that have a watch: see `watch`.
    watching: Vec<Ref>,
    /// The loop that runs the load; `None` for a read.
    event_loop: Option<Ref>,
    /// The task that runs the load.
    task: Option<Ref>,
    /// Whether the task also loads other keys.
    in_batch: bool,
    /// Whether the last caller has left, and the task was asked to stop.
    stopping: bool,
    /// The question about the key beyond this host, until the flight ends.
    question: Option<Question>,
    /// Whether nothing is to be loaded: the load only asks beyond this host.
    is_look: bool,
    /// Whether the task raises an interrupt that came during the notification of the callers.
    interrupted: bool,
}

struct Seat {
    future: Ref,
    event_loop: Ref,
    /// The number of open rooms in which the caller has a seat with the same future: the last
    /// answer finishes the future. `None`: the caller has no other seat.
    open: Option<Arc<AtomicUsize>>,
}

visits!(struct RoomState { answer, seats, watching, event_loop, task });
visits!(struct Seat { future, event_loop });

#[pymethods]
impl Room {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit::traverse(&self.state, visit)
    }

    fn __clear__(&self) {
        drop(self.state.take_with(std::mem::take));
    }
}

impl Room {
    pub(crate) fn new<'py>(py: Python<'py>, event_loop: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Self>> {
        let state = RoomState { event_loop: Some(Ref::new(event_loop.clone())), ..RoomState::default() };
        let (name, began) = (crate::nesting::name(py), clock::roughly_now());
        Bound::new(py, Self { name, began, state: GilCell::new(state) })
    }

    /// A room for the callers of a read, which no event loop runs.
    pub(crate) fn of_read(py: Python<'_>) -> PyResult<Bound<'_, Self>> {
        let (name, began) = (crate::nesting::name(py), clock::roughly_now());
        Bound::new(py, Self { name, began, state: GilCell::new(RoomState::default()) })
    }

    /// The load belongs to a batch that leaves.
    pub(crate) fn leaves_in_batch(&self, py: Python<'_>) {
        self.state.borrow(py).in_batch = true;
    }

    /// Whether the load began before the fork that made this process.
    pub(crate) fn is_inherited(&self, py: Python<'_>) -> bool {
        crate::nesting::is_inherited(py, self.name)
    }

    /// Keeps the question of the load. The question before, if any, is dropped: it ends.
    pub(crate) fn asks(&self, py: Python<'_>, question: Question) {
        let before = self.state.borrow(py).question.replace(question);
        drop(before);
    }

    /// Takes the question out, to end it.
    pub(crate) fn take_question(&self, py: Python<'_>) -> Option<Question> {
        self.state.borrow(py).question.take()
    }

    /// Reads the question.
    pub(crate) fn with_question<R>(&self, py: Python<'_>, work: impl FnOnce(&Question) -> R) -> Option<R> {
        self.state.borrow(py).question.as_ref().map(work)
    }

    /// Records that nothing is to be loaded.
    pub(crate) fn only_looks(&self, py: Python<'_>) {
        self.state.borrow(py).is_look = true;
    }

    /// Whether nothing is to be loaded.
    pub(crate) fn is_look(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).is_look
    }

    /// The task that runs the load.
    pub(crate) fn driven_by(&self, py: Python<'_>, task: &Bound<'_, PyAny>) {
        self.state.borrow(py).task = Some(Ref::new(task.clone()));
    }

    fn task<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.state.borrow(py).task.as_ref().map(|task| task.bind(py).clone())
    }

    /// Whether the task was asked to stop, for lack of callers.
    pub(crate) fn is_stopping(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).stopping
    }

    /// Whether the task was asked to stop. Before Python 3.11 a task does not report this; then the
    /// answer is yes.
    pub(crate) fn is_cancelling(&self, py: Python<'_>) -> PyResult<bool> {
        let Some(task) = self.task(py) else { return Ok(true) };
        match task.getattr_opt(pyo3::intern!(py, "cancelling"))? {
            Some(cancelling) => cancelling.invoke0()?.is_truthy(),
            None => Ok(true),
        }
    }

    /// Marks the exception of the task as retrieved, so that the loop does not report it.
    pub(crate) fn retrieve(&self, py: Python<'_>) {
        // Raises if the task is not done, or was cancelled; then there is nothing to mark.
        drop(self.task(py).map(|task| task.invoke_method0(pyo3::intern!(py, "exception"))));
    }

    /// [`Room::retrieve`], if callers have an answer that does not include the task's interrupt.
    pub(crate) fn retrieve_interrupt(&self, py: Python<'_>) {
        if self.state.borrow(py).interrupted {
            self.retrieve(py);
        }
    }

    /// Whether the load runs on the caller's event loop.
    pub(crate) fn is_here(&self, py: Python<'_>) -> bool {
        running_loop(py).is_ok_and(|running| self.runs_on(py, &running))
    }

    /// Whether the load runs on an event loop. Runs no Python code.
    pub(crate) fn runs_on(&self, py: Python<'_>, event_loop: &Bound<'_, PyAny>) -> bool {
        self.state.borrow(py).event_loop.as_ref().is_some_and(|held| held.is(event_loop))
    }

    /// Whether the load belongs to a batch that has left: it continues without callers.
    pub(crate) fn in_batch(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).in_batch
    }

    /// The answer, if given.
    pub(crate) fn answer(&self, py: Python<'_>) -> Option<Answer> {
        self.state.borrow(py).answer.as_ref().map(|answer| answer.copy(py))
    }

    /// Takes a seat: its number, and the iterator of a future of the `running` loop, which is
    /// finished when the answer is given. `None`: the answer has already been given. Making a
    /// future runs Python code of the loop, during which the load may end on another thread.
    pub(crate) fn take_seat<'py>(
        &self,
        py: Python<'py>,
        running: &Bound<'py, PyAny>,
    ) -> PyResult<Option<(usize, Bound<'py, PyAny>)>> {
        let options = PyDict::new(py);
        options.set_item(pyo3::intern!(py, "loop"), running)?;
        let future = library::future(py)?.invoke(&PyTuple::empty(py), Some(&options))?;
        let iterator = future.invoke_method0(pyo3::intern!(py, "__await__"))?;
        let seat = Seat { future: Ref::new(future), event_loop: Ref::new(running.clone()), open: None };
        Ok(self.seat(py, seat).map(|number| (number, iterator)))
    }

    /// Takes a seat of a caller that has seats in several rooms: `open` counts them. `None`: the
    /// answer has already been given. Runs no Python code.
    pub(crate) fn take_shared_seat(
        &self,
        py: Python<'_>,
        (future, event_loop): (&Bound<'_, PyAny>, &Bound<'_, PyAny>),
        open: &Arc<AtomicUsize>,
    ) -> Option<usize> {
        let (future, event_loop) = (Ref::new(future.clone()), Ref::new(event_loop.clone()));
        self.seat(py, Seat { future, event_loop, open: Some(Arc::clone(open)) })
    }

    fn seat(&self, py: Python<'_>, seat: Seat) -> Option<usize> {
        let mut state = self.state.borrow(py);
        if state.answer.is_some() {
            drop(state);
            drop(seat);
            return None;
        }
        let number = state.left.pop().unwrap_or_else(|| {
            state.seats.push(None);
            state.seats.len() - 1
        });
        state.seats[number] = Some(seat);
        Some(number)
    }

    /// Leaves a seat, before or after the answer was given.
    pub(crate) fn leave_seat(&self, py: Python<'_>, number: usize) {
        let mut state = self.state.borrow(py);
        let taken = state.seats.get_mut(number).and_then(Option::take);
        if taken.is_some() {
            state.left.push(number);
        }
        drop(state);
        drop(taken);
    }

    /// Records that the `running` loop has a watch from now on. `false` if it has a watch already,
    /// or needs none.
    pub(crate) fn begins_watch(&self, py: Python<'_>, running: &Bound<'_, PyAny>) -> bool {
        let held = Ref::new(running.clone());
        let mut state = self.state.borrow(py);
        let is_here = state.event_loop.as_ref().is_some_and(|event_loop| event_loop.is(running));
        if is_here || state.watching.iter().any(|event_loop| event_loop.is(running)) {
            return false;
        }
        state.watching.push(held);
        true
    }

    /// Whether a caller on this loop is still waiting; if not, the loop's watch has ended.
    pub(crate) fn is_waited_for_on(&self, py: Python<'_>, event_loop: &Bound<'_, PyAny>) -> bool {
        let mut state = self.state.borrow(py);
        let waits = state.seats.iter().flatten().any(|seat| seat.event_loop.is(event_loop));
        let at = state.watching.iter().position(|watching| watching.is(event_loop));
        let ended = at.filter(|_| !waits).map(|at| state.watching.swap_remove(at));
        drop(state);
        drop(ended);
        waits
    }

    /// Whether the load can continue: its loop is running, or is the `running` loop of this thread.
    pub(crate) fn is_alive(&self, py: Python<'_>, running: &Bound<'_, PyAny>) -> PyResult<bool> {
        // Rule 5. The copy of a loop that ran in the parent still claims to be running.
        if self.is_inherited(py) {
            return Ok(false);
        }
        let event_loop = self.state.borrow(py).event_loop.as_ref().map(|held| held.bind(py).clone());
        let Some(event_loop) = event_loop else { return Ok(false) };
        if running.is(&event_loop) {
            return Ok(true);
        }
        event_loop.invoke_method0(pyo3::intern!(py, "is_running"))?.is_truthy()
    }

    /// Gives the answer to all waiting callers. `running` is the running loop of this thread, if
    /// any.
    ///
    /// # Errors
    /// An interrupt (rule 4).
    pub(crate) fn tell(
        &self,
        py: Python<'_>,
        answer: Answer,
        running: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let seats = {
            let mut state = self.state.borrow(py);
            if state.answer.is_some() {
                return Ok(());
            }
            state.answer = Some(answer);
            std::mem::take(&mut state.seats)
        };
        let is_inherited = self.is_inherited(py);
        let mut interrupted = Ok(());
        for seat in seats.into_iter().flatten() {
            if seat.open.as_ref().is_some_and(|open| open.fetch_sub(1, Ordering::Relaxed) > 1) {
                continue;
            }
            let here = running.is_some_and(|running| seat.event_loop.is(running));
            if is_inherited && !here {
                wake_quietly(py, seat.future.bind(py), seat.event_loop.bind(py));
                continue;
            }
            let told = wake(py, seat.future.bind(py), seat.event_loop.bind(py), here);
            match told {
                Ok(()) => {}
                // Rule 4.
                Err(error) if errors::is_interrupt(py, &error) => interrupted = interrupted.and(Err(error)),
                Err(error) => error.write_unraisable(py, Some(seat.future.bind(py))),
            }
        }
        self.state.borrow(py).interrupted = interrupted.is_err();
        interrupted
    }

    /// Asks the task to stop the load.
    pub(crate) fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let (task, event_loop) = {
            let mut state = self.state.borrow(py);
            state.stopping = true;
            let (Some(task), Some(event_loop)) = (&state.task, &state.event_loop) else { return Ok(()) };
            (task.bind(py).clone(), event_loop.bind(py).clone())
        };
        let cancel = pyo3::intern!(py, "cancel");
        if running_loop(py).is_ok_and(|running| running.is(&event_loop)) {
            return task.invoke_method0(cancel).map(drop);
        }
        // Rule 5.
        if self.is_inherited(py) {
            return Ok(());
        }
        // A closed loop raises: its tasks never continue.
        let soon = pyo3::intern!(py, "call_soon_threadsafe");
        drop(event_loop.invoke_method1(soon, &task.getattr(cancel)?));
        Ok(())
    }
}

/// Finishes a future, unless its caller is gone. An interrupt may come after the future was
/// finished.
pub(crate) fn wake(
    py: Python<'_>,
    future: &Bound<'_, PyAny>,
    event_loop: &Bound<'_, PyAny>,
    here: bool,
) -> PyResult<()> {
    if here {
        return match future.invoke_method1(pyo3::intern!(py, "set_result"), py.None().bind(py)) {
            Err(error) if errors::is_interrupt(py, &error) => Err(error),
            Err(error) if !future.invoke_method0(pyo3::intern!(py, "done"))?.is_truthy()? => Err(error),
            _ => Ok(()),
        };
    }
    let soon = pyo3::intern!(py, "call_soon_threadsafe");
    match event_loop.invoke_method2(soon, finisher(py)?, future) {
        Err(error) if errors::is_interrupt(py, &error) => Err(error),
        Err(error) if !event_loop.invoke_method0(pyo3::intern!(py, "is_closed"))?.is_truthy()? => Err(error),
        _ => Ok(()),
    }
}

/// Lets an inherited loop finish a future, in case the loop ever runs in this process (rule 5).
fn wake_quietly(py: Python<'_>, future: &Bound<'_, PyAny>, event_loop: &Bound<'_, PyAny>) {
    // A closed loop, or in debug mode a loop of another thread, raises: no code runs it here.
    let asked = finisher(py)
        .and_then(|finish| event_loop.invoke_method2(pyo3::intern!(py, "call_soon"), finish, future));
    drop(asked);
}

fn finisher(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static FINISH: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let finish = FINISH.get_or_try_init(py, || {
        pyo3::wrap_pyfunction!(finish_future, py).map(|function| function.into_any().unbind())
    })?;
    Ok(finish.bind(py))
}

/// Called by the loop of a future.
#[pyfunction]
fn finish_future(future: &Bound<'_, PyAny>) -> PyResult<()> {
    wake(future.py(), future, future, true)
}

/// The running event loop of this thread.
pub(crate) fn running_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    library::get_running_loop(py)?.call0()
}

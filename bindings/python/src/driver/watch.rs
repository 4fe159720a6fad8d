//! A look, on the event loop of a waiting load, at the driver on another event loop, and at the
//! questions of a batch; and the way of answers to the event loop of a load.
//!
//! Rules:
//! 1. a load that waits on another loop than the owner's looks at intervals of twice the timeout.
//!    If the owner does not run any more, or has not driven since it was asked to at the last look,
//!    the loop of the waiting load takes over;
//! 2. a load of several keys looks as well: keys that other processes load give no answer, and must
//!    not hold up the others;
//! 3. a look wakes the load, which decides anew, and begins another look if it waits on.

use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyFloat;
use pyo3::{PyTraverseError, PyVisit};

use super::connection::alive;
use super::inquiries::{end, resume};
use super::{is_alive, only_interrupts, owner_of, take_over};
use crate::cache::Cache;
use crate::errors;
use crate::raw::calls::Invoke;
use crate::raw::visit::{self, visits};
use crate::remote::{End, RemoteTier};

/// Begins a look, if the load needs it. `is_held_up`: rule 2.
pub(crate) fn watch(
    py: Python<'_>,
    tier: &RemoteTier,
    event_loop: &Bound<'_, PyAny>,
    (wait, is_held_up): (u64, bool),
) -> PyResult<()> {
    if !is_held_up && owner_of(py, tier).is_some_and(|owner| owner.is(event_loop)) {
        return Ok(());
    }
    let patience = tier.settings.machine.timeout * 2 + Duration::from_millis(1);
    let patience = PyFloat::new(py, patience.as_secs_f64());
    let look = Look::make(py, tier, event_loop, (wait, Reason::Patience { is_held_up }))?;
    event_loop.invoke_method2(pyo3::intern!(py, "call_later"), patience.as_any(), &look).map(drop)
}

/// Lets an inquiry go on, on its event loop. `here`: the running loop of this thread.
pub(crate) fn resume_on_its_loop(
    py: Python<'_>,
    tier: &RemoteTier,
    number: u64,
    here: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let event_loop = {
        let state = tier.state.borrow(py);
        let inquiry = state.waits.get(&number).and_then(|wait| wait.inquiry.as_ref());
        let Some(inquiry) = inquiry else { return Ok(()) };
        inquiry.event_loop(py).clone()
    };
    if here.is_some_and(|here| here.is(&event_loop)) {
        return resume(py, tier, number);
    }
    match call_when_answered(py, tier, &event_loop, number) {
        Err(error) if errors::is_interrupt(py, &error) => Err(error),
        // The loop was closed.
        Err(_) => end(py, tier, number, End::Cancelled),
        Ok(()) => Ok(()),
    }
}

/// Lets the event loop of a load take the answers that have come, from another thread.
fn call_when_answered(
    py: Python<'_>,
    tier: &RemoteTier,
    event_loop: &Bound<'_, PyAny>,
    wait: u64,
) -> PyResult<()> {
    let look = Look::make(py, tier, event_loop, (wait, Reason::Answers))?;
    event_loop.invoke_method1(pyo3::intern!(py, "call_soon_threadsafe"), &look).map(drop)
}

/// The reason of a call.
#[derive(Clone, Copy)]
enum Reason {
    /// Answers have come.
    Answers,
    /// No answers have come for long.
    Patience { is_held_up: bool },
}

/// A call that the loop of a waiting load makes.
#[pyclass(frozen, module = "cache._native")]
pub(crate) struct Look {
    cache: Py<PyAny>,
    event_loop: Py<PyAny>,
    wait: u64,
    reason: Reason,
}

visits!(struct Look { cache, event_loop });

impl Look {
    fn make<'py>(
        py: Python<'py>,
        tier: &RemoteTier,
        event_loop: &Bound<'py, PyAny>,
        (wait, reason): (u64, Reason),
    ) -> PyResult<Bound<'py, PyAny>> {
        let event_loop = event_loop.clone().unbind();
        Bound::new(py, Self { cache: tier.cache.clone_ref(py), event_loop, wait, reason })
            .map(Bound::into_any)
    }

    fn run(&self, py: Python<'_>) -> PyResult<()> {
        let Some(cache) = alive(&self.cache, py)? else { return Ok(()) };
        let cache = cache.get();
        let Some(tier) = cache.remote.get() else { return Ok(()) };
        let here = self.event_loop.bind(py);
        if let Reason::Patience { .. } = self.reason {
            self.look(py, tier, here)?;
            cache.poke(py)?;
        }
        resume(py, tier, self.wait)?;
        // The landings have orders.
        cache.poke(py)?;
        let is_open = tier.state.borrow(py).waits.contains_key(&self.wait);
        match self.reason {
            Reason::Patience { is_held_up } if is_open => watch(py, tier, here, (self.wait, is_held_up)),
            _ => Ok(()),
        }
    }

    /// Rule 1.
    fn look(&self, py: Python<'_>, tier: &RemoteTier, here: &Bound<'_, PyAny>) -> PyResult<()> {
        let owner = owner_of(py, tier);
        let owner_runs = match &owner {
            Some(owner) => owner.is(here) || is_alive(owner)?,
            None => false,
        };
        let (drives, asked_at) = {
            let mut state = tier.state.borrow(py);
            let drives = state.drives;
            let Some(wait) = state.waits.get_mut(&self.wait) else { return Ok(()) };
            (drives, wait.asked_at.replace(drives))
        };
        let is_owner = owner.is_some_and(|owner| owner.is(here));
        if !owner_runs || (!is_owner && asked_at == Some(drives)) {
            take_over(py, tier, here);
        }
        Ok(())
    }
}

#[pymethods]
impl Look {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let done = self.run(py);
        match &done {
            Err(error) if errors::is_interrupt(py, error) => done,
            _ => only_interrupts(py, done),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit::traverse(self, visit)
    }
}

impl Cache {
    /// The driver has looked.
    pub(super) fn has_driven(py: Python<'_>, tier: &RemoteTier) {
        let mut state = tier.state.borrow(py);
        state.drives = state.drives.wrapping_add(1);
    }
}

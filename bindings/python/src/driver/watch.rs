//! A look, on the event loop of a waiting load, at the driver on another event loop, and at the
//! questions of a batch.
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
use super::{is_alive, only_interrupts, owner_of, take_over};
use crate::cache::Cache;
use crate::errors;
use crate::raw::calls::Invoke;
use crate::raw::visit::{self, visits};
use crate::remote::RemoteTier;
use crate::room::wake;

/// Begins a look, if the load needs it.
pub(crate) fn watch(
    py: Python<'_>,
    tier: &RemoteTier,
    event_loop: &Bound<'_, PyAny>,
    (wait, keys): (u64, usize),
) -> PyResult<()> {
    let is_here = owner_of(py, tier).is_some_and(|owner| owner.is(event_loop));
    if is_here && keys == 1 {
        return Ok(());
    }
    let patience = tier.settings.machine.timeout * 2 + Duration::from_millis(1);
    let look = Look { cache: tier.cache.clone_ref(py), event_loop: event_loop.clone().unbind(), wait };
    let look = Bound::new(py, look)?.into_any();
    let patience = PyFloat::new(py, patience.as_secs_f64());
    event_loop.invoke_method2(pyo3::intern!(py, "call_later"), patience.as_any(), &look).map(drop)
}

/// A call that the loop of a waiting load makes.
#[pyclass(frozen, module = "cache._native")]
pub(crate) struct Look {
    cache: Py<PyAny>,
    event_loop: Py<PyAny>,
    wait: u64,
}

visits!(struct Look { cache, event_loop });

impl Look {
    fn run(&self, py: Python<'_>) -> PyResult<()> {
        let Some(cache) = alive(&self.cache, py)? else { return Ok(()) };
        let cache = cache.get();
        let Some(tier) = cache.remote.get() else { return Ok(()) };
        let here = self.event_loop.bind(py);
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
        cache.poke(py)?;
        let woken = {
            let mut state = tier.state.borrow(py);
            state.waits.get_mut(&self.wait).and_then(|wait| wait.future.take())
        };
        let Some((future, event_loop)) = woken else { return Ok(()) };
        wake(py, &future.into_bound(py), &event_loop.into_bound(py), true)
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

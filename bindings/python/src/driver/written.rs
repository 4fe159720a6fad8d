//! Callers that wait until the tier has acknowledged a write.
//!
//! Rules:
//! 1. whoever waits is woken when the write is acknowledged, or when no word is expected soon: the
//!    server is away or silent. Also by its own timer, in `cache._connection`;
//! 2. the driver looks at those who wait after its other work, so a wait costs nothing elsewhere.

use async_cache_core::remote::port::Name;
use async_cache_tier::clock;
use pyo3::prelude::*;

use crate::cache::Cache;
use crate::raw::Ref;
use crate::remote::{RemoteTier, WriteWait};
use crate::room::{running_loop, wake};

impl Cache {
    /// Begins to wait for the word about a write, on the running loop. False: none is expected.
    ///
    /// # Errors
    /// There is no running loop; or an interrupt.
    pub(crate) fn await_write(
        &self,
        py: Python<'_>,
        name: Option<Name>,
        future: Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let Some(tier) = self.remote.get() else { return Ok(false) };
        let running = running_loop(py)?;
        self.prepare_remote(py, &running)?;
        self.poke(py)?;
        if !tier.remote(py).expects_word_of(name.as_ref(), clock::now()) {
            return Ok(false);
        }
        let wait = WriteWait { name, future: Ref::new(future), event_loop: Ref::new(running) };
        tier.state.borrow(py).writes.push(wait);
        Ok(true)
    }
}

/// Rules 1 and 2.
pub(super) fn end_write_waits(py: Python<'_>, tier: &RemoteTier, owner: &Bound<'_, PyAny>) -> PyResult<()> {
    let waits = {
        let mut state = tier.state.borrow(py);
        if state.writes.is_empty() {
            return Ok(());
        }
        std::mem::take(&mut state.writes)
    };
    let remote = tier.remote(py);
    let now = clock::now();
    let (waits, ended): (Vec<_>, Vec<_>) =
        waits.into_iter().partition(|wait| remote.expects_word_of(wait.name.as_ref(), now));
    tier.state.borrow(py).writes.extend(waits);
    let mut interrupted = Ok(());
    for WriteWait { future, event_loop, .. } in ended {
        let (future, event_loop) = (future.into_bound(py), event_loop.into_bound(py));
        let here = event_loop.is(owner);
        interrupted = interrupted.and(wake(py, &future, &event_loop, here));
    }
    interrupted
}

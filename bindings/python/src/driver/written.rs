//! Callers that wait until the tier has acknowledged their writes.
//!
//! Rules:
//! 1. whoever waits is woken when the writes are acknowledged, or when no word is expected soon:
//!    the server is away or silent. Also by its own timer, in `cache._connection`;
//! 2. waits are listed in the order of their writes, and the driver looks at the first ones only: a
//!    look costs nothing while the first one waits.

use async_cache_core::remote::{Word, WriteMark};
use async_cache_tier::clock;
use pyo3::prelude::*;

use crate::cache::Cache;
use crate::raw::Ref;
use crate::remote::{RemoteTier, WriteWait};
use crate::room::{running_loop, wake};

impl Cache {
    /// Begins to wait for the word about writes, on the running loop. False: none is expected.
    ///
    /// # Errors
    /// There is no running loop; or an interrupt.
    pub(crate) fn await_writes(
        &self,
        py: Python<'_>,
        mark: WriteMark,
        future: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let Some(tier) = self.remote.get() else { return Ok(false) };
        let running = running_loop(py)?;
        self.prepare_remote(py, &running)?;
        tier.remote(py).wait(mark, clock::now());
        self.poke(py)?;
        if tier.remote(py).word_of(mark, clock::now()) != Word::Expected {
            return Ok(false);
        }
        let wait = WriteWait { mark, future: Ref::new(future.clone()), event_loop: Ref::new(running) };
        let mut state = tier.state.borrow(py);
        state.last_wait += 1;
        let place = (mark.order(), state.last_wait);
        state.writes.insert(place, wait);
        Ok(true)
    }
}

/// Rules 1 and 2.
pub(super) fn end_write_waits(py: Python<'_>, tier: &RemoteTier, owner: &Bound<'_, PyAny>) -> PyResult<()> {
    let mut interrupted = Ok(());
    while let Some(WriteWait { future, event_loop, .. }) = next_ended(py, tier) {
        let (future, event_loop) = (future.into_bound(py), event_loop.into_bound(py));
        let here = event_loop.is(owner);
        interrupted = interrupted.and(wake(py, &future, &event_loop, here));
    }
    interrupted
}

fn next_ended(py: Python<'_>, tier: &RemoteTier) -> Option<WriteWait> {
    let mut state = tier.state.borrow(py);
    let (_, first) = state.writes.first_key_value()?;
    if state.remote.word_of(first.mark, clock::now()) == Word::Expected {
        return None;
    }
    state.writes.pop_first().map(|(_, wait)| wait)
}

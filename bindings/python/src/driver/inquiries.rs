//! The loads that wait for answers of the tier, without tasks.
//!
//! Rules:
//! 1. the wait of an inquiry is listed in the state of the tier. The driver resumes the inquiry, on
//!    the event loop of its load, after all orders that came together;
//! 2. a step takes the inquiry out of the list. Answers that come during a step are taken at the
//!    end of the step;
//! 3. an inquiry ends with the last of its flights: see [`Cache::left_inquiry`].

use pyo3::prelude::*;

use crate::cache::Cache;
use crate::remote::{End, Inquiry, RemoteTier};
use crate::room::Room;

/// Goes on with the answers that have come, on the event loop of the load. `Err`: an interrupt.
pub(crate) fn resume(py: Python<'_>, tier: &RemoteTier, number: u64) -> PyResult<()> {
    loop {
        let (inquiry, answers) = {
            let mut state = tier.state.borrow(py);
            let Some(wait) = state.waits.get_mut(&number) else { return Ok(()) };
            // Rule 2.
            let Some(inquiry) = wait.inquiry.take() else { return Ok(()) };
            (inquiry, std::mem::take(&mut wait.answers))
        };
        match inquiry.go_on(py, tier, answers) {
            Ok(Some(inquiry)) => {
                if !park(py, tier, number, inquiry)? {
                    return Ok(());
                }
            }
            done => {
                forget(py, tier, number);
                return done.map(drop);
            }
        }
    }
}

/// Ends all flights of an inquiry.
pub(crate) fn end(py: Python<'_>, tier: &RemoteTier, number: u64, how: End) -> PyResult<()> {
    let wait = tier.state.borrow(py).waits.remove(&number);
    match wait.and_then(|wait| wait.inquiry) {
        Some(inquiry) => inquiry.end(py, how),
        None => Ok(()),
    }
}

/// Ends the loads of an event loop that ends: no task could run a loader there. `Err`: an
/// interrupt.
pub(crate) fn end_on_loop(py: Python<'_>, tier: &RemoteTier, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
    let ending: Vec<u64> = {
        let state = tier.state.borrow(py);
        let ends = |inquiry: &dyn Inquiry| inquiry.loads() && inquiry.event_loop(py).is(event_loop);
        let waits = state.waits.iter();
        waits
            .filter(|(_, wait)| wait.inquiry.as_deref().is_some_and(ends))
            .map(|(number, _)| *number)
            .collect()
    };
    let ended = ending.into_iter().map(|number| end(py, tier, number, End::Cancelled));
    ended.fold(Ok(()), PyResult::and)
}

/// Removes the wait of an inquiry that has ended.
pub(crate) fn forget(py: Python<'_>, tier: &RemoteTier, number: u64) {
    let wait = tier.state.borrow(py).waits.remove(&number);
    drop(wait);
}

/// Puts an inquiry into the list. Returns whether answers have come meanwhile.
pub(crate) fn park(
    py: Python<'_>,
    tier: &RemoteTier,
    number: u64,
    inquiry: Box<dyn Inquiry>,
) -> PyResult<bool> {
    let mut state = tier.state.borrow(py);
    if let Some(wait) = state.waits.get_mut(&number) {
        let has_answers = !wait.answers.is_empty();
        wait.inquiry = Some(inquiry);
        return Ok(has_answers);
    }
    drop(state);
    // Meanwhile the wait was ended.
    inquiry.end(py, End::Abandoned).map(|()| false)
}

impl Cache {
    /// A flight with a question of this inquiry has ended without an answer. Rules 2 and 3.
    /// `Err`: an interrupt.
    pub(crate) fn left_inquiry(&self, py: Python<'_>, number: u64, room: &Bound<'_, Room>) -> PyResult<()> {
        let Some(tier) = self.remote.get() else { return Ok(()) };
        let inquiry = {
            let mut state = tier.state.borrow(py);
            state.waits.get_mut(&number).and_then(|wait| wait.inquiry.take())
        };
        let Some(inquiry) = inquiry else { return Ok(()) };
        let rest = inquiry.leave(py, room.as_any());
        let mut state = tier.state.borrow(py);
        let (ended, has_answers) = match state.waits.get_mut(&number) {
            Some(wait) if rest.is_some() => {
                wait.inquiry = rest;
                (None, !wait.answers.is_empty())
            }
            _ => (state.waits.remove(&number), false),
        };
        if has_answers {
            state.answered.push(number);
        }
        drop(state);
        drop(ended);
        if has_answers { self.poke(py) } else { Ok(()) }
    }
}

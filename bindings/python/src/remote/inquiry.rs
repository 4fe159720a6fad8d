//! A load that waits for answers, as the driver of the tier sees it.

use async_cache_core::remote::{Answer, AskId};
use pyo3::prelude::*;

use super::RemoteTier;
use crate::raw::visit::Visit;

/// Answers to questions.
pub(crate) type Answers = Vec<(AskId, Answer)>;

/// The way in which an inquiry ends without answers.
#[derive(Clone, Copy)]
pub(crate) enum End {
    /// Its callers ask again.
    Abandoned,
    /// Its event loop has ended.
    Cancelled,
}

/// A load that asks the tier. An `Err` is an interrupt.
pub(crate) trait Inquiry: Visit {
    /// Deals with answers. `None`: the flights have ended, or a task loads.
    fn go_on(
        self: Box<Self>,
        py: Python<'_>,
        tier: &RemoteTier,
        answers: Answers,
    ) -> PyResult<Option<Box<dyn Inquiry>>>;
    /// The event loop of the load.
    fn event_loop<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny>;
    /// Whether a loader may run.
    fn loads(&self) -> bool;
    /// Ends all flights, wherever the event loop runs.
    fn end(self: Box<Self>, py: Python<'_>, end: End) -> PyResult<()>;
    /// The flight with this room has ended. `None`: it was the last one.
    fn leave(self: Box<Self>, py: Python<'_>, room: &Bound<'_, PyAny>) -> Option<Box<dyn Inquiry>>;
}

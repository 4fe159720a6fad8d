//! The settings of loop detection.

use std::num::NonZeroU32;

use async_cache_core::agent::Limits;

/// The reaction to a call that would continue a loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnLoop {
    /// The call returns [`ToolError::Loop`](super::ToolError::Loop), and the tool does not run.
    #[default]
    Error,
    /// A warning goes to the log (`tracing`), and the call is made.
    Warn,
    /// The call returns the cached result, or
    /// [`ToolError::ShortCircuited`](super::ToolError::ShortCircuited), and the tool does not run.
    ShortCircuit,
}

/// When the calls of a session count as a loop, and the reaction.
///
/// A loop is the same call with the same result more than `max_tool_repeats` times in a row; a
/// cycle of 2 to 8 calls that continues after half as many rounds (3 for 5, at least 2); or tools
/// called inside tools more than `max_execution_depth` deep. The same call with another result is
/// progress. Results are compared in the form written by serde.
#[derive(Clone, Debug)]
#[must_use]
pub struct LoopDetection {
    pub(super) limits: Limits,
    pub(super) on_loop: OnLoop,
    pub(super) considers_results: bool,
}

impl Default for LoopDetection {
    fn default() -> Self {
        Self::new()
    }
}

impl LoopDetection {
    /// 5 repeats, a depth of 50, and an error.
    pub fn new() -> Self {
        let max_repeats = NonZeroU32::new(5).expect("it is not zero");
        Self {
            limits: Limits { max_repeats, max_depth: 50 },
            on_loop: OnLoop::Error,
            considers_results: true,
        }
    }

    /// How often in a row a call may have the same result.
    pub fn max_tool_repeats(mut self, repeats: NonZeroU32) -> Self {
        self.limits.max_repeats = repeats;
        self
    }

    /// How deep calls of tools may nest.
    pub fn max_execution_depth(mut self, depth: u32) -> Self {
        self.limits.max_depth = depth;
        self
    }

    /// The reaction to a loop.
    pub fn on_loop(mut self, on_loop: OnLoop) -> Self {
        self.on_loop = on_loop;
        self
    }

    /// The same call with another result is no progress, either.
    pub fn ignoring_results(mut self) -> Self {
        self.considers_results = false;
        self
    }
}

//! Agents: which sessions are open, which tools share a resource, and when a sequence of calls is a
//! loop.
//!
//! - [`Sessions`]: sessions by id, counted, so that the same id in several places is a single
//!   session
//! - [`Resources`]: the tools that a write to a resource makes stale
//! - [`History`]: the calls of a caller, and the loops in them
//!
//! The fronts define the content of a session and of a tool (caches, context variables).

mod loops;
mod resources;
mod sessions;

pub use loops::{Alarm, BegunCall, History, LONGEST_CYCLE, Limits, Past};
pub use resources::Resources;
pub use sessions::Sessions;

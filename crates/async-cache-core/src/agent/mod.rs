//! Agents: which sessions are open, which tools share a resource, and when a sequence of calls is a loop.
//!
//! - [`Sessions`]: sessions by id, counted, so that one id in several places is one session
//! - [`Resources`]: which tools a write to a resource makes stale
//! - [`History`]: the calls that one caller made, and the loops in them
//!
//! What a session or a tool *is* (its caches, its context variable) is the fronts' business.

mod loops;
mod resources;
mod sessions;

pub use loops::{Alarm, History, LONGEST_CYCLE, Limits, Past, Ticket};
pub use resources::Resources;
pub use sessions::Sessions;

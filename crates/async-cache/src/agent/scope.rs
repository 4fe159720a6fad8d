//! The scope of a tool, or of a write.

/// Where the results of a tool are kept, and which results a write makes stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One cache for the process.
    Global,
    /// One cache for each session. Outside sessions, a tool runs uncached, and its result is not
    /// shared.
    Session,
}

//! Telling a process from its forked children, at the cost of a load.
//!
//! `getpid` is a system call, and costs a tenth of a write to a journal. `forkguard` counts the
//! forks in a handler of `pthread_atfork` instead. A child made by the bare system call `clone`,
//! behind the back of the C library, is not told apart; such a child may not run Rust code that
//! locks anything anyway.

/// The process that has made this value.
#[derive(Debug, Clone)]
pub struct ProcessMark(forkguard::Guard);

impl ProcessMark {
    /// A mark of the running process.
    #[must_use]
    #[allow(clippy::new_without_default)] // a default of a process is not to be expected
    pub fn new() -> Self {
        Self(forkguard::new())
    }

    /// Whether the running process has made the mark; `false` in its forked children.
    #[must_use]
    #[inline]
    pub fn is_of_this_process(&self) -> bool {
        !self.0.clone().detected_fork()
    }
}

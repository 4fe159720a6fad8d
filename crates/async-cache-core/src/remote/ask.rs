//! The questions of callers, and the phase of each.

use std::sync::Arc;

use super::port::{Generation, Lease, Name};
use crate::time::{Deadline, Time};

/// Names a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub(crate) u64);

/// The step to take if the engine has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Want {
    /// The asking load runs its loader.
    Load,
    /// Nothing.
    Look,
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The value of the engine.
    Value {
        /// The value, encoded.
        bytes: Arc<[u8]>,
        /// When it stops being served.
        until: Deadline,
    },
    /// The engine has no value, and none was to be loaded.
    Absent,
    /// Run the loader: nobody else does.
    Lead,
    /// Run the loader; the engine is of no help.
    Alone,
}

/// How memory may keep a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Landing {
    /// To its deadline: changes are heard.
    Covered,
    /// For this time at most: changes are not heard.
    AtMost(std::time::Duration),
    /// Not at all: it may be older than an invalidation.
    Nothing,
}

/// Where a question stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// The connection is being made.
    Parked,
    /// The engine was asked for the name.
    Reading,
    /// The engine was asked for a lease.
    Acquiring(Lease),
    /// Another load has the lease.
    Waiting {
        /// Its lease.
        lease: Lease,
        /// Since when, by the first of several waits.
        since: Time,
    },
    /// The loader runs, and its value may be stored under this lease.
    Leading(Lease),
    /// The engine was asked to store the value, which memory has.
    Filling(Lease),
    /// Answered; what the answer is about is not yet in memory.
    Answered {
        /// Whether something stands under the name, so that its changes are heard.
        is_witnessed: bool,
        /// Whether the loaded value is to be put without a lease.
        puts: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ask {
    pub(crate) name: Name,
    pub(crate) want: Want,
    pub(crate) phase: Phase,
    /// Not fenced since it was last sent.
    pub(crate) is_open: bool,
    /// The coverage under which it was last sent.
    pub(crate) epoch: u64,
    /// The generation under which it was last sent.
    pub(crate) generation: Option<Generation>,
    /// When the timer of its phase goes off.
    pub(crate) timer: Option<Time>,
    /// The beginning of its first wait.
    pub(crate) waits_since: Option<Time>,
    /// How often it was sent again without a wait in between.
    pub(crate) again: u8,
}

impl Ask {
    /// Whether it holds this lease, or will if it is granted.
    pub(crate) fn holds(&self, lease: Lease) -> bool {
        matches!(
            self.phase,
            Phase::Acquiring(held) | Phase::Leading(held) | Phase::Filling(held) if held == lease
        )
    }

    /// Whether its answer would reach memory.
    pub(crate) fn may_land(&self) -> bool {
        self.is_open
            && matches!(
                self.phase,
                Phase::Reading | Phase::Acquiring(_) | Phase::Leading(_) | Phase::Answered { .. }
            )
    }
}

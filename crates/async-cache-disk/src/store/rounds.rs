//! Making writes durable: callers share syncs (group commit).
//!
//! ```text
//! caller 1   leads round 1 |==== sync ====|
//! caller 2            joins round 2 .......|==== sync ====| leads it
//! caller 3                  joins round 2 .................| returns with caller 2
//! ```
//!
//! Rules:
//! 1. A call joins a round that has not begun; so the sync that the call waits for begins after the
//!    call. A single round is being synced at a time. When it ends, one of the callers of the next
//!    round leads that round.
//! 2. The outcome of a round is the outcome of every caller in the round. A leader that panics ends
//!    its round with an error.
//! 3. A sync that fails concerns the writes between the last durable write and the failure, by
//!    their times. A failure that no caller was told is the outcome of the next round.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::error::DiskError;

/// How many ranges of lost writes are kept apart.
const MOST_LOST_RANGES: usize = 64;

/// The rounds of a store.
#[derive(Debug, Default)]
pub(super) struct Flushes {
    rounds: Mutex<Rounds>,
    /// A round has ended.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Rounds {
    is_running: bool,
    /// The round that has not begun.
    next: Arc<Round>,
}

/// The outcome, once the round has ended.
type Round = OnceLock<Result<(), DiskError>>;

impl Flushes {
    fn lock(&self) -> MutexGuard<'_, Rounds> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the next round (rule 1). `sync` is called by the leader of a round. `abandoned` makes
    /// the error of a leader that panics.
    pub(super) fn join(
        &self,
        sync: impl FnOnce() -> Result<(), DiskError>,
        abandoned: impl FnOnce() -> DiskError,
    ) -> Result<(), DiskError> {
        let mut rounds = self.lock();
        let round = Arc::clone(&rounds.next);
        loop {
            if let Some(outcome) = round.get() {
                return outcome.clone(); // Rule 2.
            }
            if !rounds.is_running {
                break;
            }
            rounds = self.ended.wait(rounds).unwrap_or_else(PoisonError::into_inner);
        }
        // No round is running and this one has no outcome: it is the next round.
        rounds.is_running = true;
        rounds.next = Arc::default();
        drop(rounds);
        let leading = Leading { flushes: self, round, abandoned: Some(abandoned) };
        leading.end(sync())
    }
}

/// The leader of a round. If dropped without an outcome, the round ends with an error (rule 2).
struct Leading<'f, F: FnOnce() -> DiskError> {
    flushes: &'f Flushes,
    round: Arc<Round>,
    abandoned: Option<F>,
}

impl<F: FnOnce() -> DiskError> Leading<'_, F> {
    fn end(mut self, outcome: Result<(), DiskError>) -> Result<(), DiskError> {
        self.abandoned = None;
        self.announce(outcome.clone());
        outcome
    }

    fn announce(&self, outcome: Result<(), DiskError>) {
        let mut rounds = self.flushes.lock();
        rounds.is_running = false;
        let _ = self.round.set(outcome);
        drop(rounds);
        self.flushes.ended.notify_all();
    }
}

impl<F: FnOnce() -> DiskError> Drop for Leading<'_, F> {
    fn drop(&mut self) {
        if let Some(abandoned) = self.abandoned.take() {
            self.announce(Err(abandoned()));
        }
    }
}

/// What is known of the durability of writes, by their times.
#[derive(Debug, Default)]
pub(super) struct Durability {
    /// Every write up to this time is durable or lost.
    until: u64,
    /// Writes that a failed sync concerns: later than the first time, and not later than the second
    /// one. Ascending.
    lost: VecDeque<(u64, u64)>,
    /// A failure that no round has reported.
    is_unreported: bool,
}

impl Durability {
    /// Before the first write of this process. `latest`: the latest time of the store.
    pub(super) fn new(latest: u64) -> Self {
        Self { until: latest, ..Self::default() }
    }

    /// Every write up to a time is durable, but those that are lost.
    pub(super) fn synced(&mut self, until: u64) {
        self.until = self.until.max(until);
    }

    /// Rule 3. `until`: the latest write before the failure.
    pub(super) fn failed(&mut self, until: u64) {
        if until > self.until {
            self.lost.push_back((self.until, until));
            self.until = until;
        }
        if self.lost.len() > MOST_LOST_RANGES
            && let (Some(first), Some(second)) = (self.lost.pop_front(), self.lost.front_mut())
        {
            second.0 = first.0; // What is in between counts as lost, too.
        }
    }

    /// The same, for a failure that nobody was told.
    pub(super) fn failed_unseen(&mut self, until: u64) {
        self.failed(until);
        self.is_unreported = true;
    }

    /// Whether a failure was not reported yet.
    pub(super) fn is_unreported(&self) -> bool {
        self.is_unreported
    }

    /// Returns whether a failure was not reported yet; from then on, it is reported.
    pub(super) fn take_unreported(&mut self) -> bool {
        std::mem::take(&mut self.is_unreported)
    }

    /// Whether a sync that failed concerns the write with this time.
    pub(super) fn is_lost(&self, time: u64) -> bool {
        self.lost.iter().any(|(after, until)| time > *after && time <= *until)
    }
}

#[cfg(test)]
mod tests;

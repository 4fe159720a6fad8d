//! Loops: detects when the calls of a caller go round in circles.
//!
//! Owns the recent calls of a caller, and the length of their repetitions. A *caller* is a session,
//! or a running call of a tool: calls are compared with their siblings only, so the calls that a
//! tool makes inside are not part of its caller's sequence.
//!
//! A call goes through three states: *asked* ([`History::check`]; an alarm may refuse the call, and
//! then it was never made), *begun* ([`History::begin`]), *ended* ([`History::end`], with an
//! outcome; a cancelled call never ends).
//!
//! Rules:
//! 1. Two calls are *alike* if they are the same call (tool and arguments), and their outcomes are
//!    not known to differ. So the same call with another outcome is progress, and calls that still
//!    run count.
//! 2. For each period p from 1 to [`LONGEST_CYCLE`], `runs[p - 1]` is the number of calls, up to
//!    the last begun, that are each alike to the call p calls before, without a gap.
//! 3. A cycle of p calls has been run in full n times when `runs[p - 1]` is (n - 1) * p.
//! 4. An alarm is raised at the call that would continue a cycle that has been run in full as often
//!    as its limit allows: [`Limits::max_repeats`] times for a single call, [`Limits::max_cycles`]
//!    times for longer cycles. The alarm names the shortest period.
//!
//! So the history is bounded (rule 2 needs the last [`LONGEST_CYCLE`] calls, and twice as many are
//! kept for calls that end late), and the cost of a call does not depend on the length of the
//! history.

use std::num::NonZeroU32;

/// The longest detected cycle of calls.
pub const LONGEST_CYCLE: usize = 8;

/// The number of kept calls: a call that ends after this many further calls have begun does not
/// count as progress any more.
const KEPT: usize = 2 * LONGEST_CYCLE;

/// How often is too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How often in a row a call may have the same outcome.
    pub max_repeats: NonZeroU32,
    /// How many calls may be around a call, itself included.
    pub max_depth: u32,
}

impl Limits {
    /// How often in a row a cycle of two or more calls may be run: half of `max_repeats`, rounded
    /// up, and at least twice, because a single run is no cycle.
    pub fn max_cycles(&self) -> u32 {
        self.max_repeats.get().div_ceil(2).max(2)
    }
}

/// Why a call should not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Alarm {
    /// The call would be the `count`th in a row with the same outcome.
    Repeat {
        /// Including the refused call.
        count: u32,
    },
    /// The last `period` calls were made over and over, `count` times in full, and the refused call
    /// continues the cycle.
    Oscillation {
        /// How many calls make a cycle: 2 to [`LONGEST_CYCLE`].
        period: usize,
        /// How often the cycle has been run.
        count: u32,
    },
    /// There would be `depth` calls, nested in each other.
    Depth {
        /// Including the refused call.
        depth: u32,
    },
}

/// A call that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BegunCall(u64);

/// A previous call.
#[derive(Debug)]
pub struct Past<C, R> {
    call: u64,
    /// The call, for reports.
    pub asked: C,
    /// The outcome of the call; `None` while it runs.
    pub outcome: Option<R>,
}

/// The recent calls of a caller. `C` is a front's description of a call, `R` an outcome.
#[derive(Debug)]
pub struct History<C, R> {
    recent: [Option<Past<C, R>>; KEPT],
    begun: u64,
    runs: [u32; LONGEST_CYCLE],
}

impl<C, R> Default for History<C, R> {
    fn default() -> Self {
        Self { recent: [const { None }; KEPT], begun: 0, runs: [0; LONGEST_CYCLE] }
    }
}

impl<C, R> History<C, R> {
    /// Whether a call would continue a loop, or nest too deep. `call` names tool and arguments;
    /// `depth` is the number of nested calls, including this call.
    #[inline]
    pub fn check(&self, limits: &Limits, call: u64, depth: u32) -> Option<Alarm> {
        if depth > limits.max_depth {
            return Some(Alarm::Depth { depth });
        }
        let max_repeats = limits.max_repeats.get();
        for (period, &run) in (1..).zip(&self.runs) {
            let cycles = if period == 1 { max_repeats } else { limits.max_cycles() };
            // In `u64`, because a limit may be arbitrarily large.
            if u64::from(run) < u64::from(cycles - 1) * period as u64 || !self.is_call(call, period) {
                continue;
            }
            return Some(if period == 1 {
                Alarm::Repeat { count: (run + 1).saturating_add(1) }
            } else {
                Alarm::Oscillation { period, count: run / period as u32 + 1 }
            });
        }
        None
    }

    /// Records that a call begins. Returns the call that was dropped to make room, if any.
    #[inline]
    pub fn begin(&mut self, call: u64, asked: C) -> (BegunCall, Option<Past<C, R>>) {
        for period in 1..=LONGEST_CYCLE {
            let run = if self.is_call(call, period) { self.runs[period - 1].saturating_add(1) } else { 0 };
            // Less than the highest number, so that counts, which are one or two larger, do not
            // overflow.
            self.runs[period - 1] = run.min(u32::MAX - 1);
        }
        let begun = BegunCall(self.begun);
        self.begun += 1;
        let past = Past { call, asked, outcome: None };
        (begun, self.recent[Self::slot(begun.0)].replace(past))
    }

    /// The known outcomes of the same call that are near enough for a comparison with this call's
    /// outcome.
    #[inline]
    pub fn twins(&self, begun: BegunCall) -> impl Iterator<Item = &R> {
        let call = self.at(begun.0).map(|past| past.call);
        self.near(begun).filter_map(move |at| {
            let past = self.at(at)?;
            past.outcome.as_ref().filter(|_| Some(past.call) == call)
        })
    }

    /// Records the outcome of a call; `is_same` compares it with an earlier outcome of the call.
    /// Where outcomes differ, runs through this call are cut. Returns the outcome if it is not
    /// needed.
    #[inline]
    pub fn end(&mut self, begun: BegunCall, outcome: R, mut is_same: impl FnMut(&R) -> bool) -> Option<R> {
        let Some(call) = self.at(begun.0).map(|past| past.call) else { return Some(outcome) };
        for at in self.near(begun) {
            let Some(Past { call: other, outcome: Some(known), .. }) = self.at(at) else { continue };
            if *other == call && !is_same(known) {
                // The later of the two is not alike to the earlier, so a run of that period begins
                // after it.
                let after = self.begun - 1 - at.max(begun.0);
                let run = &mut self.runs[at.abs_diff(begun.0) as usize - 1];
                *run = (*run).min(u32::try_from(after).unwrap_or(u32::MAX));
            }
        }
        let past = self.recent[Self::slot(begun.0)].as_mut().expect("looked up above");
        past.outcome.replace(outcome)
    }

    /// The last `count` calls, oldest first; fewer if fewer are kept.
    pub fn last(&self, count: usize) -> impl Iterator<Item = &Past<C, R>> {
        (self.begun.saturating_sub(count as u64)..self.begun).filter_map(|at| self.at(at))
    }

    /// The description of a recent call.
    pub fn asked(&self, call: u64) -> Option<&C> {
        self.iter().find(|past| past.call == call).map(|past| &past.asked)
    }

    /// All kept calls.
    pub fn iter(&self) -> impl Iterator<Item = &Past<C, R>> {
        self.recent.iter().flatten()
    }

    fn slot(at: u64) -> usize {
        at as usize % KEPT
    }

    #[inline]
    fn at(&self, at: u64) -> Option<&Past<C, R>> {
        let is_kept = at < self.begun && self.begun - at <= KEPT as u64;
        self.recent[Self::slot(at)].as_ref().filter(|_| is_kept)
    }

    /// The numbers of the calls that are at most a cycle away.
    #[inline]
    fn near(&self, BegunCall(at): BegunCall) -> impl Iterator<Item = u64> + use<C, R> {
        let reach = LONGEST_CYCLE as u64;
        (at.saturating_sub(reach)..self.begun.min(at + reach + 1)).filter(move |&other| other != at)
    }

    /// Whether the call that was made `period` calls before the next call is this call.
    #[inline]
    fn is_call(&self, call: u64, period: usize) -> bool {
        let at = self.begun.checked_sub(period as u64).and_then(|at| self.at(at));
        at.is_some_and(|past| past.call == call)
    }
}

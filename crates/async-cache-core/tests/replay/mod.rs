//! Random programs that can be replayed.
//!
//! Every random test runs a fixed number of seeds, 0 and up. When a seed fails, the seed and its
//! last operations are printed. Environment variables:
//! - `ASYNC_CACHE_SEED=17`: run only this seed, to replay a failure;
//! - `ASYNC_CACHE_ROUNDS=100000`: run this many seeds, to soak.

#![allow(clippy::print_stderr)] // output of a failure

use std::collections::VecDeque;
use std::fmt::Debug;

/// The number of operations printed for a failure.
const LAST: usize = 24;

/// One run of a random program: its dice, and its last operations.
pub(crate) struct Run<Op: Debug> {
    pub(crate) dice: fastrand::Rng,
    seed: u64,
    setting: String,
    last: VecDeque<Op>,
}

impl<Op: Debug> Run<Op> {
    /// Records the settings of the program.
    pub(crate) fn set_up(&mut self, setting: &impl Debug) {
        self.setting = format!("{setting:?}");
    }

    /// Records an operation before it is executed.
    pub(crate) fn note(&mut self, op: Op) {
        if self.last.len() == LAST {
            self.last.pop_front();
        }
        self.last.push_back(op);
    }
}

impl<Op: Debug> Drop for Run<Op> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("with {}", self.setting);
            eprintln!("the last operations, the failing one at the end:");
            for op in &self.last {
                eprintln!("    {op:?}");
            }
            eprintln!("replay with ASYNC_CACHE_SEED={}", self.seed);
        }
    }
}

/// Runs `program` with every seed.
pub(crate) fn every_seed<Op: Debug>(rounds: u64, mut program: impl FnMut(&mut Run<Op>)) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a whole number"));
    let seeds = match number("ASYNC_CACHE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("ASYNC_CACHE_ROUNDS").unwrap_or(rounds),
    };
    for seed in seeds {
        let dice = fastrand::Rng::with_seed(seed);
        program(&mut Run { dice, seed, setting: String::new(), last: VecDeque::new() });
    }
}

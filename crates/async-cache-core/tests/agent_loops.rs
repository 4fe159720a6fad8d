//! The loop detector: against a naive model on random sequences, on loops, and on sequences that
//! only look like loops.
//!
//! The model keeps every call with its outcome. For each period it counts, from the end, how often
//! the last calls have been repeated. How to replay and soak: see `replay/mod.rs`.

use std::num::NonZeroU32;

use async_cache_core::agent::{Alarm, BegunCall, History, LONGEST_CYCLE, Limits};

use crate::replay::every_seed;

const LIMITS: Limits = Limits { max_repeats: NonZeroU32::new(5).unwrap(), max_depth: 50 };

fn limits(max_repeats: u32) -> Limits {
    Limits { max_repeats: NonZeroU32::new(max_repeats).unwrap(), max_depth: 50 }
}

/// Every call made so far, and its outcome.
#[derive(Default)]
struct Model(Vec<(u64, Option<u64>)>);

impl Model {
    fn are_alike(&self, a: usize, b: usize) -> bool {
        let ((a, a_outcome), (b, b_outcome)) = (self.0[a], self.0[b]);
        a == b && (a_outcome.is_none() || b_outcome.is_none() || a_outcome == b_outcome)
    }

    /// The alarm for a call, by the rules.
    fn check(&self, limits: Limits, call: u64) -> Option<Alarm> {
        for period in 1..=LONGEST_CYCLE {
            let len = self.0.len();
            if len < period || self.0[len - period].0 != call {
                continue;
            }
            // How many of the last calls repeat the call `period` calls before them.
            let run = (period..len).rev().take_while(|&at| self.are_alike(at, at - period)).count();
            let max = if period == 1 { limits.max_repeats.get() } else { limits.max_cycles() };
            if (run + period) / period >= max as usize {
                let count = u32::try_from((run + period) / period).unwrap();
                return Some(match period {
                    1 => Alarm::Repeat { count: count + 1 },
                    _ => Alarm::Oscillation { period, count },
                });
            }
        }
        None
    }
}

#[test]
fn the_detector_agrees_with_a_naive_model_on_random_calls() {
    let mut alarms = [0; LONGEST_CYCLE + 1];
    let mut quiet = 0;
    every_seed(600, |run| {
        let limits = limits(run.dice.u32(1..8));
        let (tools, outcomes) = (run.dice.u64(1..5), run.dice.u64(1..4));
        let is_periodic = run.dice.bool();
        run.set_up(&(limits, tools, outcomes, is_periodic));
        let (mut history, mut model) = (History::<usize, u64>::default(), Model::default());
        let mut running: Vec<(BegunCall, usize)> = Vec::new();
        let mut cycle: Vec<u64> = vec![0];
        for step in 0..300_usize {
            if step % 60 == 0 {
                cycle = (0..run.dice.usize(1..=LONGEST_CYCLE)).map(|_| run.dice.u64(..tools)).collect();
            }
            let call = if is_periodic && run.dice.u32(..20) > 0 {
                cycle[step % cycle.len()]
            } else {
                run.dice.u64(..tools)
            };
            let expected = model.check(limits, call);
            run.note((call, expected));
            assert_eq!(history.check(&limits, call, 1), expected);
            match expected {
                Some(Alarm::Repeat { .. }) => alarms[1] += 1,
                Some(Alarm::Oscillation { period, .. }) => alarms[period] += 1,
                _ => quiet += 1,
            }
            // Refused calls are not made; with a front that only warns they are made.
            if expected.is_some() && run.dice.bool() {
                continue;
            }
            let (begun, _) = history.begin(call, model.0.len());
            running.push((begun, model.0.len()));
            model.0.push((call, None));
            // Some calls run for a while, but not long enough to be forgotten.
            while !running.is_empty() && (running.len() > 6 || run.dice.u32(..4) > 0) {
                let (begun, at) = running.swap_remove(run.dice.usize(..running.len()));
                if model.0.len() - at > LONGEST_CYCLE {
                    continue;
                }
                let outcome = run.dice.u64(..outcomes) * u64::from(run.dice.u32(..8) == 0);
                model.0[at].1 = Some(outcome);
                history.end(begun, outcome, |other| *other == outcome);
            }
            let asked: Vec<_> = history.last(LONGEST_CYCLE).map(|past| past.asked).collect();
            assert_eq!(
                asked,
                (model.0.len().saturating_sub(LONGEST_CYCLE)..model.0.len()).collect::<Vec<_>>()
            );
        }
    });
    // A single seed does not cover all cases.
    if std::env::var_os("ASYNC_CACHE_SEED").is_none() {
        assert!(alarms[1..=4].iter().all(|&count| count > 0) && quiet > 0, "{alarms:?} {quiet}");
    }
}

/// Makes calls with their outcomes until an alarm; returns the number of the call that raised the
/// alarm.
fn first_alarm(limits: Limits, calls: impl IntoIterator<Item = (u64, u64)>) -> Option<(usize, Alarm)> {
    let mut history = History::<(), u64>::default();
    for (at, (call, outcome)) in calls.into_iter().enumerate() {
        if let Some(alarm) = history.check(&limits, call, 1) {
            return Some((at + 1, alarm));
        }
        let (begun, _) = history.begin(call, ());
        history.end(begun, outcome, |other| *other == outcome);
    }
    None
}

fn cycle(period: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..10_000).map(move |at| (at % period, at % period))
}

#[test]
fn a_call_that_is_repeated_is_the_alarm_one_call_after_the_limit() {
    for max_repeats in [1, 2, 5, 100] {
        let alarm = Alarm::Repeat { count: max_repeats + 1 };
        let at = max_repeats as usize + 1;
        assert_eq!(first_alarm(limits(max_repeats), cycle(1)), Some((at, alarm)));
    }
}

#[test]
fn a_cycle_is_the_alarm_one_call_after_its_limit_whatever_its_period() {
    for period in 2..=LONGEST_CYCLE {
        let alarm = Alarm::Oscillation { period, count: 3 };
        assert_eq!(first_alarm(LIMITS, cycle(period as u64)), Some((3 * period + 1, alarm)));
    }
    assert_eq!(
        first_alarm(LIMITS, cycle(LONGEST_CYCLE as u64 + 1)),
        None,
        "longer cycles are not looked for"
    );
}

#[test]
fn a_cycle_after_other_calls_is_found_as_soon() {
    let before = (100..137).map(|call| (call, 0));
    let found = first_alarm(LIMITS, before.chain(cycle(3))).unwrap();
    assert_eq!(found, (37 + 10, Alarm::Oscillation { period: 3, count: 3 }));
}

#[test]
fn the_level_after_the_deepest_is_the_alarm() {
    let history = History::<(), ()>::default();
    assert_eq!(history.check(&LIMITS, 1, 50), None);
    assert_eq!(history.check(&LIMITS, 1, 51), Some(Alarm::Depth { depth: 51 }));
}

#[test]
fn what_makes_progress_is_no_loop() {
    let outcome_changes = |at: u64| (1, at);
    let quiet: [(&str, Vec<(u64, u64)>); 9] = [
        ("polling, and every answer is another", (0..500).map(outcome_changes).collect()),
        (
            "polling, and an answer stays for as long as the limit lets it",
            (0..500).map(|at| (1, at / 4)).collect(),
        ),
        ("pagination", (0..500).map(|page| (page, 0)).collect()),
        ("retries up to the limit, then something else", (0..500).map(|at| (at / 5, 0)).collect()),
        (
            "reading the same between other things",
            (0..500).map(|at| (if at % 2 == 0 { 0 } else { at }, 0)).collect(),
        ),
        ("test and edit, and the tests say something else", (0..500).map(|at| (at % 2, at / 2)).collect()),
        (
            "a cycle of which one outcome changes",
            (0..500).map(|at| (at % 3, if at % 3 == 1 { at } else { 0 })).collect(),
        ),
        ("two cycles, and never more", (0..500).map(|at| (at % 4 + at / 8 * 4, 0)).collect()),
        // Depth first: down, and back up through calls with other arguments.
        ("a walk over a tree", (1..500).map(|node| (node ^ (node >> 1), node)).collect()),
    ];
    for (name, calls) in quiet {
        assert_eq!(first_alarm(LIMITS, calls), None, "{name}");
    }
}

#[test]
fn a_refused_call_stays_refused_and_another_call_is_the_way_out() {
    let mut history = History::<(), u64>::default();
    let made = |history: &mut History<(), u64>, call| {
        let alarm = history.check(&LIMITS, call, 1);
        if alarm.is_none() {
            let (begun, _) = history.begin(call, ());
            history.end(begun, 0, |_| true);
        }
        alarm.is_none()
    };
    assert!((0..5).all(|_| made(&mut history, 1)));
    assert!((0..3).all(|_| !made(&mut history, 1)));
    assert!(made(&mut history, 2));
    assert!((0..5).all(|_| made(&mut history, 1)));
    assert!(!made(&mut history, 1));
}

#[test]
fn calls_that_run_at_once_count_when_they_begin() {
    let mut history = History::<(), u64>::default();
    for _ in 0..5 {
        assert_eq!(history.check(&LIMITS, 1, 1), None);
        history.begin(1, ());
    }
    assert_eq!(history.check(&LIMITS, 1, 1), Some(Alarm::Repeat { count: 6 }));
}

#[test]
fn what_makes_room_is_handed_out_and_the_history_is_bounded() {
    let mut history = History::<u64, u64>::default();
    let mut handed_out = 0;
    for call in 0..1000 {
        let (begun, past) = history.begin(call, call);
        handed_out += u64::from(past.is_some());
        assert_eq!(history.end(begun, 0, |_| true), None);
    }
    assert_eq!(handed_out + history.iter().count() as u64, 1000);
    assert_eq!(history.iter().count(), 2 * LONGEST_CYCLE);
}

#[test]
fn a_call_that_ends_when_it_is_forgotten_changes_nothing() {
    let mut history = History::<(), u64>::default();
    let (late, _) = history.begin(1, ());
    for _ in 0..100 {
        let (begun, _) = history.begin(1, ());
        history.end(begun, 0, |_| true);
    }
    assert_eq!(history.end(late, 7, |_| false), Some(7));
    assert!(history.check(&LIMITS, 1, 1).is_some());
}

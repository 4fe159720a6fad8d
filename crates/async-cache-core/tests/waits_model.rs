//! The graph of waits against naive reachability, on random graphs.
//!
//! The model is a list of edges; a wait must be refused if and only if a path leads back from its
//! target. How to replay and soak: see `replay/mod.rs`.

use std::cell::Cell;
use std::hash::{Hash, Hasher};

use async_cache_core::waits::{WaitGraph, WouldNeverEnd};

use crate::replay::every_seed;

/// Whether a path leads from `from` to `to`: computes all reachable flights, in as many rounds as
/// there are flights.
fn reaches(flights: usize, edges: &[(usize, usize)], from: usize, to: usize) -> bool {
    let mut reached = vec![false; flights];
    reached[from] = true;
    for _ in 0..flights {
        for &(waiter, target) in edges {
            reached[target] |= reached[waiter];
        }
    }
    reached[to]
}

#[test]
fn a_wait_is_refused_if_and_only_if_it_closes_a_circle() {
    let mut refused = 0;
    every_seed(400, |run| {
        let flights = if run.dice.bool() { run.dice.usize(1..10) } else { run.dice.usize(10..40) };
        run.set_up(&flights);
        let mut graph = WaitGraph::new();
        let mut edges = Vec::new();
        for _ in 0..200 {
            let (waiter, target) = (run.dice.usize(..flights), run.dice.usize(..flights));
            if run.dice.u32(..5) < 3 {
                run.note(("wait", waiter, target));
                let closes = reaches(flights, &edges, target, waiter);
                let expected = if closes { Err(WouldNeverEnd) } else { Ok(()) };
                assert_eq!(graph.wait(waiter, target), expected);
                refused += u32::from(closes);
                if !closes {
                    edges.push((waiter, target));
                }
            } else {
                // Half of the time a recorded wait, otherwise any wait, recorded or not.
                let noted = run.dice.choice(&edges).copied().filter(|_| run.dice.bool());
                let (waiter, target) = noted.unwrap_or((waiter, target));
                run.note(("done", waiter, target));
                graph.done(waiter, target);
                if let Some(at) = edges.iter().position(|&edge| edge == (waiter, target)) {
                    edges.remove(at);
                }
            }
            graph.validate();
            assert_eq!(graph.is_empty(), edges.is_empty());
        }
        for (waiter, target) in edges {
            assert!(!graph.is_empty(), "a wait was forgotten");
            graph.done(waiter, target);
        }
        assert!(graph.is_empty(), "a wait is left behind");
    });
    assert!(refused > 0, "no circle was tried");
}

thread_local! {
    static COMPARISONS: Cell<u64> = const { Cell::new(0) };
}

/// A name that counts its comparisons.
#[derive(Clone, Copy, Debug, Eq)]
struct Counted(u64);

impl PartialEq for Counted {
    fn eq(&self, other: &Self) -> bool {
        COMPARISONS.set(COMPARISONS.get() + 1);
        self.0 == other.0
    }
}

impl Hash for Counted {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// The number of comparisons of names needed to record these waits, and to remove them.
fn comparisons(before: &[(u64, u64)], waits: impl IntoIterator<Item = (u64, u64)>) -> u64 {
    let mut graph = WaitGraph::new();
    for &(waiter, target) in before {
        graph.wait(Counted(waiter), Counted(target)).unwrap();
    }
    COMPARISONS.set(0);
    let waits: Vec<_> = waits.into_iter().collect();
    for &(waiter, target) in &waits {
        graph.wait(Counted(waiter), Counted(target)).unwrap();
    }
    for &(waiter, target) in &waits {
        graph.done(Counted(waiter), Counted(target));
    }
    COMPARISONS.get()
}

/// The story: a wait walked through all waits of the awaited load, and the end of a wait through
/// all waits of its load, under a lock of the whole process. So 8,000 loads waiting for one load
/// that waited for 8,000 took ten seconds, during which no other load could begin to wait. Each
/// shape here was quadratic, or is quadratic with only an order or with only a search from both
/// sides.
#[test]
fn many_waits_take_work_in_proportion_to_their_number() {
    const N: u64 = 4_000;
    let (one, two, left, right) = (1 << 40, 1 << 41, 1 << 42, 1 << 43);
    let fan_out: Vec<_> = (0..N).map(|key| (one, right + key)).collect();
    let fan_in: Vec<_> = (0..N).map(|key| (left + key, one)).collect();
    // Loads that others wait for already, each with a load that it waits for.
    let old: Vec<_> = (0..N).map(|key| (right + key, two + key)).collect();
    let shapes: [(&str, u64); 9] = [
        ("one waits for many", comparisons(&[], fan_out.clone())),
        ("many wait for one", comparisons(&[], fan_in.clone())),
        ("many wait for one that waits for many", comparisons(&fan_out, fan_in.clone())),
        ("one that many wait for waits for many", comparisons(&fan_in, fan_out.clone())),
        ("one that many wait for waits for many old ones", {
            comparisons(&[fan_in.clone(), old.clone()].concat(), fan_out.iter().rev().copied())
        }),
        ("one that is old waits for many old ones", {
            comparisons(&[fan_in.clone(), vec![(one, two - 1)], old.clone()].concat(), fan_out.clone())
        }),
        ("a chain that grows at its end", comparisons(&[], (0..N).map(|key| (key, key + 1)))),
        ("a chain that grows at its beginning", comparisons(&[], (0..N).rev().map(|key| (key, key + 1)))),
        // A load awaited by many begins many loads, which all wait for another load that waits for
        // many.
        ("many in the middle of much", {
            let before: Vec<_> = fan_in.iter().copied().chain((0..N).map(|key| (two, right + key))).collect();
            comparisons(&before, (0..N).flat_map(|key| [(one, key), (key, two)]))
        }),
    ];
    for (shape, comparisons) in shapes {
        assert!(comparisons < 60 * N, "{shape}: {comparisons} comparisons for {N} flights");
    }
}

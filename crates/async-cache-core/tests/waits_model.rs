//! The graph of waits against naive reachability, on random graphs.
//!
//! The model is a list of edges; a wait must be refused if and only if a path leads back from its target. How to
//! replay and soak: see `replay/mod.rs`.

mod replay;

use std::cell::Cell;
use std::hash::{Hash, Hasher};

use async_cache_core::waits::{WaitGraph, WouldNeverEnd};

use replay::every_seed;

/// Whether a path leads from `from` to `to`: everything that can be reached, by as many rounds as there are flights.
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
        let flights = run.dice.usize(1..10);
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
                // Half of the time something that was noted, else perhaps something that was not.
                let noted = run.dice.choice(&edges).copied().filter(|_| run.dice.bool());
                let (waiter, target) = noted.unwrap_or((waiter, target));
                run.note(("done", waiter, target));
                graph.done(waiter, target);
                if let Some(at) = edges.iter().position(|&edge| edge == (waiter, target)) {
                    edges.remove(at);
                }
            }
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

/// A name that counts how often it is compared.
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

#[test]
fn a_wait_takes_work_in_proportion_to_the_graph_not_to_its_square() {
    const WIDTH: u64 = 3_000;
    let mut graph = WaitGraph::new();
    for target in 2..WIDTH {
        graph.wait(Counted(1), Counted(target)).unwrap();
    }
    COMPARISONS.set(0);
    graph.wait(Counted(0), Counted(1)).unwrap();
    let comparisons = COMPARISONS.get();
    assert!(comparisons < 10 * WIDTH, "{comparisons} comparisons in a graph of {WIDTH} flights");
}

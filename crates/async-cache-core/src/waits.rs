//! Who waits for whom: refuses the wait that would close a circle.
//!
//! A loader may ask the cache for another key, and so wait for another flight. If that flight's loader waits,
//! directly or through others, for the first one, none of them would ever end. Owns the graph of flights that
//! wait for flights. Invariant: the graph has no circle, because [`WaitGraph::wait`] refuses the edge that
//! would close one.
//!
//! Only loaders that ask a cache appear here; callers outside of any load cannot be waited for.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// The flights that wait for other flights. `N` names a flight across everything that shares the graph.
#[derive(Debug)]
pub struct WaitGraph<N> {
    /// For each waiting flight those it waits for; a loader may ask for several keys at once, or one key twice.
    edges: HashMap<N, Vec<N>>,
}

/// The wait would never end: the flight that is waited for waits, itself or through others, for the one that
/// asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WouldNeverEnd;

impl<N: Copy + Eq + Hash> Default for WaitGraph<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<N: Copy + Eq + Hash> WaitGraph<N> {
    /// Nobody waits.
    pub fn new() -> Self {
        Self { edges: HashMap::new() }
    }

    /// Notes that `waiter` waits for `target`, unless that would never end.
    ///
    /// # Errors
    /// [`WouldNeverEnd`] if `target` is `waiter` or waits for it; nothing is noted then.
    pub fn wait(&mut self, waiter: N, target: N) -> Result<(), WouldNeverEnd> {
        if self.reaches(target, waiter) {
            return Err(WouldNeverEnd);
        }
        self.edges.entry(waiter).or_default().push(target);
        Ok(())
    }

    /// Takes back one [`WaitGraph::wait`].
    pub fn done(&mut self, waiter: N, target: N) {
        let Some(targets) = self.edges.get_mut(&waiter) else { return };
        if let Some(at) = targets.iter().position(|&t| t == target) {
            targets.swap_remove(at);
        }
        if targets.is_empty() {
            self.edges.remove(&waiter);
        }
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.edges.is_empty()
    }

    fn reaches(&self, from: N, to: N) -> bool {
        let mut seen = HashSet::from([from]);
        let mut rest = vec![from];
        while let Some(node) = rest.pop() {
            if node == to {
                return true;
            }
            let targets = self.edges.get(&node).into_iter().flatten();
            rest.extend(targets.filter(|&&target| seen.insert(target)));
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flight_that_asks_for_itself_is_refused() {
        assert_eq!(WaitGraph::new().wait(1, 1), Err(WouldNeverEnd));
    }

    #[test]
    fn the_wait_that_closes_a_circle_is_refused_and_the_others_stay() {
        let mut graph = WaitGraph::new();
        graph.wait(1, 2).unwrap();
        graph.wait(2, 3).unwrap();
        graph.wait(1, 3).unwrap();
        assert_eq!(graph.wait(3, 1), Err(WouldNeverEnd));
        graph.done(1, 2);
        graph.done(1, 3);
        graph.wait(3, 1).unwrap();
    }

    #[test]
    fn a_wait_that_was_noted_twice_is_taken_back_once() {
        let mut graph = WaitGraph::new();
        graph.wait(1, 2).unwrap();
        graph.wait(1, 2).unwrap();
        graph.done(1, 2);
        assert_eq!(graph.wait(2, 1), Err(WouldNeverEnd));
        graph.done(1, 2);
        assert!(graph.is_empty());
    }
}

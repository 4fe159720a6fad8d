//! Which load waits for which: refuses the wait that would close a circle.
//!
//! A loader may ask the cache for another key, and so wait for another flight. If that flight's loader waits,
//! directly or through others, for the first one, none of them would ever end. Owns the graph of flights that
//! wait for flights. Only loaders that ask a cache appear here; callers outside of any load cannot be waited for.
//!
//! The graph is kept in an order, so that nearly every wait is found harmless by one comparison. Rules:
//! 1. The graph has no circle, because [`WaitGraph::wait`] refuses the wait that would close one.
//! 2. All flights of the graph stand in a line, and each stands before those that it waits for. So a wait of a flight for
//!    one behind it closes no circle.
//! 3. A flight that comes into the graph as a waiter is put at the front, one that comes as a target at the back: both
//!    keep rule 2 without a look at any other flight.
//! 4. A wait for a flight that stands before the waiter may close a circle, and only through flights that stand between
//!    the two. Two searches go from the target to what it waits for, and from the waiter to what waits for it, no
//!    further than between the two. The one that has cost less goes on, so the cheaper side decides. Meeting the other
//!    end is a circle. A search that ends without it has found all that has to move: the flights that the target waits
//!    for go behind the waiter, or those that wait for the waiter before the target, in the order in which they stood.
//! 5. A flight without waits leaves the graph.

mod line;

use std::hash::Hash;

use crate::number::{NumberMap, NumberSet};
use line::{At, Line, Place};

/// The flights that wait for other flights. `N` names a flight across everything that shares the graph: a number of a
/// counter.
#[derive(Debug)]
pub struct WaitGraph<N> {
    flights: NumberMap<N, Flight<N>>,
    line: Line<N>,
}

#[derive(Debug)]
struct Flight<N> {
    place: Place,
    /// Those that it waits for, and how often: a loader may ask for several keys at once, or for one key twice.
    targets: NumberMap<N, usize>,
    /// Those that wait for it.
    waiters: NumberSet<N>,
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
        Self { flights: NumberMap::default(), line: Line::new() }
    }

    /// Notes that `waiter` waits for `target`, unless that would never end.
    ///
    /// # Errors
    /// [`WouldNeverEnd`] if `target` is `waiter` or waits for it; nothing is noted then.
    pub fn wait(&mut self, waiter: N, target: N) -> Result<(), WouldNeverEnd> {
        if waiter == target {
            return Err(WouldNeverEnd);
        }
        match (self.place(waiter), self.place(target)) {
            (Some(place), Some(of_target)) if place > of_target => {
                self.put_in_order((waiter, place), (target, of_target))?;
            }
            (Some(_), Some(_)) => {}
            // Rule 3.
            (known, known_target) => {
                if known.is_none() {
                    self.put(waiter, At::Front);
                }
                if known_target.is_none() {
                    self.put(target, At::Back);
                }
            }
        }
        if let Some(flight) = self.flights.get_mut(&waiter) {
            *flight.targets.entry(target).or_insert(0) += 1;
        }
        if let Some(flight) = self.flights.get_mut(&target) {
            flight.waiters.insert(waiter);
        }
        Ok(())
    }

    /// Takes back one [`WaitGraph::wait`].
    pub fn done(&mut self, waiter: N, target: N) {
        let Some(flight) = self.flights.get_mut(&waiter) else { return };
        let Some(waits) = flight.targets.get_mut(&target) else { return };
        *waits -= 1;
        if *waits > 0 {
            return;
        }
        flight.targets.remove(&target);
        if is_mostly_empty(flight.targets.len(), flight.targets.capacity()) {
            flight.targets.shrink_to_fit();
        }
        if let Some(flight) = self.flights.get_mut(&target) {
            flight.waiters.remove(&waiter);
            if is_mostly_empty(flight.waiters.len(), flight.waiters.capacity()) {
                flight.waiters.shrink_to_fit();
            }
        }
        self.leave_if_idle(waiter);
        self.leave_if_idle(target);
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// Checks the invariants; for tests.
    ///
    /// # Panics
    /// If one does not hold.
    pub fn validate(&self) {
        for flight in self.flights.values() {
            assert!(!flight.targets.is_empty() || !flight.waiters.is_empty(), "an idle flight has left");
            for target in flight.targets.keys() {
                let target = &self.flights[target];
                assert!(flight.place < target.place, "a flight stands before those that it waits for");
            }
        }
    }

    fn place(&self, flight: N) -> Option<Place> {
        self.flights.get(&flight).map(|flight| flight.place)
    }

    /// Puts a flight into the line, and into the graph if it is new there.
    fn put(&mut self, name: N, at: At) {
        let flights = &mut self.flights;
        let place = self.line.insert(name, at, |moved, place| {
            if let Some(flight) = flights.get_mut(&moved) {
                flight.place = place;
            }
        });
        let new = || Flight { place, targets: NumberMap::default(), waiters: NumberSet::default() };
        flights.entry(name).or_insert_with(new).place = place;
    }

    /// Rule 5.
    fn leave_if_idle(&mut self, name: N) {
        let is_idle = |flight: &Flight<N>| flight.targets.is_empty() && flight.waiters.is_empty();
        if let Some(flight) = self.flights.get(&name).filter(|flight| is_idle(flight)) {
            self.line.remove(flight.place);
            self.flights.remove(&name);
        }
    }

    /// Rule 4: makes the target stand behind the waiter, which it stands before.
    fn put_in_order(&mut self, waiter: (N, Place), target: (N, Place)) -> Result<(), WouldNeverEnd> {
        let between = |place: Place| target.1 <= place && place <= waiter.1;
        let mut ahead = Search::from(target);
        let mut back = Search::from(waiter);
        let is_ahead = loop {
            let (Some(next), Some(last)) = (ahead.next(), back.next()) else { break ahead.next().is_none() };
            let (next, last) = (&self.flights[&next], &self.flights[&last]);
            if ahead.cost + next.targets.len() <= back.cost + last.waiters.len() {
                ahead
                    .step(next.targets.keys(), waiter.0, |name| self.place(name).filter(|&it| between(it)))?;
            } else {
                back.step(last.waiters.iter(), target.0, |name| self.place(name).filter(|&it| between(it)))?;
            }
        };
        let mut found = if is_ahead { ahead.found } else { back.found };
        found.sort_unstable_by_key(|&(_, place)| place);
        for &(_, place) in &found {
            self.line.remove(place);
        }
        let mut last = waiter.0;
        for (name, _) in found {
            // Earlier ones of this loop may have moved the anchor.
            let anchor = if is_ahead { last } else { target.0 };
            let Some(place) = self.place(anchor) else { continue };
            self.put(name, if is_ahead { At::After(place) } else { At::Before(place) });
            last = name;
        }
        Ok(())
    }
}

/// A search along the waits, in one direction.
struct Search<N> {
    /// What was found, with its place.
    found: Vec<(N, Place)>,
    seen: NumberSet<N>,
    /// How many of `found` were looked at.
    looked_at: usize,
    /// How many flights and waits that took.
    cost: usize,
}

impl<N: Copy + Eq + Hash> Search<N> {
    fn from(start: (N, Place)) -> Self {
        Self { found: vec![start], seen: NumberSet::from_iter([start.0]), looked_at: 0, cost: 0 }
    }

    /// The flight that is looked at next; `None` at the end of the search.
    fn next(&self) -> Option<N> {
        self.found.get(self.looked_at).map(|&(name, _)| name)
    }

    /// Looks at a flight with these neighbours. `place_between` is the place of a flight that may be on the way to `end`.
    fn step<'a>(
        &mut self,
        neighbours: impl ExactSizeIterator<Item = &'a N>,
        end: N,
        place_between: impl Fn(N) -> Option<Place>,
    ) -> Result<(), WouldNeverEnd>
    where
        N: 'a,
    {
        self.looked_at += 1;
        self.cost += 1 + neighbours.len();
        for &neighbour in neighbours {
            if neighbour == end {
                return Err(WouldNeverEnd);
            }
            if let Some(place) = place_between(neighbour)
                && self.seen.insert(neighbour)
            {
                self.found.push((neighbour, place));
            }
        }
        Ok(())
    }
}

/// Whether a table has so much room left that walking it takes longer than what is in it warrants.
fn is_mostly_empty(len: usize, capacity: usize) -> bool {
    capacity > 32 && len < capacity / 8
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
        graph.validate();
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

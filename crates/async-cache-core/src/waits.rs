//! Loads that wait for loads: refuses a wait that would close a circle.
//!
//! A loader may ask the cache for another key, and so wait for another flight. If that flight's
//! loader waits, directly or through others, for the first flight, none of them would ever end.
//! Owns the graph of flights that wait for flights. Only loaders that ask a cache appear in the
//! graph; callers outside every load cannot be waited for.
//!
//! The graph is kept in an order, so that nearly every wait is found harmless by a single
//! comparison. Rules:
//! 1. The graph has no circle, because [`WaitGraph::wait`] refuses a wait that would close a
//!    circle.
//! 2. All flights of the graph are in a line, each before the flights that it waits for. So a wait
//!    of a flight for a flight behind it closes no circle.
//! 3. A flight that enters the graph as a waiter is put at the front, a flight that enters as a
//!    target at the back: both keep rule 2 without a look at any other flight.
//! 4. A wait for a flight before the waiter may close a circle, and only through flights between
//!    the two. Two searches run no further than between the two: from the target along its waits,
//!    and from the waiter against the waits for it. The search with the lower cost so far
//!    continues, so the cheaper side decides. Meeting the other end means a circle. A search that
//!    ends without meeting it has found all flights that must move, in their present order: the
//!    target's targets move behind the waiter, or the waiter's waiters move before the target.
//! 5. A flight without waits leaves the graph.

mod line;

use std::hash::Hash;

use crate::number::{NumberMap, NumberSet};
use line::{At, Line, LinePlace};

/// The flights that wait for other flights. `N` names a flight in every cache that shares the
/// graph: a number of a counter.
#[derive(Debug)]
pub struct WaitGraph<N> {
    flights: NumberMap<N, WaitNode<N>>,
    line: Line<N>,
}

#[derive(Debug)]
struct WaitNode<N> {
    place: LinePlace,
    /// The targets of this flight, with counts: a loader may ask for several keys at once, or for a
    /// key twice.
    targets: NumberMap<N, usize>,
    /// The flights that wait for this flight.
    waiters: NumberSet<N>,
}

/// The wait would never end: the target waits, directly or through others, for the waiter.
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

    /// Records that `waiter` waits for `target`, unless the wait would never end.
    ///
    /// # Errors
    /// [`WouldNeverEnd`] if `target` is `waiter` or waits for it; nothing is recorded then.
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

    /// Undoes a [`WaitGraph::wait`].
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
    /// If an invariant does not hold.
    pub fn validate(&self) {
        for flight in self.flights.values() {
            assert!(!flight.targets.is_empty() || !flight.waiters.is_empty(), "an idle flight has left");
            for target in flight.targets.keys() {
                let target = &self.flights[target];
                assert!(flight.place < target.place, "a flight stands before those that it waits for");
            }
        }
    }

    fn place(&self, flight: N) -> Option<LinePlace> {
        self.flights.get(&flight).map(|flight| flight.place)
    }

    /// Puts a flight into the line, and into the graph if the flight is new there.
    fn put(&mut self, name: N, at: At) {
        let flights = &mut self.flights;
        let place = self.line.insert(name, at, |moved, place| {
            if let Some(flight) = flights.get_mut(&moved) {
                flight.place = place;
            }
        });
        let new = || WaitNode { place, targets: NumberMap::default(), waiters: NumberSet::default() };
        flights.entry(name).or_insert_with(new).place = place;
    }

    /// Rule 5.
    fn leave_if_idle(&mut self, name: N) {
        let is_idle = |flight: &WaitNode<N>| flight.targets.is_empty() && flight.waiters.is_empty();
        if let Some(flight) = self.flights.get(&name).filter(|flight| is_idle(flight)) {
            self.line.remove(flight.place);
            self.flights.remove(&name);
        }
    }

    /// Rule 4: moves the target behind the waiter; the target is before the waiter.
    fn put_in_order(&mut self, waiter: (N, LinePlace), target: (N, LinePlace)) -> Result<(), WouldNeverEnd> {
        let between = |place: LinePlace| target.1 <= place && place <= waiter.1;
        let mut ahead = WaitSearch::from(target);
        let mut back = WaitSearch::from(waiter);
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
            // Earlier rounds of this loop may have moved the anchor.
            let anchor = if is_ahead { last } else { target.0 };
            let Some(place) = self.place(anchor) else { continue };
            self.put(name, if is_ahead { At::After(place) } else { At::Before(place) });
            last = name;
        }
        Ok(())
    }
}

/// A search along the waits, in a single direction.
struct WaitSearch<N> {
    /// The found flights, with their places.
    found: Vec<(N, LinePlace)>,
    seen: NumberSet<N>,
    /// How many of `found` were looked at.
    looked_at: usize,
    /// The number of flights and waits visited so far.
    cost: usize,
}

impl<N: Copy + Eq + Hash> WaitSearch<N> {
    fn from(start: (N, LinePlace)) -> Self {
        Self { found: vec![start], seen: NumberSet::from_iter([start.0]), looked_at: 0, cost: 0 }
    }

    /// The next flight to visit; `None` at the end of the search.
    fn next(&self) -> Option<N> {
        self.found.get(self.looked_at).map(|&(name, _)| name)
    }

    /// Visits a flight with these neighbours. `place_between` is the place of a flight that may be
    /// on the way to `end`.
    fn step<'a>(
        &mut self,
        neighbours: impl ExactSizeIterator<Item = &'a N>,
        end: N,
        place_between: impl Fn(N) -> Option<LinePlace>,
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

/// Whether a table has so much spare room that walking it takes much longer than its content
/// justifies.
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

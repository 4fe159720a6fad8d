//! Names in a line, with insertion before or after a name.
//!
//! Owns the places: numbers, so that two names are compared by comparing their places. A name
//! inserted between two names gets a number between theirs. When no number is left, the names
//! around are spread over the smallest range that is sparse enough, so the work of an insertion
//! grows with the logarithm of the line's length on average (Bender and others, "Two simplified
//! algorithms for maintaining order in a list").

use std::collections::BTreeMap;

/// The place of a name in a line. Names further back have greater ones.
pub(super) type LinePlace = u64;

/// Where a name is put.
#[derive(Clone, Copy)]
pub(super) enum At {
    Front,
    Back,
    /// Directly before the name with this place.
    Before(LinePlace),
    /// Directly after the name with this place.
    After(LinePlace),
}

#[derive(Debug)]
pub(super) struct Line<N> {
    names: BTreeMap<LinePlace, N>,
}

/// The place of the first name: in the middle, for a line grows at both ends.
const FIRST: LinePlace = 1 << 63;

/// The free numbers between the names at an end.
const STEP: u64 = 1 << 32;

/// The smallest range over which names are spread, as a power of two. With four places for each
/// name, there is a free place beside each.
const SMALLEST_RANGE: u32 = 4;

impl<N: Copy> Line<N> {
    pub(super) const fn new() -> Self {
        Self { names: BTreeMap::new() }
    }

    /// Takes a name out.
    pub(super) fn remove(&mut self, place: LinePlace) {
        self.names.remove(&place);
    }

    /// Inserts a name into the line and returns its place. `moved` is called for every name with a
    /// new place.
    pub(super) fn insert(&mut self, name: N, at: At, mut moved: impl FnMut(N, LinePlace)) -> LinePlace {
        let mut at = match at {
            At::Front => self.names.first_key_value().map_or(at, |(&place, _)| At::Before(place)),
            At::Back => self.names.last_key_value().map_or(at, |(&place, _)| At::After(place)),
            beside => beside,
        };
        loop {
            let place = match at {
                // The line is empty.
                At::Front | At::Back => Some(FIRST),
                At::Before(next) => {
                    between(self.names.range(..next).next_back().map(|(&place, _)| place), Some(next))
                }
                At::After(last) => {
                    between(Some(last), self.names.range(last..).nth(1).map(|(&place, _)| place))
                }
            };
            if let Some(place) = place {
                self.names.insert(place, name);
                return place;
            }
            at = match at {
                At::Before(next) => At::Before(self.spread(next, &mut moved)),
                At::After(last) => At::After(self.spread(last, &mut moved)),
                end => end,
            };
        }
    }

    /// Spreads the names around a place, and returns the new place of the name that had it.
    fn spread(&mut self, around: LinePlace, moved: &mut impl FnMut(N, LinePlace)) -> LinePlace {
        for bits in SMALLEST_RANGE..=u64::BITS {
            let width = 1_u128 << bits;
            let start = if bits == u64::BITS { 0 } else { around >> bits << bits };
            let end = start + (width - 1) as u64;
            let count = self.names.range(start..=end).count() as u128;
            // Sparse enough: the wider the range, the sparser it must be.
            if bits < u64::BITS && count * 3_u128.pow(bits) > 4_u128.pow(bits) {
                continue;
            }
            let places: Vec<LinePlace> = self.names.range(start..=end).map(|(&place, _)| place).collect();
            let names: Vec<(LinePlace, N)> =
                places.into_iter().filter_map(|place| Some((place, self.names.remove(&place)?))).collect();
            let step = (width / count.max(1)) as u64;
            let mut of_around = around;
            for (number, (before, name)) in names.into_iter().enumerate() {
                let place = start + step * number as u64 + step / 2;
                if before == around {
                    of_around = place;
                }
                self.names.insert(place, name);
                moved(name, place);
            }
            return of_around;
        }
        around
    }

    #[cfg(test)]
    fn iter(&self) -> impl Iterator<Item = (LinePlace, N)> {
        self.names.iter().map(|(&place, &name)| (place, name))
    }
}

/// A place between two neighbours, or beyond the only neighbour; `None` if no place is left.
fn between(last: Option<LinePlace>, next: Option<LinePlace>) -> Option<LinePlace> {
    match (last, next) {
        (None, None) => Some(FIRST),
        (None, Some(next)) => next.checked_sub(STEP).or((next > 0).then_some(next / 2)),
        (Some(last), None) => last
            .checked_add(STEP)
            .or((last < LinePlace::MAX).then(|| last + (LinePlace::MAX - last).div_ceil(2))),
        (Some(last), Some(next)) => (next - last > 1).then(|| last + (next - last) / 2),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// A line, and the names in the order in which they should stand.
    struct Model {
        line: Line<u32>,
        places: HashMap<u32, LinePlace>,
        order: Vec<u32>,
        moves: usize,
    }

    impl Model {
        fn new() -> Self {
            Self { line: Line::new(), places: HashMap::new(), order: Vec::new(), moves: 0 }
        }

        fn insert(&mut self, at: At, index: usize) {
            let name = u32::try_from(self.places.len()).unwrap();
            let (places, moves) = (&mut self.places, &mut self.moves);
            let place = self.line.insert(name, at, |name, place| {
                *moves += 1;
                places.insert(name, place);
            });
            self.places.insert(name, place);
            self.order.insert(index, name);
        }

        fn check(&self) {
            let found: Vec<u32> = self.line.iter().map(|(_, name)| name).collect();
            assert_eq!(found, self.order);
            assert!(self.line.iter().all(|(place, name)| self.places[&name] == place));
        }
    }

    #[test]
    fn names_stand_where_they_were_put_wherever_that_is() {
        let mut dice = fastrand::Rng::with_seed(7);
        let mut model = Model::new();
        for _ in 0..3000 {
            let beside = dice.usize(..model.order.len().max(1));
            let place = model.order.get(beside).map(|name| model.places[name]);
            match (dice.u8(..4), place) {
                (0, _) => model.insert(At::Front, 0),
                (1, Some(place)) => model.insert(At::Before(place), beside),
                (2, Some(place)) => model.insert(At::After(place), beside + 1),
                _ => model.insert(At::Back, model.order.len()),
            }
        }
        model.check();
    }

    /// The place between two neighbours is used up after some sixty names; the work must not grow
    /// with the line.
    #[test]
    fn names_that_are_all_put_at_one_place_move_few_others() {
        for before in [false, true] {
            let mut model = Model::new();
            (0..4000).for_each(|_| model.insert(At::Back, model.order.len()));
            let anchor = model.order[2000];
            for number in 0..4000 {
                let place = model.places[&anchor];
                if before {
                    model.insert(At::Before(place), 2000 + number);
                } else {
                    model.insert(At::After(place), 2001);
                }
            }
            model.check();
            assert!(model.moves < 4000 * 20, "{} moves for 4,000 names", model.moves);
        }
    }

    #[test]
    fn a_line_that_has_come_to_an_end_of_the_numbers_goes_on() {
        for (at, first) in [(At::Front, 3), (At::Back, LinePlace::MAX - 3)] {
            let mut model = Model::new();
            model.line.names.insert(first, 0);
            model.places.insert(0, first);
            model.order.push(0);
            for _ in 0..1000 {
                let index = if matches!(at, At::Front) { 0 } else { model.order.len() };
                model.insert(at, index);
            }
            model.check();
        }
    }
}

//! Flights against a naive model, operation by operation, including stale ids.
//!
//! The model is a vector of all flights ever made. Checked after every operation: `validate()`;
//! every key is found at its one open flight or not at all; the callers are counted correctly; an
//! ended flight has no further effect. The effect of a fence on the store is tested in
//! `fencing.rs`. How to replay and soak: see `replay/mod.rs`.

use std::rc::Rc;

use async_cache_core::flight::{FlightId, Flights, Left};

use crate::ledger::{Hashing, Key, Ledger, Token};
use crate::replay::every_seed;

const NAMES: u32 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Fenced,
    Gone,
}

/// A flight of the model.
#[derive(Clone, Copy, Debug)]
struct Flight {
    id: FlightId,
    name: u32,
    token: u64,
    state: State,
    callers: u32,
}

struct Pair {
    flights: Flights<Key, Token>,
    hashing: Hashing,
    ledger: Rc<Ledger>,
    model: Vec<Flight>,
}

#[test]
fn flights_do_what_the_model_does() {
    every_seed(1_000, |run| {
        let hashing = run.dice.choice(Hashing::ALL).unwrap();
        run.set_up(&hashing);
        let mut pair = Pair { flights: Flights::new(), hashing, ledger: Rc::default(), model: Vec::new() };
        for _ in 0..300 {
            // Mostly one of the latest flights, sometimes one that is long gone.
            let latest = if run.dice.u32(..4) == 0 { pair.model.len() } else { 5 };
            let nth = pair.model.len().saturating_sub(1 + run.dice.usize(..latest.max(1)));
            let name = run.dice.u32(..NAMES);
            let operation = run.dice.u32(..20);
            run.note((["ask", "join", "leave", "fence", "end", "fence all"][kind(operation)], name, nth));
            match (kind(operation), nth < pair.model.len()) {
                (0, _) => pair.ask(name),
                (5, _) => pair.fence_all(),
                (_, false) => {}
                (1, _) => pair.join(nth),
                (2, _) => pair.leave(nth),
                (3, _) => pair.fence(nth),
                _ => pair.end(nth),
            }
            pair.check();
        }
    });
}

fn kind(operation: u32) -> usize {
    match operation {
        0..6 => 0,
        6..9 => 1,
        9..14 => 2,
        14..16 => 3,
        16..19 => 4,
        _ => 5,
    }
}

impl Pair {
    /// The steps of a front for a caller: join the open flight, or lead a new one.
    fn ask(&mut self, name: u32) {
        let hash = self.hashing.hash(name);
        if let Some(id) = self.flights.find(hash, |key| key.name == name) {
            let nth = self.model.iter().position(|flight| flight.id == id).expect("a flight of this cache");
            assert_eq!((self.model[nth].name, self.model[nth].state), (name, State::Open));
            self.join(nth);
        } else {
            let token = Token::new(&self.ledger);
            let number = token.number;
            let id = self.flights.lead(hash, Key::new(name, &self.ledger), token);
            assert!(self.model.iter().all(|flight| flight.id != id), "an id is used twice");
            self.model.push(Flight { id, name, token: number, state: State::Open, callers: 1 });
        }
    }

    fn join(&mut self, nth: usize) {
        let flight = &mut self.model[nth];
        let token = self.flights.join(flight.id).map(|token| token.number);
        let is_open = flight.state == State::Open;
        assert_eq!(token, is_open.then_some(flight.token));
        flight.callers += u32::from(is_open);
    }

    fn leave(&mut self, nth: usize) {
        let flight = &mut self.model[nth];
        if flight.state == State::Gone {
            assert_eq!(self.flights.leave(flight.id), Left::Others);
        } else if flight.callers > 0 {
            flight.callers -= 1;
            let expected = if flight.callers == 0 { Left::Nobody } else { Left::Others };
            assert_eq!(self.flights.leave(flight.id), expected);
        }
    }

    fn fence(&mut self, nth: usize) {
        let flight = &mut self.model[nth];
        assert_eq!(self.flights.fence(flight.id), flight.state == State::Open);
        if flight.state == State::Open {
            flight.state = State::Fenced;
        }
    }

    fn fence_all(&mut self) {
        let open = self.model.iter_mut().filter(|flight| flight.state == State::Open);
        let fenced = open.map(|flight| flight.state = State::Fenced).count();
        assert_eq!(self.flights.fence_all(), fenced);
    }

    fn end(&mut self, nth: usize) {
        let flight = &mut self.model[nth];
        let ended = self.ledger.nothing_is_dropped_in(|| self.flights.end(flight.id));
        let ended = ended.map(|ended| (ended.key.name, ended.token.number, ended.stores));
        let expected = (flight.name, flight.token, flight.state == State::Open);
        assert_eq!(ended, (flight.state != State::Gone).then_some(expected));
        flight.state = State::Gone;
    }

    fn check(&self) {
        self.flights.validate();
        let running = self.model.iter().filter(|flight| flight.state != State::Gone).count();
        assert_eq!(self.flights.len(), running);
        assert_eq!(self.flights.is_empty(), running == 0);
        assert_eq!(self.ledger.alive(), 2 * running, "keys and tokens alive");
        for name in 0..NAMES {
            let mut open =
                self.model.iter().filter(|flight| flight.name == name && flight.state == State::Open);
            let expected = open.next().map(|flight| flight.id);
            assert!(open.next().is_none(), "two open flights of key {name}");
            let hash = self.hashing.hash(name);
            assert_eq!(self.flights.find(hash, |key| key.name == name), expected);
            let mut candidates = (0..).map_while(|nth| self.flights.candidate(hash, nth));
            let candidate = candidates.find(|(_, key)| key.name == name).map(|(id, _)| id);
            assert_eq!(candidate, expected, "find and candidate differ");
        }
        for flight in &self.model {
            let is_gone = flight.state == State::Gone;
            assert_eq!(self.flights.is_forsaken(flight.id), !is_gone && flight.callers == 0);
            let name = self.flights.key(flight.id).map(|key| key.name);
            assert_eq!(name, (!is_gone).then_some(flight.name));
        }
    }
}

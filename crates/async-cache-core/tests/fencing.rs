//! Fencing, in every interleaving of small scripts.
//!
//! A script is a sequence of events on two keys with colliding hashes: a caller asks (leads or
//! joins), a running load returns, fails or loses a caller, the key is set or deleted, the cache is
//! cleared. All possible scripts of [`EVENTS`] events are run; nothing is random, and a failure
//! prints its script. The expected results follow from the script:
//! - a caller joins the latest running flight of its key that was not overtaken, and leads a new
//!   flight otherwise;
//! - a flight was overtaken if its key was set or deleted, or the cache cleared, after its lead;
//! - a returned value is stored if and only if its flight was not overtaken, and replaces the
//!   present value;
//! - callers are counted as they arrive and leave; the last caller to leave is notified, and the
//!   flight stays until it ends.

#![allow(clippy::print_stderr)] // output of a failure

use std::time::Duration;

use async_cache_core::entry::Fetched;
use async_cache_core::flight::{FlightId, Left};
use async_cache_core::order::Eviction;
use async_cache_core::shard::{Config, Shard};
use async_cache_core::time::{Deadline, Now, Time};

use crate::addressing::at;

/// The number of scripts grows about tenfold with each event.
const EVENTS: usize = 7;

const KEYS: [char; 2] = ['a', 'b'];
const HASH: u64 = 0xC011_1DED;
const NOW: Now = Now::without_wall(Time::from_nanos(0));

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// A caller asks for a key.
    Ask(char),
    Set(char),
    Delete(char),
    Clear,
    /// The load started by the nth event returns.
    Land(usize),
    Fail(usize),
    /// One of its callers leaves.
    Leave(usize),
}

use Event::{Ask, Clear, Delete, Fail, Land, Leave, Set};

/// A flight of the script; identified by the place of its event.
#[derive(Debug)]
struct Told {
    started: usize,
    key: char,
    callers: u32,
    has_ended: bool,
}

/// The expected state after a script.
#[derive(Debug, Default)]
struct Story {
    flights: Vec<Told>,
}

impl Story {
    fn of(script: &[Event]) -> Self {
        let mut story = Self::default();
        for (at, &event) in script.iter().enumerate() {
            match event {
                Ask(key) => match story.open(&script[..at], key) {
                    Some(started) => story.flight(started).callers += 1,
                    None => story.flights.push(Told { started: at, key, callers: 1, has_ended: false }),
                },
                Land(started) | Fail(started) => story.flight(started).has_ended = true,
                Leave(started) => story.flight(started).callers -= 1,
                Set(_) | Delete(_) | Clear => {}
            }
        }
        story
    }

    fn flight(&mut self, started: usize) -> &mut Told {
        self.flights.iter_mut().find(|flight| flight.started == started).expect("a flight of this script")
    }

    /// The event that started the open flight of a key, at the end of the script.
    fn open(&self, script: &[Event], key: char) -> Option<usize> {
        let running = self.flights.iter().filter(|flight| flight.key == key && !flight.has_ended);
        let mut open = running.filter(|flight| !is_overtaken(script, flight.started, key));
        let first = open.next();
        assert!(open.next().is_none(), "two open flights of {key:?}");
        first.map(|flight| flight.started)
    }

    /// The possible next events.
    fn next_events(&self) -> Vec<Event> {
        let mut events = vec![Clear];
        events.extend(KEYS.into_iter().flat_map(|key| [Ask(key), Set(key), Delete(key)]));
        for flight in self.flights.iter().filter(|flight| !flight.has_ended) {
            events.extend([Land(flight.started), Fail(flight.started)]);
            if flight.callers > 0 {
                events.push(Leave(flight.started));
            }
        }
        events
    }
}

fn is_overtaken(script: &[Event], started: usize, key: char) -> bool {
    script[started..].iter().any(|&event| event == Set(key) || event == Delete(key) || event == Clear)
}

/// The event whose value is under a key at the end of the script, found from the last event that
/// decides it.
fn stored(script: &[Event], key: char) -> Option<usize> {
    for (at, &event) in script.iter().enumerate().rev() {
        match event {
            Set(set) if set == key => return Some(at),
            Delete(deleted) if deleted == key => return None,
            Clear => return None,
            Land(started) if script[started] == Ask(key) && !is_overtaken(&script[..at], started, key) => {
                return Some(at);
            }
            _ => {}
        }
    }
    None
}

/// The cache, with the id of each flight under the event that started it. Values are the events
/// that made them.
struct Front {
    cache: Shard<char, usize, usize>,
    ids: [Option<FlightId>; EVENTS],
}

impl Front {
    fn new() -> Self {
        Self { cache: Shard::new(Config::single(Some(8), Eviction::Lru)), ids: [None; EVENTS] }
    }

    /// Executes the last event of the script, and checks its result.
    fn act(&mut self, script: &[Event], before: &Story) {
        let last = script.len() - 1;
        let cache = &mut self.cache;
        match script[last] {
            Ask(key) => {
                let expected = before.open(&script[..last], key);
                let joined = cache.locate(HASH, |&known| known == key).flight();
                let token = joined.map(|id| *cache.join(id).expect("what was found can be joined"));
                assert_eq!(token, expected, "the flight that is joined");
                if joined.is_none() {
                    let at = at(cache, HASH, None, |&known| known == key);
                    self.ids[last] = Some(cache.lead(at, key, last, NOW));
                }
            }
            Set(key) => {
                let at = at(cache, HASH, None, |&known| known == key);
                drop(cache.set(at, key, last, Deadline::NEVER, NOW));
            }
            Delete(key) => {
                let at = at(cache, HASH, None, |&known| known == key);
                drop(cache.delete(at, NOW));
            }
            Clear => drop(cache.clear()),
            Land(started) => {
                let id = self.ids[started].expect("it was led");
                let fetched = Fetched::loaded(last, Deadline::NEVER);
                let at = cache.address_of_flight(id, HASH).expect("no snapshot is open");
                let finished = cache.land(id, at, fetched, Duration::ZERO, NOW).expect("it runs");
                assert_eq!(finished.token, started);
                let at = cache.address_of_flight(id, HASH).expect("no snapshot is open");
                let again = cache.land(id, at, fetched, Duration::ZERO, NOW);
                assert!(again.is_none(), "a flight lands once");
            }
            Fail(started) => {
                let id = self.ids[started].expect("it was led");
                let (_, token) = cache.fail(id, Duration::ZERO).expect("it runs");
                assert_eq!(token, started);
                assert!(cache.fail(id, Duration::ZERO).is_none(), "a flight fails once");
            }
            Leave(started) => {
                let flight = before.flights.iter().find(|flight| flight.started == started).unwrap();
                let expected = if flight.callers == 1 { Left::Nobody } else { Left::Others };
                assert_eq!(cache.leave(self.ids[started].expect("it was led")), expected);
            }
        }
    }

    /// Checks the state after the script against the expected state.
    fn check(&self, script: &[Event], story: &Story) {
        self.cache.validate();
        for key in KEYS {
            let slot = self.cache.find(HASH, |&known| known == key);
            let value = slot.map(|slot| *self.cache.store().entry(slot).value);
            assert_eq!(value, stored(script, key), "what is stored under {key:?}");
            let open = self.cache.locate(HASH, |&known| known == key).flight();
            let expected = story.open(script, key).map(|started| self.ids[started].expect("it was led"));
            assert_eq!(open, expected, "the open flight of {key:?}");
        }
        for flight in &story.flights {
            let id = self.ids[flight.started].expect("it was led");
            let is_forsaken = !flight.has_ended && flight.callers == 0;
            assert_eq!(self.cache.flights().is_forsaken(id), is_forsaken);
            assert_eq!(self.cache.flights().key(id).is_none(), flight.has_ended);
        }
        let running = story.flights.iter().filter(|flight| !flight.has_ended).count();
        assert_eq!(self.cache.flights().len(), running);
    }
}

/// Runs a script from the beginning, and checks the final state; shorter beginnings were checked
/// before.
fn run(script: &[Event], stories: &[Story]) {
    struct Script<'a>(&'a [Event]);
    impl Drop for Script<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("the script: {:?}", self.0);
            }
        }
    }
    let _printed_on_failure = Script(script);
    let mut front = Front::new();
    for len in 1..=script.len() {
        front.act(&script[..len], &stories[len - 1]);
    }
    front.check(script, &stories[script.len()]);
}

/// Runs every script with this beginning; returns their number. `stories` has the expected states
/// of all beginnings.
fn run_all(script: &mut Vec<Event>, stories: &mut Vec<Story>) -> u64 {
    if script.len() == EVENTS {
        return 0;
    }
    let mut scripts = 0;
    for event in stories.last().expect("the empty script's").next_events() {
        if script.is_empty() && matches!(event, Ask('b') | Set('b') | Delete('b')) {
            continue; // the same as with 'a', except for the name
        }
        script.push(event);
        stories.push(Story::of(script));
        run(script, stories);
        scripts += 1 + run_all(script, stories);
        stories.pop();
        script.pop();
    }
    scripts
}

#[test]
fn a_load_is_stored_if_and_only_if_no_write_of_its_key_came_between_in_every_order_of_events() {
    let scripts = run_all(&mut Vec::new(), &mut vec![Story::default()]);
    assert!(scripts > 100_000, "only {scripts} scripts");
}

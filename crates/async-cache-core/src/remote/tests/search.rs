//! Every order of events of small worlds with one key, breadth first.

#![allow(clippy::print_stdout, reason = "the findings are worth reading")]

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::world::{Kept, Stage, Stored, World};
use crate::remote::machine::RuleName;
use crate::remote::port::Owner;
use crate::remote::settings::Settings;

/// How often things may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Budget {
    gets: u8,
    writes: u8,
    expiries: u8,
    breaks: u8,
    fails: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    world: World,
    budget: Budget,
}

const KEY: u8 = 0;

/// The result of a search.
#[derive(Debug)]
enum Result {
    /// All states were seen; how many.
    #[allow(dead_code, reason = "printed")]
    Exhausted(usize),
    /// So many states were seen, and no more were looked at.
    #[allow(dead_code, reason = "printed")]
    Stopped(usize),
    Violated(String, Vec<String>),
}

fn start(processes: usize, without: Option<RuleName>, budget: Budget) -> State {
    let mut world = World::new(processes, &Settings::default(), without);
    for number in 0..processes {
        world.connect(number);
        world.runs(number);
        world.handles(number);
    }
    let owners: Vec<_> =
        (0..processes).flat_map(|it| (1..9).map(move |n| Owner((it as u64) << 32 | n))).collect();
    for process in &mut world.processes {
        // Signs of life are for the walk: here leases expire when they like.
        process.machine.assume_alive(&owners);
    }
    let mut state = State { world, budget };
    state.settle();
    state
}

impl State {
    /// Details without a meaning to any rule are made the same.
    fn settle(&mut self) {
        for process in &mut self.world.processes {
            process.settle();
        }
        self.world.settle_leases();
    }

    fn next(&self) -> Vec<(String, Self)> {
        let mut all = Vec::new();
        let world = &self.world;
        let mut then = |what: String, spend: fn(&mut Budget), act: &dyn Fn(&mut World)| {
            let mut next = self.clone();
            spend(&mut next.budget);
            act(&mut next.world);
            next.settle();
            all.push((what, next));
        };
        for (i, process) in world.processes.iter().enumerate() {
            if self.budget.gets > 0 && process.machine.is_up() && world.may_get(i, KEY) {
                then(format!("{i}: get"), |it| it.gets -= 1, &|world| world.get(i, KEY));
            }
            for (n, flight) in process.flights.iter().enumerate() {
                match flight.stage {
                    Stage::Asking => {}
                    Stage::Loading => {
                        then(format!("{i}: reads the origin"), |_| (), &|world| world.loads(i, n));
                    }
                    Stage::Loaded(_) => {
                        then(format!("{i}: load ends"), |_| (), &|world| world.load_ends(i, n, false, None));
                        if self.budget.fails > 0 {
                            let fails = |world: &mut World| world.load_fails(i, n);
                            then(format!("{i}: load fails"), |it| it.fails -= 1, &fails);
                        }
                    }
                }
            }
            if self.budget.writes > 0 {
                then(format!("{i}: writes"), |it| it.writes -= 1, &|world| world.writes(i, KEY));
            }
            if process.is_connected && !process.out.is_empty() {
                let what = format!("the engine runs {:?} of {i}", process.out[0].2);
                then(what, |_| (), &|world| world.runs(i));
            }
            if process.is_connected && !process.inbox.is_empty() {
                let what = format!("{i}: hears {:?}", process.inbox[0].event);
                then(what, |_| (), &|world| world.handles(i));
            }
            if self.budget.breaks > 0 && process.is_connected {
                then(format!("{i}: connection breaks"), |it| it.breaks -= 1, &|world| {
                    world.breaks(i);
                    world.pause_ends(i);
                });
            }
            if !process.is_connected && process.wants {
                then(format!("{i}: connects"), |_| (), &|world| {
                    world.connect(i);
                });
            }
        }
        if !world.engine.dirty.is_empty() {
            then("turn ends".into(), |_| (), &World::turn_ends);
        }
        for (&(generation, key), kept) in &world.engine.entries {
            let expires = |world: &mut World| {
                world.is_spoiled = true;
                world.removes(None, generation, key, 0);
            };
            match kept.stored {
                Stored::Lease(lease) if !world.is_in_use(lease) && world.leases_end() => {
                    then("an orphaned lease expires".into(), |_| (), &expires);
                }
                _ if self.budget.expiries > 0 => {
                    then("the key expires".into(), |it| it.expiries -= 1, &expires);
                }
                _ => {}
            }
        }
        all
    }

    fn fault(&self) -> Option<String> {
        let world = &self.world;
        let floor = world.engine.floor.get(&KEY).copied().unwrap_or(0);
        for Kept { stored, .. } in world.engine.entries.values() {
            if let Stored::Value(version) = stored
                && *version < floor
            {
                return Some(format!("the engine has version {version}, invalidated by {floor}"));
            }
        }
        let mut loading = 0;
        for (i, process) in world.processes.iter().enumerate() {
            let heard = process.heard.get(&KEY).copied().unwrap_or(0);
            if let Some(entry) = process.memory.get(&KEY).filter(|entry| !entry.is_suspect) {
                if entry.version < heard {
                    return Some(format!("{i} serves version {}, and has heard of {heard}", entry.version));
                }
                if entry.is_covered && world.is_quiet() && entry.version < floor {
                    return Some(format!(
                        "all is quiet, and {i} serves {}, invalidated by {floor}",
                        entry.version
                    ));
                }
            }
            loading += process.flights.iter().filter(|it| it.stage != Stage::Asking).count();
        }
        (loading > 1 && !world.is_spoiled).then(|| "two loads at once for no reason".to_owned())
    }
}

fn digest(state: &State) -> u64 {
    let hash = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        state.hash(&mut hasher);
        hasher.finish()
    };
    hash(1)
}

fn search(processes: usize, without: Option<RuleName>, budget: Budget, most: usize) -> Result {
    let first = start(processes, without, budget);
    let mut seen = HashSet::from([digest(&first)]);
    let mut came: Vec<(usize, String)> = vec![(0, "start".into())];
    let mut queue = VecDeque::from([(0, first)]);
    let trace = |came: &[(usize, String)], mut at: usize| {
        let mut events = Vec::new();
        while at != 0 {
            events.push(came[at].1.clone());
            at = came[at].0;
        }
        events.reverse();
        events
    };
    while let Some((at, state)) = queue.pop_front() {
        let next = state.next();
        if next.is_empty() && state.world.processes.iter().any(|process| !process.flights.is_empty()) {
            return Result::Violated("a load never ends".into(), trace(&came, at));
        }
        for (what, next) in next {
            if !seen.insert(digest(&next)) {
                continue;
            }
            came.push((at, what));
            let id = came.len() - 1;
            if let Some(fault) = next.fault() {
                return Result::Violated(fault, trace(&came, id));
            }
            queue.push_back((id, next));
        }
        if seen.len() > most {
            return Result::Stopped(seen.len());
        }
    }
    Result::Exhausted(seen.len())
}

/// More states than any of the searches below needs.
const ALL: usize = 5_000_000;

/// More with `ASYNC_CACHE_STATES`, for a long search.
fn most(states: usize) -> usize {
    std::env::var("ASYNC_CACHE_STATES").ok().and_then(|it| it.parse().ok()).unwrap_or(states)
}

#[track_caller]
fn holds(processes: usize, budget: Budget, most: usize) {
    let result = search(processes, None, budget, most);
    println!("{processes} processes, {budget:?}: {result:?}");
    match result {
        Result::Exhausted(_) => {}
        Result::Stopped(_) if most < ALL => {}
        other => panic!("{other:#?}"),
    }
}

#[test]
fn one_write_among_two_gets() {
    holds(2, Budget { gets: 2, writes: 1, ..Budget::default() }, ALL);
}

#[test]
fn one_write_and_an_expiry_among_two_gets() {
    holds(2, Budget { gets: 2, writes: 1, expiries: 1, ..Budget::default() }, ALL);
}

#[test]
fn one_write_and_a_failing_load_among_two_gets() {
    holds(2, Budget { gets: 2, writes: 1, fails: 1, ..Budget::default() }, ALL);
}

#[test]
fn one_write_and_a_broken_connection_among_two_gets() {
    holds(2, Budget { gets: 2, writes: 1, breaks: 1, ..Budget::default() }, most(30_000));
}

#[test]
fn three_processes_and_two_writes_as_far_as_time_allows() {
    holds(3, Budget { gets: 3, writes: 2, ..Budget::default() }, most(30_000));
}

#[test]
fn every_rule_left_out_is_found() {
    let gets = Budget { gets: 2, writes: 1, ..Budget::default() };
    let three = Budget { gets: 3, ..gets };
    let breaks = Budget { breaks: 1, ..gets };
    for (rule, budget) in [
        (RuleName::ChangeFences, gets),
        (RuleName::OwnWriteFences, gets),
        (RuleName::FillChecks, gets),
        (RuleName::LeasePerLoad, three),
        // `walk` finds the others much sooner.
        (RuleName::ConnectionSuspects, breaks),
        (RuleName::PendingIsSent, breaks),
        (RuleName::LeaseEnds, breaks),
    ] {
        match search(2, Some(rule), budget, ALL) {
            Result::Violated(fault, trace) => println!("{rule:?}: {fault}\n    {}", trace.join("; ")),
            other => panic!("{rule:?} is not needed: {other:?}"),
        }
    }
}

//! A world of processes with real machines, an engine, and the origin of the data.
//!
//! A reply joins its connection's stream when the command runs; the pushes join at the end of the
//! engine's turn, which may hold commands of several connections, and the last writer of a name in
//! the turn hears nothing. Every connection is in order. The versions of the origin, and their
//! news, are known to the checks only.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::remote::ask::{Answer, AskId, Landing, Want};
use crate::remote::machine::{Machine, Output, RuleName};
use crate::remote::port::{
    Abilities, Command, CommandId, Content, Event, Found, FoundValue, Generation, Greeting, Lease, Name,
    Owner, Replaced, Reply,
};
use crate::remote::settings::Settings;
use crate::time::{Deadline, Time};

/// An entry in the memory of a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub(super) version: u64,
    pub(super) is_covered: bool,
    pub(super) is_suspect: bool,
    pub(super) deadline: Deadline,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    Asking,
    Loading,
    Loaded(u64),
}

/// A load of a process, as its memory knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Flight {
    pub(super) ask: AskId,
    pub(super) key: u8,
    pub(super) stage: Stage,
    pub(super) is_open: bool,
    /// The latest version that was acknowledged to anybody before it asked.
    pub(super) after: u64,
}

/// The generation of an engine, at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stands(Option<Generation>);

/// A word on its way to a process, with what the checks know of it: the version that a change is
/// about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Word {
    pub(super) event: Event,
    pub(super) about: u64,
    /// The generation of a changed key. After news of an earlier generation, an older value may be
    /// read in the present one: the writer repeats the write there.
    pub(super) under: Option<Generation>,
    /// With a sign of life: the generation that stood.
    pub(super) named: Option<Stands>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Process {
    pub(super) machine: Machine,
    pub(super) memory: BTreeMap<u8, Entry>,
    pub(super) flights: Vec<Flight>,
    pub(super) is_connected: bool,
    /// Whether the machine wants a connection.
    pub(super) wants: bool,
    pub(super) connections: u64,
    /// To the engine; with the version that a write is about.
    pub(super) out: VecDeque<(CommandId, Generation, Command, u64)>,
    pub(super) inbox: VecDeque<Word>,
    /// The latest version of each key of whose change it has heard.
    pub(super) heard: BTreeMap<u8, u64>,
    /// The latest version that it has written itself.
    pub(super) own: BTreeMap<u8, u64>,
    /// The versions that it has put.
    pub(super) puts: BTreeSet<u64>,
    /// The generation that the checks have seen last.
    pub(super) generation: Option<Generation>,
    /// The identity of the engine of its last connection.
    pub(super) identity: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stored {
    Value(u64),
    /// With the version of the value that it stands for.
    Stub(u64),
    Lease(Lease),
    /// Written by another program.
    Foreign(u64),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kept {
    pub(super) stored: Stored,
    pub(super) until: Deadline,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Engine {
    pub(super) entries: BTreeMap<(Generation, u8), Kept>,
    pub(super) generation: Option<Generation>,
    pub(super) alive: BTreeMap<Owner, Time>,
    /// What changed in this turn, by whom last, and the latest version that a change is about.
    pub(super) dirty: BTreeMap<Changed, (Option<usize>, u64)>,
    pub(super) identity: u64,
    /// The version of the latest write that has run, of each key.
    pub(super) floor: BTreeMap<u8, u64>,
    /// The place of a put among the writes: of several puts, the last to arrive wins.
    pub(super) ranks: BTreeMap<u64, u64>,
    /// The version that a generation has invalidated.
    pub(super) cleared: BTreeMap<Generation, u64>,
    /// Writers by a condition hear of their own writes.
    pub(super) echoes: bool,
    /// Out of memory: nothing is stored.
    pub(super) is_full: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Changed {
    Key(Generation, u8),
    Generation,
    Owner(Owner),
    All,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) now: Time,
    pub(super) processes: Vec<Process>,
    pub(super) engine: Engine,
    pub(super) origin: u64,
    /// Whether something has happened that may cost a second load.
    pub(super) is_spoiled: bool,
    /// The latest version of each key of which somebody was told that it is written.
    pub(super) acknowledged: BTreeMap<u8, u64>,
    /// An answer older than a write that was acknowledged before the question.
    pub(super) stale: Option<String>,
}

/// The keys of the world.
pub(super) const KEYS: u8 = 3;
/// No input makes a machine say more.
const MOST_OUTPUTS: usize = 200;

pub(super) fn name(key: u8) -> Name {
    Name::new(vec![key])
}

fn key(name: &Name) -> u8 {
    name.as_bytes()[0]
}

pub(super) fn content(version: u64) -> Content {
    Content::Value(version.to_le_bytes().to_vec().into())
}

fn version_of(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

fn stored(content: &Content, about: u64) -> Stored {
    match content {
        Content::Value(bytes) => Stored::Value(version_of(bytes)),
        Content::Stub => Stored::Stub(about),
    }
}

impl World {
    pub(super) fn new(processes: usize, settings: &Settings, without: Option<RuleName>) -> Self {
        let process = |number: usize| {
            let mut machine =
                Machine::new(settings.clone(), 0x9E37_79B9_7F4A_7C15_u64.rotate_left(8 * number as u32));
            machine.without = without;
            Process {
                machine,
                memory: BTreeMap::new(),
                flights: Vec::new(),
                is_connected: false,
                wants: true,
                connections: 0,
                out: VecDeque::new(),
                inbox: VecDeque::new(),
                heard: BTreeMap::new(),
                own: BTreeMap::new(),
                puts: BTreeSet::new(),
                generation: None,
                identity: 0,
            }
        };
        Self {
            now: Time::from_nanos(1),
            processes: (0..processes).map(process).collect(),
            engine: Engine { generation: Some(Generation(1)), ..Engine::default() },
            origin: 0,
            is_spoiled: false,
            acknowledged: BTreeMap::new(),
            stale: None,
        }
    }

    // Steps of processes

    pub(super) fn connect(&mut self, number: usize) {
        let now = self.now;
        let identity = self.engine.identity;
        let process = &mut self.processes[number];
        process.is_connected = true;
        process.wants = false;
        process.connections += 1;
        let abilities = Abilities { fences: true, notifies: true };
        let random = (number as u64) << 32 | process.connections;
        let greeting = Greeting { abilities, identity };
        if std::mem::replace(&mut process.identity, identity) != identity {
            process.heard.clear(); // The server may have missed what was heard.
        }
        process.machine.heard(now); // the bytes of the greeting
        process.machine.connected(greeting, Owner(random), Generation(1 << 48 | random), now);
        process.generation = process.machine.generation();
        self.follow(number);
    }

    pub(super) fn breaks(&mut self, number: usize) {
        let now = self.now;
        let process = &mut self.processes[number];
        process.is_connected = false;
        process.out.clear();
        process.inbox.clear();
        process.machine.lost("it broke", now);
        self.is_spoiled = true;
        self.follow(number);
    }

    /// The pause before the next connection ends.
    pub(super) fn pause_ends(&mut self, number: usize) {
        let until = self.processes[number].machine.wake_at().unwrap_or(self.now);
        self.processes[number].machine.tick(until.max(self.now));
        self.follow(number);
    }

    /// A connection cannot be made.
    pub(super) fn is_refused(&mut self, number: usize) {
        let now = self.now;
        self.processes[number].wants = false;
        self.processes[number].machine.lost("refused", now);
        self.follow(number);
    }

    pub(super) fn is_served(&self, number: usize, key: u8) -> bool {
        self.processes[number].memory.get(&key).is_some_and(|entry| self.serves(entry))
    }

    pub(super) fn serves(&self, entry: &Entry) -> bool {
        !entry.is_suspect && !entry.deadline.has_passed(self.now)
    }

    pub(super) fn may_get(&self, number: usize, key: u8) -> bool {
        let flights = self.processes[number].flights.iter().filter(|flight| flight.key == key);
        !self.is_served(number, key) && flights.clone().count() < 2 && !flights.clone().any(|it| it.is_open)
    }

    pub(super) fn get(&mut self, number: usize, key: u8) {
        self.asks(number, &[key], Want::Load);
    }

    pub(super) fn asks(&mut self, number: usize, keys: &[u8], want: Want) {
        let now = self.now;
        let process = &mut self.processes[number];
        let asks = process.machine.ask(keys.iter().copied().map(name), want, now);
        for (&key, ask) in keys.iter().zip(asks) {
            let after = self.acknowledged.get(&key).copied().unwrap_or(0);
            process.flights.push(Flight { ask, key, stage: Stage::Asking, is_open: true, after });
        }
        self.follow(number);
    }

    pub(super) fn loads(&mut self, number: usize, flight: usize) {
        self.processes[number].flights[flight].stage = Stage::Loaded(self.origin);
    }

    pub(super) fn load_ends(
        &mut self,
        number: usize,
        flight: usize,
        is_stub: bool,
        life: Option<std::time::Duration>,
    ) {
        let now = self.now;
        let process = &mut self.processes[number];
        let Flight { ask, key, stage, is_open, .. } = process.flights.remove(flight);
        let Stage::Loaded(version) = stage else { unreachable!("it has loaded") };
        let content = if is_stub { Content::Stub } else { content(version) };
        let landing = process.machine.land(ask, content, life, now);
        process.lands(
            key,
            version,
            landing,
            is_open,
            life.map_or(Deadline::NEVER, |it| Deadline::after(now, it)),
            now,
        );
        self.follow(number);
    }

    pub(super) fn load_fails(&mut self, number: usize, flight: usize) {
        let now = self.now;
        let process = &mut self.processes[number];
        let ended = process.flights.remove(flight);
        process.machine.end(ended.ask, now);
        self.follow(number);
    }

    /// Writes the origin, and invalidates.
    pub(super) fn writes(&mut self, number: usize, key: u8) {
        self.origin += 1;
        let (origin, now) = (self.origin, self.now);
        let process = &mut self.processes[number];
        process.machine.invalidate(&[name(key)], now);
        process.memory.remove(&key);
        process.fence(Some(key));
        process.hears(key, origin);
        process.own.insert(key, origin);
        self.follow(number);
    }

    /// Writes the origin, and sets the new value.
    pub(super) fn sets(&mut self, number: usize, key: u8, is_stub: bool, life: Option<std::time::Duration>) {
        self.origin += 1;
        let (origin, now) = (self.origin, self.now);
        let process = &mut self.processes[number];
        process.own.insert(key, origin);
        process.puts.insert(origin);
        let content = if is_stub { Content::Stub } else { content(origin) };
        let landing = process.machine.put(&name(key), content, life, now);
        process.fence(Some(key));
        process.memory.remove(&key);
        let deadline = life.map_or(Deadline::NEVER, |it| Deadline::after(now, it));
        process.lands(key, origin, landing, true, deadline, now);
        process.hears(key, origin);
        self.follow(number);
    }

    pub(super) fn clears(&mut self, number: usize, keys: u8) {
        self.origin += 1;
        let (origin, now) = (self.origin, self.now);
        let process = &mut self.processes[number];
        process.machine.clear(Generation(1 << 50 | origin), now);
        process.memory.clear();
        process.fence(None);
        for key in 0..keys {
            process.hears(key, origin);
            process.own.insert(key, origin);
        }
        self.engine.cleared.insert(Generation(1 << 50 | origin), origin);
        process.generation = process.machine.generation();
        self.follow(number);
    }

    pub(super) fn tick(&mut self, number: usize) {
        let now = self.now;
        self.processes[number].machine.tick(now);
        self.follow(number);
    }

    pub(super) fn handles(&mut self, number: usize) {
        let now = self.now;
        let process = &mut self.processes[number];
        let Word { event, about, under, named } = process.inbox.pop_front().expect("a word");
        if let Event::Changed(name) = &event
            && under == process.machine.generation()
        {
            process.hears(key(name), about);
        }
        process.machine.heard(now);
        if named.is_some_and(|Stands(generation)| generation != process.machine.generation()) {
            process.machine.event(Event::GenerationChanged, now);
        }
        process.machine.event(event, now);
        let generation = process.machine.generation();
        if std::mem::replace(&mut process.generation, generation) != generation
            && let Some(&version) = generation.and_then(|it| self.engine.cleared.get(&it))
        {
            for key in 0..KEYS {
                process.hears(key, version);
            }
        }
        self.follow(number);
    }

    /// Does what a machine wants done.
    fn follow(&mut self, number: usize) {
        let now = self.now;
        let mut count = 0;
        self.processes[number].machine.flush(now);
        while let Some(output) = self.processes[number].machine.poll() {
            count += 1;
            assert!(count < MOST_OUTPUTS, "one input, and no end of outputs: {output:?}");
            let process = &mut self.processes[number];
            match output {
                Output::Send { id, generation, command } => {
                    if process.is_connected {
                        let about = match &command {
                            Command::Drop(names) => names
                                .iter()
                                .flat_map(|name| {
                                    [&process.heard, &process.own].map(|all| all.get(&key(name)))
                                })
                                .max()
                                .flatten()
                                .copied(),
                            Command::Put { name, .. } => process.own.get(&key(name)).copied(),
                            Command::NewGeneration(_) => Some(self.origin),
                            _ => None,
                        };
                        process.out.push_back((id, generation, command, about.unwrap_or(0)));
                    }
                }
                Output::Answer(ask, answer) => {
                    let flight = process.flights.iter().find(|flight| flight.ask == ask);
                    if let (Answer::Value { bytes, .. }, Some(flight)) = (&answer, flight)
                        && self.engine.rank(version_of(bytes)) < flight.after
                    {
                        self.stale = Some(format!("{number} is told {answer:?}, {flight:?}"));
                    }
                    process.is_answered(ask, answer, now);
                }
                Output::Forget { name, fences } => {
                    process.memory.remove(&key(&name));
                    if fences {
                        process.fence(Some(key(&name)));
                    }
                }
                Output::ForgetAll => {
                    process.memory.clear();
                    process.fence(None);
                }
                Output::Suspect { fences } => {
                    for entry in process.memory.values_mut() {
                        entry.is_suspect = true;
                    }
                    if fences {
                        process.fence(None);
                    }
                }
                Output::Connect => process.wants = true,
                Output::Disconnect(..) => {
                    self.breaks(number);
                    return;
                }
                Output::Say(_) => {}
            }
        }
    }

    // Steps of the engine

    pub(super) fn runs(&mut self, number: usize) {
        let (id, generation, command, about) = self.processes[number].out.pop_front().expect("a command");
        let named = (command == Command::Ping).then_some(Stands(self.engine.generation));
        let reply = self.run(number, generation, command, about);
        self.processes[number].inbox.push_back(Word {
            event: Event::Reply(id, reply),
            about: 0,
            under: None,
            named,
        });
    }

    #[allow(clippy::too_many_lines, reason = "one arm per command")]
    fn run(&mut self, number: usize, generation: Generation, command: Command, about: u64) -> Reply {
        self.expire();
        let now = self.now;
        let takes_room = !matches!(
            command,
            Command::Read(_)
                | Command::Drop(_)
                | Command::Extend { .. }
                | Command::Release { .. }
                | Command::IsAlive(_)
                | Command::Ping
        );
        if self.engine.is_full && takes_room {
            self.is_spoiled = true;
            return Reply::Failed("out of memory".into());
        }
        let ends = self.processes[number].machine.without != Some(RuleName::LeaseEnds);
        let lease_after = |life| if ends { Deadline::after(now, life) } else { Deadline::NEVER };
        let writer = (!self.engine.echoes).then_some(number);
        let after =
            |life: Option<std::time::Duration>| life.map_or(Deadline::NEVER, |it| Deadline::after(now, it));
        match command {
            Command::Read(names) => {
                Reply::Found(names.iter().map(|name| self.engine.found(generation, key(name), now)).collect())
            }
            Command::Acquire { name, lease, life } => {
                if self.engine.entries.contains_key(&(generation, key(&name))) {
                    return Reply::Found(vec![self.engine.found(generation, key(&name), now)]);
                }
                self.stores(Some(number), generation, key(&name), Stored::Lease(lease), lease_after(life), 0);
                Reply::Done
            }
            Command::TakeOver { name, from, lease, life } => {
                let from = match from {
                    Replaced::Lease(old) => Stored::Lease(old),
                    Replaced::Foreign(bytes) => Stored::Foreign(version_of(&bytes)),
                };
                if self.engine.entries.get(&(generation, key(&name))).is_none_or(|it| it.stored != from) {
                    return Reply::Refused;
                }
                self.is_spoiled = true;
                self.stores(writer, generation, key(&name), Stored::Lease(lease), lease_after(life), 0);
                Reply::Done
            }
            Command::Fill { name, lease, content, life } => {
                let is_blind = self.processes[number].machine.without == Some(RuleName::FillChecks);
                if !is_blind && !self.engine.holds(generation, key(&name), lease) {
                    return Reply::Refused;
                }
                self.stores(writer, generation, key(&name), stored(&content, 0), after(life), 0);
                Reply::Done
            }
            Command::Extend { name, lease, life } => {
                if !self.engine.holds(generation, key(&name), lease) {
                    return Reply::Refused;
                }
                self.stores(writer, generation, key(&name), Stored::Lease(lease), lease_after(life), 0);
                Reply::Done
            }
            Command::Release { name, lease } => {
                if !self.engine.holds(generation, key(&name), lease) {
                    return Reply::Refused;
                }
                self.is_spoiled = true;
                self.removes(writer, generation, key(&name), 0);
                Reply::Done
            }
            Command::Put { name, content, life } => {
                self.is_spoiled = true;
                self.origin += 1;
                let rank = self.origin;
                self.engine.ranks.insert(about, rank);
                if self.engine.generation == Some(generation) {
                    self.engine.floor.insert(key(&name), rank);
                }
                let stored = stored(&content, about);
                self.stores(Some(number), generation, key(&name), stored, after(life), rank);
                Reply::Done
            }
            Command::Drop(names) => {
                self.is_spoiled = true;
                for name in &names {
                    if self.engine.generation == Some(generation) {
                        let floor = self.engine.floor.entry(key(name)).or_default();
                        *floor = about.max(*floor);
                    }
                    self.removes(Some(number), generation, key(name), about);
                }
                Reply::Done
            }
            Command::Generation(candidate) => {
                if self.engine.generation.is_none() {
                    self.engine.generation = Some(candidate);
                    self.dirties(Some(number), Changed::Generation, 0);
                }
                Reply::Generation(self.engine.generation.expect("it was put"))
            }
            Command::NewGeneration(generation) => {
                self.is_spoiled = true;
                self.engine.generation = Some(generation);
                self.engine.cleared.insert(generation, about);
                for key in 0..KEYS {
                    let floor = self.engine.floor.entry(key).or_default();
                    *floor = about.max(*floor);
                }
                self.dirties(Some(number), Changed::Generation, about);
                Reply::Done
            }
            Command::Alive { owner, life } => {
                self.engine.alive.insert(owner, now.later(life));
                self.dirties(Some(number), Changed::Owner(owner), 0);
                Reply::Done
            }
            Command::IsAlive(owner) => {
                if self.engine.alive.get(&owner).is_some_and(|&until| until > now) {
                    Reply::Done
                } else {
                    Reply::Refused
                }
            }
            Command::Ping => Reply::Done,
        }
    }

    fn stores(
        &mut self,
        by: Option<usize>,
        generation: Generation,
        key: u8,
        stored: Stored,
        until: Deadline,
        about: u64,
    ) {
        self.engine.entries.insert((generation, key), Kept { stored, until });
        self.dirties(by, Changed::Key(generation, key), about);
    }

    pub(super) fn removes(&mut self, by: Option<usize>, generation: Generation, key: u8, about: u64) {
        if self.engine.entries.remove(&(generation, key)).is_some() {
            self.dirties(by, Changed::Key(generation, key), about);
        }
    }

    pub(super) fn dirties(&mut self, by: Option<usize>, what: Changed, about: u64) {
        let (last, version) = self.engine.dirty.entry(what).or_default();
        *last = by;
        *version = about.max(*version);
    }

    /// Removes what has expired by the clock.
    pub(super) fn expire(&mut self) {
        let now = self.now;
        let gone: Vec<_> = self
            .engine
            .entries
            .iter()
            .filter(|(_, kept)| kept.until.has_passed(now))
            .map(|(&at, _)| at)
            .collect();
        for (generation, key) in gone {
            self.is_spoiled = true;
            self.removes(None, generation, key, 0);
        }
        let dead: Vec<_> =
            self.engine.alive.iter().filter(|(_, until)| **until <= now).map(|(&owner, _)| owner).collect();
        for owner in dead {
            self.engine.alive.remove(&owner);
            self.dirties(None, Changed::Owner(owner), 0);
        }
    }

    /// The engine's turn ends: those who listen are told, but for the last writer of each name.
    pub(super) fn turn_ends(&mut self) {
        for (what, (by, about)) in std::mem::take(&mut self.engine.dirty) {
            for (number, process) in self.processes.iter_mut().enumerate() {
                if !process.is_connected || by == Some(number) {
                    continue;
                }
                let event = match what {
                    Changed::Key(generation, key) => {
                        if process.machine.generation() != Some(generation) {
                            continue;
                        }
                        Event::Changed(name(key))
                    }
                    Changed::Generation => Event::GenerationChanged,
                    Changed::Owner(owner) => Event::OwnerChanged(owner),
                    Changed::All => Event::AllChanged,
                };
                let under = match what {
                    Changed::Key(generation, _) => Some(generation),
                    _ => None,
                };
                process.inbox.push_back(Word { event, about, under, named: None });
            }
        }
    }

    /// Whether nothing is under way.
    pub(super) fn is_quiet(&self) -> bool {
        let is_quiet = |process: &Process| {
            process.machine.is_up()
                && process.flights.is_empty()
                && process.out.is_empty()
                && process.inbox.is_empty()
                && process.machine.pending() == 0
                && process.machine.asks.is_empty()
                && process.machine.sent.is_empty()
        };
        self.engine.dirty.is_empty() && self.processes.iter().all(is_quiet)
    }
}

impl Engine {
    fn found(&self, generation: Generation, key: u8, now: Time) -> Found {
        match self.entries.get(&(generation, key)) {
            None => Found::Absent,
            Some(Kept { stored: Stored::Stub(_), .. }) => Found::Stub,
            Some(Kept { stored: Stored::Foreign(bytes), .. }) => {
                Found::Foreign(Some(bytes.to_le_bytes().to_vec().into()))
            }
            Some(Kept { stored: Stored::Lease(lease), .. }) => Found::Lease(*lease),
            Some(Kept { stored: Stored::Value(version), until }) => {
                let bytes = version.to_le_bytes().to_vec().into();
                Found::Value(FoundValue { bytes, life: until.remaining(now) })
            }
        }
    }

    /// A version by its place among the writes that have run.
    pub(super) fn rank(&self, version: u64) -> u64 {
        self.ranks.get(&version).copied().unwrap_or(version)
    }

    fn holds(&self, generation: Generation, key: u8, lease: Lease) -> bool {
        self.entries.get(&(generation, key)).is_some_and(|kept| kept.stored == Stored::Lease(lease))
    }
}

impl Process {
    fn fence(&mut self, key: Option<u8>) {
        for flight in &mut self.flights {
            flight.is_open &= key.is_some_and(|key| flight.key != key);
        }
    }

    fn hears(&mut self, key: u8, version: u64) {
        let heard = self.heard.entry(key).or_default();
        *heard = version.max(*heard);
    }

    fn is_answered(&mut self, ask: AskId, answer: Answer, now: Time) {
        let Some(at) = self.flights.iter().position(|flight| flight.ask == ask) else { return };
        match answer {
            Answer::Value { bytes, until } => {
                let flight = self.flights.remove(at);
                let landing = self.machine.take(ask, now);
                self.lands(flight.key, version_of(&bytes), landing, flight.is_open, until, now);
            }
            Answer::Lead | Answer::Alone => self.flights[at].stage = Stage::Loading,
            Answer::Absent => {
                self.flights.remove(at);
                self.machine.end(ask, now);
            }
        }
    }

    fn lands(&mut self, key: u8, version: u64, landing: Landing, is_open: bool, until: Deadline, now: Time) {
        if !is_open {
            return;
        }
        let (is_covered, deadline) = match landing {
            Landing::Nothing => return,
            Landing::Covered => (true, until),
            Landing::AtMost(ttl) => (false, until.min(Deadline::after(now, ttl))),
        };
        self.memory.insert(key, Entry { version, is_covered, is_suspect: false, deadline });
    }
}

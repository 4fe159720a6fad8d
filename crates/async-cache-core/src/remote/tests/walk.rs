//! Random walks of three processes and three keys, with everything that can happen to an engine, a
//! connection and a process.
//!
//! After each step, no memory serves a value older than a change that its process has heard of or
//! has made, and the engine has nothing older than an acknowledged write. From time to time no new
//! events begin and the world runs until all is quiet: then no question is left, memory equals the
//! engine, and the engine has nothing older than the last write. `ASYNC_CACHE_SEED` replays one
//! walk; `ASYNC_CACHE_STEPS` is the number of steps in all.

#![allow(clippy::print_stdout, reason = "the findings and seeds are worth reading")]

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use fastrand::Rng;

use super::world::{Changed, Engine, KEYS, Kept, Stage, Stored, World};
use crate::remote::ask::{Phase, Want};
use crate::remote::machine::{Clearing, RuleName, Word, WriteMark};
use crate::remote::port::Generation;
use crate::remote::settings::{Settings, WhileDown};
use crate::time::{Deadline, Time};

const PROCESSES: usize = 3;
/// The steps of one walk.
const LENGTH: usize = 20_000;
/// The age of the copy that takes over.
const MOST_LOST: Duration = Duration::from_secs(20);

struct AwaitedWrite {
    mark: WriteMark,
    keys: Range<u8>,
    version: u64,
}

struct Walk {
    world: World,
    rng: Rng,
    /// The engine of a while ago.
    copies: Vec<(Time, Engine)>,
    has_failed_over: bool,
    is_frozen: bool,
    is_stopped: [bool; PROCESSES],
    /// The writes that somebody waits for.
    awaited: [Vec<AwaitedWrite>; PROCESSES],
    /// Whether the steps are printed, for a replay.
    prints: bool,
}

impl Walk {
    fn new(seed: u64, without: Option<RuleName>) -> Self {
        let mut rng = Rng::with_seed(seed);
        let settings = Settings {
            most_pending: if rng.u8(..4) == 0 { 3 } else { 1000 },
            while_down: if rng.bool() { WhileDown::Serve } else { WhileDown::Bypass },
            ..Settings::default()
        };
        let mut world = World::new(PROCESSES, &settings, without);
        world.engine.echoes = rng.u8(..4) == 0;
        for process in &mut world.processes {
            process.wants = false;
        }
        Self {
            world,
            rng,
            copies: Vec::new(),
            has_failed_over: false,
            is_frozen: false,
            is_stopped: [false; PROCESSES],
            awaited: Default::default(),
            prints: false,
        }
    }

    fn some_life(&mut self) -> Option<Duration> {
        [None, None, Some(Duration::from_millis(30)), Some(Duration::from_secs(20))][self.rng.usize(..4)]
    }

    /// Something happens. Nothing, if the drawn event is not possible now.
    fn step(&mut self) {
        let i = self.rng.usize(..PROCESSES);
        let key = self.rng.u8(..KEYS);
        match self.rng.u32(..1000) {
            0..350 => self.runs(i),
            350..600 => self.handles(i),
            600..640 => self.turn_ends(),
            640..730 => self.asks(i, key),
            730..800 => self.loads(i),
            800..840 => self.writes(i, key),
            840..890 => self.time_passes(),
            890..940 => self.connects(i),
            _ => self.mischief(i, key),
        }
    }

    fn note(&self, what: std::fmt::Arguments<'_>) {
        if self.prints {
            println!("{:>12?} {what}", self.world.now.since(Time::default()));
        }
    }

    fn runs(&mut self, i: usize) {
        if self.is_frozen || self.world.processes[i].out.is_empty() {
            return;
        }
        for _ in 0..=self.rng.usize(..3) {
            if !self.world.processes[i].out.is_empty() {
                self.note(format_args!("engine runs {:?} of {i}", self.world.processes[i].out[0]));
                self.world.runs(i);
            }
        }
    }

    fn handles(&mut self, i: usize) {
        if !self.is_stopped[i] && !self.world.processes[i].inbox.is_empty() {
            // Replies leave the engine at the end of its turn: no command that follows from a reply
            // runs in the same turn.
            self.world.turn_ends();
            self.note(format_args!("{i} hears {:?}", self.world.processes[i].inbox[0]));
            self.world.handles(i);
        }
    }

    fn turn_ends(&mut self) {
        if !self.is_frozen && !self.world.engine.dirty.is_empty() {
            self.note(format_args!("turn ends"));
            self.world.turn_ends();
        }
    }

    fn asks(&mut self, i: usize, key: u8) {
        if self.is_stopped[i] || !self.world.may_get(i, key) {
            return;
        }
        self.note(format_args!("{i} gets {key}"));
        match self.rng.u8(..8) {
            0 => self.world.asks(i, &[key], Want::Look),
            1 => {
                let keys: Vec<_> = (0..KEYS).filter(|&key| self.world.may_get(i, key)).collect();
                self.world.asks(i, &keys, Want::Load);
            }
            _ => self.world.get(i, key),
        }
    }

    fn loads(&mut self, i: usize) {
        let count = self.world.processes[i].flights.len();
        if count == 0 || self.is_stopped[i] {
            return;
        }
        let n = self.rng.usize(..count);
        match self.world.processes[i].flights[n].stage {
            // Nobody waits for it any more.
            Stage::Asking if self.rng.u8(..30) == 0 => self.world.load_fails(i, n),
            Stage::Asking => {}
            Stage::Loading => {
                self.note(format_args!("{i} reads the origin, version {}", self.world.origin));
                self.world.loads(i, n);
            }
            Stage::Loaded(_) if self.rng.u8(..8) == 0 => {
                self.note(format_args!("{i}: load fails"));
                self.world.load_fails(i, n);
            }
            Stage::Loaded(_) => {
                let (life, is_stub) = (self.some_life(), self.rng.u8(..12) == 0);
                self.note(format_args!("{i}: load ends, life {life:?}, stub {is_stub}"));
                self.world.load_ends(i, n, is_stub, life);
            }
        }
    }

    fn writes(&mut self, i: usize, key: u8) {
        if self.is_stopped[i] {
            return;
        }
        let mut keys = key..key + 1;
        match self.rng.u8(..20) {
            0 => {
                self.note(format_args!("{i} clears"));
                self.world.clears(i, KEYS);
                keys = 0..KEYS;
            }
            1..8 => {
                let (life, is_stub) = (self.some_life(), self.rng.u8(..12) == 0);
                self.note(format_args!("{i} sets {key}, stub {is_stub}, life {life:?}"));
                self.world.sets(i, key, is_stub, life);
            }
            _ => {
                self.note(format_args!("{i} writes and invalidates {key}"));
                self.world.writes(i, key);
            }
        }
        if self.rng.bool() {
            self.awaits(i, keys);
        }
    }

    fn awaits(&mut self, i: usize, keys: Range<u8>) {
        let machine = &mut self.world.processes[i].machine;
        let mark = machine.mark().expect("a write without an acknowledgement");
        machine.wait(mark, self.world.now);
        self.world.tick(i);
        self.awaited[i].push(AwaitedWrite { mark, keys, version: self.world.origin });
    }

    /// No acknowledged write is missing from the engine.
    fn acknowledged_fault(&mut self) -> Option<String> {
        for (i, awaited) in self.awaited.iter_mut().enumerate() {
            let machine = &self.world.processes[i].machine;
            let is_acknowledged =
                |write: &mut AwaitedWrite| machine.word_of(write.mark, self.world.now) == Word::Acknowledged;
            for AwaitedWrite { keys, version, .. } in awaited.extract_if(.., is_acknowledged) {
                for key in keys {
                    let floor = self.world.engine.floor.get(&key).copied().unwrap_or(0);
                    if floor < version {
                        return Some(format!("{i} was told that {version} of {key} is written, not {floor}"));
                    }
                    let known = self.world.acknowledged.entry(key).or_default();
                    *known = version.max(*known);
                }
            }
        }
        None
    }

    fn time_passes(&mut self) {
        let step = match self.rng.u8(..60) {
            0 => Duration::from_secs(self.rng.u64(1..12)),
            1..5 => Duration::from_millis(self.rng.u64(1..1500)),
            _ => Duration::from_micros(self.rng.u64(1..5000)),
        };
        let until = self.world.now.later(step);
        // Those that run are woken when they want to be.
        for _ in 0..100 {
            let wakes = (0..PROCESSES).filter(|&it| !self.is_stopped[it]).filter_map(|it| {
                self.world.processes[it].machine.wake_at().map(|at| (at.max(self.world.now), it))
            });
            let Some((at, i)) = wakes.min().filter(|&(at, _)| at <= until) else { break };
            self.world.now = at;
            self.note(format_args!("{i} wakes"));
            self.world.tick(i);
        }
        self.world.now = until;
        if !self.is_frozen {
            self.world.expire();
        }
        if self.rng.bool() {
            let i = self.rng.usize(..PROCESSES);
            if !self.is_stopped[i] {
                self.world.tick(i);
            }
        }
        if !self.is_frozen
            && self.copies.last().is_none_or(|(at, _)| self.world.now.since(*at) > MOST_LOST / 8)
        {
            self.copies.push((self.world.now, self.world.engine.clone()));
        }
        self.copies.retain(|(at, _)| self.world.now.since(*at) < MOST_LOST);
    }

    fn connects(&mut self, i: usize) {
        let process = &self.world.processes[i];
        if process.is_connected || !process.wants || self.is_stopped[i] {
            return;
        }
        if self.rng.u8(..6) == 0 {
            self.note(format_args!("{i} is refused"));
            self.world.is_refused(i);
        } else {
            self.note(format_args!("{i} connects"));
            self.world.connect(i);
        }
    }

    fn mischief(&mut self, i: usize, key: u8) {
        let draw = self.rng.u32(..600);
        self.note(format_args!("mischief {draw} {i} {key}"));
        match draw {
            0..40 if self.world.processes[i].is_connected => self.world.breaks(i),
            40..80 => self.is_frozen = self.rng.u8(..4) == 0,
            80..140 => self.is_stopped[i] = self.rng.u8(..4) == 0,
            140..160 => self.world.engine.is_full = self.rng.u8(..3) == 0,
            _ if self.is_frozen => {}
            160..200 => {
                if let Some(generation) = self.world.engine.generation {
                    self.world.removes(None, generation, key, 0); // evicted
                }
            }
            200..220 => {
                if let Some(generation) = self.world.engine.generation {
                    let kept = Kept { stored: Stored::Foreign(self.rng.u64(..)), until: Deadline::NEVER };
                    self.world.engine.entries.insert((generation, key), kept);
                    self.world.dirties(None, Changed::Key(generation, key), 0);
                }
            }
            220..230 => {
                self.world.engine.entries.clear();
                self.world.engine.alive.clear();
                self.world.engine.generation = None;
                self.world.dirties(None, Changed::All, 0);
            }
            230..240 => {
                self.world.engine.generation = None;
                self.world.dirties(None, Changed::Generation, 0);
            }
            240..244 if !self.copies.is_empty() => self.fails_over(),
            _ => {}
        }
    }

    /// Another server takes over, which has missed the last writes.
    fn fails_over(&mut self) {
        let (_, copy) = self.copies.swap_remove(self.rng.usize(..self.copies.len()));
        self.copies.clear();
        let engine = &mut self.world.engine;
        engine.entries = copy.entries;
        engine.generation = copy.generation;
        engine.alive = copy.alive;
        engine.dirty.clear();
        engine.identity += 1;
        self.has_failed_over = true;
        self.world.acknowledged.clear(); // It has missed some.
        for process in &mut self.world.processes {
            process.flights.iter_mut().for_each(|flight| flight.after = 0);
        }
        for i in 0..PROCESSES {
            if self.world.processes[i].is_connected {
                self.world.breaks(i);
            }
        }
    }

    /// No new events begin. Runs until nothing is under way.
    fn drains(&mut self) -> Result<(), String> {
        self.note(format_args!("drains"));
        self.is_frozen = false;
        self.is_stopped = [false; PROCESSES];
        self.world.engine.is_full = false;
        for i in 0..PROCESSES {
            if !self.world.processes[i].is_connected && !self.world.processes[i].wants {
                self.world.writes(i, 0); // An idle machine connects.
            }
        }
        let settings = self.world.processes[0].machine.settings.clone();
        let until = self.world.now.later(settings.lease + settings.wait);
        for _ in 0..2000 {
            while self.goes_on()? {}
            self.waits_for_something()?;
            if self.world.is_quiet() {
                self.has_failed_over = false;
                if self.awaited.iter().any(|awaited| !awaited.is_empty()) {
                    return Err("all is quiet, and a write is not acknowledged".into());
                }
                return self.quiet_fault().map_or(Ok(()), Err);
            }
            let wakes = self.world.processes.iter().filter_map(|process| process.machine.wake_at());
            let ends = self.world.engine.entries.values().filter_map(|kept| {
                kept.until.remaining(self.world.now).map(|left| self.world.now.later(left))
            });
            let dies = self.world.engine.alive.values().copied();
            let Some(at) = wakes.chain(ends).chain(dies).min() else {
                return Err("something is under way, and nothing will wake it".into());
            };
            if at > until {
                return Err("it does not become quiet in time".into());
            }
            self.world.now = at.max(self.world.now);
            self.world.expire();
            for i in 0..PROCESSES {
                self.world.tick(i);
                self.step_fault()?;
            }
        }
        Err("it never becomes quiet".into())
    }

    /// Whether something could be done without time passing, which was done.
    fn goes_on(&mut self) -> Result<bool, String> {
        let mut any = false;
        for i in 0..PROCESSES {
            if self.world.processes[i].wants && !self.world.processes[i].is_connected {
                self.connects_now(i);
                any = true;
            }
            while !self.world.processes[i].out.is_empty() {
                self.runs(i);
                any = true;
            }
        }
        if !self.world.engine.dirty.is_empty() {
            self.turn_ends();
            any = true;
        }
        for i in 0..PROCESSES {
            while !self.world.processes[i].inbox.is_empty() {
                self.handles(i);
                self.step_fault()?;
                any = true;
            }
            let stages = self.world.processes[i].flights.iter().map(|it| it.stage.clone());
            if let Some(n) = stages.clone().position(|it| matches!(it, Stage::Loading | Stage::Loaded(_))) {
                if stages.clone().nth(n) == Some(Stage::Loading) {
                    self.world.loads(i, n);
                }
                self.note(format_args!("{i}: load ends"));
                self.world.load_ends(i, n, false, None);
                any = true;
            }
        }
        Ok(any)
    }

    fn connects_now(&mut self, i: usize) {
        self.note(format_args!("{i} connects"));
        self.world.connect(i);
    }

    /// With nothing under way, each waiting question waits for a lease that stands.
    fn waits_for_something(&self) -> Result<(), String> {
        for (i, process) in self.world.processes.iter().enumerate() {
            for ask in process.machine.asks.values() {
                let Phase::Waiting { lease, .. } = ask.phase else { continue };
                let generation = process.machine.generation().unwrap_or(Generation(0));
                let at = (generation, ask.name.as_bytes()[0]);
                if self.world.engine.entries.get(&at).is_none_or(|kept| kept.stored != Stored::Lease(lease)) {
                    return Err(format!("{i} waits for {lease:?}, which stands nowhere"));
                }
            }
        }
        Ok(())
    }

    fn step_fault(&mut self) -> Result<(), String> {
        if let Some(fault) = self.acknowledged_fault().or(self.world.stale.take()) {
            return Err(fault);
        }
        for (i, process) in self.world.processes.iter().enumerate() {
            process.machine.validate().map_err(|fault| format!("{i}: {fault}"))?;
            for (key, entry) in process.memory.iter().filter(|(_, entry)| self.world.serves(entry)) {
                let (heard, own) = (process.heard.get(key).copied(), process.own.get(key).copied());
                let rank = self.world.engine.rank(entry.version);
                let heard = heard.unwrap_or(0);
                if rank < heard {
                    return Err(format!("{i} serves {key}: {entry:?}, and has heard of {heard}"));
                }
                let own = own.unwrap_or(0);
                if rank < own || process.puts.contains(&entry.version) && entry.version < own {
                    return Err(format!("{i} serves {key}: {entry:?}, and has written {own}"));
                }
            }
        }
        if self.has_failed_over { Ok(()) } else { self.engine_fault().map_or(Ok(()), Err) }
    }

    fn engine_fault(&self) -> Option<String> {
        let engine = &self.world.engine;
        for (&(generation, key), kept) in &engine.entries {
            let floor = engine.floor.get(&key).copied().unwrap_or(0);
            if let Stored::Value(version) = kept.stored
                && Some(generation) == engine.generation
                && engine.rank(version) < floor
            {
                return Some(format!("the engine has version {version} of {key}, and {floor} was written"));
            }
        }
        None
    }

    fn quiet_fault(&self) -> Option<String> {
        let engine = &self.world.engine;
        for (&(generation, key), kept) in &engine.entries {
            let holders = |owner| self.world.processes.iter().find(|process| process.machine.owner == owner);
            if let Stored::Lease(lease) = kept.stored
                && Some(generation) == engine.generation
                && let Some(process) = holders(lease.owner)
                && !process.machine.asks.values().any(|ask| ask.holds(lease))
            {
                return Some(format!("all is quiet, and {lease:?} of {key} stands for nobody"));
            }
        }
        for (i, process) in self.world.processes.iter().enumerate() {
            let machine = &process.machine;
            if machine.generation() != engine.generation {
                return Some(format!("all is quiet, and {i} has another generation than the engine"));
            }
            if machine.clearing != Clearing::No {
                return Some(format!("all is quiet, and {i} has not cleared"));
            }
            for (&key, entry) in &process.memory {
                if !entry.is_covered || !self.world.serves(entry) {
                    continue;
                }
                let at = (machine.generation().unwrap_or(Generation(0)), key);
                let floor = engine.floor.get(&key).copied().unwrap_or(0);
                let stored = engine.entries.get(&at).map(|kept| &kept.stored);
                let is_fine = match stored {
                    Some(&Stored::Value(version)) => version == entry.version,
                    // A stub is heard of, and so is what another program wrote.
                    Some(_) => engine.rank(entry.version) >= floor,
                    None => false,
                };
                if !is_fine {
                    return Some(format!("all is quiet, {i} serves {key}: {entry:?}, stored is {stored:?}"));
                }
            }
        }
        for (&(generation, key), kept) in &engine.entries {
            let written = self.world.processes.iter().filter_map(|process| process.own.get(&key)).max();
            if let Stored::Value(version) = kept.stored
                && Some(generation) == engine.generation
                && written.is_some_and(|&written| engine.rank(version) < written)
            {
                return Some(format!("all is quiet, {key} is {version}, and {written:?} was written"));
            }
        }
        self.engine_fault()
    }

    fn goes(&mut self, steps: usize) -> Result<(), String> {
        for number in 1..=steps {
            self.step();
            self.step_fault()?;
            if number % 250 == 0 || number == steps {
                self.drains()?;
            }
        }
        Ok(())
    }
}

/// Walks, and says where it ended in harm.
fn walk(seed: u64, without: Option<RuleName>, steps: usize, prints: bool) -> Result<(), String> {
    let mut walk = Walk::new(seed, without);
    walk.prints = prints;
    let result = catch_unwind(AssertUnwindSafe(|| walk.goes(steps)));
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(format!("panic: {}", text.unwrap_or_else(|| "not a text".into())))
    })
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn a_million_random_steps_do_no_harm() {
    if let Some(seed) = number("ASYNC_CACHE_SEED") {
        walk(seed, None, LENGTH, true).unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
        return;
    }
    let steps = number("ASYNC_CACHE_STEPS").unwrap_or(1_000_000);
    for seed in 0..steps.div_ceil(LENGTH as u64) {
        walk(seed, None, LENGTH, false)
            .unwrap_or_else(|fault| panic!("replay with ASYNC_CACHE_SEED={seed}: {fault}"));
    }
}

#[test]
fn a_walk_finds_the_harm_of_rules_left_out() {
    for rule in [
        RuleName::ChangeFences,
        RuleName::OwnWriteFences,
        RuleName::FillChecks,
        RuleName::LeasePerLoad,
        RuleName::OwnWriteWakes,
        RuleName::FencedAsksAgain,
        RuleName::EndWakes,
        RuleName::GrantForgets,
        RuleName::ConnectionSuspects,
        RuleName::PendingIsSent,
        RuleName::WritesAreConfirmed,
        RuleName::ReadsArePresent,
        // Not `LeaseEnds`: signs of life end here, and waits too. The search finds it.
    ] {
        let found = (0..50).find_map(|seed| walk(seed, Some(rule), LENGTH, false).err().map(|it| (seed, it)));
        println!("{rule:?}: {found:?}");
        assert!(found.is_some(), "{rule:?} is not needed");
    }
}

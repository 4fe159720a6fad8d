//! Each row of the table of phases, and the rules, with a scripted engine and exact times.

mod confirmations;

use std::collections::VecDeque;
use std::time::Duration;

use super::world::{content, name};
use crate::remote::ask::{Answer, AskId, Landing, Want};
use crate::remote::machine::{Clearing, Link, Machine, Notice, Output};
use crate::remote::port::{
    Abilities, Command, CommandId, Content, Event, Found, FoundValue, Generation, Greeting, Lease, Owner,
    Replaced, Reply,
};
use crate::remote::settings::{Settings, WhileDown};
use crate::time::{Deadline, Time};

const ALL: Abilities = Abilities { fences: true, notifies: true };
const OURS: Owner = Owner(1);
const OTHERS: Lease = Lease { owner: Owner(77), serial: 5 };
const G: Generation = Generation(9);
const TIMEOUT: Duration = Duration::from_millis(250);
const MS: Duration = Duration::from_millis(1);

/// A machine whose engine is played by the test.
struct Script {
    machine: Machine,
    now: Time,
    /// Commands without a reply, oldest first.
    unanswered: VecDeque<(CommandId, Command)>,
    /// All other outputs since the last look.
    said: Vec<Output>,
    owner: Owner,
    generation: Generation,
    identity: u64,
}

impl Script {
    fn new(settings: Settings) -> Self {
        Self {
            machine: Machine::new(settings, 12345),
            now: Time::from_nanos(1_000_000_000),
            unanswered: VecDeque::new(),
            said: Vec::new(),
            owner: OURS,
            generation: G,
            identity: 1,
        }
    }

    /// Connected, with nothing under way.
    fn up() -> Self {
        Self::up_with(ALL, Settings::default())
    }

    fn up_with(abilities: Abilities, settings: Settings) -> Self {
        let mut script = Self::new(settings);
        script.machine.invalidate(&[name(99)], script.now);
        script.run();
        script.connects(abilities);
        script.replies(Reply::Done); // the removal
        script.said.clear();
        assert!(script.unanswered.is_empty());
        script
    }

    fn greets(&mut self, abilities: Abilities) {
        let greeting = Greeting { abilities, identity: self.identity };
        self.machine.heard(self.now); // the bytes of the greeting
        self.machine.connected(greeting, self.owner, Generation(50), self.now);
        self.run();
    }

    fn connects(&mut self, abilities: Abilities) {
        self.greets(abilities);
        let greets_first = matches!(self.unanswered[0].1, Command::Generation(_) | Command::NewGeneration(_));
        assert!(greets_first, "{:?}", self.unanswered);
        let told = match self.unanswered[0].1 {
            Command::NewGeneration(_) => Reply::Done,
            _ => Reply::Generation(self.generation),
        };
        self.replies(told);
    }

    fn breaks(&mut self) {
        self.machine.lost("it broke", self.now);
        self.unanswered.clear();
        self.run();
    }

    /// Ticks until the machine wants a connection.
    fn wants_connection(&mut self) {
        for _ in 0..100 {
            if matches!(self.machine.link, Link::Connecting(_)) {
                return;
            }
            self.now = self.now.max(self.machine.wake_at().expect("a time"));
            self.tick();
        }
        panic!("no attempt to connect");
    }

    fn run(&mut self) {
        self.machine.flush(self.now);
        while let Some(output) = self.machine.poll() {
            match output {
                Output::Send { id, command, .. } => self.unanswered.push_back((id, command)),
                other => self.said.push(other),
            }
        }
        if !self.disconnects() {
            self.machine.validate().expect("a machine in order");
        }
    }

    fn tick(&mut self) {
        self.machine.tick(self.now);
        self.run();
    }

    fn after(&mut self, time: Duration) {
        self.now = self.now.later(time);
        self.tick();
    }

    /// The engine answers the oldest command, which is returned.
    #[track_caller]
    fn replies(&mut self, reply: Reply) -> Command {
        let (id, command) = self.unanswered.pop_front().expect("a command");
        self.says(Event::Reply(id, reply));
        command
    }

    fn says(&mut self, event: Event) {
        self.machine.heard(self.now);
        self.machine.event(event, self.now);
        self.run();
    }

    fn asks(&mut self, key: u8) -> AskId {
        let id = self.machine.ask([name(key)], Want::Load, self.now)[0];
        self.run();
        self.names_generation();
        id
    }

    /// An engine that tells of no changes is asked before each read.
    fn names_generation(&mut self) {
        let is_silent = matches!(self.machine.link, Link::Up(Abilities { notifies: false, .. }));
        if is_silent && matches!(self.unanswered.front(), Some((_, Command::Ping))) {
            self.replies(Reply::Done);
        }
    }

    /// Asks, and is granted a lease.
    fn leads(&mut self, key: u8) -> (AskId, Lease) {
        let id = self.asks(key);
        self.replies(Reply::Found(vec![Found::Absent]));
        self.confirms_alive();
        let Command::Acquire { lease, .. } = self.replies(Reply::Done) else {
            panic!("no lease was asked for")
        };
        assert_eq!(self.answer(id), Some(Answer::Lead));
        (id, lease)
    }

    fn confirms_alive(&mut self) {
        if matches!(self.unanswered[0].1, Command::Alive { .. }) {
            self.replies(Reply::Done);
        }
    }

    /// Waits for another process's lease, whose owner is alive.
    fn waits(&mut self, key: u8) -> AskId {
        let id = self.asks(key);
        self.replies(Reply::Found(vec![Found::Lease(OTHERS)]));
        if let Some((_, Command::IsAlive(_))) = self.unanswered.front() {
            self.replies(Reply::Done);
        }
        id
    }

    fn answer(&self, id: AskId) -> Option<Answer> {
        self.said.iter().find_map(|said| match said {
            Output::Answer(to, answer) if *to == id => Some(answer.clone()),
            _ => None,
        })
    }

    fn forgets(&self, key: u8) -> bool {
        self.said.iter().any(|said| matches!(said, Output::Forget { name: it, .. } if *it == name(key)))
    }

    fn disconnects(&self) -> bool {
        self.said.iter().any(|said| matches!(said, Output::Disconnect(..)))
    }

    fn commands(&self) -> Vec<Command> {
        self.unanswered.iter().map(|(_, command)| command.clone()).collect()
    }

    fn lands(&mut self, id: AskId) -> Landing {
        let landing = self.machine.land(id, content(1), None, self.now);
        self.run();
        landing
    }
}

fn value(version: u64, life: Option<Duration>) -> Found {
    Found::Value(FoundValue { bytes: version.to_le_bytes().to_vec().into(), life })
}

fn read(key: u8) -> Command {
    Command::Read(vec![name(key)])
}

fn dropped(keys: &[u8]) -> Command {
    Command::Drop(keys.iter().copied().map(name).collect())
}

// Reading

#[test]
fn the_life_of_a_value_counts_from_the_question() {
    let mut script = Script::up();
    let asked_at = script.now;
    let id = script.asks(1);
    script.now = script.now.later(MS * 100);
    script.replies(Reply::Found(vec![value(3, Some(Duration::from_secs(5)))]));
    let until = Deadline::after(asked_at, Duration::from_secs(5));
    let bytes = 3_u64.to_le_bytes().to_vec().into();
    assert_eq!(script.answer(id), Some(Answer::Value { bytes, until }));
    assert_eq!(script.machine.take(id, script.now), Landing::Covered);
    assert!(script.machine.asks.is_empty());
}

#[test]
fn a_look_neither_leads_nor_waits() {
    for found in [Found::Absent, Found::Lease(OTHERS), Found::Stub, Found::Foreign(None)] {
        let mut script = Script::up();
        let id = script.machine.ask([name(1)], Want::Look, script.now)[0];
        script.run();
        script.replies(Reply::Found(vec![found]));
        assert_eq!(script.answer(id), Some(Answer::Absent));
        assert!(script.unanswered.is_empty());
    }
}

#[test]
fn a_stub_and_a_foreign_content_too_large_to_name_are_loaded_alone_and_covered() {
    for found in [Found::Stub, Found::Foreign(None)] {
        let mut script = Script::up();
        let id = script.asks(1);
        script.replies(Reply::Found(vec![found]));
        assert_eq!(script.answer(id), Some(Answer::Alone));
        assert_eq!(script.lands(id), Landing::Covered);
        assert!(script.unanswered.is_empty(), "nothing is stored");
    }
}

#[test]
fn only_the_foreign_content_that_was_read_is_replaced() {
    let mut script = Script::up();
    let id = script.asks(1);
    let bytes: std::sync::Arc<[u8]> = b"rubbish".to_vec().into();
    script.replies(Reply::Found(vec![Found::Foreign(Some(bytes.clone()))]));
    script.confirms_alive();
    let command = script.replies(Reply::Refused);
    let Command::TakeOver { from, .. } = command else { panic!("{command:?}") };
    assert_eq!(from, Replaced::Foreign(bytes));
    assert_eq!(script.commands(), [read(1)], "refused: it is read again");
    assert_eq!(script.answer(id), None);
}

#[test]
fn many_questions_are_one_read() {
    let mut script = Script::up();
    let ids = script.machine.ask([name(1), name(2), name(3)], Want::Load, script.now);
    script.run();
    let found = vec![value(1, None), Found::Stub, value(2, None)];
    let command = script.replies(Reply::Found(found));
    assert_eq!(command, Command::Read(vec![name(1), name(2), name(3)]));
    assert!(ids.iter().all(|&id| script.answer(id).is_some()));
    assert_eq!(script.answer(ids[1]), Some(Answer::Alone));
}

#[test]
fn a_refused_read_is_loaded_alone_and_said_once() {
    let mut script = Script::up();
    for key in 1..4 {
        let id = script.asks(key);
        script.replies(Reply::Failed("NOPERM".into()));
        assert_eq!(script.answer(id), Some(Answer::Alone));
        assert_eq!(script.lands(id), Landing::AtMost(Settings::default().uncovered_ttl));
    }
    let refusals = script.said.iter().filter(|said| matches!(said, Output::Say(Notice::Refused(_))));
    assert_eq!(refusals.count(), 1);
}

// Acquiring and leading: rules 3, 4 and 10

#[test]
fn a_sign_of_life_precedes_the_first_lease_and_not_the_second() {
    let mut script = Script::up();
    script.asks(1);
    script.replies(Reply::Found(vec![Found::Absent]));
    let [Command::Alive { owner: OURS, .. }, Command::Acquire { lease, .. }] = &script.commands()[..] else {
        panic!("{:?}", script.commands());
    };
    assert_eq!(lease.owner, OURS);
    script.replies(Reply::Done);
    script.replies(Reply::Done);
    script.asks(2);
    script.replies(Reply::Found(vec![Found::Absent]));
    assert!(matches!(script.commands()[..], [Command::Acquire { .. }]));
}

#[test]
fn the_sign_of_life_is_renewed_only_while_a_load_leads() {
    let mut script = Script::up();
    let (id, _) = script.leads(1);
    let ten_seconds = |script: &mut Script| {
        let until = script.now.later(Duration::from_secs(10));
        let mut signs = 0;
        while script.now < until {
            script.after(MS * 50);
            while !script.unanswered.is_empty() {
                signs += usize::from(matches!(script.replies(Reply::Done), Command::Alive { .. }));
            }
        }
        signs
    };
    let signs = ten_seconds(&mut script);
    assert!((8..=11).contains(&signs), "{signs}");
    script.machine.end(id, script.now);
    script.run();
    script.replies(Reply::Done);
    assert_eq!(ten_seconds(&mut script), 0);
}

#[test]
fn a_granted_lease_drops_the_older_entry_and_is_filled() {
    let mut script = Script::up();
    let (id, lease) = script.leads(1);
    assert!(script.forgets(1));
    assert_eq!(script.lands(id), Landing::Covered);
    let command = script.replies(Reply::Done);
    assert_eq!(command, Command::Fill { name: name(1), lease, content: content(1), life: None });
    assert!(script.machine.asks.is_empty());
}

#[test]
fn a_refused_fill_drops_the_entry() {
    for reply in [Reply::Refused, Reply::Failed("OOM".into())] {
        let mut script = Script::up();
        let (id, lease) = script.leads(1);
        script.lands(id);
        script.said.clear();
        let fails = matches!(reply, Reply::Failed(_));
        script.replies(reply);
        assert!(script.forgets(1));
        let released = vec![Command::Release { name: name(1), lease }];
        assert_eq!(script.commands(), if fails { released } else { vec![] });
    }
}

#[test]
fn the_end_of_a_load_whose_value_is_being_stored_does_not_lose_the_refusal() {
    let mut script = Script::up();
    let (id, _) = script.leads(1);
    script.lands(id);
    script.machine.end(id, script.now);
    script.run();
    script.said.clear();
    script.replies(Reply::Refused);
    assert!(script.forgets(1));
}

#[test]
fn a_failed_load_releases_its_lease_and_wakes_the_next_question() {
    let mut script = Script::up();
    let (id, lease) = script.leads(1);
    let second = script.asks(1);
    script.replies(Reply::Found(vec![Found::Lease(lease)]));
    assert!(script.unanswered.is_empty(), "it waits");
    script.machine.end(id, script.now);
    script.run();
    assert_eq!(script.commands(), [Command::Release { name: name(1), lease }, read(1)]);
    script.replies(Reply::Done);
    script.replies(Reply::Found(vec![Found::Absent]));
    script.replies(Reply::Done);
    assert_eq!(script.answer(second), Some(Answer::Lead));
}

#[test]
fn a_lease_is_extended_every_third_of_its_life() {
    let mut script = Script::up();
    let (_, lease) = script.leads(1);
    let life = Settings::default().lease;
    for _ in 0..5 {
        script.after(life / 3);
        let extends = |command: &Command| *command == Command::Extend { name: name(1), lease, life };
        assert_eq!(script.commands().iter().filter(|it| extends(it)).count(), 1);
        while !script.unanswered.is_empty() {
            script.replies(Reply::Done);
        }
    }
}

#[test]
fn a_refused_extension_keeps_the_load_for_its_own_callers_only() {
    let mut script = Script::up();
    let (id, _) = script.leads(1);
    script.said.clear();
    script.after(Settings::default().lease / 3);
    while let Some((_, command)) = script.unanswered.front() {
        let extends = matches!(command, Command::Extend { .. });
        script.replies(if extends { Reply::Refused } else { Reply::Done });
    }
    assert!(script.said.contains(&Output::Forget { name: name(1), fences: true }));
    assert_eq!(script.lands(id), Landing::Nothing);
    assert!(script.unanswered.is_empty(), "nothing is stored");
    assert_eq!(script.machine.leading, 0);
}

#[test]
fn a_lease_that_is_granted_too_late_is_released() {
    let mut script = Script::up();
    let id = script.asks(1);
    script.replies(Reply::Found(vec![Found::Absent]));
    script.replies(Reply::Done); // the sign of life
    script.machine.end(id, script.now);
    script.run();
    script.said.clear();
    let Command::Acquire { lease, .. } = script.replies(Reply::Done) else { panic!("no lease") };
    assert_eq!(script.commands(), [Command::Release { name: name(1), lease }]);
    assert!(script.forgets(1));
}

// Waiting: rules 5 and 6

#[test]
fn a_waiting_question_reads_again_when_its_name_changes() {
    let mut script = Script::up();
    let id = script.waits(1);
    script.says(Event::Changed(name(2)));
    assert!(script.unanswered.is_empty());
    script.says(Event::Changed(name(1)));
    assert_eq!(script.commands(), [read(1)]);
    script.replies(Reply::Found(vec![value(4, None)]));
    assert!(matches!(script.answer(id), Some(Answer::Value { .. })));
    assert_eq!(script.machine.take(id, script.now), Landing::Covered);
}

#[test]
fn a_waiting_question_reads_again_after_half_a_lease() {
    let mut script = Script::up();
    script.waits(1);
    let begin = script.now;
    let half = Settings::default().lease / 2;
    while !script.commands().contains(&read(1)) {
        script.now = script.machine.wake_at().expect("a time");
        script.tick();
        if let Some((_, Command::Ping)) = script.unanswered.front() {
            script.replies(Reply::Done);
        }
    }
    let waited = script.now.since(begin);
    assert!(waited >= half && waited < half + MS * 257, "{waited:?}");
}

#[test]
fn nobody_waits_longer_than_the_wait_in_all() {
    let mut script = Script::up();
    let begin = script.now;
    let id = script.waits(1);
    while script.answer(id).is_none() {
        script.now = script.machine.wake_at().expect("a time");
        script.tick();
        while let Some((_, command)) = script.unanswered.front() {
            let reads = matches!(command, Command::Read(_));
            script.replies(if reads { Reply::Found(vec![Found::Lease(OTHERS)]) } else { Reply::Done });
        }
    }
    assert_eq!(script.answer(id), Some(Answer::Alone));
    let (waited, settings) = (script.now.since(begin), Settings::default());
    assert!(waited >= settings.wait && waited < settings.wait + settings.lease, "{waited:?}");
}

#[test]
fn the_lease_of_a_dead_owner_is_taken_over() {
    let mut script = Script::up();
    let id = script.waits(1);
    script.says(Event::OwnerChanged(OTHERS.owner));
    assert_eq!(script.replies(Reply::Refused), Command::IsAlive(OTHERS.owner));
    script.confirms_alive();
    let command = script.replies(Reply::Done);
    let Command::TakeOver { from, .. } = command else { panic!("{command:?}") };
    assert_eq!(from, Replaced::Lease(OTHERS));
    assert_eq!(script.answer(id), Some(Answer::Lead));
    assert_eq!(script.lands(id), Landing::Covered);
}

#[test]
fn the_owner_of_several_leases_is_asked_about_once() {
    let mut script = Script::up();
    script.machine.ask([name(1), name(2), name(3)], Want::Load, script.now);
    script.run();
    script.replies(Reply::Found(vec![Found::Lease(OTHERS); 3]));
    assert_eq!(script.commands(), [Command::IsAlive(OTHERS.owner)]);
}

// Fences: rules 1 and 2

#[test]
fn a_change_fences_each_phase() {
    for steps in 0..3 {
        let mut script = Script::up();
        let id = script.asks(1);
        if steps > 0 {
            script.replies(Reply::Found(vec![Found::Absent]));
            script.confirms_alive();
        }
        if steps > 1 {
            script.replies(Reply::Done);
        }
        script.says(Event::Changed(name(1)));
        assert!(script.said.contains(&Output::Forget { name: name(1), fences: true }));
        match steps {
            0 => drop(script.replies(Reply::Found(vec![value(1, None)]))),
            1 => drop(script.replies(Reply::Done)),
            _ => {}
        }
        let landing = if steps == 0 { script.machine.take(id, script.now) } else { script.lands(id) };
        assert_eq!(landing, Landing::Nothing);
    }
}

#[test]
fn an_own_write_fences_and_wakes() {
    let mut script = Script::up();
    let (leading, _) = script.leads(1);
    script.waits(2);
    script.machine.invalidate(&[name(1), name(2)], script.now);
    script.run();
    assert_eq!(script.commands(), [dropped(&[1, 2]), read(2)], "the removal comes first");
    assert_eq!(script.lands(leading), Landing::Nothing);
}

#[test]
fn removing_nothing_sends_nothing() {
    let mut script = Script::up();
    script.machine.invalidate(&[], script.now);
    script.run();
    assert!(script.unanswered.is_empty());
}

// Engines that can do less

#[test]
fn an_engine_without_fences_is_put_to() {
    let mut script = Script::up_with(Abilities { fences: false, notifies: true }, Settings::default());
    let id = script.asks(1);
    script.replies(Reply::Found(vec![Found::Absent]));
    assert_eq!(script.answer(id), Some(Answer::Alone));
    assert_eq!(script.lands(id), Landing::Covered);
    script.said.clear();
    let put = Command::Put { name: name(1), content: content(1), life: None };
    assert_eq!(script.replies(Reply::Failed("OOM".into())), put);
    assert!(script.forgets(1), "nothing stands there, so its changes are not heard");
}

#[test]
fn an_engine_that_does_not_notify_is_polled_and_covers_nothing() {
    let mut script = Script::up_with(Abilities { fences: true, notifies: false }, Settings::default());
    script.waits(1);
    script.after(MS * 20);
    assert_eq!(script.commands(), [Command::Ping, read(1)]);
    script.names_generation();
    let (id, _) = {
        script.replies(Reply::Found(vec![value(1, None)]));
        script.leads(2)
    };
    assert_eq!(script.lands(id), Landing::AtMost(Settings::default().uncovered_ttl));
}

// Times: rule 11

#[test]
fn the_first_caller_waits_for_the_timeout_and_then_nobody() {
    let mut script = Script::up();
    let first = script.asks(1);
    script.after(MS * 249);
    assert_eq!(script.answer(first), None);
    script.after(MS);
    assert_eq!(script.answer(first), Some(Answer::Alone));
    assert!(!script.machine.is_up());
    let second = script.asks(2);
    assert_eq!(script.answer(second), Some(Answer::Alone), "at once");
}

#[test]
fn an_engine_that_speaks_again_is_used_on_the_same_connection() {
    let mut script = Script::up();
    script.asks(1);
    script.after(TIMEOUT);
    script.replies(Reply::Found(vec![Found::Absent]));
    assert!(script.machine.is_up());
    let notices: Vec<_> = script.said.iter().filter(|said| matches!(said, Output::Say(_))).collect();
    assert!(matches!(notices[..], [Output::Say(Notice::Down(_)), Output::Say(Notice::Up(_))]));
    script.asks(2);
    assert_eq!(script.commands(), [read(2)]);
}

#[test]
fn a_silent_connection_is_lost() {
    let mut script = Script::up();
    script.asks(1);
    script.after(TIMEOUT);
    let rest = Settings::default().silence;
    script.after(rest.saturating_sub(MS));
    assert!(!script.disconnects());
    script.after(MS);
    assert!(script.disconnects());
}

#[test]
fn an_engine_is_asked_for_a_word_at_intervals_however_busy_it_is() {
    let mut script = Script::up();
    let heartbeat = Settings::default().heartbeat;
    for _ in 0..10 {
        script.after(heartbeat.saturating_sub(MS));
        script.says(Event::Changed(name(5)));
        assert!(script.unanswered.is_empty());
        script.asks(1);
        script.after(MS);
        let commands = script.commands();
        assert_eq!(commands, [read(1), Command::Ping]);
        script.replies(Reply::Found(vec![Found::Stub]));
        script.replies(Reply::Done);
    }
}

#[test]
fn an_engine_that_is_silent_gets_no_further_question_for_a_word() {
    let mut script = Script::up();
    script.after(Settings::default().heartbeat);
    script.after(TIMEOUT);
    assert!(script.machine.is_stalled);
    script.after(Settings::default().silence.saturating_sub(MS));
    assert_eq!(script.commands(), [Command::Ping]);
    assert_eq!(script.machine.wake_at(), Some(script.now.later(MS)));
}

#[test]
fn values_on_their_way_are_bounded() {
    let settings = Settings { most_unanswered: 5, ..Settings::default() };
    let mut script = Script::up_with(ALL, settings.clone());
    let value = |length: usize| Content::Value(vec![7; length].into());
    let put = |script: &mut Script, key, content: &Content, life| {
        let landing = script.machine.put(&name(key), content.clone(), life, script.now);
        assert_eq!(landing, Landing::Covered);
        script.run();
        script.unanswered.back().expect("a put").1.clone()
    };
    let is_put =
        |key, content: &Content, life| Command::Put { name: name(key), content: content.clone(), life };
    let (four, hour) = (value(4), Some(Duration::from_secs(3600)));
    assert_eq!(put(&mut script, 1, &four, None), is_put(1, &four, None));
    assert_eq!(put(&mut script, 2, &four, hour), is_put(2, &four, hour));
    let short = Some(settings.uncovered_ttl);
    assert_eq!(put(&mut script, 3, &four, None), is_put(3, &Content::Stub, short));
    assert_eq!(put(&mut script, 4, &four, hour), is_put(4, &Content::Stub, short));
    assert_eq!(put(&mut script, 5, &four, Some(MS)), is_put(5, &Content::Stub, Some(MS)));
    script.replies(Reply::Done);
    assert_eq!(put(&mut script, 6, &four, None), is_put(6, &four, None));
    script.breaks();
    script.wants_connection();
    script.connects(ALL);
    script.replies(Reply::Done); // the removals
    assert_eq!(script.machine.unanswered, 0);
    let (id, _) = script.leads(2);
    assert_eq!(put(&mut script, 1, &value(9), None), is_put(1, &value(9), None));
    script.machine.land(id, four, None, script.now);
    script.run();
    let (_, command) = script.unanswered.back().expect("a fill");
    let is_stub = |command: &Command| matches!(command, Command::Fill { content: Content::Stub, life, .. } if *life == short);
    assert!(is_stub(command), "{command:?}");
}

#[test]
fn puts_that_wait_for_a_connection_are_bounded() {
    let settings = Settings { most_unanswered: 5, ..Settings::default() };
    let mut script = Script::new(settings);
    for key in 1..=3 {
        script.machine.put(&name(key), Content::Value(vec![7; 4].into()), None, script.now);
    }
    script.run();
    script.connects(ALL);
    let commands = script.commands();
    let names: Vec<_> = commands
        .iter()
        .filter_map(|command| match command {
            Command::Put { name, .. } => Some(name.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(names, [name(1), name(2)]);
    assert!(commands.contains(&Command::Drop(vec![name(3)])), "{commands:?}");
}

#[test]
fn leases_that_nobody_holds_are_released_on_the_next_connection() {
    let mut script = Script::up();
    let (failed, of_failed) = script.leads(1);
    let (loaded, of_loaded) = script.leads(2);
    let (later, of_later) = script.leads(3);
    let (_, of_running) = script.leads(4);
    script.asks(5);
    script.replies(Reply::Found(vec![Found::Absent]));
    let Some((_, Command::Acquire { lease: of_asking, .. })) = script.unanswered.back().cloned() else {
        panic!("no lease was asked for")
    };
    script.machine.end(failed, script.now);
    script.lands(loaded);
    assert_eq!(script.unanswered.len(), 3, "the connection breaks under all of them");
    script.breaks();
    script.machine.end(later, script.now);
    script.wants_connection();
    script.connects(ALL);
    let released = [(5, of_asking), (1, of_failed), (2, of_loaded), (3, of_later)];
    let released = released.map(|(key, lease)| Command::Release { name: name(key), lease });
    assert_eq!(script.commands(), released, "and not {of_running:?}");
    // Those are lost as well.
    script.breaks();
    script.wants_connection();
    script.connects(ALL);
    assert_eq!(script.commands(), released);
    while !script.unanswered.is_empty() {
        script.replies(Reply::Refused);
    }
    script.breaks();
    script.wants_connection();
    script.connects(ALL);
    assert!(script.unanswered.is_empty());
}

#[test]
fn a_load_that_outlives_its_connection_keeps_its_owner_alive() {
    let mut script = Script::up();
    script.leads(1);
    script.owner = Owner(2);
    script.breaks();
    script.wants_connection();
    script.connects(ALL);
    script.now = script.machine.wake_at().expect("a time");
    script.tick();
    let life = Settings::default().alive;
    let alive = |owner| Command::Alive { owner, life };
    assert_eq!(script.commands(), [alive(OURS), alive(Owner(2))]);
}

#[test]
fn pauses_grow_within_bounds_and_differ_between_processes() {
    let most = Settings::default().most_backoff;
    let pauses = |seed: u64| {
        let mut machine = Machine::new(Settings::default(), seed);
        let mut now = Time::from_nanos(1);
        machine.ask([name(1)], Want::Load, now);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            machine.lost("refused", now);
            let Link::Pausing(until) = machine.link else { panic!("no pause") };
            pauses.push(until.since(now));
            now = until;
            machine.tick(now);
            assert!(matches!(machine.link, Link::Connecting(_)));
        }
        pauses
    };
    let one = pauses(0x1234_5678_9ABC_DEF1);
    for (attempt, &pause) in one.iter().enumerate() {
        let whole = (MS * 50).saturating_mul(1 << attempt.min(10)).min(most);
        assert!(pause >= whole / 2 && pause <= whole, "attempt {attempt}: {pause:?}");
    }
    assert_ne!(one, pauses(0x0FED_CBA9_8765_4321));
}

#[test]
fn a_connection_that_is_lost_at_once_is_made_again_after_a_pause() {
    let mut script = Script::up();
    let begin = script.now;
    for _ in 0..8 {
        script.breaks();
        script.wants_connection();
        script.connects(ALL);
        while !script.unanswered.is_empty() {
            script.replies(Reply::Done);
        }
    }
    assert!(script.now.since(begin) > Duration::from_secs(5), "{:?}", script.now.since(begin));
    script.after(Settings::default().heartbeat);
    script.replies(Reply::Done);
    let before = script.now;
    script.breaks();
    script.wants_connection();
    assert_eq!(script.now, before, "one that has lasted is made again at once");
}

/// The link of a machine, and whether its engine answers.
fn ticks_move_on(mut script: Script, answers: bool) {
    let (mut same, begin) = (0, script.now);
    let mut ticks = 0;
    for _ in 0..10_000 {
        let Some(at) = script.machine.wake_at() else { break };
        ticks += 1;
        same = if at <= script.now { same + 1 } else { 0 };
        assert!(same < 5, "{:?} wakes at {at:?} again and again", script.machine.link);
        script.now = script.now.max(at);
        script.tick();
        if script.disconnects() {
            script.said.clear();
            script.breaks();
        }
        while answers && !script.unanswered.is_empty() {
            script.replies(Reply::Done);
        }
    }
    let passed = script.now.since(begin);
    assert!(ticks == 0 || passed >= MS * 20 * ticks, "{ticks} ticks in {passed:?}");
}

#[test]
fn no_link_wakes_without_time_passing() {
    ticks_move_on(Script::new(Settings::default()), false); // idle
    let mut connecting = Script::new(Settings::default());
    connecting.asks(1);
    ticks_move_on(connecting, false);
    let mut greeting = Script::new(Settings::default());
    greeting.asks(1);
    greeting.greets(ALL);
    ticks_move_on(greeting, false);
    let mut pausing = Script::up();
    pausing.breaks();
    ticks_move_on(pausing, false);
    ticks_move_on(Script::up(), true);
    ticks_move_on(Script::up(), false);
    for answers in [true, false] {
        let mut leading = Script::up();
        leading.leads(1);
        ticks_move_on(leading, answers);
        let mut stalled = Script::up();
        stalled.asks(1);
        stalled.after(TIMEOUT);
        ticks_move_on(stalled, answers);
    }
    let mut held = Script::up();
    held.leads(1);
    held.breaks();
    ticks_move_on(held, false);
}

// The connection: rule 7

#[test]
fn questions_are_parked_for_the_first_connection_for_as_long_as_the_timeout() {
    let mut script = Script::new(Settings::default());
    let first = script.asks(1);
    assert_eq!(script.said, [Output::Connect]);
    script.after(MS * 100);
    let second = script.asks(2);
    script.after(MS * 150);
    assert_eq!(script.answer(first), Some(Answer::Alone), "from the beginning of the attempt");
    assert_eq!(script.answer(second), Some(Answer::Alone));
    let third = script.asks(3);
    assert_eq!(script.answer(third), Some(Answer::Alone), "at once");
}

#[test]
fn parked_questions_are_read_once_the_generation_is_known() {
    let mut script = Script::new(Settings::default());
    script.asks(1);
    script.greets(ALL);
    script.asks(2);
    assert!(matches!(script.commands()[..], [Command::Generation(_)]));
    script.replies(Reply::Generation(G));
    assert_eq!(script.commands(), [Command::Read(vec![name(1), name(2)])]);
}

#[test]
fn a_question_while_a_reconnect_pauses_is_loaded_alone() {
    let mut script = Script::up();
    script.breaks();
    let id = script.asks(1);
    assert_eq!(script.answer(id), Some(Answer::Alone));
    assert_eq!(script.lands(id), Landing::AtMost(Settings::default().max_uncovered));
}

#[test]
fn a_lost_connection_answers_everyone_and_memory_is_suspect_on_the_next() {
    let mut script = Script::up();
    let (leading, _) = script.leads(1);
    let waiting = script.waits(2);
    let reading = script.asks(3);
    script.breaks();
    assert_eq!(script.answer(waiting), Some(Answer::Alone));
    assert_eq!(script.answer(reading), Some(Answer::Alone));
    script.wants_connection();
    script.connects(ALL);
    assert!(script.said.contains(&Output::Suspect { fences: false }));
    assert_eq!(script.lands(leading), Landing::Nothing, "it was asked for before");
    assert!(matches!(script.commands()[..], [Command::Fill { .. }]), "if the lease still stands");
}

#[test]
fn entries_of_a_lost_connection_are_served_for_a_time() {
    let mut script = Script::up();
    script.breaks();
    assert!(!script.said.contains(&Output::Suspect { fences: false }));
    let max = Settings::default().max_uncovered;
    let epoch = script.machine.epoch();
    let until = script.now.later(max);
    while script.now < until {
        assert_eq!(script.machine.epoch(), epoch);
        script.now = script.now.max(script.machine.wake_at().expect("a time").min(until));
        script.tick();
        if matches!(script.machine.link, Link::Connecting(_)) {
            script.breaks();
        }
    }
    assert!(script.said.contains(&Output::Suspect { fences: false }));
}

#[test]
fn a_tier_that_bypasses_serves_nothing_of_a_lost_connection() {
    let settings = Settings { while_down: WhileDown::Bypass, ..Settings::default() };
    let mut script = Script::up_with(ALL, settings);
    script.breaks();
    assert!(script.said.contains(&Output::Suspect { fences: false }));
    let id = script.asks(1);
    assert_eq!(script.lands(id), Landing::Nothing);
}

#[test]
fn a_reply_to_no_command_ends_the_connection() {
    let mut script = Script::up();
    script.asks(1);
    script.says(Event::Reply(CommandId(12_345), Reply::Done));
    assert!(script.disconnects());
}

// Writes: rules 8 and 9

#[test]
fn writes_of_a_lost_connection_are_removals_before_anything_is_read() {
    let mut script = Script::up();
    script.machine.put(&name(1), content(1), None, script.now);
    script.run();
    script.machine.invalidate(&[name(2)], script.now);
    script.run();
    script.breaks();
    script.wants_connection();
    script.connects(ALL);
    script.asks(3);
    let [Command::Drop(names), Command::Read(_)] = &script.commands()[..] else {
        panic!("{:?}", script.commands());
    };
    assert_eq!(names[..], [name(1), name(2)]);
    script.replies(Reply::Done);
    assert_eq!(script.machine.pending(), 0);
}

#[test]
fn a_refused_put_is_a_removal_and_fences_the_questions_after_it() {
    let mut script = Script::up();
    let landing = script.machine.put(&name(1), content(1), None, script.now);
    assert_eq!(landing, Landing::Covered);
    script.run();
    let id = script.asks(1);
    script.replies(Reply::Failed("OOM".into()));
    assert!(script.said.contains(&Output::Forget { name: name(1), fences: true }));
    script.replies(Reply::Found(vec![value(0, None)]));
    assert_eq!(script.machine.take(id, script.now), Landing::Nothing, "the old value");
    assert_eq!(script.replies(Reply::Done), dropped(&[1]));
    assert_eq!(script.machine.pending(), 0);
}

#[test]
fn a_refused_removal_ends_the_connection_and_is_sent_again() {
    let mut script = Script::up();
    script.machine.invalidate(&[name(1)], script.now);
    script.run();
    script.replies(Reply::Failed("NOPERM".into()));
    assert!(script.disconnects());
    script.breaks();
    script.wants_connection();
    script.connects(ALL);
    assert_eq!(script.commands(), [dropped(&[1])]);
}

#[test]
fn too_many_pending_writes_begin_a_generation() {
    let settings = Settings { most_pending: 3, ..Settings::default() };
    let mut script = Script::up_with(ALL, settings);
    script.breaks();
    for key in 0..5 {
        script.machine.invalidate(&[name(key)], script.now);
        script.run();
    }
    assert_eq!(script.machine.pending(), 0);
    script.wants_connection();
    script.greets(ALL);
    assert!(matches!(script.commands()[..], [Command::NewGeneration(Generation(50))]));
    script.replies(Reply::Done);
    assert_eq!(script.machine.clearing, Clearing::No);
    assert_eq!(script.machine.generation(), Some(Generation(50)));
}

#[test]
fn too_many_unacknowledged_writes_end_the_connection() {
    let settings = Settings { most_pending: 3, ..Settings::default() };
    let mut script = Script::up_with(ALL, settings);
    for key in 0..4 {
        script.machine.invalidate(&[name(key)], script.now);
    }
    while let Some(output) = script.machine.poll() {
        script.said.push(output);
    }
    assert!(script.disconnects());
}

#[test]
fn a_put_that_was_removed_before_the_connection_was_made_is_not_put() {
    let mut script = Script::new(Settings::default());
    script.asks(1);
    script.machine.put(&name(2), content(1), None, script.now);
    script.run();
    script.machine.invalidate(&[name(2)], script.now);
    script.run();
    script.connects(ALL);
    assert_eq!(script.commands(), [dropped(&[2]), read(1)]);
}

/// Connected to another server after a pause, with these commands.
fn after_another_server(script: &mut Script, away: Duration) -> Vec<Command> {
    script.breaks();
    script.now = script.now.later(away);
    script.wants_connection();
    script.identity += 1;
    script.connects(ALL);
    script.commands()
}

#[test]
fn another_server_is_told_the_last_writes_again() {
    let mut script = Script::up();
    script.after(Settings::default().replay.saturating_sub(MS * 900));
    while !script.unanswered.is_empty() {
        script.replies(Reply::Done);
    }
    script.machine.invalidate(&[name(1)], script.now);
    script.run();
    script.replies(Reply::Done);
    script.after(MS * 950);
    script.says(Event::Changed(name(5)));
    let commands = after_another_server(&mut script, Duration::ZERO);
    let sent = commands.contains(&dropped(&[1]));
    assert!(sent, "{commands:?}: not the one of the beginning");
}

#[test]
fn the_last_writes_count_from_the_end_of_the_old_connection() {
    let mut script = Script::up();
    script.machine.invalidate(&[name(1)], script.now);
    script.run();
    script.replies(Reply::Done);
    let commands = after_another_server(&mut script, Duration::from_secs(3600));
    let Some(Command::Drop(names)) = commands.first() else { panic!("{commands:?}") };
    assert!(names.contains(&name(1)));
}

#[test]
fn the_same_server_is_told_nothing_again() {
    let mut script = Script::up();
    script.machine.invalidate(&[name(1)], script.now);
    script.run();
    script.replies(Reply::Done);
    script.breaks();
    script.wants_connection();
    script.connects(ALL);
    assert!(script.unanswered.is_empty());
}

#[test]
fn another_server_is_told_of_a_clear_again() {
    let mut script = Script::up();
    script.machine.clear(Generation(40), script.now);
    script.run();
    assert_eq!(script.replies(Reply::Done), Command::NewGeneration(Generation(40)));
    script.breaks();
    script.wants_connection();
    script.identity += 1;
    script.greets(ALL);
    assert!(matches!(script.commands()[..], [Command::NewGeneration(Generation(50))]));
}

#[test]
fn more_writes_than_are_remembered_clear_another_server() {
    let settings = Settings { most_pending: 3, ..Settings::default() };
    let mut script = Script::up_with(ALL, settings);
    for key in 0..4 {
        script.machine.invalidate(&[name(key)], script.now);
        script.run();
        script.replies(Reply::Done);
    }
    script.breaks();
    script.wants_connection();
    script.identity += 1;
    script.greets(ALL);
    assert!(matches!(script.commands()[..], [Command::NewGeneration(_)]));
}

// Generations

#[test]
fn a_generation_of_another_process_forgets_all_and_repeats_writes_that_missed_it() {
    let mut script = Script::up();
    script.machine.invalidate(&[name(1)], script.now);
    script.run();
    script.replies(Reply::Done); // in the turn of the new generation
    script.says(Event::GenerationChanged);
    script.machine.invalidate(&[name(2)], script.now);
    script.run();
    script.replies(Reply::Generation(Generation(10)));
    assert!(script.said.contains(&Output::ForgetAll));
    let commands = script.commands();
    let Some(Command::Drop(names)) = commands.last() else { panic!("{commands:?}") };
    assert_eq!(names[..], [name(1), name(2)], "the old generation has no part in the new");
    script.replies(Reply::Done);
    assert_eq!(script.machine.pending(), 2, "the reply about the old generation counts for nothing");
    script.replies(Reply::Done);
    assert_eq!(script.machine.pending(), 0);
}

#[test]
fn writes_that_precede_a_generation_are_not_repeated() {
    let mut script = Script::up();
    script.machine.invalidate(&[name(1)], script.now);
    script.run();
    script.replies(Reply::Done);
    script.after(Settings::default().heartbeat);
    script.replies(Reply::Done); // all pushes about earlier turns have arrived
    script.says(Event::GenerationChanged);
    script.replies(Reply::Generation(Generation(10)));
    assert!(script.unanswered.is_empty());
}

#[test]
fn pending_writes_survive_a_generation_that_began_while_the_connection_was_lost() {
    let mut script = Script::up();
    script.breaks();
    script.machine.invalidate(&[name(1)], script.now);
    script.run();
    script.wants_connection();
    script.generation = Generation(10);
    script.connects(ALL);
    let commands = script.commands();
    let Some(Command::Drop(names)) = commands.first() else { panic!("{commands:?}") };
    assert!(names.contains(&name(1)));
}

#[test]
fn an_own_generation_outweighs_an_older_word_of_another() {
    let mut script = Script::up();
    script.says(Event::GenerationChanged);
    script.machine.clear(Generation(40), script.now);
    script.run();
    script.replies(Reply::Generation(Generation(30)));
    assert_eq!(script.machine.generation(), Some(Generation(40)));
    script.replies(Reply::Done);
    assert_eq!(script.machine.clearing, Clearing::No);
}

#[test]
fn a_generation_begun_during_a_greeting_is_sent_before_the_first_read() {
    for clears_before in [false, true] {
        let mut script = Script::new(Settings::default());
        script.asks(1);
        if clears_before {
            script.machine.clear(Generation(39), script.now);
            script.run();
        }
        script.greets(ALL);
        script.machine.clear(Generation(40), script.now);
        script.run();
        let told = if clears_before { Reply::Done } else { Reply::Generation(G) };
        script.replies(told);
        assert_eq!(script.commands(), [Command::NewGeneration(Generation(40))]);
        script.replies(Reply::Done);
        assert_eq!(script.commands(), [read(1)]);
        assert_eq!(script.machine.generation(), Some(Generation(40)));
    }
}

#[test]
fn a_lost_generation_is_replaced_and_everything_is_suspect() {
    let mut script = Script::up();
    let (id, _) = script.leads(1);
    script.says(Event::AllChanged);
    assert!(script.said.contains(&Output::Suspect { fences: true }));
    let Command::Generation(candidate) = script.commands()[0] else { panic!("{:?}", script.commands()) };
    script.replies(Reply::Generation(candidate));
    assert!(script.said.contains(&Output::ForgetAll));
    assert_eq!(script.lands(id), Landing::Nothing);
    assert!(script.unanswered.is_empty(), "a load of the old generation is not stored");
}

#[test]
fn a_sign_of_life_is_sent_again_after_everything_was_lost() {
    let mut script = Script::up();
    script.leads(1);
    script.says(Event::AllChanged);
    script.replies(Reply::Generation(G));
    script.asks(2);
    script.replies(Reply::Found(vec![Found::Absent]));
    assert!(matches!(script.commands()[..], [Command::Alive { .. }, Command::Acquire { .. }]));
}

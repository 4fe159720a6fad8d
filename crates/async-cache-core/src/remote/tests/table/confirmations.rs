//! Writes that somebody waits for: rule 13.

use super::{ALL, G, MS, Script, TIMEOUT, dropped};
use crate::remote::ask::{Answer, AskId, Landing, Want};
use crate::remote::machine::{Link, Machine, Word, WriteMark};
use crate::remote::port::{Abilities, Command, Event, Found, FoundValue, Generation, Reply};
use crate::remote::settings::Settings;
use crate::remote::tests::world::{content, name};

const OTHER: Generation = Generation(10);

impl Script {
    /// Waits for the writes until now.
    fn waits_for_writes(&mut self) -> WriteMark {
        let mark = self.machine.mark().expect("a write without an acknowledgement");
        self.machine.wait(mark, self.now);
        self.run();
        mark
    }

    fn puts(&mut self, key: u8) -> WriteMark {
        self.machine.put(&name(key), content(1), None, self.now);
        self.run();
        self.waits_for_writes()
    }

    fn invalidates(&mut self, key: u8) {
        self.machine.invalidate(&[name(key)], self.now);
        self.run();
    }

    fn word(&self, mark: WriteMark) -> Word {
        self.machine.word_of(mark, self.now)
    }

    /// The engine answers the oldest commands, which are `expected`, as one that has changed
    /// nothing since.
    #[track_caller]
    fn does(&mut self, expected: &[Command]) {
        for command in expected {
            let reply = match command {
                Command::Generation(_) => Reply::Generation(G),
                _ => Reply::Done,
            };
            assert_eq!(&self.replies(reply), command);
        }
    }

    /// The engine has nothing, and grants a lease.
    #[track_caller]
    fn leads_on(&mut self, id: AskId) {
        while self.answer(id).is_none() {
            let reads = matches!(self.unanswered[0].1, Command::Read(_));
            self.replies(if reads { Reply::Found(vec![Found::Absent]) } else { Reply::Done });
        }
        assert_eq!(self.answer(id), Some(Answer::Lead));
    }

    /// The engine removes what it has under some names, and under this one.
    #[track_caller]
    fn repeats(&mut self, key: u8) {
        let command = self.replies(Reply::Done);
        assert!(matches!(&command, Command::Drop(names) if names.contains(&name(key))), "{command:?}");
    }
}

fn put(key: u8) -> Command {
    Command::Put { name: name(key), content: content(1), life: None }
}

fn is_up(machine: &Machine) -> bool {
    matches!(machine.link, Link::Up(_))
}

#[test]
fn a_write_is_waited_for_until_its_own_confirmation() {
    let mut script = Script::up();
    let before = script.waits_for_writes(); // the removal of the greeting
    script.does(&[Command::Ping]);
    assert_eq!((script.word(before), script.machine.mark()), (Word::Acknowledged, None));
    let (first, second) = (script.puts(1), script.puts(1));
    assert!(first.order() < second.order());
    script.does(&[put(1)]);
    assert_eq!([first, second].map(|mark| script.word(mark)), [Word::Expected; 2]);
    script.does(&[Command::Ping]);
    let third = script.puts(1);
    assert_eq!(script.word(first), Word::Acknowledged, "although the key was written again");
    assert_eq!(script.word(second), Word::Expected);
    // Of a lost connection, whose writes are sent again as removals.
    script.breaks();
    assert_eq!(script.word(second), Word::None);
    script.wants_connection();
    script.connects(ALL);
    script.does(&[dropped(&[1])]);
    assert_eq!([first, third].map(|mark| script.word(mark)), [Word::Acknowledged, Word::Expected]);
    script.does(&[Command::Ping]);
    assert_eq!([second, third].map(|mark| script.word(mark)), [Word::Acknowledged; 2]);
    // Of a silent engine.
    let fourth = script.puts(1);
    script.after(TIMEOUT);
    assert_eq!(script.word(fourth), Word::None);
}

#[test]
fn one_question_confirms_all_writes_before_it_and_nobody_asks_for_writes_that_nobody_waits_for() {
    let mut script = Script::up();
    for key in 1..=3 {
        script.machine.put(&name(key), content(1), None, script.now);
        let mark = script.machine.mark().expect("a write without an acknowledgement");
        if key < 3 {
            script.machine.wait(mark, script.now);
        }
    }
    script.run();
    assert_eq!(script.commands(), [put(1), put(2), put(3), Command::Ping]);
    script.does(&[put(1), put(2), put(3), Command::Ping]);
    assert_eq!(script.machine.mark(), None);
    script.invalidates(4);
    assert_eq!(script.commands(), [dropped(&[4])]);
    script.does(&[dropped(&[4])]);
    let mark = script.waits_for_writes();
    script.does(&[Command::Ping]);
    assert_eq!(script.word(mark), Word::Acknowledged);
}

#[test]
fn a_write_before_the_connection_is_waited_for_and_makes_one() {
    let mut script = Script::new(Settings::default());
    script.invalidates(1);
    script.machine.part(script.now);
    script.run();
    assert_eq!(script.machine.link, Link::Idle);
    let mark = script.waits_for_writes();
    assert!(matches!(script.machine.link, Link::Connecting(_)));
    assert_eq!(script.word(mark), Word::Expected);
    script.connects(ALL);
    assert_eq!(script.word(mark), Word::Expected);
    script.does(&[dropped(&[1]), Command::Ping]);
    assert_eq!((script.word(mark), script.machine.mark()), (Word::Acknowledged, None));
}

#[test]
fn a_clear_is_confirmed_by_its_own_reply() {
    let mut script = Script::up();
    script.machine.clear(Generation(77), script.now);
    script.run();
    let mark = script.waits_for_writes();
    assert_eq!(script.word(mark), Word::Expected);
    script.does(&[Command::NewGeneration(Generation(77))]);
    assert_eq!((script.word(mark), script.machine.mark()), (Word::Acknowledged, None));
    assert!(script.unanswered.is_empty());
}

#[test]
fn a_write_into_a_generation_that_was_replaced_is_confirmed_after_its_repetition() {
    // Another process begins a generation. Its news come before the reply to the write, or after
    // it, or are the answer to the question.
    for place in 0..3 {
        let mut script = Script::up();
        let mark = script.puts(1);
        if place == 0 {
            script.says(Event::GenerationChanged);
        }
        script.does(&[put(1)]);
        if place == 1 {
            script.says(Event::GenerationChanged);
        }
        assert_eq!(script.word(mark), Word::Expected);
        if place == 2 {
            script.says(Event::GenerationChanged);
        }
        script.does(&[Command::Ping]);
        assert_eq!(script.word(mark), Word::Expected, "{place}");
        script.replies(Reply::Generation(OTHER));
        assert_eq!(script.word(mark), Word::Expected, "{place}");
        script.repeats(1);
        assert_eq!(script.word(mark), Word::Expected, "{place}");
        script.does(&[Command::Ping]);
        assert_eq!(script.word(mark), Word::Acknowledged, "{place}");
        assert_eq!(script.machine.mark(), None);
    }
}

#[test]
fn a_generation_that_is_the_same_after_all_confirms() {
    let mut script = Script::up();
    let mark = script.puts(1);
    script.says(Event::GenerationChanged);
    script.does(&[put(1), Command::Ping]);
    assert_eq!(script.word(mark), Word::Expected);
    script.replies(Reply::Generation(G));
    assert_eq!(script.word(mark), Word::Acknowledged);
    assert!(script.unanswered.is_empty());
}

#[test]
fn a_mark_from_before_a_fork_asks_a_single_question() {
    let mut parent = Script::up();
    for _ in 0..1000 {
        parent.invalidates(1);
        parent.replies(Reply::Done);
    }
    let mark = parent.machine.mark().expect("a write without an acknowledgement");
    let mut child = Script::up();
    child.invalidates(2);
    child.machine.wait(mark, child.now);
    child.run();
    child.does(&[dropped(&[2]), Command::Ping]);
    assert!(child.unanswered.is_empty());
}

#[test]
fn a_burst_of_writes_around_a_generation_of_another_process_keeps_the_connection() {
    let mut script = Script::up_with(ALL, Settings { most_pending: 3, ..Settings::default() });
    script.invalidates(1);
    script.invalidates(2);
    script.says(Event::GenerationChanged);
    script.invalidates(3);
    script.does(&[dropped(&[1]), dropped(&[2])]);
    script.invalidates(4);
    script.invalidates(5);
    script.replies(Reply::Generation(OTHER));
    assert!(!script.disconnects(), "{:?}", script.said);
    assert!(matches!(script.commands().last(), Some(Command::NewGeneration(_))));
}

// Questions across generations: rule 14

#[test]
fn a_read_of_a_generation_that_was_replaced_is_repeated() {
    let old = || Reply::Found(vec![Found::Value(FoundValue { bytes: vec![1].into(), life: None })]);
    // The reply comes before the answer about the generation, or after it.
    for is_before in [true, false] {
        let mut script = Script::up();
        let id = if is_before {
            let id = script.asks(1);
            script.says(Event::GenerationChanged);
            script.replies(old());
            script.replies(Reply::Generation(OTHER));
            id
        } else {
            script.says(Event::GenerationChanged);
            let id = script.asks(1);
            script.replies(Reply::Generation(OTHER));
            id
        };
        script.replies(old());
        assert_eq!(script.answer(id), None, "{is_before}");
        assert_eq!(script.machine.generation(), Some(OTHER));
        script.leads_on(id);
    }
}

#[test]
fn an_engine_that_tells_of_no_changes_is_asked_for_the_generation_with_each_read() {
    let mut script = Script::up_with(SILENT, Settings::default());
    let id = script.machine.ask([name(1)], Want::Look, script.now)[0];
    script.run();
    script.says(Event::GenerationChanged);
    script.does(&[Command::Ping]);
    script.replies(Reply::Found(vec![Found::Value(FoundValue { bytes: vec![1].into(), life: None })]));
    assert_eq!(script.answer(id), None, "it may be of the generation before");
}

#[test]
fn a_lease_is_of_the_generation_of_its_load() {
    for is_own in [true, false] {
        let mut script = Script::up();
        let id = if is_own {
            let id = script.asks(1);
            script.machine.clear(Generation(77), script.now);
            script.run();
            id
        } else {
            script.says(Event::GenerationChanged);
            let id = script.asks(1);
            script.replies(Reply::Generation(OTHER));
            id
        };
        script.leads_on(id);
        assert_eq!(script.lands(id), Landing::Covered, "{is_own}");
        assert!(matches!(script.commands().last(), Some(Command::Fill { .. })), "{is_own}");
    }
}

#[test]
fn a_put_that_the_engine_refuses_is_confirmed_after_the_removal_of_the_value_before() {
    let refused = || Reply::Failed("out of memory".into());
    let mut script = Script::up();
    let mark = script.puts(1);
    script.replies(refused());
    script.does(&[Command::Ping]);
    assert_eq!(script.word(mark), Word::Expected);
    script.does(&[dropped(&[1]), Command::Ping]);
    assert_eq!(script.word(mark), Word::Acknowledged);
    // Of two puts, the later one removes it.
    let (first, second) = (script.puts(1), script.puts(1));
    script.replies(refused());
    script.does(&[Command::Ping]);
    assert_eq!(script.word(first), Word::Expected);
    script.does(&[put(1), Command::Ping]);
    assert_eq!([first, second].map(|mark| script.word(mark)), [Word::Acknowledged; 2]);
}

#[test]
fn a_write_of_a_lost_connection_is_confirmed_by_the_generation_of_the_next() {
    for generation in [G, OTHER] {
        let mut script = Script::up();
        script.invalidates(1);
        script.does(&[dropped(&[1])]);
        let mark = script.machine.mark().expect("a write without a confirmation");
        script.breaks();
        assert_eq!(script.word(mark), Word::None);
        script.wants_connection();
        script.generation = generation;
        script.connects(ALL);
        if generation == OTHER {
            assert_eq!(script.word(mark), Word::Expected);
            script.machine.wait(mark, script.now);
            script.run();
            script.repeats(1);
            script.does(&[Command::Ping]);
        }
        assert_eq!((script.word(mark), is_up(&script.machine)), (Word::Acknowledged, true));
    }
}

const SILENT: Abilities = Abilities { fences: true, notifies: false };

/// An engine that does not tell of another generation, until it is asked for a sign of life.
fn hears_late_of_a_generation(settings: Settings, keys: std::ops::Range<u8>) -> Script {
    let mut script = Script::up_with(SILENT, settings);
    script.after(Settings::default().heartbeat);
    script.does(&[Command::Ping]);
    for key in keys {
        script.now = script.now.later(MS);
        script.invalidates(key);
        script.does(&[dropped(&[key])]);
    }
    script.after(Settings::default().heartbeat);
    script.says(Event::GenerationChanged);
    script.does(&[Command::Ping]);
    script.replies(Reply::Generation(OTHER));
    script
}

#[test]
fn without_news_every_write_since_the_last_confirmation_is_repeated() {
    let script = hears_late_of_a_generation(Settings::default(), 1..4);
    assert_eq!(script.commands(), [dropped(&[1, 2, 3])]);
}

#[test]
fn more_writes_than_are_remembered_begin_a_generation_if_some_may_have_missed_one() {
    let settings = Settings { most_pending: 3, ..Settings::default() };
    let mut script = hears_late_of_a_generation(settings.clone(), 1..4);
    assert_eq!(script.commands(), [dropped(&[1, 2, 3])]);
    script.replies(Reply::Done);
    let script = hears_late_of_a_generation(settings, 1..5);
    let commands = script.commands();
    assert!(
        matches!(commands[..], [Command::NewGeneration(generation)] if generation != OTHER),
        "{commands:?}"
    );
}

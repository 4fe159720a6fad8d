//! Commands of the port to commands of the server.
//!
//! Rules:
//! 1. A condition is `SET IFEQ` where the server has it, else a script.
//! 2. A script is always sent whole (`EVAL`): a server that lost it would refuse its digest
//!    (`EVALSHA`), and a second attempt would be carried out after later commands.
//! 3. A sign of life has the role and the generation as well: while the cache answers from memory
//!    alone, nothing else tells that the server was demoted, or that the slot of the cache has
//!    moved. And a server that evicts the oldest key keeps a key that was read.
//! 4. A value that is read is followed by its life in the same packet. If the value is replaced
//!    between the two, the life is that of the new value, and news of the change follow.

use std::time::Duration;

use async_cache_core::remote::port::{Abilities, Command, Content, Generation, Lease, Name, Replaced, Reply};

use super::expected::{Expected, Sign, Taking};
use crate::envelope::Envelope;
use crate::layout::{self, Layout};
use crate::resp::Writer;

/// Replaces a value, if it is the expected one: `KEYS` key, `ARGV` expected, new, options of SET.
const REPLACE: &[u8] = b"if redis.pcall('GET',KEYS[1])==ARGV[1] then \
    redis.call('SET',KEYS[1],ARGV[2],unpack(ARGV,3)) return 1 end return 0";

/// Removes a value, if it is the expected one: `KEYS` key, `ARGV` expected.
pub(super) const REMOVE: &[u8] = b"if redis.pcall('GET',KEYS[1])==ARGV[1] then \
    redis.call('UNLINK',KEYS[1]) return 1 end return 0";

/// The longest life that is written. The server adds its clock to it, in an i64.
const MAX_LIFE: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How the server replaces a value on a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replacing {
    IfEq,
    Script,
    /// Not at all: a load is written unconditionally.
    No,
}

/// How the server removes a value on a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removing {
    DelIfEq,
    DelEx,
    Script,
    /// By replacing it with itself, for a millisecond.
    Expiry,
    No,
}

/// The commands that the server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Engine {
    pub(super) replacing: Replacing,
    pub(super) removing: Removing,
    /// `SET NX GET` in one command.
    pub(super) set_nx_get: bool,
    pub(super) notifies: bool,
}

/// A written command without an answer.
pub(super) struct Repair {
    pub(super) expected: Expected,
}

/// A command on its way to bytes.
struct Writing<'a> {
    engine: Engine,
    writer: Writer<'a>,
    envelope: &'a Envelope,
    /// The beginning of the keys of entries.
    entries: Vec<u8>,
}

impl Engine {
    pub(super) fn abilities(self) -> Abilities {
        Abilities { fences: self.replacing != Replacing::No, notifies: self.notifies }
    }

    /// Writes a command, and says which replies it waits for.
    pub(super) fn write(
        self,
        out: &mut Vec<u8>,
        layout: &Layout,
        envelope: &Envelope,
        generation: Generation,
        command: &Command,
    ) -> Expected {
        let entries = layout.entries(generation);
        let mut writing = Writing { engine: self, writer: Writer::new(out), envelope, entries };
        match command {
            Command::Read(names) => writing.read(names),
            Command::Acquire { name, lease, life } => writing.acquire(name, *lease, *life),
            Command::TakeOver { name, from, lease, life } => writing.take_over(name, from, *lease, *life),
            Command::Fill { name, lease, content, life } => writing.fill(name, *lease, content, *life),
            Command::Extend { name, lease, life } => {
                writing.take_over(name, &Replaced::Lease(*lease), *lease, *life)
            }
            Command::Release { name, lease } => writing.release(name, *lease),
            Command::Put { name, content, life } => writing.put(name, content, *life),
            Command::Drop(names) => writing.drop(names),
            Command::Generation(ours) => {
                let key = layout.generation_key();
                let taking = writing.take(&key, &layout::digits(*ours), None, 0);
                Expected::Generation(*ours, taking)
            }
            Command::NewGeneration(begun) => {
                writing.writer.command(&[b"SET", &layout.generation_key(), &layout::digits(*begun)]);
                Expected::Done
            }
            Command::Alive { owner, life } => {
                let life = millis(*life);
                writing.writer.command(&[b"SET", &layout.owner_key(*owner), b"1", b"PX", life.as_bytes()]);
                Expected::Done
            }
            Command::IsAlive(owner) => {
                writing.writer.command(&[b"EXISTS", &layout.owner_key(*owner)]);
                Expected::Condition
            }
            Command::Ping => writing.ping(&layout.generation_key()),
        }
    }

    /// Puts a generation where something else stands.
    pub(super) fn repair(out: &mut Vec<u8>, layout: &Layout, ours: Generation) -> Repair {
        Writer::new(out).command(&[b"SET", &layout.generation_key(), &layout::digits(ours)]);
        Repair { expected: Expected::Repaired }
    }
}

impl Writing<'_> {
    fn key(&mut self, name: &Name) {
        self.writer.argument_of(&[&self.entries, name.as_bytes()]);
    }

    fn whole_key(&self, name: &Name) -> Vec<u8> {
        [&self.entries, name.as_bytes()].concat()
    }

    /// Rule 4.
    fn life(&mut self, name: &Name) {
        self.writer.raw(b"*2\r\n$4\r\nPTTL\r\n");
        self.key(name);
    }

    /// Rule 3.
    fn ping(&mut self, generation: &[u8]) -> Expected {
        self.writer.command(&[b"ROLE"]);
        self.writer.command(&[b"GET", generation]);
        self.writer.command(&[b"PING"]);
        Expected::Alive(Sign::Role)
    }

    fn read(&mut self, names: &[Name]) -> Expected {
        if names.is_empty() {
            return Expected::Local(Reply::Found(Vec::new()));
        }
        self.writer.begin(1 + names.len());
        self.writer.argument(if names.len() == 1 { b"GET" } else { b"MGET" });
        for name in names {
            self.key(name);
        }
        for name in names {
            self.life(name);
        }
        Expected::read(names)
    }

    fn acquire(&mut self, name: &Name, lease: Lease, life: Duration) -> Expected {
        let (key, lease) = (self.whole_key(name), self.envelope.lease(name, lease));
        let taking = self.take(&key, &lease, Some(life), 1);
        self.life(name);
        Expected::Acquire(name.clone(), taking)
    }

    /// Puts a value, if none stands there. So many other replies belong to the command.
    fn take(&mut self, key: &[u8], value: &[u8], life: Option<Duration>, others: usize) -> Taking {
        let single = self.engine.set_nx_get;
        let life = life.map(millis);
        let mut arguments = vec![b"SET".as_slice(), key, value, b"NX"];
        if single {
            arguments.push(b"GET");
        }
        if let Some(life) = &life {
            arguments.extend([b"PX".as_slice(), life.as_bytes()]);
        }
        self.writer.command(&arguments);
        if !single {
            self.writer.command(&[b"GET", key]);
        }
        Taking::new(single, others)
    }

    fn take_over(&mut self, name: &Name, from: &Replaced, lease: Lease, life: Duration) -> Expected {
        if self.engine.replacing == Replacing::No {
            return Expected::Local(Reply::Refused);
        }
        let lease = self.envelope.lease(name, lease);
        match from {
            Replaced::Lease(from) => {
                let from = self.envelope.lease(name, *from);
                self.replace(name, &from, &lease, Some(life))
            }
            Replaced::Foreign(from) => self.replace(name, from, &lease, Some(life)),
        }
    }

    fn fill(&mut self, name: &Name, lease: Lease, content: &Content, life: Option<Duration>) -> Expected {
        let lease = self.envelope.lease(name, lease);
        let content = self.envelope.content(name, content);
        self.replace(name, &lease, &content, life)
    }

    /// Rule 1.
    fn replace(&mut self, name: &Name, from: &[u8], to: &[u8], life: Option<Duration>) -> Expected {
        let key = self.whole_key(name);
        let mut arguments: Vec<&[u8]> = match self.engine.replacing {
            Replacing::IfEq => vec![b"SET", &key, to, b"IFEQ", from],
            Replacing::Script => vec![b"EVAL", REPLACE, b"1", &key, from, to],
            Replacing::No => vec![b"SET", &key, to],
        };
        let life = life.map(millis);
        if let Some(life) = &life {
            arguments.extend([b"PX".as_slice(), life.as_bytes()]);
        }
        self.writer.command(&arguments);
        Expected::Condition
    }

    fn release(&mut self, name: &Name, lease: Lease) -> Expected {
        let (key, lease) = (self.whole_key(name), self.envelope.lease(name, lease));
        match self.engine.removing {
            Removing::DelIfEq => self.writer.command(&[b"DELIFEQ", &key, &lease]),
            Removing::DelEx => self.writer.command(&[b"DELEX", &key, b"IFEQ", &lease]),
            Removing::Script => self.writer.command(&[b"EVAL", REMOVE, b"1", &key, &lease]),
            Removing::Expiry => return self.replace(name, &lease, &lease, Some(Duration::ZERO)),
            Removing::No => return Expected::Local(Reply::Refused),
        }
        Expected::Condition
    }

    fn put(&mut self, name: &Name, content: &Content, life: Option<Duration>) -> Expected {
        let (key, content) = (self.whole_key(name), self.envelope.content(name, content));
        match life.map(millis) {
            Some(life) => self.writer.command(&[b"SET", &key, &content, b"PX", life.as_bytes()]),
            None => self.writer.command(&[b"SET", &key, &content]),
        }
        Expected::Done
    }

    fn drop(&mut self, names: &[Name]) -> Expected {
        if names.is_empty() {
            return Expected::Local(Reply::Done);
        }
        self.writer.begin(1 + names.len());
        self.writer.argument(b"UNLINK");
        for name in names {
            self.key(name);
        }
        Expected::Done
    }
}

/// A life in milliseconds. The server refuses 0.
fn millis(life: Duration) -> String {
    life.min(MAX_LIFE).as_millis().max(1).to_string()
}

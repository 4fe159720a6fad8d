//! One connection to a server.
//!
//! A connection has these states, in this order:
//! 1. *new*: [`Link::start`] writes the greeting.
//! 2. *greeting*: the answers tell of the server and its commands. A command gets the answer that
//!    it failed.
//! 3. *ready*: [`LinkEvent::Ready`] was given, and commands are written.
//! 4. *failed*: [`Link::receive`] returned an error, and returns it from then on. A command gets no
//!    answer: it would overtake the answers that earlier commands never get.
//!
//! Rules:
//! 1. Events have the order of the bytes: of answers and of news of changes.
//! 2. News are about the *present* generation: the one that the server named last, the one that
//!    was begun last, or the one that a command about entries named last. Other news about entries
//!    are dropped: the expiry of entries of earlier generations would fill the connection.
//! 3. News before the state *ready* are dropped: nothing was read yet on this connection.
//! 4. A command that needs no server is answered in its turn.
//!
//! # Layout
//!
//! - `greeting`: the beginning of a connection; `engine`: commands to bytes, with the commands that
//!   the server has; `expected`: replies to answers.

mod engine;
mod expected;
mod greeting;

use std::collections::VecDeque;
use std::sync::Arc;

use async_cache_core::remote::port::{Abilities, Command, CommandId, Event, Generation, Name, Reply};

use self::engine::{Engine, Repair};
use self::expected::{Answer, Expected};
use self::greeting::Greeting;
use crate::config::{Address, Config, Place};
use crate::envelope::{Envelope, HEADER};
use crate::error::{ConfigError, LinkError, LinkErrorKind};
use crate::layout::{Layout, WireKey};
use crate::predecessor::Predecessor;
use crate::resp::{Limits, Malformed, Message, Reader, Value};

/// Strings of this length are read in any case: the server describes itself in one.
const MIN_STRING: usize = 64 * 1024;

/// All strings of a reply, in bytes. Values beyond are not kept.
const MIN_MESSAGE: usize = 256 * 1024 * 1024;

/// A connection. One for each connection of a socket: after an error, or when the socket is
/// closed, begin another.
#[derive(Debug)]
pub struct Link {
    layout: Layout,
    envelope: Envelope,
    reader: Reader,
    out: Vec<u8>,
    events: VecDeque<LinkEvent>,
    state: State,
    /// The commands without an answer, oldest first.
    waiting: VecDeque<Waiting>,
    /// Rule 2: named by the server, or begun.
    named: Option<Generation>,
    /// Rule 2: of the last command about entries.
    used: Option<Generation>,
    /// The server, once it was met through the core's port.
    server: Option<Ready>,
    predecessor: Predecessor,
    /// The connection is not encrypted, and nothing was received: the server may expect TLS.
    may_expect_tls: bool,
}

#[derive(Debug)]
enum State {
    Greeting(Box<Greeting>),
    Ready(Engine),
    Failed(LinkError),
}

#[derive(Debug)]
struct Waiting {
    id: CommandId,
    expected: Expected,
}

/// The news of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Commands may be sent. The first event.
    Ready(Ready),
    /// An answer, or news of a change.
    Event(Event),
}

/// The server of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ready {
    /// The abilities of the server, for this user.
    pub abilities: Abilities,
    /// Changes when the server starts anew, or another server takes its place. `None`: the server
    /// does not tell.
    pub run_id: Option<Arc<str>>,
    /// The role of the server, in its words.
    pub role: Option<Arc<str>>,
    /// The name and version of the server.
    pub server: Arc<str>,
    /// Sentences for a log: a missing ability, the reason, and the remedy.
    pub notices: Vec<Arc<str>>,
}

impl Link {
    /// A connection with these settings.
    ///
    /// # Errors
    /// [`ConfigError`] if a setting cannot be used.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        config.check()?;
        let layout = Layout::new(config)?;
        let envelope = Envelope::new(&layout, config.secret.as_ref(), config.max_value);
        let string = config.max_value.saturating_add(HEADER).max(MIN_STRING);
        let limits = Limits { string, message: string.saturating_mul(4).max(MIN_MESSAGE) };
        let greeting = Greeting::new(config, &layout);
        Ok(Self {
            layout,
            envelope,
            reader: Reader::new(limits),
            out: Vec::new(),
            events: VecDeque::new(),
            state: State::Greeting(Box::new(greeting)),
            waiting: VecDeque::new(),
            named: None,
            used: None,
            server: None,
            predecessor: Predecessor::default(),
            may_expect_tls: !config.tls && !matches!(config.place, Place::Server(Address::Unix(_))),
        })
    }

    /// The server ends the predecessor before this connection is ready. To be called before
    /// [`Link::start`].
    pub fn follow(&mut self, predecessor: &Predecessor) {
        self.predecessor = predecessor.clone();
        if let State::Greeting(greeting) = &mut self.state {
            greeting.follow(predecessor.last());
        }
    }

    /// Writes the greeting, once the socket is open.
    pub fn start(&mut self) {
        if let State::Greeting(greeting) = &mut self.state {
            greeting.start(&mut self.out);
        }
    }

    /// The bytes for the server. The caller removes the bytes that are written to the socket. Both
    /// `send` and `receive` may add some.
    pub fn outgoing(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// The next event.
    pub fn poll(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    /// The server, after it was ready for an [`Engine`](async_cache_core::remote::port::Engine).
    pub fn server(&self) -> Option<&Ready> {
        self.server.as_ref()
    }

    pub(crate) fn met(&mut self, ready: Ready) {
        self.server = Some(ready);
    }

    /// Takes bytes of the server, all of them.
    ///
    /// # Errors
    /// [`LinkError`] if the connection cannot be used. Events from before the error still count.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        self.may_expect_tls = false;
        if let State::Failed(error) = &self.state {
            return Err(error.clone());
        }
        let received = self.receive_messages(bytes);
        if let Err(error) = &received {
            self.state = State::Failed(error.clone());
        }
        received
    }

    /// Why the connection was lost, for a log: the words of the system, and the remedy, if any.
    pub fn lost(&self, why: &str) -> String {
        let remedy = if self.may_expect_tls {
            "; if the server expects TLS on this port, use a URL with rediss://"
        } else {
            ""
        };
        format!("{why}{remedy}")
    }

    /// Sends a command about a generation.
    pub fn send(&mut self, id: CommandId, generation: Generation, command: &Command) {
        let State::Ready(engine) = &mut self.state else {
            if matches!(self.state, State::Greeting(_)) {
                let failed = Reply::Failed("the connection is not ready".into());
                self.events.push_back(LinkEvent::Event(Event::Reply(id, failed)));
            }
            return;
        };
        match command {
            Command::NewGeneration(begun) => self.named = Some(*begun),
            Command::Read(_)
            | Command::Acquire { .. }
            | Command::TakeOver { .. }
            | Command::Fill { .. }
            | Command::Put { .. } => self.used = Some(generation),
            _ => {}
        }
        let expected = engine.write(&mut self.out, &self.layout, &self.envelope, generation, command);
        self.waiting.push_back(Waiting { id, expected });
        self.answer_local();
    }

    fn receive_messages(&mut self, mut bytes: &[u8]) -> Result<(), LinkError> {
        loop {
            let message = self.reader.next(&mut bytes).map_err(|malformed| self.not_understood(malformed))?;
            match message {
                Some(Message::Push(parts)) => self.push(&parts),
                Some(Message::Reply(value)) => self.reply(value)?,
                None => return Ok(()),
            }
        }
    }

    fn not_understood(&self, malformed: Malformed) -> LinkError {
        let greeting = matches!(self.state, State::Greeting(_));
        let (kind, problem) = match malformed.marker {
            // An alert or a handshake of TLS.
            0x15 | 0x16 if greeting => (LinkErrorKind::Tls, "the server speaks TLS"),
            b'H' if greeting => (LinkErrorKind::NotRedis, "the server speaks HTTP"),
            _ if greeting => (LinkErrorKind::NotRedis, "the server does not speak the protocol of Redis"),
            _ => return LinkError::new(LinkErrorKind::Protocol, malformed.to_string()),
        };
        LinkError::new(kind, format!("{problem}: {malformed}"))
    }

    fn reply(&mut self, value: Value) -> Result<(), LinkError> {
        match &mut self.state {
            State::Greeting(greeting) => {
                if let Some((engine, ready)) = greeting.reply(&value, &mut self.out)? {
                    self.predecessor.is_followed_by(greeting.met());
                    self.state = State::Ready(engine);
                    self.events.push_back(LinkEvent::Ready(ready));
                }
                Ok(())
            }
            State::Ready(_) => self.answer(value),
            State::Failed(error) => Err(error.clone()),
        }
    }

    /// Gives a reply to the oldest command.
    fn answer(&mut self, value: Value) -> Result<(), LinkError> {
        let Some(oldest) = self.waiting.front_mut() else {
            return Err(LinkError::new(LinkErrorKind::Protocol, "the server answered without a command"));
        };
        let id = oldest.id;
        let reply = match oldest.expected.take(&self.envelope, value)? {
            Answer::More => return Ok(()),
            Answer::Names(generation) => {
                // News of it were missed, or a command of this process has not run yet.
                if self.named.is_some() && generation != self.named {
                    self.events.push_back(LinkEvent::Event(Event::GenerationChanged));
                }
                return Ok(());
            }
            Answer::Silent => None,
            Answer::Reply(reply) => Some(reply),
            Answer::NoGeneration(ours) => {
                // The next commands about entries are written after this one.
                let Repair { expected } = Engine::repair(&mut self.out, &self.layout, ours);
                self.waiting.push_back(Waiting { id, expected });
                Some(Reply::Generation(ours))
            }
        };
        self.waiting.pop_front();
        if let Some(Reply::Generation(generation)) = &reply {
            self.named = Some(*generation);
        }
        self.events.extend(reply.map(|reply| LinkEvent::Event(Event::Reply(id, reply))));
        self.answer_local();
        Ok(())
    }

    /// Rule 4: answers the oldest commands, as long as none of them needs the server.
    fn answer_local(&mut self) {
        while let Some(Waiting { expected: Expected::Local(_), .. }) = self.waiting.front()
            && let Some(Waiting { id, expected: Expected::Local(reply) }) = self.waiting.pop_front()
        {
            self.events.push_back(LinkEvent::Event(Event::Reply(id, reply)));
        }
    }

    fn push(&mut self, parts: &[Value]) {
        // Rule 3.
        if !matches!(self.state, State::Ready(_)) {
            return;
        }
        let [kind, rest @ ..] = parts else { return };
        if kind.text() != Some(b"invalidate") {
            return;
        }
        let [Value::List(keys)] = rest else {
            // Null: all keys were removed. Anything else is not understood, and may be as bad.
            self.events.push_back(LinkEvent::Event(Event::AllChanged));
            return;
        };
        for key in keys.iter().filter_map(Value::text) {
            let event = match self.layout.parse(key) {
                Some(WireKey::Entry(generation, name)) => self.changed(generation, name),
                Some(WireKey::Generation) => Some(Event::GenerationChanged),
                Some(WireKey::Owner(owner)) => Some(Event::OwnerChanged(owner)),
                None => None,
            };
            self.events.extend(event.map(LinkEvent::Event));
        }
    }

    /// Rule 2.
    fn changed(&self, generation: Generation, name: Name) -> Option<Event> {
        let present = [self.named, self.used].contains(&Some(generation));
        present.then_some(Event::Changed(name))
    }
}

//! Replies of the server to answers of the port.
//!
//! A command of the port is one or more commands of the server. All their replies are taken before
//! the answer is given, also after an error, so that later replies find their command.
//!
//! A slot of a cluster that is being moved has some keys on either node, and the old node answers
//! `ASK` or `TRYAGAIN` for a key that it does not have (any more). Rules:
//! 1. A question gets the answer that it failed, so its load goes on without the server. A write
//!    on a condition failed too: nothing of this cache stands there to be written over.
//! 2. An unconditional write ends the connection: it must not be lost, and the next connection
//!    repeats it. No connection is made until the slot has its new node.
//! 3. `MOVED` ends the connection whatever was asked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_cache_core::remote::port::{Found, FoundValue, Generation, Name, Reply};

use crate::envelope::{Envelope, Opened};
use crate::error::{LinkError, LinkErrorKind};
use crate::layout;
use crate::resp::Value;

/// The replies that a command waits for.
#[derive(Debug)]
pub(super) enum Expected {
    /// None: the answer is known.
    Local(Reply),
    /// The values, then the life of each.
    Read(Reading),
    /// As `Taking`, then the life.
    Acquire(Name, Taking),
    /// Null or 0 if a condition did not hold.
    Condition,
    /// Anything.
    Done,
    /// The role of the server, the generation, and then anything.
    Alive(Sign),
    /// As `Taking`, with the digits of a generation.
    Generation(Generation, Taking),
    /// OK. The command has no answer of its own.
    Repaired,
}

/// The next reply of a sign of life.
#[derive(Clone, Debug)]
pub(super) enum Sign {
    Role,
    Generation,
    Last,
    /// The last one. The generation was not told, for this reason.
    Unnamed(Arc<str>),
}

/// The replies of `SET NX GET`, or of `SET NX` and `GET`, and of the commands behind them.
#[derive(Debug)]
pub(super) struct Taking {
    replies: Vec<Value>,
    count: usize,
    /// `SET NX GET` is a single command, with null if nothing stood there.
    single: bool,
}

/// The replies of `GET` or `MGET`, and of `PTTL` for each name.
#[derive(Debug)]
pub(super) struct Reading {
    names: VecDeque<Name>,
    /// `None`: their reply has not arrived.
    values: Option<std::vec::IntoIter<Value>>,
    /// `GET` was asked, not `MGET`.
    single: bool,
    found: Vec<Found>,
    failed: Option<Arc<str>>,
}

/// The result of a reply.
pub(super) enum Answer {
    /// Further replies belong to the command.
    More,
    /// The answer.
    Reply(Reply),
    /// Further replies belong to the command; the generation under its key, if any.
    Names(Option<Generation>),
    /// The command has no answer.
    Silent,
    /// Under the key of the generation stands something else: this generation is to be put there.
    NoGeneration(Generation),
}

impl Expected {
    pub(super) fn read(names: &[Name]) -> Self {
        let single = names.len() == 1;
        let found = Vec::with_capacity(names.len());
        let names = names.iter().cloned().collect();
        Self::Read(Reading { names, values: None, single, found, failed: None })
    }

    /// Takes the next reply.
    pub(super) fn take(&mut self, envelope: &Envelope, value: Value) -> Result<Answer, LinkError> {
        if let Value::Error(text) = &value
            && let Some(error) = LinkError::of_the_place(text).or_else(|| self.being_moved(text))
        {
            return Err(error);
        }
        match self {
            Self::Local(_) => Err(unexpected("a reply to a command that was not sent")),
            Self::Read(reading) => reading.take(envelope, value),
            Self::Acquire(name, taking) => Ok(taking.take(value).map_or(Answer::More, |(taken, rest)| {
                let life = rest.first().unwrap_or(&Value::Null);
                Answer::Reply(acquired(envelope, name, taken, life))
            })),
            Self::Condition => Ok(Answer::Reply(match value {
                Value::Null | Value::Integer(0) => Reply::Refused,
                // Another type stands there: nothing that the condition names.
                Value::Error(text) if is_wrong_type(&text) => Reply::Refused,
                value => done(&value),
            })),
            Self::Alive(Sign::Unnamed(why)) => Ok(Answer::Reply(Reply::Failed(Arc::clone(why)))),
            Self::Done | Self::Alive(Sign::Last) => Ok(Answer::Reply(done(&value))),
            Self::Alive(sign @ Sign::Generation) => {
                *sign = Sign::Last;
                Ok(match value {
                    Value::Error(text) if is_wrong_type(&text) => Answer::Names(None),
                    Value::Error(text) => {
                        *sign = Sign::Unnamed(explained(&text));
                        Answer::More
                    }
                    value => Answer::Names(value.text().and_then(layout::generation_of)),
                })
            }
            Self::Alive(sign) => {
                *sign = Sign::Generation;
                if let Value::List(parts) = &value
                    && let Some(role) = parts.first().and_then(Value::text)
                    && matches!(role, b"slave" | b"replica")
                {
                    let problem = format!("the server is a {} now", String::from_utf8_lossy(role));
                    return Err(LinkError::new(LinkErrorKind::Replica, problem));
                }
                Ok(Answer::More)
            }
            Self::Generation(ours, taking) => Ok(match taking.take(value) {
                None => Answer::More,
                Some((taken, _)) => generation(*ours, taken),
            }),
            Self::Repaired => match value {
                Value::Error(text) => {
                    let problem = format!("the generation cannot be written: {}", explained(&text));
                    Err(LinkError::new(LinkErrorKind::Refused, problem))
                }
                _ => Ok(Answer::Silent),
            },
        }
    }
}

impl Expected {
    /// Rule 2.
    fn being_moved(&self, text: &str) -> Option<LinkError> {
        let is_write = matches!(self, Self::Done | Self::Generation(..) | Self::Repaired);
        let is_moving = is_being_moved(text);
        (is_write && is_moving).then(|| {
            LinkError::new(LinkErrorKind::Cluster, format!("the slot of the cache is being moved: {text}"))
        })
    }
}

fn is_being_moved(text: &str) -> bool {
    matches!(text.split(' ').next(), Some("ASK" | "TRYAGAIN"))
}

/// The outcome of putting a value where none stands.
enum Taken {
    /// It was put.
    Put,
    /// This stands there.
    Stands(Value),
    /// The server refused.
    Failed(Arc<str>),
}

impl Taking {
    /// The replies of taking, and so many others.
    pub(super) fn new(single: bool, others: usize) -> Self {
        let count = others + if single { 1 } else { 2 };
        Self { replies: Vec::with_capacity(count), count, single }
    }

    /// The outcome and the other replies, if all have arrived.
    fn take(&mut self, value: Value) -> Option<(Taken, Vec<Value>)> {
        self.replies.push(value);
        if self.replies.len() < self.count {
            return None;
        }
        let mut replies = std::mem::take(&mut self.replies).into_iter();
        let mut next = || replies.next().unwrap_or(Value::Null);
        let taken = if self.single {
            match next() {
                Value::Null => Taken::Put,
                stands => Taken::Stands(stands),
            }
        } else {
            match (next(), next()) {
                (Value::Null, stands) => Taken::Stands(stands),
                (Value::Error(text), _) => Taken::Failed(explained(&text)),
                _ => Taken::Put,
            }
        };
        Some((taken, replies.collect()))
    }
}

impl Reading {
    fn take(&mut self, envelope: &Envelope, value: Value) -> Result<Answer, LinkError> {
        let Some(values) = &mut self.values else {
            let values = match value {
                value if self.single => vec![value],
                Value::List(values) if values.len() == self.names.len() => values,
                Value::Error(text) => {
                    self.failed = Some(explained(&text));
                    Vec::new()
                }
                _ => return Err(unexpected("another number of values than was asked for")),
            };
            self.values = Some(values.into_iter());
            return Ok(Answer::More);
        };
        let Some(name) = self.names.pop_front() else {
            return Err(unexpected("more lives than were asked for"));
        };
        match found(envelope, &name, values.next().unwrap_or(Value::Null), &value) {
            Ok(found) => self.found.push(found),
            Err(text) => {
                self.failed.get_or_insert(text);
            }
        }
        if !self.names.is_empty() {
            return Ok(Answer::More);
        }
        Ok(Answer::Reply(match self.failed.take() {
            Some(text) => Reply::Failed(text),
            None => Reply::Found(std::mem::take(&mut self.found)),
        }))
    }
}

fn acquired(envelope: &Envelope, name: &Name, taken: Taken, life: &Value) -> Reply {
    match taken {
        Taken::Put => Reply::Done,
        Taken::Failed(text) => Reply::Failed(text),
        Taken::Stands(value) => match found(envelope, name, value, life) {
            Ok(found) => Reply::Found(vec![found]),
            Err(text) => Reply::Failed(text),
        },
    }
}

fn generation(ours: Generation, taken: Taken) -> Answer {
    let digits = match taken {
        Taken::Put => return Answer::Reply(Reply::Generation(ours)),
        Taken::Failed(text) => return Answer::Reply(Reply::Failed(text)),
        Taken::Stands(Value::Error(text)) if !is_wrong_type(&text) => {
            return Answer::Reply(Reply::Failed(explained(&text)));
        }
        Taken::Stands(value) => value,
    };
    match digits.text().and_then(layout::generation_of) {
        Some(generation) => Answer::Reply(Reply::Generation(generation)),
        None => Answer::NoGeneration(ours),
    }
}

/// The content under a name, from its value and its life. An error has the words for the answer.
fn found(envelope: &Envelope, name: &Name, value: Value, life: &Value) -> Result<Found, Arc<str>> {
    let life = match (&value, life) {
        (Value::Error(text), _) | (_, Value::Error(text)) if !is_wrong_type(text) => {
            return Err(explained(text));
        }
        // It expired, or was removed, between the two commands.
        (_, Value::Integer(-2)) => return Ok(Found::Absent),
        (_, Value::Integer(millis)) => u64::try_from(*millis).ok().map(Duration::from_millis),
        _ => return Err("the server named no life of a key".into()),
    };
    Ok(match value {
        Value::Null => Found::Absent,
        Value::Text(bytes) => match envelope.open(name, &bytes) {
            Opened::Value(bytes) => Found::Value(FoundValue { bytes, life }),
            Opened::Stub => Found::Stub,
            Opened::Lease(lease) => Found::Lease(lease),
            Opened::Foreign => Found::Foreign(Some(bytes.into())),
        },
        // Too large, or of another type.
        _ => Found::Foreign(None),
    })
}

fn done(value: &Value) -> Reply {
    match value {
        Value::Error(text) => Reply::Failed(explained(text)),
        _ => Reply::Done,
    }
}

fn is_wrong_type(text: &str) -> bool {
    text.starts_with("WRONGTYPE")
}

fn unexpected(what: &str) -> LinkError {
    LinkError::new(LinkErrorKind::Protocol, format!("the server sent {what}"))
}

/// An error of the server, with the remedy for those that users meet.
pub(super) fn explained(text: &str) -> Arc<str> {
    let code = text.split(' ').next().unwrap_or_default();
    let remedy = match code {
        "OOM" => "raise `maxmemory` of the server, or let it evict (`maxmemory-policy`)",
        "NOPERM" => "permit the command and the keys of the prefix to the user (`ACL SETUSER`)",
        "ASK" | "TRYAGAIN" => "the slot of the cache is being moved: until then the cache goes on without it",
        "LOADING" => "the server reads its data: wait until it has started",
        "MISCONF" => "the server cannot save and so refuses writes: see its log",
        "NOREPLICAS" => "too few replicas are connected (`min-replicas-to-write`)",
        "NOAUTH" | "WRONGPASS" => "check the user and the password in the settings",
        _ => return text.into(),
    };
    format!("{text}; {remedy}").into()
}

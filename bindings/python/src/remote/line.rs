//! The connection of a tier: to Redis or Valkey, or to a user's own backend.

use async_cache_core::remote::port::{Command, CommandId, Engine, Generation, News};
use async_cache_redis::Link;

use super::own::{Job, OwnEngine};

/// A connection.
pub(crate) enum Line {
    Redis(Box<Link>),
    Own(OwnEngine),
}

/// The next work of a connection for its event loop.
pub(crate) enum Outgoing {
    Bytes(Vec<u8>),
    Jobs(Vec<(CommandId, Job)>),
}

impl Line {
    /// Takes out the work for the event loop.
    pub(crate) fn outgoing(&mut self) -> Outgoing {
        match self {
            Self::Redis(link) => Outgoing::Bytes(std::mem::take(link.outgoing())),
            Self::Own(own) => Outgoing::Jobs(std::iter::from_fn(|| own.job()).collect()),
        }
    }

    /// Whether there are bytes to be written.
    pub(crate) fn has_bytes(&mut self) -> bool {
        match self {
            Self::Redis(link) => !link.outgoing().is_empty(),
            Self::Own(_) => false,
        }
    }
}

impl Engine for Line {
    fn send(&mut self, id: CommandId, generation: Generation, command: &Command) {
        match self {
            Self::Redis(link) => Engine::send(&mut **link, id, generation, command),
            Self::Own(own) => own.send(id, generation, command),
        }
    }

    fn next(&mut self) -> Option<News> {
        match self {
            Self::Redis(link) => Engine::next(&mut **link),
            Self::Own(own) => own.next(),
        }
    }
}

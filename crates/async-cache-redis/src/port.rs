//! A [`Link`] as the core's [`Engine`].

use std::hash::{DefaultHasher, Hash, Hasher};

use async_cache_core::remote::port::{Command, CommandId, Engine, Generation, Greeting, News};

use crate::link::{Link, LinkEvent, Ready};

impl Engine for Link {
    fn send(&mut self, id: CommandId, generation: Generation, command: &Command) {
        Self::send(self, id, generation, command);
    }

    fn next(&mut self) -> Option<News> {
        Some(match self.poll()? {
            LinkEvent::Ready(ready) => {
                let greeting = Greeting { abilities: ready.abilities, identity: identity(&ready) };
                self.met(ready);
                News::Ready(greeting)
            }
            LinkEvent::Event(event) => News::Event(event),
        })
    }
}

/// Differs between servers, and between the roles of a server. The algorithm of the digest is the
/// same for the life of the process, and no longer.
fn identity(ready: &Ready) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&ready.run_id, &ready.role).hash(&mut hasher);
    hasher.finish()
}

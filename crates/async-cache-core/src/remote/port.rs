//! Commands to the tier beyond one host, and events from it: commands and events at the level of
//! leases. An engine that has a conditional write (Redis, Valkey, memcached's meta commands, NATS)
//! can carry them out; one that has none says so ([`Abilities`]).
//!
//! Words: a *name* is a key as the engine knows it, within the namespace of the cache. A *lease*
//! stands under a name while somebody loads: it is unique per load, and a load may be stored only
//! where its own lease still stands. A *stub* stands for a value that the engine does not keep (too
//! large, or not to be shared): it makes changes of the name heard. The *generation* is part of
//! every name on the wire: another generation is an empty cache. The *origin* of a content is what
//! an engine read under a name and could not use; only that content may be replaced.

use std::sync::Arc;
use std::time::Duration;

/// A key, as the engine names it: its canonical bytes, or a digest of them if they are long.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<[u8]>);

impl Name {
    /// The name with these bytes.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A process with a connection: random, so that no two are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(pub u64);

/// The right to store a load; unique per load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease {
    /// The process of the load.
    pub owner: Owner,
    /// Which of its loads.
    pub serial: u64,
}

/// A generation of a namespace: random, so that no two are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// Names a command, for its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u64);

/// The content under a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// A value, encoded.
    Value(Arc<[u8]>),
    /// Nothing that could be served.
    Stub,
}

impl Content {
    /// The length of its value, in bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Value(bytes) => bytes.len(),
            Self::Stub => 0,
        }
    }
}

/// A command to an engine. Commands are carried out in the order in which they are given.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// What stands under the names? Answer: [`Reply::Found`], in their order.
    Read(Vec<Name>),
    /// Put a lease, if nothing stands under the name. Answer: [`Reply::Done`], or
    /// [`Reply::Found`] with what stands there.
    Acquire {
        /// The name.
        name: Name,
        /// The lease.
        lease: Lease,
        /// How long it stands.
        life: Duration,
    },
    /// Put a lease, if a certain content stands under the name. Answer: [`Reply::Done`] or
    /// [`Reply::Refused`].
    TakeOver {
        /// The name.
        name: Name,
        /// The content to replace.
        from: Replaced,
        /// The lease.
        lease: Lease,
        /// How long it stands.
        life: Duration,
    },
    /// Replace the lease by a content, if it still stands. Answer: [`Reply::Done`], or
    /// [`Reply::Refused`]: somebody has written or invalidated meanwhile.
    Fill {
        /// The name.
        name: Name,
        /// The lease.
        lease: Lease,
        /// The content.
        content: Content,
        /// How long it stands; `None`: until it is removed.
        life: Option<Duration>,
    },
    /// Let the lease stand longer, if it still stands. Answer: [`Reply::Done`] or
    /// [`Reply::Refused`].
    Extend {
        /// The name.
        name: Name,
        /// The lease.
        lease: Lease,
        /// How long from now.
        life: Duration,
    },
    /// Remove the lease, if it still stands. Answer: [`Reply::Done`] or [`Reply::Refused`].
    Release {
        /// The name.
        name: Name,
        /// The lease.
        lease: Lease,
    },
    /// Put a content, whatever stands there. Answer: [`Reply::Done`].
    Put {
        /// The name.
        name: Name,
        /// The content.
        content: Content,
        /// How long it stands; `None`: until it is removed.
        life: Option<Duration>,
    },
    /// Remove what stands under the names. Answer: [`Reply::Done`].
    Drop(Vec<Name>),
    /// The generation, or this one if the namespace has none. Answer: [`Reply::Generation`].
    Generation(Generation),
    /// Begin a generation. Answer: [`Reply::Done`].
    NewGeneration(Generation),
    /// This owner is alive for so long. Answer: [`Reply::Done`].
    Alive {
        /// The owner.
        owner: Owner,
        /// How long from now.
        life: Duration,
    },
    /// Is this owner alive? Answer: [`Reply::Done`] or [`Reply::Refused`].
    IsAlive(Owner),
    /// Is anybody there, and does the last generation stand still? Answer: [`Reply::Done`], after
    /// [`Event::GenerationChanged`] if another one stands.
    Ping,
}

/// A content that may be replaced.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Replaced {
    /// The lease of an owner who died.
    Lease(Lease),
    /// Bytes that are no content of this cache: of another version or program, or damaged.
    Foreign(Arc<[u8]>),
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// It is done.
    Done,
    /// The condition did not hold.
    Refused,
    /// The contents found under the names.
    Found(Vec<Found>),
    /// The generation.
    Generation(Generation),
    /// The engine refused: out of memory, not permitted, an error. Nothing was done.
    Failed(Arc<str>),
}

/// The content found under a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Found {
    /// Nothing.
    Absent,
    /// A value.
    Value(FoundValue),
    /// A stub.
    Stub,
    /// The lease of a load.
    Lease(Lease),
    /// Something that this cache did not write, or cannot read. `None`: too large to be named in a
    /// condition.
    Foreign(Option<Arc<[u8]>>),
}

/// A value that was read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FoundValue {
    /// The value, encoded.
    pub bytes: Arc<[u8]>,
    /// How long it still stands, when it was read; `None`: until it is removed.
    pub life: Option<Duration>,
}

/// An event of an engine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The answer to a command. Commands are answered in their order.
    Reply(CommandId, Reply),
    /// The content of a name of the present generation has changed.
    Changed(Name),
    /// Anything may have changed.
    AllChanged,
    /// The generation may have changed.
    GenerationChanged,
    /// Something about the sign of life of an owner has changed.
    OwnerChanged(Owner),
}

/// The abilities of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Abilities {
    /// It stores a load only if its lease still stands. If not, leases are not used, and a load may
    /// overwrite what was written meanwhile.
    pub fences: bool,
    /// It tells of changes. If not, entries stay in memory for a short time only.
    pub notifies: bool,
}

/// A connection to an engine, without I/O.
pub trait Engine {
    /// Carries out a command on names of a generation, after all that were given before.
    fn send(&mut self, id: CommandId, generation: Generation, command: &Command);
    /// What the engine says next, of what has arrived.
    fn next(&mut self) -> Option<News>;
}

/// The news of an [`Engine`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It is ready for commands. Comes first, and once.
    Ready(Greeting),
    /// An event.
    Event(Event),
}

/// The facts learned by a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Greeting {
    /// The abilities of the engine.
    pub abilities: Abilities,
    /// Which server, in which role: another number is another server.
    pub identity: u64,
}

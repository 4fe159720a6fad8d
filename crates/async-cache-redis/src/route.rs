//! Where to connect: the server of a cache, or first the servers that know it.
//!
//! Rules:
//! 1. An attempt to connect asks each known server at most once, beginning behind the server that
//!    was asked last. So a server that does not answer, or whose answer is out of date, is not
//!    asked twice before all others.
//! 2. What was learned is good for one connection: the next attempt asks again. But if a node of a
//!    cluster has named the new node of the slot, the next attempt goes there without asking.
//! 3. A single server that is a node of a cluster makes the route one of the cluster: all nodes
//!    that are named from then on may be asked. If none of them answers, the route is that of the
//!    single server again.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::{Address, Config, Place};
use crate::credentials::Credentials;
use crate::error::{ConfigError, LinkError};
use crate::inquiry::{Inquiry, Located, Question};
use crate::layout::Layout;

/// How many addresses are kept. The settings may have more.
const MAX_KNOWN: usize = 1024;

/// The way to the server of a cache. One for the life of a cache, over all of its connections.
///
/// A front drives it so, for each connection that the core wants:
///
/// ```
/// use async_cache_redis::{Address, Config, Inquiry, Link, LinkError, Located, Route, Step};
///
/// # fn inquire(_: &Address, _: Inquiry) -> Result<Located, LinkError> {
/// #     panic!("this route asks nobody")
/// # }
/// # let connect = |address: &Address| assert_eq!(address.to_string(), "cache.example:6379");
/// let config = Config::from_url("redis://cache.example")?;
/// let mut route = Route::new(&config)?; // kept over connections
///
/// route.begin();
/// while let Some(step) = route.step() {
///     match step {
///         // A connection for one question. It may take `Route::patience`.
///         Step::Ask(address) => match inquire(&address, route.inquiry(&address)) {
///             Ok(located) => route.located(located),
///             Err(error) => drop(error), // for the log, if no server answers
///         },
///         // The connection of the link. If it fails, the attempt has failed.
///         Step::Use(address) => {
///             connect(&address);
///             let link = Link::new(&config)?;
///             // Bytes are exchanged. When `link.receive` returns an error: `route.ended(&error)`.
///             # drop(link);
///             break;
///         }
///     }
/// }
/// // `None`: no server has answered, and the attempt has failed.
/// # Ok::<(), async_cache_redis::ConfigError>(())
/// ```
///
/// All connections of a route are encrypted if [`Config::tls`] is set. The name in the certificate
/// is the host of the address.
#[derive(Clone, Debug)]
pub struct Route {
    kind: Kind,
    credentials: Option<Credentials>,
    patience: Duration,
    /// The servers to ask, the next one first.
    known: VecDeque<Address>,
    /// How many were asked in this attempt.
    asked: usize,
    /// The answer in this attempt.
    located: Option<Address>,
    /// The server of the present connection.
    current: Option<Address>,
    /// Rule 2.
    moved: Option<Address>,
}

#[derive(Clone, Debug)]
enum Kind {
    /// The server. Rule 3: with the slot.
    Server(Address, u16),
    /// Nodes of a cluster, and the slot. `alone`: the single server that the settings have.
    Cluster {
        slot: u16,
        alone: Option<Address>,
    },
    Sentinel {
        service: String,
    },
}

/// The next connection of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// For one question: [`Route::inquiry`].
    Ask(Address),
    /// For a [`Link`](crate::Link).
    Use(Address),
}

impl Route {
    /// The route to the server in some settings.
    ///
    /// # Errors
    /// [`ConfigError`] if a setting cannot be used.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        config.check()?;
        let slot = Layout::new(config)?.slot();
        let mut credentials = Credentials::new(config.username.as_ref(), config.password.as_ref());
        let (kind, known) = match &config.place {
            Place::Server(address) => (Kind::Server(address.clone(), slot), VecDeque::new()),
            Place::Cluster(nodes) => (Kind::Cluster { slot, alone: None }, nodes.iter().cloned().collect()),
            Place::Sentinel(sentinels) => {
                credentials = Credentials::new(sentinels.username.as_ref(), sentinels.password.as_ref());
                let kind = Kind::Sentinel { service: sentinels.service.clone() };
                (kind, sentinels.addresses.iter().cloned().collect())
            }
        };
        let patience = config.timeout.max(Duration::from_secs(1));
        Ok(Self { kind, credentials, patience, known, asked: 0, located: None, current: None, moved: None })
    }

    /// Begins an attempt to connect. An attempt that was given up needs no end.
    pub fn begin(&mut self) {
        self.asked = 0;
        self.current = None;
        self.located = self.moved.take();
    }

    /// The next connection of the attempt. `None`: no server has answered.
    pub fn step(&mut self) -> Option<Step> {
        let server = match &self.kind {
            Kind::Server(address, _) => Some(address),
            _ => None,
        };
        if let Some(address) = self.located.as_ref().or(server) {
            self.current = Some(address.clone());
            return Some(Step::Use(address.clone()));
        }
        if self.asked >= self.known.len() {
            if let Kind::Cluster { slot, alone: Some(alone) } = &self.kind {
                self.kind = Kind::Server(alone.clone(), *slot); // Rule 3.
                self.known.clear();
            }
            return None;
        }
        self.asked += 1;
        // Rule 1.
        let address = self.known.pop_front()?;
        self.known.push_back(address.clone());
        Some(Step::Ask(address))
    }

    /// The question to the server of a [`Step::Ask`].
    pub fn inquiry(&self, address: &Address) -> Inquiry {
        let question = match &self.kind {
            Kind::Server(_, slot) | Kind::Cluster { slot, .. } => Question::Slot(*slot),
            Kind::Sentinel { service } => Question::Primary(service.clone()),
        };
        Inquiry::new(address.clone(), question, self.credentials.as_ref())
    }

    /// How long a front waits for a server of a step: for the connection, and for the answer of a
    /// [`Step::Ask`]. Shorter than the time after which the core gives an attempt up.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// An inquiry has this answer.
    pub fn located(&mut self, located: Located) {
        located.nodes.into_iter().for_each(|node| self.know(node));
        self.located = Some(located.address);
    }

    /// The link has ended with an error.
    pub fn ended(&mut self, error: &LinkError) {
        let (Some(moved), Some(current)) = (&error.moved, &self.current) else { return };
        let (current, node) = (current.clone(), current.beside(moved.host.as_deref(), moved.port));
        match &self.kind {
            Kind::Sentinel { .. } => return,
            Kind::Cluster { .. } => {}
            Kind::Server(address, slot) => {
                self.kind = Kind::Cluster { slot: *slot, alone: Some(address.clone()) };
            }
        }
        self.know(node.clone());
        self.know(current);
        self.moved = Some(node);
    }

    /// The server of the present attempt or connection, for logs.
    pub fn current(&self) -> Option<&Address> {
        self.current.as_ref()
    }

    fn know(&mut self, node: Address) {
        if self.known.len() < MAX_KNOWN && !self.known.contains(&node) {
            self.known.push_back(node);
        }
    }
}

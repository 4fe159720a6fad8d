//! The tier beyond one host, beside the memory of a cache: the machine of `async-cache-tier`, and
//! the state of the driver, which carries its bytes on an event loop.
//!
//! # Layout
//!
//! - `options`: the settings, made by Python's `RedisBackend`;
//! - `content`: values on their way to the tier and back;
//! - `line`: the connection; `own`: the connection to a user's own backend;
//! - `question`: the questions of loads, and their ends; `inquiry`: a load that waits for answers.
//!
//! The driver itself is `crate::driver`. Rules:
//! 1. one connection per cache, owned by one event loop. Only the driver on that loop takes orders
//!    and carries bytes; calls on other loops and threads wake it;
//! 2. the machine's lock is taken with the interpreter's lock held, and no Python code runs under
//!    it;
//! 3. a hit in memory calls nothing here.

mod content;
mod inquiry;
mod line;
mod options;
mod own;
mod question;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_cache_core::remote::{Landing, WriteMark};
use async_cache_core::time::{Deadline, Time};
use async_cache_redis::{Predecessor, Route};
use async_cache_tier::clock;
use async_cache_tier::remote::Remote;
use pyo3::prelude::*;

pub(crate) use content::{INFO, WARNING, name_of, say};
pub(crate) use inquiry::{Answers, End, Inquiry};
pub(crate) use line::{Line, Outgoing};
pub(crate) use options::{RedisOptions, TierSettings};
pub(crate) use own::{Job, OwnEngine, reply_to_get, text_of};
pub(crate) use question::Question;

use crate::raw::calls::Invoke;
use crate::raw::visit::{Visit, VisitStopped, Visitor, visits};
use crate::raw::{GilCell, Ref};

use self::own::Objects;

/// The machine with its connection. Those who wait are numbered: see [`RemoteState::waits`].
pub(crate) type SharedRemote = Remote<Line, u64>;

/// The tier beyond one host of a cache.
pub(crate) struct RemoteTier {
    pub(crate) settings: TierSettings,
    /// The object that Python made the tier from.
    pub(crate) backend: Py<PyAny>,
    /// A weak reference to the cache: the connection must not keep the cache.
    pub(crate) cache: Py<PyAny>,
    pub(crate) state: GilCell<RemoteState>,
    pub(crate) counts: RemoteCounts,
    /// The generation of a user's own backend, which outlives its connections.
    pub(crate) generation: Arc<AtomicU64>,
    /// Whether it was said that a value cannot be shared.
    has_said_unshared: AtomicBool,
}

/// The counters of the tier.
#[derive(Default)]
pub(crate) struct RemoteCounts {
    pub(crate) misses: AtomicU64,
    pub(crate) undecodable: AtomicU64,
    pub(crate) unshared: AtomicU64,
}

impl RemoteCounts {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The state of the driver.
#[allow(clippy::struct_excessive_bools)] // independent of each other
pub(crate) struct RemoteState {
    pub(crate) remote: Arc<SharedRemote>,
    /// The way to the server; `None` for a user's own backend.
    pub(crate) route: Option<Route>,
    pub(crate) predecessor: Predecessor,
    /// The event loop that carries the connection.
    pub(crate) owner: Option<Ref>,
    /// Counts the owners. Calls that the loop of an earlier owner makes do nothing.
    pub(crate) ownership: u64,
    /// Counts the connections. Calls of an earlier connection do nothing.
    pub(crate) connection: u64,
    /// The task that opens the connection.
    pub(crate) attempt: Option<Ref>,
    pub(crate) transport: Option<Ref>,
    /// Ends with the event loop: see `cache._connection`.
    pub(crate) end_of_loop: Option<Ref>,
    /// When the loop's timer goes off.
    pub(crate) timer: Option<Time>,
    /// Whether nothing was received since the last bytes were written.
    pub(crate) is_owed: bool,
    /// Whether the end of the turn of the loop writes what there is.
    pub(crate) ends_turn: bool,
    /// Whether the transport wants no bytes.
    pub(crate) is_paused: bool,
    /// Whether the owner was asked, thread-safely, to drive.
    pub(crate) is_called: bool,
    /// Whether the driver is at work.
    pub(crate) is_driving: bool,
    /// Counts the looks of the driver.
    pub(crate) drives: u64,
    /// The loads that wait for answers, by number.
    pub(crate) waits: BTreeMap<u64, Wait>,
    pub(crate) last_wait: u64,
    /// The loads whose answers have come, in the order of the answers.
    pub(crate) answered: Vec<u64>,
    /// The callers that wait until their writes are acknowledged, in the order of the writes.
    pub(crate) writes: BTreeMap<(u64, u64), WriteWait>,
    /// The objects on their way to and from a user's own backend.
    pub(crate) objects: Objects,
}

/// A load that waits for answers.
#[derive(Default)]
pub(crate) struct Wait {
    pub(crate) answers: Answers,
    /// `None` during its steps.
    pub(crate) inquiry: Option<Box<dyn Inquiry>>,
    /// The looks of the driver when it was asked to look: see `driver::watch`.
    pub(crate) asked_at: Option<u64>,
}

/// A caller that waits until its writes are acknowledged: see `driver::written`.
pub(crate) struct WriteWait {
    pub(crate) mark: WriteMark,
    pub(crate) future: Ref,
    pub(crate) event_loop: Ref,
}

visits!(struct Wait { inquiry });
visits!(struct WriteWait { future, event_loop });
visits!(struct RemoteState { owner, attempt, transport, end_of_loop, waits, writes, objects });

impl Visit for RemoteTier {
    fn visit(&self, visitor: Visitor<'_>) -> Result<(), VisitStopped> {
        self.backend.visit(visitor)?;
        self.cache.visit(visitor)?;
        self.state.visit(visitor)
    }
}

impl RemoteTier {
    pub(crate) fn new(settings: TierSettings, backend: Py<PyAny>, cache: Py<PyAny>) -> Self {
        let remote = Arc::new(Remote::new(settings.machine.clone(), random));
        Self {
            state: GilCell::new(RemoteState::new(remote, settings.route.clone())),
            settings,
            backend,
            cache,
            counts: RemoteCounts::default(),
            generation: Arc::default(),
            has_said_unshared: AtomicBool::new(false),
        }
    }

    /// The machine.
    pub(crate) fn remote(&self, py: Python<'_>) -> Arc<SharedRemote> {
        Arc::clone(&self.state.borrow(py).remote)
    }

    /// In a forked child: begins anew, and touches nothing of the parent's connection. The objects
    /// of the parent's loop are kept for ever, for their finalizers would touch it.
    pub(crate) fn forked(&self, py: Python<'_>) {
        let remote = Arc::new(Remote::new(self.settings.machine.clone(), random));
        let mut state = self.state.borrow(py);
        let connection = state.connection;
        let mut fresh = RemoteState::new(remote, self.settings.route.clone());
        (fresh.connection, fresh.ownership) = (connection + 1, state.ownership + 1);
        let inherited = std::mem::replace(&mut *state, fresh);
        drop(state);
        std::mem::forget(inherited);
    }
}

impl RemoteState {
    fn new(remote: Arc<SharedRemote>, route: Option<Route>) -> Self {
        Self {
            remote,
            route,
            predecessor: Predecessor::default(),
            owner: None,
            ownership: 0,
            connection: 0,
            attempt: None,
            transport: None,
            end_of_loop: None,
            timer: None,
            is_owed: false,
            ends_turn: false,
            is_paused: false,
            is_called: false,
            is_driving: false,
            drives: 0,
            waits: BTreeMap::new(),
            last_wait: 0,
            answered: Vec::new(),
            writes: BTreeMap::new(),
            objects: Objects::default(),
        }
    }

    /// A number for a load that will wait.
    pub(crate) fn begin_wait(&mut self) -> u64 {
        self.last_wait += 1;
        self.waits.insert(self.last_wait, Wait::default());
        self.last_wait
    }
}

/// Lets an event loop call a method of an object, in case the loop ever runs again.
pub(crate) fn call_on(owner: &Bound<'_, PyAny>, object: Option<&Ref>, method: &str) {
    let py = owner.py();
    if let Some(object) = object
        && let Ok(method) = object.bind(py).getattr(method)
    {
        // A closed loop raises.
        drop(owner.invoke_method1(pyo3::intern!(py, "call_soon_threadsafe"), &method));
    }
}

impl Drop for RemoteTier {
    /// The cache is gone, and its connection goes with it.
    fn drop(&mut self) {
        Python::try_attach(|py| {
            let mut state = self.state.borrow(py);
            let (owner, transport) = (state.owner.take(), state.transport.take());
            let (attempt, end_of_loop) = (state.attempt.take(), state.end_of_loop.take());
            let waits = (std::mem::take(&mut state.waits), std::mem::take(&mut state.writes));
            drop(state);
            if let Some(owner) = owner {
                call_on(owner.bind(py), transport.as_ref(), "abort");
                call_on(owner.bind(py), attempt.as_ref(), "cancel");
            }
            drop((transport, attempt, end_of_loop, waits));
        });
    }
}

/// The deadline of a value in memory, as far as the tier has a say in it. `None`: memory does not
/// keep the value.
pub(crate) fn deadline_under(landing: Landing, deadline: Deadline, now: Time) -> Option<Deadline> {
    match landing {
        Landing::Covered => Some(deadline),
        Landing::AtMost(most) => Some(deadline.min(Deadline::after(now, most))),
        Landing::Nothing => None,
    }
}

/// A number that no other process has, and no forked child: the keys of the hash come from the
/// system once for each thread, and a child inherits them.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    RandomState::new().hash_one((std::process::id(), clock::wall(), clock::now(), call))
}

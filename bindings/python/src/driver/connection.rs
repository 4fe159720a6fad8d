//! The connection as a protocol of asyncio, and the calls that the event loop makes for the driver.
//!
//! All of these objects refer to the cache weakly: an event loop must not keep a cache. Each knows
//! the number of its connection or owner, and does nothing for a later one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_cache_core::remote::port::{CommandId, Reply};
use async_cache_core::time::Time;
use async_cache_redis::Link;
use async_cache_tier::clock;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pyo3::{PyTraverseError, PyVisit};

use super::only_interrupts;
use crate::cache::Cache;
use crate::errors;
use crate::raw::Ref;
use crate::raw::calls::Invoke;
use crate::raw::visit::{self, visits};
use crate::remote::{Line, OwnEngine, RemoteTier, reply_to_get};

/// A protocol of asyncio: one connection.
#[pyclass(frozen, module = "cache._native")]
pub(crate) struct Connection {
    cache: Py<PyAny>,
    number: u64,
}

visits!(struct Connection { cache });

/// The cache behind a weak reference.
pub(super) fn alive<'py>(cache: &Py<PyAny>, py: Python<'py>) -> PyResult<Option<Bound<'py, Cache>>> {
    let cache = cache.bind(py).invoke0()?;
    if cache.is_none() {
        return Ok(None);
    }
    Ok(Some(cache.cast_into::<Cache>().map_err(|_| PyRuntimeError::new_err("not a cache"))?))
}

impl Connection {
    /// Opens the connection to a user's own backend: `runner` carries out its commands.
    pub(super) fn open_own(&self, py: Python<'_>, runner: Bound<'_, PyAny>) -> PyResult<()> {
        let runner = Ref::new(runner);
        let opened = self.with(py, |_, tier| {
            let mut state = tier.state.borrow(py);
            let before = state.transport.replace(runner);
            (state.is_owed, state.ends_turn, state.is_paused) = (false, false, false);
            let remote = std::sync::Arc::clone(&state.remote);
            drop(state);
            drop(before);
            remote.opened(Line::Own(OwnEngine::new(std::sync::Arc::clone(&tier.generation))));
            // It is ready at once.
            remote.engine(clock::now(), |_| ());
            Ok(())
        });
        opened.map(drop)
    }

    pub(super) fn new<'py>(py: Python<'py>, tier: &RemoteTier) -> PyResult<Bound<'py, Self>> {
        let number = tier.state.borrow(py).connection;
        Bound::new(py, Self { cache: tier.cache.clone_ref(py), number })
    }

    /// Does work for the cache, and drives, if this is still the connection.
    fn with(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&Cache, &RemoteTier) -> PyResult<()>,
    ) -> PyResult<Option<()>> {
        let Some(cache) = alive(&self.cache, py)? else { return Ok(None) };
        let cache = cache.get();
        let Some(tier) = cache.remote.get() else { return Ok(None) };
        if tier.state.borrow(py).connection != self.number {
            return Ok(None);
        }
        work(cache, tier)?;
        cache.poke(py)?;
        Ok(Some(()))
    }
}

#[pymethods]
impl Connection {
    fn connection_made(&self, py: Python<'_>, transport: Bound<'_, PyAny>) -> PyResult<()> {
        let kept = Ref::new(transport.clone());
        let made = self.with(py, |_, tier| {
            let mut link = Link::new(&tier.settings.config)
                .map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
            link.follow(&tier.state.borrow(py).predecessor);
            link.start();
            let mut state = tier.state.borrow(py);
            let before = state.transport.replace(kept);
            let remote = std::sync::Arc::clone(&state.remote);
            (state.is_owed, state.ends_turn, state.is_paused) = (false, false, false);
            drop(state);
            drop(before);
            remote.opened(Line::Redis(Box::new(link)));
            Ok(())
        })?;
        if made.is_none() {
            transport.invoke_method0(pyo3::intern!(py, "abort"))?;
        }
        Ok(())
    }

    fn data_received(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let received = self.with(py, |_, tier| {
            let remote = tier.remote(py);
            let now = clock::now();
            remote.heard(now);
            tier.state.borrow(py).is_owed = false;
            let bytes;
            let data = if let Ok(data) = data.cast::<PyBytes>() {
                data.as_bytes()
            } else {
                bytes = data.extract::<Vec<u8>>()?;
                &bytes
            };
            let receive = |line: &mut Line| match line {
                Line::Redis(link) => link.receive(data),
                Line::Own(_) => Ok(()),
            };
            if let Some(Err(error)) = remote.engine(now, receive) {
                if let Some(route) = &mut tier.state.borrow(py).route {
                    route.ended(&error);
                }
                remote.closed(&error.to_string(), now);
            }
            Ok(())
        });
        received.map(drop)
    }

    #[allow(clippy::unused_self)] // the transport closes itself
    fn eof_received(&self) {}

    fn connection_lost(&self, py: Python<'_>, error: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let lost = self.with(py, |_, tier| {
            let why = match error {
                Some(error) => error.invoke_str()?.to_string(),
                None => "the server has closed the connection".to_owned(),
            };
            let (transport, remote) = {
                let mut state = tier.state.borrow(py);
                state.connection += 1;
                (state.transport.take(), std::sync::Arc::clone(&state.remote))
            };
            drop(transport);
            let now = clock::now();
            let explained = |line: &mut Line| match line {
                Line::Redis(link) => link.lost(&why),
                Line::Own(_) => why.clone(),
            };
            let why = remote.engine(now, explained).unwrap_or_else(|| why.clone());
            remote.closed(&why, now);
            Ok(())
        });
        lost.map(drop)
    }

    fn pause_writing(&self, py: Python<'_>) -> PyResult<()> {
        let paused = self.with(py, |_, tier| {
            tier.state.borrow(py).is_paused = true;
            Ok(())
        });
        paused.map(drop)
    }

    fn resume_writing(&self, py: Python<'_>) -> PyResult<()> {
        let resumed = self.with(py, |_, tier| {
            tier.state.borrow(py).is_paused = false;
            Ok(())
        });
        resumed.map(drop)
    }

    /// A command of a user's own backend has ended, with values or with an error.
    fn ended(
        &self,
        py: Python<'_>,
        number: u64,
        values: Option<Vec<Bound<'_, PyAny>>>,
        error: Option<String>,
    ) -> PyResult<()> {
        let ended = self.with(py, |_, tier| {
            let reply = match (error, values) {
                (Some(error), _) => Reply::Failed(error.into()),
                (None, None) => Reply::Done,
                (None, Some(values)) => {
                    let mut handles = Vec::with_capacity(values.len());
                    for value in values {
                        handles.push(tier.keep(py, value));
                    }
                    reply_to_get(handles)
                }
            };
            let (remote, now) = (tier.remote(py), clock::now());
            remote.heard(now);
            remote.engine(now, |line| {
                if let Line::Own(own) = line {
                    own.ended(CommandId(number), reply);
                }
            });
            Ok(())
        });
        ended.map(drop)
    }

    /// Keeps an object that ends with the event loop.
    fn end_of_loop(&self, py: Python<'_>, end: Bound<'_, PyAny>) -> PyResult<()> {
        let end = Ref::new(end);
        let kept = self.with(py, |_, tier| {
            let before = tier.state.borrow(py).end_of_loop.replace(end);
            drop(before);
            Ok(())
        });
        kept.map(drop)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit::traverse(self, visit)
    }
}

/// A timer's call that comes later than this was held up by other work of the loop.
const LATE: Duration = Duration::from_millis(20);

/// The reason of a call of the event loop.
#[derive(Clone, Copy)]
pub(super) enum What {
    /// The machine has work, from another thread.
    Drive,
    /// The turn of the loop in which there were bytes to be written is over.
    EndOfTurn,
    /// The timer that was set for a time. `due`: when its call was expected.
    Tick { at: Time, due: Time },
    /// The second call of a timer whose first came late.
    LateTick { at: Time },
    /// The loop ends in order.
    LoopEnds,
    /// The connection is to be closed.
    Close,
}

/// A call that the owner's loop makes.
#[pyclass(frozen, module = "cache._native")]
pub(super) struct DriverCall {
    cache: Py<PyAny>,
    /// The owner that the call belongs to.
    ownership: u64,
    what: What,
    has_run: AtomicBool,
}

visits!(struct DriverCall { cache });

impl DriverCall {
    pub(super) fn make<'py>(py: Python<'py>, tier: &RemoteTier, what: What) -> PyResult<Bound<'py, PyAny>> {
        let ownership = tier.state.borrow(py).ownership;
        let cache = tier.cache.clone_ref(py);
        Bound::new(py, Self { cache, ownership, what, has_run: AtomicBool::new(false) }).map(Bound::into_any)
    }

    fn run(&self, py: Python<'_>) -> PyResult<()> {
        let Some(cache) = alive(&self.cache, py)? else { return Ok(()) };
        let cache = cache.get();
        let Some(tier) = cache.remote.get() else { return Ok(()) };
        if tier.state.borrow(py).ownership != self.ownership {
            return Ok(());
        }
        match self.what {
            What::Drive => tier.state.borrow(py).is_called = false,
            What::EndOfTurn => {
                let mut state = tier.state.borrow(py);
                (state.is_owed, state.ends_turn) = (false, false);
            }
            // The loop was blocked, and runs timers before it reads its sockets, perhaps.
            What::Tick { at, due } if due.later(LATE) < clock::now() => {
                return super::call_again(py, tier, at);
            }
            What::Tick { at, .. } | What::LateTick { at } => {
                // An earlier time may have taken the place of this one.
                let is_set = {
                    let mut state = tier.state.borrow(py);
                    let is_set = state.timer == Some(at);
                    if is_set {
                        state.timer = None;
                    }
                    is_set
                };
                let (remote, now) = (tier.remote(py), clock::now());
                if is_set && remote.wake_at().is_some_and(|wake_at| wake_at <= now) {
                    remote.tick(now);
                }
                cache.compact_names(py, tier);
            }
            What::LoopEnds => return cache.end_with_loop(py, tier),
            What::Close => return cache.leave_loop(py, tier),
        }
        cache.poke(py)
    }

    /// The loop has dropped a timer that has not run.
    fn was_dropped(&self, py: Python<'_>, at: Time) -> PyResult<()> {
        let Some(cache) = alive(&self.cache, py)? else { return Ok(()) };
        let Some(tier) = cache.get().remote.get() else { return Ok(()) };
        let owner = {
            let state = tier.state.borrow(py);
            let is_present = state.ownership == self.ownership && state.timer == Some(at);
            state.owner.as_ref().filter(|_| is_present).map(|owner| owner.bind(py).clone())
        };
        let Some(owner) = owner else { return Ok(()) };
        if owner.invoke_method0(pyo3::intern!(py, "is_closed"))?.is_truthy()? {
            return cache.get().end_with_closed_loop(py, tier, &owner);
        }
        tier.state.borrow(py).timer = None; // The next look sets another.
        Ok(())
    }
}

impl Drop for DriverCall {
    /// A loop that is closed without its end in order drops its timers, and nothing is heard any
    /// more. Or the interpreter shuts down, and nobody is served.
    fn drop(&mut self) {
        if let What::Tick { at, .. } | What::LateTick { at } = self.what
            && !*self.has_run.get_mut()
        {
            Python::try_attach(|py| {
                if let Err(error) = self.was_dropped(py, at) {
                    error.write_unraisable(py, None);
                }
            });
        }
    }
}

#[pymethods]
impl DriverCall {
    /// Begins to wait until all writes are acknowledged: how many seconds at most, or `None` if no
    /// word is expected. At the end of the loop.
    fn await_writes(&self, py: Python<'_>, future: Bound<'_, PyAny>) -> PyResult<Option<f64>> {
        let Some(cache) = alive(&self.cache, py)? else { return Ok(None) };
        let cache = cache.get();
        let Some(tier) = cache.remote.get() else { return Ok(None) };
        if tier.state.borrow(py).ownership != self.ownership {
            return Ok(None);
        }
        let Some(mark) = tier.remote(py).mark() else { return Ok(None) };
        let waits = cache.await_writes(py, mark, &future)?;
        Ok(waits.then_some(tier.settings.machine.timeout.as_secs_f64()))
    }

    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        self.has_run.store(true, Ordering::Relaxed);
        let done = self.run(py);
        match &done {
            Err(error) if errors::is_interrupt(py, error) => done,
            _ => only_interrupts(py, done),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit::traverse(self, visit)
    }
}

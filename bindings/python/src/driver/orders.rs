//! The orders of the machine.

use std::sync::Arc;

use async_cache_core::remote::Notice;
use async_cache_core::removed::Removed;
use async_cache_core::shard::FlightFate;
use async_cache_redis::Place;
use async_cache_tier::Memory;
use async_cache_tier::clock;
use async_cache_tier::remote::Order;
use async_cache_tier::suspects;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use super::attempt::Attempt;
use super::connection::{Connection, DriverCall, What};
use super::only_interrupts;
use super::watch::resume_on_its_loop;
use crate::cache::Cache;
use crate::host::CacheHost;
use crate::raw::Ref;
use crate::raw::calls::Invoke;
use crate::remote::{INFO, Line, RemoteTier, WARNING, say};

impl Cache {
    /// Does an order.
    pub(super) fn obey(
        &self,
        py: Python<'_>,
        tier: &RemoteTier,
        owner: &Bound<'_, PyAny>,
        order: Order<u64>,
    ) -> PyResult<()> {
        match order {
            Order::Answer(number, id, answer) => {
                let mut state = tier.state.borrow(py);
                // The load may have ended.
                let Some(wait) = state.waits.get_mut(&number) else { return Ok(()) };
                wait.answers.push((id, answer));
                if state.answered.last() != Some(&number) {
                    state.answered.push(number);
                }
                Ok(())
            }
            Order::Forget { name, fences } => {
                let fate = if fences { FlightFate::Fenced } else { FlightFate::Kept };
                let hashes = tier.remote(py).hashes(&name);
                hashes.into_iter().try_for_each(|hash| self.forget_hash(py, hash, fate))
            }
            Order::ForgetAll => {
                self.empty_memory(py);
                Ok(())
            }
            Order::Suspect { fences } => {
                self.suspect_all(py);
                if fences {
                    self.state.borrow(py).tiered.shard.fence_all();
                }
                Ok(())
            }
            Order::Connect => open(py, tier, owner),
            Order::Disconnect => {
                let (transport, attempt) = {
                    let mut state = tier.state.borrow(py);
                    state.connection += 1;
                    (state.transport.take(), state.attempt.take())
                };
                super::quietly(py, transport.as_ref(), "abort");
                super::quietly(py, attempt.as_ref(), "cancel");
                Ok(())
            }
            Order::Say(notice) => {
                let server = |line: &mut Line| match line {
                    Line::Redis(link) => link.server().map(|server| server.notices.clone()),
                    Line::Own(_) => None,
                };
                let lacks = tier.remote(py).engine(clock::now(), server).flatten().unwrap_or_default();
                let (level, message) = in_words(&tier.settings.place(), &address(py, tier), &lacks, notice);
                say(py, level, &message);
                Ok(())
            }
        }
    }

    /// Rule 6: lets the loads go on whose answers have come. Returns whether there were any. `Err`:
    /// an interrupt.
    pub(super) fn tell_answered(
        py: Python<'_>,
        tier: &RemoteTier,
        owner: &Bound<'_, PyAny>,
    ) -> (bool, PyResult<()>) {
        let answered = std::mem::take(&mut tier.state.borrow(py).answered);
        let is_told = !answered.is_empty();
        let mut interrupted = Ok(());
        for number in answered {
            let resumed = resume_on_its_loop(py, tier, number, Some(owner));
            interrupted = interrupted.and(only_interrupts(py, resumed));
        }
        (is_told, interrupted)
    }

    fn forget_hash(&self, py: Python<'_>, hash: u64, flights: FlightFate) -> PyResult<()> {
        if let Some(host) = self.file_host(py) {
            return suspects::forget_hash(&host, 0, hash, flights);
        }
        let host = CacheHost { py, cache: self, target: () };
        let now = self.at(clock::now());
        let removed: Removed<Ref, Ref> = host.shard(0, |tiered| tiered.shard.forget_hash(hash, flights, now));
        drop(removed);
        Ok(())
    }
}

/// Begins to open a connection.
fn open(py: Python<'_>, tier: &RemoteTier, owner: &Bound<'_, PyAny>) -> PyResult<()> {
    static OPEN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let (before, transport, has_end, number) = {
        let mut state = tier.state.borrow(py);
        state.connection += 1;
        let has_end = state.end_of_loop.is_some();
        (state.attempt.take(), state.transport.take(), has_end, state.connection)
    };
    super::quietly(py, before.as_ref(), "cancel");
    super::quietly(py, transport.as_ref(), "abort");
    tier.remote(py).connecting(clock::now());
    let protocol = Connection::new(py, tier)?;
    if tier.settings.own.is_some() {
        static RUNNER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let runner = RUNNER.import(py, "cache._own", "Runner")?;
        let ended = protocol.getattr(pyo3::intern!(py, "ended"))?;
        let runner = runner.invoke_with((tier.backend.bind(py), owner, ended))?;
        if !has_end {
            let left = DriverCall::make(py, tier, What::LoopEnds)?;
            let watch = py.import("cache._connection")?.getattr("watch_loop")?;
            watch.invoke_with((&protocol, left))?;
        }
        return protocol.get().open_own(py, runner);
    }
    let attempt = Attempt::begin(py, tier)?;
    let left = if has_end { None } else { Some(DriverCall::make(py, tier, What::LoopEnds)?) };
    let open = OPEN.import(py, "cache._connection", "open_connection")?;
    let attempt = open.invoke_with((owner, protocol, attempt, tier.backend.bind(py), left))?;
    let attempt = Ref::new(attempt);
    let mut state = tier.state.borrow(py);
    if state.connection == number {
        let other = state.attempt.replace(attempt);
        drop(state);
        drop(other);
    }
    Ok(())
}

/// The address of the connection, for the log, if the place in the settings does not have it.
fn address(py: Python<'_>, tier: &RemoteTier) -> String {
    let state = tier.state.borrow(py);
    let current = state.route.as_ref().and_then(|route| route.current());
    match (&tier.settings.config.place, current) {
        (Place::Sentinel(_) | Place::Cluster(_), Some(address)) => format!(" at {address}"),
        _ => String::new(),
    }
}

/// A notice for the log. `lacks`: the sentences of the server about missing abilities.
fn in_words(place: &str, at: &str, lacks: &[Arc<str>], notice: Notice) -> (u8, String) {
    match notice {
        Notice::Down(why) => {
            (WARNING, format!("{place} is away: {why}; the cache goes on without it, and tries again"))
        }
        Notice::Up(_) if lacks.is_empty() => (INFO, format!("{place} is connected{at}")),
        Notice::Up(_) => {
            (WARNING, format!("{place} is connected{at}, and lacks something: {}", lacks.join("; ")))
        }
        Notice::Refused(why) => {
            (WARNING, format!("{place} refuses a command: {why} (said once per connection)"))
        }
    }
}

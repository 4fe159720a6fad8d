//! The driver of the tier beyond one host: carries bytes and time, and does the orders, on one
//! event loop.
//!
//! # Layout
//!
//! - `connection`: the protocol of asyncio, and the calls that the event loop makes;
//! - `attempt`: the way to the server, for the task that opens a connection;
//! - `orders`: the orders of the machine; `inquiries`: the loads that wait for answers;
//! - `written`: callers that wait until a write is acknowledged;
//! - `watch`: a look at a driver on another event loop, by a load that waits.
//!
//! Rules:
//! 1. the event loop that needs the connection first owns it. If that loop has ended or stands
//!    still when another loop needs the connection, the other loop takes over, and connects anew;
//! 2. [`Cache::poke`] follows every call that may have given work to the machine. The owner drives
//!    at once; another loop asks the owner to drive;
//! 3. the driver is not re-entrant. Python code run by the driver, such as the handler of a log,
//!    may use the cache: the driver that is at work also does the added orders;
//! 4. bytes are written at once if the server owes no answer to earlier ones, and else together at
//!    the end of the turn of the event loop. So a single question costs one turn, and many in a
//!    turn cost one call of the system;
//! 5. one timer at most: it goes off when the machine has something to do, or earlier. Time passes
//!    for the machine in the timer's call only, and only after the loop has read its sockets: a
//!    loop that was blocked has not heard the server, which is no silence of the server. A timer
//!    that is dropped before it has run tells of a loop that was closed;
//! 6. loads are told their answers after the orders that came together: all keys of a read at once.
//!
//! No error leaves the driver, except an interrupt.

mod attempt;
mod connection;
mod inquiries;
mod orders;
mod watch;
mod written;

use std::time::Duration;

use async_cache_core::remote::port::CommandId;
use async_cache_core::time::Time;
use async_cache_tier::clock;
use async_cache_tier::suspects;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyFloat};

use crate::cache::Cache;
use crate::errors;
use crate::host::CacheHost;
use crate::raw::Ref;
use crate::raw::calls::Invoke;
use crate::remote::{Job, Line, Outgoing, RemoteTier, call_on, text_of};
use crate::room::running_loop;

use self::connection::{DriverCall, What};

pub(crate) use self::attempt::Attempt;
pub(crate) use self::connection::Connection;
pub(crate) use self::inquiries::{end, forget, park, resume};
pub(crate) use self::watch::{resume_on_its_loop, watch};

/// A timer is set for this much later, so that the time has come when the timer goes off: loops
/// count coarsely.
const COARSE: Duration = Duration::from_millis(1);

impl Cache {
    /// Before a write: if no owner runs, the running loop, if any, takes over. So a connection that
    /// has ended takes no write with it.
    pub(crate) fn prepare_write(&self, py: Python<'_>) -> PyResult<()> {
        if self.remote.get().is_none() {
            return Ok(());
        }
        running_loop(py).map_or(Ok(()), |running| self.prepare_remote(py, &running))
    }

    /// Makes the running loop the owner of the connection, if there is no owner that runs (rule 1).
    /// Before a question is asked.
    pub(crate) fn prepare_remote(&self, py: Python<'_>, running: &Bound<'_, PyAny>) -> PyResult<()> {
        let Some(tier) = self.remote.get() else { return Ok(()) };
        let is_owned = match owner_of(py, tier) {
            Some(owner) => owner.is(running) || is_alive(&owner)?,
            None => false,
        };
        if !is_owned {
            take_over(py, tier, running);
        }
        Ok(())
    }

    /// Lets the driver look for orders and bytes (rule 2).
    ///
    /// # Errors
    /// An interrupt.
    pub(crate) fn poke(&self, py: Python<'_>) -> PyResult<()> {
        match self.remote.get() {
            Some(tier) => only_interrupts(py, self.poke_tier(py, tier)),
            None => Ok(()),
        }
    }

    fn poke_tier(&self, py: Python<'_>, tier: &RemoteTier) -> PyResult<()> {
        let running = running_loop(py).ok();
        match (owner_of(py, tier), running) {
            (Some(owner), Some(running)) if owner.is(&running) => self.drive(py, tier, &owner),
            (Some(owner), running) if is_alive(&owner)? => {
                // `running` drives elsewhere.
                drop(running);
                if std::mem::replace(&mut tier.state.borrow(py).is_called, true) {
                    return Ok(());
                }
                let call = DriverCall::make(py, tier, What::Drive)?;
                let soon = pyo3::intern!(py, "call_soon_threadsafe");
                if let Err(error) = owner.invoke_method1(soon, &call) {
                    tier.state.borrow(py).is_called = false;
                    // The loop was closed meanwhile.
                    return if errors::is_interrupt(py, &error) { Err(error) } else { Ok(()) };
                }
                Ok(())
            }
            (_, Some(running)) => {
                take_over(py, tier, &running);
                self.drive(py, tier, &running)
            }
            // Sent by the next loop that needs the connection.
            (_, None) => Ok(()),
        }
    }

    /// Does all orders, writes bytes, and sets the timer. On the owner's thread.
    fn drive(&self, py: Python<'_>, tier: &RemoteTier, owner: &Bound<'_, PyAny>) -> PyResult<()> {
        if std::mem::replace(&mut tier.state.borrow(py).is_driving, true) {
            return Ok(()); // Rule 3.
        }
        let ownership = tier.state.borrow(py).ownership;
        let driven = self.drive_on(py, tier, owner, ownership);
        let mut state = tier.state.borrow(py);
        if state.ownership == ownership {
            state.is_driving = false;
        }
        driven
    }

    /// Ends early if another loop takes over meanwhile: that loop does the rest.
    fn drive_on(
        &self,
        py: Python<'_>,
        tier: &RemoteTier,
        owner: &Bound<'_, PyAny>,
        ownership: u64,
    ) -> PyResult<()> {
        Self::has_driven(py, tier);
        let remote = tier.remote(py);
        let is_owner = || tier.state.borrow(py).ownership == ownership;
        let mut interrupted = Ok(());
        loop {
            let mut is_idle = true;
            while is_owner()
                && let Some(order) = remote.order()
            {
                is_idle = false;
                let done = self.obey(py, tier, owner, order);
                interrupted = interrupted.and(only_interrupts(py, done));
            }
            let (is_told, told) = Self::tell_answered(py, tier, owner);
            is_idle &= !is_told;
            interrupted = interrupted.and(told);
            if !is_owner() {
                return interrupted;
            }
            let flushed = flush(py, tier, owner);
            interrupted = interrupted.and(only_interrupts(py, flushed));
            let ended = written::end_write_waits(py, tier, owner);
            interrupted = interrupted.and(only_interrupts(py, ended));
            if !is_owner() {
                return interrupted;
            }
            if is_idle {
                break;
            }
        }
        let armed = arm(py, tier, owner, remote.wake_at());
        interrupted.and(only_interrupts(py, armed))
    }

    /// [`Cache::leave_loop`], and the loads that wait on the loop end: no task could run there.
    fn end_with_loop(&self, py: Python<'_>, tier: &RemoteTier) -> PyResult<()> {
        let ended = owner_of(py, tier).map_or(Ok(()), |owner| inquiries::end_on_loop(py, tier, &owner));
        ended.and(self.leave_loop(py, tier))
    }

    /// The owner's loop ends in order: its connection goes. Until another loop needs a connection,
    /// changes are not heard, so nothing in memory is served without asking.
    pub(crate) fn leave_loop(&self, py: Python<'_>, tier: &RemoteTier) -> PyResult<()> {
        let Some(owner) = owner_of(py, tier) else { return Ok(()) };
        let ((transport, attempt), driven) = self.part_from(py, tier, &owner);
        quietly(py, transport.as_ref(), "abort");
        quietly(py, attempt.as_ref(), "cancel");
        driven
    }

    /// The same, after the loop was closed: the destructor of the transport closes the socket.
    fn end_with_closed_loop(
        &self,
        py: Python<'_>,
        tier: &RemoteTier,
        owner: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let ended = inquiries::end_on_loop(py, tier, owner);
        let (parts, driven) = self.part_from(py, tier, owner);
        drop(parts);
        ended.and(driven)
    }

    /// Returns the transport and the attempt to connect.
    fn part_from(
        &self,
        py: Python<'_>,
        tier: &RemoteTier,
        owner: &Bound<'_, PyAny>,
    ) -> ((Option<Ref>, Option<Ref>), PyResult<()>) {
        tier.remote(py).part(clock::now());
        // Whoever is told goes on at once on another thread, perhaps, and takes over.
        let (ownership, parts, left) = {
            let mut state = tier.state.borrow(py);
            state.connection += 1;
            let parts = (state.transport.take(), state.attempt.take());
            (state.ownership, parts, (state.owner.take(), state.end_of_loop.take()))
        };
        // The waiting loads go on alone.
        let driven = self.drive(py, tier, owner);
        {
            let mut state = tier.state.borrow(py);
            if state.ownership == ownership {
                state.ownership += 1;
                state.timer = None;
            }
        }
        drop(left);
        self.suspect_all(py);
        (parts, driven)
    }

    /// Closes the connection, wherever its loop runs.
    pub(crate) fn close_connection(&self, py: Python<'_>, tier: &RemoteTier) -> PyResult<()> {
        let Some(owner) = owner_of(py, tier) else { return Ok(()) };
        if running_loop(py).is_ok_and(|running| running.is(&owner)) {
            return self.leave_loop(py, tier);
        }
        let call = DriverCall::make(py, tier, What::Close);
        // A closed loop raises.
        drop(call.and_then(|call| owner.invoke_method1(pyo3::intern!(py, "call_soon_threadsafe"), &call)));
        Ok(())
    }

    /// Makes everything suspect, in memory and in the file.
    pub(crate) fn suspect_all(&self, py: Python<'_>) {
        suspects::suspect_all(&CacheHost { py, cache: self, target: () });
    }

    /// Drops the names of entries that have left, now and then.
    fn compact_names(&self, py: Python<'_>, tier: &RemoteTier) {
        let memory = CacheHost { py, cache: self, target: () };
        let is_there = |hash| self.state.borrow(py).tiered.shard.has_hash(hash);
        suspects::compact_names(&memory, tier.remote(py).names(), is_there);
    }
}

/// Writes the bytes of the connection, unless they have to wait (rule 4).
fn flush(py: Python<'_>, tier: &RemoteTier, owner: &Bound<'_, PyAny>) -> PyResult<()> {
    let (transport, remote, is_owed) = {
        let state = tier.state.borrow(py);
        let Some(transport) = &state.transport else { return Ok(()) };
        if state.ends_turn || state.is_paused {
            return Ok(());
        }
        (transport.bind(py).clone(), std::sync::Arc::clone(&state.remote), state.is_owed)
    };
    if is_owed {
        if remote.outgoing(clock::now(), Line::has_bytes) == Some(true) {
            let call = DriverCall::make(py, tier, What::EndOfTurn)?;
            owner.invoke_method1(pyo3::intern!(py, "call_soon"), &call)?;
            tier.state.borrow(py).ends_turn = true;
        }
        return Ok(());
    }
    let bytes = match remote.outgoing(clock::now(), Line::outgoing) {
        Some(Outgoing::Bytes(bytes)) if !bytes.is_empty() => bytes,
        Some(Outgoing::Jobs(jobs)) => return begin_jobs(py, tier, &transport, jobs),
        _ => return Ok(()),
    };
    tier.state.borrow(py).is_owed = true;
    let bytes = PyBytes::new(py, &bytes).into_any();
    transport.invoke_method1(pyo3::intern!(py, "write"), &bytes).map(drop)
}

/// Begins jobs of a user's own backend.
fn begin_jobs(
    py: Python<'_>,
    tier: &RemoteTier,
    runner: &Bound<'_, PyAny>,
    jobs: Vec<(CommandId, Job)>,
) -> PyResult<()> {
    let namespace = &tier.settings.config.namespace;
    for (id, job) in jobs {
        let none = || py.None().into_bound(py);
        let (kind, names, value, ttl) = match job {
            Job::Get(names) => ("get", names, none(), None),
            Job::Set(name, handle, life) => {
                let object = tier.state.borrow(py).objects.find(py, &handle);
                let Some(object) = object else { continue };
                ("set", vec![name], object.into_bound(py), life.map(|life| life.as_secs_f64()))
            }
            Job::Delete(names) => ("delete", names, none(), None),
            Job::Clear => ("clear", Vec::new(), none(), None),
        };
        let keys: Vec<String> = names.iter().map(|name| text_of(name, namespace)).collect();
        runner.invoke_method("run", (id.0, kind, keys, value, ttl), None)?;
    }
    Ok(())
}

/// Rule 1: makes a loop the owner. Nothing of the former owner counts any more.
fn take_over(py: Python<'_>, tier: &RemoteTier, running: &Bound<'_, PyAny>) {
    let new = Ref::new(running.clone());
    let mut state = tier.state.borrow(py);
    state.ownership += 1;
    state.connection += 1;
    let owner = state.owner.replace(new);
    let (transport, attempt) = (state.transport.take(), state.attempt.take());
    let end_of_loop = state.end_of_loop.take();
    (state.timer, state.is_paused, state.is_called) = (None, false, false);
    (state.is_owed, state.ends_turn) = (false, false);
    state.is_driving = false;
    let remote = std::sync::Arc::clone(&state.remote);
    drop(state);
    if owner.is_some() {
        remote.part(clock::now());
    } else {
        // A connection may have been wanted by a write outside of every loop.
        remote.connecting(clock::now());
    }
    if let Some(owner) = owner {
        for (object, method) in [(&transport, "abort"), (&attempt, "cancel")] {
            call_on(owner.bind(py), object.as_ref(), method);
        }
    }
    drop((transport, attempt, end_of_loop));
}

fn quietly(py: Python<'_>, object: Option<&Ref>, method: &str) {
    if let Some(object) = object
        && let Err(error) = object.bind(py).invoke_method(method, (), None)
    {
        error.write_unraisable(py, None);
    }
}

fn owner_of<'py>(py: Python<'py>, tier: &RemoteTier) -> Option<Bound<'py, PyAny>> {
    tier.state.borrow(py).owner.as_ref().map(|owner| owner.bind(py).clone())
}

/// Whether a loop runs.
fn is_alive(event_loop: &Bound<'_, PyAny>) -> PyResult<bool> {
    event_loop.invoke_method0(pyo3::intern!(event_loop.py(), "is_running"))?.is_truthy()
}

/// Rule 5.
fn arm(py: Python<'_>, tier: &RemoteTier, owner: &Bound<'_, PyAny>, wake_at: Option<Time>) -> PyResult<()> {
    let Some(at) = wake_at else { return Ok(()) };
    {
        let mut state = tier.state.borrow(py);
        if state.timer.is_some_and(|armed| armed <= at) {
            return Ok(());
        }
        state.timer = Some(at);
    }
    let now = clock::now();
    call_later(py, tier, owner, What::Tick { at, due: at.max(now).later(COARSE) }, at.since(now) + COARSE)
}

/// Lets the timer's call come again after the loop has read its sockets (rule 5).
fn call_again(py: Python<'_>, tier: &RemoteTier, at: Time) -> PyResult<()> {
    let Some(owner) = owner_of(py, tier) else { return Ok(()) };
    call_later(py, tier, &owner, What::LateTick { at }, COARSE)
}

fn call_later(
    py: Python<'_>,
    tier: &RemoteTier,
    owner: &Bound<'_, PyAny>,
    what: What,
    delay: Duration,
) -> PyResult<()> {
    let delay = PyFloat::new(py, delay.as_secs_f64());
    let call = DriverCall::make(py, tier, what)?;
    let set = owner.invoke_method2(pyo3::intern!(py, "call_later"), delay.as_any(), &call);
    if set.is_err() {
        tier.state.borrow(py).timer = None;
    }
    set.map(drop)
}

/// Passes on an interrupt, and reports other errors: they concern no caller.
fn only_interrupts(py: Python<'_>, done: PyResult<()>) -> PyResult<()> {
    match done {
        Err(error) if !errors::is_interrupt(py, &error) => {
            error.write_unraisable(py, None);
            Ok(())
        }
        done => done,
    }
}

//! An attempt to open a connection: the places that it connects to, one after the other.
//!
//! `cache._connection` has the sockets, and drives an attempt so: it connects to the place of each
//! [`Attempt::step`]. If the server is to be asked for the way, it writes [`Attempt::question`] and
//! gives the received bytes to [`Attempt::answer`]. Otherwise the connection is that of the cache.
//! [`Attempt::failed`] gets the reason when a place cannot be reached. [`Attempt::cancelled`] is
//! called when the task was cancelled.
//!
//! Rules:
//! 1. the route of the tier decides ([`async_cache_redis::Route`]); it outlives the attempts;
//! 2. an attempt that is not the present one any more changes nothing, and has no further step;
//! 3. an attempt ends once: with the connection, or with a reason for the log;
//! 4. an attempt that is cancelled while it is the present one was cancelled by the program, as
//!    `asyncio.run` does at its end. It ends in silence, and nobody waits for its connection.

use async_cache_redis::{Address, Inquiry, Route, Step};
use async_cache_tier::clock;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::connection::alive;
use super::only_interrupts;
use crate::raw::GilCell;
use crate::raw::visit::{self, visits};
use crate::remote::RemoteTier;

/// An attempt to open the connection with a number.
#[pyclass(frozen, module = "cache._native")]
pub(crate) struct Attempt {
    cache: Py<PyAny>,
    number: u64,
    progress: GilCell<Progress>,
}

visits!(struct Attempt { cache });

#[derive(Default)]
struct Progress {
    /// The place of the present step.
    place: Option<Address>,
    /// The question to the server of the present step. `None`: it is the server of the cache.
    inquiry: Option<Inquiry>,
    /// Why the last server that was asked has not answered.
    why: Option<String>,
    /// Rule 3.
    has_failed: bool,
}

impl Attempt {
    pub(super) fn begin<'py>(py: Python<'py>, tier: &RemoteTier) -> PyResult<Bound<'py, Self>> {
        let number = {
            let mut state = tier.state.borrow(py);
            if let Some(route) = &mut state.route {
                route.begin();
            }
            state.connection
        };
        Bound::new(
            py,
            Self { cache: tier.cache.clone_ref(py), number, progress: GilCell::new(Progress::default()) },
        )
    }

    /// Does work with the route, if this is still the present attempt (rule 2).
    fn with<R>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Route, &mut Progress) -> R,
    ) -> PyResult<Option<R>> {
        let Some(cache) = alive(&self.cache, py)? else { return Ok(None) };
        let Some(tier) = cache.get().remote.get() else { return Ok(None) };
        let mut state = tier.state.borrow(py);
        let mut progress = self.progress.borrow(py);
        if state.connection != self.number || progress.has_failed {
            return Ok(None);
        }
        Ok(state.route.as_mut().map(|route| work(route, &mut progress)))
    }

    /// Ends the attempt (rule 3).
    fn fail(&self, py: Python<'_>, why: &str) -> PyResult<()> {
        let Some(cache) = alive(&self.cache, py)? else { return Ok(()) };
        let cache = cache.get();
        let Some(tier) = cache.remote.get() else { return Ok(()) };
        self.progress.borrow(py).has_failed = true;
        tier.remote(py).closed(why, clock::now());
        cache.poke(py)
    }
}

#[pymethods]
impl Attempt {
    /// The next place: its path, or its host and port; how many seconds its server may take; and
    /// whether it is to be asked. `None`: the attempt is over.
    fn step<'py>(&self, py: Python<'py>) -> PyResult<Option<(Bound<'py, PyAny>, f64, bool)>> {
        let step = self.with(py, |route, progress| {
            let (address, inquiry) = match route.step() {
                Some(Step::Use(address)) => (address, None),
                Some(Step::Ask(address)) => {
                    let inquiry = route.inquiry(&address);
                    (address, Some(inquiry))
                }
                None => {
                    let why = progress.why.take();
                    return Err(why.unwrap_or_else(|| "there is no server to ask".to_owned()));
                }
            };
            let asks = inquiry.is_some();
            progress.inquiry = inquiry;
            progress.place = Some(address.clone());
            Ok((address, route.patience(), asks))
        })?;
        let (address, patience, asks) = match step {
            Some(Ok(step)) => step,
            Some(Err(why)) => return only_interrupts(py, self.fail(py, &why)).map(|()| None),
            None => return Ok(None),
        };
        let place = match address {
            Address::Unix(path) => path.to_string_lossy().into_pyobject(py)?.into_any(),
            Address::Tcp { host, port } => {
                let parts = [host.into_pyobject(py)?.into_any(), port.into_pyobject(py)?.into_any()];
                PyTuple::new(py, parts)?.into_any()
            }
        };
        Ok(Some((place, patience.as_secs_f64(), asks)))
    }

    /// The bytes for a server that is asked.
    fn question<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let bytes =
            self.progress.borrow(py).inquiry.as_mut().map(|inquiry| std::mem::take(inquiry.outgoing()));
        PyBytes::new(py, &bytes.unwrap_or_default())
    }

    /// Takes bytes of a server that is asked; none at the end of its connection. Returns whether
    /// the question has ended.
    fn answer(&self, py: Python<'_>, data: &[u8]) -> PyResult<bool> {
        let ended = self.with(py, |route, progress| {
            let (Some(inquiry), Some(place)) = (&mut progress.inquiry, &progress.place) else { return true };
            let why = match inquiry.receive(data) {
                Ok(Some(located)) => {
                    route.located(located);
                    return true;
                }
                Ok(None) if data.is_empty() => format!("{place} has closed the connection"),
                Ok(None) => return false,
                Err(error) => format!("{place}: {error}"),
            };
            progress.why = Some(why);
            true
        })?;
        Ok(ended.unwrap_or(true))
    }

    /// The place of the present step was not reached, or its server has not answered.
    fn failed(&self, py: Python<'_>, why: &str) -> PyResult<()> {
        let ended = self.with(py, |_, progress| {
            let why = match &progress.place {
                Some(place) => format!("no connection to {place}: {why}"),
                None => why.to_owned(),
            };
            if progress.inquiry.is_none() {
                return Some(why);
            }
            progress.why = Some(why);
            None
        })?;
        match ended.flatten() {
            Some(why) => only_interrupts(py, self.fail(py, &why)),
            None => Ok(()),
        }
    }

    /// Rule 4.
    fn cancelled(&self, py: Python<'_>) -> PyResult<()> {
        let Some(cache) = alive(&self.cache, py)? else { return Ok(()) };
        let cache = cache.get();
        let Some(tier) = cache.remote.get() else { return Ok(()) };
        let before = {
            let mut state = tier.state.borrow(py);
            if state.connection != self.number || self.progress.borrow(py).has_failed {
                return Ok(());
            }
            // The end of a transport that was just made is no news.
            state.connection += 1;
            (state.transport.take(), state.attempt.take())
        };
        tier.remote(py).part(clock::now());
        super::quietly(py, before.0.as_ref(), "abort");
        drop(before);
        only_interrupts(py, cache.poke(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit::traverse(self, visit)
    }
}

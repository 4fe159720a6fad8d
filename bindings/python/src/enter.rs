//! How a call of a key that may not be cached continues: with the cached value, with a running
//! load, with a load started by the call, or with a read from the disk, after which the call asks
//! again; and how a caller leaves a load.

use std::cell::RefMut;

use async_cache_core::address::Address;
use async_cache_core::flight::{FlightId, Left};
use async_cache_core::probe::Probed;
use async_cache_tier::clock;
use async_cache_tier::journal::DiskWait;
use async_cache_tier::suspects::Suspects;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::batch;
use crate::cache::{Cache, CacheState};
use crate::driver::resume_on_its_loop;
use crate::item::{Beforehand, LoadFlight};
use crate::key::Query;
use crate::load::spawn;
use crate::raw::Ref;
use crate::reading::{self, MOST_READS, Reading};
use crate::room::{Room, running_loop};
use crate::snapshot::ColdLookup;
use crate::ttl::Ttl;
use crate::work::Work;

/// The loads that a call may join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Joinable {
    Any,
    /// Loads on the caller's event loop. A load on another event loop is fenced.
    Here,
    /// None: a running load is fenced. Several calls of this kind load concurrently.
    Nothing,
}

/// The state of a call, from its first attempt to its last.
pub(crate) struct Asking {
    pub(crate) joining: Joinable,
    /// Whether the call's miss has been counted, or is not counted at all.
    is_counted: bool,
    /// Whether the call has no loader.
    pub(crate) is_look: bool,
    /// Whether an absent key is told apart from the value `None`: see [`absent`].
    pub(crate) marks_absent: bool,
    /// How many loads of other calls the call has awaited without a result.
    pub(crate) in_vain: u32,
    /// How many reads the call may still await. At 0, it waits for the disk in place.
    reads_left: u8,
}

impl Asking {
    /// A call that counts its miss.
    pub(crate) fn new() -> Self {
        Self {
            joining: Joinable::Any,
            is_counted: false,
            is_look: false,
            marks_absent: false,
            in_vain: 0,
            reads_left: MOST_READS,
        }
    }

    /// A look-up whose miss is not counted, and that awaits nothing.
    pub(crate) fn uncounted() -> Self {
        Self { is_counted: true, reads_left: 0, ..Self::new() }
    }

    /// Whether nothing has been asked yet.
    pub(crate) fn is_first(&self) -> bool {
        !self.is_counted && self.reads_left == MOST_READS
    }

    /// The result of the call for an absent key.
    pub(crate) fn absent<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if self.marks_absent { Ok(absent(py)?.bind(py).clone()) } else { Ok(py.None().into_bound(py)) }
    }

    fn disk_wait(&self) -> DiskWait {
        if self.reads_left > 0 { DiskWait::Refused } else { DiskWait::Allowed }
    }

    /// Begins to await a read, or joins one. `None`: the look-up is to be repeated at once.
    fn read(&mut self, cache: &Bound<'_, Cache>, query: &impl Query) -> PyResult<Option<Reading>> {
        let mut may_await = true;
        let reading = reading::begin(cache, query, &mut may_await)?;
        self.reads_left = if may_await { self.reads_left.saturating_sub(1) } else { 0 };
        Ok(reading)
    }

    /// Whether the call may join the load with the given room. `here`: the caller's event loop.
    fn may_join(&self, py: Python<'_>, room: Option<&Ref<Room>>, here: Option<&Bound<'_, PyAny>>) -> bool {
        match (self.joining, room, here) {
            (Joinable::Any, ..) => true,
            (Joinable::Here, Some(room), Some(here)) => room.bind(py).get().runs_on(py, here),
            (Joinable::Here | Joinable::Nothing, ..) => false,
        }
    }

    fn count_miss(&mut self, state: &mut CacheState) {
        if !std::mem::replace(&mut self.is_counted, true) {
            state.tiered.shard.miss();
        }
    }
}

/// The result of a call for an absent key, if it marks absent keys.
pub(crate) fn absent(py: Python<'_>) -> PyResult<&Py<PyAny>> {
    static ABSENT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    ABSENT.get_or_try_init(py, || Ok(py.get_type::<PyAny>().call0()?.unbind()))
}

/// How a call goes on.
pub(crate) enum Entered<'py> {
    /// The key is not cached, and there is no loader.
    Absent,
    Served(Bound<'py, PyAny>),
    /// A thread reads the key. Afterwards the call asks again.
    Reads(Reading),
    /// A load runs.
    Waits(Joined<'py>),
}

/// The result of looking up one of many keys.
pub(crate) enum Looked<'py> {
    Served(Bound<'py, PyAny>),
    Absent,
    /// A thread has to read the key.
    WouldWait,
    /// A look-up runs, and the call counts among its callers.
    Runs(FlightId, Bound<'py, Room>),
}

/// A load to which a call belongs.
pub(crate) struct Joined<'py> {
    pub(crate) flight: FlightId,
    /// The room for the answer.
    pub(crate) room: Bound<'py, Room>,
    /// The caller's event loop.
    pub(crate) event_loop: Bound<'py, PyAny>,
    pub(crate) role: Role,
}

/// The role of a call in a load.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The load runs the call's own loader.
    Leads,
    /// The load runs the loader of another call.
    Follows,
}

impl Cache {
    /// Serves a key, joins its load, or starts a load. Without `work` a miss is
    /// [`Entered::Absent`].
    pub(crate) fn enter<'py>(
        slf: &Bound<'py, Self>,
        query: &impl Query,
        work: Option<Work>,
        ttl: Ttl,
        asking: &mut Asking,
    ) -> PyResult<Entered<'py>> {
        let (py, this) = (slf.py(), slf.get());
        let is_look = work.is_none();
        let work = if is_look && this.remote.get().is_some() { Some(Work::Look) } else { work };
        let here = if asking.joining == Joinable::Here { Some(running_loop(py)?) } else { None };
        loop {
            let under = {
                let (mut state, found) = this.locate(py, query)?;
                if let Some(slot) = found.slot()
                    && let Some(value) = state.tiered.shard.hit_mut(slot, clock::has_passed)
                {
                    return Ok(Entered::Served(value.bind(py).clone()));
                }
                if work.is_some()
                    && let Some(flight) = found.flight()
                    && (!is_look || joins_look(py, state.tiered.shard.flights().token(flight)))
                    && asking.may_join(py, state.tiered.shard.flights().token(flight), here.as_ref())
                {
                    asking.count_miss(&mut state);
                    match this.join(py, state, flight)? {
                        Some(joined) => return Ok(Entered::Waits(joined)),
                        None => continue,
                    }
                }
                state.tiered.under()
            };
            let probed = match this.cold(py, query, under, (asking.disk_wait(), Suspects::Withheld))? {
                ColdLookup::Served(value) => return Ok(Entered::Served(value)),
                ColdLookup::Absent(probed) => probed,
                ColdLookup::WouldWait => match asking.read(slf, query)? {
                    Some(reading) => return Ok(Entered::Reads(reading)),
                    None => continue,
                },
            };
            asking.count_miss(&mut this.state.borrow(py));
            if work.is_none() || (is_look && this.is_loading(py, query)?) {
                return Ok(Entered::Absent);
            }
            let led = this.lead(py, query, probed, ttl, |room| asking.may_join(py, room, here.as_ref()))?;
            let Some((joined, item)) = led else { continue };
            if is_look {
                joined.room.get().only_looks(py);
            }
            match work.expect("looked at above") {
                Work::Batch(loader) => batch::gather(slf, item, loader, &joined.event_loop)?,
                work => spawn(slf, vec![item], work, &joined.event_loop)?,
            }
            return Ok(Entered::Waits(joined));
        }
    }

    /// Looks up one of many keys. If the tier has to be asked, the flight is added to `begun`.
    pub(crate) fn look_among_many<'py>(
        &self,
        py: Python<'py>,
        query: &impl Query,
        begun: &mut Vec<LoadFlight>,
    ) -> PyResult<Looked<'py>> {
        let has_tier = self.remote.get().is_some();
        let mut is_counted = false;
        let mut count_miss = |state: &mut CacheState| {
            if !std::mem::replace(&mut is_counted, true) {
                state.tiered.shard.miss();
            }
        };
        loop {
            let (under, is_loading) = {
                let (mut state, found) = self.locate(py, query)?;
                if let Some(slot) = found.slot()
                    && let Some(value) = state.tiered.shard.hit_mut(slot, clock::has_passed)
                {
                    return Ok(Looked::Served(value.bind(py).clone()));
                }
                if has_tier
                    && let Some(flight) = found.flight()
                    && joins_look(py, state.tiered.shard.flights().token(flight))
                {
                    count_miss(&mut state);
                    match self.join(py, state, flight)? {
                        Some(joined) => return Ok(Looked::Runs(flight, joined.room)),
                        None => continue,
                    }
                }
                (state.tiered.under(), found.flight().is_some())
            };
            let probed = match self.cold(py, query, under, (DiskWait::Refused, Suspects::Withheld))? {
                ColdLookup::Served(value) => return Ok(Looked::Served(value)),
                ColdLookup::Absent(probed) => probed,
                ColdLookup::WouldWait => return Ok(Looked::WouldWait),
            };
            count_miss(&mut self.state.borrow(py));
            if !has_tier || is_loading {
                return Ok(Looked::Absent);
            }
            let led = self.lead(py, query, probed, Ttl::Default, |_| true)?;
            let Some((joined, item)) = led else { continue };
            joined.room.get().only_looks(py);
            begun.push(item);
            return Ok(Looked::Runs(joined.flight, joined.room));
        }
    }

    /// Whether a loader runs for a key.
    fn is_loading(&self, py: Python<'_>, query: &impl Query) -> PyResult<bool> {
        let (state, found) = self.locate(py, query)?;
        let room = found.flight().and_then(|flight| state.tiered.shard.flights().token(flight));
        Ok(room.is_some_and(|room| !room.bind(py).get().is_look(py)))
    }

    /// Begins the flight of a key; a flight that the call may not join is fenced. `None`: in the
    /// meantime the key was stored, a flight began that the call may join, or another snapshot was
    /// opened.
    fn lead<'py>(
        &self,
        py: Python<'py>,
        query: &impl Query,
        probed: Probed,
        ttl: Ttl,
        may_join: impl FnOnce(Option<&Ref<Room>>) -> bool,
    ) -> PyResult<Option<(Joined<'py>, LoadFlight)>> {
        let event_loop = running_loop(py)?;
        let room = Room::new(py, &event_loop)?;
        let key = query.to_key(py)?;
        let flight = {
            let (mut state, found) = self.locate(py, query)?;
            let is_live =
                found.slot().is_some_and(|slot| state.tiered.shard.live(slot, clock::has_passed).is_some());
            let is_to_join =
                found.flight().is_some_and(|flight| may_join(state.tiered.shard.flights().token(flight)));
            let at = state.tiered.shard.admit(found, probed);
            let Some(at) = at.ok().filter(|_| !is_live && !is_to_join) else { return Ok(None) };
            // The fenced load answers its callers only, so others need not wait for it.
            let fenced = found_room(&state, &at).and_then(|room| room.bind(py).get().take_question(py));
            let now = self.at(room.get().began);
            let flight = state.tiered.shard.lead(at, Ref::new(key.clone()), Ref::new(room.clone()), now);
            drop(state);
            let fenced = fenced.map(|question| question.inquiry);
            if let (Some(number), Some(tier)) = (fenced, self.remote.get()) {
                // It goes on without the tier.
                resume_on_its_loop(py, tier, number, Some(&event_loop))?;
            }
            flight
        };
        let item = LoadFlight {
            flight,
            room: Ref::new(room.clone()),
            key: Ref::new(key),
            hash: query.hash(),
            ttl,
            answer: Beforehand::Nothing,
        };
        Ok(Some((Joined { flight, room, event_loop, role: Role::Leads }, item)))
    }

    /// Joins a running load. `None`: the event loop of the load has stopped, and the load has
    /// ended.
    fn join<'py>(
        &self,
        py: Python<'py>,
        mut state: RefMut<'_, CacheState>,
        flight: FlightId,
    ) -> PyResult<Option<Joined<'py>>> {
        let room = state.tiered.shard.join(flight).map(|room| room.bind(py).clone());
        drop(state);
        let Some(room) = room else { return Ok(None) };
        let running = running_loop(py);
        match running.and_then(|running| Ok((room.get().is_alive(py, &running)?, running))) {
            Ok((true, event_loop)) => Ok(Some(Joined { flight, room, event_loop, role: Role::Follows })),
            Ok((false, event_loop)) => {
                self.abandon(py, flight, &room, Some(&event_loop))?;
                Ok(None)
            }
            Err(error) => {
                self.leave(py, flight, &room)?;
                Err(error)
            }
        }
    }

    /// Called when a caller does not wait any more; the last caller stops the load.
    pub(crate) fn leave(&self, py: Python<'_>, flight: FlightId, room: &Bound<'_, Room>) -> PyResult<()> {
        let left = self.state.borrow(py).tiered.shard.leave(flight);
        if left == Left::Others {
            return Ok(());
        }
        // A batch that has left continues without callers.
        let gathered = self.state.borrow(py).batches.drop_flight(flight);
        let was_gathering = gathered.is_some();
        drop(gathered);
        if !was_gathering && room.get().in_batch(py) {
            return Ok(());
        }
        let stopped = if was_gathering { Ok(()) } else { room.get().stop(py) };
        // The flight ends now, and not when the loader has been cancelled, which may take long:
        // later callers load anew.
        let ended = stopped.and(self.abandon(py, flight, room, running_loop(py).ok().as_ref()));
        ended.and(self.poke(py))
    }
}

/// Whether a call without a loader waits for a load: a load that only looks.
fn joins_look(py: Python<'_>, room: Option<&Ref<Room>>) -> bool {
    room.is_some_and(|room| room.bind(py).get().is_look(py))
}

/// The room of the load that is fenced by a new load.
fn found_room<'a>(state: &'a CacheState, at: &Address) -> Option<&'a Ref<Room>> {
    state.tiered.shard.flights().token(at.flight()?)
}

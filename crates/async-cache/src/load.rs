//! Calls that may load: which caller loads, which callers wait, and what happens when they leave.
//!
//! The decisions are the core's (`async_cache_core::flight`); the tasks are here. Each load is
//! driven by a separate task, the *pilot*, so the load outlives the caller that started it. A
//! flight can end in these ways:
//!
//! | event | ended by | the callers get |
//! |---|---|---|
//! | the load returns a value | pilot: [`Inner::land`] | the value, which is stored unless the flight was fenced |
//! | the load returns an error or panics | pilot: [`Inner::end`] | the error |
//! | the last caller leaves | the caller takes the load out and drops it; if the load is being polled, the pilot does | no caller is left; callers that joined meanwhile load anew |
//! | the runtime drops the pilot | its [`Ending`] | callers elsewhere load anew; the caller that supplied the loader gets an error |
//!
//! A flight is over only after its load is dropped. So at no moment do two loads of a key run that
//! could both store their value.
//!
//! A key of a batch has a similar flight, which is driven together with others; `crate::batch` has
//! its protocol.
//!
//! A caller may join a load that ends without an answer for the caller: a load that fails with
//! another type of error, a load by a batch loader that has no value, or a load that was abandoned.
//! The following rules bound the number of attempts:
//! 1. Once, a caller joins any running load of its key.
//! 2. After a load without an answer, the caller joins only a load whose every outcome is an answer
//!    ([`Joins`]). If another load runs, the caller fences that load, which continues for its own
//!    callers, and loads with its own loader. So the second load answers the caller at the latest,
//!    however often other callers begin loads of the key. (Abandoned loads of an acceptable kind do
//!    not count.)
//! 3. A caller that leads is answered by its own load. So each call fences at most one load.

use std::any::TypeId;
use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use async_cache_core::flight::{FlightId, Left};
use async_cache_core::time::Time;
use async_cache_tier::UnderShard;
use async_cache_tier::journal::{DiskWait, Served};

use crate::error::{LoadError, panic_message};
use crate::inner::Inner;
use crate::lookup::Lookup;
use crate::nesting;
use crate::remote::RemoteLoad;
use crate::room::{Answer, AnyError, Brings, Flown, Load, Room, drop_quietly, one_after_another};
use crate::sync;

/// How a call continues for a key that is not in memory.
pub(crate) enum Entered<V> {
    /// A value that was stored in the meantime, or was read from the snapshot.
    Hit(V),
    /// The caller waits for a running load.
    Joined(FlightId, Arc<Room<V>>),
    /// The caller waits for the load that it starts.
    Leads(FlightId, Arc<Room<V>>),
}

/// The state of a call that memory did not answer.
#[derive(Default)]
pub(crate) struct Miss {
    /// The snapshot that was open when memory was asked. Taken by the first [`Inner::enter`].
    under: Option<UnderShard>,
    is_counted: bool,
    /// The journal was asked just now, and does not have the key. Taken by the first
    /// [`Inner::enter`].
    is_not_in_journal: bool,
}

impl Miss {
    /// A call for which memory was asked just now, while this snapshot was open.
    pub(crate) fn under(under: UnderShard) -> Self {
        Self { under: Some(under), ..Self::default() }
    }
}

/// Which load of its key a caller joins. Rules 1 and 2.
#[derive(Clone, Copy)]
pub(crate) enum Joins {
    /// Any running load.
    Any,
    /// Only a load with exactly these outcomes.
    Only(Brings),
    /// A load with this type of error; the caller can use the answer that there is no value.
    OnlyErrorsOf(TypeId),
}

impl Joins {
    fn accepts(self, brings: Brings) -> bool {
        match self {
            Self::Any => true,
            Self::Only(wanted) => brings == wanted,
            Self::OnlyErrorsOf(error) => brings.error == error,
        }
    }
}

/// The data needed to end a flight.
pub(crate) struct PilotedFlight<K, V> {
    pub(crate) inner: Arc<Inner<K, V>>,
    pub(crate) hash: u64,
    pub(crate) id: FlightId,
    pub(crate) room: Arc<Room<V>>,
    pub(crate) storing: Storing<V>,
    pub(crate) started: Time,
    /// What the load asks the tier beyond one host.
    pub(crate) remote: Option<Arc<RemoteLoad>>,
}

/// What happens to the value of a load.
pub(crate) struct Storing<V> {
    /// How long the value is served; `None` never expires.
    pub(crate) ttl: Option<Duration>,
    /// Whether a value is stored at all. Every caller gets the value in any case.
    pub(crate) keeps: fn(&V) -> bool,
}

impl<V> Clone for Storing<V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Storing<V> {}

impl<V> Storing<V> {
    /// Stores every value, for this time.
    pub(crate) fn all(ttl: Option<Duration>) -> Self {
        Self { ttl, keeps: |_| true }
    }
}

impl<K, V> Inner<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Answers a call for a key that is not in memory: from the snapshot, from a running load, or
    /// from a new load.
    pub(crate) async fn load<F, Fut, E>(
        self: &Arc<Self>,
        hash: u64,
        key: impl Lookup<K> + Debug,
        mut miss: Miss,
        storing: Storing<V>,
        load: F,
    ) -> Result<V, LoadError<E>>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        if let Some(value) = self.read_journal(hash, key, &mut miss).await {
            return Ok(value);
        }
        let mut load = Some(load);
        let mut joins = Joins::Any;
        let brings = Brings::value_or::<E>();
        let mut remote = None;
        loop {
            let new_room = || {
                let load = forget_types(load.take().expect("a caller leads once, and returns then"));
                let load = match &self.remote {
                    None => load,
                    Some(_) => self.with_remote(hash, key.to_key(), load, &mut remote),
                };
                Room::new(load, brings)
            };
            let (id, room, leads) = match self.enter(hash, key, joins, &mut miss, new_room) {
                Entered::Hit(value) => return Ok(value),
                Entered::Joined(id, room) => (id, room, false),
                Entered::Leads(id, room) => (id, room, true),
            };
            let seat = Seat::new(self, hash, id, room);
            let room = &seat.room;
            if leads {
                let started = self.clock.now();
                let flight = PilotedFlight {
                    inner: Arc::clone(self),
                    hash,
                    id,
                    room: Arc::clone(room),
                    storing,
                    started,
                    remote: remote.take(),
                };
                if sync::spawn(pilot(Ending { flight, duty: Duty::IfNotTaken })).is_err() {
                    return Err(LoadError::NoRuntime);
                }
            }
            let Ok(_wait) = nesting::wait_for(room.name) else {
                return Err(LoadError::Recursive { key: format!("{key:?}") });
            };
            let answer = room.answer().await.clone();
            seat.give_up();
            match answer {
                Answer::Value(value) => return Ok(value),
                Answer::Failed(error) => {
                    if let Ok(error) = error.downcast() {
                        return Err(LoadError::Failed(error));
                    }
                    // The load belongs to a caller whose loader fails with another type. This
                    // caller's own loader decides.
                }
                Answer::Panicked(message) => {
                    return Err(LoadError::Panicked {
                        key: format!("{key:?}"),
                        message: (*message).to_owned(),
                    });
                }
                Answer::Abandoned if leads => return Err(LoadError::Abandoned { key: format!("{key:?}") }),
                // The caller asked for a single key, so its own loader can answer where the batch
                // loader could not.
                Answer::Abandoned | Answer::Missing => {}
            }
            // Rule 2.
            joins = Joins::Only(brings);
        }
    }

    /// A load that asks the tier beyond one host first, if that may have the key.
    fn with_remote(
        self: &Arc<Self>,
        hash: u64,
        key: K,
        load: Load<V>,
        remote: &mut Option<Arc<RemoteLoad>>,
    ) -> Load<V> {
        *remote = self.asking(hash, &key);
        match remote {
            Some(asks) => self.asks_first(asks, key, load),
            None => load,
        }
    }

    /// Asks the journal, if there is one, for a key that is not in memory. If the disk has to be
    /// waited for, a thread for blocking work waits, not the thread of the runtime.
    pub(crate) async fn read_journal(
        self: &Arc<Self>,
        hash: u64,
        key: impl Lookup<K>,
        miss: &mut Miss,
    ) -> Option<V> {
        let journal = self.tier.journal()?;
        let owned = key.to_key();
        match self.cold_in_journal(journal, hash, &owned, DiskWait::Refused) {
            Served::Hit(value) => return Some(value),
            Served::Suspect | Served::Absent => {
                miss.is_not_in_journal = true;
                return None;
            }
            Served::WouldWait => {}
        }
        let inner = Arc::clone(self);
        let read = move || match inner.cold_in_journal(inner.tier.journal()?, hash, &owned, DiskWait::Allowed)
        {
            Served::Hit(value) => Some(value),
            Served::Suspect | Served::Absent | Served::WouldWait => None,
        };
        let value = sync::on_thread(read).await?;
        miss.is_not_in_journal = value.is_none();
        value
    }

    /// Decides how a miss continues: with a value from the snapshot, with a value stored meanwhile,
    /// by joining the running load, or by starting one in `room`. Counts the miss once per call.
    pub(crate) fn enter(
        &self,
        hash: u64,
        key: impl Lookup<K>,
        joins: Joins,
        miss: &mut Miss,
        mut room: impl FnMut() -> Arc<Room<V>>,
    ) -> Entered<V> {
        // Made before a shard is locked. A key that is not used is dropped here, with nothing
        // locked.
        let mut owned = None;
        loop {
            let under = miss.under.take().unwrap_or_else(|| self.shard(hash).read().under());
            let owned_key = owned.get_or_insert_with(|| key.to_key());
            let probed = if std::mem::take(&mut miss.is_not_in_journal) {
                under.epoch.answered(None)
            } else {
                match self.cold(hash, owned_key, under) {
                    Ok(value) => return Entered::Hit(value),
                    Err(probed) => probed,
                }
            };
            // The beginning of a load needs the wall clock at most.
            let now = self.at(Time::default());
            let entered = self.write(
                hash,
                |known| key.is(known),
                probed,
                |shard, at| {
                    if !std::mem::replace(&mut miss.is_counted, true) {
                        shard.miss();
                    }
                    if let Some(slot) = at.slot()
                        && let Some(value) = shard.live(slot, |deadline| self.clock.has_passed(deadline))
                    {
                        return Entered::Hit(value.clone());
                    }
                    if let Some(flight) = at.flight() {
                        let accepts = |room: &Arc<Room<V>>| joins.accepts(room.brings);
                        if shard.flights().token(flight).is_some_and(accepts)
                            && let Some(room) = shard.join(flight)
                        {
                            return Entered::Joined(flight, Arc::clone(room));
                        }
                    }
                    let owned = owned.take().expect("it was just put there");
                    let room = room();
                    // Rule 2: a load that is not joined is fenced.
                    Entered::Leads(shard.lead(at, owned, Arc::clone(&room), now), room)
                },
            );
            // `None`: the snapshot changed between the look and the lock.
            if let Some(entered) = entered {
                return entered;
            }
        }
    }
}

impl<K, V> Inner<K, V> {
    /// The load has come to its end without a value.
    pub(crate) fn end(&self, hash: u64, id: FlightId, room: &Room<V>, took: Duration, answer: Answer<V>) {
        let ended = {
            let mut tiered = self.shard(hash).write();
            match &answer {
                Answer::Missing => tiered.shard.finish_without_storing(id, took),
                _ => tiered.shard.fail(id, took),
            }
        };
        room.tell(answer);
        drop(ended);
    }
}

/// Drives a load to its end.
async fn pilot<K, V>(mut ending: Ending<K, V>)
where
    K: Hash + Eq,
    V: Clone,
{
    let flight = &ending.flight;
    let is_forsaken = || flight.inner.shard(flight.hash).read().shard.flights().is_forsaken(flight.id);
    let polled = poll_fn(|cx| flight.room.poll(cx, is_forsaken));
    match nesting::within(flight.room.name, polled).await {
        Flown::Taken => ending.duty = Duty::None,
        Flown::Ended(answer) => ending.conclude(answer),
    }
}

/// Ends a flight whose pilot goes away before it ended the flight: the runtime shuts down, or
/// storing the value panicked.
pub(crate) struct Ending<K, V> {
    pub(crate) flight: PilotedFlight<K, V>,
    pub(crate) duty: Duty,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Take the load and end the flight, unless a leaver took the load: then the leaver ends it.
    IfNotTaken,
    End,
    None,
}

impl<K: Hash + Eq, V: Clone> Ending<K, V> {
    /// Ends the flight with the outcome of its load, which is gone.
    pub(crate) fn conclude(&mut self, answer: Answer<V>) {
        // From here on, dropping `self` ends the flight, whatever panics.
        self.duty = Duty::End;
        match answer {
            Answer::Value(value) => match catch_unwind(AssertUnwindSafe(|| value.clone())) {
                Ok(copy) => self.flight.inner.land(&self.flight, value, copy),
                Err(panic) => self.end(Answer::Panicked(panic_message(&*panic).into())),
            },
            other => self.end(other),
        }
        self.duty = Duty::None;
    }
}

impl<K, V> Ending<K, V> {
    fn end(&self, answer: Answer<V>) {
        let PilotedFlight { inner, hash, id, room, started, .. } = &self.flight;
        let took = inner.clock.now().since(*started);
        inner.end(*hash, *id, room, took, answer);
    }
}

impl<K, V> Drop for Ending<K, V> {
    fn drop(&mut self) {
        let is_mine = match self.duty {
            Duty::None => false,
            Duty::End => true,
            Duty::IfNotTaken => {
                let load = self.flight.room.stop();
                let is_mine = load.is_some();
                drop_quietly(load);
                is_mine
            }
        };
        if is_mine {
            self.end(Answer::Abandoned);
        }
    }
}

/// A waiting caller. If the seat is dropped before the answer, the caller leaves; the last caller
/// to leave stops the load.
pub(crate) struct Seat<'a, K: 'static, V: 'static> {
    inner: &'a Arc<Inner<K, V>>,
    pub(crate) hash: u64,
    id: FlightId,
    pub(crate) room: Arc<Room<V>>,
    is_taken: bool,
}

impl<'a, K: 'static, V: 'static> Seat<'a, K, V> {
    pub(crate) fn new(inner: &'a Arc<Inner<K, V>>, hash: u64, id: FlightId, room: Arc<Room<V>>) -> Self {
        Self { inner, hash, id, room, is_taken: true }
    }

    /// The flight has ended: there is nothing to leave.
    pub(crate) fn give_up(mut self) {
        self.is_taken = false;
    }
}

impl<K: 'static, V: 'static> Drop for Seat<'_, K, V> {
    fn drop(&mut self) {
        if !self.is_taken {
            return;
        }
        let left = self.inner.shard(self.hash).write().shard.leave(self.id);
        if left == Left::Nobody
            && let Some(load) = self.room.stop()
        {
            let (inner, hash, id, room) =
                (Arc::clone(self.inner), self.hash, self.id, Arc::clone(&self.room));
            one_after_another(move || {
                drop_quietly(load);
                inner.end(hash, id, &room, Duration::ZERO, Answer::Abandoned);
            });
        }
    }
}

/// Erases the types of a load's future and error, so that loads of the same value type share a
/// type. The loader is called at the first poll of the load.
fn forget_types<V, F, Fut, E>(load: F) -> Load<V>
where
    V: 'static,
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<V, E>> + Send + 'static,
    E: Send + Sync + 'static,
{
    Box::pin(async move { load().await.map_err(|error| Arc::new(error) as AnyError) })
}

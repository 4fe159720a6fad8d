//! Keys that gather, the batches in which they leave, and the loads of the batches.
//!
//! The planner of the core (`async_cache_core::batch`) decides which keys leave together, and when;
//! the tasks are here. Each key of a batch is an ordinary flight of the cache. In the place of a
//! load, the flight's room holds a *placeholder*, which is never polled, and which takes the key
//! out of its batch when it is dropped:
//!
//! | state of the flight | the placeholder | event that ends the flight | ended by |
//! |---|---|---|---|
//! | gathers | is in the room | the last caller leaves | the caller, which takes the placeholder out and drops it |
//! | | | the batch leaves | the batch takes the placeholder: the flight has left |
//! | | | the runtime drops the timer | the [`Timer`] takes the batch out of the planner; its items take their placeholders |
//! | has left | is gone | the load of the batch ends | the [`Convoy`] answers every flight |
//! | | | the last caller leaves | not ended: there is nothing to take, the load continues and is stored |
//! | | | the runtime drops the load | the convoy's [`Ending`]s: callers elsewhere ask anew |
//!
//! Rules:
//! 1. The party that takes the placeholder out of the room ends the flight. This is the rule of the
//!    room, for every load.
//! 2. An item enters the planner and its placeholder enters the room in a single step, under the
//!    planner's lock. Lock order: planner, room. Nothing is dropped while either is held.
//! 3. A batch belongs to the runtime whose callers requested its keys; its timer and its load are
//!    tasks of that runtime. Batches of different runtimes do not mix, so the shutdown of a runtime
//!    affects only its own keys.
//! 4. A window of zero needs no timer: its task yields once to all tasks that can run.
//! 5. A timer does not keep the gatherer alive, because the timer of a batch that left full fires
//!    much later; placeholders do.
//! 6. The load of a batch has a separate name, and the flights of its keys wait for the load in the
//!    graph of waits. So a batch loader that asks for a key of its own batch closes a circle, and
//!    is refused.
//! 7. The load is dropped before its flights end.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use async_cache_core::batch::{Added, BatchId, ItemId, Planner};

use super::answer::WrongCount;
use crate::error::{LoadError, panic_message};
use crate::inner::Inner;
use crate::load::{Duty, Ending, Entered, Joins, Miss, PilotedFlight, Seat, Storing};
use crate::nesting::{self, Wait};
use crate::remote::Questions;
use crate::room::{Answer, AnyError, Brings, Room, drop_quietly};
use crate::sync::{self, Mutex, RuntimeId};

/// A running batch loader: an answer for each key, or a single answer for all.
pub(super) type Loading<V> = Pin<Box<dyn Future<Output = Result<Vec<Answer<V>>, Answer<V>>> + Send>>;

/// A batch loader whose types of future, result and error are forgotten.
pub(super) type Loader<K, V> = Box<dyn Fn(Vec<K>) -> Loading<V> + Send + Sync>;

pub(super) struct Gatherer<K, V> {
    pub(super) inner: Arc<Inner<K, V>>,
    pub(super) loader: Loader<K, V>,
    pub(super) window: Duration,
    pub(super) ttl: Option<Duration>,
    /// Never held while user code runs.
    pub(super) planner: Mutex<Planner<RuntimeId, GatheringFlight<K, V>>>,
}

type GatheredBatch<K, V> = async_cache_core::batch::Batch<RuntimeId, GatheringFlight<K, V>>;

/// A gathering flight, an item of the planner. If the item is dropped before its
/// batch leaves, the flight is abandoned.
pub(super) struct GatheringFlight<K, V> {
    key: K,
    ending: Ending<K, V>,
}

/// Keeps the place of the load in the room of a gathering flight.
struct Placeholder<K, V> {
    gatherer: Arc<Gatherer<K, V>>,
    /// `None` if its batch leaves at once.
    place: Option<ItemId>,
}

impl<K, V> Future for Placeholder<K, V> {
    type Output = Result<V, AnyError>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Pending
    }
}

impl<K, V> Drop for Placeholder<K, V> {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        // Dropped at the end, when the planner is not locked any more.
        let _item = self.gatherer.planner.lock().drop_item(place);
    }
}

/// How a call continues for a key that is not in memory.
pub(super) enum EnteredBatch<'a, K: 'static, V: 'static> {
    Hit(V),
    Waits(Waiting<'a, K, V>),
}

/// A caller that waits for a flight, of a batch or of a single load.
pub(super) struct Waiting<'a, K: 'static, V: 'static> {
    seat: Seat<'a, K, V>,
    leads: bool,
    /// The timer of the batch that began with this key.
    timer: Option<Timer<K, V>>,
    _wait: Wait,
}

impl<K, V> Gatherer<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Decides how a call continues for a key that is not in memory, and returns the caller's
    /// place.
    pub(super) fn enter<Q, E>(
        self: &Arc<Self>,
        hash: u64,
        key: &Q,
        joins: Joins,
        miss: &mut Miss,
    ) -> Result<EnteredBatch<'_, K, V>, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + Debug + ?Sized,
        E: 'static,
    {
        // User code may panic, so it runs before a flight exists.
        let owned = key.to_owned();
        let new_room = || Room::without_load(Brings::value_or_none_or::<E>());
        let (id, room, leads) = match self.inner.enter(hash, key, joins, miss, new_room) {
            Entered::Hit(value) => return Ok(EnteredBatch::Hit(value)),
            Entered::Joined(id, room) => (id, room, false),
            Entered::Leads(id, room) => (id, room, true),
        };
        let seat = Seat::new(&self.inner, hash, id, Arc::clone(&room));
        let mut timer = None;
        if leads {
            let inner = Arc::clone(&self.inner);
            let started = inner.clock.now();
            let flight = PilotedFlight {
                inner,
                hash,
                id,
                room,
                storing: Storing::all(self.ttl),
                started,
                remote: None,
            };
            let item = GatheringFlight { key: owned, ending: Ending { flight, duty: Duty::End } };
            let Some(runtime) = sync::runtime_id() else { return Err(LoadError::NoRuntime) };
            timer = self.gather(item, runtime);
        }
        let Ok(wait) = nesting::wait_for(seat.room.name) else {
            return Err(LoadError::Recursive { key: format!("{key:?}") });
        };
        Ok(EnteredBatch::Waits(Waiting { seat, leads, timer, _wait: wait }))
    }

    /// Puts a new flight into a batch. For the first flight of a batch, returns a timer, which the
    /// caller must start.
    fn gather(self: &Arc<Self>, mut item: GatheringFlight<K, V>, runtime: RuntimeId) -> Option<Timer<K, V>> {
        let room = Arc::clone(&item.ending.flight.room);
        let now = item.ending.flight.started;
        item.ending.duty = Duty::IfNotTaken;
        let added = {
            let mut planner = self.planner.lock();
            let added = planner.add(runtime, item, now);
            let place = match &added {
                Added::Begins { id, .. } | Added::Waits { id } => Some(*id),
                Added::Leaves(_) => None,
            };
            room.put(Box::pin(Placeholder { gatherer: Arc::clone(self), place }));
            added
        };
        match added {
            Added::Waits { .. } => None,
            Added::Begins { id, .. } => {
                Some(Timer { gatherer: Arc::downgrade(self), batch: id.batch(), window: self.window })
            }
            Added::Leaves(batch) => {
                if let Some(convoy) = self.leave(batch) {
                    // If the runtime is being shut down, it drops the task at once, and so abandons
                    // the flights.
                    drop(sync::spawn(convoy.load()));
                }
                None
            }
        }
    }

    /// Takes the placeholders of a batch, so that only the end of its load ends its flights (rule
    /// 1).
    /// `None` if every caller has left just now.
    fn leave(self: &Arc<Self>, batch: GatheredBatch<K, V>) -> Option<Convoy<K, V>> {
        let (name, started) = (nesting::new_name(), self.inner.clock.now());
        let (mut keys, mut flights) = (Vec::<K>::new(), Vec::new());
        let mut seen = HashSet::new();
        for GatheringFlight { key, mut ending } in batch.items {
            // Rule 1: if the placeholder is gone, the last caller has it, and ends the flight.
            let Some(placeholder) = ending.flight.room.stop() else { continue };
            ending.duty = Duty::End;
            drop_quietly(placeholder);
            ending.flight.started = started;
            let wait = nesting::waits_for(ending.flight.room.name, name).ok();
            ending.flight.remote = self.inner.asking(ending.flight.hash, &key);
            // Nearly always new: a key has a single flight, but a flight that was fenced while
            // gathering has a successor.
            let known = if seen.insert(ending.flight.hash) {
                None
            } else {
                keys.iter().position(|known| *known == key)
            };
            let at = known.unwrap_or(keys.len());
            if known.is_none() {
                keys.push(key);
            }
            flights.push(Some(BatchFlight { at, ending, wait }));
        }
        if keys.is_empty() {
            return None;
        }
        Some(Convoy { gatherer: Arc::clone(self), keys, load: None, flights, name, questions: None })
    }
}

impl<K, V> Waiting<'_, K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Starts the timer of the batch that began with this key. A caller of several keys adds all of
    /// them first.
    pub(super) fn set_off(&mut self) {
        if let Some(timer) = self.timer.take() {
            // If the runtime is being shut down, it drops the task at once, and so abandons the
            // flights.
            drop(sync::spawn(wait_for_others(timer)));
        }
    }

    /// Waits for the answer. `None`: the answer was not for this caller, and the caller must ask
    /// anew.
    pub(super) async fn outcome<E: Send + Sync + 'static>(
        mut self,
        key: &(impl Debug + ?Sized),
    ) -> Option<Result<Option<V>, LoadError<E>>> {
        self.set_off();
        let answer = self.seat.room.answer().await.clone();
        self.seat.give_up();
        match answer {
            Answer::Value(value) => Some(Ok(Some(value))),
            Answer::Missing => Some(Ok(None)),
            Answer::Failed(error) => match error.downcast::<E>() {
                Ok(error) => Some(Err(LoadError::Failed(error))),
                // The error of a loader with another error type, or this error:
                Err(other) => other
                    .downcast_ref()
                    .map(|&WrongCount { asked, returned }| Err(LoadError::WrongCount { asked, returned })),
            },
            Answer::Panicked(message) => {
                Some(Err(LoadError::Panicked { key: format!("{key:?}"), message: (*message).to_owned() }))
            }
            Answer::Abandoned if self.leads => Some(Err(LoadError::Abandoned { key: format!("{key:?}") })),
            Answer::Abandoned => None,
        }
    }
}

type DueBatch<K, V> = (Arc<Gatherer<K, V>>, GatheredBatch<K, V>);

/// Makes a batch leave when its window is over. If the timer is dropped before (by its runtime, or
/// because a caller of many keys panics before starting it), nothing else would make the batch
/// leave, so its flights are abandoned.
struct Timer<K, V> {
    gatherer: Weak<Gatherer<K, V>>,
    batch: BatchId,
    window: Duration,
}

impl<K, V> Timer<K, V> {
    /// Returns the batch, unless it has left or is gone.
    fn take(&self) -> Option<DueBatch<K, V>> {
        let gatherer = self.gatherer.upgrade()?;
        let batch = gatherer.planner.lock().take(self.batch)?;
        Some((gatherer, batch))
    }
}

impl<K, V> Drop for Timer<K, V> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

async fn wait_for_others<K, V>(timer: Timer<K, V>)
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    let mut refused = None;
    if timer.window.is_zero() {
        tokio::task::yield_now().await;
    } else {
        // `sleep` panics on a runtime without a timer; its message says how to enable the timer.
        match catch_unwind(|| tokio::time::sleep(timer.window)) {
            Ok(window) => window.await,
            Err(panic) => refused = Some(panic_message(&*panic)),
        }
    }
    let Some((gatherer, batch)) = timer.take() else { return };
    drop(timer);
    let Some(convoy) = gatherer.leave(batch) else { return };
    drop(gatherer);
    match refused {
        None => convoy.load().await,
        Some(message) => convoy.conclude(&Err(Answer::Panicked(message.into()))),
    }
}

/// A flight of a batch that has left.
pub(super) struct BatchFlight<K, V> {
    /// Its place among the keys.
    pub(super) at: usize,
    pub(super) ending: Ending<K, V>,
    /// In the graph of waits: for the load of its convoy.
    #[allow(dead_code, reason = "held for what happens when it is dropped")]
    wait: Option<Wait>,
}

impl<K, V> BatchFlight<K, V> {
    /// It waits for another load from now on.
    #[cfg(feature = "redis")]
    pub(super) fn waits_for(&mut self, name: u64) {
        drop(self.wait.take());
        self.wait = nesting::waits_for(self.ending.flight.room.name, name).ok();
    }
}

/// A batch that has left. If the convoy is dropped before its load ends, its flights are abandoned.
pub(super) struct Convoy<K, V> {
    pub(super) gatherer: Arc<Gatherer<K, V>>,
    pub(super) keys: Vec<K>,
    /// The loader is called at the first poll of the load. Dropped before the flights end (rule 7).
    pub(super) load: Option<Loading<V>>,
    /// `None` where a flight has ended, or has left for another convoy.
    pub(super) flights: Vec<Option<BatchFlight<K, V>>>,
    /// Names the load in the graph of waits.
    pub(super) name: u64,
    /// The questions to the tier beyond one host, with the places of their flights.
    #[cfg_attr(not(feature = "redis"), allow(dead_code))]
    pub(super) questions: Option<Questions>,
}

impl<K, V> Convoy<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) async fn load(mut self) {
        #[cfg(feature = "redis")]
        self.ask_first().await;
        // The places of the keys that are loaded, among these.
        let mut places: Vec<_> = self.flights.iter().flatten().map(|flight| flight.at).collect();
        places.sort_unstable();
        places.dedup();
        if places.is_empty() {
            return;
        }
        self.gatherer.inner.shards()[0].write().shard.count_batch(places.len());
        let keys = places.iter().map(|&at| self.keys[at].clone()).collect();
        for flight in self.flights.iter_mut().flatten() {
            flight.at = places.binary_search(&flight.at).expect("it is the place of a flight");
        }
        self.load = Some((self.gatherer.loader)(keys));
        let load = &mut self.load;
        let polled = poll_fn(|cx| {
            let load = load.as_mut().expect("it is there until it has ended");
            catch_unwind(AssertUnwindSafe(|| load.as_mut().poll(cx)))
                .unwrap_or_else(|panic| Poll::Ready(Err(Answer::Panicked(panic_message(&*panic).into()))))
        });
        let outcome = nesting::within(self.name, polled).await;
        self.conclude(&outcome);
    }

    fn conclude(mut self, outcome: &Result<Vec<Answer<V>>, Answer<V>>) {
        drop_quietly(self.load.take());
        for BatchFlight { at, ending, .. } in self.flights.iter_mut().flatten() {
            let answer = match outcome {
                Ok(answers) => catch_unwind(AssertUnwindSafe(|| answers[*at].clone()))
                    .unwrap_or_else(|panic| Answer::Panicked(panic_message(&*panic).into())),
                Err(answer) => answer.clone(),
            };
            ending.conclude(answer);
        }
    }
}

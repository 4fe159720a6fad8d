//! The waiting room of a flight: the running load, its answer, and the bell.
//!
//! Owns the load while it runs, so that the last caller to leave can stop the load at once, on its
//! own thread, in any state of the runtime that drives the load. Knows nothing of keys and shards.
//!
//! Rules:
//! 1. `held` is locked for the length of a poll, or to take the load out and drop it. No thread
//!    waits for this lock: a leaver tries the lock, and if the load is being polled, sets `stop`
//!    instead.
//! 2. The pilot (the task that polls) checks `stop` after every poll, with the lock released. So
//!    either the leaver gets the lock, or the pilot sees the flag.
//! 3. The party that takes the load out of its place drops the load and then ends the flight. So a
//!    flight is not over before its load is gone, and is ended once.
//! 4. `answer` is set once, before the bell rings. A waiting caller first registers with the bell,
//!    then checks the answer ([`bell`]).
//! 5. The pilot leaves its waker beside the load after each poll. A leaver that takes the load
//!    wakes the pilot, which then finds no load and ends.

mod bell;

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use crate::error::panic_message;
use crate::nesting;
use crate::sync::{AtomicBool, Mutex, OnceLock};
use bell::Bell;

/// An error of a loader, of any type.
pub(crate) type AnyError = Arc<dyn Any + Send + Sync>;

/// A load whose types of future and error are forgotten.
pub(crate) type Load<V> = Pin<Box<dyn Future<Output = Result<V, AnyError>> + Send>>;

/// The outcome of a load.
#[derive(Clone)]
pub(crate) enum Answer<V> {
    Value(V),
    Failed(AnyError),
    Panicked(Arc<str>),
    /// A batch loader had no value. A caller with its own loader loads anew.
    Missing,
    /// The load was stopped, or its runtime was shut down. Waiting callers load anew.
    Abandoned,
}

/// How a load came off the pilot's hands.
pub(crate) enum Flown<V> {
    /// The load is dropped, with this outcome. The pilot ends the flight.
    Ended(Answer<V>),
    /// A leaver took the load, and ends the flight after dropping the load.
    Taken,
}

/// The possible outcomes of a load besides a value. They decide which callers can use every
/// outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Brings {
    /// The type of the loader's errors.
    pub(crate) error: TypeId,
    /// Whether [`Answer::Missing`] is possible.
    pub(crate) may_lack: bool,
}

impl Brings {
    /// A load by a loader of a single key.
    pub(crate) fn value_or<E: 'static>() -> Self {
        Self { error: TypeId::of::<E>(), may_lack: false }
    }

    /// A load by a batch loader.
    pub(crate) fn value_or_none_or<E: 'static>() -> Self {
        Self { may_lack: true, ..Self::value_or::<E>() }
    }
}

pub(crate) struct Room<V> {
    /// The name of the flight in the graph of loads that wait for loads.
    pub(crate) name: u64,
    pub(crate) brings: Brings,
    held: Mutex<Held<V>>,
    /// Set by a leaver: probably no caller waits any more. Read by the pilot.
    stop: AtomicBool,
    answer: OnceLock<Answer<V>>,
    bell: Bell,
}

/// The load, and the pilot that polls it.
struct Held<V> {
    load: Option<Load<V>>,
    /// `None` before the first poll, and for a load of a batch, which no pilot polls.
    pilot: Option<Waker>,
}

impl<V> std::fmt::Debug for Room<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<V> Room<V> {
    pub(crate) fn new(load: Load<V>, brings: Brings) -> Arc<Self> {
        Self::with(Some(load), brings)
    }

    /// A room whose load is put there by [`Room::put`], before anybody could leave.
    pub(crate) fn without_load(brings: Brings) -> Arc<Self> {
        Self::with(None, brings)
    }

    fn with(load: Option<Load<V>>, brings: Brings) -> Arc<Self> {
        Arc::new(Self {
            name: nesting::new_name(),
            brings,
            held: Mutex::new(Held { load, pilot: None }),
            stop: AtomicBool::new(false),
            answer: OnceLock::new(),
            bell: Bell::new(),
        })
    }

    // Callers

    /// Waits for the answer. Cancel safe.
    pub(crate) async fn answer(&self) -> &Answer<V> {
        let mut waiter = self.bell.waiter();
        poll_fn(|cx| {
            if self.answer.get().is_none() {
                waiter.leave(cx.waker()); // Rule 4
            }
            self.answer.get().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Gives the answer to all callers. The first answer counts.
    pub(crate) fn tell(&self, answer: Answer<V>) {
        // A second answer is dropped here, where no lock is held.
        drop(self.answer.set(answer));
        self.bell.ring(); // Rule 4
    }

    // The load

    /// Puts a load into a room made without a load.
    pub(crate) fn put(&self, load: Load<V>) {
        self.held.lock().load = Some(load);
    }

    /// Takes the load out, unless it is being polled; in that case the pilot takes it after the
    /// poll, if `forsaken` still holds. The caller must drop the returned load.
    #[must_use = "drop it with `drop_quietly`, where no lock is held"]
    pub(crate) fn stop(&self) -> Option<Load<V>> {
        self.stop.store(true, Ordering::SeqCst);
        let mut held = self.held.try_lock()?;
        let load = held.load.take()?;
        let pilot = held.pilot.take();
        drop(held);
        // Rule 5. A pilot that has not polled yet is going to.
        pilot.into_iter().for_each(Waker::wake);
        Some(load)
    }

    /// Polls the load, as the pilot. `forsaken` says whether really nobody waits.
    pub(crate) fn poll(&self, cx: &mut Context<'_>, forsaken: impl Fn() -> bool) -> Poll<Flown<V>> {
        let mut held = self.held.lock();
        let Some(load) = held.load.as_mut() else { return Poll::Ready(Flown::Taken) };
        match catch_unwind(AssertUnwindSafe(|| load.as_mut().poll(cx))) {
            Ok(Poll::Pending) => {
                if !held.pilot.as_ref().is_some_and(|pilot| pilot.will_wake(cx.waker())) {
                    held.pilot = Some(cx.waker().clone()); // Rule 5
                }
            }
            Ok(Poll::Ready(result)) => {
                let done = held.load.take();
                drop(held);
                drop_quietly(done);
                return Poll::Ready(Flown::Ended(result.map_or_else(Answer::Failed, Answer::Value)));
            }
            Err(panic) => {
                let broken = held.load.take();
                drop(held);
                drop_quietly(broken);
                return Poll::Ready(Flown::Ended(Answer::Panicked(panic_message(&*panic).into())));
            }
        }
        drop(held);
        while self.stop.swap(false, Ordering::SeqCst) {
            if forsaken() {
                // Rule 1: if the lock is taken, a leaver holds it and takes the load.
                let Some(load) = self.held.try_lock().and_then(|mut held| held.load.take()) else {
                    return Poll::Ready(Flown::Taken);
                };
                drop_quietly(load);
                return Poll::Ready(Flown::Ended(Answer::Abandoned));
            }
        }
        Poll::Pending
    }
}

/// Runs `work`, which drops a load. If this thread is already dropping a load, `work` runs after
/// that drop. Loads may wait for loads in a long chain, and dropping the first drops the caller of
/// the second, and so on: in sequence, they need no more stack than a single drop.
pub(crate) fn one_after_another(work: impl FnOnce() + 'static) {
    type Queue = Vec<Box<dyn FnOnce()>>;
    thread_local! {
        /// `Some` while this thread drops loads.
        static QUEUE: RefCell<Option<Queue>> = const { RefCell::new(None) };
    }
    // The model checker runs all its threads on a single thread, and they must not drop each
    // other's loads.
    let queue = |work: Box<dyn FnOnce()>| match QUEUE.try_with(|queue| queue.borrow().is_some()) {
        _ if cfg!(shuttle) => Some(work),
        // A thread that is ending has no queue any more.
        Err(_) => Some(work),
        Ok(is_dropping) => {
            QUEUE.with_borrow_mut(|queue| queue.get_or_insert_default().push(work));
            if is_dropping { None } else { QUEUE.with_borrow_mut(|queue| queue.as_mut().and_then(Vec::pop)) }
        }
    };
    let mut next = queue(Box::new(work));
    while let Some(work) = next {
        // The keys and values inside are the user's, too, and may panic when they are dropped.
        drop(catch_unwind(AssertUnwindSafe(work)));
        next = QUEUE.try_with(|queue| queue.borrow_mut().as_mut().and_then(Vec::pop)).ok().flatten();
        if next.is_none() {
            // The first drop of this thread is done, and so are all that were queued meanwhile.
            let _ = QUEUE.try_with(RefCell::take);
        }
    }
}

/// Drops a load of any type. A panic in its destructor must not keep the callers from their answer,
/// nor meet another panic on its way.
pub(crate) fn drop_quietly<L>(load: L) {
    drop(catch_unwind(AssertUnwindSafe(|| drop(load))));
}

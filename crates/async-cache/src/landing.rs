//! The end of a load with a value: memory, the journal, and the tier beyond one host get the value,
//! and the callers the answer.
//!
//! Rules:
//! 1. user code that encodes runs before the shard is locked;
//! 2. the tier gets the value under the lock of the shard, in the step that ends the flight, and
//!    says then whether memory may keep the value;
//! 3. a value that is not stored is dropped after the lock is released.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use async_cache_core::address::Address;
use async_cache_core::entry::{Fetched, Meta, ValueSource};
use async_cache_core::shard::FinishedLoad;
use async_cache_core::time::{Deadline, Now, Time};
use async_cache_tier::Memory;
use async_cache_tier::journal::Journal;

use crate::inner::{Core, Inner};
use crate::load::PilotedFlight;
use crate::remote::Plan;
use crate::room::{Answer, Room};

impl<K: Hash + Eq, V: Clone> Inner<K, V> {
    /// Ends the flight with a value: `stored` is stored, `value` is for the callers.
    pub(crate) fn land(&self, flight: &PilotedFlight<K, V>, value: V, stored: V) {
        let now = self.now();
        let keeps = (flight.storing.keeps)(&value);
        let deadline = if keeps {
            flight.storing.ttl.map_or(Deadline::NEVER, |ttl| Deadline::after(now.time, ttl))
        } else {
            // A value that is not kept has expired already.
            Deadline::after(now.time, Duration::ZERO)
        };
        let mut beyond = Beyond::of(self, flight, &value, keeps, deadline, now.time);
        let deadline = beyond.deadline(deadline);
        let took = now.time.since(flight.started);
        if let Some(journal) = self.tier.journal() {
            self.land_in_journal(journal, flight, stored, (deadline, took, now), &mut beyond);
            return flight.room.tell(Answer::Value(value));
        }
        let mut fetched = Some(Fetched::loaded(stored, deadline));
        let at_once = {
            let mut tiered = self.shard(flight.hash).write();
            let at = tiered.shard.address_of_flight(flight.id, flight.hash);
            at.ok().map(|at| land_at(&mut tiered.shard, flight, at, &mut fetched, &mut beyond, (took, now)))
        };
        let finished = match at_once {
            Some(finished) => finished,
            None => self.land_anew(flight, &mut fetched, &mut beyond, (took, now)),
        };
        flight.room.tell(Answer::Value(value));
        drop((finished, fetched));
    }

    /// Stores the value of a load in memory and in the journal.
    fn land_in_journal(
        &self,
        journal: &Journal,
        flight: &PilotedFlight<K, V>,
        value: V,
        (deadline, took, now): (Deadline, Duration, Now),
        beyond: &mut Beyond,
    ) {
        let key = {
            let tiered = self.shard(flight.hash).read();
            let key = tiered.shard.flights().key(flight.id);
            key.and_then(|key| self.file_host()?.copy_key(key))
        };
        let encoded = key.as_ref().zip(self.file_host()).and_then(|(key, host)| {
            // Encoding has no error that ends an operation in this front.
            Some((journal.encode(&host, key, &value, deadline).ok()?, host))
        });
        let Some((write, host)) = encoded else {
            // The load has ended, or its key cannot be copied.
            let ended = self.shard(flight.hash).write().shard.finish_without_storing(flight.id, took);
            return drop(ended);
        };
        let mut value = Some(value);
        let finished = {
            let mut tiered = self.shard(flight.hash).write();
            match tiered.shard.address_of_flight(flight.id, flight.hash) {
                Ok(at) if beyond.lands(flight) => {
                    let ids = (flight.id, &at);
                    let Meta { stamp, .. } = journal.append_load(write, &tiered.shard, ids, deadline, now);
                    let value = value.take().expect("it is stored once");
                    let fetched = Fetched { value, deadline, stamp, from: ValueSource::Tier };
                    tiered.shard.land(flight.id, at, fetched, took, now).map(Ok)
                }
                Ok(_) => tiered.shard.finish_without_storing(flight.id, took).map(Err),
                Err(_) => None,
            }
        };
        if let Some(Ok(finished)) = &finished {
            journal.after_write(&host, &finished.removed);
        }
        drop((finished, value));
    }

    /// Another snapshot was opened since the load began: it is asked for the key before the value
    /// is stored.
    #[cold]
    fn land_anew(
        &self,
        flight: &PilotedFlight<K, V>,
        fetched: &mut Option<Fetched<V>>,
        beyond: &mut Beyond,
        (took, now): (Duration, Now),
    ) -> Option<Landed<K, V>> {
        loop {
            let key = {
                let tiered = self.shard(flight.hash).read();
                let key = tiered.shard.flights().key(flight.id);
                key.and_then(|key| self.file_host()?.copy_key(key))
            };
            let Some(key) = key else {
                // It has ended, or its key cannot be copied, so there is no telling which record is
                // its.
                let ended = self.shard(flight.hash).write().shard.finish_without_storing(flight.id, took);
                return ended.map(Err);
            };
            let probed = self.probe(flight.hash, &key);
            let landed = self.write(
                flight.hash,
                |known| *known == key,
                probed,
                |shard, at| land_at(shard, flight, at, fetched, beyond, (took, now)),
            );
            if let Some(landed) = landed {
                return landed;
            }
        }
    }
}

/// Stores the value of a load at an address, if the tier beyond one host allows it. Under the lock
/// of the shard. A value that is not stored stays in `fetched`.
fn land_at<K, V>(
    shard: &mut Core<K, V>,
    flight: &PilotedFlight<K, V>,
    at: Address,
    fetched: &mut Option<Fetched<V>>,
    beyond: &mut Beyond,
    (took, now): (Duration, Now),
) -> Option<Landed<K, V>> {
    if !beyond.lands(flight) {
        return shard.finish_without_storing(flight.id, took).map(Err);
    }
    let fetched = fetched.take().expect("it is there until it is stored");
    shard.land(flight.id, at, fetched, took, now).map(Ok)
}

/// What the tier beyond one host has to do with the value of a load.
struct Beyond(Option<Plan>);

impl Beyond {
    /// Runs the user's code, if there is such a tier: with nothing locked.
    fn of<K, V>(
        inner: &Inner<K, V>,
        flight: &PilotedFlight<K, V>,
        value: &V,
        keeps: bool,
        deadline: Deadline,
        now: Time,
    ) -> Self {
        let asks = flight.remote.as_ref().zip(inner.remote.as_ref());
        Self(
            asks.map(|(asks, tier)| {
                asks.plan(tier.codec(), value, (keeps, flight.storing.ttl), deadline, now)
            }),
        )
    }

    fn deadline(&self, deadline: Deadline) -> Deadline {
        self.0.as_ref().map_or(deadline, |plan| plan.deadline)
    }

    /// Stores the value in the tier, and says whether memory may. Under the lock of the shard.
    fn lands<K, V>(&mut self, flight: &PilotedFlight<K, V>) -> bool {
        match (&mut self.0, &flight.remote) {
            (Some(plan), Some(asks)) => asks.land(plan),
            _ => true,
        }
    }
}

/// How a load ended that returned a value, to be dropped with nothing locked; `Err` if its value
/// was not stored.
type Landed<K, V> = Result<FinishedLoad<K, V, Arc<Room<V>>>, (K, Arc<Room<V>>)>;

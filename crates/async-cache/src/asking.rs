//! Loads that ask the tier beyond one host first, and keys that are looked up there.

use std::borrow::Borrow;
use std::convert::Infallible;
use std::hash::Hash;
use std::sync::Arc;

use async_cache_core::remote::{Answer, Want};

use crate::inner::Inner;
use crate::load::{Duty, Ending, Entered, Joins, Miss, PilotedFlight, Seat, Storing};
use crate::nesting;
use crate::remote::RemoteLoad;
use crate::room::{self, Brings, Load, Room};

impl<K, V> Inner<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// The parts of a load that asks the tier before it loads. `None`: there is no tier, or it
    /// cannot have the key.
    pub(crate) fn asking(self: &Arc<Self>, hash: u64, key: &K) -> Option<Arc<RemoteLoad>> {
        self.remote.as_ref()?.asking(hash, key)
    }

    /// A load that asks the tier first.
    pub(crate) fn asks_first(self: &Arc<Self>, asks: &Arc<RemoteLoad>, key: K, load: Load<V>) -> Load<V> {
        let (inner, asks) = (Arc::clone(self), Arc::clone(asks));
        Box::pin(async move {
            if let Some(tier) = &inner.remote
                && let Some(question) = tier.ask(&[&asks], Want::Load).pop()
            {
                let answer = tier.awaited(question).await;
                if let Some(value) = inner.answered(&asks, &key, answer) {
                    return Ok(value);
                }
            }
            load.await
        })
    }

    /// The value of an answer; `None`: the loader has to run.
    pub(crate) fn answered(&self, asks: &RemoteLoad, key: &K, answer: Answer) -> Option<V> {
        match answer {
            Answer::Value { bytes, until } => {
                let value = self.remote.as_ref()?.decoded(asks, &bytes, until);
                if value.is_none() {
                    self.tier.count_undecodable();
                } else {
                    self.shard(asks.hash()).write().shard.count_remote_hit();
                }
                value
            }
            Answer::Alone => {
                let value = self.suspect(asks.hash(), key)?;
                asks.is_suspect();
                self.shard(asks.hash()).write().shard.count_no_load();
                Some(value)
            }
            Answer::Lead | Answer::Absent => None,
        }
    }

    /// The values of keys from memory, the backup or the tier, in their order.
    pub(crate) async fn fetch_many<Q>(self: &Arc<Self>, keys: Vec<&Q>) -> Vec<Option<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + Sync + ?Sized,
    {
        let mut values: Vec<Option<V>> = keys.iter().map(|_| None).collect();
        let (mut led, mut joined) = (Vec::new(), Vec::new());
        for (at, key) in keys.into_iter().enumerate() {
            let hash = self.hash(key);
            let under = match self.hot(hash, |known| known.borrow() == key) {
                Ok(value) => {
                    values[at] = Some(value);
                    continue;
                }
                Err(under) => under,
            };
            let mut miss = Miss::under(under);
            if let Some(value) = self.read_journal(hash, key, &mut miss).await {
                values[at] = Some(value);
                continue;
            }
            let new_room = || Room::without_load(Brings::value_or_none_or::<Infallible>());
            match self.enter(hash, key, Joins::Any, &mut miss, new_room) {
                Entered::Hit(value) => values[at] = Some(value),
                Entered::Joined(id, room) => joined.push((at, Seat::new(self, hash, id, room))),
                Entered::Leads(id, room) => {
                    let seat = Seat::new(self, hash, id, Arc::clone(&room));
                    let key = key.to_owned();
                    let remote = self.asking(hash, &key);
                    let (inner, started) = (Arc::clone(self), self.clock.now());
                    let storing = Storing::all(self.default_ttl);
                    let flight = PilotedFlight { inner, hash, id, room, storing, started, remote };
                    led.push((at, key, seat, Ending { flight, duty: Duty::End }));
                }
            }
        }
        let asks: Vec<_> = led.iter().filter_map(|(.., ending)| ending.flight.remote.as_ref()).collect();
        let tier = self.remote.as_ref();
        let mut questions = tier.map_or_else(Vec::new, |tier| tier.ask(&asks, Want::Look)).into_iter();
        for (at, key, seat, mut ending) in led {
            if let (Some(tier), Some(asks)) = (tier, ending.flight.remote.clone())
                && let Some(question) = questions.next()
            {
                let answer = tier.awaited(question).await;
                values[at] = self.answered(&asks, &key, answer);
            }
            if values[at].is_none() {
                self.shard(seat.hash).write().shard.count_no_load();
            }
            let found = values[at].clone().map_or(room::Answer::Missing, room::Answer::Value);
            ending.conclude(found);
            seat.give_up();
        }
        for (at, seat) in joined {
            // The loader of a key fetches the same key: waiting would never end.
            let Ok(_wait) = nesting::wait_for(seat.room.name) else { continue };
            if let room::Answer::Value(value) = seat.room.answer().await {
                values[at] = Some(value.clone());
            }
            seat.give_up();
        }
        values
    }
}

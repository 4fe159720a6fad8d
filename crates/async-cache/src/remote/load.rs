//! The part of a load that asks the tier beyond one host.
//!
//! A load asks when it is polled first: then its flight is known to the shard, so that a change of
//! its key can fence it. What it asked is ended in the step that stores its value, or at the latest
//! when the last owner of the [`RemoteLoad`] drops it: the load and its flight.

use std::borrow::Borrow;
use std::convert::Infallible;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use async_cache_core::remote::port::{Content, Name};
use async_cache_core::remote::{Answer, AskId, Landing, Want};
use async_cache_core::time::{Deadline, Time};
use async_cache_redis::body::Body;
use async_cache_tier::remote::Asked;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Shared, cut, driver, is_as_expected};
use crate::backup::codec::Codec;
use crate::inner::Inner;
use crate::load::{Duty, Ending, Entered, Joins, Miss, PilotedFlight, Seat, Storing};
use crate::room::{self, Brings, Load, Room};

/// What a load has asked, and where its value comes from.
pub(crate) struct RemoteLoad {
    shared: Arc<Shared>,
    name: Name,
    canonical: Vec<u8>,
    hash: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    ask: Option<AskId>,
    source: Source,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// The caller's loader.
    Loader,
    /// The tier, which keeps it until then.
    Tier(Deadline),
    /// An entry that may be out of date; it is not stored again.
    Suspect,
}

/// A question that was asked.
#[derive(Debug)]
pub(crate) enum Question {
    Answered(Answer),
    Waits(oneshot::Receiver<Answer>),
}

/// How the value of a load is going to be stored.
pub(crate) struct Plan {
    /// Until when memory may keep it.
    pub(crate) deadline: Deadline,
    /// What the tier stores.
    content: Option<Content>,
    life: Option<Duration>,
    expected: Landing,
}

impl Debug for RemoteLoad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteLoad").finish_non_exhaustive()
    }
}

impl Drop for RemoteLoad {
    fn drop(&mut self) {
        if let Some(ask) = self.state.get_mut().ask.take() {
            self.shared.remote.end(ask, Shared::now());
            self.shared.look.notify_one();
        }
    }
}

impl RemoteLoad {
    /// Says how the value will be stored. Runs the user's code: with nothing locked. `keeps`:
    /// whether it is stored at all.
    pub(crate) fn plan<K, V>(
        &self,
        codec: &Codec<K, V>,
        value: &V,
        (keeps, ttl): (bool, Option<Duration>),
        deadline: Deadline,
        now: Time,
    ) -> Plan {
        let (ask, source) = {
            let state = self.state.lock();
            (state.ask, state.source)
        };
        let expected = ask.map_or(Landing::Nothing, |ask| self.shared.remote.expects(ask));
        let deadline = match source {
            Source::Tier(until) => Shared::deadline(until, now),
            Source::Loader | Source::Suspect => deadline,
        };
        let stores = matches!(source, Source::Loader) && keeps && ttl.is_none_or(|ttl| !ttl.is_zero());
        let content = stores.then(|| super::content(codec, &self.name, &self.canonical, value));
        let expected = match source {
            Source::Suspect => Landing::Nothing,
            Source::Tier(_) | Source::Loader => expected,
        };
        Plan { deadline: cut(deadline, expected, now), content, life: ttl, expected }
    }

    /// Stores the value in the tier, and says whether memory may store it as planned. Under the lock
    /// of the key's shard, in the step that ends the flight.
    pub(crate) fn land(&self, plan: &mut Plan) -> bool {
        let mut state = self.state.lock();
        let Some(ask) = state.ask.take() else { return false };
        let (remote, now) = (&self.shared.remote, Shared::now());
        let landing = match (state.source, plan.content.take()) {
            (Source::Loader, Some(content)) => remote.land(ask, content, plan.life, now),
            (Source::Tier(_), _) => remote.take(ask, now),
            (Source::Loader, None) => {
                let landing = remote.expects(ask);
                remote.end(ask, now);
                landing
            }
            (Source::Suspect, _) => {
                remote.end(ask, now);
                Landing::Nothing
            }
        };
        self.shared.look.notify_one();
        is_as_expected(plan.expected, landing)
    }
}

impl<K, V> Inner<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// The parts of a load that asks the tier before it loads. `None`: there is no tier, or it
    /// cannot have the key.
    pub(crate) fn asking(self: &Arc<Self>, hash: u64, key: &K) -> Option<Arc<RemoteLoad>> {
        let tier = self.remote.as_ref()?;
        let (name, canonical) = tier.name(key)?;
        let state = Mutex::new(State { ask: None, source: Source::Loader });
        Some(Arc::new(RemoteLoad { shared: Arc::clone(&tier.shared), name, canonical, hash, state }))
    }

    /// A load that asks the tier first.
    pub(crate) fn asks_first(self: &Arc<Self>, asks: &Arc<RemoteLoad>, key: K, load: Load<V>) -> Load<V> {
        let (inner, asks) = (Arc::clone(self), Arc::clone(asks));
        Box::pin(async move {
            let question = inner.ask(&[&asks], Want::Load).pop();
            let answer = match question {
                Some(question) => inner.awaited(question).await,
                None => Answer::Alone,
            };
            match inner.answered(&asks, &key, answer) {
                Some(value) => Ok(value),
                None => load.await,
            }
        })
    }

    /// The value of an answer; `None`: the loader has to run.
    pub(crate) fn answered(&self, asks: &RemoteLoad, key: &K, answer: Answer) -> Option<V> {
        match answer {
            Answer::Value { bytes, until } => self.decoded(asks, &bytes, until),
            Answer::Alone => {
                let value = self.suspect(asks.hash, key)?;
                asks.state.lock().source = Source::Suspect;
                Some(value)
            }
            Answer::Lead | Answer::Absent => None,
        }
    }

    /// Asks the tier about keys, with one read.
    pub(crate) fn ask(&self, asks: &[&Arc<RemoteLoad>], want: Want) -> Vec<Question> {
        let Some(tier) = &self.remote else { return Vec::new() };
        let mut receivers = Vec::new();
        let waiter = || {
            let (sender, receiver) = oneshot::channel();
            receivers.push(receiver);
            sender
        };
        let names: Vec<_> = asks.iter().map(|asks| (asks.name.clone(), asks.hash)).collect();
        let asked = tier.shared.remote.ask(&names, want, Shared::now(), waiter);
        tier.look();
        let mut receivers = receivers.into_iter();
        let questions = asks.iter().zip(asked).map(|(asks, asked)| {
            let (id, question) = match asked {
                Asked::Answered(id, answer) => (id, Some(Question::Answered(answer))),
                Asked::Waits(id) => (id, receivers.next().map(Question::Waits)),
            };
            asks.state.lock().ask = Some(id);
            question.unwrap_or(Question::Answered(Answer::Alone))
        });
        questions.collect()
    }

    /// Waits for an answer, and takes the task over if it stands still.
    pub(crate) async fn awaited(&self, question: Question) -> Answer {
        let (tier, mut receiver) = match (&self.remote, question) {
            (_, Question::Answered(answer)) => return answer,
            (None, _) => return Answer::Alone,
            (Some(tier), Question::Waits(receiver)) => (tier, receiver),
        };
        let patience = tier.shared.redis.settings.timeout * 2;
        loop {
            match tokio::time::timeout(patience, &mut receiver).await {
                Ok(answer) => return answer.unwrap_or(Answer::Alone),
                Err(_) => driver::take_over_if_still(tier, patience),
            }
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
        let mut questions = self.ask(&asks, Want::Look).into_iter();
        for (at, key, seat, mut ending) in led {
            if let Some(asks) = ending.flight.remote.clone()
                && let Some(question) = questions.next()
            {
                let answer = self.awaited(question).await;
                values[at] = self.answered(&asks, &key, answer);
            }
            let found = values[at].clone().map_or(room::Answer::Missing, room::Answer::Value);
            ending.conclude(found);
            seat.give_up();
        }
        for (at, seat) in joined {
            if let room::Answer::Value(value) = seat.room.answer().await {
                values[at] = Some(value.clone());
            }
            seat.give_up();
        }
        values
    }

    /// A value of the tier; `None` if it does not decode into the type of the values.
    fn decoded(&self, asks: &RemoteLoad, bytes: &[u8], until: Deadline) -> Option<V> {
        let tier = self.remote.as_ref()?;
        let decoded = Body::parse(bytes).and_then(|body| (tier.codec.decode_value)(body.payload).ok());
        match decoded {
            Some(value) => {
                asks.state.lock().source = Source::Tier(until);
                Some(value)
            }
            None => {
                self.tier.count_undecodable();
                None
            }
        }
    }
}

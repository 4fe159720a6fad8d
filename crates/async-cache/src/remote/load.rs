//! The questions of loads to the tier beyond one host.
//!
//! A load asks at its first poll: the shard knows the flight by then, so a change of the key can
//! fence the flight. A question ends in the step that stores the value, or at the latest when the
//! load and the flight drop the [`RemoteLoad`].

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_cache_core::remote::port::{Content, Name};
use async_cache_core::remote::{Answer, AskId, Landing, Want};
use async_cache_core::time::{Deadline, Time};
use async_cache_redis::body::Body;
use async_cache_tier::remote::Asked;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{RemoteTier, Shared, cut, driver, is_as_expected};
use crate::backup::codec::Codec;

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

type PlacedAnswer = Pin<Box<dyn Future<Output = (usize, Answer)> + Send>>;

/// Questions, each with a place, whose answers come in any order.
#[derive(Default)]
pub(crate) struct Questions {
    waiting: FuturesUnordered<PlacedAnswer>,
    open: BTreeSet<usize>,
}

impl Questions {
    pub(crate) fn with(
        mut self,
        place: usize,
        answer: impl Future<Output = Answer> + Send + 'static,
    ) -> Self {
        self.waiting.push(Box::pin(async move { (place, answer.await) }));
        self.open.insert(place);
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The places without an answer.
    pub(crate) fn open(&self) -> &BTreeSet<usize> {
        &self.open
    }

    /// The next answer, with its place. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<(usize, Answer)> {
        let answered = self.waiting.next().await;
        if let Some((place, _)) = &answered {
            self.open.remove(place);
        }
        answered
    }
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
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// Its value may be out of date, and is not stored again.
    pub(crate) fn is_suspect(&self) {
        self.state.lock().source = Source::Suspect;
    }

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

    /// Stores the value in the tier, and says whether memory may store it as planned. Under the
    /// lock of the key's shard, in the step that ends the flight.
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

impl<K, V> RemoteTier<K, V> {
    /// The parts of a load that asks the tier before it loads. `None`: the tier cannot have the
    /// key.
    pub(crate) fn asking(&self, hash: u64, key: &K) -> Option<Arc<RemoteLoad>> {
        let (name, canonical) = self.name(key)?;
        let state = Mutex::new(State { ask: None, source: Source::Loader });
        Some(Arc::new(RemoteLoad { shared: Arc::clone(&self.shared), name, canonical, hash, state }))
    }

    /// Asks the tier about keys, with one read.
    pub(crate) fn ask(&self, asks: &[&Arc<RemoteLoad>], want: Want) -> Vec<Question> {
        let mut receivers = Vec::new();
        let waiter = || {
            let (sender, receiver) = oneshot::channel();
            receivers.push(receiver);
            sender
        };
        let names: Vec<_> = asks.iter().map(|asks| (asks.name.clone(), asks.hash)).collect();
        let asked = self.shared.remote.ask(&names, want, Shared::now(), waiter);
        self.look();
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
        let mut receiver = match question {
            Question::Answered(answer) => return answer,
            Question::Waits(receiver) => receiver,
        };
        let patience = self.shared.redis.settings.timeout * 2;
        // A task that has nothing to do runs seldom. It is called before it is judged.
        let mut called_at = None;
        loop {
            if let Ok(answer) = tokio::time::timeout(patience, &mut receiver).await {
                return answer.unwrap_or(Answer::Alone);
            }
            if let Some(called_at) = called_at.take() {
                driver::take_over_if_still(self, called_at);
            } else {
                called_at = Some(self.shared.ran_at.load(Ordering::Relaxed));
                self.look();
            }
        }
    }

    /// A value of the tier; `None` if it does not decode into the type of the values.
    pub(crate) fn decoded(&self, asks: &RemoteLoad, bytes: &[u8], until: Deadline) -> Option<V> {
        let value = Body::parse(bytes).and_then(|body| (self.codec.decode_value)(body.payload).ok())?;
        asks.state.lock().source = Source::Tier(until);
        Some(value)
    }
}

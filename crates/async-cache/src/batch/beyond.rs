//! Batches that ask the tier beyond one host first.
//!
//! One read asks about all keys of a batch. A key with a value is answered at once. The loader runs
//! once for the keys that this process may load, as soon as the tier has answered about them. A key
//! that another process loads does not hold them up: it goes on in a convoy of its own, and is
//! loaded there if the other process does not bring its value.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use async_cache_core::remote::Want;
use tokio::time::timeout;

use super::gather::Convoy;
use crate::nesting;
use crate::remote::Questions;
use crate::room::Answer;
use crate::sync;

/// The answers to one read arrive together. Whoever has no answer so long after another key may be
/// loaded waits for another process.
const TOGETHER: Duration = Duration::from_millis(2);

impl<K, V> Convoy<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Asks the tier, and ends the flights that it answers. Afterwards the convoy has the flights
    /// that have to be loaded.
    pub(super) async fn ask_first(&mut self) {
        let inner = Arc::clone(&self.gatherer.inner);
        if inner.remote.is_none() {
            return;
        }
        let mut questions = self.questions.take().unwrap_or_else(|| self.ask());
        let mut loads = false;
        while !questions.is_empty() {
            let next = questions.next();
            let answered = if loads { timeout(TOGETHER, next).await.unwrap_or(None) } else { next.await };
            let Some((place, answer)) = answered else { break };
            let Some(flight) = self.flights.get_mut(place).and_then(Option::as_mut) else { continue };
            let Some(asks) = flight.ending.flight.remote.clone() else { continue };
            match inner.answered(&asks, &self.keys[flight.at], answer) {
                Some(value) => {
                    flight.ending.conclude(Answer::Value(value));
                    self.flights[place] = None;
                }
                None => loads = true,
            }
        }
        if !questions.is_empty() {
            self.leave_behind(questions);
        }
    }

    fn ask(&self) -> Questions {
        let asked = self.flights.iter().enumerate().filter_map(|(place, flight)| {
            let asks = flight.as_ref()?.ending.flight.remote.clone()?;
            Some((place, asks))
        });
        let (places, asks): (Vec<_>, Vec<_>) = asked.unzip();
        let inner = &self.gatherer.inner;
        let Some(tier) = &inner.remote else { return Questions::default() };
        let questions = tier.ask(&asks.iter().collect::<Vec<_>>(), Want::Load);
        places
            .into_iter()
            .zip(questions)
            .map(|(place, question)| {
                let inner = Arc::clone(inner);
                let answer = async move {
                    match &inner.remote {
                        Some(tier) => tier.awaited(question).await,
                        None => async_cache_core::remote::Answer::Alone,
                    }
                };
                (place, answer)
            })
            .fold(Questions::default(), |questions, (place, answer)| questions.with(place, answer))
    }

    /// The flights whose questions are open go on by themselves.
    fn leave_behind(&mut self, questions: Questions) {
        let name = nesting::new_name();
        let mut flights: Vec<_> = self.flights.iter().map(|_| None).collect();
        for &place in questions.open() {
            flights[place] = self.flights[place].take().map(|mut flight| {
                flight.waits_for(name);
                flight
            });
        }
        let (gatherer, keys) = (Arc::clone(&self.gatherer), self.keys.clone());
        let rest = Self { gatherer, keys, load: None, flights, name, questions: Some(questions) };
        // If the runtime is being shut down, it drops the task at once, and so abandons the
        // flights.
        drop(sync::spawn(rest.load()));
    }
}

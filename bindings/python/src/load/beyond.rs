//! The step of a load before its loader: the tier beyond this host is asked.
//!
//! All keys of a load are asked about with one read. Then, for each key:
//!
//! | answer | result |
//! |---|---|
//! | a value | it lands, and its callers are answered at once |
//! | lead | the loader runs, and the tier gets the value |
//! | alone | the loader runs. If the tier is away, an entry that may be out of date is served instead |
//! | absent | only if nothing is to be loaded: the callers get `None` |
//! | none yet, because another process loads the key | keys with other answers do not wait: another driver waits for this key |

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;

use async_cache_core::remote::{Answer as Told, AskId, Want};
use async_cache_tier::clock;
use async_cache_tier::remote::Asked;
use async_cache_tier::suspects::Suspects;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::{Asks, LoadDriver, LoadState, spawn_in};
use crate::cache::Beyond;
use crate::driver::watch;
use crate::item::{Beforehand, LoadFlight};
use crate::key::StoredKey;
use crate::library;
use crate::raw::calls::{Invoke, send};
use crate::raw::{Ref, Sent};
use crate::remote::{Question, RemoteCounts, RemoteTier, name_of};
use crate::room::Answer;
use crate::work::Work;

/// Answers to questions.
type Answers = Vec<(AskId, Told)>;

impl LoadDriver {
    /// Ends the task, whose flights have ended.
    pub(super) fn done<'py>(&mut self, py: Python<'py>, ended: PyResult<()>) -> PyResult<Sent<'py>> {
        self.state = LoadState::Done;
        self.is_driven = false;
        ended?;
        Ok(Sent::Return(py.None().into_bound(py)))
    }

    /// The first step of a load.
    pub(super) fn ask_beyond<'py>(&mut self, py: Python<'py>) -> PyResult<Sent<'py>> {
        let asked = self.ask_all(py);
        self.continue_with(py, asked)
    }

    /// A step of a load that waits for answers.
    pub(super) fn wait_beyond<'py>(
        &mut self,
        py: Python<'py>,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<Sent<'py>> {
        let LoadState::Asks(asks) = &mut self.state else { unreachable!("called while it asks") };
        if let Some(iterator) = &asks.iterator {
            let sent = send(&iterator.bind(py).clone(), value);
            if !matches!(sent, Ok(Sent::Return(_))) {
                let sent = self.after(py, sent);
                self.is_driven = false;
                return sent;
            }
        }
        let LoadState::Asks(asks) = &mut self.state else { unreachable!("as above") };
        let done = asks.iterator.take();
        let number = asks.wait;
        drop(done);
        let answers = self.tier_of(py).map(|tier| {
            let mut state = tier.state.borrow(py);
            state.waits.get_mut(&number).map(|wait| std::mem::take(&mut wait.answers))
        });
        self.continue_with(py, Ok(answers.flatten().unwrap_or_default()))
    }

    /// Goes on with answers, to the next wait, to the loader, or to the end.
    fn continue_with<'py>(&mut self, py: Python<'py>, answers: PyResult<Answers>) -> PyResult<Sent<'py>> {
        let sent = answers.and_then(|answers| self.go_on(py, answers));
        let sent = match sent {
            Ok(Some(iterator)) => send(&iterator, py.None().bind(py)),
            Ok(None) => return self.done(py, Ok(())),
            Err(error) => Err(error),
        };
        // A loader may have returned at once; a wait never does.
        let sent = self.after(py, sent);
        self.is_driven = false;
        sent
    }

    /// Asks about all keys. Returns the answers that are there at once.
    fn ask_all(&mut self, py: Python<'_>) -> PyResult<Answers> {
        let cache = self.cache.bind(py).clone();
        cache.get().prepare_remote(py, self.event_loop.bind(py))?;
        let LoadState::New(work) = std::mem::replace(&mut self.state, LoadState::Done) else {
            unreachable!("it asks once")
        };
        let want = if matches!(work, Work::Look) { Want::Look } else { Want::Load };
        let Some(tier) = cache.get().remote.get() else { unreachable!("there is a tier") };
        let wait = tier.state.borrow(py).begin_wait();
        self.state = LoadState::Asks(Box::new(Asks {
            work,
            wait,
            cache: Ref::new(cache.clone()),
            iterator: None,
            is_passed_on: false,
        }));
        let mut names = Vec::with_capacity(self.items.len());
        let mut askers = Vec::with_capacity(self.items.len());
        for (index, item) in self.items.iter().enumerate() {
            if let Some(named) = name_of(py, &StoredKey { key: item.key.bind(py), hash: item.hash })? {
                names.push((named.0.clone(), item.hash));
                askers.push((index, named));
            }
        }
        let remote = tier.remote(py);
        let asked = remote.ask(&names, want, clock::now(), || wait);
        let mut answers = Vec::new();
        for ((index, named), asked) in askers.into_iter().zip(asked) {
            let id = match asked {
                Asked::Waits(id) => id,
                Asked::Answered(id, answer) => {
                    answers.push((id, answer));
                    id
                }
            };
            let question = Question::new(std::sync::Arc::clone(&remote), id, named);
            self.items[index].room.bind(py).get().asks(py, question);
        }
        cache.get().poke(py)?;
        Ok(answers)
    }

    /// Deals with answers. Returns the iterator of the next wait or of the loader; `None`: all
    /// flights have ended.
    fn go_on<'py>(&mut self, py: Python<'py>, mut answers: Answers) -> PyResult<Option<Bound<'py, PyAny>>> {
        let cache = self.cache.bind(py).clone();
        let Some(tier) = cache.get().remote.get() else { unreachable!("there is a tier") };
        loop {
            self.take_answers(py, tier, answers)?;
            if self.items.is_empty() {
                return Ok(None);
            }
            let open: Vec<AskId> = self.items.iter().filter_map(|item| open_question(py, item)).collect();
            let waits_for_others = !open.is_empty() && tier.remote(py).all_wait(&open);
            if open.is_empty() || (open.len() < self.items.len() && waits_for_others) {
                if !open.is_empty() {
                    self.pass_on(py)?;
                }
                return self.run_loader(py);
            }
            match self.wait(py, tier)? {
                Ok(iterator) => return Ok(Some(iterator)),
                Err(more) => answers = more,
            }
        }
    }

    /// Begins to wait; or returns answers that have come meanwhile.
    fn wait<'py>(
        &mut self,
        py: Python<'py>,
        tier: &RemoteTier,
    ) -> PyResult<Result<Bound<'py, PyAny>, Answers>> {
        let event_loop = self.event_loop.bind(py).clone();
        let options = PyDict::new(py);
        options.set_item(pyo3::intern!(py, "loop"), &event_loop)?;
        let future = library::future(py)?.invoke(&PyTuple::empty(py), Some(&options))?;
        let iterator = future.invoke_method0(pyo3::intern!(py, "__await__"))?;
        let LoadState::Asks(asks) = &mut self.state else { unreachable!("it asks") };
        let kept = (Ref::new(future), Ref::new(event_loop));
        let mut state = tier.state.borrow(py);
        let wait = state.waits.entry(asks.wait).or_default();
        if !wait.answers.is_empty() {
            let answers = std::mem::take(&mut wait.answers);
            drop(state);
            drop(kept);
            return Ok(Err(answers));
        }
        let before = wait.future.replace(kept);
        drop(state);
        drop(before);
        asks.iterator = Some(Ref::new(iterator.clone()));
        let wait = asks.wait;
        watch(py, tier, &self.event_loop.bind(py).clone(), (wait, self.items.len()))?;
        Ok(Ok(iterator))
    }

    /// Lands values, and notes the keys to be loaded.
    fn take_answers(&mut self, py: Python<'_>, tier: &RemoteTier, answers: Answers) -> PyResult<()> {
        let mut told: HashMap<AskId, Told> = answers.into_iter().collect();
        let mut done = Ok(());
        let items = std::mem::take(&mut self.items);
        let mut items = items.into_iter();
        for mut item in items.by_ref() {
            if item.answer == Beforehand::Nothing {
                let id = item.room.bind(py).get().with_question(py, |question| question.id);
                let answer = match id {
                    Some(id) => told.remove(&id),
                    // The key has no name in the tier, or the flight was fenced.
                    None => Some(Told::Alone),
                };
                if let Some(answer) = answer {
                    match self.take_answer(py, tier, &item, answer) {
                        Ok(Some(beforehand)) => item.answer = beforehand,
                        Ok(None) => continue,
                        Err(error) => {
                            done = self.end_one(py, &item, Answer::failed(py, error.clone_ref(py)));
                            if crate::errors::is_interrupt(py, &error) {
                                done = done.and(Err(error));
                                break;
                            }
                            continue;
                        }
                    }
                }
            }
            self.items.push(item);
        }
        self.items.extend(items);
        done
    }

    /// Deals with one answer. `None`: the flight has ended.
    fn take_answer(
        &self,
        py: Python<'_>,
        tier: &RemoteTier,
        item: &LoadFlight,
        answer: Told,
    ) -> PyResult<Option<Beforehand>> {
        let room = item.room.bind(py).get();
        let count = |counter: &AtomicU64| RemoteCounts::count(counter);
        match answer {
            Told::Value { bytes, until } => {
                let canonical = room.with_question(py, |question| question.canonical.clone());
                let value = tier.value(py, &bytes, &canonical.unwrap_or_default())?;
                let Some(value) = value else { return Ok(Some(Beforehand::Undecodable)) };
                count(&tier.counts.hits);
                let now = clock::now();
                let beyond = match room.take_question(py) {
                    Some(question) => Beyond::Taken(question, until),
                    None => Beyond::Unasked, // decoding has ended the flight: it stores nothing
                };
                self.land_with(py, item, &value, beyond, (now, now))?;
                Ok(None)
            }
            Told::Absent => {
                count(&tier.counts.misses);
                self.end_one(py, item, Answer::Absent)?;
                Ok(None)
            }
            Told::Lead => {
                count(&tier.counts.misses);
                Ok(Some(Beforehand::Leads))
            }
            Told::Alone => {
                if tier.remote(py).suspects(clock::now()) == Suspects::Served {
                    let query = StoredKey { key: item.key.bind(py), hash: item.hash };
                    if let Some(value) = self.cache.bind(py).get().serve_suspect(py, &query)? {
                        self.end_one(py, item, Answer::Value(Ref::new(value)))?;
                        return Ok(None);
                    }
                }
                if room.is_look(py) {
                    self.end_one(py, item, Answer::Absent)?;
                    return Ok(None);
                }
                Ok(Some(Beforehand::Alone))
            }
        }
    }

    /// Gives the items that still wait to another driver.
    fn pass_on(&mut self, py: Python<'_>) -> PyResult<()> {
        let is_open = |item: &LoadFlight| open_question(py, item).is_some();
        let (open, ours) = std::mem::take(&mut self.items).into_iter().partition(is_open);
        self.items = ours;
        let open: Vec<LoadFlight> = open;
        for item in &open {
            self.no_longer_waits(py, item);
        }
        let LoadState::Asks(asks) = &mut self.state else { unreachable!("it asks") };
        let Work::Batch(loader) = &asks.work else { unreachable!("a single load has one answer") };
        let work = Work::Batch(loader.copy(py));
        asks.is_passed_on = true;
        let (wait, cache) = (asks.wait, asks.cache.copy(py));
        let passed =
            LoadState::Asks(Box::new(Asks { work, wait, cache, iterator: None, is_passed_on: false }));
        let cache = self.cache.bind(py).clone();
        spawn_in(&cache, open, passed, &self.event_loop.bind(py).clone())
    }

    /// Calls the loader, for all items. `None`: all flights have ended.
    fn run_loader<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.started = clock::now();
        let LoadState::Asks(asks) = &self.state else { unreachable!("it asks") };
        if asks.work.is_outdated(py, &self.items).unwrap_or(true) {
            // All callers ask again, with the present state of the arguments.
            return self.end(py, &Answer::Abandoned).map(|()| None);
        }
        self.start(py).map(Some)
    }

    /// A loaded value, in the form for the tier.
    pub(super) fn content_beyond(
        &self,
        py: Python<'_>,
        item: &LoadFlight,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<Beyond> {
        let Some(question) = item.room.bind(py).get().take_question(py) else { return Ok(Beyond::Unasked) };
        let Some(tier) = self.tier_of(py) else { return Ok(Beyond::Unasked) };
        let is_stored = match item.answer {
            Beforehand::Leads => true,
            Beforehand::Alone => question.remote.is_up(),
            Beforehand::Nothing | Beforehand::Undecodable => false,
        };
        let content = if is_stored {
            tier.content(py, (&question.name, &question.canonical), value)?
        } else {
            async_cache_core::remote::port::Content::Stub // not sent
        };
        Ok(Beyond::Loaded(question, content))
    }

    fn tier_of<'a>(&'a self, py: Python<'a>) -> Option<&'a RemoteTier> {
        self.cache.bind(py).get().remote.get().map(|tier| &**tier)
    }
}

/// The question of an item without an answer.
fn open_question(py: Python<'_>, item: &LoadFlight) -> Option<AskId> {
    if item.answer != Beforehand::Nothing {
        return None;
    }
    item.room.bind(py).get().with_question(py, |question| question.id)
}

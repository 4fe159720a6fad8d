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
//! | none yet, because another process loads the key | keys with other answers do not wait: another inquiry waits for this key |
//!
//! Rules:
//! 1. an inquiry has no task: the driver of the tier resumes it (`driver::inquiries`);
//! 2. a step that is not the last leaves the load parked;
//! 3. the loader runs as a task, in a copy of the context of the call that leads.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use async_cache_core::remote::port::Name;
use async_cache_core::remote::{Answer as Told, AskId, Want};
use async_cache_tier::clock;
use async_cache_tier::remote::Asked;
use async_cache_tier::suspects::Suspects;
use pyo3::prelude::*;

use super::{LoadDriver, LoadState};
use crate::cache::{Beyond, Cache};
use crate::driver::{end, forget, park, resume, watch};
use crate::errors;
use crate::item::{Beforehand, LoadFlight};
use crate::key::StoredKey;
use crate::library;
use crate::raw::Ref;
use crate::raw::visit::visits;
use crate::remote::{Answers, End, Inquiry, Question, RemoteCounts, RemoteTier, name_of};
use crate::room::Answer;
use crate::work::Work;

/// Named keys, with the places of their flights.
type Named = Vec<(usize, (Name, Vec<u8>))>;

/// A load that asks the tier.
struct Asking {
    load: LoadDriver,
    /// Rule 3. `None` if nothing is to be loaded.
    context: Option<Ref>,
}

visits!(struct Asking { load, context });

/// Begins a load. On failure, the flights have ended.
pub(super) fn ask(cache: &Bound<'_, Cache>, mut load: LoadDriver) -> PyResult<()> {
    let (py, this) = (cache.py(), cache.get());
    let Some(tier) = this.remote.get() else { unreachable!("there is a tier") };
    let event_loop = load.event_loop.bind(py).clone();
    (load.is_asking, load.is_driven) = (true, true);
    let named = match this.prepare_remote(py, &event_loop).and_then(|()| load.names(py)) {
        Ok(named) => named,
        Err(error) => return load.end_failed(py, &error).and(Err(error)),
    };
    let number = tier.state.borrow(py).begin_wait();
    let answers = load.ask_all(py, tier, number, named);
    let is_open = load.items.iter().filter(|item| open_question(py, item).is_some()).count() > answers.len();
    let asking = Box::new(Asking { load, context: None });
    let asked = if is_open {
        asking.wait(py, tier, number, answers)
    } else {
        forget(py, tier, number);
        asking.go_on(py, tier, answers).map(drop)
    };
    let poked = asked.and(this.poke(py));
    if poked.is_err() {
        end(py, tier, number, End::Abandoned)?;
    }
    poked
}

impl Inquiry for Asking {
    fn go_on(
        mut self: Box<Self>,
        py: Python<'_>,
        tier: &RemoteTier,
        answers: Answers,
    ) -> PyResult<Option<Box<dyn Inquiry>>> {
        self.load.is_driven = true;
        if let Err(error) = self.load.take_answers(py, tier, answers) {
            let failed = Answer::failed(py, error.clone_ref(py));
            return self.load.end(py, &failed).and(Err(error));
        }
        if self.load.items.is_empty() {
            return Ok(None);
        }
        let open: Vec<AskId> = self.load.items.iter().filter_map(|item| open_question(py, item)).collect();
        let has_answers = open.len() < self.load.items.len();
        if open.is_empty() || (has_answers && tier.remote(py).all_wait(&open)) {
            let rest = self.pass_on(py);
            self.run_loader(py)?;
            return Ok(rest);
        }
        self.load.is_driven = false;
        Ok(Some(self))
    }

    fn event_loop<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.load.event_loop.bind(py)
    }

    fn loads(&self) -> bool {
        !matches!(self.load.state, LoadState::New(Work::Look))
    }

    fn end(mut self: Box<Self>, py: Python<'_>, end: End) -> PyResult<()> {
        (self.load.is_asking, self.load.is_driven) = (false, false);
        let answer = match end {
            End::Abandoned => Answer::Abandoned,
            End::Cancelled => Answer::Cancelled,
        };
        self.load.end(py, &answer)
    }

    fn leave(mut self: Box<Self>, py: Python<'_>, room: &Bound<'_, PyAny>) -> Option<Box<dyn Inquiry>> {
        let at = self.load.items.iter().position(|item| item.room.bind(py).is(room));
        if let Some(at) = at {
            let item = self.load.items.remove(at);
            self.load.no_longer_waits(py, &item);
        }
        if self.load.items.is_empty() { None } else { Some(self) }
    }
}

impl Asking {
    /// Waits for answers.
    fn wait(
        mut self: Box<Self>,
        py: Python<'_>,
        tier: &RemoteTier,
        number: u64,
        answers: Answers,
    ) -> PyResult<()> {
        // Whether a key that another process loads might hold up other keys.
        let is_held_up = self.loads() && self.load.items.len() > 1;
        let watched = watch(py, tier, self.load.event_loop.bind(py), (number, is_held_up));
        let copied = watched.and_then(|()| {
            // Rule 3.
            if self.loads() {
                self.context = Some(Ref::new(library::copy_context(py)?.call0()?));
            }
            Ok(())
        });
        if let Err(error) = copied {
            forget(py, tier, number);
            return self.load.end_failed(py, &error).and(Err(error));
        }
        self.load.is_driven = false;
        if let Some(wait) = tier.state.borrow(py).waits.get_mut(&number) {
            wait.answers.extend(answers);
        }
        if park(py, tier, number, self)? { resume(py, tier, number) } else { Ok(()) }
    }

    /// Gives the flights without an answer to another inquiry.
    fn pass_on(&mut self, py: Python<'_>) -> Option<Box<dyn Inquiry>> {
        let is_open = |item: &LoadFlight| open_question(py, item).is_some();
        let (open, ours) = std::mem::take(&mut self.load.items).into_iter().partition(is_open);
        self.load.items = ours;
        let open: Vec<LoadFlight> = open;
        if open.is_empty() {
            return None;
        }
        for item in &open {
            self.load.no_longer_waits(py, item);
        }
        let LoadState::New(Work::Batch(loader)) = &self.load.state else {
            unreachable!("a single load has one answer")
        };
        let (cache, work) = (self.load.cache.bind(py), Work::Batch(loader.copy(py)));
        let mut load = LoadDriver::new(cache, open, work, self.load.event_loop.bind(py));
        load.is_asking = true;
        Some(Box::new(Self { load, context: self.context.as_ref().map(|context| context.copy(py)) }))
    }

    /// Starts the task, for all flights.
    fn run_loader(self, py: Python<'_>) -> PyResult<()> {
        let Self { mut load, context } = self;
        (load.is_asking, load.is_driven) = (false, false);
        load.started = clock::now();
        load.run(py, context.as_ref().map(|context| context.bind(py)))
    }
}

impl LoadDriver {
    /// The names of the keys that have one.
    fn names(&self, py: Python<'_>) -> PyResult<Named> {
        let mut named = Vec::with_capacity(self.items.len());
        for (index, item) in self.items.iter().enumerate() {
            let query = StoredKey { key: item.key.bind(py), hash: item.hash };
            named.extend(name_of(py, &query)?.map(|name| (index, name)));
        }
        Ok(named)
    }

    /// Asks about all keys. Returns the answers that are there at once.
    fn ask_all(&self, py: Python<'_>, tier: &RemoteTier, number: u64, named: Named) -> Answers {
        let LoadState::New(work) = &self.state else { unreachable!("it asks before it runs") };
        let want = if matches!(work, Work::Look) { Want::Look } else { Want::Load };
        let names: Vec<_> =
            named.iter().map(|(index, (name, _))| (name.clone(), self.items[*index].hash)).collect();
        let remote = tier.remote(py);
        let asked = remote.ask(&names, want, clock::now(), || number);
        let mut answers = Vec::new();
        for ((index, named), asked) in named.into_iter().zip(asked) {
            let id = match asked {
                Asked::Waits(id) => id,
                Asked::Answered(id, answer) => {
                    answers.push((id, answer));
                    id
                }
            };
            let question = Question::new(Arc::clone(&remote), (id, number), named);
            self.items[index].room.bind(py).get().asks(py, question);
        }
        answers
    }

    /// Lands values, and notes the keys to be loaded.
    fn take_answers(&mut self, py: Python<'_>, tier: &RemoteTier, answers: Answers) -> PyResult<()> {
        let mut told: Vec<_> = answers.into_iter().map(|(id, answer)| (id, Some(answer))).collect();
        told.sort_unstable_by_key(|(id, _)| *id);
        let mut done = Ok(());
        let items = std::mem::take(&mut self.items);
        let mut items = items.into_iter();
        for mut item in items.by_ref() {
            if item.answer == Beforehand::Nothing {
                let id = item.room.bind(py).get().with_question(py, |question| question.id);
                let answer = match id {
                    Some(id) => {
                        let at = told.binary_search_by_key(&id, |(id, _)| *id);
                        at.ok().and_then(|at| told.get_mut(at)?.1.take())
                    }
                    // The key has no name in the tier, or the flight was fenced.
                    None => Some(Told::Alone),
                };
                if let Some(answer) = answer {
                    match self.take_answer(py, tier, &item, answer) {
                        Ok(Some(beforehand)) => item.answer = beforehand,
                        Ok(None) => continue,
                        Err(error) => {
                            done = self.end_one(py, &item, Answer::failed(py, error.clone_ref(py)));
                            if errors::is_interrupt(py, &error) {
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
                let Some(value) = value else {
                    if room.is_look(py) {
                        self.end_unloaded(py, item, Answer::Absent)?;
                        return Ok(None);
                    }
                    return Ok(Some(Beforehand::Undecodable));
                };
                self.cache.bind(py).get().state.borrow(py).tiered.shard.count_remote_hit();
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
                self.end_unloaded(py, item, Answer::Absent)?;
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
                        self.end_unloaded(py, item, Answer::Value(Ref::new(value)))?;
                        return Ok(None);
                    }
                }
                if room.is_look(py) {
                    self.end_unloaded(py, item, Answer::Absent)?;
                    return Ok(None);
                }
                Ok(Some(Beforehand::Alone))
            }
        }
    }

    /// Ends a flight for which no loader runs.
    fn end_unloaded(&self, py: Python<'_>, item: &LoadFlight, answer: Answer) -> PyResult<()> {
        self.cache.bind(py).get().state.borrow(py).tiered.shard.count_no_load();
        self.end_one(py, item, answer)
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

//! The tier beyond one host, as a front uses it: the machine of the core behind a lock, with the
//! connection and with those who wait.
//!
//! Callers ask and write from any thread. One *driver* carries bytes: it opens the connection,
//! gives what arrives to the engine, writes what the engine wants written, and does the
//! [`Order`]s, one after the other, in their order. Only the driver takes orders.
//!
//! Rules:
//! 1. a shard may be locked when a method is called; nothing is locked while the driver does an
//!    order;
//! 2. a question is asked after its load is a flight of its shard, and is ended by
//!    [`Remote::take`], [`Remote::land`] or [`Remote::end`], in the step that ends the flight;
//! 3. [`Remote::put`], [`Remote::take`] and [`Remote::land`] are called under the lock of the key's
//!    shard, before memory is written. So two writes of a key come to memory and to the engine in
//!    the same order;
//! 4. after each call, the driver has to look: for orders, and for bytes of the engine.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use async_cache_core::remote::port::{Command, CommandId, Content, Engine, Generation, Name, News, Owner};
use async_cache_core::remote::{
    Answer, AskId, Landing, Machine, Notice, Output, Settings, Want, Word, WriteMark,
};
use async_cache_core::time::Time;
use parking_lot::Mutex;

use crate::names::NameIndex;
use crate::suspects::Suspects;

/// What the driver has to do.
#[derive(Debug)]
pub enum Order<W> {
    /// Tell somebody who waits.
    Answer(W, AskId, Answer),
    /// Remove the entries of a name from memory, and fence its running loads if `fences`: see
    /// [`Remote::hashes`].
    Forget {
        /// The name.
        name: Name,
        /// Whether a load that runs may be older than the change.
        fences: bool,
    },
    /// Remove everything from memory, and fence all loads.
    ForgetAll,
    /// Make everything in memory suspect; fence all loads if `fences`.
    Suspect {
        /// Whether loads that run may be older than a change.
        fences: bool,
    },
    /// Open a connection, and call [`Remote::opened`] or [`Remote::closed`].
    Connect,
    /// Close the connection.
    Disconnect,
    /// For the log.
    Say(Notice),
}

/// How a question was begun.
#[derive(Debug)]
pub enum Asked {
    /// It is answered already.
    Answered(AskId, Answer),
    /// The answer is an [`Order::Answer`].
    Waits(AskId),
}

/// The tier beyond one host. `E` is the connection, `W` a waiting load.
#[derive(Debug)]
pub struct Remote<E, W> {
    state: Mutex<State<E, W>>,
    names: NameIndex,
}

#[derive(Debug)]
struct State<E, W> {
    machine: Machine,
    engine: Option<E>,
    waiting: HashMap<AskId, W, BuildHasherDefault<IdHasher>>,
    orders: VecDeque<Order<W>>,
    random: fn() -> u64,
}

impl<E: Engine, W> Remote<E, W> {
    /// A tier without a connection. `random` gives numbers that no other process has.
    pub fn new(settings: Settings, random: fn() -> u64) -> Self {
        let machine = Machine::new(settings, random());
        let state =
            State { machine, engine: None, waiting: HashMap::default(), orders: VecDeque::new(), random };
        Self { state: Mutex::new(state), names: NameIndex::new() }
    }

    /// Asks about names, with one read. `waiter` makes who is told the answer. `names` come with
    /// the hashes of their keys.
    pub fn ask(
        &self,
        names: &[(Name, u64)],
        want: Want,
        now: Time,
        mut waiter: impl FnMut() -> W,
    ) -> Vec<Asked> {
        for (name, hash) in names {
            self.names.insert(name, *hash);
        }
        let mut state = self.state.lock();
        let ids = state.machine.ask(names.iter().map(|(name, _)| name.clone()), want, now);
        let mut answers = state.pump(&ids);
        let asked = ids.into_iter().map(|id| {
            if let Some(answer) = answers.remove(&id) {
                return Asked::Answered(id, answer);
            }
            state.waiting.insert(id, waiter());
            Asked::Waits(id)
        });
        asked.collect()
    }

    /// How memory may keep the value of an answer; ends the question.
    pub fn take(&self, id: AskId, now: Time) -> Landing {
        let mut state = self.state.lock();
        let landing = state.machine.take(id, now);
        state.after();
        landing
    }

    /// How memory may keep a loaded value; stores it in the engine if it may; ends the question.
    pub fn land(&self, id: AskId, content: Content, life: Option<Duration>, now: Time) -> Landing {
        let mut state = self.state.lock();
        let landing = state.machine.land(id, content, life, now);
        state.after();
        landing
    }

    /// What [`Remote::take`] or [`Remote::land`] would answer now.
    pub fn expects(&self, id: AskId) -> Landing {
        self.state.lock().machine.expects(id)
    }

    /// What [`Remote::put`] would answer now.
    pub fn expects_of_put(&self) -> Landing {
        self.state.lock().machine.expects_of_put()
    }

    /// Whether suspect entries are served now.
    pub fn suspects(&self, now: Time) -> Suspects {
        if self.state.lock().machine.serves_suspects(now) { Suspects::Served } else { Suspects::Withheld }
    }

    /// The load of a question has ended without a value.
    pub fn end(&self, id: AskId, now: Time) {
        let mut state = self.state.lock();
        let waiter = state.waiting.remove(&id);
        state.machine.end(id, now);
        state.after();
        drop(state);
        drop(waiter);
    }

    /// Puts a content under a name, whose key has this hash. How memory may keep the value.
    pub fn put(
        &self,
        name: &Name,
        hash: u64,
        content: Content,
        life: Option<Duration>,
        now: Time,
    ) -> Landing {
        self.names.insert(name, hash);
        let mut state = self.state.lock();
        let landing = state.machine.put(name, content, life, now);
        state.after();
        landing
    }

    /// Removes names from the engine. Before the keys are removed from memory.
    pub fn invalidate(&self, names: &[Name], now: Time) {
        let mut state = self.state.lock();
        state.machine.invalidate(names, now);
        state.after();
    }

    /// Removes everything from the engine. Before memory is cleared.
    pub fn clear(&self, now: Time) {
        let mut state = self.state.lock();
        let generation = Generation((state.random)());
        state.machine.clear(generation, now);
        state.after();
    }

    /// The hashes of the keys that may have this name.
    pub fn hashes(&self, name: &Name) -> Vec<u64> {
        self.names.hashes(name)
    }

    /// The names of the entries in memory.
    pub fn names(&self) -> &NameIndex {
        &self.names
    }

    /// Whether the engine is connected and speaks: then files are not trusted.
    pub fn is_up(&self) -> bool {
        self.state.lock().machine.is_up()
    }

    /// Whether all of these questions wait for the loads of others.
    pub fn all_wait(&self, ids: &[AskId]) -> bool {
        let state = self.state.lock();
        ids.iter().all(|&id| state.machine.is_waiting(id))
    }

    /// Whether the engine has acknowledged everything.
    pub fn is_settled(&self) -> bool {
        self.state.lock().machine.is_settled()
    }

    /// The writes until now. `None`: the engine has acknowledged them.
    pub fn mark(&self) -> Option<WriteMark> {
        self.state.lock().machine.mark()
    }

    /// Somebody waits for writes, and looks at [`Remote::word_of`] after each look of the driver.
    pub fn wait(&self, mark: WriteMark, now: Time) {
        let mut state = self.state.lock();
        state.machine.wait(mark, now);
        state.after();
    }

    /// What the engine has said about writes.
    pub fn word_of(&self, mark: WriteMark, now: Time) -> Word {
        self.state.lock().machine.word_of(mark, now)
    }

    /// Whether a connection is being made, or is there.
    pub fn is_connected_soon(&self) -> bool {
        self.state.lock().machine.is_connected_soon()
    }

    /// How many writes no engine has acknowledged.
    pub fn pending(&self) -> usize {
        self.state.lock().machine.pending()
    }

    // For the driver

    /// The next order.
    pub fn order(&self) -> Option<Order<W>> {
        self.state.lock().orders.pop_front()
    }

    /// The connection of an [`Order::Connect`] is being made.
    pub fn connecting(&self, now: Time) {
        self.state.lock().machine.connecting(now);
    }

    /// A connection is open.
    pub fn opened(&self, engine: E) {
        self.opened_if(engine, || true);
    }

    /// A connection is open, and is taken if it is wanted still. No other driver begins in between.
    pub fn opened_if(&self, engine: E, is_wanted: impl FnOnce() -> bool) {
        let mut state = self.state.lock();
        if is_wanted() {
            state.engine = Some(engine);
        }
    }

    /// Takes bytes from the connection, which are to be written. `None`: there is no connection.
    pub fn outgoing<R>(&self, now: Time, take: impl FnOnce(&mut E) -> R) -> Option<R> {
        let mut state = self.state.lock();
        state.machine.flush(now);
        state.after();
        let taken = state.engine.as_mut().map(take);
        state.listen(now);
        taken
    }

    /// Works on the connection: gives it bytes, looks at it. Then listens to what it says.
    /// `None`: there is no connection.
    pub fn engine<R>(&self, now: Time, work: impl FnOnce(&mut E) -> R) -> Option<R> {
        let mut state = self.state.lock();
        let result = state.engine.as_mut().map(work);
        state.listen(now);
        result
    }

    /// Bytes have arrived, whatever they say.
    pub fn heard(&self, now: Time) {
        let mut state = self.state.lock();
        state.machine.heard(now);
        state.after();
    }

    /// The connection has ended, or could not be opened.
    pub fn closed(&self, why: &str, now: Time) {
        let mut state = self.state.lock();
        state.close(why, now);
        state.after();
    }

    /// The driver gives the connection up, as at the end of an event loop. The next question or
    /// write connects.
    pub fn part(&self, now: Time) {
        let mut state = self.state.lock();
        let before = state.engine.take();
        state.orders.retain(|order| !matches!(order, Order::Connect | Order::Disconnect));
        state.machine.part(now);
        state.after();
        drop(state);
        drop(before);
    }

    /// When [`Remote::tick`] has something to do.
    pub fn wake_at(&self) -> Option<Time> {
        self.state.lock().machine.wake_at()
    }

    /// Time has passed.
    pub fn tick(&self, now: Time) {
        let mut state = self.state.lock();
        state.machine.tick(now);
        state.after();
    }
}

impl<E: Engine, W> State<E, W> {
    /// Takes what the machine wants done. Returns the answers to the questions in `new`, whose
    /// waiters are not known yet. `new` is in ascending order, as the machine numbers questions.
    fn pump(&mut self, new: &[AskId]) -> HashMap<AskId, Answer> {
        let mut answers = HashMap::new();
        while let Some(output) = self.machine.poll() {
            match output {
                Output::Send { id, generation, command } => self.send(id, generation, &command),
                Output::Answer(id, answer) => match self.waiting.remove(&id) {
                    Some(waiter) => self.orders.push_back(Order::Answer(waiter, id, answer)),
                    None if new.binary_search(&id).is_ok() => {
                        answers.insert(id, answer);
                    }
                    None => {}
                },
                Output::Forget { name, fences } => self.orders.push_back(Order::Forget { name, fences }),
                Output::ForgetAll => self.orders.push_back(Order::ForgetAll),
                Output::Suspect { fences } => self.orders.push_back(Order::Suspect { fences }),
                Output::Connect => self.orders.push_back(Order::Connect),
                Output::Disconnect(why, now) => self.close(&why, now),
                Output::Say(notice) => self.orders.push_back(Order::Say(notice)),
            }
        }
        answers
    }

    fn after(&mut self) {
        self.pump(&[]);
    }

    fn send(&mut self, id: CommandId, generation: Generation, command: &Command) {
        if let Some(engine) = &mut self.engine {
            engine.send(id, generation, command);
        }
    }

    /// Passes on what the engine says.
    fn listen(&mut self, now: Time) {
        while let Some(news) = self.engine.as_mut().and_then(Engine::next) {
            match news {
                News::Ready(greeting) => {
                    let (owner, generation) = (Owner((self.random)()), Generation((self.random)()));
                    self.machine.connected(greeting, owner, generation, now);
                }
                News::Event(event) => self.machine.event(event, now),
            }
            self.after();
        }
    }

    fn close(&mut self, why: &str, now: Time) {
        if self.engine.take().is_some() {
            self.orders.push_back(Order::Disconnect);
        }
        self.machine.lost(why, now);
    }
}

/// Hashes the numbers of questions, which count up: nobody outside chooses them.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, number: u64) {
        // Spreads the number over all bits (Fibonacci hashing).
        self.0 = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(self.0 ^ u64::from(byte));
        }
    }
}

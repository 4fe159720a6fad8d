//! The machine of a tier beyond one host.
//!
//! Takes questions of loads, writes of this process, events of the engine and the time, and gives
//! commands to the engine, answers, and orders to memory. One machine per process and engine.
//!
//! A question passes these phases:
//!
//! | phase | until | then |
//! |---|---|---|
//! | parked | the connection is made | read |
//! | reading | the engine says what stands under the name | value: answered. Nothing: acquire. Another's lease: wait |
//! | acquiring | the engine says whether the lease was put | yes: lead. No: as after reading |
//! | waiting | the name changes, an own load of it ends, this process writes it, the owner of the lease dies, or the timer | read again, or take the lease over |
//! | leading | the loader returns | fill, or release |
//! | filling | the engine says whether the lease still stood | ended |
//! | answered | the load that asked ends | ended |
//!
//! Rules. Each is needed: `tests` leaves out one after the other and finds the harm.
//! 1. A question is known here before its command is sent, and until its load has ended. A change
//!    of its name *fences* it: it is answered, and memory keeps nothing of it.
//! 2. This process's own writes do the same. They also wake waiting questions: the engine does not
//!    tell a writer of its own writes.
//! 3. A lease is unique per load, has an end, and a load is stored only if its lease still stands.
//!    It is put before the loader runs.
//! 4. Whoever is granted a lease drops what memory still has of the name: the change that removed
//!    the value from the engine may have been masked by the own write.
//! 5. The end of an own load wakes the own questions that wait for it.
//! 6. A question that was fenced does not wait for a lease of this process: it asks again.
//! 7. An entry is *covered* if the connection has lived since it was asked for, and something
//!    stands under its name. When a connection is made, everything in memory becomes *suspect*: it
//!    is not served before the engine was asked. What was asked before lands nowhere.
//! 8. A write is pending until the engine has acknowledged it. Pending writes of a lost connection
//!    are removals on the next one, before anything is read. If there are too many, or everything
//!    was cleared, a new generation begins.
//! 9. If another server has taken over, the writes of the last seconds are removals once more: an
//!    asynchronous replica may have missed them.
//! 10. A sign of life precedes the first lease, so that a lease without one is a dead owner's.
//! 11. Nobody waits longer than the timeout for an engine that says nothing, and once it was silent
//!     for that long, nobody waits at all until it speaks. A connection that stays silent is lost.
//!
//! Replies come in the order of the commands. Random numbers come from a seed, so that the same
//! inputs give the same outputs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::ask::{Answer, Ask, AskId, Landing, Phase, Want};
use super::port::{
    Abilities, Command, CommandId, Content, Event, Found, FoundValue, Generation, Greeting, Lease, Name,
    Owner, Replaced, Reply,
};
use super::settings::{Settings, WhileDown};
use crate::time::{Deadline, Time};

/// How often a question is sent again at once before it waits.
const MOST_AT_ONCE: u8 = 4;
/// The first pause between two reads of a name whose changes are not heard.
const FIRST_POLL: Duration = Duration::from_millis(20);

/// What the machine wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Send a command on the present connection.
    Send {
        /// For the reply.
        id: CommandId,
        /// The generation of its names.
        generation: Generation,
        /// The command.
        command: Command,
    },
    /// Answer a question.
    Answer(AskId, Answer),
    /// Remove the entry of a name from memory, and fence its running load if `fences`.
    Forget {
        /// The name.
        name: Name,
        /// Whether a load that runs may be older than the change.
        fences: bool,
    },
    /// Remove everything from memory, and fence all loads.
    ForgetAll,
    /// Everything in memory is suspect; fence all loads if `fences`.
    Suspect {
        /// Whether loads that run may be older than a change.
        fences: bool,
    },
    /// Connect. Answer with [`Machine::connected`] or [`Machine::lost`].
    Connect,
    /// Drop the connection, and call [`Machine::lost`].
    Disconnect(Arc<str>, Time),
    /// For the log: the state of the engine has changed.
    Say(Notice),
}

/// A change of state, for the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// The engine is away; the cache goes on without it.
    Down(Arc<str>),
    /// The engine is there.
    Up(Abilities),
    /// The engine refuses something; said once per connection.
    Refused(Arc<str>),
}

/// Where the connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Link {
    /// Nobody has asked.
    Idle,
    /// An attempt runs since then.
    Connecting(Time),
    /// The next attempt begins then.
    Pausing(Time),
    /// Connected; the generation is not known.
    Greeting {
        since: Time,
        abilities: Abilities,
    },
    Up(Abilities),
}

/// A command that is not answered yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Sent {
    pub(super) id: CommandId,
    pub(super) at: Time,
    pub(super) what: Purpose,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    Read(Vec<AskId>),
    Acquire(AskId, Lease, Name),
    Fill(AskId, Lease),
    Extend(AskId, Lease),
    Put(Name),
    Drop(Vec<Name>),
    Generation {
        greets: bool,
    },
    NewGeneration {
        greets: bool,
    },
    IsAlive(Owner),
    /// The reply decides nothing.
    Other,
}

/// Whether everything is to be invalidated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Clearing {
    No,
    /// On the next connection.
    Unsent,
    Sent(CommandId),
}

/// The machine. See the head of the file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Machine {
    pub(super) settings: Settings,
    pub(super) link: Link,
    /// Silent for longer than the timeout; rule 11.
    pub(super) is_stalled: bool,
    /// Attempts since the last connection.
    pub(super) attempts: u32,
    pub(super) heard_at: Time,
    pub(super) is_said_down: bool,
    pub(super) is_said_refused: bool,
    /// Until when entries of a lost connection are served.
    pub(super) uncovered_until: Option<Time>,

    pub(super) owner: Owner,
    pub(super) identity: Option<u64>,
    pub(super) generation: Option<Generation>,
    /// Counts what covers the entries in memory; rule 7.
    pub(super) epoch: u64,
    /// Until when this owner has said to live, and when to say it again.
    pub(super) alive_until: Time,

    pub(super) asks: BTreeMap<AskId, Ask>,
    /// The questions of a name, by their age.
    pub(super) names: BTreeMap<Name, Vec<AskId>>,
    pub(super) timers: BTreeSet<(Time, AskId)>,
    /// How many questions hold a lease.
    pub(super) leading: usize,
    /// The owners whom questions wait for, and whether one is being asked about.
    pub(super) watched: BTreeMap<Owner, bool>,

    pub(super) sent: VecDeque<Sent>,
    /// Rule 8: the writes that no engine has acknowledged; `None` is not sent yet.
    pub(super) pending: BTreeMap<Name, Option<CommandId>>,
    pub(super) clearing: Clearing,
    /// Rule 9.
    pub(super) recent: VecDeque<(Time, Name)>,
    /// Until then `recent` lacks some.
    pub(super) recent_lacks_until: Option<Time>,

    pub(super) outputs: VecDeque<Output>,
    pub(super) last_ask: u64,
    pub(super) last_lease: u64,
    pub(super) last_command: u64,
    pub(super) random: u64,
    #[cfg(test)]
    pub(super) without: Option<RuleName>,
}

impl Machine {
    /// A machine without a connection; `seed` is for pauses.
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            link: Link::Idle,
            is_stalled: false,
            attempts: 0,
            heard_at: Time::default(),
            is_said_down: false,
            is_said_refused: false,
            uncovered_until: None,
            owner: Owner(0),
            identity: None,
            generation: None,
            epoch: 0,
            alive_until: Time::default(),
            asks: BTreeMap::new(),
            names: BTreeMap::new(),
            timers: BTreeSet::new(),
            leading: 0,
            watched: BTreeMap::new(),
            sent: VecDeque::new(),
            pending: BTreeMap::new(),
            clearing: Clearing::No,
            recent: VecDeque::new(),
            recent_lacks_until: None,
            outputs: VecDeque::new(),
            last_ask: 0,
            last_lease: 0,
            last_command: 0,
            random: seed | 1,
            #[cfg(test)]
            without: None,
        }
    }

    /// What is to be done next.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether anything is to be done.
    pub fn has_outputs(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// Counts up with everything that makes the entries in memory suspect.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether the engine is connected and speaks.
    pub fn is_up(&self) -> bool {
        matches!(self.link, Link::Up(_)) && !self.is_stalled
    }

    /// The generation, if it is known.
    pub fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// How many writes no engine has acknowledged.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    // Questions

    /// Asks about names, with one read. The answers come as [`Output::Answer`].
    pub fn ask(&mut self, names: impl IntoIterator<Item = Name>, want: Want, now: Time) -> Vec<AskId> {
        let mut begun = Vec::new();
        for name in names {
            self.last_ask += 1;
            let id = AskId(self.last_ask);
            self.names.entry(name.clone()).or_default().push(id);
            let ask = Ask {
                name,
                want,
                phase: Phase::Parked,
                is_open: true,
                epoch: self.epoch,
                generation: self.generation,
                timer: None,
                again: 0,
            };
            self.asks.insert(id, ask);
            begun.push(id);
        }
        if self.link == Link::Idle {
            self.connect(now);
        }
        match self.link {
            Link::Up(_) if !self.is_stalled => self.read(&begun, now),
            Link::Connecting(since) | Link::Greeting { since, .. }
                if self.attempts == 0 && now < since.later(self.settings.timeout) =>
            {
                for &id in &begun {
                    self.arm(id, since.later(self.settings.timeout));
                }
            }
            _ => self.go_alone(&begun),
        }
        begun
    }

    /// How memory may keep the value of a question that was answered with a value. Ends the
    /// question. Call it in the step that stores the value.
    pub fn take(&mut self, id: AskId, now: Time) -> Landing {
        let Some(ask) = self.asks.get(&id) else { return Landing::Nothing };
        let is_witnessed = matches!(ask.phase, Phase::Answered { is_witnessed: true, .. });
        let landing = self.landing(ask, is_witnessed);
        self.end(id, now);
        landing
    }

    /// How memory may keep a loaded value. Stores it in the engine, if the load may. Call it in the
    /// step that stores the value.
    pub fn land(&mut self, id: AskId, content: Content, life: Option<Duration>, now: Time) -> Landing {
        let Some(ask) = self.asks.get(&id) else { return Landing::Nothing };
        let is_up = matches!(self.link, Link::Up(_));
        let is_current = ask.generation == self.generation;
        match ask.phase.clone() {
            Phase::Leading(lease) if is_up && is_current => {
                let landing = self.landing(ask, true);
                let name = ask.name.clone();
                self.set_phase(id, Phase::Filling(lease));
                self.disarm(id);
                let fill = Command::Fill { name, lease, content, life };
                self.send(fill, Purpose::Fill(id, lease), now);
                landing
            }
            Phase::Leading(_) => {
                let landing = self.landing(ask, false);
                self.end(id, now);
                landing
            }
            Phase::Answered { puts: true, .. } if is_up && is_current && ask.is_open => {
                let landing = self.landing(ask, true);
                let name = ask.name.clone();
                self.end(id, now);
                let put = Command::Put { name, content, life };
                self.send(put, Purpose::Other, now);
                landing
            }
            Phase::Answered { is_witnessed, .. } => {
                let landing = self.landing(ask, is_witnessed);
                self.end(id, now);
                landing
            }
            _ => {
                self.end(id, now);
                Landing::Nothing
            }
        }
    }

    fn landing(&self, ask: &Ask, is_witnessed: bool) -> Landing {
        if !ask.is_open || ask.epoch != self.epoch {
            return Landing::Nothing;
        }
        self.coverage(is_witnessed)
    }

    /// How memory may keep an entry from now on.
    fn coverage(&self, is_witnessed: bool) -> Landing {
        match (self.link, self.settings.while_down) {
            (Link::Up(abilities), _) if abilities.notifies && is_witnessed => Landing::Covered,
            (Link::Up(_), _) => Landing::AtMost(self.settings.uncovered_ttl),
            (_, WhileDown::Serve) => Landing::AtMost(self.settings.max_uncovered),
            (_, WhileDown::Bypass) => Landing::Nothing,
        }
    }

    /// The load that asked has ended without a value, or nobody waits for it any more.
    pub fn end(&mut self, id: AskId, now: Time) {
        let Some(ask) = self.remove(id) else { return };
        if let Phase::Leading(lease) = ask.phase
            && matches!(self.link, Link::Up(_))
            && ask.generation == self.generation
        {
            let release = Command::Release { name: ask.name.clone(), lease };
            self.send(release, Purpose::Other, now);
        }
        self.wake(&ask.name, now); // Rule 5.
    }

    // Writes of this process

    /// Puts a content under a name. Call it in the step that writes memory, before the write.
    /// Returns how memory may keep the value.
    pub fn put(&mut self, name: Name, content: Content, life: Option<Duration>, now: Time) -> Landing {
        if self.link == Link::Idle {
            self.connect(now);
        }
        let id = matches!(self.link, Link::Up(_)).then(|| {
            let put = Command::Put { name: name.clone(), content, life };
            self.send(put, Purpose::Put(name.clone()), now)
        });
        self.await_write(name.clone(), id, now);
        self.fence_own(&name, now);
        self.coverage(true)
    }

    /// Removes names. Call it in the step that writes memory, before the write.
    pub fn invalidate(&mut self, names: Vec<Name>, now: Time) {
        if self.link == Link::Idle {
            self.connect(now);
        }
        self.remove_names(names.clone(), now);
        for name in &names {
            self.fence_own(name, now);
        }
    }

    fn remove_names(&mut self, names: Vec<Name>, now: Time) {
        let id = matches!(self.link, Link::Up(_)).then(|| {
            let purpose = Purpose::Drop(names.clone());
            self.send(Command::Drop(names.clone()), purpose, now)
        });
        for name in names {
            self.await_write(name, id, now);
        }
    }

    /// Removes everything; `generation` is a random number. Call it in the step that clears memory,
    /// before.
    pub fn clear(&mut self, generation: Generation, now: Time) {
        if self.link == Link::Idle {
            self.connect(now);
        }
        self.begin_generation(generation, now);
    }

    fn begin_generation(&mut self, generation: Generation, now: Time) {
        self.generation = Some(generation);
        self.epoch += 1;
        self.pending.clear();
        self.recent.clear();
        self.clearing = Clearing::Unsent;
        if matches!(self.link, Link::Up(_)) {
            let purpose = Purpose::NewGeneration { greets: false };
            let id = self.send(Command::NewGeneration(generation), purpose, now);
            self.clearing = Clearing::Sent(id);
        }
        self.fence_all(now);
    }

    /// Rule 2. After the write was sent: a question that is woken reads what the write left.
    fn fence_own(&mut self, name: &Name, now: Time) {
        let ids = self.names.get(name).cloned().unwrap_or_default();
        let mut again = Vec::new();
        for id in ids {
            let Some(ask) = self.asks.get_mut(&id) else { continue };
            if matches!(ask.phase, Phase::Waiting { .. }) {
                if self.keeps(RuleName::OwnWriteWakes) {
                    again.push(id);
                }
            } else if self.keeps(RuleName::OwnWriteFences) {
                if let Some(ask) = self.asks.get_mut(&id) {
                    ask.is_open = false;
                }
            }
        }
        self.read_later(again, now);
    }

    fn fence_all(&mut self, now: Time) {
        let mut again = Vec::new();
        for (&id, ask) in &mut self.asks {
            if matches!(ask.phase, Phase::Waiting { .. }) {
                again.push(id);
            } else {
                ask.is_open = false;
            }
        }
        self.read_later(again, now);
    }

    /// Rule 8.
    fn await_write(&mut self, name: Name, id: Option<CommandId>, now: Time) {
        if self.clearing == Clearing::Unsent {
            return; // all is going to be removed
        }
        self.pending.insert(name, id);
        if self.pending.len() > self.settings.most_pending {
            self.pending.clear();
            self.clearing = Clearing::Unsent;
            if matches!(self.link, Link::Up(_)) {
                self.disconnect("the engine does not acknowledge writes", now);
            }
        }
    }

    // The engine

    /// A connection was made, and has learned this. `owner` and `generation` are random numbers, of
    /// this connection and for a namespace that has no generation.
    pub fn connected(&mut self, greeting: Greeting, owner: Owner, generation: Generation, now: Time) {
        let since = match self.link {
            Link::Connecting(since) => since,
            _ => now,
        };
        self.link = Link::Greeting { since, abilities: greeting.abilities };
        self.is_stalled = false;
        self.is_said_refused = false;
        self.heard_at = now;
        self.owner = owner;
        self.alive_until = Time::default();
        self.sent.clear();
        self.watched.clear();
        let is_other = self.identity.replace(greeting.identity).is_some_and(|old| old != greeting.identity);
        if is_other {
            self.replay(now); // Rule 9.
        }
        if self.clearing != Clearing::No {
            // Not the one that may have been sent before: it may have been replaced by another's.
            self.generation = Some(generation);
            let purpose = Purpose::NewGeneration { greets: true };
            let id = self.send(Command::NewGeneration(generation), purpose, now);
            self.clearing = Clearing::Sent(id);
        } else {
            let purpose = Purpose::Generation { greets: true };
            self.send(Command::Generation(generation), purpose, now);
        }
    }

    fn replay(&mut self, now: Time) {
        if self.recent_lacks_until.take().is_some_and(|until| now < until) {
            self.clearing = Clearing::Unsent;
            self.generation = None;
            self.pending.clear();
        }
        let oldest = now.since(Time::default()).saturating_sub(self.settings.replay);
        for (at, name) in std::mem::take(&mut self.recent) {
            if at.since(Time::default()) >= oldest {
                self.pending.entry(name).or_insert(None);
            }
        }
    }

    /// The connection was lost, or could not be made.
    pub fn lost(&mut self, why: &str, now: Time) {
        let was_up = matches!(self.link, Link::Up(_));
        if !std::mem::replace(&mut self.is_said_down, true) {
            self.outputs.push_back(Output::Say(Notice::Down(why.into())));
        }
        let pause = if was_up { Duration::ZERO } else { self.backoff() };
        self.attempts = if was_up { 0 } else { self.attempts.saturating_add(1) };
        self.link = Link::Pausing(now.later(pause));
        self.is_stalled = false;
        self.sent.clear();
        self.watched.clear();
        // What was sent may or may not have been done.
        for state in self.pending.values_mut() {
            *state = None;
        }
        if matches!(self.clearing, Clearing::Sent(_)) {
            self.clearing = Clearing::Unsent;
        }
        if was_up {
            match self.settings.while_down {
                WhileDown::Serve => self.uncovered_until = Some(now.later(self.settings.max_uncovered)),
                WhileDown::Bypass => {
                    self.epoch += 1;
                    self.outputs.push_back(Output::Suspect { fences: false });
                }
            }
        }
        let mut alone = Vec::new();
        let mut filling = Vec::new();
        for (&id, ask) in &self.asks {
            match ask.phase {
                Phase::Parked | Phase::Reading | Phase::Acquiring(_) | Phase::Waiting { .. } => {
                    alone.push(id);
                }
                Phase::Filling(_) => filling.push(id),
                Phase::Leading(_) | Phase::Answered { .. } => {}
            }
        }
        self.go_alone(&alone);
        for id in filling {
            self.remove(id);
        }
    }

    /// Grows with the attempts, and differs between processes.
    fn backoff(&mut self) -> Duration {
        let longest = self.settings.most_backoff;
        let growing = Duration::from_millis(50).saturating_mul(1 << self.attempts.min(10));
        let pause = growing.min(longest);
        pause / 2 + pause.mul_f64(f64::from(self.draw() % 1024) / 2048.0)
    }

    fn draw(&mut self) -> u32 {
        // xorshift64: the seed is never 0.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 32) as u32
    }

    /// Bytes have come from the engine.
    pub fn heard(&mut self, now: Time) {
        self.heard_at = now;
        if std::mem::take(&mut self.is_stalled) && std::mem::take(&mut self.is_said_down) {
            self.say_up();
        }
    }

    fn say_up(&mut self) {
        if let Link::Up(abilities) = self.link {
            self.outputs.push_back(Output::Say(Notice::Up(abilities)));
        }
    }

    /// The engine says something.
    pub fn event(&mut self, event: Event, now: Time) {
        match event {
            Event::Reply(id, reply) => match self.sent.pop_front() {
                Some(sent) if sent.id == id => self.reply(sent, reply, now),
                _ => self.disconnect("a reply to no command", now),
            },
            Event::Changed(name) => self.changed(name, now),
            Event::AllChanged => {
                self.epoch += 1;
                self.fence_all(now);
                self.outputs.push_back(Output::Suspect { fences: true });
                self.ask_generation(now);
            }
            Event::GenerationChanged => self.ask_generation(now),
            Event::OwnerChanged(owner) => {
                if let Some(false) = self.watched.get(&owner) {
                    self.check(owner, now);
                }
            }
        }
    }

    fn ask_generation(&mut self, now: Time) {
        if matches!(self.link, Link::Up(_)) && self.clearing == Clearing::No {
            let candidate = Generation(u64::from(self.draw()) << 32 | u64::from(self.draw()));
            self.send(Command::Generation(candidate), Purpose::Generation { greets: false }, now);
        }
    }

    /// Rule 1.
    fn changed(&mut self, name: Name, now: Time) {
        let mut fences = false;
        let mut again = Vec::new();
        for id in self.names.get(&name).cloned().unwrap_or_default() {
            let keeps = self.keeps(RuleName::ChangeFences);
            let Some(ask) = self.asks.get_mut(&id) else { continue };
            if matches!(ask.phase, Phase::Waiting { .. }) {
                again.push(id);
            } else if keeps {
                fences |= ask.may_land();
                ask.is_open = false;
            }
        }
        self.outputs.push_back(Output::Forget { name, fences });
        self.read_later(again, now);
    }

    fn reply(&mut self, sent: Sent, reply: Reply, now: Time) {
        if let Reply::Failed(why) = &reply {
            self.refused(why);
        }
        match sent.what {
            Purpose::Read(ids) => self.was_read(ids, reply, sent.at, now),
            Purpose::Acquire(id, lease, name) => self.was_acquired(id, lease, name, reply, sent.at, now),
            Purpose::Fill(id, lease) => self.was_filled(id, lease, &reply, now),
            Purpose::Extend(id, lease) => self.was_extended(id, lease, &reply),
            Purpose::Put(name) => self.was_put(sent.id, name, &reply, now),
            Purpose::Drop(names) => self.was_dropped(sent.id, names, &reply, now),
            Purpose::Generation { greets } => self.was_told_generation(greets, &reply, now),
            Purpose::NewGeneration { greets } => self.was_begun(sent.id, greets, &reply, now),
            Purpose::IsAlive(owner) => self.was_checked(owner, &reply, now),
            Purpose::Other => {}
        }
    }

    fn refused(&mut self, why: &Arc<str>) {
        if !std::mem::replace(&mut self.is_said_refused, true) {
            self.outputs.push_back(Output::Say(Notice::Refused(Arc::clone(why))));
        }
    }

    fn was_read(&mut self, ids: Vec<AskId>, reply: Reply, sent_at: Time, now: Time) {
        let Reply::Found(found) = reply else {
            let reading = |id: &AskId| self.asks.get(id).is_some_and(|ask| ask.phase == Phase::Reading);
            let ids: Vec<_> = ids.into_iter().filter(reading).collect();
            return self.go_alone(&ids);
        };
        for (id, found) in ids.into_iter().zip(found) {
            if self.asks.get(&id).is_some_and(|ask| ask.phase == Phase::Reading) {
                self.found(id, found, sent_at, now);
            }
        }
    }

    /// What stands under the name of a question.
    fn found(&mut self, id: AskId, found: Found, sent_at: Time, now: Time) {
        let Some(ask) = self.asks.get(&id) else { return };
        let (name, want) = (ask.name.clone(), ask.want);
        match (found, want) {
            (Found::Value(FoundValue { bytes, life }), _) => {
                // Counted from before the engine looked.
                let until = life.map_or(Deadline::NEVER, |life| Deadline::after(sent_at, life));
                self.answer(id, Answer::Value { bytes, until }, true, false);
            }
            (_, Want::Look) => self.answer(id, Answer::Absent, false, false),
            (Found::Absent, Want::Load) => match self.link {
                Link::Up(abilities) if abilities.fences => self.acquire(id, name, None, now),
                _ => self.answer(id, Answer::Alone, false, true),
            },
            (Found::Stub | Found::Foreign(None), Want::Load) => self.answer(id, Answer::Alone, true, false),
            (Found::Foreign(Some(bytes)), Want::Load) => match self.link {
                Link::Up(abilities) if abilities.fences => {
                    self.acquire(id, name, Some(Replaced::Foreign(bytes)), now);
                }
                _ => self.answer(id, Answer::Alone, true, false),
            },
            (Found::Lease(lease), Want::Load) => self.wait_for(id, lease, now),
        }
    }

    fn wait_for(&mut self, id: AskId, lease: Lease, now: Time) {
        let Some(ask) = self.asks.get(&id) else { return };
        let is_held = self.names.get(&ask.name).is_some_and(|ids| {
            ids.iter().any(|other| self.asks.get(other).is_some_and(|ask| ask.holds(lease)))
        });
        let is_foreign = lease.owner != self.owner;
        let waits = ask.is_open || !self.keeps(RuleName::FencedAsksAgain);
        let waits = waits && (is_held || is_foreign || !self.keeps(RuleName::EndWakes));
        if !waits && ask.again < MOST_AT_ONCE {
            // Rule 6; or a lease of this process whose release is on its way.
            let again = ask.again + 1;
            self.read(&[id], now);
            if let Some(ask) = self.asks.get_mut(&id) {
                ask.again = again;
            }
            return;
        }
        let since = match ask.phase {
            Phase::Waiting { since, .. } => since,
            _ => now,
        };
        self.set_phase(id, Phase::Waiting { lease, since });
        let pause = match self.link {
            Link::Up(abilities) if abilities.notifies => {
                self.settings.lease / 2 + Duration::from_millis(u64::from(self.draw() % 256))
            }
            _ => FIRST_POLL,
        };
        self.arm(id, now.later(pause));
        if is_foreign && !self.watched.contains_key(&lease.owner) {
            self.check(lease.owner, now);
        }
    }

    fn check(&mut self, owner: Owner, now: Time) {
        if matches!(self.link, Link::Up(_)) {
            self.watched.insert(owner, true);
            self.send(Command::IsAlive(owner), Purpose::IsAlive(owner), now);
        }
    }

    fn was_checked(&mut self, owner: Owner, reply: &Reply, now: Time) {
        let is_his = |ask: &Ask| matches!(ask.phase, Phase::Waiting { lease, .. } if lease.owner == owner);
        let his: Vec<_> = self.asks.iter().filter(|(_, ask)| is_his(ask)).map(|(&id, _)| id).collect();
        if his.is_empty() {
            self.watched.remove(&owner);
            return;
        }
        self.watched.insert(owner, false);
        if *reply != Reply::Refused {
            return;
        }
        self.watched.remove(&owner);
        for id in his {
            let Some(Ask { name, phase: Phase::Waiting { lease, .. }, .. }) = self.asks.get(&id) else {
                continue;
            };
            let (name, lease) = (name.clone(), *lease);
            self.acquire(id, name, Some(Replaced::Lease(lease)), now);
        }
    }

    /// Asks for a lease. Rules 3 and 10.
    fn acquire(&mut self, id: AskId, name: Name, from: Option<Replaced>, now: Time) {
        if now.later(self.settings.alive / 2) >= self.alive_until {
            self.say_alive(now);
        }
        self.last_lease += 1;
        let serial = if self.keeps(RuleName::LeasePerLoad) { self.last_lease } else { 0 };
        let lease = Lease { owner: self.owner, serial };
        let life = self.settings.lease;
        let command = match from {
            None => Command::Acquire { name: name.clone(), lease, life },
            Some(from) => Command::TakeOver { name: name.clone(), from, lease, life },
        };
        self.set_phase(id, Phase::Acquiring(lease));
        self.arm(id, now.later(self.settings.timeout));
        if let Some(ask) = self.asks.get_mut(&id) {
            ask.is_open |= matches!(command, Command::TakeOver { .. });
        }
        self.send(command, Purpose::Acquire(id, lease, name), now);
    }

    fn say_alive(&mut self, now: Time) {
        self.alive_until = now.later(self.settings.alive);
        let alive = Command::Alive { owner: self.owner, life: self.settings.alive };
        self.send(alive, Purpose::Other, now);
    }

    fn was_acquired(&mut self, id: AskId, lease: Lease, name: Name, reply: Reply, sent_at: Time, now: Time) {
        let asks = self.asks.get(&id).is_some_and(|ask| ask.phase == Phase::Acquiring(lease));
        match reply {
            Reply::Done if asks => {
                if self.keeps(RuleName::GrantForgets) {
                    self.outputs.push_back(Output::Forget { name, fences: false }); // Rule 4.
                }
                self.set_phase(id, Phase::Leading(lease));
                self.arm(id, now.later(self.settings.lease / 3));
                self.outputs.push_back(Output::Answer(id, Answer::Lead));
            }
            Reply::Done => {
                // It came too late; what memory has may be too old as well.
                self.outputs.push_back(Output::Forget { name: name.clone(), fences: false });
                self.send(Command::Release { name: name.clone(), lease }, Purpose::Other, now);
                self.wake(&name, now);
            }
            Reply::Found(found) if asks => {
                if let Some(found) = found.into_iter().next() {
                    self.found(id, found, sent_at, now);
                }
            }
            Reply::Refused if asks => self.read(&[id], now),
            _ if asks => self.go_alone(&[id]),
            _ => self.wake(&name, now),
        }
    }

    fn was_filled(&mut self, id: AskId, lease: Lease, reply: &Reply, now: Time) {
        let Some(ask) = self.asks.get(&id).filter(|ask| ask.phase == Phase::Filling(lease)) else { return };
        let name = ask.name.clone();
        let was_open = ask.is_open;
        self.remove(id);
        match reply {
            Reply::Done => {}
            Reply::Failed(_) => {
                self.outputs.push_back(Output::Forget { name: name.clone(), fences: false });
                self.send(Command::Release { name: name.clone(), lease }, Purpose::Other, now);
            }
            // Nothing that this load put stands there, so its changes are not heard.
            _ if was_open => self.outputs.push_back(Output::Forget { name: name.clone(), fences: false }),
            _ => {}
        }
        self.wake(&name, now); // Rule 5.
    }

    fn was_extended(&mut self, id: AskId, lease: Lease, reply: &Reply) {
        let Some(ask) = self.asks.get_mut(&id).filter(|ask| ask.phase == Phase::Leading(lease)) else {
            return;
        };
        if *reply != Reply::Refused {
            return;
        }
        // Somebody has invalidated, or the lease ran out: for the own callers only.
        let fences = ask.may_land();
        ask.is_open = false;
        let name = ask.name.clone();
        self.set_phase(id, Phase::Answered { is_witnessed: false, puts: false });
        self.disarm(id);
        self.outputs.push_back(Output::Forget { name, fences });
    }

    fn was_put(&mut self, id: CommandId, name: Name, reply: &Reply, now: Time) {
        if self.pending.get(&name) != Some(&Some(id)) {
            return; // written again since
        }
        if matches!(reply, Reply::Failed(_)) {
            // What it could not replace is removed.
            self.remove_names(vec![name.clone()], now);
            self.outputs.push_back(Output::Forget { name, fences: false });
        } else {
            self.acknowledged(name, now);
        }
    }

    fn was_dropped(&mut self, id: CommandId, names: Vec<Name>, reply: &Reply, now: Time) {
        let mine: Vec<_> =
            names.into_iter().filter(|name| self.pending.get(name) == Some(&Some(id))).collect();
        if !matches!(reply, Reply::Failed(_)) {
            for name in mine {
                self.acknowledged(name, now);
            }
        } else if !mine.is_empty() {
            self.disconnect("the engine refuses a removal", now);
        }
    }

    /// A write was acknowledged. Rules 8 and 9.
    fn acknowledged(&mut self, name: Name, now: Time) {
        self.pending.remove(&name);
        self.forget_old_writes(now);
        if self.recent.len() >= self.settings.most_pending {
            self.recent.pop_front();
            self.recent_lacks_until = Some(now.later(self.settings.replay));
        }
        self.recent.push_back((now, name));
    }

    fn forget_old_writes(&mut self, now: Time) {
        while self.recent.front().is_some_and(|&(at, _)| at.later(self.settings.replay) <= now) {
            self.recent.pop_front();
        }
    }

    fn was_told_generation(&mut self, greets: bool, reply: &Reply, now: Time) {
        let Reply::Generation(generation) = *reply else {
            return self.disconnect("the engine does not tell the generation", now);
        };
        if self.clearing != Clearing::No {
            return; // this process has begun another one since
        }
        let known = self.generation.replace(generation);
        if known.is_some_and(|known| known != generation) {
            // Everything was invalidated, by another process.
            self.epoch += 1;
            self.pending.clear();
            self.recent.clear();
            self.fence_all(now);
            self.outputs.push_back(Output::ForgetAll);
        }
        if greets {
            self.rise(now);
        }
    }

    fn was_begun(&mut self, id: CommandId, greets: bool, reply: &Reply, now: Time) {
        if matches!(reply, Reply::Failed(_)) {
            return self.disconnect("the engine refuses a generation", now);
        }
        if self.clearing == Clearing::Sent(id) {
            self.clearing = Clearing::No;
        }
        if greets {
            self.rise(now);
        }
    }

    /// The connection is ready. Rules 7 and 8.
    fn rise(&mut self, now: Time) {
        let Link::Greeting { abilities, .. } = self.link else { return };
        self.link = Link::Up(abilities);
        self.attempts = 0;
        self.uncovered_until = None;
        if self.keeps(RuleName::ConnectionSuspects) {
            self.epoch += 1;
            self.outputs.push_back(Output::Suspect { fences: false });
        }
        self.is_said_down = false;
        self.outputs.push_back(Output::Say(Notice::Up(abilities)));
        let unsent: Vec<_> =
            self.pending.iter().filter(|(_, sent)| sent.is_none()).map(|(name, _)| name.clone()).collect();
        if !unsent.is_empty() {
            if self.keeps(RuleName::PendingIsSent) {
                self.remove_names(unsent, now);
            } else {
                self.pending.clear();
            }
        }
        let parked = |ask: &Ask| ask.phase == Phase::Parked;
        let parked: Vec<_> = self.asks.iter().filter(|(_, ask)| parked(ask)).map(|(&id, _)| id).collect();
        self.read(&parked, now);
    }

    // Time

    /// When [`Machine::tick`] has something to do.
    pub fn wake_at(&self) -> Option<Time> {
        let mut times = vec![self.timers.first().map(|&(at, _)| at), self.uncovered_until];
        match self.link {
            Link::Idle => {}
            Link::Connecting(since) => times.push(Some(since.later(self.silence()))),
            Link::Pausing(until) => times.push(Some(until)),
            Link::Greeting { since, .. } => times.push(Some(since.later(self.silence()))),
            Link::Up(_) => {
                times.push(match self.sent.front() {
                    None => Some(self.heard_at.later(self.settings.heartbeat)),
                    Some(_) if self.is_stalled => Some(self.silent_since().later(self.silence())),
                    Some(_) => Some(self.silent_since().later(self.settings.timeout)),
                });
                if self.leading > 0 {
                    times.push(Some(self.alive_again()));
                }
            }
        }
        times.into_iter().flatten().min()
    }

    fn silence(&self) -> Duration {
        self.settings.silence + self.settings.timeout
    }

    /// Since when the engine owes a word.
    fn silent_since(&self) -> Time {
        self.sent.front().map_or(self.heard_at, |sent| sent.at.max(self.heard_at))
    }

    fn alive_again(&self) -> Time {
        let third = self.settings.alive / 3;
        Time::from_nanos(self.alive_until.as_nanos().saturating_sub(2 * third.as_nanos() as u64))
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Time) {
        if self.uncovered_until.is_some_and(|until| until <= now) {
            self.uncovered_until = None;
            self.epoch += 1;
            self.outputs.push_back(Output::Suspect { fences: false });
        }
        match self.link {
            Link::Idle => {}
            Link::Connecting(since) | Link::Greeting { since, .. } => {
                if since.later(self.silence()) <= now {
                    self.disconnect("no connection in time", now);
                }
            }
            Link::Pausing(until) => {
                if until <= now {
                    self.connect(now);
                }
            }
            Link::Up(_) => self.listen(now),
        }
        while let Some(&(at, id)) = self.timers.first().filter(|&&(at, _)| at <= now) {
            self.timers.remove(&(at, id));
            self.rings(id, now);
        }
    }

    /// Rule 11.
    fn listen(&mut self, now: Time) {
        if self.leading > 0 && self.alive_again() <= now {
            self.say_alive(now);
        }
        let silent_since = self.silent_since();
        if self.sent.is_empty() {
            if self.heard_at.later(self.settings.heartbeat) <= now {
                self.send(Command::Ping, Purpose::Other, now);
            }
        } else if silent_since.later(self.silence()) <= now {
            self.disconnect("the engine is silent", now);
        } else if silent_since.later(self.settings.timeout) <= now && !self.is_stalled {
            self.is_stalled = true;
            if !std::mem::replace(&mut self.is_said_down, true) {
                self.outputs.push_back(Output::Say(Notice::Down("the engine is silent".into())));
            }
            let asks =
                |ask: &Ask| matches!(ask.phase, Phase::Reading | Phase::Acquiring(_) | Phase::Waiting { .. });
            let asking: Vec<_> = self.asks.iter().filter(|(_, ask)| asks(ask)).map(|(&id, _)| id).collect();
            self.go_alone(&asking);
        }
    }

    /// The timer of a question goes off.
    fn rings(&mut self, id: AskId, now: Time) {
        let Some(ask) = self.asks.get_mut(&id) else { return };
        ask.timer = None;
        match ask.phase.clone() {
            Phase::Parked | Phase::Reading | Phase::Acquiring(_) => self.go_alone(&[id]),
            Phase::Waiting { since, .. } if since.later(self.settings.wait) <= now => self.go_alone(&[id]),
            Phase::Waiting { .. } => self.read_later(vec![id], now),
            Phase::Leading(lease) => {
                let name = ask.name.clone();
                self.arm(id, now.later(self.settings.lease / 3));
                if matches!(self.link, Link::Up(_))
                    && self.asks.get(&id).is_some_and(|ask| ask.generation == self.generation)
                {
                    let extend = Command::Extend { name, lease, life: self.settings.lease };
                    self.send(extend, Purpose::Extend(id, lease), now);
                }
            }
            Phase::Filling(_) | Phase::Answered { .. } => {}
        }
    }

    // Parts

    fn connect(&mut self, now: Time) {
        self.link = Link::Connecting(now);
        self.outputs.push_back(Output::Connect);
    }

    fn disconnect(&mut self, why: &str, now: Time) {
        self.outputs.push_back(Output::Disconnect(why.into(), now));
    }

    fn send(&mut self, command: Command, what: Purpose, now: Time) -> CommandId {
        self.last_command += 1;
        let id = CommandId(self.last_command);
        self.sent.push_back(Sent { id, at: now, what });
        let generation = self.generation.unwrap_or(Generation(0));
        self.outputs.push_back(Output::Send { id, generation, command });
        id
    }

    /// Asks the engine what stands under the names of questions.
    fn read(&mut self, ids: &[AskId], now: Time) {
        if !matches!(self.link, Link::Up(_)) || self.is_stalled {
            return self.go_alone(ids);
        }
        let (epoch, generation) = (self.epoch, self.generation);
        let until = now.later(self.settings.timeout);
        let mut names = Vec::new();
        for &id in ids {
            self.set_phase(id, Phase::Reading);
            self.arm(id, until);
            if let Some(ask) = self.asks.get_mut(&id) {
                (ask.epoch, ask.generation, ask.is_open) = (epoch, generation, true);
                names.push(ask.name.clone());
            }
        }
        if !names.is_empty() {
            self.send(Command::Read(names), Purpose::Read(ids.to_vec()), now);
        }
    }

    /// Wakes waiting questions.
    fn read_later(&mut self, ids: Vec<AskId>, now: Time) {
        for &id in &ids {
            if let Some(ask) = self.asks.get_mut(&id) {
                ask.again = 0;
            }
        }
        if !ids.is_empty() {
            self.read(&ids, now);
        }
    }

    /// Wakes the questions that wait for a load of this process.
    fn wake(&mut self, name: &Name, now: Time) {
        if !self.keeps(RuleName::EndWakes) {
            return;
        }
        let waits =
            |id: &AskId| self.asks.get(id).is_some_and(|ask| matches!(ask.phase, Phase::Waiting { .. }));
        let ids = self.names.get(name).into_iter().flatten().copied().filter(waits).collect();
        self.read_later(ids, now);
    }

    fn go_alone(&mut self, ids: &[AskId]) {
        for &id in ids {
            self.answer(id, Answer::Alone, false, false);
        }
    }

    fn answer(&mut self, id: AskId, answer: Answer, is_witnessed: bool, puts: bool) {
        self.set_phase(id, Phase::Answered { is_witnessed, puts });
        self.disarm(id);
        self.outputs.push_back(Output::Answer(id, answer));
    }

    fn set_phase(&mut self, id: AskId, phase: Phase) {
        if let Some(ask) = self.asks.get_mut(&id) {
            let led = matches!(ask.phase, Phase::Leading(_));
            let leads = matches!(phase, Phase::Leading(_));
            self.leading = self.leading + usize::from(leads) - usize::from(led);
            ask.phase = phase;
        }
    }

    fn arm(&mut self, id: AskId, at: Time) {
        self.disarm(id);
        if let Some(ask) = self.asks.get_mut(&id) {
            ask.timer = Some(at);
            self.timers.insert((at, id));
        }
    }

    fn disarm(&mut self, id: AskId) {
        if let Some(at) = self.asks.get_mut(&id).and_then(|ask| ask.timer.take()) {
            self.timers.remove(&(at, id));
        }
    }

    fn remove(&mut self, id: AskId) -> Option<Ask> {
        self.disarm(id);
        let ask = self.asks.remove(&id)?;
        self.leading -= usize::from(matches!(ask.phase, Phase::Leading(_)));
        if let Some(ids) = self.names.get_mut(&ask.name) {
            ids.retain(|&other| other != id);
            if ids.is_empty() {
                self.names.remove(&ask.name);
            }
        }
        Some(ask)
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self)]
    const fn keeps(&self, _: RuleName) -> bool {
        true
    }

    #[cfg(test)]
    fn keeps(&self, rule: RuleName) -> bool {
        self.without != Some(rule)
    }
}

/// The rules that tests leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum RuleName {
    ChangeFences,
    OwnWriteFences,
    OwnWriteWakes,
    LeasePerLoad,
    GrantForgets,
    EndWakes,
    FencedAsksAgain,
    ConnectionSuspects,
    PendingIsSent,
    /// Kept by the engine.
    FillChecks,
    /// Kept by the engine.
    LeaseEnds,
}

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
//! | reading | the engine says what stands under the name | value: answered. Nothing: acquire.
//! Another's lease: wait |
//! | acquiring | the engine says whether the lease was put | yes: lead. No: as after reading |
//! | waiting | the name changes, an own load of it ends, this process writes it, the owner of the
//! lease dies, or the timer | read again, or take the lease over |
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
//! 4. A process drops its own entry of a name when a lease is granted: the change that removed
//!    the value from the engine may have been masked by the own write.
//! 5. The end of an own load wakes the own questions that wait for it.
//! 6. A question that was fenced does not wait for a lease of this process: it asks again.
//! 7. An entry is *covered* if the connection has lived since it was asked for, and something
//!    stands under its name. When a connection is made, everything in memory becomes *suspect*: it
//!    is not served before the engine was asked. Answers to earlier questions land nowhere.
//! 8. A write is pending until the engine has acknowledged it. Pending writes of a lost connection
//!    are removals on the next one, before anything is read; a put that was made while the
//!    connection was being made is put. If there are too many, or everything was cleared, a new
//!    generation begins.
//! 9. If another server has taken over, the writes of the last seconds are removals once more: an
//!    asynchronous replica may have missed them.
//! 10. A sign of life precedes the first lease, so that a lease without one is a dead owner's.
//!     A process whose loads outlive a connection also says that the owners of their leases live.
//!     So a lease that no load holds any more, and whose end the engine may not know, is released
//!     on the next connection, before anything is read.
//! 11. Nobody waits longer than the timeout for an engine that says nothing, and once it was silent
//!     for that long, nobody waits at all until it speaks. A connection that stays silent is lost.
//!     It is asked for a sign of life at intervals, also while it is busy.
//! 12. The values on their way to the engine are bounded: while too many bytes are unanswered, a
//!     stub takes the place of a value, for a short time.
//! 13. The reply to a write may tell of one that ran in a generation which another process had
//!     replaced already; it is then repeated in the present one. So a write is *confirmed* by the
//!     answer to a later question about the generation, if nothing is being repeated then. The
//!     question is asked if somebody waits.
//! 14. A question is answered with the content of the present generation. A reply from an earlier
//!     one, or from one of which there are news, has the question asked again.
//!
//! `writes` has the writes of this process, `confirmations` rule 13, `engine` the connection and
//! the events, `replies` and `written` the replies, `times` the passing of time, `parts` the shared
//! steps.
//!
//! Replies come in the order of the commands. Random numbers come from a seed, so that the same
//! inputs give the same outputs.

mod confirmations;
mod engine;
mod parts;
mod replies;
mod times;
mod writes;
mod written;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub(super) use self::confirmations::Confirmations;
pub use self::confirmations::{Word, WriteMark};
use super::ask::{Answer, Ask, AskId, Landing, Phase, Want};
use super::port::{Abilities, Command, CommandId, Content, Generation, Lease, Name, Owner};
use super::settings::{Settings, WhileDown};
use crate::time::Time;

/// How often a question is sent again at once before it waits.
const MOST_AT_ONCE: u8 = 4;
/// The first pause between two reads of a name whose changes are not heard.
const FIRST_POLL: Duration = Duration::from_millis(20);
/// How many leases without a holder are released on the next connection.
const MOST_ORPHANS: usize = 1024;
/// How many puts wait for a connection that is being made.
const MOST_UNSENT: usize = 1024;

/// An order of the machine, in sequence.
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
    /// The length of its value; rule 12.
    pub(super) bytes: usize,
    pub(super) what: Purpose,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    Read(Vec<AskId>),
    Acquire(AskId, Lease, Name),
    Fill(AskId, Lease),
    Extend(AskId, Lease),
    Release(Name, Lease),
    Put(Name),
    Drop(Vec<Name>),
    Generation {
        greets: bool,
        /// Writes acknowledged after this reply may have missed a new generation; rule 8.
        since: CommandId,
    },
    NewGeneration {
        greets: bool,
    },
    IsAlive(Owner),
    /// Rule 13.
    Ping,
    /// The reply decides nothing.
    Other,
}

/// An acknowledged write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Written {
    pub(super) at: Time,
    /// The last command sent before the acknowledgement. A reply to a later command proves that
    /// all pushes about earlier changes have arrived.
    pub(super) last_sent: CommandId,
    pub(super) name: Name,
}

/// A put that waits for the connection that is being made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Unsent {
    pub(super) content: Content,
    pub(super) life: Option<Duration>,
    pub(super) at: Time,
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
    /// When the engine was asked last for a sign of life.
    pub(super) probed_at: Time,
    pub(super) is_said_down: bool,
    pub(super) is_said_refused: bool,
    /// Until when entries of a lost connection are served.
    pub(super) uncovered_until: Option<Time>,

    /// How many connections were made.
    pub(super) connections: u64,
    pub(super) owner: Owner,
    pub(super) identity: Option<u64>,
    pub(super) generation: Option<Generation>,
    /// Counts the periods of coverage; rule 7.
    pub(super) epoch: u64,
    /// Until when this owner has said to live, and when to say it again.
    pub(super) alive_until: Time,

    pub(super) asks: BTreeMap<AskId, Ask>,
    /// The questions of a name, by their age.
    pub(super) names: BTreeMap<Name, Vec<AskId>>,
    pub(super) timers: BTreeSet<(Time, AskId)>,
    /// How many questions hold a lease.
    pub(super) leading: usize,
    /// Rule 10: leases that nobody holds, and that may stand.
    pub(super) orphans: VecDeque<(Name, Lease)>,
    /// The owners whom questions wait for, and whether one is being asked about.
    pub(super) watched: BTreeMap<Owner, bool>,

    pub(super) sent: VecDeque<Sent>,
    /// The bytes of all of them.
    pub(super) unanswered: usize,
    /// Rule 8: the writes that no engine has acknowledged; `None` is not sent yet.
    pub(super) pending: BTreeMap<Name, Option<CommandId>>,
    /// The puts among them that were made while a connection was being made, and not yet sent.
    pub(super) unsent: BTreeMap<Name, Unsent>,
    pub(super) clearing: Clearing,
    /// Rule 9: the acknowledged writes, oldest first.
    pub(super) recent: VecDeque<Written>,
    /// Until then `recent` lacks some.
    pub(super) recent_lacks_until: Option<Time>,
    /// The `last_sent` of the last one that it lacks.
    pub(super) recent_lacks: Option<CommandId>,
    /// Rule 9: the last acknowledgement of a generation that this process has begun.
    pub(super) cleared_at: Option<Time>,
    /// The command of the last reply, on any connection.
    pub(super) replied: CommandId,
    /// The last question about the generation that news have caused; rule 14.
    pub(super) doubted: CommandId,
    /// Rule 13.
    pub(super) confirmations: Confirmations,
    /// The time of the last transition to `Link::Up`.
    pub(super) up_at: Time,

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
            probed_at: Time::default(),
            is_said_down: false,
            is_said_refused: false,
            uncovered_until: None,
            connections: 0,
            owner: Owner(0),
            identity: None,
            generation: None,
            epoch: 0,
            alive_until: Time::default(),
            asks: BTreeMap::new(),
            names: BTreeMap::new(),
            timers: BTreeSet::new(),
            leading: 0,
            orphans: VecDeque::new(),
            watched: BTreeMap::new(),
            sent: VecDeque::new(),
            unanswered: 0,
            pending: BTreeMap::new(),
            unsent: BTreeMap::new(),
            clearing: Clearing::No,
            recent: VecDeque::new(),
            recent_lacks_until: None,
            recent_lacks: None,
            cleared_at: None,
            replied: CommandId(0),
            doubted: CommandId(0),
            confirmations: Confirmations::default(),
            up_at: Time::default(),
            outputs: VecDeque::new(),
            last_ask: 0,
            last_lease: 0,
            last_command: 0,
            random: seed | 1,
            #[cfg(test)]
            without: None,
        }
    }

    /// The next order.
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

    /// Whether a question waits for a load of another owner, or of this one.
    pub fn is_waiting(&self, id: AskId) -> bool {
        self.asks.get(&id).is_some_and(|ask| matches!(ask.phase, Phase::Waiting { .. }))
    }

    /// The generation, if it is known.
    pub fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// How many writes no engine has acknowledged.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether a connection is being made, or is there.
    pub fn is_connected_soon(&self) -> bool {
        matches!(self.link, Link::Connecting(_) | Link::Greeting { .. } | Link::Up(_))
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
                waits_since: None,
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
            Link::Connecting(since) | Link::Greeting { since, .. } if self.parks(now) => {
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
                let (content, life) = self.bounded(content, life);
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
                let (content, life) = self.bounded(content, life);
                let put = Command::Put { name: name.clone(), content, life };
                self.send(put, Purpose::Put(name), now);
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

    /// What [`Machine::take`] or [`Machine::land`] would answer now.
    pub fn expects(&self, id: AskId) -> Landing {
        let Some(ask) = self.asks.get(&id) else { return Landing::Nothing };
        let is_witnessed = match ask.phase {
            Phase::Leading(_) => matches!(self.link, Link::Up(_)) && ask.generation == self.generation,
            Phase::Answered { is_witnessed, puts } => is_witnessed || puts,
            _ => return Landing::Nothing,
        };
        self.landing(ask, is_witnessed)
    }

    /// What [`Machine::put`] would answer now.
    pub fn expects_of_put(&self) -> Landing {
        self.coverage(true)
    }

    /// Whether a question waits for the connection that is being made.
    fn parks(&self, now: Time) -> bool {
        match self.link {
            Link::Connecting(since) | Link::Greeting { since, .. } => {
                self.attempts == 0 && now < since.later(self.settings.timeout)
            }
            _ => false,
        }
    }

    /// Whether entries of which changes may have been missed are served: the engine is away, and
    /// has not been away for long. Not while questions wait for a connection: the engine is asked.
    pub fn serves_suspects(&self, now: Time) -> bool {
        self.settings.while_down == WhileDown::Serve
            && !matches!(self.link, Link::Up(_))
            && !self.parks(now)
            && self.uncovered_until.is_some_and(|until| now < until)
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
        if self.asks.get(&id).is_some_and(|ask| matches!(ask.phase, Phase::Filling(_))) {
            return; // The reply decides whether memory may keep the value, and ends the question.
        }
        let Some(ask) = self.remove(id) else { return };
        if let Phase::Leading(lease) = ask.phase
            && ask.generation == self.generation
        {
            self.release(ask.name.clone(), lease, now);
        }
        self.wake(&ask.name, now); // Rule 5.
    }
}

/// The rules that tests leave out.
#[cfg_attr(not(test), allow(dead_code, reason = "the engine of the tests keeps some"))]
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
    WritesAreConfirmed,
    ReadsArePresent,
    /// Kept by the engine.
    FillChecks,
    /// Kept by the engine, whose leases end by themselves, and by the release of orphans.
    LeaseEnds,
}

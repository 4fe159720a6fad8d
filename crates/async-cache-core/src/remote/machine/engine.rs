//! Events of the engine, and the connection: rules 7 to 9.

use std::sync::Arc;
use std::time::Duration;

use super::{Clearing, Link, Machine, Notice, Output, Purpose, RuleName, Sent};
use crate::remote::ask::Phase;
use crate::remote::port::{Command, CommandId, Event, Generation, Greeting, Name, Owner, Reply};
use crate::remote::settings::WhileDown;
use crate::time::Time;

impl Machine {
    /// The connection that was wanted is being made from now on.
    pub fn connecting(&mut self, now: Time) {
        if let Link::Connecting(since) = &mut self.link {
            *since = now;
        }
    }

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
        let last_heard = std::mem::replace(&mut self.heard_at, now);
        self.connections += 1;
        self.owner = owner;
        self.alive_until = Time::default();
        self.forget_sent();
        self.watched.clear();
        let is_other = self.identity.replace(greeting.identity).is_some_and(|old| old != greeting.identity);
        if is_other {
            self.replay(last_heard); // Rule 9.
        }
        if self.clearing == Clearing::No {
            // The last connection may have said nothing of changes.
            let since = CommandId(self.confirmations.confirmed);
            let purpose = Purpose::Generation { greets: true, since };
            self.send(Command::Generation(generation), purpose, now);
        } else {
            self.greet_with(generation, now);
        }
    }

    /// Begins a generation before the first question of a connection. Never a generation of an
    /// earlier connection: another process may have replaced it.
    pub(super) fn greet_with(&mut self, generation: Generation, now: Time) {
        self.generation = Some(generation);
        let purpose = Purpose::NewGeneration { greets: true };
        let id = self.send(Command::NewGeneration(generation), purpose, now);
        self.clearing = Clearing::Sent(id);
        self.has_written(id);
        self.is_in_doubt_until(id);
    }

    /// Rule 9. The other server has missed writes from before `last_heard`, however long ago.
    pub(super) fn replay(&mut self, last_heard: Time) {
        let is_recent = |at: Time| at.later(self.settings.replay) > last_heard;
        let lacks = self.recent_lacks_until.take().is_some_and(|until| last_heard < until);
        if lacks || self.cleared_at.is_some_and(is_recent) {
            self.clearing = Clearing::Unsent;
            self.generation = None;
            self.pending.clear();
        }
        let all = std::mem::take(&mut self.recent);
        for written in all.into_iter().filter(|written| is_recent(written.at)) {
            self.pending.entry(written.name).or_insert(None);
        }
        if self.pending.len() > self.settings.most_pending {
            self.clearing = Clearing::Unsent;
            self.generation = None;
            self.pending.clear();
        }
    }

    /// The connection was lost, or could not be made.
    pub fn lost(&mut self, why: &str, now: Time) {
        let was_up = matches!(self.link, Link::Up(_));
        if !std::mem::replace(&mut self.is_said_down, true) {
            self.outputs.push_back(Output::Say(Notice::Down(why.into())));
        }
        // A connection that is lost at once, again and again, is not made without a pause. After a
        // silent connection, no caller waits for the next: rule 11.
        let has_lasted = was_up && !self.is_stalled && now.since(self.up_at) >= self.settings.heartbeat;
        let pause = if has_lasted { Duration::ZERO } else { self.backoff() };
        self.attempts = if has_lasted { 0 } else { self.attempts.saturating_add(1) };
        self.link = Link::Pausing(now.later(pause));
        self.is_stalled = false;
        self.note_orphans();
        self.forget_sent();
        self.unsent.clear();
        self.watched.clear();
        // Commands without a reply may or may not have run.
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

    /// Rule 10. Commands about leases may or may not have run.
    fn note_orphans(&mut self) {
        for sent in std::mem::take(&mut self.sent) {
            match sent.what {
                Purpose::Acquire(_, lease, name) | Purpose::Release(name, lease) => {
                    self.orphaned(name, lease);
                }
                Purpose::Fill(id, lease) => {
                    if let Some(ask) = self.asks.get(&id) {
                        self.orphaned(ask.name.clone(), lease);
                    }
                }
                _ => {}
            }
        }
    }

    /// The front gives the connection up, as at the end of an event loop. The engine is not away,
    /// so nothing is said. The next question or write connects.
    pub fn part(&mut self, now: Time) {
        let is_said_down = std::mem::replace(&mut self.is_said_down, true);
        self.lost("", now);
        self.is_said_down = is_said_down;
        self.attempts = 0;
        self.link = Link::Idle;
    }

    /// Grows with the attempts, and differs between processes.
    pub(super) fn backoff(&mut self) -> Duration {
        let longest = self.settings.most_backoff;
        let growing = Duration::from_millis(50).saturating_mul(1 << self.attempts.min(10));
        let pause = growing.min(longest);
        pause / 2 + pause.mul_f64(f64::from(self.draw() % 1024) / 2048.0)
    }

    pub(super) fn draw_generation(&mut self) -> Generation {
        Generation(u64::from(self.draw()) << 32 | u64::from(self.draw()))
    }

    pub(super) fn draw(&mut self) -> u32 {
        // xorshift64: the seed is never 0.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 32) as u32
    }

    /// Bytes have come from the engine.
    pub fn heard(&mut self, now: Time) {
        // The words of a greeting are another server's, perhaps (rule 9).
        if matches!(self.link, Link::Up(_) | Link::Greeting { .. }) {
            self.heard_at = now;
        }
        if std::mem::take(&mut self.is_stalled) && std::mem::take(&mut self.is_said_down) {
            self.say_up();
        }
    }

    pub(super) fn say_up(&mut self) {
        if let Link::Up(abilities) = self.link {
            self.outputs.push_back(Output::Say(Notice::Up(abilities)));
        }
    }

    /// The engine says something.
    pub fn event(&mut self, event: Event, now: Time) {
        match event {
            Event::Reply(id, reply) => match self.sent.pop_front() {
                Some(sent) if sent.id == id => {
                    self.replied = id;
                    self.unanswered -= sent.bytes;
                    let tells_generation = sent.what.tells_generation(&reply);
                    self.reply(sent, reply, now);
                    if tells_generation {
                        self.was_told(id);
                    }
                }
                _ => self.disconnect("a reply to no command", now),
            },
            Event::Changed(name) => self.changed(name, now),
            Event::AllChanged => {
                self.epoch += 1;
                self.alive_until = Time::default(); // The sign of life may be gone too.
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

    pub(super) fn ask_generation(&mut self, now: Time) {
        let Link::Up(abilities) = self.link else { return };
        if self.clearing == Clearing::No {
            let candidate = self.draw_generation();
            let since = if abilities.notifies { self.replied.0 } else { self.confirmations.confirmed };
            let purpose = Purpose::Generation { greets: false, since: CommandId(since) };
            let id = self.send(Command::Generation(candidate), purpose, now);
            self.is_in_doubt_until(id);
            self.doubted = id;
        }
    }

    /// Rule 1.
    pub(super) fn changed(&mut self, name: Name, now: Time) {
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
        self.read_later(&again, now);
    }

    pub(super) fn reply(&mut self, sent: Sent, reply: Reply, now: Time) {
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
            Purpose::Generation { greets, since } => self.was_told_generation(greets, since, &reply, now),
            Purpose::NewGeneration { greets } => self.was_begun(sent.id, greets, &reply, now),
            Purpose::IsAlive(owner) => self.was_checked(owner, &reply, now),
            Purpose::Release(..) | Purpose::Ping | Purpose::Other => {}
        }
    }

    pub(super) fn refused(&mut self, why: &Arc<str>) {
        if !std::mem::replace(&mut self.is_said_refused, true) {
            self.outputs.push_back(Output::Say(Notice::Refused(Arc::clone(why))));
        }
    }
}

//! The parts that the others share.

use std::time::Duration;

use super::{Link, MOST_ORPHANS, Machine, Output, Purpose, RuleName, Sent};
use crate::remote::ask::{Answer, Ask, AskId, Phase};
use crate::remote::port::{Command, CommandId, Content, Generation, Lease, Name};
use crate::time::Time;

impl Machine {
    pub(super) fn connect(&mut self, now: Time) {
        if self.link == Link::Idle && self.epoch == 0 {
            // What a file has is served as well, if there is no engine.
            self.uncovered_until = Some(now.later(self.settings.max_uncovered));
        }
        self.link = Link::Connecting(now);
        self.outputs.push_back(Output::Connect);
    }

    pub(super) fn disconnect(&mut self, why: &str, now: Time) {
        self.outputs.push_back(Output::Disconnect(why.into(), now));
    }

    pub(super) fn send(&mut self, command: Command, what: Purpose, now: Time) -> CommandId {
        self.last_command += 1;
        let id = CommandId(self.last_command);
        let bytes = match &command {
            Command::Put { content, .. } | Command::Fill { content, .. } => content.len(),
            _ => 0,
        };
        self.unanswered += bytes;
        if what.asks_generation() {
            self.confirmations.asked = id.0;
        }
        self.sent.push_back(Sent { id, at: now, bytes, what });
        let generation = self.generation.unwrap_or(Generation(0));
        self.outputs.push_back(Output::Send { id, generation, command });
        id
    }

    /// Releases a lease, now or on the next connection.
    pub(super) fn release(&mut self, name: Name, lease: Lease, now: Time) {
        if matches!(self.link, Link::Up(_)) {
            let release = Command::Release { name: name.clone(), lease };
            self.send(release, Purpose::Release(name, lease), now);
        } else {
            self.orphaned(name, lease);
        }
    }

    /// Rule 10. The oldest is forgotten first: it ends by itself.
    pub(super) fn orphaned(&mut self, name: Name, lease: Lease) {
        if !self.keeps(RuleName::LeaseEnds) {
            return;
        }
        if self.orphans.len() >= MOST_ORPHANS {
            self.orphans.pop_front();
        }
        self.orphans.push_back((name, lease));
    }

    pub(super) fn forget_sent(&mut self) {
        self.sent.clear();
        self.unanswered = 0;
    }

    /// Rule 12. A stub with its life: changes of the name are heard, and when it ends, the process
    /// that put it removes the value from memory.
    pub(super) fn bounded(&self, content: Content, life: Option<Duration>) -> (Content, Option<Duration>) {
        if self.unanswered <= self.settings.most_unanswered {
            return (content, life);
        }
        let short = self.settings.uncovered_ttl;
        (Content::Stub, Some(life.map_or(short, |life| life.min(short))))
    }

    /// Reads the names of questions.
    pub(super) fn read(&mut self, ids: &[AskId], now: Time) {
        if !matches!(self.link, Link::Up(_)) || self.is_stalled {
            return self.go_alone(ids);
        }
        let (epoch, generation) = (self.epoch, self.generation);
        let until = now.later(self.settings.timeout);
        let mut names = Vec::with_capacity(ids.len());
        for &id in ids {
            let Some(ask) = self.asks.get_mut(&id) else { continue };
            self.leading -= usize::from(matches!(ask.phase, Phase::Leading(_)));
            ask.phase = Phase::Reading;
            (ask.epoch, ask.generation, ask.is_open) = (epoch, generation, true);
            if let Some(before) = ask.timer.replace(until) {
                self.timers.remove(&(before, id));
            }
            self.timers.insert((until, id));
            names.push(ask.name.clone());
        }
        if !names.is_empty() {
            if matches!(self.link, Link::Up(abilities) if !abilities.notifies) {
                // Rule 14: the news of a generation, if any, come before the reply to the read.
                self.send(Command::Ping, Purpose::Ping, now);
            }
            self.send(Command::Read(names), Purpose::Read(ids.to_vec()), now);
        }
    }

    /// Wakes waiting questions.
    pub(super) fn read_later(&mut self, ids: &[AskId], now: Time) {
        for &id in ids {
            if let Some(ask) = self.asks.get_mut(&id) {
                ask.again = 0;
            }
        }
        if !ids.is_empty() {
            self.read(ids, now);
        }
    }

    /// Wakes the questions that wait for a load of this process.
    pub(super) fn wake(&mut self, name: &Name, now: Time) {
        if !self.keeps(RuleName::EndWakes) {
            return;
        }
        let waits =
            |id: &AskId| self.asks.get(id).is_some_and(|ask| matches!(ask.phase, Phase::Waiting { .. }));
        let ids: Vec<_> = self.names.get(name).into_iter().flatten().copied().filter(waits).collect();
        self.read_later(&ids, now);
    }

    pub(super) fn go_alone(&mut self, ids: &[AskId]) {
        for &id in ids {
            self.answer(id, Answer::Alone, false, false);
        }
    }

    pub(super) fn answer(&mut self, id: AskId, answer: Answer, is_witnessed: bool, puts: bool) {
        if let Some(ask) = self.asks.get_mut(&id) {
            self.leading -= usize::from(matches!(ask.phase, Phase::Leading(_)));
            ask.phase = Phase::Answered { is_witnessed, puts };
            if let Some(at) = ask.timer.take() {
                self.timers.remove(&(at, id));
            }
        }
        self.outputs.push_back(Output::Answer(id, answer));
    }

    pub(super) fn set_phase(&mut self, id: AskId, phase: Phase) {
        if let Some(ask) = self.asks.get_mut(&id) {
            let led = matches!(ask.phase, Phase::Leading(_));
            let leads = matches!(phase, Phase::Leading(_));
            self.leading = self.leading + usize::from(leads) - usize::from(led);
            ask.phase = phase;
        }
    }

    pub(super) fn arm(&mut self, id: AskId, at: Time) {
        self.disarm(id);
        if let Some(ask) = self.asks.get_mut(&id) {
            ask.timer = Some(at);
            self.timers.insert((at, id));
        }
    }

    pub(super) fn disarm(&mut self, id: AskId) {
        if let Some(at) = self.asks.get_mut(&id).and_then(|ask| ask.timer.take()) {
            self.timers.remove(&(at, id));
        }
    }

    pub(super) fn remove(&mut self, id: AskId) -> Option<Ask> {
        let ask = self.asks.remove(&id)?;
        if let Some(at) = ask.timer {
            self.timers.remove(&(at, id));
        }
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
    pub(super) const fn keeps(&self, _: RuleName) -> bool {
        true
    }

    #[cfg(test)]
    pub(super) fn keeps(&self, rule: RuleName) -> bool {
        self.without != Some(rule)
    }
}

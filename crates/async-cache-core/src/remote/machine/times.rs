//! Steps of the machine when time has passed: rule 11.

use std::time::Duration;

use super::{Link, Machine, Notice, Output, Purpose};
use crate::remote::ask::{Ask, AskId, Phase};
use crate::remote::port::Command;
use crate::time::Time;

impl Machine {
    /// When [`Machine::tick`] has something to do.
    pub fn wake_at(&self) -> Option<Time> {
        let mut times = vec![self.timers.first().map(|&(at, _)| at), self.uncovered_until];
        match self.link {
            Link::Idle => {}
            Link::Connecting(since) | Link::Greeting { since, .. } => {
                times.push(Some(since.later(self.silence())));
            }
            Link::Pausing(until) => times.push(Some(until)),
            Link::Up(_) => {
                if !self.is_stalled {
                    times.push(Some(self.probed_at.later(self.settings.heartbeat)));
                }
                if !self.sent.is_empty() {
                    let patience = if self.is_stalled { self.silence() } else { self.settings.timeout };
                    times.push(Some(self.silent_since().later(patience)));
                }
                if self.leading > 0 {
                    times.push(Some(self.alive_again()));
                }
            }
        }
        times.into_iter().flatten().min()
    }

    pub(super) fn silence(&self) -> Duration {
        self.settings.silence + self.settings.timeout
    }

    /// Since when the engine owes a word.
    pub(super) fn silent_since(&self) -> Time {
        self.sent.front().map_or(self.heard_at, |sent| sent.at.max(self.heard_at))
    }

    pub(super) fn alive_again(&self) -> Time {
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
    pub(super) fn listen(&mut self, now: Time) {
        if self.leading > 0 && self.alive_again() <= now {
            self.say_alive(now);
        }
        if !self.is_stalled && self.probed_at.later(self.settings.heartbeat) <= now {
            self.probed_at = now;
            self.send(Command::Ping, Purpose::Ping, now);
        }
        if self.sent.is_empty() {
            return;
        }
        let silent_since = self.silent_since();
        if silent_since.later(self.silence()) <= now {
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
    pub(super) fn rings(&mut self, id: AskId, now: Time) {
        let Some(ask) = self.asks.get_mut(&id) else { return };
        ask.timer = None;
        match ask.phase.clone() {
            Phase::Parked | Phase::Reading | Phase::Acquiring(_) => self.go_alone(&[id]),
            Phase::Waiting { since, .. } if since.later(self.settings.wait) <= now => self.go_alone(&[id]),
            Phase::Waiting { .. } => self.read_later(&[id], now),
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
}

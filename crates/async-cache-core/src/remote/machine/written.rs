//! Replies of the engine to writes, and a connection that is ready: rules 7 to 9.

use super::{Clearing, Link, Machine, Notice, Output, Purpose, RuleName, Unsent};
use crate::remote::ask::{Ask, Phase};
use crate::remote::port::{Command, CommandId, Name, Reply};
use crate::time::Time;

impl Machine {
    pub(super) fn was_put(&mut self, id: CommandId, name: Name, reply: &Reply, now: Time) {
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

    pub(super) fn was_dropped(&mut self, id: CommandId, names: Vec<Name>, reply: &Reply, now: Time) {
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
    pub(super) fn acknowledged(&mut self, name: Name, now: Time) {
        self.pending.remove(&name);
        self.forget_old_writes(now);
        if self.recent.len() >= self.settings.most_pending {
            self.recent.pop_front();
            self.recent_lacks_until = Some(now.later(self.settings.replay));
        }
        self.recent.push_back((now, name));
    }

    pub(super) fn forget_old_writes(&mut self, now: Time) {
        while self.recent.front().is_some_and(|&(at, _)| at.later(self.settings.replay) <= now) {
            self.recent.pop_front();
        }
    }

    pub(super) fn was_told_generation(&mut self, greets: bool, reply: &Reply, now: Time) {
        let Reply::Generation(generation) = *reply else {
            return self.disconnect("the engine does not tell the generation", now);
        };
        if self.clearing != Clearing::No {
            // This process has begun another one since.
            if let (true, Some(begun)) = (greets && self.clearing == Clearing::Unsent, self.generation) {
                let purpose = Purpose::NewGeneration { greets };
                self.clearing = Clearing::Sent(self.send(Command::NewGeneration(begun), purpose, now));
            }
            return;
        }
        let known = self.generation.replace(generation);
        if known.is_some_and(|known| known != generation) {
            self.was_cleared(greets, now);
        }
        if greets {
            self.rise(now);
        }
    }

    /// Everything was invalidated, by another process. Its first loads may be older than writes of
    /// this process that were sent under the generation before: those are removals once more. They
    /// were acknowledged since the news of the generation came, or are pending.
    fn was_cleared(&mut self, greets: bool, now: Time) {
        self.epoch += 1;
        self.unsent.clear();
        let asked_since = Time::from_nanos(now.as_nanos().saturating_sub(self.silence().as_nanos() as u64));
        for (at, name) in std::mem::take(&mut self.recent) {
            if at >= asked_since {
                self.pending.entry(name).or_insert(None);
            }
        }
        for state in self.pending.values_mut() {
            *state = None;
        }
        // Before anything is read: this process hears nothing of its own removals.
        if !greets && !self.pending.is_empty() {
            self.remove_names(self.pending.keys().cloned().collect(), now);
        }
        self.fence_all(now);
        self.outputs.push_back(Output::ForgetAll);
    }

    pub(super) fn was_begun(&mut self, id: CommandId, greets: bool, reply: &Reply, now: Time) {
        if matches!(reply, Reply::Failed(_)) {
            return self.disconnect("the engine refuses a generation", now);
        }
        if self.clearing == Clearing::Sent(id) {
            self.clearing = Clearing::No;
        }
        // Rule 9: another server may have the generation before.
        self.recent_lacks_until = Some(now.later(self.settings.replay));
        if greets {
            self.rise(now);
        }
    }

    /// Puts what was put while the connection was made, if that was not long ago: others may have
    /// written since.
    fn put_unsent(&mut self, now: Time) {
        for (name, Unsent { content, life, at }) in std::mem::take(&mut self.unsent) {
            let age = now.since(at);
            let life_left = life.map(|life| life.saturating_sub(age));
            let is_due = self.pending.get(&name) == Some(&None) && age <= self.settings.timeout;
            if is_due && life_left.is_none_or(|life| !life.is_zero()) {
                let put = Command::Put { name: name.clone(), content, life: life_left };
                let id = self.send(put, Purpose::Put(name.clone()), now);
                self.pending.insert(name, Some(id));
            }
        }
    }

    /// The connection is ready. Rules 7 and 8.
    pub(super) fn rise(&mut self, now: Time) {
        let Link::Greeting { abilities, .. } = self.link else { return };
        self.link = Link::Up(abilities);
        self.attempts = self.attempts.max(1); // until a command succeeds
        self.uncovered_until = None;
        if self.keeps(RuleName::ConnectionSuspects) {
            self.epoch += 1;
            self.outputs.push_back(Output::Suspect { fences: false });
        }
        self.is_said_down = false;
        self.outputs.push_back(Output::Say(Notice::Up(abilities)));
        self.put_unsent(now);
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
}

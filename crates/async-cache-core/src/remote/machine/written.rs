//! Replies of the engine to writes, and a connection that is ready: rules 7 to 9.

use super::{Clearing, Link, Machine, Notice, Output, Purpose, RuleName, Unsent, Written};
use crate::remote::ask::{Ask, Phase};
use crate::remote::port::{Command, CommandId, Name, Reply};
use crate::time::Time;

impl Machine {
    pub(super) fn was_put(&mut self, id: CommandId, name: Name, reply: &Reply, now: Time) {
        if self.pending.get(&name) != Some(&Some(id)) {
            if matches!(reply, Reply::Failed(_)) {
                if let Some(&Some(later)) = self.pending.get(&name) {
                    self.is_in_doubt_until(later); // The value before this put stands until then.
                }
                // Nothing stands there, so its changes are not heard.
                self.outputs.push_back(Output::Forget { name, fences: false });
            }
            return; // written again since, or the put of a load
        }
        if matches!(reply, Reply::Failed(_)) {
            // The value that the put could not replace is removed. A question sent after the put
            // may have read this value.
            self.repeat(vec![name.clone()], now);
            self.fence_own(&name, now);
            self.outputs.push_back(Output::Forget { name, fences: true });
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
            self.recent_lacks = self.recent.pop_front().map(|written| written.last_sent);
            self.recent_lacks_until = Some(now.later(self.settings.replay));
        }
        let last_sent = CommandId(self.last_command);
        self.recent.push_back(Written { at: now, last_sent, name });
    }

    pub(super) fn forget_old_writes(&mut self, now: Time) {
        while self.recent.front().is_some_and(|written| written.at.later(self.settings.replay) <= now) {
            self.recent.pop_front();
        }
    }

    pub(super) fn was_told_generation(&mut self, greets: bool, since: CommandId, reply: &Reply, now: Time) {
        let Reply::Generation(generation) = *reply else {
            return self.disconnect("the engine does not tell the generation", now);
        };
        if self.clearing != Clearing::No {
            // This process has begun another one since.
            if greets {
                self.greet_again(now);
            }
            return;
        }
        let known = self.generation.replace(generation);
        if known.is_some_and(|known| known != generation) {
            // Another process has invalidated everything.
            self.epoch += 1;
            self.unsent.clear();
            self.write_again(since, greets, now);
            self.fence_all(now);
            self.outputs.push_back(Output::ForgetAll);
        }
        if greets && self.clearing == Clearing::Unsent {
            self.greet_again(now);
        } else if greets {
            self.rise(now);
        }
    }

    /// Rule 8. Another process may have loaded into the new generation before a write of this
    /// process that reached the old one only.
    fn write_again(&mut self, since: CommandId, greets: bool, now: Time) {
        let lacks = self.recent_lacks.is_some_and(|last_sent| last_sent >= since);
        let missed = self.recent.iter().rev().take_while(|written| written.last_sent >= since);
        let mut names: Vec<_> = missed.map(|written| written.name.clone()).collect();
        names.extend(self.pending.keys().cloned());
        names.sort_unstable();
        names.dedup();
        if lacks || names.len() > self.settings.most_pending {
            // It is not known which, or there are too many.
            let generation = self.draw_generation();
            return self.begin_generation(generation, now);
        }
        if greets {
            self.pending = names.into_iter().map(|name| (name, None)).collect();
        } else if !names.is_empty() {
            self.repeat(names, now);
        }
    }

    /// Rule 13.
    fn repeat(&mut self, names: Vec<Name>, now: Time) {
        self.remove_names(names, now);
        self.is_in_doubt_until(CommandId(self.last_command));
    }

    /// The generation that was begun while the connection was greeted.
    fn greet_again(&mut self, now: Time) {
        let fresh = self.draw_generation();
        self.greet_with(self.generation.unwrap_or(fresh), now);
    }

    pub(super) fn was_begun(&mut self, id: CommandId, greets: bool, reply: &Reply, now: Time) {
        if matches!(reply, Reply::Failed(_)) {
            return self.disconnect("the engine refuses a generation", now);
        }
        if self.clearing == Clearing::Sent(id) {
            self.clearing = Clearing::No;
            self.cleared_at = Some(now);
        }
        if greets && self.clearing == Clearing::Unsent {
            self.greet_again(now);
        } else if greets {
            self.rise(now);
        }
    }

    /// Sends the puts of the time while the connection was made, unless they are old: others may
    /// have written since.
    fn put_unsent(&mut self, now: Time) {
        for (name, Unsent { content, life, at }) in std::mem::take(&mut self.unsent) {
            let age = now.since(at);
            let life_left = life.map(|life| life.saturating_sub(age));
            let is_due = self.pending.get(&name) == Some(&None) && age <= self.settings.timeout;
            if is_due && life_left.is_none_or(|life| !life.is_zero()) {
                let put = Command::Put { name: name.clone(), content, life: life_left };
                let id = self.send(put, Purpose::Put(name.clone()), now);
                self.pending.insert(name, Some(id));
                self.has_written(id);
                self.is_in_doubt_until(id);
            }
        }
    }

    /// The connection is ready. Rules 7 and 8.
    pub(super) fn rise(&mut self, now: Time) {
        let Link::Greeting { abilities, .. } = self.link else { return };
        self.link = Link::Up(abilities);
        self.up_at = now;
        self.probed_at = now;
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
                self.repeat(unsent, now);
            } else {
                self.pending.clear();
            }
        }
        for (name, lease) in std::mem::take(&mut self.orphans) {
            self.release(name, lease, now);
        }
        let parked = |ask: &Ask| ask.phase == Phase::Parked;
        let parked: Vec<_> = self.asks.iter().filter(|(_, ask)| parked(ask)).map(|(&id, _)| id).collect();
        self.read(&parked, now);
    }
}

//! Writes of this process: rules 2 and 8.

use std::time::Duration;

use super::{Clearing, Link, MOST_UNSENT, Machine, Purpose, RuleName, Unsent};
use crate::remote::ask::{Landing, Phase};
use crate::remote::port::{Command, CommandId, Content, Generation, Name};
use crate::time::Time;

impl Machine {
    /// Puts a content under a name. Call it in the step that writes memory, before the write.
    /// Returns how memory may keep the value.
    pub fn put(&mut self, name: &Name, content: Content, life: Option<Duration>, now: Time) -> Landing {
        if self.link == Link::Idle {
            self.connect(now);
        }
        let id = if matches!(self.link, Link::Up(_)) {
            let (content, life) = self.bounded(content, life);
            let put = Command::Put { name: name.clone(), content, life };
            Some(self.send(put, Purpose::Put(name.clone()), now))
        } else {
            self.keep_unsent(name, content, life, now);
            None
        };
        self.await_write(name.clone(), id, now);
        self.fence_own(name, now);
        self.coverage(true)
    }

    /// Keeps a put for the connection that is being made, within bounds: without it, its name is
    /// removed. Rules 8 and 12.
    fn keep_unsent(&mut self, name: &Name, content: Content, life: Option<Duration>, now: Time) {
        self.unsent.remove(name);
        let connects = matches!(self.link, Link::Connecting(_) | Link::Greeting { .. });
        let bytes: usize = self.unsent.values().map(|unsent| unsent.content.len()).sum();
        if connects && self.unsent.len() < MOST_UNSENT && bytes <= self.settings.most_unanswered {
            self.unsent.insert(name.clone(), Unsent { content, life, at: now });
        }
    }

    /// Removes names. Call it in the step that writes memory, before the write.
    pub fn invalidate(&mut self, names: &[Name], now: Time) {
        if names.is_empty() {
            return;
        }
        if self.link == Link::Idle {
            self.connect(now);
        }
        self.remove_names(names.to_vec(), now);
        for name in names {
            self.fence_own(name, now);
        }
    }

    pub(super) fn remove_names(&mut self, names: Vec<Name>, now: Time) {
        let id = matches!(self.link, Link::Up(_)).then(|| {
            let purpose = Purpose::Drop(names.clone());
            self.send(Command::Drop(names.clone()), purpose, now)
        });
        for name in names {
            self.unsent.remove(&name);
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

    pub(super) fn begin_generation(&mut self, generation: Generation, now: Time) {
        self.generation = Some(generation);
        self.epoch += 1;
        self.pending.clear();
        self.unsent.clear();
        self.recent.clear();
        self.clearing = Clearing::Unsent;
        if matches!(self.link, Link::Up(_)) {
            let purpose = Purpose::NewGeneration { greets: false };
            let id = self.send(Command::NewGeneration(generation), purpose, now);
            self.clearing = Clearing::Sent(id);
            self.has_written(id);
            self.is_in_doubt_until(id);
        }
        self.fence_all(now);
    }

    /// Rule 2. After the write was sent: a woken question reads the state after the write.
    pub(super) fn fence_own(&mut self, name: &Name, now: Time) {
        let ids = self.names.get(name).cloned().unwrap_or_default();
        let mut again = Vec::new();
        for id in ids {
            let Some(ask) = self.asks.get_mut(&id) else { continue };
            if matches!(ask.phase, Phase::Waiting { .. }) {
                if self.keeps(RuleName::OwnWriteWakes) {
                    again.push(id);
                }
            } else if self.keeps(RuleName::OwnWriteFences)
                && let Some(ask) = self.asks.get_mut(&id)
            {
                ask.is_open = false;
            }
        }
        self.read_later(&again, now);
    }

    pub(super) fn fence_all(&mut self, now: Time) {
        let mut again = Vec::new();
        for (&id, ask) in &mut self.asks {
            if matches!(ask.phase, Phase::Waiting { .. }) {
                again.push(id);
            } else {
                ask.is_open = false;
            }
        }
        self.read_later(&again, now);
    }

    /// Rule 8.
    pub(super) fn await_write(&mut self, name: Name, id: Option<CommandId>, now: Time) {
        if self.clearing == Clearing::Unsent {
            return; // all is going to be removed
        }
        self.pending.insert(name, id);
        if let Some(id) = id {
            self.has_written(id);
        }
        if self.pending.len() > self.settings.most_pending {
            self.pending.clear();
            self.clearing = Clearing::Unsent;
            if matches!(self.link, Link::Up(_)) {
                self.disconnect("the engine does not acknowledge writes", now);
            }
        }
    }
}

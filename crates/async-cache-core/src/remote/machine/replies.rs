//! Replies of the engine to questions: rules 3 to 6 and 10.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{FIRST_POLL, Link, MOST_AT_ONCE, Machine, Output, Purpose, RuleName};
use crate::remote::ask::{Answer, Ask, AskId, Phase, Want};
use crate::remote::port::{Command, Found, FoundValue, Lease, Name, Owner, Replaced, Reply};
use crate::time::{Deadline, Time};

impl Machine {
    pub(super) fn was_read(&mut self, ids: Vec<AskId>, reply: Reply, sent_at: Time, now: Time) {
        let Reply::Found(found) = reply else {
            let reading = |id: &AskId| self.asks.get(id).is_some_and(|ask| ask.phase == Phase::Reading);
            let ids: Vec<_> = ids.into_iter().filter(reading).collect();
            return self.go_alone(&ids);
        };
        let mut past = Vec::new();
        for (id, found) in ids.into_iter().zip(found) {
            let Some(ask) = self.asks.get(&id).filter(|ask| ask.phase == Phase::Reading) else { continue };
            if self.is_of_present(ask) {
                self.found(id, found, sent_at, now);
            } else {
                past.push(id);
            }
        }
        self.read_again(&past, now);
    }

    /// Rule 14.
    fn is_of_present(&self, ask: &Ask) -> bool {
        let is_of_present = ask.generation == self.generation && self.doubted <= self.replied;
        is_of_present || !self.keeps(RuleName::ReadsArePresent)
    }

    /// The content under the name of a question.
    pub(super) fn found(&mut self, id: AskId, found: Found, sent_at: Time, now: Time) {
        let Some(ask) = self.asks.get(&id) else { return };
        let (name, want) = (ask.name.clone(), ask.want);
        if !self.is_of_present(ask) {
            return self.read_again(&[id], now);
        }
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

    /// Sends questions again, but not for ever.
    fn read_again(&mut self, ids: &[AskId], now: Time) {
        let mut alone = Vec::new();
        let mut again = Vec::new();
        for &id in ids {
            let Some(ask) = self.asks.get_mut(&id) else { continue };
            ask.again += 1;
            if ask.again > 2 * MOST_AT_ONCE { alone.push(id) } else { again.push(id) }
        }
        self.go_alone(&alone);
        if !again.is_empty() {
            self.read(&again, now);
        }
    }

    pub(super) fn wait_for(&mut self, id: AskId, lease: Lease, now: Time) {
        let Some(ask) = self.asks.get(&id) else { return };
        let is_held = self.names.get(&ask.name).is_some_and(|ids| {
            ids.iter().any(|other| self.asks.get(other).is_some_and(|ask| ask.holds(lease)))
        });
        let is_foreign = lease.owner != self.owner;
        let waits = ask.is_open || !self.keeps(RuleName::FencedAsksAgain);
        let waits = waits && (is_held || is_foreign || !self.keeps(RuleName::EndWakes));
        if !waits && ask.again < MOST_AT_ONCE {
            // Rule 6; or a lease of this process whose release is on its way.
            return self.read_again(&[id], now);
        }
        let since = ask.waits_since.unwrap_or(now);
        let until = since.later(self.settings.wait);
        if until <= now {
            return self.go_alone(&[id]);
        }
        if let Some(ask) = self.asks.get_mut(&id) {
            ask.waits_since = Some(since);
        }
        self.set_phase(id, Phase::Waiting { lease, since });
        let notifies = matches!(self.link, Link::Up(abilities) if abilities.notifies);
        let pause = if notifies {
            self.settings.lease / 2 + Duration::from_millis(u64::from(self.draw() % 256))
        } else {
            FIRST_POLL
        };
        self.arm(id, now.later(pause).min(until));
        // The end of an owner that was alive is told, or is found by the next poll.
        let is_watched =
            self.watched.get(&lease.owner).is_some_and(|&is_asked_about| is_asked_about || notifies);
        if is_foreign && !is_watched {
            self.check(lease.owner, now);
        }
    }

    pub(super) fn check(&mut self, owner: Owner, now: Time) {
        if matches!(self.link, Link::Up(_)) {
            self.watched.insert(owner, true);
            self.send(Command::IsAlive(owner), Purpose::IsAlive(owner), now);
        }
    }

    pub(super) fn was_checked(&mut self, owner: Owner, reply: &Reply, now: Time) {
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
    pub(super) fn acquire(&mut self, id: AskId, name: Name, from: Option<Replaced>, now: Time) {
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

    pub(super) fn say_alive(&mut self, now: Time) {
        self.alive_until = now.later(self.settings.alive);
        let of_leads = |ask: &Ask| match ask.phase {
            Phase::Leading(lease) => Some(lease.owner),
            _ => None,
        };
        let mut owners: BTreeSet<_> = self.asks.values().filter_map(of_leads).collect();
        owners.insert(self.owner);
        for owner in owners {
            let alive = Command::Alive { owner, life: self.settings.alive };
            self.send(alive, Purpose::Other, now);
        }
    }

    pub(super) fn was_acquired(
        &mut self,
        id: AskId,
        lease: Lease,
        name: Name,
        reply: Reply,
        sent_at: Time,
        now: Time,
    ) {
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
                // The grant came too late; the entry in memory may be too old as well.
                self.outputs.push_back(Output::Forget { name: name.clone(), fences: false });
                self.release(name.clone(), lease, now);
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

    pub(super) fn was_filled(&mut self, id: AskId, lease: Lease, reply: &Reply, now: Time) {
        let Some(ask) = self.asks.get(&id).filter(|ask| ask.phase == Phase::Filling(lease)) else { return };
        let name = ask.name.clone();
        let was_open = ask.is_open;
        self.remove(id);
        match reply {
            Reply::Done => {}
            Reply::Failed(_) => {
                self.outputs.push_back(Output::Forget { name: name.clone(), fences: false });
                self.release(name.clone(), lease, now);
            }
            // Nothing that this load put stands there, so its changes are not heard.
            _ if was_open => self.outputs.push_back(Output::Forget { name: name.clone(), fences: false }),
            _ => {}
        }
        self.wake(&name, now); // Rule 5.
    }

    pub(super) fn was_extended(&mut self, id: AskId, lease: Lease, reply: &Reply) {
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
}

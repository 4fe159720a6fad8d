//! Facts that hold in a machine after each step, once its outputs are carried out.

use std::collections::{BTreeMap, BTreeSet};

use crate::remote::ask::{AskId, Phase};
use crate::remote::machine::{Clearing, Link, Machine, Purpose};
use crate::remote::port::{CommandId, Name};

fn check(holds: bool, fact: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("not true: {fact}")) }
}

impl Machine {
    pub(super) fn validate(&self) -> Result<(), String> {
        check(!self.has_outputs(), "all outputs are carried out")?;
        self.validate_asks()?;
        self.validate_phases()?;
        self.validate_commands()?;
        let most = self.settings.most_pending;
        check(self.pending.len() <= 2 * most, "the pending writes are bounded")?;
        check(self.recent.len() <= most, "the recent writes are bounded")
    }

    fn validate_asks(&self) -> Result<(), String> {
        let mut names: BTreeMap<Name, Vec<AskId>> = BTreeMap::new();
        let mut timers = BTreeSet::new();
        let mut leading = 0;
        for (&id, ask) in &self.asks {
            names.entry(ask.name.clone()).or_default().push(id);
            timers.extend(ask.timer.map(|at| (at, id)));
            leading += usize::from(matches!(ask.phase, Phase::Leading(_)));
        }
        check(names == self.names, "the names list the questions by age")?;
        check(timers == self.timers, "each timer is a question's")?;
        check(leading == self.leading, "the leading questions are counted")
    }

    fn validate_phases(&self) -> Result<(), String> {
        let is_up = matches!(self.link, Link::Up(_));
        let sent = |asks: &dyn Fn(&Purpose) -> bool| self.sent.iter().any(|sent| asks(&sent.what));
        for (&id, ask) in &self.asks {
            match ask.phase {
                Phase::Parked => {
                    check(!is_up && self.link != Link::Idle, "a parked question has no connection")?;
                    check(ask.timer.is_some(), "a parked question has a timer")?;
                }
                Phase::Reading => {
                    let reads = |what: &Purpose| matches!(what, Purpose::Read(ids) if ids.contains(&id));
                    check(sent(&reads), "a reading question has a command")?;
                }
                Phase::Acquiring(lease) => {
                    let acquires = |what: &Purpose| matches!(what, Purpose::Acquire(by, its, _) if *by == id && *its == lease);
                    check(sent(&acquires), "an acquiring question has a command")?;
                }
                Phase::Waiting { lease, .. } => {
                    let is_foreign = lease.owner != self.owner;
                    let is_watched = !is_foreign || self.watched.contains_key(&lease.owner);
                    check(is_watched, "a waiting question watches the owner of the lease")?;
                }
                Phase::Filling(lease) => {
                    let fills =
                        |what: &Purpose| matches!(what, Purpose::Fill(by, its) if *by == id && *its == lease);
                    check(sent(&fills), "a filling question has a command")?;
                }
                Phase::Leading(_) => check(ask.timer.is_some(), "a leading question has a timer")?,
                Phase::Answered { .. } => check(ask.timer.is_none(), "an answered question has no timer")?,
            }
            if matches!(ask.phase, Phase::Reading | Phase::Acquiring(_) | Phase::Waiting { .. }) {
                check(is_up && !self.is_stalled, "a question waits only for an engine that speaks")?;
                check(ask.timer.is_some(), "a question that waits has a timer")?;
            }
        }
        Ok(())
    }

    fn validate_commands(&self) -> Result<(), String> {
        let ids: BTreeSet<CommandId> = self.sent.iter().map(|sent| sent.id).collect();
        let in_order = self.sent.iter().zip(self.sent.iter().skip(1)).all(|(a, b)| a.id < b.id);
        check(in_order, "commands are sent in the order of their numbers")?;
        check(self.pending.values().flatten().all(|id| ids.contains(id)), "a pending write is under way")?;
        check(!matches!(self.link, Link::Up(_)) || self.generation.is_some(), "the generation is known")?;
        match self.link {
            Link::Idle | Link::Connecting(_) | Link::Pausing(_) => {
                check(ids.is_empty() && self.watched.is_empty(), "without a connection nothing is sent")?;
                check(!matches!(self.clearing, Clearing::Sent(_)), "and no generation")
            }
            Link::Greeting { .. } => check(!ids.is_empty(), "a greeting waits for a reply"),
            Link::Up(_) => {
                check(self.clearing != Clearing::Unsent, "a connected machine has sent its generation")?;
                check(self.pending.values().all(Option::is_some), "and its writes")?;
                let asked = |what: &Purpose| match what {
                    Purpose::IsAlive(owner) => Some(*owner),
                    _ => None,
                };
                let asked: BTreeSet<_> = self.sent.iter().filter_map(|sent| asked(&sent.what)).collect();
                let checked = self.watched.iter().filter(|(_, is_asked)| **is_asked);
                check(
                    checked.into_iter().all(|(owner, _)| asked.contains(owner)),
                    "a checked owner is asked about",
                )
            }
        }
    }
}

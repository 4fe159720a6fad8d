//! States that differ in nothing that any rule looks at are made the same: numbers that only tell
//! things apart are counted from the smallest one.

use std::collections::HashMap;

use super::world::{Process, Stored, World};
use crate::remote::ask::{Ask, AskId, Phase};
use crate::remote::machine::{Clearing, Confirmations, Machine, Purpose};
use crate::remote::port::{Command, CommandId, Event, Found, Lease, Owner, Replaced, Reply};

type Leases = HashMap<Lease, Lease>;

impl Machine {
    /// These owners count as alive.
    pub(super) fn assume_alive(&mut self, owners: &[Owner]) {
        self.watched = owners.iter().map(|&owner| (owner, false)).collect();
        self.alive_until = crate::time::Time::from_nanos(u64::MAX);
    }
}

impl Process {
    /// Counts questions and commands from one.
    pub(super) fn settle(&mut self) {
        let machine = &mut self.machine;
        machine.random = 1;
        machine.alive_until = crate::time::Time::from_nanos(u64::MAX);
        machine.recent.clear();
        machine.recent_lacks_until = None;
        machine.cleared_at = None;
        machine.replied = CommandId(0);
        machine.recent_lacks = None;
        machine.confirmations = Confirmations::default();
        machine.up_at = crate::time::Time::default();
        machine.attempts = 0;
        machine.connections = 0;
        let asks: HashMap<AskId, AskId> =
            machine.asks.keys().enumerate().map(|(at, &id)| (id, AskId(at as u64 + 1))).collect();
        let is_known = |id: &AskId| asks.get(id).copied();
        machine.last_ask = asks.len() as u64;
        machine.asks =
            std::mem::take(&mut machine.asks).into_iter().map(|(id, ask)| (asks[&id], ask)).collect();
        for ask in machine.asks.values_mut() {
            ask.waits_since = None;
        }
        for ids in machine.names.values_mut() {
            *ids = ids.iter().filter_map(is_known).collect();
        }
        machine.timers =
            machine.timers.iter().filter_map(|&(at, id)| is_known(&id).map(|id| (at, id))).collect();
        for flight in &mut self.flights {
            flight.ask = is_known(&flight.ask).unwrap_or(AskId(0));
        }
        let commands: HashMap<CommandId, CommandId> =
            machine.sent.iter().enumerate().map(|(at, sent)| (sent.id, CommandId(at as u64 + 1))).collect();
        machine.last_command = commands.len() as u64;
        machine.doubted = commands.get(&machine.doubted).copied().unwrap_or(CommandId(0));
        for sent in &mut machine.sent {
            sent.id = commands[&sent.id];
            match &mut sent.what {
                Purpose::Read(ids) => {
                    for id in ids {
                        *id = is_known(id).unwrap_or(AskId(0));
                    }
                }
                Purpose::Acquire(id, ..) | Purpose::Fill(id, _) | Purpose::Extend(id, _) => {
                    *id = is_known(id).unwrap_or(AskId(0));
                }
                Purpose::Generation { since, .. } => *since = CommandId(0),
                _ => {}
            }
        }
        for id in machine.pending.values_mut().flatten() {
            *id = commands[id];
        }
        if let Clearing::Sent(id) = &mut machine.clearing {
            *id = commands[id];
        }
        for (id, ..) in &mut self.out {
            *id = commands[id];
        }
        for word in &mut self.inbox {
            if let Event::Reply(id, _) = &mut word.event {
                *id = commands[id];
            }
        }
    }
}

fn of_ask(ask: &mut Ask) -> Option<&mut Lease> {
    match &mut ask.phase {
        Phase::Acquiring(lease)
        | Phase::Waiting { lease, .. }
        | Phase::Leading(lease)
        | Phase::Filling(lease) => Some(lease),
        _ => None,
    }
}

fn of_command(command: &mut Command) -> Vec<&mut Lease> {
    match command {
        Command::TakeOver { from: Replaced::Lease(from), lease, .. } => vec![from, lease],
        Command::Acquire { lease, .. }
        | Command::TakeOver { lease, .. }
        | Command::Fill { lease, .. }
        | Command::Extend { lease, .. }
        | Command::Release { lease, .. } => vec![lease],
        _ => vec![],
    }
}

impl World {
    /// Every place that has a lease.
    fn leases(&mut self) -> Vec<&mut Lease> {
        let mut all = Vec::new();
        for kept in self.engine.entries.values_mut() {
            if let Stored::Lease(lease) = &mut kept.stored {
                all.push(lease);
            }
        }
        for process in &mut self.processes {
            all.extend(process.machine.asks.values_mut().filter_map(of_ask));
            for sent in &mut process.machine.sent {
                match &mut sent.what {
                    Purpose::Acquire(_, lease, _)
                    | Purpose::Fill(_, lease)
                    | Purpose::Extend(_, lease)
                    | Purpose::Release(_, lease) => all.push(lease),
                    _ => {}
                }
            }
            all.extend(process.machine.orphans.iter_mut().map(|(_, lease)| lease));
            all.extend(process.out.iter_mut().flat_map(|(_, _, command, _)| of_command(command)));
            for word in &mut process.inbox {
                if let Event::Reply(_, Reply::Found(found)) = &mut word.event {
                    all.extend(found.iter_mut().filter_map(|found| match found {
                        Found::Lease(lease) => Some(lease),
                        _ => None,
                    }));
                }
            }
        }
        all
    }

    /// Whether a load holds a lease, or will when a command or a reply has arrived.
    pub(super) fn is_in_use(&self, lease: Lease) -> bool {
        self.processes.iter().any(|process| process.machine.asks.values().any(|ask| ask.holds(lease)))
    }

    pub(super) fn leases_end(&self) -> bool {
        use crate::remote::machine::RuleName;
        self.processes.iter().all(|process| process.machine.without != Some(RuleName::LeaseEnds))
    }

    /// Counts the leases of each owner from one.
    pub(super) fn settle_leases(&mut self) {
        let mut found: Vec<Lease> = self.leases().into_iter().map(|lease| *lease).collect();
        found.sort();
        found.dedup();
        let mut last: HashMap<Owner, u64> = HashMap::new();
        let mut renamed = Leases::new();
        for lease in found {
            if lease.serial == 0 {
                renamed.insert(lease, lease); // not unique, because a rule was left out
                continue;
            }
            let serial = last.entry(lease.owner).or_default();
            *serial += 1;
            renamed.insert(lease, Lease { owner: lease.owner, serial: *serial });
        }
        for lease in self.leases() {
            *lease = renamed[lease];
        }
        for process in &mut self.processes {
            let owner = process.machine.owner;
            process.machine.last_lease = last.get(&owner).copied().unwrap_or(0);
        }
    }
}

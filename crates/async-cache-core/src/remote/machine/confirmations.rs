//! The words of the engine about the writes of this process: rule 13.
//!
//! The numbers of commands ascend over all connections, so a number stands for everything before
//! it. A write that is to be sent counts as sent by the next command: writes of a new connection
//! are in doubt until they are answered.

use super::{Clearing, Link, Machine, Purpose, RuleName};
use crate::remote::port::{Command, CommandId, Reply};
use crate::time::Time;

/// The writes of a process until a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteMark(CommandId);

impl WriteMark {
    /// Ascends with time.
    pub fn order(self) -> u64 {
        self.0.0
    }
}

/// The word of the engine about writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// They have run: nobody who asks the engine from now on is told anything older.
    Acknowledged,
    /// Nothing yet.
    Expected,
    /// Nothing, and nothing is expected soon: the engine is away or silent. They are sent again.
    None,
}

/// How far the writes are confirmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(in crate::remote) struct Confirmations {
    /// The last write that was sent.
    written: u64,
    /// The last command that somebody waits for.
    awaited: u64,
    /// The last question about the generation.
    pub(super) asked: u64,
    /// The answer to an earlier question confirms nothing: a write is being repeated, or the
    /// generation may be another one.
    barrier: u64,
    /// Everything until this command is confirmed.
    pub(super) confirmed: u64,
}

impl Machine {
    /// Whether the engine has confirmed everything.
    pub fn is_settled(&self) -> bool {
        let Confirmations { written, confirmed, .. } = self.confirmations;
        self.pending.is_empty() && self.clearing == Clearing::No && written <= confirmed
    }

    /// The writes until now, to be waited for. `None`: the engine has confirmed them.
    pub fn mark(&self) -> Option<WriteMark> {
        let are_sent = matches!(self.link, Link::Up(_));
        let last = if are_sent { self.last_command } else { self.last_command + 1 };
        (!self.is_settled()).then_some(WriteMark(CommandId(last)))
    }

    /// Somebody waits for these writes: the engine is asked about them. Connects if the connection
    /// was given up.
    pub fn wait(&mut self, mark: WriteMark, now: Time) {
        if self.link == Link::Idle {
            self.connect(now);
        }
        // A mark from before a fork is of another machine.
        let last = mark.order().min(self.last_command + 1);
        let awaited = &mut self.confirmations.awaited;
        *awaited = last.max(*awaited);
    }

    /// Call it before commands are written to the connection: asks one question about all writes
    /// that somebody waits for.
    pub fn flush(&mut self, now: Time) {
        let Confirmations { awaited, asked, barrier, confirmed, .. } = self.confirmations;
        if awaited > confirmed && asked < awaited.max(barrier) && self.is_up() {
            self.send(Command::Ping, Purpose::Ping, now);
        }
    }

    /// The word of the engine about writes.
    pub fn word_of(&self, mark: WriteMark, now: Time) -> Word {
        let is_confirmed = self.confirmations.confirmed >= mark.order();
        let is_replied = !self.keeps(RuleName::WritesAreConfirmed) && self.replied.0 >= mark.order();
        if is_confirmed || is_replied {
            Word::Acknowledged
        } else if self.is_up() || self.parks(now) {
            Word::Expected
        } else {
            Word::None
        }
    }

    /// A write was sent, perhaps once more.
    pub(super) fn has_written(&mut self, id: CommandId) {
        self.confirmations.written = id.0;
    }

    /// The answers to earlier questions confirm nothing.
    pub(super) fn is_in_doubt_until(&mut self, id: CommandId) {
        let barrier = &mut self.confirmations.barrier;
        *barrier = id.0.max(*barrier);
    }

    /// The engine has told the generation, and everything that follows from this was done.
    pub(super) fn was_told(&mut self, question: CommandId) {
        let Confirmations { barrier, confirmed, .. } = &mut self.confirmations;
        if matches!(self.link, Link::Up(_)) && question.0 >= *barrier {
            *confirmed = question.0;
        }
    }
}

impl Purpose {
    /// Whether the command asks for the generation, or begins one.
    pub(super) fn asks_generation(&self) -> bool {
        matches!(self, Self::Ping | Self::Generation { .. } | Self::NewGeneration { .. })
    }

    /// Whether the reply says which generation there is.
    pub(super) fn tells_generation(&self, reply: &Reply) -> bool {
        self.asks_generation() && matches!(reply, Reply::Done | Reply::Generation(_))
    }
}

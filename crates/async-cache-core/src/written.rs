//! When entries were written: for caches whose file several processes save to, where the later write wins.
//!
//! Owns the times of the entries in memory, in a table beside the slab, since most caches need none: eight bytes an
//! entry, grown by an eighth. Rules:
//! 1. times are those of the file's clock, in nanoseconds since the Unix epoch; zero is "not known", and older than
//!    everything;
//! 2. a later write has a later time, whatever the clock does; and, if the front says
//!    so ([`Written::not_before`]), than everything in the file;
//! 3. an entry that comes from the file has the time that is written there, not that of its coming;
//! 4. what a load brings has the time at which the load began: what another process wrote or deleted since is later, for
//!    the origin may have been read before it. In one process the fence sees to that.

use crate::lost::Owed;
use crate::time::{FileClock, Time};

/// The times of one store's entries, by slot, and the clock that they come from.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    clock: FileClock,
    /// The latest time that was given.
    last: u64,
    times: Vec<u64>,
    /// The slots whose writes the file has to know of, should they leave before a save.
    owed: Owed,
}

impl Written {
    pub(crate) fn new(clock: FileClock) -> Self {
        Self { clock, last: 0, times: Vec::new(), owed: Owed::default() }
    }

    pub(crate) fn set_clock(&mut self, clock: FileClock) {
        self.clock = clock;
    }

    /// The time of a write that happens now.
    pub(crate) fn next(&mut self, now: Time) -> u64 {
        self.last = self.clock.time_to_file(now).max(self.last.saturating_add(1));
        self.last
    }

    /// The time of the latest write.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The time of a value that was read from the origin at `began`, when `last` was the time of the latest write.
    pub(crate) fn of_load(&self, began: Time, last: u64) -> u64 {
        self.clock.time_to_file(began).max(last.saturating_add(1))
    }

    /// Sees to it that the next time is later than this one.
    pub(crate) fn not_before(&mut self, time: u64) {
        self.last = self.last.max(time);
    }

    /// Notes when the entry of a slot was written, one that is not owed to the file.
    pub(crate) fn set(&mut self, slot: u32, time: u64) {
        self.owed.remove(slot);
        let slot = slot as usize;
        if slot >= self.times.len() {
            let missing = slot + 1 - self.times.len();
            if self.times.capacity() - self.times.len() < missing {
                self.times.reserve_exact(missing.max(self.times.len() / 8));
            }
            self.times.resize(slot + 1, 0);
        }
        self.times[slot] = time;
    }

    pub(crate) fn get(&self, slot: u32) -> u64 {
        self.times.get(slot as usize).copied().unwrap_or(0)
    }

    pub(crate) fn owed(&self) -> &Owed {
        &self.owed
    }

    pub(crate) fn owed_mut(&mut self) -> &mut Owed {
        &mut self.owed
    }

    /// The same for a store without entries.
    pub(crate) fn emptied(&self) -> Self {
        Self { clock: self.clock, last: self.last, times: Vec::new(), owed: Owed::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_write_has_a_later_time_though_the_clock_stands_still() {
        let start = Time::from_nanos(10);
        let mut written = Written::new(FileClock::start(start, 1000, 0));
        assert_eq!([written.next(start), written.next(start)], [1000, 1001]);
        assert_eq!(written.next(Time::from_nanos(30)), 1020);
        assert_eq!(written.next(start), 1021, "nor does it go back");
        written.not_before(5000);
        assert_eq!(written.next(Time::from_nanos(40)), 5001);
    }

    #[test]
    fn a_slot_without_a_time_is_older_than_everything() {
        let mut written = Written::new(FileClock::start(Time::from_nanos(0), 1, 0));
        written.set(3, 7);
        assert_eq!([written.get(0), written.get(3), written.get(4)], [0, 7, 0]);
    }
}

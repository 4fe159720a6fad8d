//! When entries were written: for caches whose file several processes save to, where the later write wins.
//!
//! Owns the times of the entries in memory, in a table beside the slab, since most caches need none: eight bytes an
//! entry, grown by an eighth. Rules:
//! 1. times are those of the wall clock, in nanoseconds since the Unix epoch, for it is the one that the processes of a
//!    host share: a monotonic one stands while the machine is suspended, and says nothing to others. The front reads it
//!    before every write, and tells ([`Written::tell`]). Zero is "not known", and older than everything;
//! 2. a later write has a later time, whatever the clock does; and, if the front says
//!    so ([`Written::not_before`]), than everything in the file;
//! 3. an entry that comes from the file has the time that is written there, not that of its coming;
//! 4. what a load brings has the time at which the load began: what another process wrote or deleted since is later, for
//!    the origin may have been read before it. In one process the fence sees to that.

use crate::lost::Owed;

/// The times of one store's entries, by slot, and what the clock showed last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Written {
    wall: u64,
    /// The latest time that was given.
    last: u64,
    times: Vec<u64>,
    /// The slots whose writes the file has to know of, should they leave before a save.
    owed: Owed,
}

impl Written {
    /// What the wall clock shows.
    pub(crate) fn tell(&mut self, wall: u64) {
        self.wall = wall;
    }

    /// The time of a write that happens now.
    pub(crate) fn next(&mut self) -> u64 {
        self.last = self.of_load();
        self.last
    }

    /// The time of what a load brings that begins now.
    pub(crate) fn of_load(&self) -> u64 {
        self.wall.max(self.last.saturating_add(1))
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
        Self { wall: self.wall, last: self.last, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(wall: u64) -> Written {
        Written { wall, ..Written::default() }
    }

    #[test]
    fn a_later_write_has_a_later_time_though_the_clock_stands_still_or_is_set_back() {
        let mut written = written(1000);
        assert_eq!([written.next(), written.next()], [1000, 1001]);
        written.tell(1020);
        assert_eq!(written.next(), 1020);
        written.tell(900);
        assert_eq!(written.next(), 1021);
        written.not_before(5000);
        assert_eq!(written.next(), 5001);
    }

    #[test]
    fn what_a_load_brings_is_later_than_what_was_written_before_it_began() {
        let mut written = written(1000);
        let before = written.next();
        let load = written.of_load();
        let meanwhile = written.next();
        assert!(before < load && load <= meanwhile);
    }

    #[test]
    fn a_slot_without_a_time_is_older_than_everything() {
        let mut written = written(1);
        written.set(3, 7);
        assert_eq!([written.get(0), written.get(3), written.get(4)], [0, 7, 0]);
    }
}

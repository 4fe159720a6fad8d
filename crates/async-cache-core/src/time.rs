//! Instants, deadlines and times of writing in the core: plain numbers that a front passes in.
//!
//! Owns the number types and their arithmetic, and the mapping between the time in memory and the
//! time in a file. Must not know any clock: the front chooses the zero point of [`Time`].

use std::time::Duration;

/// An instant on the front's monotonic clock, in nanoseconds since a zero point of the front's
/// choosing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The instant `nanos` nanoseconds after the clock's zero point.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's zero point.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The instant `by` later, or the end of the clock.
    #[must_use]
    pub fn later(self, by: Duration) -> Self {
        Self(u64::try_from(by.as_nanos()).map_or(u64::MAX, |nanos| self.0.saturating_add(nanos)))
    }
}

/// The time of an entry's writing: nanoseconds since the Unix epoch, by the wall clock.
///
/// All processes of a host share the wall clock. A monotonic clock stands still while the machine
/// is suspended, and other processes cannot compare it with theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(u64);

impl Stamp {
    /// The time of writing is unknown: older than every other stamp.
    pub const UNKNOWN: Self = Self(0);

    /// The stamp `nanos` nanoseconds after the Unix epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the Unix epoch; 0 for [`Stamp::UNKNOWN`].
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The stamp of a record in a file. A record without a time of writing has [`Stamp::UNKNOWN`].
    pub fn from_file(written_at: Option<u64>) -> Self {
        written_at.map_or(Self::UNKNOWN, Self)
    }

    /// The earliest later stamp.
    #[must_use]
    pub const fn just_after(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The latest earlier stamp; [`Stamp::UNKNOWN`] has none and is returned unchanged.
    #[must_use]
    pub const fn just_before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// The time of an operation, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock: for deadlines.
    pub time: Time,
    /// The wall clock: for times of writing. [`Stamp::UNKNOWN`] if the clock was not read; a shard
    /// that keeps times of writing then gives stamps in the order of the writes, just after the
    /// latest stamp that it knows.
    pub wall: Stamp,
}

impl Now {
    /// The time on both clocks.
    pub const fn new(time: Time, wall: Stamp) -> Self {
        Self { time, wall }
    }

    /// The time for an operation that writes nothing, or for a shard without times of writing: the
    /// wall clock need not be read.
    pub const fn without_wall(time: Time) -> Self {
        Self { time, wall: Stamp::UNKNOWN }
    }
}

/// The instant from which an entry is no longer served, or never.
///
/// A deadline is inclusive: at the deadline the entry is gone, so a time to live of zero is never
/// served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(u64);

impl Deadline {
    /// The deadline of an entry that does not expire.
    pub const NEVER: Self = Self(u64::MAX);

    /// The deadline at `time`.
    pub const fn at(time: Time) -> Self {
        Self(time.0)
    }

    /// The deadline `ttl` after `now`. A `ttl` past the end of the clock (584 years) is
    /// [`Deadline::NEVER`].
    pub fn after(now: Time, ttl: Duration) -> Self {
        Self::at(now.later(ttl))
    }

    /// Whether an entry with this deadline is gone at `now`.
    pub const fn has_passed(self, now: Time) -> bool {
        self.0 <= now.0 && self.0 != u64::MAX
    }

    /// [`Deadline::has_passed`], with two clocks: a cheap clock, which showed `coarse` and lags by
    /// `lag_nanos` at most, and a `precise` clock, which is read only if the deadline is nearer
    /// than the lag. So an entry is never served after its deadline, and almost no hit reads the
    /// precise clock.
    #[inline]
    pub fn has_passed_by(self, coarse: Time, lag_nanos: u64, precise: impl FnOnce() -> Time) -> bool {
        let latest = Time(coarse.0.saturating_add(lag_nanos));
        self.has_passed(coarse) || (self.has_passed(latest) && self.has_passed(precise()))
    }

    /// Whether this is [`Deadline::NEVER`].
    pub const fn is_never(self) -> bool {
        self.0 == u64::MAX
    }

    /// The instant of this deadline, or `None` for [`Deadline::NEVER`].
    pub const fn time(self) -> Option<Time> {
        if self.is_never() { None } else { Some(Time(self.0)) }
    }

    /// The remaining time at `now`: `None` without a deadline, zero once the deadline has passed.
    pub fn remaining(self, now: Time) -> Option<Duration> {
        self.time().map(|time| time.since(now))
    }
}

/// The mapping between instants in memory and instants in the file.
///
/// The time in a file is the wall clock as far as the clock can be believed: it never runs behind
/// an earlier save of the same entries, so a wall clock that is set back lengthens no life.
/// Instants in the file are nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub struct FileClock {
    monotonic: Time,
    /// The file's clock at `monotonic`.
    file: u64,
}

impl FileClock {
    /// The clock of a file that was saved at `saved_at`, by its own clock, and is opened `now`,
    /// when the wall clock shows `wall`. `saved_at` is 0 if there is no file.
    pub fn start(now: Time, wall: u64, saved_at: u64) -> Self {
        Self { monotonic: now, file: wall.max(saved_at) }
    }

    /// The same clock set to the wall clock, unless the wall clock shows less.
    #[must_use]
    pub fn adjusted(self, now: Time, wall: u64) -> Self {
        Self { monotonic: now, file: wall.max(self.to_file(now)) }
    }

    /// The present time of the file's clock, as of its making or adjustment.
    pub const fn file_now(self) -> u64 {
        self.file
    }

    /// A deadline in memory in the form of the file; `None` for an entry that does not expire.
    pub fn deadline_to_file(self, deadline: Deadline) -> Option<u64> {
        deadline.time().map(|time| self.to_file(time))
    }

    /// A deadline in the file in the form of memory.
    pub fn deadline_from_file(self, deadline: Option<u64>) -> Deadline {
        deadline.map_or(Deadline::NEVER, |deadline| {
            Deadline(match deadline.checked_sub(self.file) {
                Some(left) => self.monotonic.0.saturating_add(left),
                None => self.monotonic.0.saturating_sub(self.file - deadline),
            })
        })
    }

    /// An instant in memory in the form of the file.
    pub const fn time_to_file(self, time: Time) -> u64 {
        self.to_file(time)
    }

    const fn to_file(self, time: Time) -> u64 {
        match time.0.checked_sub(self.monotonic.0) {
            Some(later) => self.file.saturating_add(later),
            None => self.file.saturating_sub(self.monotonic.0 - time.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    /// A possible time of the wall clock.
    const WALL: u64 = 50 * 365 * 24 * 3600 * SECOND;

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * SECOND)
    }

    #[test]
    fn a_deadline_is_inclusive_and_never_never_passes() {
        let now = Time::from_nanos(100);
        assert!(Deadline::after(now, Duration::ZERO).has_passed(now));
        assert!(!Deadline::after(now, Duration::from_nanos(1)).has_passed(now));
        assert!(!Deadline::NEVER.has_passed(Time::from_nanos(u64::MAX)));
    }

    #[test]
    fn a_life_longer_than_the_clock_is_for_ever() {
        assert!(Deadline::after(Time::from_nanos(5), Duration::MAX).is_never());
        assert!(Deadline::after(Time::from_nanos(u64::MAX - 1), Duration::from_nanos(9)).is_never());
    }

    #[test]
    fn an_instant_past_the_end_of_the_clock_is_its_end() {
        assert_eq!(at(1).later(Duration::from_secs(2)), at(3));
        assert_eq!(at(1).later(Duration::MAX), Time::from_nanos(u64::MAX));
        assert_eq!(Time::from_nanos(u64::MAX).later(Duration::from_nanos(1)), Time::from_nanos(u64::MAX));
    }

    #[test]
    fn an_unknown_stamp_is_the_oldest() {
        assert_eq!(Stamp::from_file(None), Stamp::UNKNOWN);
        assert_eq!(Stamp::from_file(Some(7)), Stamp::from_nanos(7));
        assert!([0, 1, u64::MAX].iter().all(|&nanos| Stamp::UNKNOWN <= Stamp::from_nanos(nanos)));
        assert_eq!(Stamp::UNKNOWN.just_before(), Stamp::UNKNOWN, "nothing is older");
        assert!(Stamp::UNKNOWN < Stamp::UNKNOWN.just_after());
        assert_eq!(Now::without_wall(at(1)), Now::new(at(1), Stamp::UNKNOWN));
    }

    #[test]
    fn the_coarse_clock_decides_as_the_precise_one_would_and_that_is_read_near_the_deadline_only() {
        for (now, deadline) in (90..=110).flat_map(|now| (80..=120).map(move |deadline| (now, deadline))) {
            // The coarse clock lags by anything up to the promised lag.
            for coarse in now - 10..=now {
                let mut was_read = false;
                let precise = || {
                    was_read = true;
                    at(now)
                };
                let has_passed = Deadline::at(at(deadline)).has_passed_by(at(coarse), 10 * SECOND, precise);
                assert_eq!(has_passed, Deadline::at(at(deadline)).has_passed(at(now)));
                assert_eq!(was_read, coarse < deadline && deadline <= coarse + 10);
            }
        }
        assert!(!Deadline::NEVER.has_passed_by(at(100), u64::MAX, || panic!("it never passes")));
    }

    #[test]
    fn the_clock_of_a_file_never_runs_back() {
        let file = FileClock::start(at(0), WALL, 0);
        assert_eq!(file.adjusted(at(5), 0).file_now(), file.file_now() + 5 * SECOND);
        assert_eq!(file.adjusted(at(5), WALL + 7 * SECOND).file_now(), WALL + 7 * SECOND);
        assert_eq!(FileClock::start(at(0), WALL, WALL + 1).file_now(), WALL + 1);
    }

    #[test]
    fn a_deadline_comes_back_from_the_file_as_it_went() {
        let file = FileClock::start(at(100), WALL, 0);
        for seconds in [0, 99, 100, 101, 5000] {
            let deadline = Deadline::at(at(seconds));
            assert_eq!(file.deadline_from_file(file.deadline_to_file(deadline)), deadline);
        }
        assert!(file.deadline_from_file(None).is_never());
        assert_eq!(file.deadline_to_file(Deadline::NEVER), None);
    }
}

//! Instants and deadlines as the core sees them: plain numbers that a front hands in.
//!
//! Owns the two number types and their arithmetic. Must not know any clock: the zero point of [`Time`] is the
//! front's.

use std::time::Duration;

/// An instant on the front's monotonic clock, in nanoseconds since a zero point of the front's choosing.
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

    /// The time from `earlier` to `self`; zero if `earlier` is the later one.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The instant `by` later, or the end of the clock.
    pub fn later(self, by: Duration) -> Self {
        Self(u64::try_from(by.as_nanos()).map_or(u64::MAX, |nanos| self.0.saturating_add(nanos)))
    }
}

/// The instant from which an entry is no longer served, or never.
///
/// A deadline is inclusive: at the deadline the entry is gone, so a time to live of zero is never served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(u64);

impl Deadline {
    /// The deadline of an entry that does not expire.
    pub const NEVER: Self = Self(u64::MAX);

    /// The deadline at `time`.
    pub const fn at(time: Time) -> Self {
        Self(time.0)
    }

    /// The deadline `ttl` after `now`. A `ttl` past the end of the clock (584 years) is [`Deadline::NEVER`].
    pub fn after(now: Time, ttl: Duration) -> Self {
        Self::at(now.later(ttl))
    }

    /// Whether an entry with this deadline is gone at `now`.
    pub const fn has_passed(self, now: Time) -> bool {
        self.0 <= now.0 && self.0 != u64::MAX
    }

    /// Whether this is [`Deadline::NEVER`].
    pub const fn is_never(self) -> bool {
        self.0 == u64::MAX
    }

    /// The instant of this deadline, or `None` for [`Deadline::NEVER`].
    pub const fn time(self) -> Option<Time> {
        if self.is_never() { None } else { Some(Time(self.0)) }
    }

    /// What is left at `now`: `None` without a deadline, zero once it has passed.
    pub fn remaining(self, now: Time) -> Option<Duration> {
        self.time().map(|time| time.since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}

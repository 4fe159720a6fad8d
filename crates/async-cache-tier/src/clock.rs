//! The system's clocks: the only file of the caches that reads a clock.
//!
//! A hit on an entry with a deadline reads the kernel's coarse clock, which lags by up to a tick.
//! The precise clock is read only if the deadline is nearer than the lag, so an entry is never
//! served after its deadline, and almost no hit reads the precise clock. An entry without a
//! deadline reads no clock.
//!
//! A front may use another clock, such as a clock moved by a test: it then implements
//! [`Memory::time`](crate::Memory::time) and [`Memory::wall`](crate::Memory::wall) itself.

#![allow(clippy::disallowed_methods)] // this file owns the clocks

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_cache_core::time::{Deadline, Time};

pub use system::{other_threads, precise as now};

/// Whether a deadline has passed.
#[inline]
pub fn has_passed(deadline: Deadline) -> bool {
    let (coarse, lag_nanos) = system::coarse();
    deadline.has_passed_by(coarse, lag_nanos, now)
}

/// The time now, or up to a tick of the kernel ago: for work that is not urgent, such as
/// reclaiming.
#[inline]
pub fn roughly_now() -> Time {
    system::coarse().0
}

/// The wall clock, in nanoseconds since the Unix epoch; 0 before the epoch.
#[inline]
pub fn wall() -> u64 {
    system::wall()
}

/// An instant of the wall clock, in nanoseconds since the Unix epoch; 0 before the epoch.
pub fn nanos_since_epoch(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, to_nanos)
}

/// A duration in nanoseconds; the longest that fits for a longer duration (584 years).
pub fn to_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The same instant on a monotonic clock and on a wall clock, as exactly as a few tries allow: the
/// comparison of writes of several processes depends on it.
pub fn both(now: impl Fn() -> Time, wall: impl Fn() -> u64) -> (Time, u64) {
    let read = || {
        let (before, wall, after) = (now(), wall(), now());
        (after.since(before), after, wall)
    };
    let (_, time, wall) = (0..8).map(|_| read()).min_by_key(|(took, ..)| *took).unwrap_or_else(read);
    (time, wall)
}

#[cfg(target_os = "linux")]
mod system {
    use std::time::Duration;

    use async_cache_core::time::Time;
    use rustix::time::{ClockId, clock_gettime};

    /// The most that the coarse clock may lag: ten ticks of the slowest kernel configuration, 100
    /// Hz, because a virtual machine may miss some. A smaller figure would save only precise
    /// readings in the last moments of a life.
    const LAG_NANOS: u64 = 100_000_000;

    /// The time now, on the system's monotonic clock.
    pub fn precise() -> Time {
        read(ClockId::Monotonic)
    }

    #[inline]
    pub(super) fn coarse() -> (Time, u64) {
        (read(ClockId::MonotonicCoarse), LAG_NANOS)
    }

    /// Without `SystemTime`, whose conversion a write would pay for.
    #[inline]
    pub(super) fn wall() -> u64 {
        let time = clock_gettime(ClockId::Realtime);
        let Ok(seconds) = u64::try_from(time.tv_sec) else { return 0 };
        seconds.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec.cast_unsigned())
    }

    /// The total running time of the other threads of this process; `None` if the system does not
    /// provide it.
    #[allow(clippy::unnecessary_wraps)] // other systems do not provide it
    pub fn other_threads() -> Option<Duration> {
        let own = read(ClockId::ThreadCPUTime);
        Some(read(ClockId::ProcessCPUTime).since(own))
    }

    #[inline]
    fn read(clock: ClockId) -> Time {
        let time = clock_gettime(clock);
        // Neither is negative: these clocks count from boot, or from the start of the process.
        Time::from_nanos(time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned())
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::sync::LazyLock;
    use std::time::{Duration, Instant};

    use async_cache_core::time::Time;

    static START: LazyLock<Instant> = LazyLock::new(Instant::now);

    /// The time now, on the system's monotonic clock.
    pub fn precise() -> Time {
        Time::from_nanos(super::to_nanos(START.elapsed()))
    }

    pub(super) fn coarse() -> (Time, u64) {
        (precise(), 0)
    }

    pub(super) fn wall() -> u64 {
        super::nanos_since_epoch(std::time::SystemTime::now())
    }

    /// The total running time of the other threads of this process; `None` if the system does not
    /// provide it.
    pub fn other_threads() -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coarse_clock_decides_as_the_precise_one_would() {
        assert!(has_passed(Deadline::at(now())));
        assert!(!has_passed(Deadline::after(now(), Duration::from_secs(3600))));
        assert!(has_passed(Deadline::at(Time::from_nanos(0))));
    }

    #[test]
    fn the_wall_clock_is_that_of_the_system() {
        let (before, wall, after) = (SystemTime::now(), wall(), SystemTime::now());
        assert!((nanos_since_epoch(before)..=nanos_since_epoch(after)).contains(&wall));
    }

    #[test]
    fn both_clocks_are_read_at_one_instant() {
        let (time, wall_then) = both(now, wall);
        assert!(time <= now());
        assert!(wall_then <= wall() + 1_000_000_000);
    }
}

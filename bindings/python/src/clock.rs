//! The clocks: the only file that reads one.
//!
//! A hit on an entry with a deadline reads the kernel's coarse clock, and the precise one only if the deadline
//! is near; an entry without a deadline reads none.

#![allow(clippy::disallowed_methods)] // this is the file that owns the clocks

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_cache_core::time::{Deadline, Time};

/// Whether a deadline has passed.
#[inline]
pub(crate) fn has_passed(deadline: Deadline) -> bool {
    let (coarse, lag) = system::coarse();
    deadline.has_passed_by(coarse, lag, now)
}

/// Now, on the monotonic clock.
pub(crate) fn now() -> Time {
    system::precise()
}

/// Now, or up to a tick of the kernel ago: for what need not be done at once, such as reclaiming.
pub(crate) fn roughly_now() -> Time {
    system::coarse().0
}

/// The same instant on the monotonic clock and on the wall clock: as exactly as a few tries can tell, since the times at
/// which several processes wrote are compared by it.
pub(crate) fn both() -> (Time, u64) {
    let tries = (0..8).map(|_| {
        let (before, wall, after) = (now(), wall(), now());
        (after.since(before), after, wall)
    });
    let (_, now, wall) =
        tries.min_by_key(|(took, ..)| *took).unwrap_or_else(|| (Duration::ZERO, now(), wall()));
    (now, wall)
}

/// Now, on the wall clock, in nanoseconds since the Unix epoch; 0 before it.
pub(crate) fn wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// For how long the other threads of this process have run altogether, if the system can tell.
pub(crate) fn run_by_others() -> Option<Duration> {
    system::run_by_others()
}

#[cfg(target_os = "linux")]
mod system {
    use std::time::Duration;

    use async_cache_core::time::Time;
    use rustix::time::{ClockId, clock_gettime};

    /// By how much the coarse clock may lag: ten ticks of the slowest kernel configuration, 100 Hz.
    const LAG_NANOS: u64 = 100_000_000;

    pub(super) fn precise() -> Time {
        read(ClockId::Monotonic)
    }

    #[inline]
    pub(super) fn coarse() -> (Time, u64) {
        (read(ClockId::MonotonicCoarse), LAG_NANOS)
    }

    #[allow(clippy::unnecessary_wraps)] // other systems cannot tell
    pub(super) fn run_by_others() -> Option<Duration> {
        let own = read(ClockId::ThreadCPUTime);
        Some(read(ClockId::ProcessCPUTime).since(own))
    }

    #[inline]
    fn read(clock: ClockId) -> Time {
        let time = clock_gettime(clock);
        // None is negative: these clocks count from boot, or from the start of the process.
        Time::from_nanos(time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned())
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::sync::LazyLock;
    use std::time::{Duration, Instant};

    use async_cache_core::time::Time;

    static START: LazyLock<Instant> = LazyLock::new(Instant::now);

    pub(super) fn precise() -> Time {
        Time::from_nanos(u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    pub(super) fn coarse() -> (Time, u64) {
        (precise(), 0)
    }

    pub(super) fn run_by_others() -> Option<Duration> {
        None
    }
}

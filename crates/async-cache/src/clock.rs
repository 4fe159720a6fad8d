//! The clock of a cache: the system's, tokio's, or a clock moved by a test.
//!
//! The system's clocks are read in `async_cache_tier::clock`, which documents their cost.

#![allow(clippy::disallowed_methods)] // this file owns tokio's clock

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_cache_core::time::{Deadline, FileClock, Time};
use async_cache_tier::clock::{self as system, nanos_since_epoch, to_nanos};

/// The source of a cache's time.
///
/// The default is the system's clock. Tests that must not wait use [`Clock::manual`].
#[derive(Clone, Debug, Default)]
pub struct Clock(TimeSource);

#[derive(Clone, Debug, Default)]
enum TimeSource {
    #[default]
    System,
    Manual(ManualClock),
    Tokio(TokioClock),
}

impl Clock {
    /// The system's clocks: the monotonic clock for deadlines in memory, the wall clock for
    /// deadlines in files.
    pub fn system() -> Self {
        Self(TimeSource::System)
    }

    /// A clock that stands still until a test moves it.
    ///
    /// ```
    /// use async_cache::{AsyncCache, Clock};
    /// use std::time::Duration;
    ///
    /// let (clock, hands) = Clock::manual();
    /// let cache = AsyncCache::builder().default_ttl(Duration::from_secs(60)).clock(clock).build()?;
    /// cache.set("key", 1);
    /// hands.advance(Duration::from_secs(59));
    /// assert_eq!(cache.get(&"key"), Some(1));
    /// hands.advance(Duration::from_secs(1));
    /// assert_eq!(cache.get(&"key"), None);
    /// # Ok::<(), async_cache::BuildError>(())
    /// ```
    pub fn manual() -> (Self, ManualClock) {
        let hands = ManualClock::default();
        (Self(TimeSource::Manual(hands.clone())), hands)
    }

    /// The clock of tokio, [`tokio::time::Instant`]: for tests that pause tokio's time
    /// (`start_paused = true`), where entries then expire according to `tokio::time::advance` and
    /// sleeps. Elsewhere it runs like the system's monotonic clock. The wall clock in files begins
    /// at the system's at the time of this call, and continues with tokio's.
    ///
    /// The default, the system's clock, does not stand still when tokio's is paused. A paused clock
    /// belongs to a single runtime: use a cache with this clock only within that runtime.
    ///
    /// ```
    /// use async_cache::{AsyncCache, Clock};
    /// use std::time::Duration;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = AsyncCache::builder().default_ttl(Duration::from_secs(60)).clock(Clock::tokio()).build()?;
    /// cache.set("key", 1);
    /// tokio::time::sleep(Duration::from_secs(59)).await;
    /// assert_eq!(cache.get(&"key"), Some(1));
    /// tokio::time::sleep(Duration::from_secs(1)).await;
    /// assert_eq!(cache.get(&"key"), None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn tokio() -> Self {
        let wall = system::wall();
        Self(TimeSource::Tokio(TokioClock { start: tokio::time::Instant::now(), wall }))
    }

    /// Now, on the monotonic clock.
    pub(crate) fn now(&self) -> Time {
        match &self.0 {
            TimeSource::System => system::now(),
            TimeSource::Tokio(clock) => Time::from_nanos(clock.since_start()),
            TimeSource::Manual(hands) => Time::from_nanos(hands.0.monotonic.load(Ordering::Acquire)),
        }
    }

    /// Whether a deadline has passed.
    #[inline]
    pub(crate) fn has_passed(&self, deadline: Deadline) -> bool {
        match &self.0 {
            TimeSource::System => system::has_passed(deadline),
            TimeSource::Manual(_) | TimeSource::Tokio(_) => deadline.has_passed(self.now()),
        }
    }

    /// Now, on the wall clock, in nanoseconds since the Unix epoch; 0 before it.
    pub(crate) fn wall(&self) -> u64 {
        match &self.0 {
            TimeSource::System => system::wall(),
            TimeSource::Manual(hands) => hands.0.wall.load(Ordering::Acquire),
            TimeSource::Tokio(clock) => clock.wall.saturating_add(clock.since_start()),
        }
    }

    /// The clock of a file that was saved at `saved_at` and is opened now; `saved_at` is 0 if there
    /// is no file.
    pub(crate) fn start_file(&self, saved_at: u64) -> FileClock {
        let (now, wall) = system::both(|| self.now(), || self.wall());
        FileClock::start(now, wall, saved_at)
    }
}

#[derive(Clone, Debug)]
struct TokioClock {
    /// The zero of the monotonic clock.
    start: tokio::time::Instant,
    /// The wall clock at `start`, in nanoseconds since the Unix epoch.
    wall: u64,
}

impl TokioClock {
    fn since_start(&self) -> u64 {
        to_nanos(tokio::time::Instant::now().saturating_duration_since(self.start))
    }
}

/// The hands of a [`Clock::manual`]. Clones move the same clock.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Hands>);

#[derive(Debug)]
struct Hands {
    /// Nanoseconds since the clock was made.
    monotonic: AtomicU64,
    /// Nanoseconds since the Unix epoch.
    wall: AtomicU64,
}

impl Default for ManualClock {
    /// Both clocks at zero, the wall clock at the Unix epoch plus 50 years.
    fn default() -> Self {
        let wall = Duration::from_secs(50 * 365 * 24 * 3600);
        Self(Arc::new(Hands { monotonic: AtomicU64::new(0), wall: AtomicU64::new(to_nanos(wall)) }))
    }
}

impl ManualClock {
    /// Time goes by, on both clocks. They stop at their end, after 584 years.
    pub fn advance(&self, by: Duration) {
        for clock in [&self.0.monotonic, &self.0.wall] {
            let later = |nanos: u64| Some(nanos.saturating_add(to_nanos(by)));
            // Fails only where `later` is `None`, which never happens.
            let _ = clock.fetch_update(Ordering::AcqRel, Ordering::Acquire, later);
        }
    }

    /// Somebody sets the wall clock, forwards or backwards. The monotonic clock does not notice.
    pub fn set_wall(&self, to: SystemTime) {
        self.0.wall.store(nanos_since_epoch(to), Ordering::Release);
    }

    /// The time of the wall clock.
    pub fn wall(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.0.wall.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A test that advanced a clock by `Duration::MAX`, to make everything expire, wrapped it: time
    /// ran backwards, and expired entries were served again.
    #[test]
    fn a_manual_clock_stops_at_its_end_and_never_runs_back() {
        let (clock, hands) = Clock::manual();
        hands.advance(Duration::from_secs(5));
        hands.advance(Duration::MAX);
        assert_eq!((clock.now().as_nanos(), clock.wall()), (u64::MAX, u64::MAX));
        hands.advance(Duration::from_secs(5));
        assert_eq!((clock.now().as_nanos(), clock.wall()), (u64::MAX, u64::MAX));
        assert_eq!(hands.wall(), UNIX_EPOCH + Duration::from_nanos(u64::MAX));
        hands.set_wall(UNIX_EPOCH + Duration::from_secs(1));
        assert_eq!(clock.wall(), 1_000_000_000);
    }
}

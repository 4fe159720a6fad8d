//! The settings of the machine.

use std::time::Duration;

/// The treatment of entries in memory while the engine cannot be heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WhileDown {
    /// They are served, for a time.
    Serve,
    /// They are not served.
    Bypass,
}

/// The times of a tier beyond one host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// How long a caller waits for the engine.
    pub timeout: Duration,
    /// How long a lease stands without an extension.
    pub lease: Duration,
    /// How long a caller waits for another process's load, in all.
    pub wait: Duration,
    /// How long a sign of life counts.
    pub alive: Duration,
    /// At such intervals the engine is asked for a sign of life.
    pub heartbeat: Duration,
    /// After so long without a word that was asked for, the connection counts as lost.
    pub silence: Duration,
    /// The longest pause between two attempts to connect.
    pub most_backoff: Duration,
    /// After another server has taken over, the invalidations of this time are sent again.
    pub replay: Duration,
    /// How many invalidations are kept for a server that is away. If there are more, all is
    /// invalidated.
    pub most_pending: usize,
    /// How many bytes of values are on their way to the engine before values are left out.
    pub most_unanswered: usize,
    /// The treatment of entries in memory while the engine cannot be heard.
    pub while_down: WhileDown,
    /// How long entries are served while the engine cannot be heard.
    pub max_uncovered: Duration,
    /// How long an entry is kept in memory of which the engine tells no changes.
    pub uncovered_ttl: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_millis(250),
            lease: Duration::from_secs(10),
            wait: Duration::from_secs(30),
            alive: Duration::from_secs(3),
            heartbeat: Duration::from_secs(1),
            silence: Duration::from_secs(1),
            most_backoff: Duration::from_secs(5),
            replay: Duration::from_secs(30),
            most_pending: 10_000,
            most_unanswered: 64 * 1024 * 1024,
            while_down: WhileDown::Serve,
            max_uncovered: Duration::from_secs(30),
            uncovered_ttl: Duration::from_secs(5),
        }
    }
}

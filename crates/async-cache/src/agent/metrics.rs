//! Counters: for each tool, for each session, and for the process.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The counters of tools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AgentMetrics {
    /// Calls that were served from a cache.
    pub hits: u64,
    /// Calls that were not served.
    pub misses: u64,
    /// Writes that made results stale.
    pub invalidations: u64,
    /// Calls that would have continued a loop.
    pub loop_detections: u64,
}

impl AgentMetrics {
    /// The share of hits, from 0.0 to 1.0; 0.0 if nothing was asked.
    #[allow(clippy::cast_precision_loss)] // a ratio of counts; 2^53 calls are enough
    pub fn hit_rate(&self) -> f64 {
        match self.hits + self.misses {
            0 => 0.0,
            asked => self.hits as f64 / asked as f64,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct AgentCounts {
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) invalidations: AtomicU64,
    pub(super) loop_detections: AtomicU64,
}

pub(super) static TOTAL: AgentCounts = AgentCounts::new();

impl AgentCounts {
    pub(super) const fn new() -> Self {
        Self {
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            invalidations: AtomicU64::new(0),
            loop_detections: AtomicU64::new(0),
        }
    }

    pub(super) fn metrics(&self) -> AgentMetrics {
        AgentMetrics {
            hits: self.hits.load(Relaxed),
            misses: self.misses.load(Relaxed),
            invalidations: self.invalidations.load(Relaxed),
            loop_detections: self.loop_detections.load(Relaxed),
        }
    }

    pub(super) fn reset(&self) {
        for count in [&self.hits, &self.misses, &self.invalidations, &self.loop_detections] {
            count.store(0, Relaxed);
        }
    }
}

/// Adds one.
pub(super) fn raise(count: &AtomicU64) {
    count.fetch_add(1, Relaxed);
}

/// The counters over all tools and all sessions of the process, including sessions that have ended.
pub fn metrics() -> AgentMetrics {
    TOTAL.metrics()
}

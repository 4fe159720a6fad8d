//! The handles that keep a session open.

use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use super::detection::LoopDetection;
use super::frame::{self, Frame, Guard};
use super::metrics::AgentMetrics;
use super::registry;
use super::shared::SessionState;

/// Opens an [`AgentSession`].
#[derive(Clone, Debug, Default)]
#[must_use = "no session is open before `open`"]
pub struct SessionBuilder {
    id: Option<String>,
    loop_detection: Option<LoopDetection>,
}

impl SessionBuilder {
    /// The id; without it, the session gets a new id. The same id in several places at once is a
    /// single session.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Watches calls of tools for loops. Without it, a session inside another session is watched by
    /// the outer session.
    pub fn loop_detection(mut self, detection: LoopDetection) -> Self {
        self.loop_detection = Some(detection);
        self
    }

    /// Opens the session, or enters it if it is already open.
    pub fn open(self) -> AgentSession {
        let id = self.id.unwrap_or_else(own_id);
        let session = registry::enter(&id);
        let guard = self.loop_detection.map(|detection| {
            Arc::new(Guard {
                limits: detection.limits,
                considers_results: detection.considers_results,
                on_loop: detection.on_loop,
                session: Arc::clone(&session),
            })
        });
        AgentSession { session, guard }
    }
}

/// An id that no other session has.
fn own_id() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    id_of(std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// The id of the session with this number in a process. A forked child continues with a copy of its
/// parent's random state and numbers, so only its process id distinguishes its sessions from its
/// parent's.
fn id_of(process: u32, number: u64) -> String {
    static RANDOM: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    format!("{:016x}-{number}", RANDOM.hash_one(process))
}

/// An open session: the results of tools with scope "session" are cached in the session, and end
/// with it.
///
/// The session ends when this handle and all others with the same id have been dropped. The drop
/// never waits: a running call answers its callers, and stores nothing.
pub struct AgentSession {
    session: Arc<SessionState>,
    guard: Option<Arc<Guard>>,
}

impl fmt::Debug for AgentSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentSession").field("id", &self.session.id).finish_non_exhaustive()
    }
}

impl AgentSession {
    /// Begins a session.
    pub fn builder() -> SessionBuilder {
        SessionBuilder::default()
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.session.id
    }

    /// Runs a future in the session. Sessions nest: the innermost session counts.
    ///
    /// For loop detection, each run is a separate sequence of calls.
    ///
    /// # Cancel safety
    /// As that of the future.
    pub async fn run<F: Future>(&self, future: F) -> F::Output {
        let frame = Frame::of_session(Arc::clone(&self.session), self.guard.clone());
        frame::within(Some(frame), future).await
    }

    /// The counters of calls in the session, from all places where it is open.
    pub fn metrics(&self) -> AgentMetrics {
        self.session.counts.metrics()
    }
}

impl Drop for AgentSession {
    fn drop(&mut self) {
        registry::leave(&self.session.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A forked child gave its sessions the ids of its parent's sessions.
    #[test]
    fn ids_differ_by_process_and_by_number() {
        let ids = [id_of(1, 1), id_of(1, 2), id_of(2, 1), own_id(), own_id()];
        for (at, id) in ids.iter().enumerate() {
            assert!(!ids[..at].contains(id), "{ids:?}");
        }
        assert_eq!(id_of(1, 1), ids[0]);
    }
}

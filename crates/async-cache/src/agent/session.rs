//! Sessions: the caches of a session, one for each tool called inside, and the handles that keep
//! the session open.
//!
//! Invariant: every result in a session's caches was loaded in the session, and only [`Shared`]
//! leads to these caches. An ended session has no caches and gets none, so a late call finds
//! nothing and leaves nothing behind.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, Hash, RandomState};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use async_cache_core::agent::Limits;
use parking_lot::Mutex;

use super::frame::{self, Frame, Guard};
use super::metrics::{AgentMetrics, Counts};
use super::registry;
use crate::cache::AsyncCache;

/// The state shared by all handles of a session.
pub(super) struct Shared {
    pub(super) id: String,
    /// By the number of the tool; `None` once the session has ended.
    caches: Mutex<Option<HashMap<usize, Kept>>>,
    pub(super) counts: Counts,
}

/// The cache of a tool.
struct Kept {
    resource: &'static str,
    cache: Arc<dyn Any + Send + Sync>,
    remove_all: fn(&dyn Any),
}

impl Shared {
    pub(super) fn new(id: &str) -> Self {
        Self { id: id.to_owned(), caches: Mutex::new(Some(HashMap::new())), counts: Counts::new() }
    }

    /// The cache of a tool, if the tool was called in this session.
    pub(super) fn cache<K: 'static, V: 'static>(&self, tool: usize) -> Option<AsyncCache<K, V>> {
        let caches = self.caches.lock();
        caches.as_ref()?.get(&tool)?.cache.downcast_ref::<AsyncCache<K, V>>().cloned()
    }

    /// [`Shared::cache`], made if need be; `None` once the session has ended.
    pub(super) fn cache_or_make<K, V>(
        &self,
        tool: usize,
        resource: &'static str,
        make: impl FnOnce() -> AsyncCache<K, V>,
    ) -> Option<AsyncCache<K, V>>
    where
        K: Hash + Eq + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
    {
        if let Some(cache) = self.cache(tool) {
            return Some(cache);
        }
        // With nothing locked; another thread may be first.
        let new = make();
        let mut caches = self.caches.lock();
        let kept = caches.as_mut()?.entry(tool).or_insert_with(|| Kept {
            resource,
            cache: Arc::new(new),
            remove_all: |cache| {
                let cache = cache.downcast_ref::<AsyncCache<K, V>>().expect("it was put there as one");
                cache.inner.remove_all();
            },
        });
        kept.cache.downcast_ref::<AsyncCache<K, V>>().cloned()
    }

    /// Removes the cached results of a resource's tools.
    pub(super) fn remove_all(&self, resource: &str) {
        let of_resource: Vec<_> = {
            let caches = self.caches.lock();
            let caches = caches.iter().flat_map(HashMap::values).filter(|kept| kept.resource == resource);
            caches.map(|kept| (Arc::clone(&kept.cache), kept.remove_all)).collect()
        };
        for (cache, remove_all) in of_resource {
            remove_all(&*cache);
        }
    }

    /// Ends the session: nothing is kept, and running loads are fenced.
    pub(super) fn end(&self) {
        let caches = self.caches.lock().take();
        for kept in caches.into_iter().flat_map(HashMap::into_values) {
            (kept.remove_all)(&*kept.cache);
        }
    }
}

/// The reaction to a call that would continue a loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnLoop {
    /// The call returns [`ToolError::Loop`](super::ToolError::Loop), and the tool does not run.
    #[default]
    Error,
    /// A warning goes to the log (`tracing`), and the call is made.
    Warn,
    /// The call returns the cached result, or
    /// [`ToolError::ShortCircuited`](super::ToolError::ShortCircuited), and the tool does not run.
    ShortCircuit,
}

/// When the calls of a session count as a loop, and the reaction.
///
/// A loop is the same call with the same result more than `max_tool_repeats` times in a row; a
/// cycle of 2 to 8 calls that continues after half as many rounds (3 for 5, at least 2); or tools
/// called inside tools more than `max_execution_depth` deep. The same call with another result is
/// progress. Results are compared in the form written by serde.
#[derive(Clone, Debug)]
#[must_use]
pub struct LoopDetection {
    limits: Limits,
    on_loop: OnLoop,
    considers_results: bool,
}

impl Default for LoopDetection {
    fn default() -> Self {
        Self::new()
    }
}

impl LoopDetection {
    /// 5 repeats, a depth of 50, and an error.
    pub fn new() -> Self {
        let max_repeats = NonZeroU32::new(5).expect("it is not zero");
        Self {
            limits: Limits { max_repeats, max_depth: 50 },
            on_loop: OnLoop::Error,
            considers_results: true,
        }
    }

    /// How often in a row a call may have the same result.
    pub fn max_tool_repeats(mut self, repeats: NonZeroU32) -> Self {
        self.limits.max_repeats = repeats;
        self
    }

    /// How deep calls of tools may nest.
    pub fn max_execution_depth(mut self, depth: u32) -> Self {
        self.limits.max_depth = depth;
        self
    }

    /// The reaction to a loop.
    pub fn on_loop(mut self, on_loop: OnLoop) -> Self {
        self.on_loop = on_loop;
        self
    }

    /// The same call with another result is no progress, either.
    pub fn ignoring_results(mut self) -> Self {
        self.considers_results = false;
        self
    }
}

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
    session: Arc<Shared>,
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

//! The registry of the process: sessions by id, tools by resource. The rules are the core's.

use std::fmt;
use std::sync::{Arc, LazyLock};

use async_cache_core::agent::{Resources, Sessions};
use parking_lot::Mutex;

use super::frame;
use super::metrics::{TOTAL, raise};
use super::scope::Scope;
use super::shared::SessionState;

/// A tool, as seen by a write.
pub(super) trait ReaderTool: Sync {
    /// Removes the results cached for all users.
    fn remove_all(&self);
    /// Counts that a write with this scope made results of the tool stale.
    fn count_write(&self, scope: Scope);
}

static SESSIONS: LazyLock<Mutex<Sessions<Arc<SessionState>>>> = LazyLock::new(Mutex::default);
static RESOURCES: Mutex<Resources<&'static dyn ReaderTool>> = Mutex::new(Resources::new());

/// Enters a session.
pub(super) fn enter(id: &str) -> Arc<SessionState> {
    Arc::clone(SESSIONS.lock().enter(id, || Arc::new(SessionState::new(id))))
}

/// Leaves a session; the last leaver ends the session.
pub(super) fn leave(id: &str) {
    let ended = SESSIONS.lock().leave(id);
    if let Some(session) = ended {
        session.end();
    }
}

/// How many sessions are open.
pub(super) fn open_sessions() -> Vec<Arc<SessionState>> {
    SESSIONS.lock().iter().cloned().collect()
}

/// Records that a tool reads a resource; returns whether the resource was written to before.
pub(super) fn register(resource: &str, tool: &'static dyn ReaderTool) -> bool {
    RESOURCES.lock().register(resource, tool)
}

fn readers(resource: &str) -> Vec<&'static dyn ReaderTool> {
    RESOURCES.lock().readers(resource, |&tool| Some(tool))
}

/// A running write: its stale results have been removed, and are removed again when this guard is
/// dropped. From [`writing`].
#[must_use = "what is cached during the write has to go after it"]
pub struct Writing {
    resource: &'static str,
    scope: Scope,
    session: Option<Arc<SessionState>>,
}

impl fmt::Debug for Writing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, scope, .. } = self;
        f.debug_struct("Writing").field("resource", resource).field("scope", scope).finish_non_exhaustive()
    }
}

/// Begins a write to a resource: all results of its tools are removed, and running loads are
/// fenced, now and again when the returned guard is dropped.
/// [`#[agent_invalidates]`](macro@crate::agent_invalidates) does so around a function.
///
/// [`Scope::Global`]: the results cached for all users, and those cached in the active session.
/// [`Scope::Session`]: only the latter.
pub fn writing(resource: &'static str, scope: Scope) -> Writing {
    let session = frame::current().map(|frame| Arc::clone(&frame.session));
    raise(&TOTAL.invalidations);
    if let Some(session) = &session {
        raise(&session.counts.invalidations);
    }
    if scope == Scope::Global {
        RESOURCES.lock().write(resource);
    }
    for reader in readers(resource) {
        reader.count_write(scope);
    }
    let writing = Writing { resource, scope, session };
    writing.invalidate();
    writing
}

impl Writing {
    fn invalidate(&self) {
        if self.scope == Scope::Global {
            for reader in readers(self.resource) {
                reader.remove_all();
            }
        }
        if let Some(session) = &self.session {
            session.remove_all(self.resource);
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.invalidate();
    }
}

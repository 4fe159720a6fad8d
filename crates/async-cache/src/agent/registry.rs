//! The registry of the process: sessions by id, tools by resource. The rules are the core's.

use std::fmt;
use std::sync::{Arc, LazyLock};

use async_cache_core::agent::{Resources, Sessions};
use parking_lot::Mutex;

use super::frame;
use super::metrics::{TOTAL, raise};
use super::session::Shared;
use super::tool::Scope;

/// A tool, as a write sees it.
pub(super) trait Reader: Sync {
    /// Removes what is cached for everybody.
    fn remove_all(&self);
    /// Counts that a write of this scope made results of it stale.
    fn count_write(&self, scope: Scope);
}

static SESSIONS: LazyLock<Mutex<Sessions<Arc<Shared>>>> = LazyLock::new(Mutex::default);
static RESOURCES: Mutex<Resources<&'static dyn Reader>> = Mutex::new(Resources::new());

/// Enters a session.
pub(super) fn enter(id: &str) -> Arc<Shared> {
    Arc::clone(SESSIONS.lock().enter(id, || Arc::new(Shared::new(id))))
}

/// Leaves a session; the last one ends it.
pub(super) fn leave(id: &str) {
    let ended = SESSIONS.lock().leave(id);
    if let Some(session) = ended {
        session.end();
    }
}

/// How many sessions are open.
pub(super) fn open_sessions() -> Vec<Arc<Shared>> {
    SESSIONS.lock().iter().cloned().collect()
}

/// Notes that a tool reads a resource; whether that was written to before.
pub(super) fn register(resource: &str, tool: &'static dyn Reader) -> bool {
    RESOURCES.lock().register(resource, tool)
}

fn readers(resource: &str) -> Vec<&'static dyn Reader> {
    RESOURCES.lock().readers(resource, |&tool| Some(tool))
}

/// A write that is under way: what it makes stale is gone, and goes again when this is dropped. From [`writing`].
#[must_use = "what is cached during the write has to go after it"]
pub struct Writing {
    resource: &'static str,
    scope: Scope,
    session: Option<Arc<Shared>>,
}

impl fmt::Debug for Writing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, scope, .. } = self;
        f.debug_struct("Writing").field("resource", resource).field("scope", scope).finish_non_exhaustive()
    }
}

/// Begins a write to a resource: all results of its tools are removed, and loads that run are fenced, now and again
/// when what is returned is dropped. [`#[agent_invalidates]`](macro@crate::agent_invalidates) does this around a
/// function.
///
/// [`Scope::Global`]: what is cached for everybody, and what is cached in the active session. [`Scope::Session`]: the
/// latter only.
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

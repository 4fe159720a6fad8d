//! Frames: the place of a tool's call. A task-local holds the frame of the running code.
//!
//! | place | its frame |
//! |---|---|
//! | outside every session | none |
//! | in the future that a session runs | made by [`AgentSession::run`](super::AgentSession::run): its session, its guard |
//! | inside a running call of a tool | a child of the call's frame: one level deeper, with its own history |
//!
//! Rules, the same as in the Python front:
//! 1. A frame never changes, except for its history.
//! 2. A session without loop detection keeps the guard of the enclosing session, and depth counts
//!    on.
//! 3. The load of a global tool is for all users, so nothing inside comes from a session: in the
//!    frames of such a load, tools with scope "session" run uncached.
//! 4. No user code runs while a history is locked.

use std::future::Future;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock};

use async_cache_core::agent::{Alarm, BegunCall, History, Limits};
use foldhash::quality::RandomState;
use parking_lot::Mutex;
use serde::Serialize;

use super::detection::OnLoop;
use super::metrics::{TOTAL, raise};
use super::report::{LoopDetected, ToolCall};
use super::scope::Scope;
use super::shared::SessionState;

tokio::task_local! {
    static FRAME: Arc<Frame>;
}

static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// Watches the calls of a session.
pub(super) struct Guard {
    pub(super) limits: Limits,
    pub(super) considers_results: bool,
    pub(super) on_loop: OnLoop,
    pub(super) session: Arc<SessionState>,
}

/// Where a call is made.
pub(super) struct Frame {
    pub(super) session: Arc<SessionState>,
    pub(super) guard: Option<Arc<Guard>>,
    /// How many calls of tools are around a call made here, itself included.
    depth: u32,
    /// Whether tools with scope "session" use the session's caches here.
    pub(super) is_in_session: bool,
    /// Calls and their results, as hashes.
    history: Mutex<History<ReportedCall, u64>>,
}

/// A call, for reports.
#[derive(Clone)]
pub(super) struct ReportedCall {
    tool: &'static str,
    arguments: Arc<str>,
}

/// A call that has begun.
pub(super) struct Watch {
    frame: Arc<Frame>,
    begun: BegunCall,
}

/// A guard's decision about a call.
pub(super) enum Verdict {
    /// The call has begun.
    Begun(Watch),
    /// The call has begun, although it continues a loop.
    Warned(Watch),
    /// The call must not be made.
    Refused(Box<LoopDetected>),
    /// The call must not be made; the cached result is the answer.
    ShortCircuit,
}

impl Frame {
    pub(super) fn of_session(session: Arc<SessionState>, guard: Option<Arc<Guard>>) -> Arc<Self> {
        let outer = current();
        let inherited = || outer.as_ref().and_then(|outer| outer.guard.clone());
        Arc::new(Self {
            session,
            guard: guard.or_else(inherited),
            depth: outer.as_ref().map_or(1, |outer| outer.depth),
            is_in_session: true,
            history: Mutex::default(),
        })
    }

    /// The frame inside of a call of a tool.
    pub(super) fn inside(&self, scope: Scope) -> Arc<Self> {
        Arc::new(Self {
            session: Arc::clone(&self.session),
            guard: self.guard.clone(),
            depth: self.depth.saturating_add(1),
            is_in_session: self.is_in_session && scope == Scope::Session,
            history: Mutex::default(),
        })
    }

    /// Whether a guard would let a call through.
    pub(super) fn is_quiet(&self, guard: &Guard, call: u64) -> bool {
        self.history.lock().check(&guard.limits, call, self.depth).is_none()
    }

    /// Asks the guard, and counts an alarm.
    pub(super) fn ask(
        self: &Arc<Self>,
        guard: &Guard,
        call: u64,
        tool: &'static str,
        arguments: &dyn Fn() -> String,
    ) -> Verdict {
        let alarm = self.history.lock().check(&guard.limits, call, self.depth);
        let Some(alarm) = alarm else {
            return Verdict::Begun(self.begin(call, tool, arguments));
        };
        raise(&guard.session.counts.loop_detections);
        raise(&TOTAL.loop_detections);
        if guard.on_loop == OnLoop::ShortCircuit {
            return Verdict::ShortCircuit;
        }
        let detected = self.report(guard, alarm, ToolCall { tool: tool.to_owned(), arguments: arguments() });
        if guard.on_loop == OnLoop::Error {
            return Verdict::Refused(Box::new(detected));
        }
        tracing::warn!("session {}: {detected}", guard.session.id);
        Verdict::Warned(self.begin(call, tool, arguments))
    }

    /// Records that a call begins.
    pub(super) fn begin(
        self: &Arc<Self>,
        call: u64,
        tool: &'static str,
        arguments: &dyn Fn() -> String,
    ) -> Watch {
        let known = self.history.lock().asked(call).cloned();
        let asked = known.unwrap_or_else(|| ReportedCall { tool, arguments: arguments().into() });
        let (begun, _) = self.history.lock().begin(call, asked);
        Watch { frame: Arc::clone(self), begun }
    }

    fn report(&self, guard: &Guard, alarm: Alarm, call: ToolCall) -> LoopDetected {
        let (period, limit) = match alarm {
            Alarm::Repeat { .. } => (1, guard.limits.max_repeats.get()),
            Alarm::Oscillation { period, .. } => (period, guard.limits.max_cycles()),
            _ => (0, guard.limits.max_depth),
        };
        let history = self.history.lock();
        let called = |asked: &ReportedCall| ToolCall {
            tool: asked.tool.to_owned(),
            arguments: (*asked.arguments).to_owned(),
        };
        let cycle = history.last(period).map(|past| called(&past.asked)).collect();
        LoopDetected::new(alarm, call, cycle, limit, &guard.session.id)
    }
}

impl Watch {
    /// Records that the tool returned a value.
    pub(super) fn returned<V: Serialize>(self, value: &V) {
        self.end(|| {
            let mut hasher = HASHER.build_hasher();
            // A value that cannot be written differs from all values: it counts as progress.
            match rmp_serde::encode::write_named(&mut HashWriter(&mut hasher), value) {
                Ok(()) => Some(hasher.finish()),
                Err(_) => None,
            }
        });
    }

    /// Records that the tool failed. All failures of the same type count as the same.
    pub(super) fn failed<E: 'static>(self) {
        self.end(|| Some(HASHER.hash_one(std::any::TypeId::of::<E>())));
    }

    fn end(self, outcome: impl FnOnce() -> Option<u64>) {
        if !self.frame.guard.as_ref().is_some_and(|guard| guard.considers_results) {
            return;
        }
        let outcome = outcome();
        let is_same = |known: &u64| Some(*known) == outcome;
        self.frame.history.lock().end(self.begun, outcome.unwrap_or_default(), is_same);
    }
}

struct HashWriter<'a, H>(&'a mut H);

impl<H: Hasher> std::io::Write for HashWriter<'_, H> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Names tool and arguments.
pub(super) fn name_of(tool: usize, key: &impl Hash) -> u64 {
    HASHER.hash_one((tool, key))
}

/// The frame of the running code.
pub(super) fn current() -> Option<Arc<Frame>> {
    FRAME.try_with(Arc::clone).ok()
}

/// Runs a future in a frame; without a frame, unchanged.
pub(super) async fn within<F: Future>(frame: Option<Arc<Frame>>, future: F) -> F::Output {
    match frame {
        Some(frame) => FRAME.scope(frame, future).await,
        None => future.await,
    }
}

/// Keeps the session of the running code for a future that is polled elsewhere: by a spawned task,
/// for example, which would otherwise be outside the session.
///
/// ```
/// # use async_cache::agent::{AgentSession, inherit};
/// # #[tokio::main]
/// # async fn main() {
/// let session = AgentSession::builder().open();
/// session
///     .run(async {
///         let helper = tokio::spawn(inherit(async { /* calls tools in the session */ }));
///         helper.await.unwrap();
///     })
///     .await;
/// # }
/// ```
pub fn inherit<F: Future>(future: F) -> impl Future<Output = F::Output> {
    within(current(), future)
}

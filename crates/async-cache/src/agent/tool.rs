//! Tools: cached functions whose calls look for their session, and ask its guard.
//!
//! Owns the way of a call from the frame it is made in to the cache that keeps its result. What
//! [`#[agent_cache]`](macro@crate::agent_cache) generates calls this and holds no logic of its own.

use std::fmt::{self, Debug};
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, OnceLock};

use async_cache_core::stats::Stats;
use serde::Serialize;

use super::frame::{self, Frame, Verdict, Watch};
use super::metrics::{AgentMetrics, Counts, TOTAL, raise};
use super::registry::{self, Reader};
use super::report::ToolError;
use crate::builder::Builder;
use crate::cache::AsyncCache;
use crate::error::{BackupError, BuildError, LoadError};
use crate::function::{Asked, CachedFunction, Name};
use crate::load::{Miss, Storing};
use crate::lookup::Lookup;
use crate::restore::Opening;
use crate::save::Saved;

/// Where the results of a tool are kept, and which results a write makes stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One cache for the process.
    Global,
    /// One cache for each session. Outside of sessions a tool runs uncached, and what it returns is shared with
    /// nobody.
    Session,
}

/// A function that is decorated with [`#[agent_cache]`](macro@crate::agent_cache).
///
/// The same operations are in a type of the function's name: `read_file::clear()`.
pub struct Tool<K, V> {
    /// For everybody. That of a session tool makes the caches of sessions, and is never built.
    function: CachedFunction<K, V>,
    resource: &'static str,
    scope: Scope,
    counts: Counts,
    registered: OnceLock<()>,
}

impl<K, V> Debug for Tool<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, scope, .. } = self;
        let name = &self.function.name;
        f.debug_struct("Tool")
            .field("name", name)
            .field("resource", resource)
            .field("scope", scope)
            .finish_non_exhaustive()
    }
}

impl<K, V> Tool<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Serialize + Send + Sync + 'static,
{
    /// `name` tells the tool's entries from those of others in a file.
    #[doc(hidden)]
    pub const fn new(
        name: Name,
        resource: &'static str,
        scope: Scope,
        build: fn(Builder<K, V>) -> Builder<K, V>,
    ) -> Self {
        let function = CachedFunction::new(name, build);
        Self { function, resource, scope, counts: Counts::new(), registered: OnceLock::new() }
    }

    /// Builds the cache and opens its file, if that has not happened yet.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn init(&'static self) -> Result<(), BuildError> {
        if self.scope == Scope::Global {
            self.function.init()?;
        }
        self.register();
        Ok(())
    }

    fn register(&'static self) {
        self.registered.get_or_init(|| {
            // Opened first: a tool whose cache cannot be opened is no reader, however often it is called.
            let cache = (self.scope == Scope::Global).then(|| self.function.cache());
            if registry::register(self.resource, self)
                && let Some(cache) = cache
            {
                // Written to before: what the file has is stale.
                cache.inner.remove_all();
            }
        });
    }

    /// Names it among all tools.
    fn number(&'static self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// The function's name.
    fn name(&self) -> &'static str {
        let name = self.function.name.get();
        name.rsplit("::").next().unwrap_or(name)
    }

    /// The cache for calls that are made in a frame; `None`: they run uncached.
    fn cache_in(&'static self, frame: Option<&Frame>) -> Option<AsyncCache<K, V>> {
        self.register();
        match self.scope {
            Scope::Global => Some(self.function.cache().clone()),
            Scope::Session => {
                let frame = frame.filter(|frame| frame.is_in_session)?;
                frame.session.cache_or_make(self.number(), self.resource, || {
                    let builder = (self.function.build)(AsyncCache::builder());
                    builder.build().expect("without a backup, a cache can be built")
                })
            }
        }
    }

    fn count(&self, frame: Option<&Frame>, which: impl Fn(&Counts) -> &std::sync::atomic::AtomicU64) {
        raise(which(&self.counts));
        raise(which(&TOTAL));
        if let Some(frame) = frame {
            raise(which(&frame.session.counts));
        }
    }

    // A call

    /// Serves a call that no guard has anything against.
    #[doc(hidden)]
    pub fn hit(&'static self, key: impl Lookup<K> + Debug) -> Result<V, Asked> {
        let frame = frame::current();
        let Some(cache) = self.cache_in(frame.as_deref()) else { return Err(Asked(0)) };
        let inner = &cache.inner;
        let asked = Asked(inner.hash(&key));
        let guarded = frame.as_ref().and_then(|frame| Some((frame, frame.guard.as_deref()?)));
        let call = guarded.map(|_| frame::name_of(self.number(), &key));
        if let (Some((frame, guard)), Some(call)) = (guarded, call)
            && !frame.is_quiet(guard, call)
        {
            return Err(asked);
        }
        let value = match inner.hot(asked.0, |known| key.is(known)) {
            Ok(value) => value,
            Err(under) => inner.cold(asked.0, || key.to_key(), under).map_err(|_| asked)?,
        };
        self.count(frame.as_deref(), |counts| &counts.hits);
        if let (Some((frame, _)), Some(call)) = (guarded, call) {
            frame.begin(call, self.name(), &|| format!("{key:?}")).returned(&value);
        }
        Ok(value)
    }

    /// Forgets what is there, so that the load that follows is a new one.
    #[doc(hidden)]
    pub fn forget(&'static self, key: impl Lookup<K>) -> Asked {
        if let Some(cache) = self.cache_in(frame::current().as_deref()) {
            cache.inner.delete(&key.to_key());
        }
        Asked(0)
    }

    /// Answers a call that [`hit`](Self::hit) did not answer.
    #[doc(hidden)]
    pub async fn load<F, Fut, E>(
        &'static self,
        _: Asked,
        key: impl Lookup<K> + Debug,
        keeps: fn(&V) -> bool,
        load: F,
    ) -> Result<V, ToolError<E>>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let frame = frame::current();
        let cache = self.cache_in(frame.as_deref());
        let watch = match frame.as_ref().and_then(|frame| Some((frame, frame.guard.as_deref()?))) {
            None => None,
            Some((frame, guard)) => {
                let call = frame::name_of(self.number(), &key);
                match frame.ask(guard, call, self.name(), &|| format!("{key:?}")) {
                    Verdict::Begun(watch) => Some(watch),
                    Verdict::Warned(watch) => {
                        raise(&self.counts.loop_detections);
                        if let Some(value) = cache.as_ref().and_then(|cache| cached(cache, key)) {
                            self.count(Some(frame), |counts| &counts.hits);
                            watch.returned(&value);
                            return Ok(value);
                        }
                        Some(watch)
                    }
                    Verdict::Refused(detected) => {
                        raise(&self.counts.loop_detections);
                        return Err(ToolError::Loop(detected));
                    }
                    Verdict::ShortCircuit => {
                        raise(&self.counts.loop_detections);
                        let cached = cache.and_then(|cache| cached(&cache, key));
                        return cached.ok_or(ToolError::ShortCircuited);
                    }
                }
            }
        };
        self.count(frame.as_deref(), |counts| &counts.misses);
        let inside = frame.map(|frame| frame.inside(self.scope));
        let load = move || frame::within(inside, async move { load().await });
        let result = match cache {
            Some(cache) => {
                let inner = &cache.inner;
                let storing = Storing { ttl: inner.default_ttl, keeps };
                inner.load(inner.hash(&key), key, Miss::default(), storing, load).await
            }
            None => load().await.map_err(|error| LoadError::Failed(Arc::new(error))),
        };
        note(watch, &result);
        result.map_err(ToolError::Load)
    }

    // What can be done with it

    /// Forgets what was returned for these arguments: for everybody, or in the active session. A call that runs is
    /// fenced.
    pub fn invalidate(&'static self, key: impl Lookup<K>) {
        self.forget(key);
    }

    /// Forgets everything, in all sessions, fences all calls that run, and resets the counters.
    pub fn clear(&'static self) {
        match self.scope {
            Scope::Global => self.function.clear(),
            Scope::Session => self.session_caches().iter().for_each(AsyncCache::clear),
        }
        self.counts.reset();
    }

    fn session_caches(&'static self) -> Vec<AsyncCache<K, V>> {
        let sessions = registry::open_sessions();
        sessions.iter().filter_map(|session| session.cache(self.number())).collect()
    }

    /// What was counted of its calls.
    #[must_use]
    pub fn metrics(&'static self) -> AgentMetrics {
        self.counts.metrics()
    }

    /// All that is counted by the cache for everybody; of a session tool nothing.
    #[must_use]
    pub fn stats(&'static self) -> Stats {
        match self.scope {
            Scope::Global => self.function.stats(),
            Scope::Session => Stats::default(),
        }
    }

    /// [`AsyncCache::save_to_backup`]; of a session tool nothing is saved.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn save_to_backup(&'static self) -> Result<Saved, BackupError> {
        self.function.save_to_backup()
    }

    /// [`AsyncCache::save_to_backup_async`].
    ///
    /// # Errors
    /// [`BackupError`].
    pub async fn save_to_backup_async(&'static self) -> Result<Saved, BackupError> {
        self.function.save_to_backup_async().await
    }

    /// [`AsyncCache::load_from_backup`].
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn load_from_backup(&'static self) -> Result<Opening, BackupError> {
        self.function.load_from_backup()
    }
}

/// What is cached for a key, and no load is begun.
fn cached<K, V>(cache: &AsyncCache<K, V>, key: impl Lookup<K>) -> Option<V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    let hash = cache.inner.hash(&key);
    match cache.inner.hot(hash, |known| key.is(known)) {
        Ok(value) => Some(value),
        Err(under) => cache.inner.cold(hash, || key.to_key(), under).ok(),
    }
}

fn note<V: Serialize, E: 'static>(watch: Option<Watch>, result: &Result<V, LoadError<E>>) {
    match (watch, result) {
        (Some(watch), Ok(value)) => watch.returned(value),
        (Some(watch), Err(_)) => watch.failed::<E>(),
        (None, _) => {}
    }
}

impl<K, V> Reader for Tool<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Serialize + Send + Sync + 'static,
{
    fn remove_all(&self) {
        if self.scope == Scope::Global {
            self.function.cache().inner.remove_all();
        }
    }

    fn count_write(&self, scope: Scope) {
        if self.scope == Scope::Session || scope == Scope::Global {
            raise(&self.counts.invalidations);
        }
    }
}

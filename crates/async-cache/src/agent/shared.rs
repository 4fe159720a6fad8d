//! The state of a session: its caches, one for each tool called inside.
//!
//! Invariant: every result in a session's caches was loaded in the session, and only
//! [`SessionState`] leads to these caches. An ended session has no caches and gets none, so a late
//! call finds nothing and leaves nothing behind.

use std::any::Any;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

use super::metrics::AgentCounts;
use crate::cache::AsyncCache;

/// The state shared by all handles of a session.
pub(super) struct SessionState {
    pub(super) id: String,
    /// By the number of the tool; `None` once the session has ended.
    caches: Mutex<Option<HashMap<usize, Kept>>>,
    pub(super) counts: AgentCounts,
}

/// The cache of a tool.
struct Kept {
    resource: &'static str,
    cache: Arc<dyn Any + Send + Sync>,
    remove_all: fn(&dyn Any),
}

impl SessionState {
    pub(super) fn new(id: &str) -> Self {
        Self { id: id.to_owned(), caches: Mutex::new(Some(HashMap::new())), counts: AgentCounts::new() }
    }

    /// The cache of a tool, if the tool was called in this session.
    pub(super) fn cache<K: 'static, V: 'static>(&self, tool: usize) -> Option<AsyncCache<K, V>> {
        let caches = self.caches.lock();
        caches.as_ref()?.get(&tool)?.cache.downcast_ref::<AsyncCache<K, V>>().cloned()
    }

    /// [`SessionState::cache`], made if need be; `None` once the session has ended.
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

//! Saving unasked: at intervals, and when the last handle of a cache is dropped.
//!
//! Owns the thread that waits for the next save, and the steps at the end. Knows nothing of the
//! saved entries.
//!
//! Rules:
//! 1. The thread holds the cache weakly, except during a save. So it keeps no cache alive; if the
//!    last handle is dropped during a save, this thread drops the cache.
//! 2. Every save goes through the save lock, so saves never overlap, and through the count of
//!    changes, so nothing is written that is in the file already. A failed save does not change the
//!    count, so the next save tries again.
//! 3. The last handle ends the thread, then saves, on the thread that drops the handle. The drop
//!    does not join the thread: the thread may be running user code that waits for a lock held by
//!    the code dropping the handle. The last save waits for a running save, at the save lock.
//! 4. No error and no panic of a save leaves this file: they are logged and counted.

use std::fmt;
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::error::panic_message;
use crate::inner::Inner;

/// The shortest time between two saves: a thread that saves without a pause is useless.
const SHORTEST: Duration = Duration::from_millis(1);

/// What happens to the entries when the last handle of a cache is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AtEnd {
    #[default]
    Forget,
    Save,
}

/// Saves a cache as long as it has handles. Owned by all of them together.
pub(crate) struct Autosave {
    /// Tells the thread to end.
    stop: Arc<Stop>,
    /// The last save.
    at_end: Option<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
pub(crate) struct Stop {
    is_over: Mutex<bool>,
    bell: Condvar,
}

impl fmt::Debug for Autosave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Autosave").field("saves_at_end", &self.at_end.is_some()).finish_non_exhaustive()
    }
}

impl Drop for Autosave {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(save) = &self.at_end {
            save();
        }
    }
}

impl Autosave {
    /// Starts to save a cache, if any of these options was set and there is a backup.
    pub(crate) fn start<K, V>(
        inner: &Arc<Inner<K, V>>,
        interval: Option<Duration>,
        at_end: AtEnd,
    ) -> std::io::Result<Option<Self>>
    where
        K: Hash + Eq + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
    {
        if inner.backup.is_none() || (interval.is_none() && at_end == AtEnd::Forget) {
            return Ok(None);
        }
        let stop = Arc::<Stop>::default();
        if let Some(interval) = interval {
            let (weak, stop) = (Arc::downgrade(inner), Arc::clone(&stop));
            let saves = move || {
                while stop.is_not_over_after(interval.max(SHORTEST)) {
                    let Some(inner) = weak.upgrade() else { return };
                    inner.save_quietly("autosave; it will be tried again");
                }
            };
            std::thread::Builder::new().name("async-cache-save".to_owned()).spawn(saves)?;
        }
        let at_end = (at_end == AtEnd::Save).then(|| {
            let inner = Arc::clone(inner);
            Box::new(move || inner.save_quietly("the save of a cache that was dropped")) as Box<_>
        });
        Ok(Some(Self { stop, at_end }))
    }
}

impl Stop {
    /// Ends the waiting of the thread.
    pub(crate) fn stop(&self) {
        *self.is_over.lock() = true;
        self.bell.notify_all();
    }

    /// Waits for this time. `false`: the thread has to end.
    pub(crate) fn is_not_over_after(&self, interval: Duration) -> bool {
        let mut is_over = self.is_over.lock();
        self.bell.wait_while_for(&mut is_over, |is_over| !*is_over, interval);
        !*is_over
    }
}

impl<K: Hash + Eq + 'static, V: Clone + 'static> Inner<K, V> {
    /// Saves changes. Failures are logged and counted.
    fn save_quietly(&self, what: &str) {
        match catch_unwind(AssertUnwindSafe(|| self.save_if_changed())) {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!("{what}: {error}"),
            Err(panic) => {
                self.tier.count_save_error();
                tracing::warn!("{what}: it panicked: {}", panic_message(&*panic));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;
    use crate::{AsyncCache, BackendError, CacheBackend, SavedEntry};

    /// Counts saves, and fails every save before this number.
    struct Counting(AtomicUsize, usize);

    impl CacheBackend<u32, u32> for Counting {
        fn load(&self) -> Result<Vec<SavedEntry<u32, u32>>, BackendError> {
            Ok(vec![SavedEntry { key: 7, value: 7, ttl: None }])
        }

        fn save(&self, entries: &mut dyn Iterator<Item = SavedEntry<u32, u32>>) -> Result<(), BackendError> {
            entries.for_each(drop);
            let before = self.0.fetch_add(1, SeqCst);
            if before < self.1 { Err("not yet".into()) } else { Ok(()) }
        }

        fn clear(&self) -> Result<(), BackendError> {
            Ok(())
        }
    }

    fn counting(failures: usize) -> (AsyncCache<u32, u32>, Arc<Counting>) {
        let backend = Arc::new(Counting(AtomicUsize::new(0), failures));
        (AsyncCache::builder().backup(Arc::clone(&backend)).build().unwrap(), backend)
    }

    #[test]
    fn the_thread_ends_with_the_last_handle_however_long_its_interval() {
        let backend = Arc::new(Counting(AtomicUsize::new(0), 0));
        let builder = AsyncCache::<u32, u32>::builder().backup(backend).autosave(Duration::MAX);
        let cache = builder.build().unwrap();
        let stop = Arc::downgrade(&cache.shared.autosave.as_ref().unwrap().stop);
        assert_eq!(stop.strong_count(), 2, "the handles and the thread");
        drop(cache);
        while stop.strong_count() > 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_was_loaded_read_or_used_is_no_change() {
        let (cache, backend) = counting(0);
        assert_eq!((cache.get(&7), cache.get(&8)), (Some(7), None));
        cache.delete(&8);
        cache.inner.save_quietly("test");
        assert_eq!((backend.0.load(SeqCst), cache.stats().saves), (0, 0));
    }

    #[test]
    fn every_write_is_a_change_and_is_saved_once() {
        let (cache, backend) = counting(0);
        let writes: [fn(&AsyncCache<u32, u32>); 4] =
            [|it| it.set(1, 1), |it| it.set(1, 1), |it| it.delete(&1), AsyncCache::clear];
        for (count, write) in writes.iter().enumerate() {
            write(&cache);
            cache.inner.save_quietly("test");
            cache.inner.save_quietly("test");
            assert_eq!(backend.0.load(SeqCst), count + 1);
        }
    }

    #[tokio::test]
    async fn a_load_is_a_change_unless_it_fails() {
        let (cache, backend) = counting(0);
        cache.get_or_load(&1, || async { Err("no") }).await.unwrap_err();
        cache.inner.save_quietly("test");
        assert_eq!(backend.0.load(SeqCst), 0);
        cache.get_or_load(&1, || async { Ok::<_, ()>(1) }).await.unwrap();
        cache.inner.save_quietly("test");
        assert_eq!(backend.0.load(SeqCst), 1);
    }

    #[test]
    fn a_save_that_failed_is_tried_again_and_counted() {
        let (cache, backend) = counting(2);
        cache.set(1, 1);
        for _ in 0..5 {
            cache.inner.save_quietly("test");
        }
        assert_eq!(backend.0.load(SeqCst), 3, "two that failed and one that did not");
        assert_eq!((cache.stats().saves, cache.stats().save_errors), (1, 2));
    }

    #[test]
    fn a_save_that_was_asked_for_saves_what_has_not_changed_too() {
        let (cache, backend) = counting(0);
        cache.save_to_backup().unwrap();
        cache.save_to_backup().unwrap();
        assert_eq!(backend.0.load(SeqCst), 2);
    }
}

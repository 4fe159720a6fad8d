//! The upkeep of a journal in the background, and its closing with the last handle of the cache.
//!
//! Rules:
//! 1. The thread holds the cache weakly, except during a step of the upkeep. It runs no user code
//!    but the log's.
//! 2. The last handle ends the thread, waits for its present step, and closes the journal. So the
//!    path can be opened again as soon as the last handle is dropped. A load that is still running
//!    stores its value in memory only.
//! 3. No error and no panic leaves this file: they are logged.
//! 4. A forked child has a copy of this value and no thread: there, dropping it does nothing.
//! 5. If the store has nothing to do, the thread starts with the first write: the start took a
//!    quarter of the time of an opening. If another thread drops the last handle during this write,
//!    the new thread ends at once.

use std::fmt;
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use async_cache_tier::journal::{self, Upkeep};
use parking_lot::Mutex;

use crate::autosave::Stop;
use crate::backup::{BackendKind, Backup};
use crate::error::{BackupError, panic_message};
use crate::inner::Inner;

/// Keeps the journal of a cache as long as the cache has handles. Owned by all of them together.
pub(crate) struct Keeper {
    stop: Arc<Stop>,
    /// `None` until it starts.
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
    /// Closes the journal.
    close: Box<dyn Fn() + Send + Sync>,
    /// Rule 4.
    process: u32,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}

impl Keeper {
    /// Starts the upkeep of a cache with an open journal, now or later (rule 5).
    pub(crate) fn start<K, V>(inner: &Arc<Inner<K, V>>) -> std::io::Result<Option<Self>>
    where
        K: Hash + Eq + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
    {
        let (Some(journal), Some(Backup(BackendKind::Disk(disk, _)))) = (inner.tier.journal(), &inner.backup)
        else {
            return Ok(None);
        };
        let Some(options) = disk.journal_of(inner.maxsize) else { return Ok(None) };
        let (stop, thread) = (Arc::<Stop>::default(), Arc::<Mutex<Option<JoinHandle<()>>>>::default());
        journal.start_upkeep(Box::new({
            let (stop, thread) = (Arc::clone(&stop), Arc::clone(&thread));
            let (cache, interval) = (Arc::downgrade(inner), options.flush_every);
            move || {
                let upkeep = upkeep(Weak::clone(&cache), Arc::clone(&stop), interval);
                let name = "async-cache-journal".to_owned();
                *thread.lock() = Some(std::thread::Builder::new().name(name).spawn(upkeep)?);
                Ok(())
            }
        }))?;
        let cache = Arc::clone(inner);
        let close = Box::new(move || cache.close_quietly());
        Ok(Some(Self { stop, thread, close, process: std::process::id() }))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if std::process::id() != self.process {
            return; // Rule 4.
        }
        self.stop.stop();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // A panic of the thread was logged (rule 3).
            drop(thread.join());
        }
        (self.close)();
    }
}

/// The work of the thread (rule 1).
fn upkeep<K: Hash + Eq, V: Clone>(
    cache: Weak<Inner<K, V>>,
    stop: Arc<Stop>,
    interval: Duration,
) -> impl FnOnce() {
    move || {
        let mut wait = interval;
        while stop.is_not_over_after(wait) {
            let Some(inner) = cache.upgrade() else { return };
            wait = inner.tend_quietly(interval);
        }
    }
}

impl<K: Hash + Eq, V: Clone> Inner<K, V> {
    /// Makes everything durable; see [`AsyncCache::flush`](crate::AsyncCache::flush).
    pub(crate) fn flush(&self) -> Result<(), BackupError> {
        match (self.tier.journal(), self.file_host()) {
            (Some(journal), Some(host)) => journal::flush(&host, journal).map_err(Into::into),
            _ => Ok(()),
        }
    }

    /// Does a step of the upkeep. Returns when the next one is due.
    fn tend_quietly(&self, interval: Duration) -> Duration {
        let (Some(journal), Some(host)) = (self.tier.journal(), self.file_host()) else { return interval };
        match catch_unwind(AssertUnwindSafe(|| journal::tend(&host, journal, interval))) {
            Ok(Ok(Upkeep::Done)) => interval,
            Ok(Ok(Upkeep::More(pause))) => pause.min(interval),
            Ok(Err(error)) => {
                journal.report(&host, &error);
                interval
            }
            Err(panic) => {
                tracing::warn!("the upkeep of a journal panicked: {}", panic_message(&*panic));
                interval
            }
        }
    }

    fn close_quietly(&self) {
        let (Some(host), Some(patience)) = (self.file_host(), self.patience()) else { return };
        match catch_unwind(AssertUnwindSafe(|| journal::close(&host, patience))) {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!("closing a journal; nothing is lost: {error}"),
            Err(panic) => tracing::warn!("closing a journal panicked: {}", panic_message(&*panic)),
        }
    }

    fn patience(&self) -> Option<Duration> {
        match &self.backup {
            Some(Backup(BackendKind::Disk(disk, _))) => Some(disk.patience()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_cache_disk::fake::FakeDisk;

    use crate::{AsyncCache, DiskBackend, Journal};

    fn open(disk: &FakeDisk) -> AsyncCache<u64, u64> {
        let journal = Journal::new().flush_every(Duration::from_millis(1));
        let backend = DiskBackend::new("/tmp/cache").vfs(disk.as_vfs()).journal(journal);
        AsyncCache::builder().backup(backend).build().unwrap()
    }

    fn has_thread(cache: &AsyncCache<u64, u64>) -> bool {
        cache.shared.keeper.as_ref().unwrap().thread.lock().is_some()
    }

    /// Whether the last write is synced within two seconds.
    fn is_synced(disk: &FakeDisk) -> bool {
        (0..2000).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            let calls = disk.calls();
            let last = |name| calls.iter().rposition(|call| call.name == name);
            last("sync") > last("write_at")
        })
    }

    #[test]
    fn the_thread_starts_with_the_first_write() {
        type Write = fn(&AsyncCache<u64, u64>);
        let writes: [(&str, Write); 3] = [
            ("set", |cache| cache.set(1, 1)),
            ("delete", |cache| cache.delete(&1)),
            ("clear", |cache| cache.clear()),
        ];
        for (name, write) in writes {
            let disk = FakeDisk::new();
            let cache = open(&disk);
            cache.set(1, 1);
            drop(cache);
            let cache = open(&disk);
            assert_eq!((cache.get(&1), cache.get(&2), cache.len()), (Some(1), None, 1));
            assert!(!has_thread(&cache), "{name}: nothing was written");
            write(&cache);
            assert!(has_thread(&cache), "{name}");
            assert!(is_synced(&disk), "{name}");
        }
    }

    #[test]
    fn a_store_with_segments_has_the_thread_at_once() {
        let disk = FakeDisk::new();
        let cache = open(&disk);
        cache.set(1, 1);
        std::mem::forget(cache);
        let cache = open(&disk.survivors().swap_remove(0).1);
        assert!(has_thread(&cache));
    }
}

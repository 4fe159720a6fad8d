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

use std::fmt;
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_cache_tier::journal::{self, Upkeep};

use crate::autosave::Stop;
use crate::backup::{BackendKind, Backup};
use crate::error::{BackupError, panic_message};
use crate::inner::Inner;

/// Keeps the journal of a cache as long as the cache has handles. Owned by all of them together.
pub(crate) struct Keeper {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
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
    /// Starts the upkeep of a cache with an open journal.
    pub(crate) fn start<K, V>(inner: &Arc<Inner<K, V>>) -> std::io::Result<Option<Self>>
    where
        K: Hash + Eq + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
    {
        let interval = match &inner.backup {
            Some(Backup(BackendKind::Disk(disk, _))) if inner.tier.journal().is_some() => {
                disk.journal_of(inner.maxsize).map(|journal| journal.flush_every)
            }
            _ => None,
        };
        let Some(interval) = interval else { return Ok(None) };
        let (stop, weak) = (Arc::<Stop>::default(), Arc::downgrade(inner));
        let (stopping, cache) = (Arc::clone(&stop), Arc::clone(inner));
        let upkeep = move || {
            let mut wait = interval;
            while stopping.is_not_over_after(wait) {
                let Some(inner) = weak.upgrade() else { return };
                wait = inner.tend_quietly(interval);
            }
        };
        let thread = std::thread::Builder::new().name("async-cache-journal".to_owned()).spawn(upkeep)?;
        let close = Box::new(move || cache.close_quietly());
        Ok(Some(Self { stop, thread: Some(thread), close, process: std::process::id() }))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if std::process::id() != self.process {
            return; // Rule 4.
        }
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was logged (rule 3).
            drop(thread.join());
        }
        (self.close)();
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
        match catch_unwind(AssertUnwindSafe(|| journal::tend(&host, journal))) {
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

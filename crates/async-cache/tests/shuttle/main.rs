//! Small scenes under the model checker, which chooses the running thread at every lock: one load
//! of a key at a time, no caller hangs (the checker reports a deadlock), and no value from before a
//! write is served or stored after the write.
//!
//! Run with `RUSTFLAGS="--cfg shuttle"`, in release. Operations that the checker sees as one step
//! are named in `src/sync.rs`.
#![cfg(shuttle)]

mod batches;
mod loads;
mod snapshot;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use async_cache::{AsyncCache, LoadError};
use shuttle::future::yield_now;
use shuttle::sync::atomic::{AtomicUsize, Ordering::SeqCst};

type Cache = AsyncCache<u32, usize>;

fn cache() -> Cache {
    AsyncCache::builder().shards(1).build().unwrap()
}

/// The origin of loads: its value counts up, and its loads are counted.
#[derive(Default)]
struct Origin {
    version: AtomicUsize,
    started: AtomicUsize,
    running: AtomicUsize,
    peak: AtomicUsize,
}

struct Run(Arc<Origin>);

impl Drop for Run {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

impl Origin {
    async fn load(self: Arc<Self>) -> Result<usize, &'static str> {
        let run = Run(Arc::clone(&self));
        self.started.fetch_add(1, SeqCst);
        self.peak.fetch_max(self.running.fetch_add(1, SeqCst) + 1, SeqCst);
        let value = self.version.load(SeqCst);
        yield_now().await;
        drop(run);
        Ok(value)
    }

    fn rest(&self) -> (usize, usize) {
        (self.running.load(SeqCst), self.peak.load(SeqCst))
    }
}

type Outcome = Result<usize, LoadError<&'static str>>;

fn call(cache: &Cache, origin: &Arc<Origin>) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
    let (cache, origin) = (cache.clone(), Arc::clone(origin));
    Box::pin(async move { cache.get_or_load(&1, || origin.load()).await })
}

/// Polls a call some times, then drops it.
async fn give_up_after(mut call: Pin<Box<dyn Future<Output = Outcome> + Send>>, polls: usize) {
    for _ in 0..polls {
        if call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return;
        }
        yield_now().await;
    }
}

/// With random scheduling, and with random scheduling that switches rarely.
fn check(scene: fn()) {
    shuttle::check_random(scene, 15_000);
    shuttle::check_pct(scene, 15_000, 3);
}

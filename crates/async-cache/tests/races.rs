//! Random callers, cancellations, writes and saves at the same time, on several threads, against an
//! origin whose values count up.
//!
//! Checked all the time and at the end:
//! 1. a `get` never returns a value from before an invalidation that had ended when the `get`
//!    began, and no save keeps such a value;
//! 2. two loads of one key run at the same time only if an invalidation came between them;
//! 3. no caller hangs, and every error comes from a loader;
//! 4. at the end no load runs and no value is kept.
//!
//! `ASYNC_CACHE_SEED` replays the choices (but not the scheduling of the threads),
//! `ASYNC_CACHE_ROUNDS` runs more rounds.
#![allow(clippy::cast_possible_truncation)] // there are few keys
#![allow(clippy::print_stdout)] // seeds

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use crate::stage::{number_from_env, several_threads, until, within_limit};
use async_cache::{AsyncCache, Builder, CacheBackend, DiskBackend, Eviction, LoadError, SavedEntry};
use async_cache_disk::fake::FakeDisk;
use fastrand::Rng;
use serde::{Deserialize, Serialize};

const KEYS: u64 = 6;
const TASKS: u64 = 8;
const STEPS: usize = 300;

/// The origin's answer at one time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Value {
    version: u64,
    /// Counts the existing copies; copies from a file are not counted.
    #[serde(skip)]
    #[allow(dead_code)] // counted from outside
    copies: Option<Arc<()>>,
}

type Cache = AsyncCache<u64, Value>;

/// One key of the origin.
#[derive(Default)]
struct ValueSource {
    version: AtomicU64,
    /// The version published by the last invalidation.
    floor: AtomicU64,
    /// Held while the version is raised and the cache invalidated, so that writes of one key do not
    /// overtake each other.
    writing: Mutex<()>,
    begun: AtomicUsize,
    done: AtomicUsize,
    /// For each running load: the number of invalidations that had ended when its call began.
    running: Mutex<Vec<usize>>,
}

impl ValueSource {
    fn is_idle(&self) -> bool {
        self.running.lock().unwrap().is_empty()
    }
}

/// A running load.
struct Run(Arc<Origin>, u64, usize);

impl Run {
    fn begin(origin: Arc<Origin>, key: u64, done_at_call: usize) -> Self {
        let source = &origin.sources[key as usize];
        let mut running = source.running.lock().unwrap();
        let begun = source.begun.load(SeqCst);
        for &other in &*running {
            assert!(begun > other || begun > done_at_call, "two loads of key {key} run at once");
        }
        running.push(done_at_call);
        drop(running);
        Self(origin, key, done_at_call)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let mut running = self.0.sources[self.1 as usize].running.lock().unwrap();
        let at = running.iter().position(|done| *done == self.2).unwrap();
        running.swap_remove(at);
    }
}

struct Origin {
    sources: Vec<ValueSource>,
    copies: Arc<()>,
}

impl Origin {
    fn value(&self, version: u64) -> Value {
        Value { version, copies: Some(Arc::clone(&self.copies)) }
    }

    /// Raises the version of a key and invalidates the key in the cache.
    fn write(&self, key: u64, tell: impl FnOnce(u64)) {
        let source = &self.sources[key as usize];
        let _writing = source.writing.lock().unwrap();
        let version = source.version.fetch_add(1, SeqCst) + 1;
        source.begun.fetch_add(1, SeqCst);
        tell(version);
        source.done.fetch_add(1, SeqCst);
        source.floor.store(version, SeqCst);
    }

    fn clear(&self, cache: &Cache) {
        let _writing: Vec<_> = self.sources.iter().map(|source| source.writing.lock().unwrap()).collect();
        for source in &self.sources {
            source.version.fetch_add(1, SeqCst);
            source.begun.fetch_add(1, SeqCst);
        }
        cache.clear();
        for source in &self.sources {
            source.done.fetch_add(1, SeqCst);
            source.floor.store(source.version.load(SeqCst), SeqCst);
        }
    }

    fn floors(&self) -> Vec<u64> {
        self.sources.iter().map(|source| source.floor.load(SeqCst)).collect()
    }
}

async fn yield_some(times: usize) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}

/// Asks for a key, and is dropped after some polls.
async fn ask(cache: &Cache, origin: &Arc<Origin>, key: u64, rng: &mut Rng) {
    let source = &origin.sources[key as usize];
    let (before, after, fate) = (rng.usize(..4), rng.usize(..6), rng.u32(..20));
    let (of_load, done_at_call) = (Arc::clone(origin), source.done.load(SeqCst));
    let load = move || {
        if fate == 0 {
            std::panic::resume_unwind(Box::new("in the closure"));
        }
        async move {
            let run = Run::begin(of_load, key, done_at_call);
            yield_some(before).await;
            let value = run.0.value(run.0.sources[key as usize].version.load(SeqCst));
            yield_some(after).await;
            match fate {
                1 => std::panic::resume_unwind(Box::new("in the future")),
                2 | 3 => Err("failed"),
                _ => Ok(value),
            }
        }
    };
    let floor = source.floor.load(SeqCst);
    let mut call = Box::pin(cache.get_or_load(&key, load));
    let mut polls = if rng.u32(..3) == 0 { rng.usize(..8) } else { usize::MAX };
    let answer = poll_fn(|cx| {
        if polls == 0 {
            return Poll::Ready(None);
        }
        polls -= 1;
        let answer = call.as_mut().poll(cx);
        if answer.is_pending() && polls < 8 {
            cx.waker().wake_by_ref();
        }
        answer.map(Some)
    });
    match answer.await {
        None | Some(Err(LoadError::Failed(_) | LoadError::Panicked { .. })) => {}
        Some(Ok(value)) => assert!(value.version >= floor, "key {key}: {} < {floor}", value.version),
        Some(Err(error)) => panic!("nobody made this error: {error}"),
    }
}

async fn step(cache: &Cache, origin: &Arc<Origin>, rng: &mut Rng) {
    // Some keys are written often, some never.
    let key = rng.u64(..KEYS);
    match rng.u32(..100) {
        0..60 => ask(cache, origin, key, rng).await,
        60..75 => {
            let floor = origin.sources[key as usize].floor.load(SeqCst);
            if let Some(value) = cache.get(&key) {
                assert!(value.version >= floor, "key {key}: {} < {floor}", value.version);
            }
        }
        75..85 if key > 1 => origin.write(key, |version| cache.set(key, origin.value(version))),
        85..95 if key > 1 => origin.write(key, |_| cache.delete(&key)),
        95 => origin.clear(cache),
        96 => assert!(cache.len() <= KEYS as usize),
        _ => tokio::task::yield_now().await,
    }
}

/// Saves, and checks the saved entries.
fn save(cache: &Cache, origin: &Origin, disk: &DiskBackend) {
    let floors = origin.floors();
    cache.save_to_backup().unwrap();
    let entries: Vec<SavedEntry<u64, Value>> = disk.load().unwrap();
    let mut seen = BTreeSet::new();
    for entry in entries {
        let (version, floor) = (entry.value.version, floors[entry.key as usize]);
        assert!(version >= floor, "key {}: {version} was saved, {floor} invalidated it before", entry.key);
        assert!(seen.insert(entry.key), "key {} was saved twice", entry.key);
    }
}

fn round(seed: u64, kind: fn(Builder<u64, Value>) -> Builder<u64, Value>) {
    let (fake, mut rng) = (FakeDisk::new(), Rng::with_seed(seed));
    fake.keep_no_log();
    let disk = DiskBackend::new(Path::new("/cache")).vfs(fake.as_vfs());
    let mut cold =
        (0..KEYS).filter(|_| rng.bool()).map(|key| SavedEntry { key, value: Value::default(), ttl: None });
    disk.save(&mut cold).unwrap();
    let cache = kind(AsyncCache::builder()).backup(disk.clone()).build().unwrap();
    let sources = (0..KEYS).map(|_| ValueSource::default()).collect();
    let origin = Arc::new(Origin { sources, copies: Arc::new(()) });

    let runtime = several_threads();
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for _ in 0..TASKS {
            let (cache, origin, mut rng) = (cache.clone(), Arc::clone(&origin), rng.fork());
            tasks.push(tokio::spawn(async move {
                for _ in 0..STEPS {
                    step(&cache, &origin, &mut rng).await;
                }
            }));
        }
        let (saved, of_saves) = (cache.clone(), Arc::clone(&origin));
        tasks.push(tokio::task::spawn_blocking(move || {
            for _ in 0..50 {
                save(&saved, &of_saves, &disk);
            }
        }));
        for task in tasks {
            task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        }
        until(|| origin.sources.iter().all(ValueSource::is_idle)).await;
        cache.clear();
        until(|| Arc::strong_count(&origin.copies) == 1).await;
    });
    assert_eq!(cache.len(), 0);
}

fn rounds(kind: fn(Builder<u64, Value>) -> Builder<u64, Value>) {
    within_limit(move || {
        let first = number_from_env("ASYNC_CACHE_SEED", fastrand::u64(..1 << 32));
        for seed in first..first + number_from_env("ASYNC_CACHE_ROUNDS", 40) {
            println!("ASYNC_CACHE_SEED={seed}");
            round(seed, kind);
        }
    });
}

#[test]
fn an_unlimited_cache_keeps_its_promises() {
    rounds(|builder| builder);
}

#[test]
fn a_cache_that_evicts_keeps_its_promises() {
    rounds(|builder| builder.maxsize(3).shards(2));
}

#[test]
fn a_cache_in_exact_order_keeps_its_promises() {
    rounds(|builder| builder.maxsize(4).shards(1).eviction(Eviction::Lru));
}

#[test]
fn a_cache_that_stores_nothing_keeps_its_promises() {
    rounds(|builder| builder.maxsize(0));
}

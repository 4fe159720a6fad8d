//! Hits, misses with a load, and insertions with eviction, beside `quick_cache` and moka.

#![allow(clippy::disallowed_methods)] // measures time and reads its own files

use std::convert::Infallible;
use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::sync::{Arc, Barrier};

use async_cache::{AsyncCache, Eviction};
use async_cache_benches::{Contender, Report, contender};

const KEYS: u64 = 10_000;
const CAPACITY: usize = 20_000;
const OPERATIONS: usize = 1_000_000;
const ROUNDS: usize = 9;

/// Keys in an order that a processor cannot predict.
fn keys(seed: u64, count: usize, below: u64) -> Vec<u64> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..count).map(|_| random.u64(..below)).collect()
}

/// Runs `work` on `threads` threads at once, each with its own keys.
fn on_threads(threads: u64, keys: &[Vec<u64>], work: impl Fn(&[u64]) + Sync) -> u64 {
    if threads == 1 {
        work(&keys[0]);
        return keys[0].len() as u64;
    }
    let barrier = Barrier::new(threads as usize);
    std::thread::scope(|scope| {
        for keys in &keys[..threads as usize] {
            scope.spawn(|| {
                barrier.wait();
                work(keys);
            });
        }
    });
    // Wall time over the operations of one thread: the time that each thread experiences.
    keys[0].len() as u64
}

fn main() {
    let mut report = Report::new("In memory");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    let _entered = runtime.enter();
    let operations = if std::env::args().nth(1).as_deref() == Some("--smoke") { 1000 } else { OPERATIONS };
    let random: Vec<Vec<u64>> = (0..2).map(|seed| keys(seed, operations, KEYS)).collect();

    hits(&mut report, &random);
    async_hits(&mut report, &runtime, &random);
    string_hits(&mut report, &random);
    inserts(&mut report);
    misses(&mut report, &runtime);
    report.finish("memory");
}

fn hits(report: &mut Report, random: &[Vec<u64>]) {
    let ours = AsyncCache::builder().maxsize(CAPACITY).build().expect("no backup");
    let lru = AsyncCache::builder().maxsize(CAPACITY).eviction(Eviction::Lru).build().expect("no backup");
    let minute = std::time::Duration::from_secs(60);
    let ttl = AsyncCache::builder().maxsize(CAPACITY).default_ttl(minute).build().expect("no backup");
    let quick = quick_cache::sync::Cache::new(CAPACITY);
    let moka = moka::sync::Cache::new(CAPACITY as u64);
    for key in 0..KEYS {
        ours.set(key, key);
        lru.set(key, key);
        ttl.set(key, key);
        quick.insert(key, key);
        moka.insert(key, key);
    }
    for threads in [1, 2] {
        let title = format!("`get`, a hit, {KEYS} u64 keys, {threads} thread(s)");
        let run =
            |work: &(dyn Fn(&u64) + Sync)| on_threads(threads, random, |keys| keys.iter().for_each(work));
        let mut contenders: Vec<Contender<'_>> = vec![
            contender("quick_cache", || {
                run(&|key| {
                    black_box(quick.get(key));
                })
            }),
            contender("async-cache", || {
                run(&|key| {
                    black_box(ours.get(key));
                })
            }),
            contender("async-cache, with TTL", || {
                run(&|key| {
                    black_box(ttl.get(key));
                })
            }),
            contender("async-cache, strict LRU", || {
                run(&|key| {
                    black_box(lru.get(key));
                })
            }),
            contender("moka (sync)", || {
                run(&|key| {
                    black_box(moka.get(key));
                })
            }),
        ];
        report.race(&title, ROUNDS, &mut contenders);
    }
}

fn async_hits(report: &mut Report, runtime: &tokio::runtime::Runtime, random: &[Vec<u64>]) {
    let ours: AsyncCache<u64, u64> = AsyncCache::builder().maxsize(CAPACITY).build().expect("no backup");
    let quick = quick_cache::sync::Cache::new(CAPACITY);
    let moka = moka::future::Cache::new(CAPACITY as u64);
    for key in 0..KEYS {
        ours.set(key, key);
        quick.insert(key, key);
        runtime.block_on(moka.insert(key, key));
    }
    let keys = &random[0];
    let count = keys.len() as u64;
    let mut contenders = vec![
        contender("quick_cache, get_or_insert_async", || {
            runtime.block_on(async {
                for &key in keys {
                    black_box(quick.get_or_insert_async(&key, async { Ok::<_, Infallible>(key) }).await).ok();
                }
            });
            count
        }),
        contender("async-cache, get_or_load", || {
            runtime.block_on(async {
                for &key in keys {
                    black_box(ours.get_or_load(&key, move || async move { Ok::<_, Infallible>(key) }).await)
                        .ok();
                }
            });
            count
        }),
        contender("moka (future), get", || {
            runtime.block_on(async {
                for key in keys {
                    black_box(moka.get(key).await);
                }
            });
            count
        }),
        contender("moka (future), get_with", || {
            runtime.block_on(async {
                for &key in keys {
                    black_box(moka.get_with(key, async { key }).await);
                }
            });
            count
        }),
    ];
    report.race("get or load, a hit, 1 thread", ROUNDS, &mut contenders);
}

fn string_hits(report: &mut Report, random: &[Vec<u64>]) {
    let name = |key: u64| format!("user:{key}:profile");
    let names: Vec<String> = random[0].iter().map(|&key| name(key)).collect();
    let value: Arc<str> = "a value that is shared".into();
    let ours: AsyncCache<String, Arc<str>> =
        AsyncCache::builder().maxsize(CAPACITY).build().expect("no backup");
    let quick = quick_cache::sync::Cache::<String, Arc<str>>::new(CAPACITY);
    let moka = moka::sync::Cache::<String, Arc<str>>::new(CAPACITY as u64);
    for key in 0..KEYS {
        ours.set(name(key), Arc::clone(&value));
        quick.insert(name(key), Arc::clone(&value));
        moka.insert(name(key), Arc::clone(&value));
    }
    let count = names.len() as u64;
    let mut contenders = vec![
        contender("quick_cache", || {
            names.iter().for_each(|name| drop(black_box(quick.get(name.as_str()))));
            count
        }),
        contender("async-cache", || {
            names.iter().for_each(|name| drop(black_box(ours.get(name.as_str()))));
            count
        }),
        contender("moka (sync)", || {
            names.iter().for_each(|name| drop(black_box(moka.get(name.as_str()))));
            count
        }),
    ];
    report.race("`get`, a hit, String keys by &str, Arc values, 1 thread", ROUNDS, &mut contenders);
}

fn inserts(report: &mut Report) {
    let ours = AsyncCache::builder().maxsize(CAPACITY).build().expect("no backup");
    let lru = AsyncCache::builder().maxsize(CAPACITY).eviction(Eviction::Lru).build().expect("no backup");
    let quick = quick_cache::sync::Cache::new(CAPACITY);
    let moka = moka::sync::Cache::new(CAPACITY as u64);
    let fresh: Vec<Vec<u64>> = (0..2).map(|seed| keys(seed + 10, 200_000, u64::MAX)).collect();
    for threads in [1, 2] {
        let run = |work: &(dyn Fn(u64) + Sync)| {
            on_threads(threads, &fresh, |keys| keys.iter().for_each(|&key| work(key)))
        };
        let mut contenders = vec![
            contender("quick_cache", || run(&|key| quick.insert(key, key))),
            contender("async-cache", || run(&|key| ours.set(key, key))),
            contender("async-cache, strict LRU", || run(&|key| lru.set(key, key))),
            contender("moka (sync)", || run(&|key| moka.insert(key, key))),
        ];
        let title = format!("insert of a new key with eviction, {threads} thread(s)");
        report.race(&title, ROUNDS, &mut contenders);
    }
}

fn misses(report: &mut Report, runtime: &tokio::runtime::Runtime) {
    let ours: AsyncCache<u64, u64> = AsyncCache::builder().maxsize(CAPACITY).build().expect("no backup");
    let quick = Arc::new(quick_cache::sync::Cache::new(CAPACITY));
    let moka = moka::future::Cache::new(CAPACITY as u64);
    let count = 20_000;
    // Every round asks for new keys.
    let mut next = 0;
    let mut fresh = move || {
        next += count;
        next..next + count
    };
    let (mut fresh2, mut fresh3) = (fresh, fresh);
    // On a worker thread, like the code of a service; not on the thread of `block_on`.
    let on_a_task = |work: Pin<Box<dyn Future<Output = ()> + Send>>| {
        runtime.block_on(runtime.spawn(work)).expect("nothing panics");
        count
    };
    let mut contenders = vec![
        contender("quick_cache, get_or_insert_async (on the caller's task)", || {
            let (keys, quick) = (fresh(), Arc::clone(&quick));
            on_a_task(Box::pin(async move {
                for key in keys {
                    let load = async { Ok::<_, Infallible>(suspended(key).await) };
                    black_box(quick.get_or_insert_async(&key, load).await).ok();
                }
            }))
        }),
        contender("async-cache, get_or_load (on a task of its own)", || {
            let (keys, ours) = (fresh2(), ours.clone());
            on_a_task(Box::pin(async move {
                for key in keys {
                    let load = move || async move { Ok::<_, Infallible>(suspended(key).await) };
                    black_box(ours.get_or_load(&key, load).await).ok();
                }
            }))
        }),
        contender("moka (future), get_with (on the caller's task)", || {
            let (keys, moka) = (fresh3(), moka.clone());
            on_a_task(Box::pin(async move {
                for key in keys {
                    black_box(moka.get_with(key, suspended(key)).await);
                }
            }))
        }),
        contender("a bare tokio::spawn of the load, no cache", || {
            on_a_task(Box::pin(async move {
                for key in 0..count {
                    black_box(tokio::spawn(suspended(key)).await).ok();
                }
            }))
        }),
    ];
    report.race("miss with a load that suspends once, 1 caller", ROUNDS, &mut contenders);
}

/// A load that takes no time, but first yields to other tasks.
async fn suspended(key: u64) -> u64 {
    tokio::task::yield_now().await;
    key
}

//! Entries shared beyond one host, beside redis-rs and `cached` on the same server: a hit in memory
//! with and without the tier, a hit on the server, a thousand at once, many keys in one call, and
//! the time until a write of one cache has left the memory of another.
//!
//! Every contender has one connection, and runs on a runtime with one thread. Values have 100
//! bytes. redis-rs returns bytes; async-cache returns the decoded value.

#![allow(clippy::disallowed_methods)] // measures time

use std::future::Future;
use std::hint::black_box;
use std::time::{Duration, Instant};

use async_cache::AsyncCache;
use async_cache::remote::Redis;
use async_cache_benches::{Report, contender, digits};
use cached::{AsyncRedisCache, ConcurrentCachedAsync};
use redis::AsyncCommands;
use tokio::runtime::{Builder, Runtime};

type Cache = AsyncCache<String, String>;

const KEYS: usize = 1000;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A cache on the server. With `maxsize` 0, every call asks the server.
fn cache(port: u16, maxsize: Option<usize>) -> Cache {
    let redis = Redis::builder(&format!("redis://127.0.0.1:{port}")).build().expect("right settings");
    let builder = AsyncCache::builder().remote(redis);
    let builder = if let Some(maxsize) = maxsize { builder.maxsize(maxsize) } else { builder };
    builder.build().expect("no backup")
}

/// The peer's cache on the server; with a memory of its own if `in_memory`.
async fn peer(port: u16, in_memory: bool) -> AsyncRedisCache<String, String> {
    let builder = AsyncRedisCache::builder("peer").ttl_secs(3600);
    let builder = builder.connection_string(&format!("redis://127.0.0.1:{port}/?protocol=resp3"));
    builder.client_side_caching(in_memory).build().await.expect("a server")
}

async fn eventually<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    while !holds().await {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn main() {
    let smoke = std::env::args().nth(1).as_deref() == Some("--smoke");
    let (rounds, calls) = if smoke { (1, 50) } else { (15, 2000) };
    let mut report = Report::new("Entries beyond one host, Rust");
    for program in servers::all() {
        report.line(&format!("# {program}\n"));
        let server = program.start();
        measure(&mut report, server.port(), rounds, calls);
    }
    report.finish("beyond");
}

fn measure(report: &mut Report, port: u16, rounds: usize, calls: usize) {
    let (runtime, value) = (runtime(), "v".repeat(100));
    let keys: Vec<String> = (0..KEYS).map(|key| format!("key {key}")).collect();
    let alone: Cache = AsyncCache::builder().build().expect("no backup");
    let (shared, asking) = (cache(port, None), cache(port, Some(0)));
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/?protocol=resp3")).expect("a URL");
    let connection = runtime.block_on(client.get_multiplexed_async_connection()).expect("a server");
    let (peer, peer_in_memory) =
        runtime.block_on(async { (peer(port, false).await, peer(port, true).await) });
    runtime.block_on(async {
        shared.fetch("nothing").await;
        for key in &keys {
            alone.set(key.clone(), value.clone());
            shared.set(key.clone(), value.clone());
            let () = connection.clone().set(format!("raw:{key}"), &value).await.expect("a write");
            peer.async_cache_set(key.clone(), value.clone()).await.expect("a write");
            peer_in_memory.async_cache_get(key).await.expect("a value");
        }
        let last = keys.last().expect("a key");
        eventually(async || asking.fetch(last).await.is_some()).await;
    });

    let hits = 100 * calls as u64;
    let hit = |cache: &Cache| {
        for number in 0..hits as usize {
            black_box(cache.get(&keys[number % KEYS]));
        }
        hits
    };
    report.race(
        "A hit in memory",
        rounds,
        &mut [
            contender("without a tier beyond the host", || hit(&alone)),
            contender("with the tier", || hit(&shared)),
            contender("cached, client-side caching", || {
                runtime.block_on(async {
                    for number in 0..calls {
                        let value = peer_in_memory.async_cache_get(&keys[number % KEYS]).await;
                        black_box(value.expect("a server").expect("a value"));
                    }
                });
                calls as u64
            }),
        ],
    );

    report.race(
        "A hit on the server, one after the other",
        rounds,
        &mut [
            contender("redis-rs, GET", || {
                runtime.block_on(async {
                    let mut connection = connection.clone();
                    for number in 0..calls {
                        let key = format!("raw:{}", keys[number % KEYS]);
                        let value: Vec<u8> = connection.get(key).await.expect("a value");
                        black_box(value);
                    }
                });
                calls as u64
            }),
            contender("cached, async_cache_get", || {
                runtime.block_on(async {
                    for number in 0..calls {
                        let value = peer.async_cache_get(&keys[number % KEYS]).await;
                        black_box(value.expect("a server").expect("a value"));
                    }
                });
                calls as u64
            }),
            contender("async-cache, fetch", || {
                runtime.block_on(async {
                    for number in 0..calls {
                        black_box(asking.fetch(&keys[number % KEYS]).await.expect("a value"));
                    }
                });
                calls as u64
            }),
            contender("async-cache, get_or_load", || {
                runtime.block_on(async {
                    for number in 0..calls {
                        let load = || async { Err::<String, _>("it is on the server") };
                        black_box(asking.get_or_load(&keys[number % KEYS], load).await.expect("a value"));
                    }
                });
                calls as u64
            }),
        ],
    );

    report.race(
        "A thousand hits on the server at once",
        rounds,
        &mut [
            contender("redis-rs, GET", || {
                runtime.block_on(async {
                    let gets = keys.iter().map(|key| {
                        let (mut connection, key) = (connection.clone(), format!("raw:{key}"));
                        tokio::spawn(async move {
                            let value: Vec<u8> = connection.get(key).await.expect("a value");
                            value
                        })
                    });
                    for get in gets.collect::<Vec<_>>() {
                        black_box(get.await.expect("no panic"));
                    }
                });
                KEYS as u64
            }),
            contender("async-cache, fetch", || {
                runtime.block_on(async {
                    let gets = keys.iter().map(|key| {
                        let (cache, key) = (asking.clone(), key.clone());
                        tokio::spawn(async move { cache.fetch(&key).await.expect("a value") })
                    });
                    for get in gets.collect::<Vec<_>>() {
                        black_box(get.await.expect("no panic"));
                    }
                });
                KEYS as u64
            }),
        ],
    );

    let hundred: Vec<&str> = keys.iter().take(100).map(String::as_str).collect();
    let raw: Vec<String> = hundred.iter().map(|key| format!("raw:{key}")).collect();
    let times = calls / 20 + 1;
    report.race(
        "A hundred keys in one call (per call)",
        rounds,
        &mut [
            contender("redis-rs, MGET", || {
                runtime.block_on(async {
                    let mut connection = connection.clone();
                    for _ in 0..times {
                        let values: Vec<Vec<u8>> = connection.mget(&raw).await.expect("values");
                        black_box(values);
                    }
                });
                times as u64
            }),
            contender("async-cache, get_many", || {
                runtime.block_on(async {
                    for _ in 0..times {
                        black_box(asking.get_many(hundred.iter().copied()).await);
                    }
                });
                times as u64
            }),
        ],
    );
    invalidations(report, &runtime, port, calls);
}

/// From a delete in one cache to the removal from the memory of another.
fn invalidations(report: &mut Report, runtime: &Runtime, port: u16, calls: usize) {
    let mut times: Vec<Duration> = Vec::new();
    runtime.block_on(async {
        let (one, two) = (cache(port, None), cache(port, None));
        one.fetch("nothing").await;
        for _ in 0..calls.min(1000) {
            one.set("hot".to_owned(), "value".to_owned());
            eventually(async || two.fetch("hot").await.is_some()).await;
            eventually(async || {
                two.fetch("hot").await;
                two.contains("hot")
            })
            .await;
            let started = Instant::now();
            one.delete("hot");
            while two.contains("hot") {
                tokio::task::yield_now().await;
            }
            times.push(started.elapsed());
        }
    });
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    report.line("## From a delete to its removal from another cache's memory\n");
    report.line("| median | p99 | most |\n|---:|---:|---:|");
    report.line(&format!("| {} µs | {} µs | {} µs |\n", digits(at(0.5)), digits(at(0.99)), digits(at(1.0))));
}

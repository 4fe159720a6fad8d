//! Caches over a server, and what the tests ask of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_cache::AsyncCache;
use async_cache::remote::{Redis, RedisBuilder};
use servers::Server;

pub(crate) type Cache = AsyncCache<String, String>;

/// The tier on a server.
pub(crate) fn redis(server: &Server) -> RedisBuilder {
    redis_at(server.port())
}

pub(crate) fn redis_at(port: u16) -> RedisBuilder {
    Redis::builder(&format!("redis://127.0.0.1:{port}"))
}

/// A cache over a server, as another process would have it, with its connection.
pub(crate) async fn cache(server: &Server) -> Cache {
    connected(redis(server)).await
}

pub(crate) async fn connected(redis: RedisBuilder) -> Cache {
    let cache = over(redis);
    cache.fetch("a key that nobody has").await;
    cache
}

pub(crate) fn over(redis: RedisBuilder) -> Cache {
    AsyncCache::builder().remote(redis.build().unwrap()).build().unwrap()
}

/// An origin that counts its loads.
#[derive(Clone, Default)]
pub(crate) struct Origin {
    loads: Arc<AtomicU64>,
}

impl Origin {
    pub(crate) fn loads(&self) -> u64 {
        self.loads.load(Ordering::SeqCst)
    }

    /// Gets a key through a cache. A load takes `takes`, and yields the number of loads before.
    pub(crate) async fn get(&self, cache: &Cache, key: &str, takes: Duration) -> String {
        let loads = Arc::clone(&self.loads);
        let load = move || async move {
            let number = loads.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(takes).await;
            Ok::<_, std::convert::Infallible>(number.to_string())
        };
        cache.get_or_load(key, load).await.unwrap()
    }
}

/// Fetches a key until it has this value, for a second: a write of another cache is on its way.
#[track_caller]
pub(crate) fn shows(cache: &Cache, key: &str, value: Option<&str>) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        let mut shown = None;
        for _ in 0..1000 {
            shown = cache.fetch(key).await;
            if shown.as_deref() == value {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("{place}: after a second {key} is {shown:?}, and not {value:?}");
    }
}

/// Repeats until it holds, for a second.
#[track_caller]
pub(crate) fn soon(what: &str, holds: impl Fn() -> bool) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    let what = what.to_owned();
    async move {
        for _ in 0..1000 {
            if holds() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("{place}: not within a second: {what}");
    }
}

/// Each server that is there.
pub(crate) fn each(test: impl AsyncFn(Server)) {
    for program in servers::all() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let server = program.start();
        runtime.block_on(async {
            let limited = tokio::time::timeout(Duration::from_secs(60), test(server)).await;
            assert!(limited.is_ok(), "it hangs, with {:?}", program.kind());
        });
    }
}

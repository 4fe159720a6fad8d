//! Caches over a server, and what the tests ask of them.

use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use async_cache::AsyncCache;
use async_cache::remote::{Redis, RedisBuilder};
use servers::{Proxy, Reply, Server};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) type Cache = AsyncCache<String, String>;

/// The tier on a server. Its calls wait for the server as long as a test may take: the machine is
/// shared.
pub(crate) fn redis(server: &Server) -> RedisBuilder {
    redis_at(server.port()).timeout(PATIENCE)
}

/// The tier on a port, with the default times.
pub(crate) fn redis_at(port: u16) -> RedisBuilder {
    Redis::builder(&format!("redis://127.0.0.1:{port}"))
}

pub(crate) fn proxy(server: &Server) -> Proxy {
    Proxy::before(server.address().unwrap())
}

/// The tier on a server behind a proxy.
pub(crate) fn through(proxy: &Proxy) -> RedisBuilder {
    redis_at(proxy.address().port()).timeout(PATIENCE)
}

/// A cache over a server, as another process would have it, with its connection.
pub(crate) async fn cache(server: &Server) -> Cache {
    connected(redis(server)).await
}

pub(crate) async fn connected(redis: RedisBuilder) -> Cache {
    let cache = over(redis);
    hears(&cache).await;
    cache
}

/// Returns when the cache has heard everything that the server has done until now: the server
/// answers on the same connection, and in order. Only while the connection stands.
pub(crate) async fn hears(cache: &Cache) {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    // A key of its own, so that no earlier question is joined.
    let key = format!("a key that nobody has, {}", ASKED.fetch_add(1, Ordering::SeqCst));
    assert_eq!(cache.fetch(&key).await, None);
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

/// Fetches a key until memory has it with this value. A value that is read in the moment of a
/// change may have to be read once more.
#[track_caller]
pub(crate) fn keeps(cache: &Cache, key: &str, value: &str) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        for _ in 0..1000 {
            let fetched = cache.fetch(key).await;
            if fetched.as_deref() == Some(value) && cache.get(key).as_deref() == Some(value) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("{place}: after a second {key} is not in memory with {value:?}");
    }
}

/// Repeats until it holds, for a second.
#[track_caller]
pub(crate) fn soon(what: &str, holds: impl Fn() -> bool) -> impl Future<Output = ()> {
    within(Duration::from_secs(1), what, holds)
}

/// Repeats until it holds, for so long.
#[track_caller]
pub(crate) fn within(limit: Duration, what: &str, holds: impl Fn() -> bool) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    let what = what.to_owned();
    async move {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < limit, "{place}: not within {limit:?}: {what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// How long a future takes.
pub(crate) async fn timed<T>(future: impl Future<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    let value = future.await;
    (value, begun.elapsed())
}

/// The key on the server of an entry, if the server has one.
pub(crate) fn wire_key(server: &Server, key: &str) -> Option<String> {
    let keys = server.call(&["KEYS", &format!("*:s{key}")]);
    keys.list().first().map(Reply::text)
}

/// The log of this process.
struct Log;

static LINES: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());

/// Keeps the lines of the log from now on.
pub(crate) fn keep_log() {
    static KEPT: Once = Once::new();
    KEPT.call_once(|| tracing::subscriber::set_global_default(Log).unwrap());
}

/// The lines that were logged about a port, from a level on.
pub(crate) fn logged(port: u16, level: Level) -> Vec<String> {
    let place = format!("127.0.0.1:{port}");
    let lines = LINES.lock().unwrap();
    let of_place = lines.iter().filter(|(of, line)| *of <= level && line.contains(&place));
    of_place.map(|(_, line)| line.clone()).collect()
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Line(String);
        impl Visit for Line {
            fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
                if field.name() == "message" {
                    write!(self.0, "{value:?}").unwrap();
                }
            }
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        LINES.lock().unwrap().push((*event.metadata().level(), line.0));
    }
}

/// Each server that is there.
#[allow(clippy::print_stdout)]
pub(crate) fn each(test: impl AsyncFn(Server)) {
    for program in servers::all() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        println!("{program}");
        let server = program.start();
        runtime.block_on(async {
            let limited = tokio::time::timeout(Duration::from_secs(60), test(server)).await;
            assert!(limited.is_ok(), "it hangs, with {:?}", program.kind());
        });
    }
}

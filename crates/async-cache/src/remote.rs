//! The tier beyond one host, in this front: settings, the loads that ask it, and the task that
//! carries its bytes.
//!
//! `redis` has the settings, `load` the part of a load that asks, `driver` the task, `socket` its
//! connections, `tls` their encryption (feature `redis-tls`; else `tls_off`). The decisions
//! are the core's (`async_cache_core::remote`); `async_cache_tier::remote` has the rules for their
//! use, and `async-cache-redis` speaks to the server.

mod driver;
mod load;
mod redis;
mod socket;
#[cfg(feature = "redis-tls")]
mod tls;
#[cfg(not(feature = "redis-tls"))]
mod tls_off;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_cache_core::remote::port::{Content, Name};
use async_cache_core::remote::{Answer, Landing, Word};
use async_cache_core::time::{Deadline, Now, Time};
use async_cache_redis::body::{Body, Holds};
use async_cache_redis::{Layout, Link, Predecessor, Route};
use async_cache_tier::clock;
use async_cache_tier::names::NameIndex;
use async_cache_tier::remote::Remote;
use async_cache_tier::suspects::Suspects;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

pub(crate) use self::load::{Plan, Questions, RemoteLoad};
pub use self::redis::{Address, ConfigError, Redis, RedisBuilder, RedisSecret, WhileDown};
#[cfg(not(feature = "redis-tls"))]
use self::tls_off as tls;
use crate::backup::codec::Codec;

/// The tier of a cache.
pub(crate) struct RemoteTier<K, V> {
    shared: Arc<Shared>,
    codec: Codec<K, V>,
    /// Starts the task, once the cache is made.
    start: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// A cache in memory, as the task orders it.
pub(crate) trait Cached: Send + Sync {
    /// Removes the entries with a hash, as another host has changed a key with it.
    fn forget_hash(&self, hash: u64, fences: bool);
    /// Everything was removed by another host.
    fn forget_all(&self);
    /// Makes every entry suspect.
    fn suspect_all(&self, fences: bool);
    /// Drops the names of entries that have left.
    fn compact(&self, names: &NameIndex);
}

/// What the loads and the task share.
pub(crate) struct Shared {
    remote: Remote<Link, oneshot::Sender<Answer>>,
    redis: Redis,
    /// The way to the server. The task's.
    route: Arc<Mutex<Route>>,
    predecessor: Predecessor,
    /// Rung after each call: the task looks.
    look: Notify,
    /// Rung by the task after it has looked.
    looked: Notify,
    /// The present task; 0 without one.
    driver: AtomicU64,
    drivers: AtomicU64,
    /// When the task ran last, in nanoseconds.
    ran_at: AtomicU64,
    is_closed: AtomicBool,
}

/// A write, encoded.
pub(crate) struct Prepared {
    name: Name,
    content: Content,
}

impl<K, V> Drop for RemoteTier<K, V> {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::Release);
        self.shared.look.notify_one();
    }
}

impl Shared {
    fn now() -> Time {
        clock::now()
    }

    /// A deadline of the tier's clock on a cache's clock.
    fn deadline(until: Deadline, now: Time) -> Deadline {
        until.remaining(Self::now()).map_or(Deadline::NEVER, |left| Deadline::after(now, left))
    }
}

/// The earlier of a deadline, and of the end of what a landing allows.
fn cut(deadline: Deadline, landing: Landing, now: Time) -> Deadline {
    match landing {
        Landing::Covered => deadline,
        Landing::AtMost(ttl) => deadline.min(Deadline::after(now, ttl)),
        Landing::Nothing => Deadline::after(now, Duration::ZERO),
    }
}

/// Whether a value may be kept as was expected before.
fn is_as_expected(expected: Landing, landing: Landing) -> bool {
    match (expected, landing) {
        (_, Landing::Covered) => true,
        (Landing::AtMost(expected), Landing::AtMost(ttl)) => expected <= ttl,
        _ => false,
    }
}

impl<K, V> RemoteTier<K, V> {
    pub(crate) fn new(redis: Redis, codec: Codec<K, V>) -> Self {
        let shared = Shared {
            remote: Remote::new(redis.settings.clone(), random),
            route: Arc::new(Mutex::new(redis.route.clone())),
            predecessor: Predecessor::default(),
            redis,
            look: Notify::new(),
            looked: Notify::new(),
            driver: AtomicU64::new(0),
            drivers: AtomicU64::new(0),
            ran_at: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared), codec, start: OnceLock::new() }
    }

    /// The tier of a function, whose name is the namespace unless another was given.
    pub(crate) fn for_function(self, function: &str) -> Self {
        let mut redis = self.shared.redis.clone();
        if redis.config.namespace == DEFAULT_NAMESPACE {
            redis.config.namespace = namespace_of(function);
            // A name is no reason for an error here: the connection would say it.
            if let Ok(route) = Route::new(&redis.config) {
                redis.route = route;
            }
        }
        Self::new(redis, self.codec)
    }

    pub(crate) fn codec(&self) -> &Codec<K, V> {
        &self.codec
    }

    /// The name of a key; `None` if it cannot be encoded, and so is in this process only.
    fn name(&self, key: &K) -> Option<(Name, Vec<u8>)> {
        let mut bytes = Vec::with_capacity(64);
        (self.codec.encode_key)(key, &mut bytes).ok()?;
        Some((Layout::name(&bytes), bytes))
    }

    fn content(&self, name: &Name, canonical: &[u8], value: &V) -> Content {
        content(&self.codec, name, canonical, value)
    }

    /// Encodes a write. Runs the user's code: with nothing locked.
    pub(crate) fn prepare(&self, key: &K, value: &V) -> Option<Prepared> {
        let (name, canonical) = self.name(key)?;
        let content = self.content(&name, &canonical, value);
        Some(Prepared { name, content })
    }

    /// The deadline that a value may have in memory if it is put now.
    pub(crate) fn deadline_of_put(&self, deadline: Deadline, now: Time) -> Deadline {
        cut(deadline, self.shared.remote.expects_of_put(), now)
    }

    /// Puts a write. Under the lock of the key's shard. Whether memory may keep the value to the
    /// deadline that was told before.
    pub(crate) fn put(
        &self,
        write: Prepared,
        hash: u64,
        told: Deadline,
        ttl: Option<Duration>,
        now: Now,
    ) -> bool {
        let remote = &self.shared.remote;
        if ttl.is_some_and(|ttl| ttl.is_zero()) {
            remote.invalidate(&[write.name], Shared::now());
            return true;
        }
        let landing = remote.put(&write.name, hash, write.content, ttl, Shared::now());
        let deadline = ttl.map_or(Deadline::NEVER, |ttl| Deadline::after(now.time, ttl));
        told <= cut(deadline, landing, now.time)
    }

    /// Removes a key. Before memory is written.
    pub(crate) fn invalidate(&self, key: &K) {
        if let Some((name, _)) = self.name(key) {
            self.shared.remote.invalidate(&[name], Shared::now());
        }
    }

    /// Removes everything. Before memory is cleared.
    pub(crate) fn clear(&self) {
        self.shared.remote.clear(Shared::now());
    }

    /// Waits until the server has acknowledged the writes until now, or the timeout is over, or no
    /// word is expected soon. Whether they are acknowledged.
    pub(crate) async fn acknowledged(&self) -> bool {
        let shared = &self.shared;
        let Some(mark) = shared.remote.mark() else { return true };
        shared.remote.wait(mark, Shared::now());
        let until = tokio::time::Instant::now() + shared.redis.settings.timeout;
        self.look();
        // What the connection seems to be may be long past before the task has looked.
        let mut has_looked = false;
        loop {
            let looked = shared.looked.notified();
            match shared.remote.word_of(mark, Shared::now()) {
                Word::Acknowledged => return true,
                Word::None if has_looked => return false,
                Word::Expected | Word::None => {}
            }
            if tokio::time::timeout_at(until, looked).await.is_err() {
                return shared.remote.word_of(mark, Shared::now()) == Word::Acknowledged;
            }
            has_looked = true;
        }
    }

    /// Whether suspect entries are served now.
    pub(crate) fn suspects(&self) -> Suspects {
        self.shared.remote.suspects(Shared::now())
    }
}

impl<K, V> RemoteTier<K, V> {
    /// The cache is made.
    pub(crate) fn belongs_to(&self, cache: Weak<dyn Cached>) {
        let shared = Arc::clone(&self.shared);
        drop(self.start.set(Box::new(move || driver::start(&shared, Weak::clone(&cache)))));
    }

    /// After each call: has the task look, and starts one if there is none. With nothing locked.
    pub(crate) fn look(&self) {
        self.shared.look.notify_one();
        if self.shared.driver.load(Ordering::Acquire) == 0 {
            self.start();
        }
    }

    /// Starts a task on the caller's runtime, unless there is one.
    fn start(&self) {
        if let Some(start) = self.start.get() {
            start();
        }
    }
}

fn content<K, V>(codec: &Codec<K, V>, name: &Name, canonical: &[u8], value: &V) -> Content {
    let mut bytes = Vec::with_capacity(256);
    Body::begin(&mut bytes, name, canonical, Holds::Data);
    match (codec.encode_value)(value, &mut bytes) {
        Ok(()) => Content::Value(bytes.into()),
        Err(_) => Content::Stub,
    }
}

const DEFAULT_NAMESPACE: &str = "default";

/// A name of a function, as a namespace may be: `shop::price` is `shop.price`.
fn namespace_of(function: &str) -> String {
    let allowed = |letter: char| letter.is_alphanumeric() || "._-<>, &".contains(letter);
    function.replace("::", ".").chars().map(|letter| if allowed(letter) { letter } else { '_' }).collect()
}

/// Numbers that no other process has: from the system, through the keys of hash maps.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.write_u64(COUNT.fetch_add(1, Ordering::Relaxed));
    hasher.write_u64(clock::wall());
    hasher.finish()
}

//! The random operations.

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_cache::AsyncCache;
use serde_bytes::ByteBuf;

use crate::latencies::Latencies;
use crate::model::Model;

pub(crate) type Cache = AsyncCache<u64, ByteBuf>;

/// One in so many reads is repeated and timed.
const TIMED: u64 = 8;
/// One write in so many has a time to live.
const EXPIRING: u64 = 4;

/// The caches, and the values that they may return.
pub(crate) struct Traffic<'t> {
    cache: &'t Cache,
    /// Without a journal.
    twin: &'t Cache,
    model: &'t Arc<Model>,
}

impl<'t> Traffic<'t> {
    pub(crate) fn new(cache: &'t Cache, twin: &'t Cache, model: &'t Arc<Model>) -> Self {
        Self { cache, twin, model }
    }

    /// Runs operations at a rate, until `is_over`.
    pub(crate) fn run(&self, seed: u64, rate: u32, is_over: &AtomicBool) -> Latencies {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut latencies = Latencies::default();
        let started = Instant::now();
        while !is_over.load(Ordering::Relaxed) {
            latencies.operations += 1;
            if latencies.operations.is_multiple_of(50) {
                let due = latencies.operations as f64 / f64::from(rate);
                std::thread::sleep(Duration::from_secs_f64(due).saturating_sub(started.elapsed()));
            }
            let key = zipf(&mut random, self.model.keys());
            match random.u8(..100) {
                0..70 => {
                    runtime.block_on(self.load(key, &mut random));
                    self.time(key, &mut random, &mut latencies);
                }
                70..75 => drop(self.get(key)),
                75..95 => {
                    self.set(key, &mut random);
                }
                _ => self.delete(key),
            }
        }
        latencies
    }

    /// A read, with a load at a miss.
    async fn load(&self, key: u64, random: &mut fastrand::Rng) {
        let (ttl, bytes) = (ttl(random), bytes(random));
        let model = Arc::clone(self.model);
        let load = move || async move {
            let version = model.at_origin(key);
            Ok::<_, Infallible>(model.value(key, version, ttl, bytes))
        };
        let look = self.model.look(key);
        let value = self.cache.get_or_load_with_ttl(&key, ttl, load).await;
        self.model.check(&look, Some(value.expect("the load does not fail")));
    }

    /// A read.
    fn get(&self, key: u64) -> Option<ByteBuf> {
        let look = self.model.look(key);
        self.model.check(&look, self.cache.get(&key))
    }

    /// Returns the bytes of the entry.
    pub(crate) fn set(&self, key: u64, random: &mut fastrand::Rng) -> u64 {
        let (ttl, bytes) = (ttl(random), bytes(random));
        let turn = self.model.begin(key);
        let value = self.model.value(key, turn.version, ttl, bytes);
        self.twin.set_with_ttl(key, value.clone(), ttl);
        self.cache.set_with_ttl(key, value, ttl);
        turn.end();
        bytes as u64
    }

    fn delete(&self, key: u64) {
        let turn = self.model.begin(key);
        self.twin.delete(&key);
        self.cache.delete(&key);
        turn.end();
    }

    /// Times reads of an entry that has just been read, so it is in memory.
    fn time(&self, key: u64, random: &mut fastrand::Rng, latencies: &mut Latencies) {
        if random.u64(..TIMED) != 0 {
            return;
        }
        let Some(value) = self.get(key) else { return };
        if self.twin.get(&key).is_none() {
            self.twin.set(key, value);
        }
        let timed = |cache: &Cache| {
            let started = Instant::now();
            let found = black_box(cache.get(&key));
            let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
            found.map(|_| nanos)
        };
        // In turns: the second one finds the key's hash and the caches of the processor warm.
        let (hot, twin) = if random.bool() {
            let hot = timed(self.cache);
            (hot, timed(self.twin))
        } else {
            let twin = timed(self.twin);
            (timed(self.cache), twin)
        };
        hot.into_iter().for_each(|nanos| latencies.hot.add(nanos));
        twin.into_iter().for_each(|nanos| latencies.twin.add(nanos));
    }
}

fn ttl(random: &mut fastrand::Rng) -> Option<Duration> {
    (random.u64(..EXPIRING) == 0).then(|| Duration::from_millis(random.u64(1000..60_000)))
}

/// The length of a value: 1 KiB on the average.
fn bytes(random: &mut fastrand::Rng) -> usize {
    if random.u8(..16) == 0 { random.usize(2000..12_000) } else { random.usize(32..1200) }
}

/// A rank by Zipf's law with the exponent 0.9, scattered over the keys.
fn zipf(random: &mut fastrand::Rng, keys: u64) -> u64 {
    const FLAT: f64 = 0.1;
    let top = (keys as f64).powf(FLAT) - 1.0;
    let rank = (random.f64() * top + 1.0).powf(1.0 / FLAT);
    (rank as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) % keys
}

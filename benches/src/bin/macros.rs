//! A hit of a decorated function, beside `get_or_load` on the same cache and the macros of
//! `cached`.

#![allow(clippy::unused_async)] // the expansion of the macros of `cached`

use std::hint::black_box;

use async_cache::{AsyncCache, async_lru, async_ttl};
use async_cache_benches::{Contender, Report, contender};
use cached::macros::{cached, concurrent_cached};

const KEYS: u64 = 10_000;
const CAPACITY: usize = 20_000;
const OPERATIONS: usize = 1_000_000;
const ROUNDS: usize = 9;

#[async_lru(maxsize = CAPACITY)]
async fn ours(key: u64) -> Result<u64, String> {
    Ok(key)
}

#[async_ttl(ttl = "1h", maxsize = CAPACITY)]
async fn ours_with_ttl(key: u64) -> Result<u64, String> {
    Ok(key)
}

#[async_lru(maxsize = CAPACITY)]
async fn ours_of_two(tenant: &str, key: u64) -> Result<u64, String> {
    Ok(key + tenant.len() as u64)
}

#[cached(max_size = 20_000)]
async fn theirs(key: u64) -> Result<u64, String> {
    Ok(key)
}

#[concurrent_cached(max_size = 20_000)]
async fn theirs_sharded(key: u64) -> Result<u64, String> {
    Ok(key)
}

#[cached(max_size = 20_000)]
async fn theirs_of_two(tenant: String, key: u64) -> Result<u64, String> {
    Ok(key + tenant.len() as u64)
}

fn main() {
    let mut report = Report::new("Decorated functions");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    let _entered = runtime.enter();
    let operations = if std::env::args().nth(1).as_deref() == Some("--smoke") { 1000 } else { OPERATIONS };
    // Keys in an order that a processor cannot predict.
    let mut random = fastrand::Rng::with_seed(1);
    let keys: Vec<u64> = (0..operations).map(|_| random.u64(..KEYS)).collect();
    let count = keys.len() as u64;

    let direct: AsyncCache<u64, u64> = AsyncCache::builder().maxsize(CAPACITY).build().expect("no backup");
    let direct_of_two: AsyncCache<(String, u64), u64> =
        AsyncCache::builder().maxsize(CAPACITY).build().expect("no backup");
    runtime.block_on(async {
        for key in 0..KEYS {
            direct.set(key, key);
            direct_of_two.set(("tenant".to_owned(), key), key);
            ours(key).await.expect("it returns Ok");
            ours_with_ttl(key).await.expect("it returns Ok");
            ours_of_two("tenant", key).await.expect("it returns Ok");
            theirs(key).await.expect("it returns Ok");
            theirs_sharded(key).await.expect("it returns Ok");
            theirs_of_two("tenant".to_owned(), key).await.expect("it returns Ok");
        }
    });

    /// A contender that awaits an expression for every key.
    macro_rules! awaiting {
        ($name:literal, $key:ident => $call:expr) => {
            contender($name, || {
                runtime.block_on(async {
                    for &$key in &keys {
                        black_box($call.await).ok();
                    }
                });
                count
            })
        };
    }
    let mut one: Vec<Contender<'_>> = vec![
        awaiting!("get_or_load", key => direct.get_or_load(&key, move || async move { Ok::<_, String>(key) })),
        awaiting!("#[async_lru]", key => ours(key)),
        awaiting!("#[async_ttl]", key => ours_with_ttl(key)),
        awaiting!("#[cached], max_size", key => theirs(key)),
        awaiting!("#[concurrent_cached], max_size", key => theirs_sharded(key)),
    ];
    report.race("a hit, one u64 argument, 1 thread", ROUNDS, &mut one);

    let mut two: Vec<Contender<'_>> = vec![
        awaiting!("get_or_load, key made by the caller", key => {
            let tuple = ("tenant".to_owned(), key);
            let cache = &direct_of_two;
            async move { cache.get_or_load(&tuple, move || async move { Ok::<_, String>(key) }).await }
        }),
        awaiting!("#[async_lru], &str and u64", key => ours_of_two("tenant", key)),
        awaiting!("#[cached], String and u64", key => theirs_of_two("tenant".to_owned(), key)),
    ];
    report.race("a hit, a text and a u64, 1 thread", ROUNDS, &mut two);
    report.finish("macros");
}

//! Bytes of memory per entry besides key and value, by a counting allocator, beside `quick_cache`
//! and moka.
//!
//! Caches of u64 keys and values, filled to the given number: without a limit, and with the number
//! as the limit and twice as many insertions, so that all data needed for eviction exists.

use async_cache::{AsyncCache, Eviction};
use async_cache_benches::Report;
use cap::Cap;

#[global_allocator]
static ALLOCATOR: Cap<std::alloc::System> = Cap::new(std::alloc::System, usize::MAX);

/// Bytes per entry to make and fill a cache, excluding the 16 bytes of key and value.
fn overhead<C>(entries: usize, fill: impl FnOnce() -> C) -> f64 {
    let before = ALLOCATOR.allocated();
    let cache = fill();
    let bytes = ALLOCATOR.allocated() - before;
    drop(cache);
    bytes as f64 / entries as f64 - 16.0
}

fn main() {
    let mut report = Report::new("Memory per entry");
    report.line("Bytes besides key and value, u64 both. \"full\": limited to that many entries, and twice as many inserted.\n");
    report.line("| entries | async-cache, unlimited | async-cache, full | async-cache, full, strict LRU | quick_cache, full | moka, full |");
    report.line("|---:|---:|---:|---:|---:|---:|");
    let smoke = std::env::args().nth(1).as_deref() == Some("--smoke");
    // Including sizes just after and just before a vector or a table grows.
    let sizes = [10_000, 100_000, 115_000, 230_000, 450_000, 500_000, 750_000, 1_000_000];
    for entries in sizes.into_iter().take(if smoke { 1 } else { sizes.len() }) {
        let twice = 0..2 * entries as u64;
        let unlimited = overhead(entries, || {
            let cache = AsyncCache::builder().build().expect("no backup");
            (0..entries as u64).for_each(|key| cache.set(key, key));
            cache
        });
        let full = |eviction| {
            overhead(entries, || {
                let cache =
                    AsyncCache::builder().maxsize(entries).eviction(eviction).build().expect("no backup");
                twice.clone().for_each(|key| cache.set(key, key));
                cache
            })
        };
        let quick = overhead(entries, || {
            let cache = quick_cache::sync::Cache::new(entries);
            twice.clone().for_each(|key| cache.insert(key, key));
            cache
        });
        let moka = overhead(entries, || {
            let cache = moka::sync::Cache::new(entries as u64);
            for key in twice.clone() {
                cache.insert(key, key);
                if key % 64 == 0 {
                    cache.run_pending_tasks();
                }
            }
            cache
        });
        report.line(&format!(
            "| {entries} | {unlimited:.1} | {:.1} | {:.1} | {quick:.1} | {moka:.1} |",
            full(Eviction::Adaptive),
            full(Eviction::Lru)
        ));
    }
    report.finish("overhead");
}

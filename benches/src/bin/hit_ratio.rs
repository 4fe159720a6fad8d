//! Hit ratios on access traces, beside `quick_cache` and moka: one shard, fill on miss.
//!
//! `hit_ratio --save FOLDER`: the folder holds traces as runs of little-endian u32 keys, one access
//! each, in files named `<name>.u32`. The project uses the traces of the ARC paper (OLTP, P3) and
//! of the simulators of cache2k and Caffeine; they are not part of the project.

#![allow(clippy::disallowed_methods)] // measures time and reads its own files

use std::path::Path;

use async_cache::{AsyncCache, Eviction};
use async_cache_benches::Report;

/// Trace, and informative capacities.
const ROWS: [(&str, [usize; 3]); 7] = [
    ("OLTP", [1_000, 2_000, 5_000]),
    ("P3", [25_000, 50_000, 100_000]),
    ("orm-night", [1_000, 5_000, 10_000]),
    ("web07", [500, 1_000, 2_000]),
    ("loop", [250, 500, 750]),
    ("multi3", [500, 1_000, 2_000]),
    ("corda", [1_000, 5_000, 20_000]),
];

fn main() {
    let Some(folder) = std::env::args().nth(2) else {
        println!("usage: hit_ratio --save|--print FOLDER");
        return;
    };
    let mut report = Report::new("Hit ratios");
    report.line(
        "| trace | capacity | strict LRU | adaptive (default) | adaptive, 8 shards | quick_cache | moka |",
    );
    report.line("|---|---:|---:|---:|---:|---:|---:|");
    for (name, capacities) in ROWS {
        let Some(trace) = read(&Path::new(&folder).join(name).with_extension("u32")) else { continue };
        for capacity in capacities {
            let ratios = [
                ours(&trace, capacity, Eviction::Lru, 1),
                ours(&trace, capacity, Eviction::Adaptive, 1),
                ours(&trace, capacity, Eviction::Adaptive, 8),
                quick(&trace, capacity),
                moka(&trace, capacity),
            ];
            let ratios = ratios.map(|ratio| format!("{ratio:.3}")).join(" | ");
            report.line(&format!("| {name} | {capacity} | {ratios} |"));
        }
    }
    report.finish("hit_ratio");
}

fn read(path: &Path) -> Option<Vec<u32>> {
    let bytes = std::fs::read(path).ok()?;
    Some(bytes.as_chunks().0.iter().map(|key| u32::from_le_bytes(*key)).collect())
}

fn ratio(trace: &[u32], mut hit: impl FnMut(u32) -> bool) -> f64 {
    trace.iter().filter(|&&key| hit(key)).count() as f64 / trace.len() as f64
}

fn ours(trace: &[u32], capacity: usize, eviction: Eviction, shards: usize) -> f64 {
    let cache = AsyncCache::builder().maxsize(capacity).eviction(eviction).shards(shards).build();
    let cache = cache.expect("no backup");
    ratio(trace, |key| {
        let hit = cache.get(&key).is_some();
        if !hit {
            cache.set(key, ());
        }
        hit
    })
}

fn quick(trace: &[u32], capacity: usize) -> f64 {
    let options = quick_cache::OptionsBuilder::new()
        .estimated_items_capacity(capacity)
        .weight_capacity(capacity as u64)
        .shards(1)
        .build()
        .expect("the options are whole");
    let cache = quick_cache::sync::Cache::with_options(
        options,
        quick_cache::UnitWeighter,
        quick_cache::DefaultHashBuilder::default(),
        quick_cache::sync::DefaultLifecycle::default(),
    );
    ratio(trace, |key| {
        let hit = cache.get(&key).is_some();
        if !hit {
            cache.insert(key, ());
        }
        hit
    })
}

fn moka(trace: &[u32], capacity: usize) -> f64 {
    let cache = moka::sync::Cache::new(capacity as u64);
    let mut accesses = 0_u32;
    ratio(trace, |key| {
        accesses += 1;
        if accesses.is_multiple_of(64) {
            cache.run_pending_tasks();
        }
        let hit = cache.get(&key).is_some();
        if !hit {
            cache.insert(key, ());
        }
        hit
    })
}

//! foyer's hybrid cache: the cost of an insertion until it is queued for the disk, a read from the
//! disk, and how many bytes it writes.
//!
//! An entry reaches the disk later, in the background, aligned to 4096 bytes; a queued entry does
//! not survive a kill.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use async_cache_benches::{Report, digits, median};
use foyer::{
    BlockEngineConfig, DeviceBuilder as _, FsDeviceBuilder, HybridCache, HybridCacheBuilder,
    HybridCachePolicy,
};
use tokio::runtime::Runtime;

use crate::amplification::written_bytes;
use crate::stores::{key, value};
use crate::{Sizes, folder};

/// The bytes of an entry on the device.
const BYTES_PER_ENTRY: u64 = 4096;
const FEWEST_BYTES: u64 = 256 << 20;

/// A cache that writes each insertion to a device with room for twice as many entries.
async fn open(folder: &Path, entries: u64, in_memory: usize) -> HybridCache<String, Vec<u8>> {
    let bytes = usize::try_from((entries * BYTES_PER_ENTRY * 2).max(FEWEST_BYTES)).expect("64 bits");
    let device = FsDeviceBuilder::new(folder).with_capacity(bytes).build().expect("a folder");
    let engine =
        BlockEngineConfig::new(device).with_buffer_pool_size(bytes).with_submit_queue_size_threshold(bytes);
    let builder = HybridCacheBuilder::new().with_policy(HybridCachePolicy::WriteOnInsertion);
    let builder = builder.memory(in_memory).storage().with_engine_config(engine);
    builder.build().await.expect("the folder is ours")
}

pub(crate) fn landing(report: &mut Report, sizes: Sizes) {
    let runtime = Runtime::new().expect("threads");
    let folder = folder();
    let batches = sizes.of(50, 2);
    let times = runtime.block_on(async {
        let cache = open(folder.path(), batches * 1000, 1000).await;
        let mut times = Vec::new();
        for batch in 0..batches {
            let ids = batch * 1000..(batch + 1) * 1000;
            let entries: Vec<_> = ids.map(|id| (key(id), value(id, 90))).collect();
            let started = Instant::now();
            entries.into_iter().for_each(|(key, value)| drop(cache.insert(key, value)));
            times.push(started.elapsed().as_secs_f64() * 1e6);
        }
        cache.close().await.expect("there is room");
        times
    });
    report.line(&format!(
        "foyer, each insertion queued for its disk: {} ns. What is queued is lost by a kill.\n",
        digits(median(times))
    ));
}

pub(crate) fn reading(report: &mut Report, sizes: Sizes) {
    let runtime = Runtime::new().expect("threads");
    let folder = folder();
    let entries = sizes.of(100_000, 1000);
    let gets = runtime.block_on(async {
        let cache = open(folder.path(), entries, 1000).await;
        (0..entries).for_each(|id| drop(cache.insert(key(id), value(id, 90))));
        cache.close().await.expect("there is room");
        let cache = open(folder.path(), entries, 1000).await;
        let mut random = fastrand::Rng::with_seed(1);
        let mut gets = Vec::new();
        for _ in 0..sizes.of(20_000, 100) {
            let key = key(random.u64(..entries));
            let started = Instant::now();
            let found = cache.get(&key).await.expect("the disk works");
            gets.push(started.elapsed().as_secs_f64() * 1e6);
            black_box(found);
        }
        cache.close().await.expect("there is room");
        gets
    });
    report.line(&format!(
        "foyer, {entries} entries, of which 1000 in memory: a hit takes {} µs.\n",
        digits(median(gets))
    ));
}

pub(crate) fn amplification(report: &mut Report, sizes: Sizes) {
    let runtime = Runtime::new().expect("threads");
    let entries = sizes.of(50_000, 500);
    for bytes in [90, 1000] {
        let folder = folder();
        let before = written_bytes();
        runtime.block_on(async {
            let cache = open(folder.path(), entries, 1000).await;
            (0..entries).for_each(|id| drop(cache.insert(key(id), value(id, bytes))));
            cache.close().await.expect("there is room");
        });
        let inserted = entries * (15 + bytes as u64);
        let written = (written_bytes() - before) as f64 / inserted as f64;
        report.line(&format!(
            "foyer, new entries with values of {bytes} bytes: {} bytes for each.\n",
            digits(written)
        ));
    }
}

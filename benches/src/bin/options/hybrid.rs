//! foyer's hybrid cache, filled with the same entries, all of which fit into its memory: closing
//! the cache is its save.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Instant;

use async_cache_benches::median;
use foyer::{
    BlockEngineConfig, Compression, DeviceBuilder as _, FsDeviceBuilder, HybridCache, HybridCacheBuilder,
};
use tokio::runtime::Runtime;

use crate::{Contender, Figures, Value, asked, micros, millis};

/// Printed above the tables.
pub(crate) const WHAT_DIFFERS: &str = "foyer is a cache that spills to disk, not a snapshot: closing it writes what is in \
    memory into the blocks of a device, each value aligned to 4096 bytes, and opening it scans the device. Its close does \
    not sync, so its files are synced within the time here. Of entries that its queues have no room for it drops some; they \
    were made large enough that none was missing. It has no secret, no deadlines, and no order of use across restarts.\n";

/// More than an entry takes on the device: one page, or two for a page of HTML. The queues get the
/// same size, so that no entry is dropped for lack of space.
const BYTES_PER_ENTRY: usize = 12 << 10;
const FEWEST_BYTES: usize = 64 << 20;

pub(crate) struct Hybrid {
    compression: Compression,
    runtime: Runtime,
}

impl Hybrid {
    pub(crate) fn plain() -> Self {
        Self::new(Compression::None)
    }

    pub(crate) fn zstd() -> Self {
        Self::new(Compression::Zstd)
    }

    fn new(compression: Compression) -> Self {
        Self { compression, runtime: Runtime::new().expect("threads") }
    }

    async fn open<V: Value>(&self, folder: &Path, entries: u64) -> HybridCache<u64, V> {
        let entries = usize::try_from(entries).expect("they are in memory");
        let bytes = (entries * BYTES_PER_ENTRY).max(FEWEST_BYTES);
        let device = FsDeviceBuilder::new(folder).with_capacity(bytes).build().expect("a folder");
        let engine = BlockEngineConfig::new(device)
            .with_buffer_pool_size(bytes)
            .with_submit_queue_size_threshold(bytes);
        // Its memory has shards, each with its part of the capacity.
        HybridCacheBuilder::new()
            .memory(entries * 4)
            .storage()
            .with_engine_config(engine)
            .with_compression(self.compression)
            .build()
            .await
            .expect("the folder is ours")
    }
}

impl<V: Value> Contender<V> for Hybrid {
    fn round(&mut self, folder: &Path, entries: u64, value: &dyn Fn(u64) -> V, figures: &mut Figures) {
        let folder = tempfile::tempdir_in(folder).expect("a folder");
        let folder = folder.path();
        self.runtime.block_on(async {
            let cache = self.open::<V>(folder, entries).await;
            (0..entries).for_each(|id| drop(cache.insert(id, value(id))));
            let started = Instant::now();
            cache.close().await.expect("there is room");
            sync(folder);
            figures.save_millis.push(millis(started));
            drop(cache);
            figures.bytes = allocated_bytes(folder);

            let started = Instant::now();
            let cache = self.open::<V>(folder, entries).await;
            figures.open_micros.push(micros(started));
            get(&cache, entries / 2).await;
            figures.first_get_micros.push(micros(started));
            let mut gets = Vec::new();
            for id in asked(entries) {
                let started = Instant::now();
                get(&cache, id).await;
                gets.push(micros(started));
            }
            figures.get_micros.push(median(gets));
            let started = Instant::now();
            cache.close().await.expect("there is room");
            sync(folder);
            figures.save_again_millis.push(millis(started));
        });
    }
}

async fn get<V: Value>(cache: &HybridCache<u64, V>, id: u64) {
    let entry = cache.get(&id).await.expect("the disk works");
    black_box(entry.unwrap_or_else(|| panic!("foyer lost entry {id}")).value());
}

fn files(folder: &Path) -> impl Iterator<Item = File> {
    let paths =
        std::fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("it is there").path());
    paths.filter_map(|path| File::open(path).ok())
}

fn sync(folder: &Path) {
    files(folder).for_each(|file| file.sync_all().expect("the disk works"));
}

/// The allocated size of the files, not their nominal size.
fn allocated_bytes(folder: &Path) -> u64 {
    files(folder).map(|file| file.metadata().expect("it is open").blocks() * 512).sum()
}

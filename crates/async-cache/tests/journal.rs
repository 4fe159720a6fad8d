//! Caches with a journal, through the public interface: each "life" is a cache over the same fake
//! disk; a life ends by a crash of its process, by a power loss, or in order.

mod closing;
mod evicting;
mod failing;
mod races;
mod sharing;
mod writing;

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use async_cache::{AsyncCache, Builder, Clock, DiskBackend, Eviction, Journal, ManualClock};
use async_cache_disk::fake::FakeDisk;
use serde::{Deserialize, Serialize};

const PATH: &str = "/var/cache/app.cache";

/// Syncs by itself only after longer than any test takes.
fn journal() -> Journal {
    Journal::new().flush_every(Duration::from_secs(3600))
}

fn backend(disk: &FakeDisk, journal: Journal) -> DiskBackend {
    DiskBackend::new(PATH).vfs(disk.as_vfs()).journal(journal)
}

/// A new process, with clocks of its own.
fn life<K, V>(disk: &FakeDisk, journal: Journal) -> (Builder<K, V>, ManualClock)
where
    K: Hash + Eq + Clone + Send + Sync + Serialize + for<'d> Deserialize<'d> + 'static,
    V: Clone + Send + Sync + Serialize + for<'d> Deserialize<'d> + 'static,
{
    let (clock, hands) = Clock::manual();
    hands.set_wall(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000));
    let builder = AsyncCache::builder().clock(clock).shards(1).eviction(Eviction::Lru);
    (builder.backup(backend(disk, journal)), hands)
}

fn open(disk: &FakeDisk) -> AsyncCache<u64, u64> {
    life(disk, journal()).0.build().unwrap()
}

/// The disk after the process has been killed at this moment. The cache must not be dropped before:
/// it closes its journal.
fn killed(disk: &FakeDisk) -> FakeDisk {
    disk.survivors().swap_remove(0).1
}

/// Every disk that a power loss may leave.
fn after_power_loss(disk: &FakeDisk) -> Vec<(String, FakeDisk)> {
    disk.survivors().split_off(1)
}

fn there(cache: &AsyncCache<u64, u64>, keys: std::ops::Range<u64>) -> Vec<(u64, u64)> {
    keys.filter_map(|key| Some((key, cache.get(&key)?))).collect()
}

/// A cache that is never dropped, as in a process that is killed.
fn immortal<T>(value: T) -> Arc<T> {
    let value = Arc::new(value);
    std::mem::forget(Arc::clone(&value));
    value
}

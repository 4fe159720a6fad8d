//! The cache without its file: sizes, time to live, counters, `Send` and `Sync`, and the use of a
//! cache by dropped values.

mod counters;
mod sizes;
mod types;

use async_cache::{AsyncCache, Builder, Clock, LoadError, ManualClock};

type Cache = AsyncCache<u64, u64>;

fn builder() -> (Builder<u64, u64>, ManualClock) {
    let (clock, hands) = Clock::manual();
    (AsyncCache::builder().clock(clock), hands)
}

fn cache() -> Cache {
    AsyncCache::builder().build().unwrap()
}

async fn loaded(cache: &Cache, key: u64, value: Result<u64, ()>) -> Result<u64, LoadError<()>> {
    cache.get_or_load(&key, move || async move { value }).await
}

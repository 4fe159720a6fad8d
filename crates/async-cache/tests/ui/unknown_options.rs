use async_cache::{async_lru, async_ttl};

#[async_lru(max_size = 10, ttl = "60s", maxsize = 1, maxsize = 2)]
async fn get(id: u64) -> u64 {
    id
}

#[async_ttl(eviction = fifo, cache_none, name = 7, maxsize)]
async fn find(id: u64) -> u64 {
    id
}

fn main() {}

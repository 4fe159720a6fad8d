use async_cache::async_lru;

#[async_lru(cache_none = false)]
async fn get(id: u64) -> u64 {
    id
}

fn main() {}

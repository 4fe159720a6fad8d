use async_cache::async_lru;

#[async_lru(skip_self)]
async fn get(id: u64) -> u64 {
    id
}

fn main() {}

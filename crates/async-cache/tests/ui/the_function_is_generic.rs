use async_cache::async_lru;

#[async_lru]
async fn get<T: ToString, const N: usize>(id: u64) -> u64 {
    id
}

fn main() {}

use async_cache::async_lru;

#[async_lru(key = idd)]
async fn get(id: u64) -> u64 {
    id
}

#[async_lru(key = name.to_lowercase())]
async fn find(name: &str) -> usize {
    name.len()
}

fn main() {}

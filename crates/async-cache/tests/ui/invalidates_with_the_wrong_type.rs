use async_cache::{async_lru, invalidates};

#[async_lru]
async fn get(id: u64) -> u64 {
    id
}

#[invalidates(get)]
async fn set(id: u32) {}

#[invalidates(get, key = (name))]
async fn rename(name: &str) {}

fn main() {}

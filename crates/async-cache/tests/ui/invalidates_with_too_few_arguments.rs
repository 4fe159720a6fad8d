use async_cache::{async_lru, invalidates};

#[async_lru]
async fn get(tenant: &str, id: u64) -> usize {
    tenant.len()
}

#[invalidates(get)]
async fn set(tenant: &str) {}

#[invalidates(get)]
async fn clear() {}

fn main() {}

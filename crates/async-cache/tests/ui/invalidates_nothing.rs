use async_cache::invalidates;

#[invalidates]
async fn set(id: u64) {}

#[invalidates(clear_all)]
async fn clear(id: u64) {}

fn main() {}

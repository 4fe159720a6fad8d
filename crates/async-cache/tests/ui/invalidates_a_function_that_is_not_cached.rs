use async_cache::invalidates;

async fn get(id: u64) -> u64 {
    id
}

#[invalidates(get)]
async fn set(id: u64) {}

fn main() {}

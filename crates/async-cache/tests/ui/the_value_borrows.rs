use async_cache::async_lru;

#[async_lru]
async fn get(name: &str) -> &str {
    name
}

fn main() {}
